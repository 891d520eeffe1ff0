// Which nodes of real graphs stay together for the sake of a backend's fusions, and which do not.
// Experts and recurrent layers have a program of their own.
#include "fuse_cases.h"

//
// Norms
//

static void norm_and_weight(void) {
    struct ggml_tensor *a = norm(input()), *b = weighted(a);
    APART(GGC_FUSE_NONE, a, b);
    TOGETHER(GGC_FUSE_CPU, a, b);
    TOGETHER(GGC_FUSE_CUDA, a, b);
    TOGETHER(GGC_FUSE_METAL, a, b);
}

static void norm_is_not_next_to_its_weight(void) {
    struct ggml_tensor *a = norm(input()), *x = other(), *b = weighted(a);
    for (enum ggc_fuse f = GGC_FUSE_NONE; f <= GGC_FUSE_METAL; f++) {
        APART(f, a, x);
        APART(f, a, b);
    }
}

// The norm of one value before the weight of another: Q and K, normalised head by head.
static void norm_and_another_weight(void) {
    struct ggml_tensor *x = norm(input()), *a = norm(input()), *y = weighted(x), *b = weighted(a);
    for (enum ggc_fuse f = GGC_FUSE_NONE; f <= GGC_FUSE_METAL; f++) {
        APART(f, x, a);
        APART(f, a, y);
        APART(f, y, b);
    }
}

static void view_between_norm_and_weight(void) {
    struct ggml_tensor * a = norm(input());
    struct ggml_tensor * v = node(ggml_view_1d(s->ctx, vector(s, 2 * WIDTH), WIDTH, 128));
    struct ggml_tensor * b = node(ggml_mul(s->ctx, a, v));
    APART(GGC_FUSE_CPU, a, b);  // ggml-cpu looks at the very next node only
    TOGETHER(GGC_FUSE_METAL, a, b);
    TOGETHER(GGC_FUSE_CUDA, a, b);
}

static void norm_weight_and_bias(void) {
    struct ggml_tensor * a = node(ggml_norm(s->ctx, input(), 1e-6f));
    struct ggml_tensor *b = weighted(a), *c = sum(b, vector(s, WIDTH));
    TOGETHER(GGC_FUSE_METAL, a, c);
    APART(GGC_FUSE_CUDA, a, b);  // it fuses RMS_NORM only
    APART(GGC_FUSE_CPU, a, b);
}

static void norm_and_scale(void) {
    struct ggml_tensor *a = norm(input()), *b = node(ggml_scale(s->ctx, a, 2));
    TOGETHER(GGC_FUSE_METAL, a, b);
    TOGETHER(GGC_FUSE_CUDA, a, b);
    APART(GGC_FUSE_CPU, a, b);
}

static void mean_norm(void) {
    struct ggml_tensor * a = node(ggml_norm(s->ctx, input(), 1e-6f));
    struct ggml_tensor *b = weighted(a), *gap = other();
    struct ggml_tensor * c = node(ggml_norm(s->ctx, input(), 1e-6f));
    struct ggml_tensor * d = node(ggml_scale(s->ctx, c, 2));
    TOGETHER(GGC_FUSE_METAL, a, b);
    TOGETHER(GGC_FUSE_METAL, c, d);
    APART(GGC_FUSE_METAL, b, gap);
    APART(GGC_FUSE_CUDA, a, b);
    APART(GGC_FUSE_CUDA, c, d);
}

//
// Attention
//

static struct ggml_tensor * rope(struct ggml_tensor * x) {
    struct ggml_tensor * heads = ggml_reshape_3d(s->ctx, x, 16, WIDTH / 16, TOKENS);
    struct ggml_tensor * positions = ggml_new_tensor_1d(s->ctx, GGML_TYPE_I32, TOKENS);
    return node(ggml_rope(s->ctx, heads, positions, 16, GGML_ROPE_TYPE_NEOX));
}

static struct ggml_tensor * to_cache(struct ggml_tensor * x) {
    struct ggml_tensor * cache = ggml_new_tensor_2d(s->ctx, GGML_TYPE_F16, WIDTH, 32);
    struct ggml_tensor * rows = ggml_new_tensor_1d(s->ctx, GGML_TYPE_I64, TOKENS);
    struct ggml_tensor * flat = ggml_view_2d(s->ctx, x, WIDTH, TOKENS, WIDTH * 4, 0);
    return node(ggml_set_rows(s->ctx, cache, flat, rows));
}

static void projections_stay_apart(void) {
    struct ggml_tensor * x = weighted(norm(input()));
    struct ggml_tensor *q = product(x), *k = product(x), *v = product(x);
    struct ggml_tensor *rq = rope(q), *rk = rope(k), *ck = to_cache(rk), *cv = to_cache(v);
    for (enum ggc_fuse f = GGC_FUSE_NONE; f <= GGC_FUSE_METAL; f++) {
        APART(f, x, q);
        APART(f, q, k);
        APART(f, k, v);
        APART(f, q, rq);
        APART(f, rq, rk);
        APART(f, ck, cv);
    }
    TOGETHER(GGC_FUSE_CUDA, rk, ck);
    APART(GGC_FUSE_METAL, rk, ck);
}

static void projections_with_bias_stay_apart(void) {
    struct ggml_tensor *x = input(), *parts[3], *sums[3];
    for (int i = 0; i < 3; i++) {
        parts[i] = product(x);
        sums[i] = sum(parts[i], vector(s, WIDTH));
    }
    for (int i = 0; i < 3; i++) {
        TOGETHER(GGC_FUSE_CUDA, parts[i], sums[i]);
        APART(GGC_FUSE_METAL, parts[i], sums[i]);
        APART(GGC_FUSE_CUDA, sums[i], parts[(i + 1) % 3]);
    }
}

// Normalised, weighted and rotated heads: *first the norm, *second its weight, the result the rope.
static struct ggml_tensor * heads(struct ggml_tensor ** first, struct ggml_tensor ** second) {
    struct ggml_tensor * x = node(ggml_reshape_3d(s->ctx, other(), 16, WIDTH / 16, TOKENS));
    struct ggml_tensor * positions = ggml_new_tensor_1d(s->ctx, GGML_TYPE_I32, TOKENS);
    *first = norm(x);
    *second = node(ggml_mul(s->ctx, *first, vector(s, 16)));
    return node(ggml_rope(s->ctx, *second, positions, 16, 0));
}

static void norm_rope_and_cache(void) {
    struct ggml_tensor *a, *b, *c = heads(&a, &b), *d = to_cache(c);
    struct ggml_tensor *e, *f, *g = heads(&e, &f);
    TOGETHER(GGC_FUSE_CUDA, a, d);
    TOGETHER(GGC_FUSE_CUDA, e, g);
    APART(GGC_FUSE_CUDA, d, e);
    TOGETHER(GGC_FUSE_METAL, a, b);
    APART(GGC_FUSE_METAL, b, c);
}

static void rope_and_another_row_to_the_cache(void) {
    struct ggml_tensor *x = other(), *a = rope(input()), *b = to_cache(x);
    APART(GGC_FUSE_CUDA, a, b);
}

//
// Feed-forward
//

static void gate_and_up(void) {
    struct ggml_tensor *x = input(), *up = product(x), *gate = product(x);
    struct ggml_tensor *glu = node(ggml_swiglu_split(s->ctx, gate, up)), *down = product(glu);
    struct ggml_tensor * out = sum(down, x);
    TOGETHER(GGC_FUSE_CUDA, up, glu);
    APART(GGC_FUSE_METAL, up, gate);
    APART(GGC_FUSE_CUDA, glu, down);
    TOGETHER(GGC_FUSE_CUDA, down, out);
}

static void gate_and_up_with_bias(void) {
    struct ggml_tensor *x = input(), *up = product(x), *b = sum(up, vector(s, WIDTH));
    struct ggml_tensor *gate = product(x), *a = sum(gate, vector(s, WIDTH));
    struct ggml_tensor * glu = node(ggml_swiglu_split(s->ctx, a, b));
    TOGETHER(GGC_FUSE_CUDA, up, glu);
}

static void two_products_and_the_glu_of_another(void) {
    struct ggml_tensor *x = input(), *z = product(x), *gap = other();
    struct ggml_tensor *up = product(x), *gate = product(x);
    node(ggml_swiglu_split(s->ctx, gate, z));
    APART(GGC_FUSE_CUDA, up, gate);
    APART(GGC_FUSE_CUDA, gap, up);
}

// silu(w1 x) * (w3 x), as graphs were built before there was a GLU: w1 and w3 may run at once.
static void products_joined_by_a_multiplication(void) {
    struct ggml_tensor *x = input(), *a = product(x), *b = node(ggml_silu(s->ctx, a));
    struct ggml_tensor *c = product(x), *d = node(ggml_mul(s->ctx, b, c));
    APART(GGC_FUSE_CUDA, a, b);
    APART(GGC_FUSE_CUDA, b, c);
    APART(GGC_FUSE_CUDA, c, d);
}

// Weights with a scale beside them; the bias is an addition, the scale a product with one number.
static struct ggml_tensor * scaled_product(struct ggml_tensor * x, bool bias,
                                           struct ggml_tensor ** first) {
    struct ggml_tensor * w = ggml_new_tensor_2d(s->ctx, GGML_TYPE_NVFP4, WIDTH, WIDTH);
    *first = node(ggml_mul_mat(s->ctx, w, x));
    struct ggml_tensor * y = node(ggml_mul(s->ctx, *first, vector(s, 1)));
    return bias ? sum(y, input()) : y;
}

static void scaled_gate_and_up(void) {
    for (int bias = 0; bias < 2; bias++) {
        struct ggml_tensor *x = other(), *first, *second, *gap, *alone;
        struct ggml_tensor * gate = scaled_product(x, bias, &first);
        struct ggml_tensor * up = scaled_product(x, bias, &second);
        struct ggml_tensor * glu = node(ggml_swiglu_split(s->ctx, gate, up));
        gap = other();
        struct ggml_tensor * last = scaled_product(x, bias, &alone);
        TOGETHER(GGC_FUSE_CUDA, first, glu);
        APART(GGC_FUSE_CUDA, gap, alone);
        TOGETHER(GGC_FUSE_CUDA, alone, last);
        APART(GGC_FUSE_METAL, first, second);
    }
}

static void product_and_scale(void) {
    struct ggml_tensor *x = input(), *w = ggml_new_tensor_2d(s->ctx, GGML_TYPE_NVFP4, WIDTH, WIDTH);
    struct ggml_tensor * a = node(ggml_mul_mat(s->ctx, w, x));
    struct ggml_tensor * b = node(ggml_mul(s->ctx, a, vector(s, 1)));
    struct ggml_tensor *gap = other(), *c = product(x);
    struct ggml_tensor * d = node(ggml_mul(s->ctx, c, vector(s, 1)));
    TOGETHER(GGC_FUSE_CUDA, a, b);
    APART(GGC_FUSE_CUDA, gap, c);
    APART(GGC_FUSE_CUDA, c, d);  // only NVFP4 has a scale of its own
}

static void activations(void) {
    struct ggml_tensor *x = input(), *a = node(ggml_silu(s->ctx, x));
    struct ggml_tensor *b = node(ggml_mul(s->ctx, a, x)), *gap = other();
    struct ggml_tensor *c = node(ggml_relu(s->ctx, x)), *d = node(ggml_sqr(s->ctx, c));
    struct ggml_tensor * e = node(ggml_scale(s->ctx, d, 0.1f));
    struct ggml_tensor * f = node(ggml_scale(s->ctx, node(ggml_tanh(s->ctx, e)), 10));
    TOGETHER(GGC_FUSE_CUDA, a, b);
    TOGETHER(GGC_FUSE_CUDA, c, d);
    TOGETHER(GGC_FUSE_CUDA, e, f);
    APART(GGC_FUSE_CUDA, b, gap);
    APART(GGC_FUSE_CUDA, d, e);
    APART(GGC_FUSE_METAL, a, b);
    APART(GGC_FUSE_METAL, c, d);
    APART(GGC_FUSE_METAL, e, f);
}

static void snake_activation(void) {
    struct ggml_tensor *x = input(), *a = ggml_new_tensor_2d(s->ctx, GGML_TYPE_F32, 1, TOKENS);
    struct ggml_tensor * first = node(ggml_mul(s->ctx, x, a));
    struct ggml_tensor * wave = node(ggml_sqr(s->ctx, ggml_sin(s->ctx, first)));
    struct ggml_tensor * last = sum(x, node(ggml_mul(s->ctx, wave, a)));
    TOGETHER(GGC_FUSE_CUDA, first, last);
    TOGETHER(GGC_FUSE_METAL, first, last);
}

//
// Chains
//

static void chain_of_additions(void) {
    struct ggml_tensor *x = input(), *first = sum(x, x), *last = first;
    for (int i = 0; i < 20; i++) {
        last = sum(last, x);
    }
    TOGETHER(GGC_FUSE_CUDA, first, last);
    TOGETHER(GGC_FUSE_METAL, first, last);
    APART(GGC_FUSE_CPU, first, last);
}

static void additions_of_another_order(void) {
    struct ggml_tensor *x = input(), *a = sum(x, x), *b = sum(x, a), *c = sum(x, x);
    for (enum ggc_fuse f = GGC_FUSE_NONE; f <= GGC_FUSE_METAL; f++) {
        APART(f, a, b);  // the sum is source 1
        APART(f, b, c);  // it is none
    }
}

static void chain_of_products(void) {
    struct ggml_tensor *x = input(), *first = weighted(x), *last = weighted(weighted(first));
    TOGETHER(GGC_FUSE_CUDA, first, last);
    APART(GGC_FUSE_METAL, first, last);
}

// Norm + weight + addition may turn out to be norm + weight, and then the additions fuse.
static void overlapping_fusions_are_one_unit(void) {
    struct ggml_tensor *x = input(), *a = norm(x), *b = sum(sum(weighted(a), x), x);
    TOGETHER(GGC_FUSE_CUDA, a, b);
    TOGETHER(GGC_FUSE_METAL, a, b);
    TOGETHER(GGC_FUSE_CPU, a, b->src[0]->src[0]);
    APART(GGC_FUSE_CPU, a, b);
}

//
// New neighbours
//

static void units_that_must_be_separated(void) {
    struct ggml_tensor *x = input(), *a = norm(x), *b = norm(x), *c = weighted(a), *p = product(x);
    CHECK(might_fuse(a, c, GGC_FUSE_CPU) && !might_fuse(b, c, GGC_FUSE_CPU));
    CHECK(might_fuse(a, c, GGC_FUSE_CUDA) && !might_fuse(b, c, GGC_FUSE_CUDA));
    CHECK(might_fuse(a, c, GGC_FUSE_METAL) && !might_fuse(a, c, GGC_FUSE_NONE));
    CHECK(might_fuse(p, p, GGC_FUSE_CUDA));  // a GLU may follow
    CHECK(!might_fuse(p, p, GGC_FUSE_METAL) && !might_fuse(p, p, GGC_FUSE_CPU));
    CHECK(!might_fuse(c, p, GGC_FUSE_CUDA));
}

static void gate_and_up_in_memory(bool on_their_input) {
    struct ggml_tensor *x = norm(input()), *gate = product(x), *up = product(x);
    struct ggml_tensor * glu = node(ggml_swiglu_split(s->ctx, gate, up));
    ggml_backend_buffer_t buffer = give_memory(on_their_input ? glu : NULL, x);
    bool apart[64];
    CHECK(s->graph->n_nodes <= 64);
    find_apart(s->graph, GGC_FUSE_CUDA, apart);
    const uint32_t first = node_index(s->graph, gate);
    CHECK(apart[first]);
    CHECK_EQ(apart[first + 1], on_their_input);
    CHECK_EQ(apart[first + 2], on_their_input);
    TOGETHER(GGC_FUSE_CUDA, gate, glu);  // that the backend may refuse it is no matter by itself
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.fuse = GGC_FUSE_CUDA;
    params.apart = apart;
    ggc_graph_plan_free(s->plan);
    CHECK_STATUS(ggc_graph_plan_new(s->graph, &params, &s->plan), GGC_OK);
    CHECK_EQ(one_unit(gate, glu), !on_their_input);
    CHECK_EQ(unit_of(s, up) == unit_of(s, glu), !on_their_input);
    ggml_backend_buffer_free(buffer);
}

static void result_that_lies_on_a_source_is_not_fused(void) {
    gate_and_up_in_memory(true);
}

static void result_that_lies_elsewhere_is_fused(void) {
    gate_and_up_in_memory(false);
}

static void separator_is_nothing_to_compute_and_nothing_to_look_through(void) {
    struct ggml_tensor *separator = new_separator(s->ctx), *a = norm(input()), *b = weighted(a);
    CHECK(!node_computes(separator) && !ggml_op_is_empty(separator->op));
    CHECK(!(separator->flags & GGML_TENSOR_FLAG_COMPUTE) && !ggml_is_empty(separator));
    for (enum ggc_fuse f = GGC_FUSE_CPU; f <= GGC_FUSE_METAL; f++) {
        CHECK(!might_fuse(a, separator, f) && !might_fuse(separator, b, f));
        struct ggml_cgraph graph = *s->graph;
        struct ggml_tensor * nodes[] = {a, separator, b};
        graph.nodes = nodes;
        graph.n_nodes = 3;
        CHECK_EQ(run_at(&graph, 0, f), 1);
        CHECK_EQ(run_at(&graph, 1, f), 1);
    }
}

//
// Random graphs
//

// Each unit is a row of neighbours that begins and ends with work or belongs to a fusion, each node
// with work is in one unit, and in the order of the phases no unit is torn.
static void check_units(const struct ggml_cgraph * graph, const struct ggc_graph_plan * plan) {
    const struct ggc_units units = ggc_graph_plan_units(plan);
    const uint32_t *unit_of_node = ggc_graph_plan_unit_of_node(plan), n = (uint32_t) graph->n_nodes;
    const uint32_t * phase = ggc_graph_plan_node_phases(plan);
    uint32_t n_listed = 0;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(!node_computes(graph->nodes[i]) || unit_of_node[i] < units.n_units);
        n_listed += unit_of_node[i] != GGC_NONE;
    }
    for (uint32_t u = 0; u < units.n_units; u++) {
        uint32_t n_nodes;
        const uint32_t * nodes = ggc_graph_plan_nodes(plan, u, &n_nodes);
        CHECK(n_nodes > 0);
        n_listed -= n_nodes;
        for (uint32_t i = 0; i < n_nodes; i++) {
            CHECK_EQ(nodes[i], nodes[0] + i);
            CHECK_EQ(unit_of_node[nodes[i]], u);
            CHECK_EQ(phase[nodes[i]], phase[nodes[0]]);
        }
    }
    CHECK_EQ(n_listed, 0);
}

static void random_units(uint64_t seed) {
    struct random_graph g;
    struct test_rng rng = test_rng(seed, 3);
    random_graph_init(&g, seed, test_range(&rng, 1, 60));
    if (test_chance(&rng, 0.5)) {
        random_graph_place(&g);
    }
    for (enum ggc_fuse f = GGC_FUSE_NONE; f <= GGC_FUSE_METAL; f++) {
        struct ggc_graph_plan * plan = NULL;
        struct ggc_graph_params params;
        ggc_graph_params_init(&params);
        params.fuse = f;
        params.plan.n_streams = test_range(&rng, 1, 4);
        CHECK_STATUS(ggc_graph_plan_new(g.graph, &params, &plan), GGC_OK);
        const struct ggc_units units = ggc_graph_plan_units(plan);
        const struct ggc_schedule schedule = ggc_plan_schedule(ggc_graph_plan_core(plan));
        CHECK_STATUS(ggc_verify_schedule(&units, &schedule, NULL), GGC_OK);
        CHECK_STATUS(ggc_verify_phases(&units, ggc_plan_phases(ggc_graph_plan_core(plan)), NULL),
                     GGC_OK);
        check_units(g.graph, plan);
        ggc_graph_plan_free(plan);
    }
    random_graph_free(&g);
}

//
// All of it
//

static const struct fuse_case cases[] = {
    CASE(norm_and_weight),
    CASE(norm_is_not_next_to_its_weight),
    CASE(norm_and_another_weight),
    CASE(view_between_norm_and_weight),
    CASE(norm_weight_and_bias),
    CASE(norm_and_scale),
    CASE(mean_norm),
    CASE(projections_stay_apart),
    CASE(projections_with_bias_stay_apart),
    CASE(norm_rope_and_cache),
    CASE(rope_and_another_row_to_the_cache),
    CASE(gate_and_up),
    CASE(gate_and_up_with_bias),
    CASE(two_products_and_the_glu_of_another),
    CASE(products_joined_by_a_multiplication),
    CASE(scaled_gate_and_up),
    CASE(product_and_scale),
    CASE(activations),
    CASE(snake_activation),
    CASE(chain_of_additions),
    CASE(additions_of_another_order),
    CASE(chain_of_products),
    CASE(overlapping_fusions_are_one_unit),
    CASE(units_that_must_be_separated),
    CASE(result_that_lies_on_a_source_is_not_fused),
    CASE(result_that_lies_elsewhere_is_fused),
    CASE(separator_is_nothing_to_compute_and_nothing_to_look_through),
};

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 300);
    const size_t n_cases = options.first == 0 ? sizeof cases / sizeof *cases : 0;
    run_fuse_cases(cases, n_cases);
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        test_case("random graph %llu", (unsigned long long) i);
        random_units(options.seed + i);
    }
    return test_passed("%zu cases, %llu random graphs", n_cases,
                       (unsigned long long) options.iterations);
}
