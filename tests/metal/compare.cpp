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

// A graph with nodes in an order of its own.
struct Order {
    Order(const ggml_cgraph * original, Nodes in_order)
        : nodes(std::move(in_order)), graph(*original) {
        graph.nodes = nodes.data();
        graph.n_nodes = (int) nodes.size();
    }
    Order(const Order &) = delete;
    Order & operator=(const Order &) = delete;

    Nodes nodes;
    ggml_cgraph graph;
};

Nodes nodes_of(const ggml_cgraph * graph) {
    return Nodes(graph->nodes, graph->nodes + graph->n_nodes);
}

int longest(const std::vector<int> & lengths) {
    return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
}

// One less than the longest chain of 0 .. n-1, each link a conflict of an earlier with a later.
template <typename Conflict> int barriers_at_least(size_t n, Conflict conflict) {
    std::vector<int> length(n, 1);
    for (size_t v = 0; v < n; v++) {
        for (size_t u = 0; u < v; u++) {
            if (length[u] >= length[v] && conflict(u, v)) {
                length[v] = length[u] + 1;
            }
        }
    }
    return std::max(0, longest(length) - 1);
}

//
// What ggml-metal does
//

Nodes reordered(const ggml_cgraph * graph) {
    Order order(graph, nodes_of(graph));
    ggml_graph_optimize(&order.graph);
    return order.nodes;
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

// How many of the nodes from `at` on it fuses.
size_t fused(const ggml_cgraph * graph, const std::vector<int> & indices, size_t at) {
    int n = 1;
    const bool allocated = graph->nodes[indices[at]]->data != nullptr;
    ggml_metal_fusion_next(graph, indices.data(), (int) indices.size(), (int) at,
                           allocated ? GGML_METAL_FUSION_FULL : GGML_METAL_FUSION_STRUCTURAL, &n);
    return (size_t) n;
}

using Kernels = std::vector<Nodes>;

Kernels kernels_of(const ggml_cgraph * graph) {
    const std::vector<int> indices = encoded(graph);
    Kernels kernels;
    for (size_t at = 0, end; at < indices.size(); at = end) {
        end = at + 1;
        if (graph->nodes[indices[at]]->flags & GGML_TENSOR_FLAG_COMPUTE) {
            end = at + fused(graph, indices, at);
            kernels.emplace_back();
            for (size_t i = at; i < end; i++) {
                kernels.back().push_back(graph->nodes[indices[i]]);
            }
        }
    }
    return kernels;
}

// Goes from kernel to kernel as its encoder does: a barrier where one touches what others have
// touched since the last. Those inside of operations that are several kernels by themselves do not
// count: they are the same in every order.
int tracked(const Kernels & kernels) {
    ggml_mem_ranges_t ranges = ggml_mem_ranges_init(0);
    int n_barriers = 0;
    for (const Nodes & kernel : kernels) {
        if (!std::all_of(kernel.begin(), kernel.end(),
                         [&](auto * node) { return ggml_mem_ranges_check(ranges, node); })) {
            ggml_mem_ranges_reset(ranges);
            n_barriers++;
        }
        for (const ggml_tensor * node : kernel) {
            ggml_mem_ranges_add(ranges, node);
        }
    }
    ggml_mem_ranges_free(ranges);
    return n_barriers;
}

//
// What we do
//

struct Plan {
    Plan(const ggml_cgraph * graph, ggc_fuse fuse) {
        ggc_graph_params params;
        ggc_graph_params_init(&params);
        params.fuse = fuse;
        check(ggc_graph_plan_new(graph, &params, &plan) == GGC_OK, "the graph cannot be planned");
        units = ggc_graph_plan_units(plan);
    }
    ~Plan() {
        ggc_graph_plan_free(plan);
    }
    Plan(const Plan &) = delete;
    Plan & operator=(const Plan &) = delete;

    Nodes order(const ggml_cgraph * graph) const {
        Nodes nodes;
        for (int i = 0; i < graph->n_nodes; i++) {
            nodes.push_back(graph->nodes[plan->node_order[i]]);
        }
        return nodes;
    }

    uint32_t unit_of(int node) const {
        return ggc_graph_plan_unit_of_node(plan)[node];
    }

    ggc_graph_plan * plan = nullptr;
    ggc_units units;
};

// Every fusion that ggml-metal finds, wherever in the graph it begins, lies in one unit.
void check_fusions(const ggml_cgraph * graph, const Plan & plan) {
    const std::vector<int> indices = encoded(graph);
    for (size_t at = 0; at < indices.size(); at++) {
        const size_t last = at + fused(graph, indices, at) - 1;
        for (int i = indices[at]; i <= indices[last] && last > at; i++) {
            check(plan.unit_of(i) == plan.unit_of(indices[at]),
                  "ggml-metal fuses nodes of two units");
        }
    }
}

//
// Hazards, byte for byte, by nothing but the accesses
//

bool overlap(const ggc_access & a, const ggc_access & b) {
    if (a.buffer != b.buffer || (a.mode == GGC_READ && b.mode == GGC_READ)) {
        return false;
    }
    for (uint32_t i = 0, j = 0; i < a.count && j < b.count;) {
        const uint64_t x = a.offset + i * a.stride, y = b.offset + j * b.stride;
        if (x < y + b.run && y < x + a.run) {
            return true;
        }
        x + a.run <= y + b.run ? i++ : j++;
    }
    return false;
}

bool units_conflict(const ggc_units & units, size_t u, size_t v) {
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

class Hazards {  // between kernels: those between their nodes
  public:
    explicit Hazards(const ggml_cgraph * graph) : plan(graph, GGC_FUSE_NONE) {
        for (int i = 0; i < graph->n_nodes; i++) {
            unit_of[graph->nodes[i]] = plan.unit_of(i);
        }
    }

    bool between(const Nodes & a, const Nodes & b) const {
        return std::any_of(a.begin(), a.end(), [&](const ggml_tensor * x) {
            return std::any_of(b.begin(), b.end(), [&](const ggml_tensor * y) {
                return units_conflict(plan.units, unit_of.at(x), unit_of.at(y));
            });
        });
    }

  private:
    Plan plan;
    std::unordered_map<const ggml_tensor *, uint32_t> unit_of;
};

int barriers_needed(const Kernels & kernels, const Hazards & hazards) {
    int n_barriers = 0;
    for (size_t first = 0, k = 0; k < kernels.size(); k++) {
        if (std::any_of(kernels.begin() + first, kernels.begin() + k,
                        [&](const Nodes & other) { return hazards.between(other, kernels[k]); })) {
            n_barriers++;
            first = k;
        }
    }
    return n_barriers;
}

//
// The figures
//

void count_theirs(const Order & order, metal_figures * figures) {
    const Kernels kernels = kernels_of(&order.graph);
    figures->reorder = tracked(kernels);
    figures->reorder_kernels = (int32_t) kernels.size();
}

void count_plan(const Plan & plan, metal_figures * figures) {
    const ggc_plan * core = ggc_graph_plan_core(plan.plan);
    const uint32_t n_phases = ggc_plan_get_stats(core).n_phases;
    check(ggc_verify_phases(&plan.units, ggc_plan_phases(core), nullptr) == GGC_OK,
          "the verifier refutes our phases");
    figures->units = (int32_t) plan.units.n_units;
    figures->phase_barriers = n_phases > 0 ? (int32_t) n_phases - 1 : 0;
    figures->phase_minimum = barriers_at_least(
        plan.units.n_units, [&](size_t u, size_t v) { return units_conflict(plan.units, u, v); });
}

void count_ours(const ggml_cgraph * graph, metal_figures * figures) {
    const Plan plan(graph, GGC_FUSE_METAL);
    check_fusions(graph, plan);
    count_plan(plan, figures);
    const Order order(graph, plan.order(graph));
    const Kernels kernels = kernels_of(&order.graph);
    const Hazards hazards(graph);
    figures->kernels = (int32_t) kernels.size();
    figures->ours = barriers_needed(kernels, hazards);
    figures->minimum = barriers_at_least(kernels.size(), [&](size_t u, size_t v) {
        return hazards.between(kernels[u], kernels[v]);
    });
    figures->tracked = tracked(kernels);
}

//
// Memory for one order of the nodes
//

// Host memory in which tensors begin at multiples of `alignment`.
struct Memory {
    explicit Memory(size_t bytes) : alignment(bytes), type(*ggml_backend_cpu_buffer_type()) {
        type.context = &alignment;
        type.iface.get_alignment = [](ggml_backend_buffer_type_t buft) {
            return *(const size_t *) buft->context;
        };
    }
    Memory(const Memory &) = delete;
    Memory & operator=(const Memory &) = delete;

    size_t alignment;
    ggml_backend_buffer_type type;
};

class Unallocated {  // what has no memory, to be so again
  public:
    explicit Unallocated(const ggml_cgraph * graph) {
        for (int i = 0; i < graph->n_leafs; i++) {
            add(graph->leafs[i]);
        }
        for (int i = 0; i < graph->n_nodes; i++) {
            ggml_tensor * node = graph->nodes[i];
            check(!node->data || node->view_src, "a node has memory already");
            add(node);
            for (ggml_tensor * source : node->src) {
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

    Nodes tensors;
};

// Calls `count` with an order that ggml's allocator has given memory.
template <typename Count>
void with_memory(const ggml_cgraph * graph, size_t alignment, Nodes nodes, Count count) {
    const Unallocated before(graph);
    Memory memory(alignment);
    Order order(graph, std::move(nodes));
    ggml_gallocr_t allocator = ggml_gallocr_new(&memory.type);
    const bool allocated = ggml_gallocr_alloc_graph(allocator, &order.graph);
    if (allocated) {
        count(order);
    }
    ggml_gallocr_free(allocator);
    check(allocated, "ggml-alloc cannot allocate the graph");
}

void with_our_memory(ggml_cgraph * graph, size_t alignment, metal_figures * figures) {
    const Plan plan(graph, GGC_FUSE_METAL);
    Memory memory(alignment);
    struct layout layout;
    const struct message message = {nullptr, 0};
    const struct layout_params params = {&memory.type, 0, true, nullptr, false};
    const ggc_status status = layout_init(&layout, graph, plan.plan, &params, &message);
    check(status == GGC_OK, "the graph cannot be laid out");
    try {
        const Order order(graph, plan.order(graph));  // that the memory is for
        count_ours(&order.graph, figures);
    } catch (...) {
        layout_free(&layout);
        throw;
    }
    layout_free(&layout);
}

//
// For C
//

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

template <typename Function> double seconds_of(Function function) {
    const auto start = std::chrono::steady_clock::now();
    function();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

const char * metal_compare(ggml_cgraph * graph, metal_figures * figures) {
    return reported([&] {
        figures->plain = tracked(kernels_of(graph));
        count_theirs(Order(graph, reordered(graph)), figures);
        count_ours(graph, figures);
    });
}

const char * metal_compare_allocated(ggml_cgraph * graph, size_t alignment,
                                     metal_figures * figures) {
    return reported([&] {
        with_memory(graph, alignment, nodes_of(graph), [&](const Order & order) {
            figures->plain = tracked(kernels_of(&order.graph));
        });
        with_memory(graph, alignment, reordered(graph),
                    [&](const Order & order) { count_theirs(order, figures); });
        with_our_memory(graph, alignment, figures);
    });
}

const char * metal_time(ggml_cgraph * graph, int repeats, metal_seconds * seconds) {
    return reported([&] {
        *seconds = {0, 0};
        for (int i = 0; i < repeats; i++) {
            seconds->reorder += seconds_of([&] { reordered(graph); });
            seconds->plan += seconds_of([&] { const Plan plan(graph, GGC_FUSE_METAL); });
        }
    });
}
