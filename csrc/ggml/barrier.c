#include "barrier.h"

#include <stdlib.h>

#include "graph_plan.h"

bool context_has_room(struct ggml_context * ctx, size_t n_tensors) {
    return (ggml_get_mem_size(ctx) - ggml_used_mem(ctx)) / ggml_tensor_overhead() >= n_tensors;
}

struct ggml_tensor * new_barrier(struct ggml_context * ctx) {
    struct ggml_tensor * barrier = ggml_new_tensor_1d(ctx, GGML_TYPE_I8, 0);
    ggml_set_name(barrier, "barrier");
    return barrier;
}

static void write_nodes(const struct ggc_graph_plan * plan, struct ggml_context * ctx,
                        struct ggml_tensor * const * from, struct ggml_tensor ** to) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < plan->units.n_nodes; i++) {
        const uint32_t node = plan->node_order[i];
        if (i > 0 && plan->node_phase[node] != plan->node_phase[plan->node_order[i - 1]]) {
            to[n++] = new_barrier(ctx);
        }
        to[n++] = from[node];
    }
}

enum ggc_status ggml_graph_find_concurrency(struct ggml_context * ctx, struct ggml_cgraph * graph) {
    struct ggc_graph_plan * plan;
    if (ctx == NULL || graph == NULL) {
        return GGC_E_INVALID;
    }
    enum ggc_status status = ggc_graph_plan_new(graph, NULL, &plan);
    if (status != GGC_OK) {
        return status;
    }
    const uint32_t n_barriers = plan->n_phases > 0 ? plan->n_phases - 1 : 0;
    const size_t n_nodes = (size_t) graph->n_nodes + n_barriers;
    struct ggml_tensor ** nodes = malloc((n_nodes + 1) * sizeof(*nodes));
    if (nodes == NULL) {
        status = GGC_E_NOMEM;
    } else if ((size_t) graph->size < n_nodes || !context_has_room(ctx, n_barriers)) {
        status = GGC_E_CAPACITY;
    } else {
        write_nodes(plan, ctx, graph->nodes, nodes);
        for (size_t i = 0; i < n_nodes; i++) {
            graph->nodes[i] = nodes[i];
        }
        graph->n_nodes = (int) n_nodes;
        graph->uid = 0;  // another graph now: whoever remembers the old one must look again
    }
    free(nodes);
    ggc_graph_plan_free(plan);
    return status;
}

enum ggc_status ggml_graph_find_concurrency_list(const struct ggml_cgraph * graph, int32_t * list,
                                                 int32_t capacity, int32_t * n) {
    struct ggc_graph_plan * plan;
    if (graph == NULL || n == NULL || capacity < 0 || (list == NULL && capacity > 0)) {
        return GGC_E_INVALID;
    }
    const enum ggc_status status = ggc_graph_plan_new(graph, NULL, &plan);
    if (status != GGC_OK) {
        return status;
    }
    *n = (int32_t) (plan->units.n_nodes + (plan->n_phases > 0 ? plan->n_phases - 1 : 0));
    const bool fits = *n <= capacity;
    int32_t at = 0;
    for (uint32_t i = 0; fits && i < plan->units.n_nodes; i++) {
        const uint32_t node = plan->node_order[i];
        if (i > 0 && plan->node_phase[node] != plan->node_phase[plan->node_order[i - 1]]) {
            list[at++] = GGC_BARRIER;
        }
        list[at++] = (int32_t) node;
    }
    ggc_graph_plan_free(plan);
    return fits ? GGC_OK : GGC_E_CAPACITY;
}
