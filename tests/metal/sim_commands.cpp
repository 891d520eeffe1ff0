#include "sim_commands.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "ggml-backend-impl.h"
#include "ggml-impl.h"

Sim & sim() {
    static Sim instance = [] {
        Sim fresh;
        const char * seed = getenv("GGC_METAL_SIM_SEED");
        fresh.seed = seed ? strtoull(seed, nullptr, 10) : 0;
        return fresh;
    }();
    return instance;
}

void Sim::tell(int32_t & counter, const std::string & what) {
    if (report.first[0] == '\0') {
        snprintf(report.first, sizeof(report.first), "%s", what.c_str());
    }
    counter++;
}

void metal_queue::finish() {
    std::vector<std::function<void()>> commands;
    commands.swap(pending);
    for (const auto & command : commands) {
        command();
    }
}

//
// Kernels
//

namespace {

bool is_view_of(const ggml_tensor * tensor, const ggml_tensor * node) {
    return tensor == node || tensor->view_src == node;
}

// Which nodes of a fused kernel reach memory: the last, and what else some patterns give.
std::vector<bool> written_nodes(size_t n, ggml_metal_fusion_id fusion) {
    std::vector<bool> written(n, false);
    written[n - 1] = true;
    if (fusion == GGML_METAL_FUSION_TOPK_MOE) {
        written[1] = true;  // the experts' numbers
    }
    if (fusion == GGML_METAL_FUSION_GDN_CACHE) {
        written[0] = true;
    }
    return written;
}

// Sources that an operation changes besides its result.
bool changes_source(const ggml_tensor * node, int i) {
    return (node->op == GGML_OP_OPT_STEP_ADAMW && (i == 0 || i == 2 || i == 3)) ||
           (node->op == GGML_OP_OPT_STEP_SGD && i == 0);
}

size_t size_of(const ggml_tensor * tensor, bool write) {
    if (!write || tensor->view_src) {
        return ggml_nbytes(tensor);
    }
    return ggml_backend_buft_get_alloc_size(tensor->buffer->buft, tensor);  // results have scratch
}

}  // namespace

Kernel::Kernel(const std::vector<const ggml_tensor *> & originals, ggml_metal_fusion_id fusion) {
    const std::vector<bool> written = written_nodes(originals.size(), fusion);
    for (size_t i = 0; i < originals.size(); i++) {
        const ggml_tensor * node = originals[i];
        name += (i > 0 ? "+" : "") + std::string(ggml_op_name(node->op));
        if (written[i]) {
            note(node, true);
        }
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            const ggml_tensor * source = node->src[s];
            if (source && std::none_of(originals.begin(), originals.begin() + i,
                                       [&](auto * other) { return is_view_of(source, other); })) {
                note(source, changes_source(node, s));
            }
        }
    }
    name += std::string(" '") + originals.back()->name + "'";
    copy_nodes(originals, written);
}

void Kernel::note(const ggml_tensor * tensor, bool write) {
    const char * data = (const char *) tensor->data;
    accesses.push_back({data, data + size_of(tensor, write), write});
}

ggml_tensor * Kernel::copy(const ggml_tensor * tensor) {
    tensors.push_back(std::make_unique<ggml_tensor>(*tensor));
    return tensors.back().get();
}

void Kernel::copy_nodes(const std::vector<const ggml_tensor *> & originals,
                        const std::vector<bool> & written) {
    std::vector<char *> moved(originals.size(), nullptr);  // where results lie that stay inside
    for (size_t i = 0; i < originals.size(); i++) {
        ggml_tensor * node = copy(originals[i]);
        for (auto & source : node->src) {
            if (!source) {
                continue;
            }
            const ggml_tensor * original = source;
            source = copy(original);
            for (size_t j = 0; j < i; j++) {
                if (moved[j] && is_view_of(original, originals[j])) {
                    source->data =
                        moved[j] + ((char *) original->data - (char *) originals[j]->data);
                }
            }
        }
        if (!written[i]) {
            scratch.emplace_back(ggml_nbytes(node) + 64);
            char * begin = scratch.back().data();
            moved[i] = begin + (64 - (uintptr_t) begin % 64) % 64;
            node->data = moved[i];
        }
        nodes.push_back(node);
    }
}

//
// Shadow memory: who touches what between two barriers
//

namespace {

const char * word(const Access & access) {
    return access.write ? "writes" : "reads";
}

void check_pair(const Kernel & a, const Kernel & b) {
    for (const Access & x : a.accesses) {
        for (const Access & y : b.accesses) {
            if ((x.write || y.write) && x.begin < y.end && y.begin < x.end) {
                sim().tell(sim().report.races, a.name + " " + word(x) + " what " + b.name + " " +
                                                   word(y) + ", and no barrier is between them");
                return;
            }
        }
    }
}

}  // namespace

void check_group(const Group & group) {
    const auto & kernels = group.touching;
    for (size_t i = 0; i < kernels.size(); i++) {
        for (size_t j = 0; j < i; j++) {
            check_pair(*kernels[j], *kernels[i]);
        }
    }
    sim().report.widest = std::max(sim().report.widest, (int32_t) kernels.size());
}

//
// Running
//

namespace {

// CPU backends with one thread each: a kernel's bits do not depend on who else runs.
ggml_backend_t worker(size_t i) {
    static ggml_backend_t workers[2] = {};
    if (!workers[i]) {
        workers[i] = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
        GGML_ASSERT(workers[i] && "load the CPU backend first");
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(workers[i]));
        auto set = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(
            reg, "ggml_backend_set_n_threads");
        set(workers[i], 1);
    }
    return workers[i];
}

void run(const Kernel & kernel, ggml_backend_t backend) {
    for (ggml_tensor * node : kernel.nodes) {
        ggml_cgraph graph = {};
        graph.nodes = &node;
        graph.n_nodes = 1;
        const enum ggml_status status = ggml_backend_graph_compute(backend, &graph);
        GGML_ASSERT(status == GGML_STATUS_SUCCESS);
    }
}

void run_two_at_a_time(const std::vector<const Kernel *> & kernels) {
    std::atomic<size_t> next = 0;
    const auto work = [&](ggml_backend_t backend) {
        for (size_t i = next++; i < kernels.size(); i = next++) {
            run(*kernels[i], backend);
        }
    };
    ggml_backend_t other = worker(1);
    std::thread thread(work, other);
    work(worker(0));
    thread.join();
}

}  // namespace

void run_group(const Group & group, uint64_t seed) {
    std::vector<const Kernel *> kernels = group.running;
    bool two = false;
    if (seed) {
        std::mt19937_64 random(seed);
        std::shuffle(kernels.begin(), kernels.end(), random);
        two = kernels.size() > 1 && random() % 4 == 0;
    }
    if (two) {
        run_two_at_a_time(kernels);
        return;
    }
    for (const Kernel * kernel : kernels) {
        run(*kernel, worker(0));
    }
}
