#include "graph_plan.h"

#include <stdlib.h>
#include <string.h>
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
        plan->node_phase[i] = unit != GGC_NONE    ? phase[unit]
                              : after != GGC_NONE ? plan->node_phase[after]
                                                  : 0;
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

static bool remember(struct snapshot * snapshot, const struct ggml_cgraph * graph,
                     const struct ggc_graph_params * params) {
    if (params->watch) {
        return snapshot_take(snapshot, graph);
    }
    *snapshot = (struct snapshot) {.uid = graph->uid};
    return true;
}

static enum ggc_status make(struct ggc_graph_plan * plan, const struct ggml_cgraph * graph,
                            const struct ggc_graph_params * params) {
    const double start = now();
    enum ggc_status status = graph_units_init(&plan->units, graph, params);
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
    if (!find_node_order(plan) || !remember(&plan->snapshot, graph, params)) {
        return GGC_E_NOMEM;
    }
    plan->wait_cost = params->plan.wait_cost;
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
    if (graph == NULL || plan == NULL || graph->n_nodes < 0 ||
        (unsigned) params->fuse > GGC_FUSE_METAL) {
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

// Whether the units are the same nodes; what they access may differ.
static bool same_units(const struct graph_units * a, const struct graph_units * b) {
    return a->n_nodes == b->n_nodes && a->core.n_units == b->core.n_units &&
           memcmp(a->unit_of_node, b->unit_of_node, a->n_nodes * sizeof(uint32_t)) == 0 &&
           memcmp(a->view_after, b->view_after, a->n_nodes * sizeof(uint32_t)) == 0;
}

// Takes over `units` and what the graph looks like now.
static enum ggc_status move(struct ggc_graph_plan * plan, struct graph_units * units,
                            const struct ggml_cgraph * graph,
                            const struct ggc_graph_params * params) {
    struct snapshot snapshot;
    if (!remember(&snapshot, graph, params)) {
        return GGC_E_NOMEM;
    }
    snapshot_free(&plan->snapshot);
    plan->snapshot = snapshot;
    graph_units_free(&plan->units);
    plan->units = *units;
    *units = (struct graph_units) {0};
    return GGC_OK;
}

enum ggc_status ggc_graph_plan_update(struct ggc_graph_plan * plan,
                                      const struct ggml_cgraph * graph,
                                      const struct ggc_graph_params * params,
                                      enum ggc_change * change) {
    struct ggc_graph_params defaults;
    ggc_graph_params_init(&defaults);
    params = params != NULL ? params : &defaults;
    if (plan == NULL || graph == NULL || change == NULL || graph->n_nodes < 0) {
        return GGC_E_INVALID;
    }
    if (snapshot_matches(&plan->snapshot, graph)) {
        *change = GGC_UNCHANGED;
        return GGC_OK;
    }
    struct graph_units units;
    enum ggc_status status = graph_units_init(&units, graph, params);
    if (status != GGC_OK) {
        return status;
    }
    bool kept = false;
    if (same_units(&units, &plan->units)) {
        status = ggc_plan_still_right(plan->core, &units.core, &kept);
    }
    if (status == GGC_OK && kept) {
        status = move(plan, &units, graph, params);
    }
    graph_units_free(&units);
    if (status == GGC_OK) {
        *change = kept ? GGC_MOVED : GGC_CHANGED;
    }
    return status;
}

void ggc_graph_plan_free(struct ggc_graph_plan * plan) {
    if (plan == NULL) {
        return;
    }
    snapshot_free(&plan->snapshot);
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
