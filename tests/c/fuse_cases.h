// What the tests of fusions share: small graphs built with ggml's own functions, in the order in
// which llama.cpp builds them, and the question which of their nodes are one unit.
#pragma once

#include "random_graph.h"

// After the above, which includes ggml-impl.h with its warnings off.
#include "ggml/fuse.h"

static struct scene scene, *const s = &scene;
static enum ggc_fuse fuse;  // of the last plan

enum { WIDTH = 64, TOKENS = 3 };

static inline struct ggml_tensor * node(struct ggml_tensor * t) {
    expand(s, t);
    return t;
}

static inline struct ggml_tensor * input(void) {
    return matrix(s, WIDTH, TOKENS);
}
static inline struct ggml_tensor * other(void) {
    return node(ggml_cont(s->ctx, input()));
}

static inline struct ggml_tensor * product(struct ggml_tensor * x) {
    return node(ggml_mul_mat(s->ctx, matrix(s, WIDTH, WIDTH), x));
}

static inline struct ggml_tensor * norm(struct ggml_tensor * x) {
    return node(ggml_rms_norm(s->ctx, x, 1e-6f));
}

static inline struct ggml_tensor * weighted(struct ggml_tensor * x) {
    return node(ggml_mul(s->ctx, x, vector(s, WIDTH)));
}

static inline struct ggml_tensor * sum(struct ggml_tensor * x, struct ggml_tensor * y) {
    return node(ggml_add(s->ctx, x, y));
}

static inline void plan_for(enum ggc_fuse f) {
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    fuse = params.fuse = f;
    ggc_graph_plan_free(s->plan);
    s->plan = NULL;
    CHECK_STATUS(ggc_graph_plan_new(s->graph, &params, &s->plan), GGC_OK);
}

// Whether the two are in one unit, and everything that stands between them too.
static inline bool one_unit(const struct ggml_tensor * x, const struct ggml_tensor * y) {
    const uint32_t unit = unit_of(s, x);
    for (uint32_t i = node_index(s->graph, x); i <= node_index(s->graph, y); i++) {
        if (ggc_graph_plan_unit_of_node(s->plan)[i] != unit) {
            return false;
        }
    }
    return unit != GGC_NONE;
}

#define TOGETHER(f, x, y)                                                          \
    do {                                                                           \
        plan_for(f);                                                               \
        CHECK_MSG(one_unit(x, y), "fuse %d: %s and %s are no unit", fuse, #x, #y); \
    } while (0)
#define APART(f, x, y)                                                                         \
    do {                                                                                       \
        plan_for(f);                                                                           \
        CHECK_MSG(unit_of(s, x) != unit_of(s, y), "fuse %d: %s and %s are one unit", fuse, #x, \
                  #y);                                                                         \
    } while (0)

// Memory of its own for every tensor of the scene's graph, but `on` lies where `below` does.
static inline ggml_backend_buffer_t give_memory(const struct ggml_tensor * on,
                                                const struct ggml_tensor * below) {
    enum { EACH = 1 << 14, ROOM = 64 };
    ggml_backend_buffer_t buffer =
        ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), ROOM * EACH);
    char * next = ggml_backend_buffer_get_base(buffer);
    for (int i = 0; i < s->graph->n_nodes; i++) {
        for (int k = GGML_MAX_SRC; k >= 0; k--) {
            struct ggml_tensor * parent = s->graph->nodes[i];
            struct ggml_tensor * t = k > 0 ? parent->src[k - 1] : parent;
            if (t == NULL || t->data != NULL) {
                continue;
            }
            CHECK(ggml_nbytes(t) <= EACH);
            const enum ggml_status status =
                t->view_src != NULL
                    ? ggml_backend_view_init(t)
                    : ggml_backend_tensor_alloc(buffer, t, t == on ? below->data : next);
            CHECK(status == GGML_STATUS_SUCCESS);
            next += EACH;
        }
    }
    CHECK(next <= (char *) ggml_backend_buffer_get_base(buffer) + ROOM * EACH);
    return buffer;
}

//
// Running the cases
//

struct fuse_case {
    const char * name;
    void (*run)(void);
};

#define CASE(name) {#name, name}

static inline void run_fuse_cases(const struct fuse_case * cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        test_case("%s", cases[i].name);
        scene_init(s);
        cases[i].run();
        scene_free(s);
    }
}
