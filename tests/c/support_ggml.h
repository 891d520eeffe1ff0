// What the tests of the ggml adapter share: scenes of tensors in known places, and questions about
// a graph's plan in terms of its tensors. Everything is static: only tests that link ggml use it.
#pragma once

#include <stdlib.h>
#include <string.h>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-concurrent.h"
#include "ggml.h"
#include "support.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#include "ggml-impl.h"
#pragma GCC diagnostic pop

#include "ggml/fuse.h"

#define SCENE_BUFFERS 4
#define SCENE_NODES 4096

// A context without data of its own, a graph in it, and buffers to place tensors in.
struct scene {
    struct ggml_context * ctx;
    struct ggml_cgraph * graph;
    ggml_backend_buffer_t buffers[SCENE_BUFFERS];
    size_t used[SCENE_BUFFERS];
    struct ggc_graph_plan * plan;  // of the last scene_plan
};

static inline void scene_init(struct scene * s) {
    memset(s, 0, sizeof *s);
    const struct ggml_init_params params = {
        .mem_size = 2 * SCENE_NODES * ggml_tensor_overhead() +
                    ggml_graph_overhead_custom(SCENE_NODES, false),
        .no_alloc = true,
    };
    s->ctx = ggml_init(params);
    CHECK(s->ctx);
    s->graph = ggml_new_graph_custom(s->ctx, SCENE_NODES, false);
}

static inline void scene_free(struct scene * s) {
    ggc_graph_plan_free(s->plan);
    for (int i = 0; i < SCENE_BUFFERS; i++) {
        ggml_backend_buffer_free(s->buffers[i]);
    }
    ggml_free(s->ctx);
    memset(s, 0, sizeof *s);
}

static inline char * scene_base(struct scene * s, int buffer) {
    if (!s->buffers[buffer]) {
        s->buffers[buffer] =
            ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), 1 << 20);
        CHECK(s->buffers[buffer]);
        ggml_backend_buffer_clear(s->buffers[buffer], 0);
    }
    return ggml_backend_buffer_get_base(s->buffers[buffer]);
}

// Gives a tensor that is no view its memory, `offset` bytes into a buffer.
static inline void place_at(struct scene * s, struct ggml_tensor * t, int buffer, size_t offset) {
    char * base = scene_base(s, buffer);
    CHECK(ggml_backend_tensor_alloc(s->buffers[buffer], t, base + offset) == GGML_STATUS_SUCCESS);
}

// The next free place of buffer 0.
static inline void place(struct scene * s, struct ggml_tensor * t) {
    place_at(s, t, 0, s->used[0]);
    s->used[0] += (ggml_nbytes(t) + 63) / 64 * 64;
}

// Places whatever the graph's nodes, leafs and sources still need, and tells views where they are.
static inline void place_tensor(struct scene * s, struct ggml_tensor * t) {
    if (!t || t->data) {
        return;
    }
    if (t->view_src) {
        place_tensor(s, t->view_src);
        CHECK(ggml_backend_view_init(t) == GGML_STATUS_SUCCESS);
    } else {
        place(s, t);
    }
}

static inline void place_all(struct scene * s) {
    for (struct ggml_tensor * t = ggml_get_first_tensor(s->ctx); t;
         t = ggml_get_next_tensor(s->ctx, t)) {
        place_tensor(s, t);
    }
}

static inline void expand(struct scene * s, struct ggml_tensor * t) {
    ggml_build_forward_expand(s->graph, t);
}

static inline struct ggml_tensor * vector(struct scene * s, int64_t n) {
    return ggml_new_tensor_1d(s->ctx, GGML_TYPE_F32, n);
}

static inline struct ggml_tensor * matrix(struct scene * s, int64_t n, int64_t rows) {
    return ggml_new_tensor_2d(s->ctx, GGML_TYPE_F32, n, rows);
}

//
// Questions
//

static inline void scene_plan(struct scene * s) {
    ggc_graph_plan_free(s->plan);
    s->plan = NULL;
    CHECK_STATUS(ggc_graph_plan_new(s->graph, NULL, &s->plan), GGC_OK);
    const struct ggc_units units = ggc_graph_plan_units(s->plan);
    const struct ggc_plan * core = ggc_graph_plan_core(s->plan);
    const struct ggc_schedule schedule = ggc_plan_schedule(core);
    CHECK_STATUS(ggc_verify_schedule(&units, &schedule, NULL), GGC_OK);
    CHECK_STATUS(ggc_verify_phases(&units, ggc_plan_phases(core), NULL), GGC_OK);
}

static inline uint32_t node_index(const struct ggml_cgraph * graph, const struct ggml_tensor * t) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i] == t) {
            return (uint32_t) i;
        }
    }
    test_fail(__FILE__, __LINE__, "a tensor is no node of the graph");
}

static inline uint32_t unit_of(const struct scene * s, const struct ggml_tensor * t) {
    return ggc_graph_plan_unit_of_node(s->plan)[node_index(s->graph, t)];
}

// Whether the units of two nodes conflict directly; checks that a conflict is told rightly.
static inline bool conflict(const struct scene * s, const struct ggml_tensor * x,
                            const struct ggml_tensor * y, struct ggc_conflict * out) {
    const struct ggc_units units = ggc_graph_plan_units(s->plan);
    const uint32_t u = unit_of(s, x), v = unit_of(s, y);
    CHECK(u != GGC_NONE && v != GGC_NONE && u != v);
    struct ggc_conflict c;
    const enum ggc_status status = ggc_explain(&units, u < v ? u : v, u < v ? v : u, &c);
    CHECK(status == GGC_OK || status == GGC_E_INVALID);
    if (status == GGC_OK) {
        test_check_conflict(&units, &c);
    }
    if (out) {
        *out = c;
    }
    return status == GGC_OK;
}

// Bit rows: which units come before which, by the plan's dependences and all that follows.
static inline uint64_t * dep_closure(const struct ggc_plan * plan, uint32_t n, uint32_t words) {
    uint64_t * rows = test_alloc((size_t) n * words * sizeof *rows);
    for (uint32_t u = 0; u < n; u++) {
        uint32_t n_deps;
        const uint32_t * deps = ggc_plan_deps(plan, u, &n_deps);
        for (uint32_t i = 0; i < n_deps; i++) {
            test_set_bit(rows + (size_t) u * words, deps[i]);
            for (uint32_t w = 0; w < words; w++) {
                rows[(size_t) u * words + w] |= rows[(size_t) deps[i] * words + w];
            }
        }
    }
    return rows;
}

// How many nodes from `index` on stay together.
static inline int run_at(const struct ggml_cgraph * graph, int index, enum ggc_fuse fuse) {
    const struct fuse_starts starts = find_fuse_starts(fuse);
    return fused_run(graph, index, &starts, NULL);
}

#define CONFLICT(s, x, y) CHECK_MSG(conflict(s, x, y, NULL), "%s and %s do not conflict", #x, #y)
#define NO_CONFLICT(s, x, y) CHECK_MSG(!conflict(s, x, y, NULL), "%s and %s conflict", #x, #y)
#define HAZARD(s, x, y, kind)                                                        \
    do {                                                                             \
        struct ggc_conflict test_c_;                                                 \
        CHECK_MSG(conflict(s, x, y, &test_c_), "%s and %s do not conflict", #x, #y); \
        CHECK_EQ(test_c_.hazard, kind);                                              \
    } while (0)
