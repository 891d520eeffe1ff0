#include "graph_plan.h"

#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + 1e-9 * (double) time.tv_nsec;
}

void ggc_graph_params_init(struct ggc_graph_params * params) {
    *params = (struct ggc_graph_params) {.fuse = GGC_FUSE_NONE, .cost = NULL};
    ggc_plan_params_init(&params->plan);
}

// A node of a unit has the unit's phase, a view that of the node it comes after.
static void find_node_phases(struct ggc_graph_plan * plan) {
    const uint32_t * phase = ggc_plan_phases(plan->core);
    const struct graph_units * units = &plan->units;
    for (uint32_t i = 0; i < units->n_nodes; i++) {
        const uint32_t unit = units->unit_of_node[i], after = units->view_after[i];
        plan->node_phase[i] = unit != GGC_NONE ? phase[unit]
            : after != GGC_NONE ? plan->node_phase[after] : 0;
    }
    plan->n_phases = ggc_plan_get_stats(plan->core).n_phases;
    if (plan->n_phases == 0 && units->n_nodes > 0) {
        plan->n_phases = 1;
    }
}

// Counting sort, stable.
static bool find_node_order(struct ggc_graph_plan * plan) {
    const uint32_t n = plan->units.n_nodes;
    uint32_t * start = calloc((size_t) plan->n_phases + 1, sizeof(uint32_t));
    if (start == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        start[plan->node_phase[i] + 1]++;
    }
    for (uint32_t p = 0; p < plan->n_phases; p++) {
        start[p + 1] += start[p];
    }
    for (uint32_t i = 0; i < n; i++) {
        plan->node_order[start[plan->node_phase[i]]++] = i;
    }
    free(start);
    return true;
}

static enum ggc_status make(struct ggc_graph_plan * plan, const struct ggml_cgraph * graph,
                            const struct ggc_graph_params * params) {
    const double start = now();
    enum ggc_status status = graph_units_init(&plan->units, graph, params->fuse, params->cost);
    if (status != GGC_OK) {
        return status;
    }
    const double middle = now();
    status = ggc_plan_new(&plan->units.core, &params->plan, &plan->core);
    if (status != GGC_OK) {
        return status;
    }
    const double end = now();
    plan->node_phase = malloc(((size_t) plan->units.n_nodes + 1) * sizeof(uint32_t));
    plan->node_order = malloc(((size_t) plan->units.n_nodes + 1) * sizeof(uint32_t));
    if (plan->node_phase == NULL || plan->node_order == NULL) {
        return GGC_E_NOMEM;
    }
    find_node_phases(plan);
    if (!find_node_order(plan)) {
        return GGC_E_NOMEM;
    }
    plan->core_seconds = end - middle;
    plan->adapter_seconds = middle - start + (now() - end);
    return GGC_OK;
}

enum ggc_status ggc_graph_plan_new(const struct ggml_cgraph * graph,
                                   const struct ggc_graph_params * params,
                                   struct ggc_graph_plan ** plan) {
    struct ggc_graph_params defaults;
    ggc_graph_params_init(&defaults);
    params = params != NULL ? params : &defaults;
    if (graph == NULL || plan == NULL || graph->n_nodes < 0 || (unsigned) params->fuse > GGC_FUSE_CPU) {
        return GGC_E_INVALID;
    }
    struct ggc_graph_plan * made = calloc(1, sizeof(struct ggc_graph_plan));
    if (made == NULL) {
        return GGC_E_NOMEM;
    }
    const enum ggc_status status = make(made, graph, params);
    if (status != GGC_OK) {
        ggc_graph_plan_free(made);
        return status;
    }
    *plan = made;
    return GGC_OK;
}

void ggc_graph_plan_free(struct ggc_graph_plan * plan) {
    if (plan == NULL) {
        return;
    }
    graph_units_free(&plan->units);
    ggc_plan_free(plan->core);
    free(plan->node_phase);
    free(plan->node_order);
    free(plan);
}

const struct ggc_plan * ggc_graph_plan_core(const struct ggc_graph_plan * plan) {
    return plan->core;
}

struct ggc_units ggc_graph_plan_units(const struct ggc_graph_plan * plan) {
    return plan->units.core;
}

uint32_t ggc_graph_plan_n_nodes(const struct ggc_graph_plan * plan) {
    return plan->units.n_nodes;
}

const uint32_t * ggc_graph_plan_unit_of_node(const struct ggc_graph_plan * plan) {
    return plan->units.unit_of_node;
}

const uint32_t * ggc_graph_plan_nodes(const struct ggc_graph_plan * plan, uint32_t unit,
                                      uint32_t * n) {
    if (unit >= plan->units.core.n_units) {
        *n = 0;
        return NULL;
    }
    *n = plan->units.node_begin[unit + 1] - plan->units.node_begin[unit];
    return plan->units.nodes + plan->units.node_begin[unit];
}

const uint32_t * ggc_graph_plan_node_phases(const struct ggc_graph_plan * plan) {
    return plan->node_phase;
}

void ggc_graph_plan_times(const struct ggc_graph_plan * plan, double * adapter, double * core) {
    *adapter = plan->adapter_seconds;
    *core = plan->core_seconds;
}
