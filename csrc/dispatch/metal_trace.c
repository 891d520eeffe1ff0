#include "metal_trace.h"

#include <stdlib.h>

#include "ggml-backend-impl.h"
#include "ggml/metal_fuse.h"
#include "metal_inner.h"

// Microseconds. A switch of command buffers: about 40 on Apple's GPUs (llama.cpp#2309). A kernel:
// 2.05, of which the concurrent encoder hides 96 % where it need not wait (qwisp#143).
#define SWITCH_COST 40.0
#define KERNEL_COST 2.05
#define HIDDEN_COST (0.04 * KERNEL_COST)

int metal_first_nodes(int n) {
    const int first = (int) (0.1 * n);
    const int at_least = first > 64 ? first : 64;
    return at_least < n ? at_least : n;
}

//
// The range tracker
//

struct range {
    const void * buffer;
    uint64_t begin, end;
    bool write;
};

struct tracker {
    struct range * ranges;
    size_t n, capacity;
};

static struct range range_of(const struct ggml_tensor * tensor, bool write) {
    const struct ggml_tensor * root = root_of(tensor);
    if (root->buffer == NULL) {
        return (struct range) {root, 0, 1, write};
    }
    const uint64_t begin = (uint64_t) (uintptr_t) root->data;
    const uint64_t size = ggml_backend_buft_get_alloc_size(root->buffer->buft, root);
    return (struct range) {root->buffer, begin, begin + size, write};
}

// One that ends where an earlier one begins conflicts as well.
static bool conflicts(const struct tracker * tracker, struct range range) {
    for (size_t i = 0; i < tracker->n; i++) {
        const struct range * other = &tracker->ranges[i];
        if (range.buffer == other->buffer && (range.write || other->write) &&
            range.begin < other->end && range.end >= other->begin) {
            return true;
        }
    }
    return false;
}

static bool node_conflicts(const struct tracker * tracker, const struct ggml_tensor * node) {
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        if (node->src[s] != NULL && conflicts(tracker, range_of(node->src[s], false))) {
            return true;
        }
    }
    return conflicts(tracker, range_of(node, true));
}

static bool track(struct tracker * tracker, const struct ggml_tensor * node) {
    if (tracker->capacity < tracker->n + GGML_MAX_SRC + 1) {
        const size_t capacity = 2 * tracker->capacity + 256;
        struct range * grown = realloc(tracker->ranges, capacity * sizeof(*grown));
        if (grown == NULL) {
            return false;
        }
        tracker->ranges = grown;
        tracker->capacity = capacity;
    }
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        if (node->src[s] != NULL) {
            tracker->ranges[tracker->n++] = range_of(node->src[s], false);
        }
    }
    tracker->ranges[tracker->n++] = range_of(node, true);
    return true;
}

//
// The encoder
//

struct encoder {
    const struct ggml_cgraph * graph;
    struct metal_trace * trace;
    struct tracker tracker;
    bool fuses;
    const int * indices;  // of the nodes of the command buffer that are encoded
    int n;
    uint32_t group, n_nodes;
};

static const struct ggml_tensor * node_at(const struct encoder * e, int i) {
    return e->graph->nodes[e->indices[i]];
}

static void set_barrier(struct encoder * e) {
    e->tracker.n = 0;
    e->group++;
}

// Of what is fused, the first and the last node are compared, and by some kernels the others too.
static bool kernel_conflicts(const struct encoder * e, int at, int n) {
    const struct ggml_tensor * first = node_at(e, at);
    if (node_conflicts(&e->tracker, first) ||
        (n > 1 && node_conflicts(&e->tracker, node_at(e, at + n - 1)))) {
        return true;
    }
    const bool all = first->op == GGML_OP_NORM || first->op == GGML_OP_RMS_NORM ||
                     first->op == GGML_OP_ADD || (n > 1 && node_at(e, at + 1)->op == GGML_OP_SIN);
    for (int i = 1; all && i < n; i++) {
        if (node_conflicts(&e->tracker, node_at(e, at + i))) {
            return true;
        }
    }
    return false;
}

static bool encode_kernel(struct encoder * e, int at, int n) {
    struct ggc_metal_figures * figures = &e->trace->figures;
    if (kernel_conflicts(e, at, n)) {
        set_barrier(e);
        figures->n_barriers++;
    }
    struct metal_kernel * kernel = &e->trace->kernels[e->trace->n_kernels++];
    *kernel = (struct metal_kernel) {.begin = e->n_nodes, .first = e->group};
    const uint32_t n_inner = n == 1 ? metal_inner_barriers(node_at(e, at)) : 0;
    for (uint32_t i = 0; i < n_inner; i++) {
        set_barrier(e);
    }
    figures->n_inner_barriers += n_inner;
    kernel->last = e->group;
    for (int i = 0; i < n; i++) {
        e->trace->nodes[e->n_nodes++] = e->indices[at + i];
        if (!track(&e->tracker, node_at(e, at + i))) {
            return false;
        }
    }
    kernel->end = e->n_nodes;
    return true;
}

static bool encode_buffer(struct encoder * e) {
    const uint32_t n_before = e->trace->n_kernels;
    for (int at = 0, n; at < e->n; at += n) {
        n = 1;
        if ((node_at(e, at)->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) {
            continue;
        }
        if (e->trace->n_kernels == n_before && n_before > 0) {
            set_barrier(e);  // buffers run one after the other
        }
        n = e->fuses ? metal_fused(e->graph, e->indices, e->n, at) : 1;
        if (!encode_kernel(e, at, n)) {
            return false;
        }
    }
    e->trace->figures.n_command_buffers += e->trace->n_kernels > n_before;
    return true;
}

static double modelled_time(const struct ggc_metal_figures * f) {
    const double n_waits = f->n_barriers + f->n_inner_barriers + f->n_command_buffers;
    const double n_kernels = f->n_kernels + f->n_inner_barriers;
    const double n_switches = f->n_command_buffers > 0 ? f->n_command_buffers - 1 : 0;
    return KERNEL_COST * n_waits + HIDDEN_COST * (n_kernels - n_waits) + SWITCH_COST * n_switches;
}

// ggml-metal encodes everything at once while its fusions are watched.
static bool has_one_buffer(void) {
    const char * debug = getenv("GGML_METAL_FUSION_DEBUG");
    return debug != NULL && atoi(debug) > 0;
}

static bool encode(struct encoder * e, int * indices) {
    const int n = e->graph->n_nodes;
    const int cut = has_one_buffer() ? n : metal_first_nodes(n);
    e->indices = indices;
    for (int i = 0; i < n; i++) {
        if (i == cut && !encode_buffer(e)) {
            return false;
        }
        if (i == cut) {
            e->n = 0;
            e->tracker.n = 0;
        }
        if (metal_encodes(e->graph->nodes[i])) {
            indices[e->n++] = i;
        }
    }
    return encode_buffer(e);
}

enum ggc_status metal_trace_init(struct metal_trace * trace, const struct ggml_cgraph * graph) {
    const size_t n = (size_t) graph->n_nodes + 1;
    *trace = (struct metal_trace) {.kernels = malloc(n * sizeof(struct metal_kernel)),
                                   .nodes = malloc(n * sizeof(int))};
    struct encoder e = {
        .graph = graph, .trace = trace, .fuses = getenv("GGML_METAL_FUSION_DISABLE") == NULL};
    int * indices = malloc(n * sizeof(int));
    const bool ok =
        trace->kernels != NULL && trace->nodes != NULL && indices != NULL && encode(&e, indices);
    free(indices);
    free(e.tracker.ranges);
    if (!ok) {
        metal_trace_free(trace);
        return GGC_E_NOMEM;
    }
    trace->figures.n_kernels = trace->n_kernels;
    trace->figures.microseconds = modelled_time(&trace->figures);
    return GGC_OK;
}

void metal_trace_free(struct metal_trace * trace) {
    free(trace->kernels);
    free(trace->nodes);
    *trace = (struct metal_trace) {0};
}

enum ggc_status ggc_metal_predict(const struct ggml_cgraph * graph,
                                  struct ggc_metal_figures * figures) {
    struct metal_trace trace;
    if (graph == NULL || figures == NULL) {
        return GGC_E_INVALID;
    }
    const enum ggc_status status = metal_trace_init(&trace, graph);
    if (status == GGC_OK) {
        *figures = trace.figures;
        metal_trace_free(&trace);
    }
    return status;
}

//
// The proof: kernels as units, in the order in which they are issued, and their groups as phases. A
// kernel with inner barriers is two units that touch the same: one in its first group, one in its
// last.
//

struct prover {
    const struct metal_trace * trace;
    const struct ggml_cgraph * graph;
    uint32_t *begin, *phase, *kernel;  // of each unit
    struct ggc_access * accesses;
    uint32_t n_units, n_accesses;
};

static void add_access(struct prover * p, const struct ggml_tensor * tensor, bool all,
                       uint32_t mode) {
    const struct ggml_tensor * root = root_of(tensor);
    const size_t size = root->buffer != NULL
                            ? ggml_backend_buft_get_alloc_size(root->buffer->buft, root)
                            : ggml_nbytes(root);
    // kernels keep scratch behind what they write
    struct ggc_access access = access_of_tensor(all ? root : tensor, mode == GGC_WRITE ? size : 0);
    access.offset += (uint64_t) (uintptr_t) root->data;  // one device: one space of addresses
    access.mode = mode;
    if (access.run != 0) {
        p->accesses[p->n_accesses++] = access;
    }
}

static void add_accesses(struct prover * p, const struct ggml_tensor * node) {
    const struct access_rule rule = access_rule_of(node->op);
    const bool all = is_fence(node);  // its kernel may read past its view
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        if (node->src[s] != NULL && (all || (rule.reads >> s & 1))) {
            add_access(p, node->src[s], all, GGC_READ);
        }
        if (node->src[s] != NULL && (rule.writes >> s & 1)) {
            add_access(p, node->src[s], all, GGC_WRITE);
        }
    }
    add_access(p, node, all, GGC_WRITE);
}

static void add_unit(struct prover * p, uint32_t k, uint32_t phase) {
    const struct metal_kernel * kernel = &p->trace->kernels[k];
    p->begin[p->n_units] = p->n_accesses;
    p->phase[p->n_units] = phase;
    p->kernel[p->n_units++] = k;
    for (uint32_t i = kernel->begin; i < kernel->end; i++) {
        add_accesses(p, p->graph->nodes[p->trace->nodes[i]]);
    }
}

static enum ggc_status prove(struct prover * p, struct ggc_conflict * race) {
    for (uint32_t k = 0; k < p->trace->n_kernels; k++) {
        const struct metal_kernel * kernel = &p->trace->kernels[k];
        add_unit(p, k, kernel->first);
        if (kernel->last != kernel->first) {
            add_unit(p, k, kernel->last);
        }
    }
    p->begin[p->n_units] = p->n_accesses;
    const struct ggc_units units = {
        .n_units = p->n_units, .access_begin = p->begin, .accesses = p->accesses};
    const enum ggc_status status = ggc_verify_phases(&units, p->phase, race);
    if (status == GGC_E_RACE) {
        const struct metal_kernel * kernels = p->trace->kernels;
        race->a = (uint32_t) p->trace->nodes[kernels[p->kernel[race->a]].begin];
        race->b = (uint32_t) p->trace->nodes[kernels[p->kernel[race->b]].begin];
    }
    return status;
}

enum ggc_status metal_trace_verify(const struct metal_trace * trace,
                                   const struct ggml_cgraph * graph, struct ggc_conflict * race) {
    const size_t n = 2 * (size_t) trace->n_kernels + 1;
    const size_t n_accesses = 2 * ((size_t) graph->n_nodes + 1) * (2 * GGML_MAX_SRC + 1);
    struct prover p = {
        .trace = trace,
        .graph = graph,
        .begin = malloc(n * sizeof(uint32_t)),
        .phase = malloc(n * sizeof(uint32_t)),
        .kernel = malloc(n * sizeof(uint32_t)),
        .accesses = malloc(n_accesses * sizeof(struct ggc_access)),
    };
    enum ggc_status status = GGC_E_NOMEM;
    if (p.begin != NULL && p.phase != NULL && p.kernel != NULL && p.accesses != NULL) {
        status = prove(&p, race);
    }
    free(p.begin);
    free(p.phase);
    free(p.kernel);
    free(p.accesses);
    return status;
}
