#include "order.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml-metal-common.h"
#include "ggml-metal-fusion.h"

extern "C" {
#include "dispatch/metal_inner.h"
#include "dispatch/metal_order.h"
#include "dispatch/metal_trace.h"
#include "ggml/layout.h"
#include "ggml/metal_fuse.h"
}

namespace {

struct Failure {
    std::string text;
};

void check(bool condition, const std::string & what) {
    if (!condition) {
        throw Failure {what};
    }
}

template <typename Function> const char * reported(Function function) {
    static thread_local std::string text;
    try {
        function();
        return nullptr;
    } catch (const Failure & failure) {
        text = failure.text;
    } catch (const std::exception & exception) {
        text = exception.what();
    }
    return text.c_str();
}

//
// ggml-metal
//

ggml_metal_fusion_id id_of(const ggml_metal_fusion * fusion) {
    return fusion ? ggml_metal_fusion_get_id(fusion) : GGML_METAL_FUSION_NONE;
}

// One command buffer, kernel by kernel.
class Encoder {
  public:
    Encoder(const ggml_cgraph * cgraph, int begin, int end)
        : graph(cgraph), ranges(ggml_mem_ranges_init(0)) {
        for (int i = begin; i < end; i++) {
            if (!ggml_op_is_empty(graph->nodes[i]->op) && !ggml_is_empty(graph->nodes[i])) {
                indices.push_back(i);
            }
        }
    }
    ~Encoder() {
        ggml_mem_ranges_free(ranges);
    }
    Encoder(const Encoder &) = delete;
    Encoder & operator=(const Encoder &) = delete;

    void encode(metal_prediction * p) {
        const uint32_t before = p->kernels;
        for (int at = 0, n; at < (int) indices.size(); at += n) {
            n = 1;
            if (node(at)->flags & GGML_TENSOR_FLAG_COMPUTE) {
                n = encode_kernel(at, p);
            }
        }
        p->command_buffers += p->kernels > before;
    }

  private:
    const ggml_tensor * node(int at) const {
        return graph->nodes[indices[at]];
    }

    bool fits(int at) const {
        return ggml_mem_ranges_check(ranges, node(at));
    }

    int encode_kernel(int at, metal_prediction * p) {
        int n = 1;
        const ggml_metal_fusion_id id = id_of(ggml_metal_fusion_next(
            graph, indices.data(), (int) indices.size(), at, GGML_METAL_FUSION_FULL, &n));
        check(metal_fused(graph, indices.data(), (int) indices.size(), at) == n,
              std::string("another fusion at ") + node(at)->name);
        bool concurrent = fits(at) && (n == 1 || fits(at + n - 1));
        const bool looks_at_all =
            id == GGML_METAL_FUSION_NORM_MUL || id == GGML_METAL_FUSION_NORM_MUL_ADD ||
            id == GGML_METAL_FUSION_NORM_SCALE || id == GGML_METAL_FUSION_ADD_CHAIN ||
            id == GGML_METAL_FUSION_SNAKE;
        for (int i = 1; looks_at_all && i < n; i++) {
            concurrent = concurrent && fits(at + i);
        }
        if (!concurrent) {
            ggml_mem_ranges_reset(ranges);
            p->barriers++;
        }
        if (n == 1 && metal_inner_barriers(node(at)) > 0) {
            ggml_mem_ranges_reset(ranges);
        }
        for (int i = 0; i < n; i++) {
            ggml_mem_ranges_add(ranges, node(at + i));
        }
        p->kernels++;
        return n;
    }

    const ggml_cgraph * graph;
    ggml_mem_ranges_t ranges;
    std::vector<int> indices;
};

// Fusions that begin at nodes which the encoder would pass over.
void check_all_fusions(const ggml_cgraph * graph) {
    std::vector<int> indices;
    for (int i = 0; i < graph->n_nodes; i++) {
        if (metal_encodes(graph->nodes[i])) {
            indices.push_back(i);
        }
    }
    const int n = (int) indices.size();
    for (int at = 0; at < n; at++) {
        int theirs = 1;
        ggml_metal_fusion_next(graph, indices.data(), n, at, GGML_METAL_FUSION_FULL, &theirs);
        const int ours = metal_fused(graph, indices.data(), n, at);
        check(ours == theirs, std::string("node ") + std::to_string(indices[at]) + ": " +
                                  std::to_string(theirs) + " are fused, not " +
                                  std::to_string(ours));
    }
}

void predict(const ggml_cgraph * graph, metal_prediction * p) {
    *p = {};
    const int n = graph->n_nodes;
    const int first = std::min(std::max(64, n / 10), n);
    Encoder(graph, 0, first).encode(p);
    Encoder(graph, first, n).encode(p);
    ggc_metal_figures figures;
    check(ggc_metal_predict(graph, &figures) == GGC_OK, "no prediction");
    p->predicted_kernels = figures.n_kernels;
    p->predicted_barriers = figures.n_barriers;
    p->predicted_command_buffers = figures.n_command_buffers;
    p->inner_barriers = figures.n_inner_barriers;
    p->nodes = (uint32_t) n;
}

//
// Memory
//

class Unallocated {  // what has no memory, to be so again
  public:
    explicit Unallocated(const ggml_cgraph * graph) {
        for (int i = 0; i < graph->n_leafs; i++) {
            add(graph->leafs[i]);
        }
        for (int i = 0; i < graph->n_nodes; i++) {
            add(graph->nodes[i]);
            for (ggml_tensor * source : graph->nodes[i]->src) {
                add(source);
            }
        }
    }
    ~Unallocated() {
        for (ggml_tensor * tensor : tensors) {
            tensor->data = nullptr;
            tensor->buffer = nullptr;
        }
    }

  private:
    void add(ggml_tensor * tensor) {
        for (; tensor && !tensor->data; tensor = tensor->view_src) {
            tensors.push_back(tensor);
        }
    }

    std::vector<ggml_tensor *> tensors;
};

//
// Ours
//

struct Plan {
    explicit Plan(const ggml_cgraph * graph) {
        ggc_graph_params params;
        ggc_graph_params_init(&params);
        params.fuse = GGC_FUSE_METAL;
        params.tracked = true;
        check(ggc_graph_plan_new(graph, &params, &plan) == GGC_OK, "the graph cannot be planned");
    }
    ~Plan() {
        ggc_graph_plan_free(plan);
    }
    Plan(const Plan &) = delete;
    Plan & operator=(const Plan &) = delete;

    ggc_graph_plan * plan = nullptr;
};

struct Ordered {  // laid out, in our order
    Ordered(ggml_cgraph * original, size_t budget, uint32_t seed)
        : plan(original), graph(*original) {
        const layout_params params = {ggml_backend_cpu_buffer_type(), budget, true, nullptr, false};
        const message message = {nullptr, 0};
        check(layout_init(&layout, original, plan.plan, &params, &message) == GGC_OK,
              "the graph cannot be laid out");
        if (metal_order_init(&order, original, plan.plan, seed) != GGC_OK) {
            layout_free(&layout);
            throw Failure {"the graph cannot be sorted"};
        }
        graph.nodes = order.nodes;
        graph.n_nodes = order.n_nodes;
    }
    ~Ordered() {
        metal_order_free(&order);
        layout_free(&layout);
    }
    Ordered(const Ordered &) = delete;
    Ordered & operator=(const Ordered &) = delete;

    Plan plan;
    struct layout layout;
    metal_order order;
    ggml_cgraph graph;
};

struct Trace {
    explicit Trace(const ggml_cgraph * graph) {
        check(metal_trace_init(&trace, graph) == GGC_OK, "no trace");
    }
    ~Trace() {
        metal_trace_free(&trace);
    }
    Trace(const Trace &) = delete;
    Trace & operator=(const Trace &) = delete;

    metal_trace trace;
};

uint32_t phase_at(const ggml_cgraph * original, const Plan & plan, const ggml_tensor * node) {
    for (int i = 0; i < original->n_nodes; i++) {
        if (original->nodes[i] == node) {
            return ggc_graph_plan_node_phases(plan.plan)[i];
        }
    }
    return GGC_NONE;
}

// Whether the two nodes of the original at the cut are of one phase.
bool cuts_phase(const ggml_cgraph * original, const Ordered & ordered) {
    const int cut = metal_first_nodes(ordered.graph.n_nodes);
    if (cut == ordered.graph.n_nodes) {
        return false;
    }
    uint32_t before = GGC_NONE, after = GGC_NONE;
    for (int i = 0; i < ordered.graph.n_nodes; i++) {
        const uint32_t phase = phase_at(original, ordered.plan, ordered.graph.nodes[i]);
        if (phase != GGC_NONE && i < cut) {
            before = phase;
        } else if (phase != GGC_NONE && after == GGC_NONE) {
            after = phase;
        }
    }
    return before == after;
}

// Kernels of two neighbouring groups made one, back to front: everything else is as it was.
bool spoil(metal_trace & trace) {
    bool spoilt = false;
    for (uint32_t k = 0; k < trace.n_kernels; k++) {
        metal_kernel & kernel = trace.kernels[k];
        spoilt = spoilt || kernel.last > 0;
        kernel.first /= 2;
        kernel.last /= 2;
    }
    return spoilt;
}

}  // namespace

const char * metal_predict_plain(ggml_cgraph * graph, metal_prediction * prediction) {
    return reported([&] {
        const Unallocated before(graph);
        ggml_gallocr_t allocator = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
        const bool allocated = ggml_gallocr_alloc_graph(allocator, graph);
        std::string failure = allocated ? "" : "ggml-alloc cannot allocate the graph";
        try {
            check_all_fusions(graph);
            predict(graph, prediction);
        } catch (const Failure & found) {
            failure = found.text;
        }
        ggml_gallocr_free(allocator);
        check(failure.empty(), failure);
    });
}

const char * metal_predict_ours(ggml_cgraph * graph, size_t budget, uint32_t seed,
                                metal_prediction * prediction) {
    return reported([&] {
        const Ordered ordered(graph, budget, seed);
        predict(&ordered.graph, prediction);
        prediction->phases = ggc_plan_get_stats(ggc_graph_plan_core(ordered.plan.plan)).n_phases;
        prediction->cuts_phase = cuts_phase(graph, ordered);
        const Trace trace(&ordered.graph);
        ggc_conflict race;
        const ggc_status status = metal_trace_verify(&trace.trace, &ordered.graph, &race);
        check(status == GGC_OK, "our order is refuted: nodes " + std::to_string(race.a) + " and " +
                                    std::to_string(race.b));
    });
}

const char * metal_prove_wrong(ggml_cgraph * graph) {
    return reported([&] {
        const Ordered ordered(graph, (size_t) 1 << 30, 0);
        Trace trace(&ordered.graph);
        ggc_conflict race;
        if (spoil(trace.trace)) {
            check(metal_trace_verify(&trace.trace, &ordered.graph, &race) == GGC_E_RACE,
                  "half of the barriers are missing and nothing is found");
        }
    });
}
