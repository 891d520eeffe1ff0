#include "metal.h"

#include <stdlib.h>

#include "ggml/backends.h"
#include "metal_order.h"
#include "metal_trace.h"

struct metal {
    struct ggml_cgraph graph;  // the caller's, with nodes in the order in which they are computed
    struct ggml_cgraph empty;
    struct metal_order order;  // empty: that of the caller's graph
    struct ggc_metal_figures figures;
    ggml_backend_dev_t device;
    ggml_backend_t backend;  // NULL: to be made anew
};

static enum ggc_status sort_nodes(struct metal * metal, const struct dispatch_args * args) {
    if (args->params->n_streams == 1) {
        return GGC_OK;
    }
    const enum ggc_status status =
        metal_order_init(&metal->order, args->graph, args->plan, args->params->stress_seed);
    if (status == GGC_OK) {
        metal->graph.nodes = metal->order.nodes;
        metal->graph.n_nodes = metal->order.n_nodes;
    }
    return status;
}

// Two proofs make one: what conflicts is sorted into phases as the graph had it, and wherever the
// backend will set its barriers, none of what stands between two of them conflicts.
static enum ggc_status prove_phases(const struct dispatch_args * args,
                                    const struct message * message) {
    const struct ggc_units units = ggc_graph_plan_units(args->plan);
    struct ggc_conflict race;
    const enum ggc_status status =
        ggc_verify_phases(&units, ggc_plan_phases(args->plan->core), &race);
    if (status == GGC_E_RACE) {
        message_set(message, "the plan races: units %u and %u (%s), please report this", race.a,
                    race.b, ggc_hazard_string(race.hazard));
    }
    return status;
}

static enum ggc_status prove_groups(const struct metal * metal, const struct metal_trace * trace,
                                    const struct message * message) {
    struct ggc_conflict race;
    const enum ggc_status status = metal_trace_verify(trace, &metal->graph, &race);
    if (status == GGC_E_RACE) {
        const struct ggml_tensor *a = metal->graph.nodes[race.a], *b = metal->graph.nodes[race.b];
        message_set(message,
                    "ggml-metal would set no barrier between '%s' (%s) and '%s' (%s): %s, please "
                    "report this",
                    a->name, ggml_op_desc(a), b->name, ggml_op_desc(b),
                    ggc_hazard_string(race.hazard));
    }
    return status;
}

// What the backend will make of the order is known now.
static enum ggc_status check_order(struct metal * metal, const struct dispatch_args * args,
                                   const struct message * message) {
    struct metal_trace trace;
    enum ggc_status status = metal_trace_init(&trace, &metal->graph);
    if (status != GGC_OK) {
        return status;
    }
    metal->figures = trace.figures;
    if (args->params->verify && args->params->n_streams > 1) {
        status = prove_phases(args, message);
        if (status == GGC_OK) {
            status = prove_groups(metal, &trace, message);
        }
    }
    metal_trace_free(&trace);
    return status;
}

static enum ggc_status start_backend(struct metal * metal, const struct message * message) {
    if (metal->backend == NULL) {
        metal->backend = new_metal_backend(metal->device, message);
    }
    return metal->backend != NULL ? GGC_OK : GGC_E_DEVICE;
}

static void metal_close(void * state) {
    struct metal * metal = state;
    ggml_backend_free(metal->backend);
    metal_order_free(&metal->order);
    free(metal);
}

static enum ggc_status metal_open(const struct dispatch_args * args, void ** state,
                                  const struct message * message) {
    ggml_backend_dev_t device = metal_device(message);
    if (device == NULL) {
        return GGC_E_DEVICE;
    }
    struct metal * metal = calloc(1, sizeof(*metal));
    if (metal == NULL) {
        return GGC_E_NOMEM;
    }
    metal->device = device;
    metal->graph = *args->graph;
    metal->graph.uid = 0;
    metal->graph.n_leafs = 0;
    enum ggc_status status = sort_nodes(metal, args);
    if (status == GGC_OK) {
        status = check_order(metal, args, message);
    }
    if (status == GGC_OK) {
        status = start_backend(metal, message);
    }
    metal->empty = metal->graph;
    metal->empty.n_nodes = 0;
    if (status != GGC_OK) {
        metal_close(metal);
        return status;
    }
    *state = metal;
    return GGC_OK;
}

// No assertion is caught: the backend encodes on threads of the system's.
static enum ggc_status compute_unguarded(ggml_backend_t backend, struct ggml_cgraph * graph,
                                         const struct message * message) {
    return compute_guarded(backend, graph, 2, message);
}

static enum ggc_status metal_compute(void * state, const struct message * message) {
    struct metal * metal = state;
    enum ggc_status status = start_backend(metal, message);
    if (status != GGC_OK) {
        return status;
    }
    status = compute_unguarded(metal->backend, &metal->graph, message);
    if (status == GGC_OK) {  // what failed on the GPU is told to the next caller
        status = compute_unguarded(metal->backend, &metal->empty, message);
    }
    if (status != GGC_OK) {  // and to all after it
        ggml_backend_free(metal->backend);
        metal->backend = NULL;
    }
    return status;
}

static uint32_t metal_unit_threads(const void * state, uint32_t unit) {
    (void) state;
    (void) unit;
    return 1;
}

static const double * metal_unit_times(const void * state) {
    (void) state;
    return NULL;
}

struct ggc_metal_figures metal_figures(const void * state) {
    return ((const struct metal *) state)->figures;
}

const struct dispatch_i dispatch_metal = {
    "metal", metal_open, metal_compute, metal_unit_threads, metal_unit_times, metal_close, NULL,
};
