// Plain ggml as its users compute: the graph through ggml_backend_sched over the device and the
// CPU. Before it lays the graph out, the scheduler lets the backend rewrite it, which secures
// fusions that memory may undo otherwise (and in ggml-cuda, with GGML_CUDA_GRAPH_OPT=1, gives it
// streams). Allocated once, the graph keeps its uid, by which ggml-cuda knows its own CUDA graph
// again.
//
// Inputs are on the device, where they keep their values; llama.cpp has them on the host, and
// copies them before each computation. No other way of computing here copies them either.
#include <stdlib.h>
#include <string.h>

#include "cuda_instance.h"
#include "dispatch.h"
#include "ggml/access_rules.h"
#include "ggml/backends.h"

struct sched {
    struct ggml_cgraph graph;       // a copy with nodes of its own: the backend may sort them
    struct ggml_tensor * saved;     // its nodes as they were, then its leafs
    struct ggml_tensor ** tensors;  // these themselves
    size_t n_tensors;
    ggml_backend_t backends[2];
    int n_backends;
    ggml_backend_sched_t sched;
    uint32_t n_threads;
};

static bool copy_graph(struct sched * sched, const struct ggml_cgraph * graph) {
    const size_t n_nodes = (size_t) graph->n_nodes, n_leafs = (size_t) graph->n_leafs;
    const size_t n = n_nodes + n_leafs;
    sched->graph = *graph;
    sched->graph.nodes = malloc((n_nodes + 1) * sizeof(*sched->graph.nodes));
    sched->tensors = malloc((n + 1) * sizeof(*sched->tensors));
    sched->saved = malloc((n + 1) * sizeof(*sched->saved));
    if (sched->graph.nodes == NULL || sched->tensors == NULL || sched->saved == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        sched->tensors[i] = i < n_nodes ? graph->nodes[i] : graph->leafs[i - n_nodes];
        sched->saved[i] = *sched->tensors[i];
    }
    memcpy(sched->graph.nodes, graph->nodes, n_nodes * sizeof(*graph->nodes));
    sched->n_tensors = n;
    return true;
}

// The graph may be laid out by another runner next.
static void restore_tensors(struct sched * sched) {
    for (size_t i = 0; i < sched->n_tensors; i++) {
        struct ggml_tensor * tensor = sched->tensors[i];
        const struct ggml_tensor * saved = &sched->saved[i];
        tensor->data = saved->data;
        tensor->buffer = saved->buffer;
        tensor->extra = saved->extra;
        memcpy(tensor->src, saved->src, sizeof(tensor->src));
    }
}

// ggml-alloc would give the memory of an input away after its last use.
static void keep_inputs(struct sched * sched) {
    for (size_t i = 0; i < sched->n_tensors; i++) {
        struct ggml_tensor * tensor = sched->tensors[i];
        if (tensor->flags & GGML_TENSOR_FLAG_INPUT) {
            tensor->flags |= GGML_TENSOR_FLAG_OUTPUT;
            ggml_backend_sched_set_tensor_backend(sched->sched, tensor, sched->backends[0]);
        }
    }
}

static void restore_flags(struct sched * sched) {
    for (size_t i = 0; i < sched->n_tensors; i++) {
        sched->tensors[i]->flags = sched->saved[i].flags;
    }
}

static enum ggc_status open_backends(struct sched * sched, ggml_backend_dev_t device,
                                     const struct message * message) {
    const bool is_cpu = ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
    for (int i = 0; i < (is_cpu ? 1 : 2); i++) {
        ggml_backend_t backend = i == 0 ? new_backend(device, message) : new_cpu_backend(message);
        if (backend == NULL) {
            return GGC_E_DEVICE;
        }
        sched->backends[sched->n_backends++] = backend;
    }
    set_n_threads(sched->backends[sched->n_backends - 1], sched->n_threads);
    sched->n_threads = is_cpu ? sched->n_threads : 0;
    return GGC_OK;
}

static enum ggc_status allocate(struct sched * sched, const struct message * message) {
    // room for all tensors and for the roots of views, which may stand in neither list
    sched->sched = ggml_backend_sched_new(sched->backends, NULL, sched->n_backends,
                                          2 * sched->n_tensors + 16, false, true);
    keep_inputs(sched);
    const bool done = ggml_backend_sched_alloc_graph(sched->sched, &sched->graph);
    restore_flags(sched);
    if (!done) {
        message_set(message, "ggml's scheduler could not lay out the graph: not enough memory");
    }
    return done ? GGC_OK : GGC_E_NOMEM;
}

static void sched_close(void * state) {
    struct sched * sched = state;
    ggml_backend_sched_free(sched->sched);
    for (int i = 0; i < sched->n_backends; i++) {
        cuda_instance_free(sched->backends[i]);
    }
    restore_tensors(sched);
    free(sched->graph.nodes);
    free(sched->tensors);
    free(sched->saved);
    free(sched);
}

static enum ggc_status sched_open(const struct dispatch_args * args, void ** state,
                                  const struct message * message) {
    struct sched * sched = calloc(1, sizeof(*sched));
    if (sched == NULL) {
        return GGC_E_NOMEM;
    }
    sched->n_threads = args->params->n_threads;
    enum ggc_status status = copy_graph(sched, args->graph) ? GGC_OK : GGC_E_NOMEM;
    if (status == GGC_OK) {
        status = open_backends(sched, args->device, message);
    }
    if (status == GGC_OK && sched->graph.n_nodes > 0) {
        status = allocate(sched, message);
    }
    if (status != GGC_OK) {
        sched_close(sched);
        return status;
    }
    *state = sched;
    return GGC_OK;
}

static enum ggc_status sched_compute(void * state, const struct message * message) {
    struct sched * sched = state;
    if (sched->sched == NULL) {
        return GGC_OK;  // nothing to compute
    }
    return sched_compute_guarded(sched->sched, &sched->graph, sched->n_threads, message);
}

static uint32_t sched_unit_threads(const void * state, uint32_t unit) {
    (void) unit;
    return ((const struct sched *) state)->n_threads;
}

static const double * sched_unit_times(const void * state) {
    (void) state;
    return NULL;
}

size_t sched_buffer_size(const void * state) {
    const struct sched * sched = state;
    return sched->sched == NULL
               ? 0
               : ggml_backend_sched_get_buffer_size(sched->sched, sched->backends[0]);
}

const struct dispatch_i dispatch_sched = {
    "sched", sched_open, sched_compute, sched_unit_threads, sched_unit_times, sched_close, NULL,
};
