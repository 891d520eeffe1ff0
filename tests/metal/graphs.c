#include <stdlib.h>

#include "compare.h"
#include "random_graph.h"

struct metal_graph {
    struct random_graph random;  // in use where layered.ctx is NULL
    struct scene layered;
};

static bool has_user_code(const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i]->op == GGML_OP_MAP_CUSTOM1) {
            return true;
        }
    }
    return false;
}

// Without user code: we do not know what that touches, and ggml-metal cannot run it.
struct metal_graph * metal_random_graph(uint64_t seed, uint32_t n_steps) {
    struct metal_graph * graph = test_alloc(sizeof *graph);
    random_graph_init(&graph->random, seed, n_steps);
    while (has_user_code(graph->random.graph)) {
        random_graph_free(&graph->random);
        seed += UINT64_C(1) << 32;
        random_graph_init(&graph->random, seed, n_steps);
    }
    return graph;
}

//
// A transformer, as wide as a small one and as deep as is asked for
//

enum { WIDTH = 256, HEADS_OF_LAYER = 4, KV = 64, CELLS = 256, HIDDEN = 512 };

static struct ggml_tensor * weight(struct scene * s, int64_t in, int64_t out) {
    return matrix(s, in, out);
}

static struct ggml_tensor * normalised(struct scene * s, struct ggml_tensor * x) {
    return ggml_mul(s->ctx, ggml_rms_norm(s->ctx, x, 1e-6f), vector(s, x->ne[0]));
}

static struct ggml_tensor * head(struct scene * s, struct ggml_tensor * x,
                                 struct ggml_tensor * position) {
    struct ggml_tensor * heads = ggml_reshape_3d(s->ctx, x, KV, x->ne[0] / KV, 1);
    return ggml_rope(s->ctx, normalised(s, heads), position, KV, GGML_ROPE_TYPE_NEOX);
}

static struct ggml_tensor * attention(struct scene * s, struct ggml_tensor * x,
                                      struct ggml_tensor * position, struct ggml_tensor * row) {
    struct ggml_context * ctx = s->ctx;
    struct ggml_tensor *keys = matrix(s, KV, CELLS), *values = matrix(s, KV, CELLS);
    struct ggml_tensor * q = ggml_mul_mat(ctx, weight(s, WIDTH, KV * HEADS_OF_LAYER), x);
    struct ggml_tensor * k = ggml_mul_mat(ctx, weight(s, WIDTH, KV), x);
    struct ggml_tensor * v = ggml_mul_mat(ctx, weight(s, WIDTH, KV), x);
    q = head(s, q, position);
    k = ggml_view_2d(ctx, head(s, k, position), KV, 1, KV * sizeof(float), 0);
    expand(s, q);
    expand(s, k);
    expand(s, v);
    expand(s, ggml_set_rows(ctx, keys, k, row));
    expand(s, ggml_set_rows(ctx, values, v, row));
    struct ggml_tensor * scores = ggml_mul_mat(ctx, keys, ggml_permute(ctx, q, 0, 2, 1, 3));
    scores = ggml_soft_max_ext(ctx, scores, NULL, 0.125f, 0);
    struct ggml_tensor * mixed =
        ggml_mul_mat(ctx, ggml_cont(ctx, ggml_transpose(ctx, values)), scores);
    mixed = ggml_cont_2d(ctx, ggml_permute(ctx, mixed, 0, 2, 1, 3), KV * HEADS_OF_LAYER, 1);
    return ggml_mul_mat(ctx, weight(s, KV * HEADS_OF_LAYER, WIDTH), mixed);
}

static struct ggml_tensor * feed_forward(struct scene * s, struct ggml_tensor * x) {
    struct ggml_tensor * up = ggml_mul_mat(s->ctx, weight(s, WIDTH, HIDDEN), x);
    struct ggml_tensor * gate = ggml_mul_mat(s->ctx, weight(s, WIDTH, HIDDEN), x);
    struct ggml_tensor * glu = ggml_swiglu_split(s->ctx, gate, up);
    return ggml_mul_mat(s->ctx, weight(s, HIDDEN, WIDTH), glu);
}

struct metal_graph * metal_layered_graph(uint32_t n_layers) {
    struct metal_graph * graph = test_alloc(sizeof *graph);
    struct scene * s = &graph->layered;
    const size_t n = 64 * (size_t) n_layers + 64;
    s->ctx = ggml_init((struct ggml_init_params) {.mem_size = n * ggml_tensor_overhead() +
                                                              ggml_graph_overhead_custom(n, false),
                                                  .no_alloc = true});
    CHECK(s->ctx);
    s->graph = ggml_new_graph_custom(s->ctx, n, false);
    struct ggml_tensor * position = ggml_new_tensor_1d(s->ctx, GGML_TYPE_I32, 1);
    struct ggml_tensor * row = ggml_new_tensor_1d(s->ctx, GGML_TYPE_I64, 1);
    struct ggml_tensor * x = vector(s, WIDTH);
    for (uint32_t i = 0; i < n_layers; i++) {
        x = ggml_add(s->ctx, attention(s, normalised(s, x), position, row), x);
        x = ggml_add(s->ctx, feed_forward(s, normalised(s, x)), x);
        expand(s, x);
    }
    return graph;
}

struct ggml_cgraph * metal_graph_get(struct metal_graph * graph) {
    return graph->layered.ctx ? graph->layered.graph : graph->random.graph;
}

void metal_graph_free(struct metal_graph * graph) {
    if (graph->layered.ctx) {
        scene_free(&graph->layered);
    } else {
        random_graph_free(&graph->random);
    }
    free(graph);
}
