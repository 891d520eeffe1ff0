// Which nodes of mixtures of experts and of recurrent layers stay together for the sake of a
// backend's fusions, and which do not.
#include "fuse_cases.h"

enum { N_EXPERTS = 8, N_USED = 4 };

//
// Routers
//

enum scoring { SOFTMAX, SIGMOID, SOFTPLUS };

static struct ggml_tensor * score(enum scoring kind, struct ggml_tensor * logits) {
    switch (kind) {
        case SOFTMAX: return ggml_soft_max(s->ctx, logits);
        case SIGMOID: return ggml_sigmoid(s->ctx, logits);
        case SOFTPLUS: break;
    }
    return ggml_sqrt(s->ctx, ggml_softplus(s->ctx, logits));
}

// The routing of a mixture of experts: *first its first node, the result its last.
static struct ggml_tensor * router(enum scoring kind, bool bias, bool normalised, bool scaled,
                                   int tokens, struct ggml_tensor ** first) {
    struct ggml_context * ctx = s->ctx;
    struct ggml_tensor * x = matrix(s, WIDTH, tokens);
    struct ggml_tensor * logits = node(ggml_mul_mat(ctx, matrix(s, WIDTH, N_EXPERTS), x));
    struct ggml_tensor * probs = score(kind, logits);
    struct ggml_tensor * chosen_by = bias ? ggml_add(ctx, probs, vector(s, N_EXPERTS)) : probs;
    struct ggml_tensor * ids = ggml_argsort_top_k(ctx, chosen_by, N_USED);
    *first = kind == SOFTPLUS ? probs->src[0] : probs;
    probs = ggml_reshape_3d(ctx, probs, 1, N_EXPERTS, tokens);
    struct ggml_tensor * weights = ggml_get_rows(ctx, probs, ids);
    if (normalised) {
        weights = ggml_reshape_2d(ctx, weights, N_USED, tokens);
        struct ggml_tensor * total = ggml_sum_rows(ctx, weights);
        weights = ggml_div(ctx, weights, ggml_clamp(ctx, total, 6e-5f, INFINITY));
        weights = ggml_reshape_3d(ctx, weights, 1, N_USED, tokens);
    }
    return node(scaled ? ggml_scale(ctx, weights, 2) : weights);
}

static void routers(void) {
    for (int variant = 0; variant < 24; variant++) {
        const enum scoring kind = (enum scoring)(variant % 3);
        const bool bias = variant / 3 & 1, normalised = variant / 6 & 1, scaled = variant / 12 & 1;
        struct ggml_tensor *first, *last = router(kind, bias, normalised, scaled, TOKENS, &first);
        TOGETHER(GGC_FUSE_CUDA, first, last);
        APART(GGC_FUSE_CUDA, first->src[0], first);
        if (kind == SOFTMAX && !bias) {
            TOGETHER(GGC_FUSE_METAL, first, last);
        } else {
            APART(GGC_FUSE_METAL, first, last);
        }
        APART(GGC_FUSE_CPU, first, last);
        scene_free(s);
        scene_init(s);
    }
}

// Where the weights lie on the scores nothing of the router is fused, not even what comes before
// them; unless there are few tokens.
static void routers_in_memory(void) {
    for (int variant = 0; variant < 16; variant++) {
        const bool normalised = variant & 1, scaled = variant & 2, on_scores = variant & 4;
        const int tokens = variant & 8 ? 5 : 4;
        struct ggml_tensor *first,
            *last = router(SOFTMAX, false, normalised, scaled, tokens, &first);
        ggml_backend_buffer_t buffer =
            give_memory(on_scores ? root_of(last) : NULL, on_scores ? first->src[0] : NULL);
        bool apart[64];
        CHECK(s->graph->n_nodes <= 64);
        find_apart(s->graph, GGC_FUSE_CUDA, apart);
        const uint32_t begin = node_index(s->graph, first), end = node_index(s->graph, last);
        CHECK(apart[begin]);
        for (uint32_t i = begin + 1; i <= end; i++) {
            CHECK_MSG(apart[i] == (on_scores && tokens > 4), "variant %d, node %u of %u", variant,
                      i - begin, end - begin);
        }
        ggml_backend_buffer_free(buffer);
        scene_free(s);
        scene_init(s);
    }
}

static void router_with_its_softmax_last(void) {
    struct ggml_context * ctx = s->ctx;
    struct ggml_tensor * logits = node(ggml_mul_mat(ctx, matrix(s, WIDTH, N_EXPERTS), input()));
    logits = sum(logits, vector(s, N_EXPERTS));
    struct ggml_tensor * ids = ggml_argsort_top_k(ctx, logits, N_USED);
    struct ggml_tensor * probs = node(ggml_reshape_3d(ctx, logits, 1, N_EXPERTS, TOKENS));
    struct ggml_tensor * weights = ggml_get_rows(ctx, probs, node(ids));
    weights = ggml_soft_max(ctx, ggml_reshape_2d(ctx, weights, N_USED, TOKENS));
    struct ggml_tensor * last = node(ggml_reshape_3d(ctx, weights, 1, N_USED, TOKENS));
    TOGETHER(GGC_FUSE_CUDA, probs, last);
    APART(GGC_FUSE_CUDA, logits, probs);
    APART(GGC_FUSE_METAL, ids->src[0], weights);
}

//
// Experts
//

static struct ggml_tensor * chosen(void) {
    return ggml_new_tensor_2d(s->ctx, GGML_TYPE_I32, N_USED, TOKENS);
}

static struct ggml_tensor * one_row_each(void) {
    return ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, WIDTH, 1, TOKENS);
}

static struct ggml_tensor * experts(enum ggml_type type, struct ggml_tensor * x,
                                    struct ggml_tensor * ids) {
    struct ggml_tensor * w = ggml_new_tensor_3d(s->ctx, type, WIDTH, WIDTH, N_EXPERTS);
    return node(ggml_mul_mat_id(s->ctx, w, x, ids));
}

static struct ggml_tensor * with_bias(struct ggml_tensor * x, struct ggml_tensor * ids) {
    return node(ggml_add_id(s->ctx, x, matrix(s, WIDTH, N_EXPERTS), ids));
}

static void gate_and_up_of_experts(void) {
    struct ggml_tensor *ids = chosen(), *x = one_row_each();
    struct ggml_tensor *up = experts(GGML_TYPE_F32, x, ids), *gate = experts(GGML_TYPE_F32, x, ids);
    struct ggml_tensor * glu = node(ggml_swiglu_split(s->ctx, gate, up));
    struct ggml_tensor * down = experts(GGML_TYPE_F32, glu, ids);
    struct ggml_tensor * bias = with_bias(down, ids);
    TOGETHER(GGC_FUSE_CUDA, up, glu);
    APART(GGC_FUSE_CUDA, glu, down);
    TOGETHER(GGC_FUSE_CUDA, down, bias);
    APART(GGC_FUSE_METAL, up, gate);
    APART(GGC_FUSE_METAL, down, bias);
}

static void gate_and_up_of_experts_with_bias(void) {
    struct ggml_tensor *ids = chosen(), *x = one_row_each();
    struct ggml_tensor *up = experts(GGML_TYPE_F32, x, ids), *b = with_bias(up, ids);
    struct ggml_tensor *gate = experts(GGML_TYPE_F32, x, ids), *a = with_bias(gate, ids);
    struct ggml_tensor * glu = node(ggml_swiglu_split(s->ctx, a, b));
    TOGETHER(GGC_FUSE_CUDA, up, glu);
    APART(GGC_FUSE_METAL, up, b);
}

// Each expert's weights have a scale; that of the chosen ones is looked up.
static struct ggml_tensor * scaled_experts(struct ggml_tensor * x, struct ggml_tensor * ids,
                                           bool bias, struct ggml_tensor ** first) {
    struct ggml_context * ctx = s->ctx;
    *first = experts(GGML_TYPE_NVFP4, x, ids);
    struct ggml_tensor * scales = ggml_reshape_3d(ctx, vector(s, N_EXPERTS), 1, N_EXPERTS, 1);
    scales = ggml_get_rows(ctx, ggml_repeat_4d(ctx, scales, 1, N_EXPERTS, TOKENS, 1), ids);
    struct ggml_tensor * y = node(ggml_mul(ctx, *first, scales));
    return bias ? with_bias(y, ids) : y;
}

static void scaled_gate_and_up_of_experts(void) {
    for (int bias = 0; bias < 2; bias++) {
        struct ggml_tensor *ids = chosen(), *x = one_row_each(), *first, *second, *alone;
        struct ggml_tensor * gate = scaled_experts(x, ids, bias, &first);
        struct ggml_tensor * up = scaled_experts(x, ids, bias, &second);
        struct ggml_tensor * glu = node(ggml_swiglu_split(s->ctx, gate, up));
        struct ggml_tensor * last = scaled_experts(glu, ids, bias, &alone);
        TOGETHER(GGC_FUSE_CUDA, first, glu);
        APART(GGC_FUSE_CUDA, glu, alone);
        TOGETHER(GGC_FUSE_CUDA, alone, last);
        APART(GGC_FUSE_METAL, first, second);
    }
}

static struct ggml_tensor * sum_of_experts(struct ggml_tensor * weighted_experts, int64_t n) {
    struct ggml_tensor *parts[16], *result = NULL;
    for (int64_t i = 0; i < n; i++) {
        parts[i] =
            node(ggml_view_2d(s->ctx, weighted_experts, WIDTH, TOKENS, weighted_experts->nb[2],
                              (size_t) i * weighted_experts->nb[1]));
    }
    for (int64_t i = 0; i < n; i++) {
        result = i == 0 ? parts[0] : sum(result, parts[i]);
    }
    return result;
}

static void weighted_sum_of_experts(void) {
    for (int64_t n = 2; n <= 15; n++) {
        struct ggml_tensor * all = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, WIDTH, n, TOKENS);
        struct ggml_tensor * weights = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, 1, n, TOKENS);
        struct ggml_tensor *gap = other(), *product_of = node(ggml_mul(s->ctx, all, weights));
        struct ggml_tensor * last = sum_of_experts(product_of, n);
        APART(GGC_FUSE_CUDA, gap, product_of);
        TOGETHER(GGC_FUSE_CUDA, product_of, last);
        TOGETHER(GGC_FUSE_METAL, product_of, last);
    }
}

static void weighted_sum_of_scaled_experts(void) {
    for (int second = 0; second < 2; second++) {
        struct ggml_tensor * all = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, WIDTH, 4, TOKENS);
        struct ggml_tensor * weights = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, 1, 4, TOKENS);
        struct ggml_tensor *gap = other(), *first = node(ggml_mul(s->ctx, all, weights));
        struct ggml_tensor * next = node(ggml_mul(s->ctx, first, weights));
        if (second) {  // as source 1; ggml_mul itself wants the larger one first
            next->src[0] = weights;
            next->src[1] = first;
        }
        struct ggml_tensor * last = sum_of_experts(next, 4);
        APART(GGC_FUSE_CUDA, gap, first);
        TOGETHER(GGC_FUSE_CUDA, first, last);
        APART(GGC_FUSE_METAL, first, next);
        TOGETHER(GGC_FUSE_METAL, next, last);
    }
}

static void sum_of_products_is_no_sum_of_experts(void) {
    struct ggml_tensor *x = input(), *a = weighted(x), *b = sum(a, x);
    APART(GGC_FUSE_CUDA, a, b);
    APART(GGC_FUSE_METAL, a, b);
}

//
// Recurrent layers
//

static void convolution(void) {
    struct ggml_tensor * x = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, TOKENS + 3, WIDTH, 1);
    struct ggml_tensor * a = node(ggml_ssm_conv(s->ctx, x, matrix(s, 4, WIDTH)));
    struct ggml_tensor *b = node(ggml_silu(s->ctx, a)), *gap = other();
    struct ggml_tensor * c = node(ggml_ssm_conv(s->ctx, x, matrix(s, 4, WIDTH)));
    struct ggml_tensor * d = node(ggml_silu(s->ctx, sum(c, vector(s, WIDTH))));
    TOGETHER(GGC_FUSE_CUDA, a, b);
    TOGETHER(GGC_FUSE_METAL, a, b);
    APART(GGC_FUSE_CUDA, b, gap);
    TOGETHER(GGC_FUSE_CUDA, c, d);
    APART(GGC_FUSE_METAL, c, d);
}

static struct ggml_tensor * delta_net(void) {
    struct ggml_tensor * parts[6];
    for (int i = 0; i < 3; i++) {
        parts[i] = ggml_new_tensor_4d(s->ctx, GGML_TYPE_F32, 16, 2, TOKENS, 1);
    }
    parts[3] = parts[4] = ggml_new_tensor_4d(s->ctx, GGML_TYPE_F32, 1, 2, TOKENS, 1);
    parts[5] = ggml_new_tensor_4d(s->ctx, GGML_TYPE_F32, 16, 16, 2, 1);
    return node(ggml_gated_delta_net(s->ctx, parts[0], parts[1], parts[2], parts[3], parts[4],
                                     parts[5], 1));
}

static struct ggml_tensor * keep_state(struct ggml_tensor * net) {
    struct ggml_tensor * cache = matrix(s, 512, 4);
    struct ggml_tensor * state = ggml_view_1d(s->ctx, net, 512, 16 * 2 * TOKENS * 4);
    return node(ggml_cpy(s->ctx, state, ggml_view_1d(s->ctx, cache, 512, cache->nb[1])));
}

static void state_of_a_delta_net(void) {
    struct ggml_tensor *a = delta_net(), *b = keep_state(a), *gap = other();
    struct ggml_tensor *c = delta_net(), *more = other(), *d = keep_state(c);
    TOGETHER(GGC_FUSE_CUDA, a, b);
    TOGETHER(GGC_FUSE_METAL, a, b);
    APART(GGC_FUSE_CUDA, b, gap);
    APART(GGC_FUSE_CUDA, c, more);
    APART(GGC_FUSE_METAL, c, d);
}

//
// All of it
//

static const struct fuse_case cases[] = {
    CASE(routers),
    CASE(routers_in_memory),
    CASE(router_with_its_softmax_last),
    CASE(gate_and_up_of_experts),
    CASE(gate_and_up_of_experts_with_bias),
    CASE(scaled_gate_and_up_of_experts),
    CASE(weighted_sum_of_experts),
    CASE(weighted_sum_of_scaled_experts),
    CASE(sum_of_products_is_no_sum_of_experts),
    CASE(convolution),
    CASE(state_of_a_delta_net),
};

int main(int argc, char ** argv) {
    test_begin(argc, argv, 0, 0);
    run_fuse_cases(cases, sizeof cases / sizeof *cases);
    return test_passed("%zu cases", sizeof cases / sizeof *cases);
}
