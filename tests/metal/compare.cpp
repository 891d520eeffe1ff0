#include "compare.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <unordered_map>
#include <vector>

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml-metal-common.h"
#include "ggml-metal-device.h"
#include "ggml-metal-fusion.h"

extern "C" {
#include "ggml/layout.h"  // written for C alone; what it includes of ggml's is there already
}

// The one function that the portable source wants from the rest of ggml-metal.
extern "C" ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t buffer,
                                                         const ggml_tensor *) {
    return {buffer, 0};
}

namespace {

using Nodes = std::vector<ggml_tensor *>;

struct Failure {
    std::string text;
};

void check(bool condition, const char * what) {
    if (!condition) {
        throw Failure {what};
    }
}

ggml_cgraph with_nodes(const ggml_cgraph * graph, Nodes & nodes) {
    ggml_cgraph copy = *graph;
    copy.nodes = nodes.data();
    copy.n_nodes = (int) nodes.size();
    return copy;
}

Nodes nodes_of(const ggml_cgraph * graph) {
    return Nodes(graph->nodes, graph->nodes + graph->n_nodes);
}

//
// What ggml-metal does
//

Nodes reordered(const ggml_cgraph * graph) {
    Nodes nodes = nodes_of(graph);
    ggml_cgraph copy = with_nodes(graph, nodes);
    ggml_graph_optimize(&copy);
    return nodes;
}

// Indices of the nodes that its encoder sees.
std::vector<int> encoded(const ggml_cgraph * graph) {
    std::vector<int> indices;
    for (int i = 0; i < graph->n_nodes; i++) {
        if (!ggml_op_is_empty(graph->nodes[i]->op) && !ggml_is_empty(graph->nodes[i])) {
            indices.push_back(i);
        }
    }
    return indices;
}

int fused_at(const ggml_cgraph * graph, const std::vector<int> & indices, size_t at) {
    int n = 1;
    const bool allocated = graph->nodes[indices[at]]->data != nullptr;
    ggml_metal_fusion_next(graph, indices.data(), (int) indices.size(), (int) at,
                           allocated ? GGML_METAL_FUSION_FULL : GGML_METAL_FUSION_STRUCTURAL, &n);
    return n;
}

// The kernel that computes each node, by the node's index; adjacent nodes of one are fused.
using Kernels = std::unordered_map<const ggml_tensor *, int>;

Kernels kernels_of(const ggml_cgraph * graph) {
    const std::vector<int> indices = encoded(graph);
    Kernels kernels;
    for (size_t at = 0; at < indices.size();) {
        const size_t end = at + (size_t) fused_at(graph, indices, at);
        for (const int first = indices[at]; at < end; at++) {
            kernels[graph->nodes[indices[at]]] = first;
        }
    }
    return kernels;
}

// Walks over the nodes as the encoder does: a barrier where a kernel touches what others have
// touched since the last one. Barriers inside of operations of several kernels do not count: they
// are the same in every order.
int barriers_of(const ggml_cgraph * original, Nodes nodes, const Kernels & kernels) {
    const ggml_cgraph graph = with_nodes(original, nodes);
    const std::vector<int> indices = encoded(&graph);
    ggml_mem_ranges_t ranges = ggml_mem_ranges_init(0);
    int n_barriers = 0;
    for (size_t at = 0, end; at < indices.size(); at = end) {
        const auto kernel = [&](size_t i) { return kernels.at(nodes[indices[i]]); };
        for (end = at + 1; end < indices.size() && kernel(end) == kernel(at);) {
            end++;
        }
        const auto idle = [&](int i) { return !(nodes[i]->flags & GGML_TENSOR_FLAG_COMPUTE); };
        const auto free = [&](int i) {
            return idle(i) || ggml_mem_ranges_check(ranges, nodes[i]);
        };
        if (!std::all_of(indices.begin() + at, indices.begin() + end, free)) {
            ggml_mem_ranges_reset(ranges);
            n_barriers++;
        }
        for (size_t i = at; i < end; i++) {
            if (!idle(indices[i])) {
                ggml_mem_ranges_add(ranges, nodes[indices[i]]);
            }
        }
    }
    ggml_mem_ranges_free(ranges);
    return n_barriers;
}

// The same for an order of the nodes in which other nodes may have become neighbours, and be fused.
int barriers_exact(const ggml_cgraph * original, Nodes nodes, const Kernels & kernels);
int barriers_refused(const ggml_cgraph * original, Nodes nodes) {
    const ggml_cgraph graph = with_nodes(original, nodes);
    return barriers_of(original, nodes, kernels_of(&graph));
}

//
// What we do
//

class Plan {
  public:
    explicit Plan(const ggml_cgraph * graph) {
        ggc_graph_params params;
        ggc_graph_params_init(&params);
        params.fuse = GGC_FUSE_METAL;
        check(ggc_graph_plan_new(graph, &params, &plan) == GGC_OK, "the graph cannot be planned");
    }
    ~Plan() { ggc_graph_plan_free(plan); }
    Plan(const Plan &) = delete;
    Plan & operator=(const Plan &) = delete;

    ggc_units units() const { return ggc_graph_plan_units(plan); }
    const uint32_t * unit_of_node() const { return ggc_graph_plan_unit_of_node(plan); }
    const uint32_t * unit_phases() const { return ggc_plan_phases(ggc_graph_plan_core(plan)); }

    Nodes order(const ggml_cgraph * graph) const {
        Nodes nodes;
        for (int i = 0; i < graph->n_nodes; i++) {
            nodes.push_back(graph->nodes[plan->node_order[i]]);
        }
        return nodes;
    }

    int n_barriers() const {
        const uint32_t n = ggc_plan_get_stats(ggc_graph_plan_core(plan)).n_phases;
        return n > 0 ? (int) n - 1 : 0;
    }

    ggc_graph_plan * plan = nullptr;
};

// Every fusion that ggml-metal finds, wherever in the graph it begins, lies in one unit.
void check_fusions(const ggml_cgraph * graph, const Plan & plan) {
    const std::vector<int> indices = encoded(graph);
    for (size_t at = 0; at < indices.size(); at++) {
        const size_t last = at + (size_t) fused_at(graph, indices, at) - 1;
        for (int i = indices[at]; i <= indices[last] && last > at; i++) {
            check(plan.unit_of_node()[i] == plan.unit_of_node()[indices[at]],
                  "ggml-metal fuses nodes of two units");
        }
    }
}

//
// The minimum
//

struct Range {
    uint64_t begin, end;
};

bool overlap(const ggc_access & a, const ggc_access & b) {
    if (a.buffer != b.buffer || (a.mode == GGC_READ && b.mode == GGC_READ)) {
        return false;
    }
    const auto run = [](const ggc_access & access, uint32_t i) {
        const uint64_t begin = access.offset + i * access.stride;
        return Range {begin, begin + access.run};
    };
    for (uint32_t i = 0, j = 0; i < a.count && j < b.count;) {
        const Range x = run(a, i), y = run(b, j);
        if (x.begin < y.end && y.begin < x.end) {
            return true;
        }
        x.end <= y.end ? i++ : j++;
    }
    return false;
}

bool conflict(const ggc_units & units, uint32_t u, uint32_t v) {
    if (units.fence[u] || units.fence[v]) {
        return true;
    }
    for (uint32_t i = units.access_begin[u]; i < units.access_begin[u + 1]; i++) {
        for (uint32_t j = units.access_begin[v]; j < units.access_begin[v + 1]; j++) {
            if (overlap(units.accesses[i], units.accesses[j])) {
                return true;
            }
        }
    }
    return false;
}

int longest_chain(const ggc_units & units) {
    std::vector<int> length(units.n_units, 1);
    int longest = 0;
    for (uint32_t v = 0; v < units.n_units; v++) {
        for (uint32_t u = 0; u < v; u++) {
            if (length[u] >= length[v] && conflict(units, u, v)) {
                length[v] = length[u] + 1;
            }
        }
        longest = std::max(longest, length[v]);
    }
    return longest;
}

int minimum_of(const ggc_units & units) { return std::max(0, longest_chain(units) - 1); }

int barriers_exact(const ggml_cgraph * original, Nodes nodes, const Kernels & kernels) {
    ggc_graph_plan * plan = nullptr;
    check(ggc_graph_plan_new(original, nullptr, &plan) == GGC_OK, "plan");
    const ggc_units units = ggc_graph_plan_units(plan);
    std::unordered_map<const ggml_tensor *, uint32_t> unit;
    for (int i = 0; i < original->n_nodes; i++) unit[original->nodes[i]] = ggc_graph_plan_unit_of_node(plan)[i];
    const ggml_cgraph graph = with_nodes(original, nodes);
    const std::vector<int> indices = encoded(&graph);
    std::vector<uint32_t> since;
    int n_barriers = 0;
    for (size_t at = 0, end; at < indices.size(); at = end) {
        const auto kernel = [&](size_t i) { return kernels.at(nodes[indices[i]]); };
        for (end = at + 1; end < indices.size() && kernel(end) == kernel(at);) end++;
        bool bad = false;
        for (size_t i = at; i < end; i++) { uint32_t u = unit[nodes[indices[i]]]; if (u == GGC_NONE) continue;
            for (uint32_t v : since) bad = bad || conflict(units, u, v); }
        if (bad) { since.clear(); n_barriers++; }
        for (size_t i = at; i < end; i++) { uint32_t u = unit[nodes[indices[i]]]; if (u != GGC_NONE) since.push_back(u); }
    }
    ggc_graph_plan_free(plan);
    return n_barriers;
}

void count_ours(const ggml_cgraph * graph, const Plan & plan, metal_barriers * barriers) {
    const ggc_units units = plan.units();
    barriers->nodes = (int) encoded(graph).size();
    barriers->units = (int) units.n_units;
    barriers->ours = plan.n_barriers();
    barriers->minimum = minimum_of(units);
    barriers->needed = barriers_exact(graph, plan.order(graph), kernels_of(graph));
    barriers->tracked = barriers_of(graph, plan.order(graph), kernels_of(graph));
    check(ggc_verify_phases(&units, plan.unit_phases(), nullptr) == GGC_OK,
          "the verifier refutes our phases");
}

//
// Memory for one order of the nodes
//

class Unallocated {  // what has no memory, to be so again
  public:
    explicit Unallocated(const ggml_cgraph * graph) {
        for (int i = 0; i < graph->n_leafs; i++) {
            add(graph->leafs[i]);
        }
        for (int i = 0; i < graph->n_nodes; i++) {
            check(!graph->nodes[i]->data || graph->nodes[i]->view_src, "a node has memory already");
            add(graph->nodes[i]);
            std::for_each_n(graph->nodes[i]->src, GGML_MAX_SRC, [&](auto * src) { add(src); });
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

    Nodes tensors;
};

// Calls `count` with a graph of these nodes that ggml's allocator has given memory.
template <typename Count>
void with_memory(const ggml_cgraph * graph, Nodes nodes, Count count) {
    const Unallocated before(graph);
    ggml_cgraph copy = with_nodes(graph, nodes);
    ggml_gallocr_t allocator = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    const bool allocated = ggml_gallocr_alloc_graph(allocator, &copy);
    if (allocated) {
        count(&copy, nodes);
    }
    ggml_gallocr_free(allocator);
    check(allocated, "ggml-alloc cannot allocate the graph");
}

void ours_with_memory(ggml_cgraph * graph, metal_barriers * barriers) {
    const Plan before(graph);
    struct layout layout;
    const struct message message = {nullptr, 0};
    const ggc_status status = layout_init(&layout, graph, before.plan,
                                          ggml_backend_cpu_buffer_type(), 0, &message);
    check(status == GGC_OK, "the graph cannot be laid out");
    try {
        const Plan after(graph);
        count_ours(graph, after, barriers);
        check_fusions(graph, after);
    } catch (...) {
        layout_free(&layout);
        throw;
    }
    layout_free(&layout);
}

//
// For C
//

template <typename Function>
const char * reported(Function function) {
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

template <typename Function>
double seconds_of(Function function) {
    const auto start = std::chrono::steady_clock::now();
    function();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

const char * metal_compare(ggml_cgraph * graph, metal_barriers * barriers) {
    return reported([&] {
        const Plan plan(graph);
        const Kernels kernels = kernels_of(graph);
        barriers->plain = barriers_of(graph, nodes_of(graph), kernels);
        barriers->reorder = barriers_of(graph, reordered(graph), kernels);
        barriers->refused = barriers_refused(graph, reordered(graph));
        barriers->theirs_exact = barriers_exact(graph, reordered(graph), kernels);
        count_ours(graph, plan, barriers);
        check_fusions(graph, plan);
    });
}

const char * metal_compare_allocated(ggml_cgraph * graph, metal_barriers * barriers) {
    return reported([&] {
        const Kernels kernels = kernels_of(graph);
        with_memory(graph, nodes_of(graph), [&](const ggml_cgraph * copy, const Nodes & nodes) {
            barriers->plain = barriers_of(copy, nodes, kernels);
        });
        with_memory(graph, reordered(graph), [&](const ggml_cgraph * copy, const Nodes & nodes) {
            barriers->reorder = barriers_of(copy, nodes, kernels);
            barriers->refused = barriers_refused(copy, nodes);
            barriers->theirs_exact = barriers_exact(copy, nodes, kernels_of(copy));
        });
        ours_with_memory(graph, barriers);
    });
}

const char * metal_time(ggml_cgraph * graph, int repeats, metal_seconds * seconds) {
    return reported([&] {
        *seconds = {0, 0};
        for (int i = 0; i < repeats; i++) {
            seconds->reorder += seconds_of([&] { reordered(graph); });
            seconds->plan += seconds_of([&] { const Plan plan(graph); });
        }
    });
}
