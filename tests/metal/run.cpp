#include "run.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"

// The first of ggml's Metal backend, or the simulated one.
static ggml_backend_dev_t device() {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name("MTL");
    return reg && ggml_backend_reg_dev_count(reg) > 0 ? ggml_backend_reg_dev_get(reg, 0) : nullptr;
}

//
// A graph, to be put back as it was
//

namespace {

struct Tensor {
    ggml_tensor before;
    ggml_tensor * tensor;
};

class Saved {  // what allocators and the scheduler change
  public:
    explicit Saved(ggml_cgraph * changed)
        : graph(changed), nodes(changed->nodes, changed->nodes + changed->n_nodes) {
        for (int i = 0; i < graph->n_leafs; i++) {
            add(graph->leafs[i]);
        }
        for (ggml_tensor * node : nodes) {
            add(node);
        }
    }
    ~Saved() {
        std::copy(nodes.begin(), nodes.end(), graph->nodes);
        for (const Tensor & saved : tensors) {
            *saved.tensor = saved.before;
        }
    }
    Saved(const Saved &) = delete;
    Saved & operator=(const Saved &) = delete;

    std::vector<Tensor> tensors;

  private:
    void add(ggml_tensor * tensor) {
        if (!tensor || !seen.insert(tensor).second) {
            return;
        }
        tensors.push_back({*tensor, tensor});
        add(tensor->view_src);
        for (ggml_tensor * source : tensor->src) {
            add(source);
        }
    }

    ggml_cgraph * graph;
    std::vector<ggml_tensor *> nodes;
    std::set<ggml_tensor *> seen;
};

class Reserved {  // memory for weights without any, and for inputs if they are wanted too
  public:
    Reserved(const Saved & saved, bool inputs) {
        ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(device());
        size_t size = 1;
        for (const Tensor & one : saved.tensors) {
            size += wanted(one, inputs) ? room(one.tensor) : 0;
        }
        buffer = ggml_backend_buft_alloc_buffer(type, size);
        char * data = (char *) ggml_backend_buffer_get_base(buffer);
        for (const Tensor & one : saved.tensors) {
            if (wanted(one, inputs)) {
                ggml_backend_tensor_alloc(buffer, one.tensor, data);
                data += room(one.tensor);
            }
        }
    }
    ~Reserved() {
        ggml_backend_buffer_free(buffer);
    }
    Reserved(const Reserved &) = delete;
    Reserved & operator=(const Reserved &) = delete;

  private:
    static bool wanted(const Tensor & one, bool inputs) {
        const ggml_tensor & tensor = one.before;
        return tensor.op == GGML_OP_NONE && !tensor.data && !tensor.view_src &&
               (inputs || !(tensor.flags & GGML_TENSOR_FLAG_INPUT));
    }

    static size_t room(const ggml_tensor * tensor) {  // with a gap: ranges that touch conflict
        return GGML_PAD(ggml_nbytes(tensor), 64) + 64;
    }

    ggml_backend_buffer_t buffer;
};

class Mapped {  // host memory as memory of the device, whose own stays as it is
  public:
    explicit Mapped(const Saved & saved) {
        for (const Tensor & one : saved.tensors) {
            if (one.tensor->buffer) {
                one.tensor->buffer = of(one.tensor->buffer);
            }
        }
    }
    ~Mapped() {
        for (const auto & pair : buffers) {
            ggml_backend_buffer_free(pair.second);
        }
    }
    Mapped(const Mapped &) = delete;
    Mapped & operator=(const Mapped &) = delete;

  private:
    ggml_backend_buffer_t of(ggml_backend_buffer_t host) {
        if (ggml_backend_buft_get_device(ggml_backend_buffer_get_type(host)) == device()) {
            return host;
        }
        ggml_backend_buffer_t & mapped = buffers[host];
        if (!mapped) {
            const size_t size = ggml_backend_buffer_get_size(host);
            mapped = ggml_backend_dev_buffer_from_host_ptr(
                device(), ggml_backend_buffer_get_base(host), size, size);
        }
        return mapped;
    }

    std::unordered_map<ggml_backend_buffer_t, ggml_backend_buffer_t> buffers;
};

}  // namespace

struct metal_run {
    metal_run(ggml_cgraph * of, enum metal_run_way way)
        : graph(of), saved(of), mapped(saved), reserved(saved, way == METAL_RUN_REORDER) {
        backends[0] = ggml_backend_dev_init(device(), nullptr);
        backends[1] = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    }
    ~metal_run() {
        wait();
        ggml_gallocr_free(allocator);
        if (scheduler) {
            ggml_backend_sched_free(scheduler);
        }
        ggml_backend_free(backends[0]);
        ggml_backend_free(backends[1]);
    }
    metal_run(const metal_run &) = delete;
    metal_run & operator=(const metal_run &) = delete;

    bool allocate(enum metal_run_way way, const int32_t * order) {
        if (order && way == METAL_RUN_PLAIN) {
            reorder(order);
        }
        if (way == METAL_RUN_REORDER) {
            scheduler =
                ggml_backend_sched_new(backends, nullptr, 2, (size_t) graph->size, false, false);
            return ggml_backend_sched_alloc_graph(scheduler, graph);
        }
        for (int i = 0; i < graph->n_nodes; i++) {
            if (!ggml_backend_dev_supports_op(device(), graph->nodes[i])) {
                return false;
            }
        }
        allocator = ggml_gallocr_new(ggml_backend_dev_buffer_type(device()));
        const bool allocated = ggml_gallocr_alloc_graph(allocator, graph);
        if (order && way == METAL_RUN_LATE) {
            reorder(order);
        }
        return allocated;
    }

    void reorder(const int32_t * order) {
        const std::vector<ggml_tensor *> before(graph->nodes, graph->nodes + graph->n_nodes);
        for (int i = 0; i < graph->n_nodes; i++) {
            graph->nodes[i] = before[(size_t) order[i]];
        }
    }

    ggml_status start() {
        return scheduler ? ggml_backend_sched_graph_compute_async(scheduler, graph)
                         : ggml_backend_graph_compute_async(backends[0], graph);
    }

    void wait() {
        if (scheduler) {
            ggml_backend_sched_synchronize(scheduler);
        }
        ggml_backend_synchronize(backends[0]);
    }

    ggml_cgraph * graph;
    Saved saved;
    Mapped mapped;
    Reserved reserved;
    ggml_backend_t backends[2];
    ggml_gallocr_t allocator = nullptr;
    ggml_backend_sched_t scheduler = nullptr;
};

//
// For C
//

struct metal_run_weights {
    explicit metal_run_weights(ggml_cgraph * of) : saved(of), reserved(saved, false) {}

    Saved saved;
    Reserved reserved;
};

metal_run_weights * metal_run_weights_new(ggml_cgraph * graph) {
    return new metal_run_weights(graph);
}

void metal_run_weights_free(metal_run_weights * weights) {
    delete weights;
}

metal_run * metal_run_new(ggml_cgraph * graph, enum metal_run_way way, const int32_t * order) {
    if (!device()) {
        return nullptr;
    }
    auto * run = new metal_run(graph, way);
    if (!run->allocate(way, order)) {
        delete run;
        return nullptr;
    }
    return run;
}

int metal_run_compute(metal_run * run, int32_t start_only) {
    const ggml_status status = run->start();
    if (!start_only) {
        run->wait();
    }
    return status == GGML_STATUS_SUCCESS ? 0 : 1;
}

void metal_run_free(metal_run * run) {
    delete run;
}
