#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-alloc.h"
#include "ggml-backend-impl.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#include "ggml-impl.h"
#pragma GCC diagnostic pop

#define MAX_STREAMS 8

struct home {
    struct ggml_tensor * tensor;
    void * contents;  // at first; NULL for views and what is computed
    struct ggml_backend_buffer * old_buffer;
    void * old_data;
};

struct harness {
    struct ggml_cgraph * graph;
    ggml_backend_dev_t device;
    ggml_backend_buffer_t buffer;
    ggml_gallocr_t allocator;  // NULL without reuse
    struct home * homes;
    size_t n_homes;

    struct harness_plan plan;
    uint32_t n_streams;
    ggml_backend_t instances[MAX_STREAMS];
    ggml_backend_event_t fork, join[MAX_STREAMS];
    ggml_backend_event_t * events;  // of each unit, NULL where nobody waits
    uint32_t n_events;
    struct ggml_tensor * heads;  // first node of each unit's graph, never the same twice
    CUstream stream;
    CUgraphExec exec;
};

static void must(bool condition, const char * what) {
    if (!condition) {
        fprintf(stderr, "harness: %s failed\n", what);
        abort();
    }
}
#define MUST(condition) must(condition, #condition)

ggml_backend_dev_t harness_device(const char * module, const char * name) {
    if (module != NULL && ggml_backend_load(module) == NULL) {
        return NULL;
    }
    return ggml_backend_dev_by_name(name);
}

//
// Memory
//

static bool has_home(const struct harness * h, const struct ggml_tensor * tensor) {
    for (size_t i = 0; i < h->n_homes; i++) {
        if (h->homes[i].tensor == tensor) {
            return true;
        }
    }
    return false;
}

// Roots come before their views.
static void collect(struct harness * h, struct ggml_tensor * tensor) {
    if (tensor == NULL || has_home(h, tensor)) {
        return;
    }
    collect(h, tensor->view_src);
    h->homes = realloc(h->homes, (h->n_homes + 1) * sizeof *h->homes);
    h->homes[h->n_homes++] =
        (struct home) {.tensor = tensor, .old_buffer = tensor->buffer, .old_data = tensor->data};
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        collect(h, tensor->src[s]);
    }
}

static size_t room(ggml_backend_buffer_type_t type, const struct ggml_tensor * tensor) {
    const size_t alignment = ggml_backend_buft_get_alignment(type);
    const size_t size = ggml_backend_buft_get_alloc_size(type, tensor);
    return (size + alignment - 1) / alignment * alignment;
}

static void save(struct home * home) {
    const size_t size = ggml_nbytes(home->tensor);
    home->contents = calloc(1, size + 1);
    if (home->tensor->buffer != NULL && home->tensor->data != NULL) {
        ggml_backend_tensor_get(home->tensor, home->contents, 0, size);
    }
}

static bool is_left_to_allocator(const struct ggml_tensor * tensor, bool reuse) {
    const struct ggml_tensor * root = tensor->view_src != NULL ? tensor->view_src : tensor;
    return reuse && root->op != GGML_OP_NONE;
}

static void move(struct harness * h, bool reuse) {
    ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(h->device);
    size_t total = 0;
    for (size_t i = 0; i < h->n_homes; i++) {
        struct home * home = &h->homes[i];
        if (home->tensor->view_src == NULL) {
            if (home->tensor->op == GGML_OP_NONE) {
                save(home);
            }
            total += room(type, home->tensor);
        }
    }
    h->buffer = ggml_backend_buft_alloc_buffer(type, total);
    MUST(h->buffer != NULL);
    char * at = ggml_backend_buffer_get_base(h->buffer);
    for (size_t i = 0; i < h->n_homes; i++) {
        struct ggml_tensor * t = h->homes[i].tensor;
        t->buffer = NULL;
        t->data = NULL;
        if (is_left_to_allocator(t, reuse)) {
            continue;
        }
        if (t->view_src != NULL) {
            MUST(ggml_backend_view_init(t) == GGML_STATUS_SUCCESS);
        } else {
            MUST(ggml_backend_tensor_alloc(h->buffer, t, at) == GGML_STATUS_SUCCESS);
            at += room(type, t);
        }
    }
    if (reuse) {
        h->allocator = ggml_gallocr_new(type);
        MUST(ggml_gallocr_alloc_graph(h->allocator, h->graph));
    }
}

struct harness * harness_new(struct ggml_cgraph * graph, ggml_backend_dev_t device, bool reuse) {
    struct harness * h = calloc(1, sizeof *h);
    h->graph = graph;
    h->device = device;
    for (int i = 0; i < graph->n_leafs; i++) {
        collect(h, graph->leafs[i]);
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        collect(h, graph->nodes[i]);
    }
    move(h, reuse);
    return h;
}

void harness_fill(struct harness * h, const struct ggml_tensor * tensor, const void * data) {
    for (size_t i = 0; i < h->n_homes; i++) {
        if (h->homes[i].tensor == tensor && h->homes[i].contents != NULL) {
            memcpy(h->homes[i].contents, data, ggml_nbytes(tensor));
        }
    }
}

void harness_restore(struct harness * h) {
    for (size_t i = 0; i < h->n_homes; i++) {
        const struct home * home = &h->homes[i];
        if (home->contents != NULL) {
            ggml_backend_tensor_set(home->tensor, home->contents, 0, ggml_nbytes(home->tensor));
        }
    }
}

static bool is_kept(const struct home * home) {
    const struct ggml_tensor * t = home->tensor;
    return home->contents != NULL || (t->flags & GGML_TENSOR_FLAG_OUTPUT) != 0;
}

size_t harness_read(const struct harness * h, void * data) {
    size_t size = 0;
    for (size_t i = 0; i < h->n_homes; i++) {
        const struct home * home = &h->homes[i];
        const size_t n = is_kept(home) ? ggml_nbytes(home->tensor) : 0;
        if (data != NULL && n > 0) {
            ggml_backend_tensor_get(home->tensor, (char *) data + size, 0, n);
        }
        size += n;
    }
    return size;
}

bool harness_serial(struct harness * h) {
    ggml_backend_t backend = ggml_backend_dev_init(h->device, NULL);
    MUST(backend != NULL);
    ggml_backend_set_n_threads_t set = NULL;
    *(void **) (void *) &set = ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(h->device), "ggml_backend_set_n_threads");
    if (set != NULL) {
        set(backend, 1);
    }
    fake_plain_launches(true);
    const bool fine = ggml_backend_graph_compute(backend, h->graph) == GGML_STATUS_SUCCESS;
    fake_plain_launches(false);
    ggml_backend_free(backend);
    return fine;
}

//
// Plans
//

static void close_plan(struct harness * h) {
    if (h->exec != NULL) {
        cuGraphExecDestroy(h->exec);
        h->exec = NULL;
    }
    if (h->stream != NULL) {
        cuStreamDestroy_v2(h->stream);
        h->stream = NULL;
    }
    for (uint32_t u = 0; u < h->n_events; u++) {
        ggml_backend_event_free(h->events[u]);
    }
    for (uint32_t s = 0; s < h->n_streams; s++) {
        ggml_backend_event_free(h->join[s]);
        ggml_backend_free(h->instances[s]);
    }
    ggml_backend_event_free(h->fork);
    h->fork = NULL;
    free(h->events);
    free(h->heads);
    h->events = NULL;
    h->heads = NULL;
    h->n_events = h->n_streams = 0;
}

void harness_free(struct harness * h) {
    close_plan(h);
    ggml_backend_buffer_free(h->buffer);
    if (h->allocator != NULL) {
        ggml_gallocr_free(h->allocator);
    }
    for (size_t i = 0; i < h->n_homes; i++) {
        h->homes[i].tensor->buffer = h->homes[i].old_buffer;
        h->homes[i].tensor->data = h->homes[i].old_data;
        free(h->homes[i].contents);
    }
    free(h->homes);
    free(h);
}

// The context of the device, as ggml has made it current.
static void open_stream(struct harness * h) {
    size_t free_bytes, total;
    ggml_backend_dev_memory(h->device, &free_bytes, &total);
    MUST(cuStreamCreate(&h->stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
}

void harness_plan(struct harness * h, const struct harness_plan * plan) {
    close_plan(h);
    MUST(plan->n_streams <= MAX_STREAMS);
    h->plan = *plan;
    h->n_streams = plan->n_streams;
    h->n_events = plan->n_units;
    h->events = calloc(plan->n_units + 1, sizeof(ggml_backend_event_t));
    h->heads = calloc(plan->n_units + 1, sizeof *h->heads);
    h->fork = ggml_backend_event_new(h->device);
    MUST(h->fork != NULL);
    for (uint32_t s = 0; s < plan->n_streams; s++) {
        h->instances[s] = ggml_backend_dev_init(h->device, NULL);
        h->join[s] = ggml_backend_event_new(h->device);
        MUST(h->instances[s] != NULL && h->join[s] != NULL);
    }
    for (uint32_t i = 0; i < plan->wait_begin[plan->n_units]; i++) {
        ggml_backend_event_t * event = &h->events[plan->waits[i]];
        *event = *event != NULL ? *event : ggml_backend_event_new(h->device);
        MUST(*event != NULL);
    }
    open_stream(h);
}

static bool compute_unit(struct harness * h, uint32_t unit) {
    const struct harness_plan * p = &h->plan;
    const uint32_t first = p->node_begin[unit], n = p->node_begin[unit + 1] - first;
    struct ggml_tensor ** nodes = malloc((n + 1) * sizeof(struct ggml_tensor *));
    struct ggml_tensor * head = &h->heads[unit];
    head->type = GGML_TYPE_F32;
    head->op = GGML_OP_NONE;
    head->op_params[0]++;
    nodes[0] = head;
    for (uint32_t i = 0; i < n; i++) {
        nodes[i + 1] = h->graph->nodes[p->nodes[first + i]];
    }
    struct ggml_cgraph part = *h->graph;
    part.uid = 0;
    part.nodes = p->recognisable ? nodes + 1 : nodes;
    part.n_nodes = (int) (p->recognisable ? n : n + 1);
    const bool fine = ggml_backend_graph_compute_async(h->instances[p->stream[unit]], &part) ==
                      GGML_STATUS_SUCCESS;
    free(nodes);
    return fine;
}

// Kernels begin when all is over that they follow: no more order is needed than a plan has.
static bool issue(struct harness * h) {
    const struct harness_plan * p = &h->plan;
    bool fine = true;
    fake_plain_launches(true);
    for (uint32_t i = 0; fine && i < p->n_units; i++) {
        const uint32_t unit = p->order[i];
        ggml_backend_t instance = h->instances[p->stream[unit]];
        for (uint32_t k = p->wait_begin[unit]; k < p->wait_begin[unit + 1]; k++) {
            if (k != p->left_out) {
                ggml_backend_event_wait(instance, h->events[p->waits[k]]);
            }
        }
        fine = compute_unit(h, unit);
        if (h->events[unit] != NULL) {
            ggml_backend_event_record(h->events[unit], instance);
        }
    }
    fake_plain_launches(false);
    return fine;
}

bool harness_eager(struct harness * h) {
    const bool fine = issue(h);
    for (uint32_t s = 0; s < h->n_streams; s++) {
        ggml_backend_synchronize(h->instances[s]);
    }
    return fine;
}

bool harness_capture(struct harness * h) {
    CUgraph graph = NULL;
    bool fine = cuStreamBeginCapture_v2(h->stream, CU_STREAM_CAPTURE_MODE_RELAXED) == 0 &&
                cuEventRecord(h->fork->context, h->stream) == 0;
    for (uint32_t s = 0; s < h->n_streams; s++) {
        ggml_backend_event_wait(h->instances[s], h->fork);
    }
    fine = fine && issue(h);
    for (uint32_t s = 0; s < h->n_streams; s++) {
        ggml_backend_event_record(h->join[s], h->instances[s]);
        fine = cuStreamWaitEvent(h->stream, h->join[s]->context, 0) == 0 && fine;
    }
    fine = cuStreamEndCapture(h->stream, &graph) == 0 && fine;
    if (h->exec != NULL) {
        cuGraphExecDestroy(h->exec);
        h->exec = NULL;
    }
    fine = fine && cuGraphInstantiateWithFlags(&h->exec, graph, 0) == 0;
    if (graph != NULL) {
        cuGraphDestroy(graph);
    }
    return fine;
}

bool harness_replay(struct harness * h, bool wait) {
    return h->exec != NULL && cuGraphLaunch(h->exec, h->stream) == 0 &&
           (!wait || cuStreamSynchronize(h->stream) == 0);
}

ggml_backend_t harness_instance(struct harness * h, uint32_t stream) {
    return h->instances[stream];
}
