// Random graphs of ggml's own operations, for the tests that plan and run whole graphs: data flow,
// views, in-place operations, caches written and read through several views, fused projections,
// attention, mixtures of experts, fences. Equal seeds give equal graphs with equal data, so that
// one can be the reference for the other. Every value is [DIM, tokens], f32.
#pragma once

#include <math.h>

#include "support_ggml.h"

#define DIM 64
#define HEADS 4
#define HEAD_DIM (DIM / HEADS)
#define ROWS 24  // of a cache
#define EXPERTS 4
#define MAX_VALUES 256
#define MAX_LEAFS 96

// A leaf with the data that it has before each run.
struct leaf {
    struct ggml_tensor * tensor;
    void * data;
};

struct random_graph {
    struct ggml_context * leaf_ctx;  // weights, caches, some inputs: they have memory at once
    struct ggml_context * ctx;       // the graph, what it computes, the other inputs
    struct ggml_cgraph * graph;
    ggml_backend_buffer_t leaf_buffer;
    ggml_backend_buffer_t own_buffer;  // of random_graph_place
    struct leaf leafs[MAX_LEAFS];
    struct ggml_tensor * values[MAX_VALUES];
    struct ggml_tensor * weights[6];
    struct ggml_tensor * caches[3];  // f32, f32, f16
    struct ggml_tensor *experts, *scale, *positions, *ids32, *ids64, *picks;
    uint32_t n_leafs, n_values;
    int64_t tokens;
    struct test_rng rng;  // of the structure
    struct test_rng data;
};

//
// Leafs and their data
//

static inline float random_float(struct test_rng * rng) {
    return (float) ((double) (test_rand(rng) >> 40) * 0x1p-23 - 1.0);
}

static inline void * random_floats(struct random_graph * g, const struct ggml_tensor * t) {
    const int64_t n = ggml_nelements(t);
    float * values = test_alloc((size_t) n * sizeof *values);
    const float scale = t->ne[1] > 1 && t->ne[1] % DIM == 0 ? 1 / sqrtf((float) t->ne[0]) : 1;
    for (int64_t i = 0; i < n; i++) {
        values[i] = scale * random_float(&g->data);
    }
    if (t->type == GGML_TYPE_F32) {
        return values;
    }
    void * data = test_alloc(ggml_nbytes(t));
    ggml_quantize_chunk(t->type, values, data, 0, n / t->ne[0], t->ne[0], NULL);
    free(values);
    return data;
}

// Each index at most once: writes to the same row in one operation would have no order.
static inline void * random_indices(struct random_graph * g, const struct ggml_tensor * t) {
    const uint32_t n = (uint32_t) ggml_nelements(t), below = (uint32_t) t->op_params[0];
    void * data = test_alloc(ggml_nbytes(t));
    uint32_t * order = test_alloc(below * sizeof *order);
    for (uint32_t i = 0; i < n; i++) {
        if (i % below == 0) {
            for (uint32_t j = 0; j < below; j++) {
                order[j] = j;
            }
            test_shuffle(&g->data, order, below);
        }
        if (t->type == GGML_TYPE_I64) {
            ((int64_t *) data)[i] = order[i % below];
        } else {
            ((int32_t *) data)[i] = (int32_t) order[i % below];
        }
    }
    free(order);
    return data;
}

static inline struct ggml_tensor * add_leaf(struct random_graph * g, struct ggml_tensor * t) {
    CHECK(g->n_leafs < MAX_LEAFS);
    g->leafs[g->n_leafs++].tensor = t;
    return t;
}

static inline struct ggml_tensor * leaf(struct random_graph * g, enum ggml_type type, int64_t n,
                                        int64_t rows, int64_t layers) {
    return add_leaf(g, ggml_new_tensor_3d(g->leaf_ctx, type, n, rows, layers));
}

// Indices 0 .. below-1; the bound is kept where a leaf has no other use for it.
static inline struct ggml_tensor * indices(struct random_graph * g, enum ggml_type type, int64_t n,
                                           int64_t rows, uint32_t below) {
    struct ggml_tensor * t = add_leaf(g, ggml_new_tensor_2d(g->leaf_ctx, type, n, rows));
    t->op_params[0] = (int32_t) below;
    return t;
}

static inline enum ggml_type random_type(struct random_graph * g) {
    static const enum ggml_type types[] = {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16,
                                           GGML_TYPE_Q8_0, GGML_TYPE_Q4_0};
    return types[test_below(&g->rng, 5)];
}

static inline void make_leafs(struct random_graph * g) {
    for (int i = 0; i < 3; i++) {
        g->weights[i] = leaf(g, random_type(g), DIM, DIM, 1);
    }
    g->weights[3] = leaf(g, random_type(g), 2 * DIM, DIM, 1);
    g->weights[4] = leaf(g, random_type(g), DIM, 3 * DIM, 1);
    g->weights[5] = leaf(g, random_type(g), DIM, EXPERTS, 1);
    g->experts = leaf(g, random_type(g), DIM, DIM, EXPERTS);
    g->scale = leaf(g, GGML_TYPE_F32, DIM, 1, 1);
    for (int i = 0; i < 3; i++) {
        g->caches[i] = leaf(g, i < 2 ? GGML_TYPE_F32 : GGML_TYPE_F16, DIM, ROWS, 1);
    }
    g->positions = indices(g, GGML_TYPE_I32, g->tokens, 1, ROWS);
    g->ids32 = indices(g, GGML_TYPE_I32, g->tokens, 1, ROWS);
    g->ids64 = indices(g, GGML_TYPE_I64, g->tokens, 1, ROWS);
    g->picks = indices(g, GGML_TYPE_I32, 2, g->tokens, EXPERTS);
}

//
// Steps. Each takes values and makes values; whatever it makes is put into the graph at once, since
// the order of the list is what orders writes through views.
//

typedef struct ggml_tensor * tensor;

static inline tensor put(struct random_graph * g, tensor t) {
    ggml_build_forward_expand(g->graph, t);
    return t;
}

static inline void value(struct random_graph * g, tensor t) {
    CHECK(t->ne[0] == DIM && t->ne[1] == g->tokens && t->type == GGML_TYPE_F32);
    g->values[g->n_values++] = put(g, t);
}

// One of the last few, mostly; else any.
static inline tensor pick(struct random_graph * g) {
    const uint32_t n = g->n_values, recent = n < 4 ? n : 4;
    return g->values[test_chance(&g->rng, 0.6) ? n - 1 - test_below(&g->rng, recent)
                                               : test_below(&g->rng, n)];
}

// One that may be changed: computed, not an input.
static inline tensor pick_computed(struct random_graph * g) {
    for (int i = 0; i < 20; i++) {
        tensor t = pick(g);
        if (t->op != GGML_OP_NONE) {
            return t;
        }
    }
    tensor t = ggml_dup(g->ctx, pick(g));
    value(g, t);
    return t;
}

static inline bool coin(struct random_graph * g) {
    return test_chance(&g->rng, 0.5);
}

static inline void step_mul_mat(struct random_graph * g) {
    value(g, ggml_mul_mat(g->ctx, g->weights[test_below(&g->rng, 3)], pick(g)));
}

static inline void step_binary(struct random_graph * g) {
    tensor a = pick(g), b = coin(g) ? pick(g) : g->scale;
    switch (test_below(&g->rng, 4)) {
        case 0: value(g, ggml_add(g->ctx, a, b)); break;
        case 1: value(g, ggml_sub(g->ctx, a, b)); break;
        case 2: value(g, ggml_mul(g->ctx, a, b)); break;
        default: value(g, ggml_add_inplace(g->ctx, pick_computed(g), b));
    }
}

static inline void step_norm(struct random_graph * g) {
    tensor x = pick(g);
    switch (test_below(&g->rng, 4)) {
        case 0: value(g, ggml_norm(g->ctx, x, 1e-5f)); break;
        case 1: value(g, ggml_rms_norm_inplace(g->ctx, pick_computed(g), 1e-5f)); break;
        default: value(g, ggml_mul(g->ctx, ggml_rms_norm(g->ctx, x, 1e-5f), g->scale));
    }
}

static inline void step_unary(struct random_graph * g) {
    tensor x = pick(g);
    switch (test_below(&g->rng, 8)) {
        case 0: value(g, ggml_silu(g->ctx, x)); break;
        case 1: value(g, ggml_gelu(g->ctx, x)); break;
        case 2: value(g, ggml_tanh(g->ctx, x)); break;
        case 3: value(g, ggml_soft_max(g->ctx, x)); break;
        case 4: value(g, ggml_scale(g->ctx, x, 0.5f)); break;
        case 5: value(g, ggml_scale_inplace(g->ctx, pick_computed(g), 0.75f)); break;
        case 6: value(g, ggml_silu_inplace(g->ctx, pick_computed(g))); break;
        default: value(g, ggml_soft_max_inplace(g->ctx, pick_computed(g)));
    }
}

static inline void step_rope(struct random_graph * g) {
    const bool in_place = coin(g);
    tensor x = in_place ? pick_computed(g) : ggml_cont(g->ctx, pick(g));
    tensor heads = ggml_reshape_3d(g->ctx, x, HEAD_DIM, HEADS, g->tokens);
    tensor r = in_place ? ggml_rope_inplace(g->ctx, heads, g->positions, HEAD_DIM, 0)
                        : ggml_rope(g->ctx, heads, g->positions, HEAD_DIM, 2);
    value(g, ggml_reshape_2d(g->ctx, r, DIM, g->tokens));
}

static inline tensor cache_rows(struct random_graph * g, tensor cache, uint32_t first) {
    return ggml_view_2d(g->ctx, cache, DIM, g->tokens, cache->nb[1], first * cache->nb[1]);
}

static inline uint32_t some_row(struct random_graph * g) {
    return test_below(&g->rng, (uint32_t) (ROWS - g->tokens + 1));
}

static inline void step_cache_write(struct random_graph * g) {
    tensor cache = g->caches[test_below(&g->rng, 3)], x = pick(g);
    if (coin(g)) {
        put(g, ggml_cpy(g->ctx, x, cache_rows(g, cache, some_row(g))));
    } else {
        tensor ids = g->ids64;
        if (coin(g)) {  // computed: rows in the order of the first values of the tokens
            tensor first =
                ggml_cont_1d(g->ctx, ggml_view_2d(g->ctx, x, 1, g->tokens, x->nb[1], 0), g->tokens);
            ids = ggml_argsort(g->ctx, first, GGML_SORT_ORDER_ASC);
        }
        put(g, ggml_set_rows(g->ctx, cache, x, ids));
    }
}

static inline void step_cache_read(struct random_graph * g) {
    tensor cache = g->caches[test_below(&g->rng, 2)], rows = cache_rows(g, cache, some_row(g));
    switch (test_below(&g->rng, 3)) {
        case 0: value(g, ggml_cont(g->ctx, rows)); break;
        case 1: value(g, ggml_add(g->ctx, pick(g), rows)); break;
        default: value(g, ggml_get_rows(g->ctx, g->caches[test_below(&g->rng, 3)], g->ids32));
    }
}

static inline void step_concat(struct random_graph * g) {
    tensor both = ggml_concat(g->ctx, pick(g), pick(g), 0);
    if (coin(g)) {
        value(g, ggml_mul_mat(g->ctx, g->weights[3], both));
    } else {
        tensor middle = ggml_view_2d(g->ctx, both, DIM, g->tokens, both->nb[1], DIM * 2);
        value(g, ggml_cont(g->ctx, middle));
    }
}

// One projection, three interleaved views, changed in place and used apart.
static inline void step_fused_qkv(struct random_graph * g) {
    tensor qkv = put(g, ggml_mul_mat(g->ctx, g->weights[4], pick(g))), part[3];
    for (size_t i = 0; i < 3; i++) {
        part[i] = ggml_view_2d(g->ctx, qkv, DIM, g->tokens, qkv->nb[1], i * DIM * sizeof(float));
        if (coin(g)) {
            part[i] = put(g, ggml_rms_norm_inplace(g->ctx, part[i], 1e-5f));
        }
    }
    value(g, ggml_add(g->ctx, part[0], part[1]));
    value(g, ggml_mul(g->ctx, part[2], pick(g)));
}

// The same with Q, K and V of each head side by side: stripes in two dimensions.
static inline void step_interleaved_heads(struct random_graph * g) {
    tensor qkv = put(g, ggml_mul_mat(g->ctx, g->weights[4], pick(g))), part[3];
    const size_t head = HEAD_DIM * sizeof(float);
    for (size_t i = 0; i < 3; i++) {
        part[i] =
            ggml_view_3d(g->ctx, qkv, HEAD_DIM, HEADS, g->tokens, 3 * head, qkv->nb[1], i * head);
        if (coin(g)) {
            part[i] = put(g, ggml_rms_norm_inplace(g->ctx, part[i], 1e-5f));
        }
    }
    tensor sum = ggml_add(g->ctx, part[0], part[1]);
    value(g, ggml_reshape_2d(g->ctx, sum, DIM, g->tokens));
    value(g, ggml_cont_2d(g->ctx, part[2], DIM, g->tokens));
}

static inline void step_transpose(struct random_graph * g) {
    tensor t = ggml_cont(g->ctx, ggml_transpose(g->ctx, pick(g)));
    t = ggml_scale(g->ctx, t, 1.5f);
    value(g, ggml_cont(g->ctx, ggml_transpose(g->ctx, t)));
}

static inline void step_reduce(struct random_graph * g) {
    tensor x = pick(g), r = coin(g) ? ggml_mean(g->ctx, x) : ggml_sum_rows(g->ctx, x);
    value(g, coin(g) ? ggml_repeat(g->ctx, r, x) : ggml_add(g->ctx, pick(g), r));
}

static inline void step_set(struct random_graph * g) {
    tensor x = pick_computed(g), y = pick(g);
    if (!ggml_is_contiguous(x)) {
        return;
    }
    const size_t row = test_below(&g->rng, (uint32_t) g->tokens) * x->nb[1];
    tensor piece = ggml_cont(g->ctx, ggml_view_1d(g->ctx, y, DIM / 2, 32));
    if (coin(g)) {
        value(g, ggml_set_1d_inplace(g->ctx, x, piece, row + 64));
    } else {
        value(g, ggml_acc_inplace(g->ctx, x, piece, x->nb[1], x->nb[2], x->nb[3], row));
    }
}

static inline void step_halves(struct random_graph * g) {
    tensor x = pick(g), y = pick(g);
    tensor low = ggml_view_2d(g->ctx, x, DIM / 2, g->tokens, x->nb[1], 0);
    tensor high = ggml_view_2d(g->ctx, y, DIM / 2, g->tokens, y->nb[1], DIM / 2 * sizeof(float));
    tensor sum = put(g, ggml_add(g->ctx, low, high));
    value(g, ggml_concat(g->ctx, sum, ggml_cont(g->ctx, low), 0));
}

static inline tensor heads_first(struct random_graph * g, tensor x, int64_t n) {
    return ggml_permute(g->ctx, ggml_reshape_3d(g->ctx, x, HEAD_DIM, HEADS, n), 0, 2, 1, 3);
}

static inline void step_attention(struct random_graph * g) {
    tensor q = heads_first(g, ggml_cont(g->ctx, pick(g)), g->tokens);
    tensor k = heads_first(g, g->caches[coin(g) ? 0 : 2], ROWS);
    tensor v = heads_first(g, g->caches[coin(g) ? 1 : 2], ROWS);
    tensor scores = ggml_soft_max_ext(g->ctx, ggml_mul_mat(g->ctx, k, q), NULL, 0.25f, 0);
    tensor vt = ggml_cont(g->ctx, ggml_permute(g->ctx, v, 1, 0, 2, 3));
    tensor out = ggml_permute(g->ctx, ggml_mul_mat(g->ctx, vt, scores), 0, 2, 1, 3);
    value(g, ggml_cont_2d(g->ctx, out, DIM, g->tokens));
}

static inline void step_flash_attention(struct random_graph * g) {
    tensor q = heads_first(g, ggml_cont(g->ctx, pick(g)), g->tokens);
    tensor cache = heads_first(g, g->caches[2], ROWS);
    tensor out = ggml_flash_attn_ext(g->ctx, q, cache, cache, NULL, 0.25f, 0, 0);
    value(g, ggml_reshape_2d(g->ctx, out, DIM, g->tokens));
}

static inline void step_experts(struct random_graph * g) {
    tensor x = ggml_cont(g->ctx, pick(g)), ids = g->picks;
    if (coin(g)) {
        tensor weights = ggml_mul_mat(g->ctx, g->weights[5], x);
        ids = ggml_argsort_top_k(g->ctx, weights, 2);
    }
    tensor x3 = ggml_reshape_3d(g->ctx, x, DIM, 1, g->tokens);
    tensor out = put(g, ggml_mul_mat_id(g->ctx, g->experts, x3, ids));
    tensor first = ggml_view_2d(g->ctx, out, DIM, g->tokens, out->nb[2], 0);
    tensor second = ggml_view_2d(g->ctx, out, DIM, g->tokens, out->nb[2], out->nb[1]);
    value(g, ggml_add(g->ctx, first, second));
}

static inline void step_cast(struct random_graph * g) {
    tensor half = ggml_cast(g->ctx, pick(g), coin(g) ? GGML_TYPE_F16 : GGML_TYPE_BF16);
    value(g, ggml_cast(g->ctx, half, GGML_TYPE_F32));
}

static inline void add_a_half(tensor dst, const struct ggml_tensor * a, int ith, int nth,
                              void * u) {
    (void) u;
    for (int64_t i = ith; i < a->ne[1]; i += nth) {
        const float * from = (const float *) ((const char *) a->data + i * (int64_t) a->nb[1]);
        float * to = (float *) ((char *) dst->data + i * (int64_t) dst->nb[1]);
        for (int64_t j = 0; j < a->ne[0]; j++) {
            to[j] = from[j] + 0.5f;
        }
    }
}

static inline void step_custom(struct random_graph * g) {
    value(g, ggml_map_custom1(g->ctx, pick(g), add_a_half, GGML_N_TASKS_MAX, NULL));
}

static inline void step_nothing(struct random_graph * g) {
    tensor empty = ggml_view_1d(g->ctx, pick(g), 0, 16);
    put(g, ggml_scale(g->ctx, empty, 2));
}

// Rough shares of what transformer graphs do; fences are rare.
static inline void random_step(struct random_graph * g) {
    static void (*const steps[])(struct random_graph *) = {
        step_mul_mat,
        step_mul_mat,
        step_mul_mat,
        step_binary,
        step_binary,
        step_norm,
        step_norm,
        step_unary,
        step_unary,
        step_rope,
        step_cache_write,
        step_cache_write,
        step_cache_read,
        step_cache_read,
        step_concat,
        step_fused_qkv,
        step_interleaved_heads,
        step_transpose,
        step_reduce,
        step_set,
        step_halves,
        step_attention,
        step_flash_attention,
        step_experts,
        step_cast,
    };
    if (test_chance(&g->rng, 0.02)) {
        (coin(g) ? step_custom : step_nothing)(g);
    } else {
        steps[test_below(&g->rng, sizeof steps / sizeof *steps)](g);
    }
}

//
// Whole graphs
//

static inline void make_inputs(struct random_graph * g) {
    for (int i = 0; i < 3; i++) {
        tensor t = i == 0 ? leaf(g, GGML_TYPE_F32, DIM, g->tokens, 1)
                          : add_leaf(g, ggml_new_tensor_2d(g->ctx, GGML_TYPE_F32, DIM, g->tokens));
        ggml_set_input(t);
        g->values[g->n_values++] = t;
    }
}

// What nobody uses, the last value and a few others are results: their memory is to be kept.
static inline void mark_outputs(struct random_graph * g) {
    bool used[MAX_VALUES] = {false};
    for (int i = 0; i < g->graph->n_nodes; i++) {
        for (int s = 0; s < GGML_MAX_SRC && g->graph->nodes[i]->src[s]; s++) {
            for (uint32_t v = 0; v < g->n_values; v++) {
                used[v] = used[v] || g->graph->nodes[i]->src[s] == g->values[v];
            }
        }
    }
    for (uint32_t v = 0; v < g->n_values; v++) {
        if (g->values[v]->op != GGML_OP_NONE && (!used[v] || test_chance(&g->rng, 0.2))) {
            ggml_set_output(g->values[v]);
        }
    }
}

// About n_steps operations (each one to eight nodes) on 1 .. 5 tokens.
static inline void random_graph_init(struct random_graph * g, uint64_t seed, uint32_t n_steps) {
    memset(g, 0, sizeof *g);
    g->rng = test_rng(seed, 1);
    g->data = test_rng(seed, 2);
    g->tokens = test_range(&g->rng, 1, 5);
    const size_t n_nodes = 16 * n_steps + 64;
    g->leaf_ctx = ggml_init((struct ggml_init_params) {
        .mem_size = MAX_LEAFS * ggml_tensor_overhead(), .no_alloc = true});
    g->ctx =
        ggml_init((struct ggml_init_params) {.mem_size = 3 * n_nodes * ggml_tensor_overhead() +
                                                         ggml_graph_overhead_custom(n_nodes, false),
                                             .no_alloc = true});
    g->graph = ggml_new_graph_custom(g->ctx, n_nodes, false);
    make_leafs(g);
    make_inputs(g);
    for (uint32_t i = 0; i < n_steps && g->n_values < MAX_VALUES - 3; i++) {
        random_step(g);
    }
    value(g, ggml_add(g->ctx, g->values[g->n_values - 1], g->values[0]));
    mark_outputs(g);
    g->leaf_buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(g->leaf_ctx, ggml_backend_cpu_buffer_type());
    CHECK(g->leaf_buffer);
    for (uint32_t i = 0; i < g->n_leafs; i++) {
        tensor t = g->leafs[i].tensor;
        g->leafs[i].data = t->op_params[0] ? random_indices(g, t) : random_floats(g, t);
        t->op_params[0] = 0;
    }
}

// Memory of its own for every tensor: the graph as ggml computes it without reuse.
static inline void random_graph_place(struct random_graph * g) {
    g->own_buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(g->ctx, ggml_backend_cpu_buffer_type());
    CHECK(g->own_buffer);
}

// Inputs and caches as they were at first.
static inline void random_graph_restore(struct random_graph * g) {
    for (uint32_t i = 0; i < g->n_leafs; i++) {
        tensor t = g->leafs[i].tensor;
        if (t->data) {
            ggml_backend_tensor_set(t, g->leafs[i].data, 0, ggml_nbytes(t));
        }
    }
}

static inline void random_graph_free(struct random_graph * g) {
    for (uint32_t i = 0; i < g->n_leafs; i++) {
        free(g->leafs[i].data);
    }
    ggml_backend_buffer_free(g->own_buffer);
    ggml_backend_buffer_free(g->leaf_buffer);
    ggml_free(g->ctx);
    ggml_free(g->leaf_ctx);
}
