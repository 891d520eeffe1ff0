// What the Metal dispatcher says that ggml-metal will make of a graph, on small scenes; whether
// that is what ggml-metal does is tested in tests/metal.
#include "support_ggml.h"

#include "dispatch/metal_inner.h"
#include "dispatch/metal_order.h"
#include "dispatch/metal_trace.h"
#include "ggml/layout.h"

static struct ggc_metal_figures predicted(const struct scene * s) {
    struct ggc_metal_figures figures;
    CHECK_STATUS(ggc_metal_predict(s->graph, &figures), GGC_OK);
    return figures;
}

static void expect(const struct scene * s, uint32_t kernels, uint32_t barriers, uint32_t buffers) {
    const struct ggc_metal_figures figures = predicted(s);
    CHECK_EQ(figures.n_kernels, kernels);
    CHECK_EQ(figures.n_barriers, barriers);
    CHECK_EQ(figures.n_command_buffers, buffers);
}

//
// The range tracker
//

static void reading_twice_needs_no_barrier(struct scene * s) {
    struct ggml_tensor * x = vector(s, 64);
    expand(s, ggml_relu(s->ctx, x));
    expand(s, ggml_sqr(s->ctx, x));
    place_at(s, x, 0, 0);
    place_at(s, s->graph->nodes[0], 0, 4096);
    place_at(s, s->graph->nodes[1], 0, 8192);
    expect(s, 2, 0, 1);
}

static void reading_what_was_written_needs_one(struct scene * s) {
    struct ggml_tensor * x = vector(s, 64);
    expand(s, ggml_sqr(s->ctx, ggml_relu(s->ctx, x)));
    place_all(s);
    expect(s, 2, 1, 1);
}

static void writing_what_was_read_needs_one(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *y = vector(s, 64);
    expand(s, ggml_relu(s->ctx, x));
    expand(s, ggml_cpy(s->ctx, y, x));
    place_at(s, x, 0, 0);
    place_at(s, y, 0, 4096);
    place_at(s, s->graph->nodes[0], 0, 8192);
    place_all(s);
    expect(s, 2, 1, 1);
}

// Results 256 bytes each, the second `gap` bytes before or behind the first.
static void two_results(struct scene * s, bool second_before, size_t gap, uint32_t barriers) {
    struct ggml_tensor *x = vector(s, 64), *y = vector(s, 64);
    expand(s, ggml_relu(s->ctx, x));
    expand(s, ggml_relu(s->ctx, y));
    place_at(s, x, 1, 0);
    place_at(s, y, 1, 4096);
    place_at(s, s->graph->nodes[0], 0, 4096);
    place_at(s, s->graph->nodes[1], 0, second_before ? 4096 - 256 - gap : 4096 + 256 + gap);
    expect(s, 2, barriers, 1);
}

static void ending_where_an_earlier_one_begins_needs_one(struct scene * s) {
    two_results(s, true, 0, 1);
}

static void beginning_where_an_earlier_one_ends_needs_none(struct scene * s) {
    two_results(s, false, 0, 0);
}

static void gap_before_an_earlier_one_needs_none(struct scene * s) {
    two_results(s, true, 64, 0);
}

static void parts_of_one_tensor_need_one(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *cache = vector(s, 256);
    expand(s, ggml_cpy(s->ctx, x, ggml_view_1d(s->ctx, cache, 64, 0)));
    expand(s, ggml_cpy(s->ctx, x, ggml_view_1d(s->ctx, cache, 64, 512)));
    place_all(s);
    expect(s, 2, 1, 1);
}

static void same_place_in_another_buffer_needs_none(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *y = vector(s, 64);
    expand(s, ggml_relu(s->ctx, x));
    expand(s, ggml_relu(s->ctx, y));
    place_at(s, x, 2, 0);
    place_at(s, y, 2, 4096);
    place_at(s, s->graph->nodes[0], 0, 0);
    place_at(s, s->graph->nodes[1], 1, 0);
    expect(s, 2, 0, 1);
}

static void what_is_not_to_be_computed_needs_none(struct scene * s) {
    struct ggml_tensor * x = vector(s, 64);
    expand(s, ggml_sqr(s->ctx, ggml_relu(s->ctx, x)));
    s->graph->nodes[0]->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
    place_all(s);
    expect(s, 1, 0, 1);
}

//
// Fusion
//

static void norm_and_weight_are_one_kernel(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *w = vector(s, 64);
    expand(s, ggml_mul(s->ctx, ggml_rms_norm(s->ctx, x, 1e-6f), w));
    place_all(s);
    expect(s, 1, 0, 1);
}

static void norm_that_is_read_again_is_not_fused(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *w = vector(s, 64);
    struct ggml_tensor * norm = ggml_rms_norm(s->ctx, x, 1e-6f);
    expand(s, ggml_mul(s->ctx, norm, w));
    expand(s, ggml_sqr(s->ctx, norm));
    place_all(s);
    CHECK_EQ(predicted(s).n_kernels, 3);
}

static void separator_prevents_fusion(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *w = vector(s, 64);
    struct ggml_tensor * norm = ggml_rms_norm(s->ctx, x, 1e-6f);
    expand(s, norm);
    expand(s, ggml_arange(s->ctx, 0, 1, 1));
    s->graph->nodes[1]->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
    expand(s, ggml_mul(s->ctx, norm, w));
    place_all(s);
    expect(s, 2, 1, 1);
}

static void additions_from_two_buffers_are_not_fused(struct scene * s) {
    struct ggml_tensor * v[3] = {vector(s, 64), vector(s, 64), vector(s, 64)};
    expand(s, ggml_add(s->ctx, ggml_add(s->ctx, v[0], v[1]), v[2]));
    place_at(s, v[1], 1, 0);
    place_at(s, v[2], 2, 0);
    place_all(s);
    expect(s, 2, 1, 1);
}

static void additions_from_one_buffer_are_fused(struct scene * s) {
    struct ggml_tensor * v[3] = {vector(s, 64), vector(s, 64), vector(s, 64)};
    expand(s, ggml_add(s->ctx, ggml_add(s->ctx, v[0], v[1]), v[2]));
    place_all(s);
    expect(s, 1, 0, 1);
}

static void no_more_than_seven_additions_are_fused(struct scene * s) {
    struct ggml_tensor * sum = vector(s, 64);
    for (int i = 0; i < 8; i++) {
        sum = ggml_add(s->ctx, sum, vector(s, 64));
    }
    expand(s, sum);
    place_all(s);
    expect(s, 2, 1, 1);
}

// Neither the first nor the last node of the three reads what was written before.
static void middle_of_a_fused_kernel_is_compared(struct scene * s) {
    struct ggml_tensor *v = vector(s, 64), *x = vector(s, 64), *b = vector(s, 64);
    struct ggml_tensor * w = ggml_relu(s->ctx, v);
    expand(s, w);
    struct ggml_tensor * scaled = ggml_mul(s->ctx, ggml_rms_norm(s->ctx, x, 1e-6f), w);
    expand(s, ggml_add(s->ctx, scaled, b));
    place_at(s, v, 1, 0);
    place_at(s, x, 1, 4096);
    place_at(s, b, 1, 8192);
    for (int i = 0; i < s->graph->n_nodes; i++) {
        place_at(s, s->graph->nodes[i], 0, 4096 * (size_t) i);
    }
    expect(s, 2, 1, 1);
}

// The first node, whose result nobody writes, lies elsewhere.
static void end_of_a_fused_kernel_is_compared(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *c = matrix(s, 4, 16);
    struct ggml_tensor * states = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, 7, 16, 1);
    struct ggml_tensor * read = ggml_relu(s->ctx, x);
    struct ggml_tensor * conv = ggml_ssm_conv(s->ctx, states, c);
    struct ggml_tensor * silu = ggml_silu(s->ctx, conv);
    expand(s, read);
    expand(s, silu);
    place_at(s, x, 0, 0);
    place_at(s, silu, 0, 0);  // over what the other kernel reads
    place_at(s, read, 0, 4096);
    place_at(s, conv, 0, 8192);
    place_at(s, c, 1, 0);
    place_at(s, states, 1, 4096);
    expect(s, 2, 1, 1);
}

//
// Inner barriers
//

static uint32_t inner(struct scene * s, struct ggml_tensor * node) {
    (void) s;
    return metal_inner_barriers(node);
}

static struct ggml_tensor * attention(struct scene * s, enum ggml_type type, int64_t n_queries,
                                      int64_t n_rows) {
    struct ggml_tensor * q = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, 64, n_queries, 4);
    struct ggml_tensor * k = ggml_new_tensor_3d(s->ctx, type, 64, n_rows, 4);
    struct ggml_tensor * v = ggml_new_tensor_3d(s->ctx, type, 64, n_rows, 4);
    return ggml_flash_attn_ext(s->ctx, q, k, v, NULL, 0.125f, 0, 0);
}

static struct ggml_tensor * experts(struct scene * s, int64_t n_tokens) {
    struct ggml_tensor * w = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, 64, 64, 8);
    struct ggml_tensor * x = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, 64, 1, n_tokens);
    struct ggml_tensor * ids = ggml_new_tensor_2d(s->ctx, GGML_TYPE_I32, 2, n_tokens);
    return ggml_mul_mat_id(s->ctx, w, x, ids);
}

static void operations_of_several_kernels(struct scene * s) {
    struct ggml_context * c = s->ctx;
    struct ggml_tensor *x = vector(s, 64), *y = vector(s, 16);
    CHECK_EQ(inner(s, ggml_acc(c, x, y, 0, 0, 0, 0)), 1);
    CHECK_EQ(inner(s, ggml_acc_inplace(c, x, y, 0, 0, 0, 0)), 0);
    CHECK_EQ(inner(s, ggml_set_1d(c, x, y, 0)), 1);
    CHECK_EQ(inner(s, ggml_set_1d_inplace(c, x, y, 0)), 0);
    CHECK_EQ(inner(s, ggml_count_equal(c, ggml_new_tensor_1d(c, GGML_TYPE_I32, 8),
                                       ggml_new_tensor_1d(c, GGML_TYPE_I32, 8))),
             1);
    CHECK_EQ(inner(s, ggml_cumsum(c, vector(s, 1024))), 0);
    CHECK_EQ(inner(s, ggml_cumsum(c, vector(s, 1025))), 2);
    CHECK_EQ(inner(s, ggml_argsort(c, vector(s, 1024), GGML_SORT_ORDER_DESC)), 0);
    CHECK_EQ(inner(s, ggml_argsort(c, vector(s, 1025), GGML_SORT_ORDER_DESC)), 1);
    CHECK_EQ(inner(s, ggml_argsort(c, vector(s, 4096), GGML_SORT_ORDER_DESC)), 2);
    CHECK_EQ(inner(s, ggml_argsort(c, vector(s, 4097), GGML_SORT_ORDER_DESC)), 3);
    CHECK_EQ(inner(s, ggml_top_k(c, vector(s, 1024), 40)), 0);
    CHECK_EQ(inner(s, ggml_top_k(c, vector(s, 2048), 40)), 1);  // 40 of each 1024: 80
    CHECK_EQ(inner(s, ggml_top_k(c, vector(s, 8192), 40)), 3);  // 320
    CHECK_EQ(inner(s, ggml_top_k(c, vector(s, 8192), 65)), 0);  // by radix
    CHECK_EQ(inner(s, experts(s, 31)), 0);
    CHECK_EQ(inner(s, experts(s, 32)), 1);
    CHECK_EQ(inner(s, ggml_mul_mat(c, x, x)), 0);
}

static void attention_by_shape(struct scene * s) {
    CHECK_EQ(inner(s, attention(s, GGML_TYPE_F16, 1, 64)), 1);   // the results of 32 groups
    CHECK_EQ(inner(s, attention(s, GGML_TYPE_F16, 1, 65)), 2);   // and the last rows are padded
    CHECK_EQ(inner(s, attention(s, GGML_TYPE_F16, 20, 64)), 0);  // another kernel
    CHECK_EQ(inner(s, attention(s, GGML_TYPE_F16, 20, 96)), 1);  // which wants 64 rows
    CHECK_EQ(inner(s, attention(s, GGML_TYPE_Q8_0, 31, 64)), 0);
    CHECK_EQ(inner(s, attention(s, GGML_TYPE_Q8_0, 32, 64)), 1);  // the cache is unpacked
    CHECK_EQ(inner(s, attention(s, GGML_TYPE_Q8_0, 32, 65)), 2);
}

// After its inner barrier nothing is tracked that was before.
static void inner_barrier_orders_what_was_before(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *y = vector(s, 64), *z = vector(s, 16);
    struct ggml_tensor * early = ggml_relu(s->ctx, x);
    expand(s, early);
    expand(s, ggml_acc(s->ctx, y, z, 64, 64, 64, 0));
    expand(s, ggml_sqr(s->ctx, early));
    place_at(s, x, 1, 0);
    place_at(s, y, 1, 4096);
    place_at(s, z, 1, 8192);
    for (int i = 0; i < 3; i++) {
        place_at(s, s->graph->nodes[i], 0, 4096 * (size_t) i);
    }
    const struct ggc_metal_figures figures = predicted(s);
    CHECK_EQ(figures.n_inner_barriers, 1);
    CHECK_EQ(figures.n_barriers, 0);
    struct metal_trace trace;
    CHECK_STATUS(metal_trace_init(&trace, s->graph), GGC_OK);
    const uint32_t groups[3][2] = {{0, 0}, {0, 1}, {1, 1}};
    for (int k = 0; k < 3; k++) {
        CHECK_EQ(trace.kernels[k].first, groups[k][0]);
        CHECK_EQ(trace.kernels[k].last, groups[k][1]);
    }
    metal_trace_free(&trace);
}

//
// Command buffers
//

static void first_buffer_takes_64_or_a_tenth(struct scene * s) {
    (void) s;
    CHECK_EQ(metal_first_nodes(0), 0);
    CHECK_EQ(metal_first_nodes(64), 64);
    CHECK_EQ(metal_first_nodes(65), 64);
    CHECK_EQ(metal_first_nodes(649), 64);
    CHECK_EQ(metal_first_nodes(650), 65);
    CHECK_EQ(metal_first_nodes(10000), 1000);
}

static void chain_is_cut_instead_of_a_barrier(struct scene * s) {
    struct ggml_tensor * x = vector(s, 16);
    for (int i = 0; i < 65; i++) {
        x = ggml_relu(s->ctx, x);
    }
    expand(s, x);
    place_all(s);
    expect(s, 65, 63, 2);
    CHECK(predicted(s).microseconds > 65 * 2 + 40);
}

static void cut_parts_what_would_be_fused(struct scene * s) {
    struct ggml_tensor *x = vector(s, 16), *w = vector(s, 16);
    for (int i = 0; i < 63; i++) {
        x = ggml_relu(s->ctx, x);
    }
    expand(s, ggml_mul(s->ctx, ggml_rms_norm(s->ctx, x, 1e-6f), w));
    place_all(s);
    expect(s, 65, 63, 2);
}

//
// Our order
//

struct ordered {
    struct ggc_graph_plan * plan;
    struct layout layout;
    struct metal_order order;
    struct ggml_cgraph graph;
};

static struct ordered sorted(struct scene * s, size_t budget, uint32_t seed) {
    struct ordered o = {0};
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.fuse = GGC_FUSE_METAL;
    params.tracked = true;
    CHECK_STATUS(ggc_graph_plan_new(s->graph, &params, &o.plan), GGC_OK);
    const struct layout_params layout = {
        .buft = ggml_backend_cpu_buffer_type(), .budget = budget, .gaps = true};
    const struct message message = {NULL, 0};
    CHECK_STATUS(layout_init(&o.layout, s->graph, o.plan, &layout, &message), GGC_OK);
    CHECK_STATUS(metal_order_init(&o.order, s->graph, o.plan, seed), GGC_OK);
    o.graph = *s->graph;
    o.graph.nodes = o.order.nodes;
    o.graph.n_nodes = o.order.n_nodes;
    return o;
}

static void sorted_free(struct ordered * o) {
    metal_order_free(&o->order);
    layout_free(&o->layout);
    ggc_graph_plan_free(o->plan);
}

// Chains side by side, one after another in the graph.
static void add_chains(struct scene * s, int n_chains, int length) {
    for (int i = 0; i < n_chains; i++) {
        struct ggml_tensor * x = vector(s, 32);  // 128 bytes: ggml's allocator leaves no gap
        ggml_set_input(x);
        for (int k = 0; k < length; k++) {
            x = ggml_relu(s->ctx, x);
        }
        ggml_set_output(x);
        expand(s, x);
    }
}

static void check_chains(struct scene * s, size_t budget, uint32_t n_barriers, uint32_t buffers) {
    for (uint32_t seed = 0; seed < 4; seed++) {
        struct ordered o = sorted(s, budget, seed);
        struct metal_trace trace;
        struct ggc_conflict race;
        CHECK_STATUS(metal_trace_init(&trace, &o.graph), GGC_OK);
        CHECK_EQ(trace.n_kernels, (uint32_t) s->graph->n_nodes);
        CHECK_EQ(trace.figures.n_barriers, n_barriers);
        CHECK_EQ(trace.figures.n_command_buffers, buffers);
        CHECK_STATUS(metal_trace_verify(&trace, &o.graph, &race), GGC_OK);
        metal_trace_free(&trace);
        sorted_free(&o);
    }
}

static void chains_go_in_step(struct scene * s) {
    add_chains(s, 5, 6);
    check_chains(s, SIZE_MAX, 5, 1);
    check_chains(s, 0, 5, 1);
}

static void cut_falls_between_phases(struct scene * s) {
    add_chains(s, 10, 12);  // phases of 10: the first 60 nodes and the 64 are not the same
    check_chains(s, SIZE_MAX, 10, 2);
    check_chains(s, 0, 10, 2);
}

// Only where a phase is larger than the first command buffer is it cut.
static void wide_phase_is_cut(struct scene * s) {
    add_chains(s, 100, 2);
    check_chains(s, SIZE_MAX, 1, 2);
}

static void no_two_tensors_touch(struct scene * s) {
    add_chains(s, 7, 9);
    for (size_t budget = 0; budget <= SIZE_MAX / 2; budget += SIZE_MAX / 2) {
        struct ordered o = sorted(s, budget, 0);
        CHECK_EQ(layout_is_for_phases(&o.layout), budget == 0);
        for (size_t i = 0; i < o.layout.n_tensors; i++) {
            for (size_t k = 0; k < o.layout.n_tensors; k++) {
                const char *a = o.layout.tensors[i]->data, *b = o.layout.tensors[k]->data;
                CHECK(b != a + ggml_nbytes(o.layout.tensors[i]));
            }
        }
        sorted_free(&o);
    }
}

static void shared_memory_is_less(struct scene * s) {
    add_chains(s, 4, 40);
    struct ordered apart = sorted(s, SIZE_MAX, 0), shared;
    const size_t size = apart.layout.figures.size;
    sorted_free(&apart);
    shared = sorted(s, 0, 0);
    CHECK(shared.layout.figures.size < size / 4);
    sorted_free(&shared);
}

// What is proven is what will be encoded: with one barrier less it is refuted.
static void missing_barrier_is_refuted(struct scene * s) {
    add_chains(s, 3, 4);
    struct ordered o = sorted(s, SIZE_MAX, 0);
    for (uint32_t missing = 1; missing < 4; missing++) {
        struct metal_trace trace;
        struct ggc_conflict race;
        CHECK_STATUS(metal_trace_init(&trace, &o.graph), GGC_OK);
        for (uint32_t k = 0; k < trace.n_kernels; k++) {
            trace.kernels[k].first -= trace.kernels[k].first >= missing;
            trace.kernels[k].last -= trace.kernels[k].last >= missing;
        }
        CHECK_STATUS(metal_trace_verify(&trace, &o.graph, &race), GGC_E_RACE);
        const struct ggml_tensor *a = o.graph.nodes[race.a], *b = o.graph.nodes[race.b];
        CHECK(b->src[0] == a);
        metal_trace_free(&trace);
    }
    sorted_free(&o);
}

// Neighbours that they were not in the graph, with some of the seeds.
static void what_was_apart_is_not_fused(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *w = vector(s, 64), *y = vector(s, 64);
    struct ggml_tensor * norm = ggml_rms_norm(s->ctx, x, 1e-6f);
    expand(s, norm);
    expand(s, ggml_sqr(s->ctx, y));
    expand(s, ggml_mul(s->ctx, norm, w));
    bool neighbours = false;
    for (uint32_t seed = 0; seed < 20; seed++) {
        struct ordered o = sorted(s, SIZE_MAX, seed);
        struct ggc_metal_figures figures;
        CHECK_STATUS(ggc_metal_predict(&o.graph, &figures), GGC_OK);
        CHECK_EQ(figures.n_kernels, 3);
        CHECK_EQ(figures.n_barriers, 1);
        neighbours = neighbours || o.order.n_nodes > 3;
        sorted_free(&o);
    }
    CHECK(neighbours);
}

static void what_was_together_stays_fused(struct scene * s) {
    struct ggml_tensor *x = vector(s, 64), *w = vector(s, 64), *y = vector(s, 64);
    expand(s, ggml_sqr(s->ctx, y));
    expand(s, ggml_mul(s->ctx, ggml_rms_norm(s->ctx, x, 1e-6f), w));
    expand(s, ggml_relu(s->ctx, y));
    struct ordered o = sorted(s, SIZE_MAX, 3);
    struct ggc_metal_figures figures;
    CHECK_STATUS(ggc_metal_predict(&o.graph, &figures), GGC_OK);
    CHECK_EQ(figures.n_kernels, 3);
    CHECK_EQ(figures.n_barriers, 0);
    sorted_free(&o);
}

static void empty_graph_has_nothing(struct scene * s) {
    expect(s, 0, 0, 0);
    CHECK(predicted(s).microseconds == 0);
    struct ordered o = sorted(s, SIZE_MAX, 0);
    CHECK_EQ(o.order.n_nodes, 0);
    sorted_free(&o);
}

static void wrong_arguments_are_told(struct scene * s) {
    struct ggc_metal_figures figures;
    CHECK_STATUS(ggc_metal_predict(NULL, &figures), GGC_E_INVALID);
    CHECK_STATUS(ggc_metal_predict(s->graph, NULL), GGC_E_INVALID);
    CHECK_STATUS(ggc_runner_metal_figures(NULL, &figures), GGC_E_INVALID);
}

static const struct {
    const char * name;
    void (*run)(struct scene * s);
} cases[] = {
#define CASE(name) {#name, name}
    CASE(reading_twice_needs_no_barrier),
    CASE(reading_what_was_written_needs_one),
    CASE(writing_what_was_read_needs_one),
    CASE(ending_where_an_earlier_one_begins_needs_one),
    CASE(beginning_where_an_earlier_one_ends_needs_none),
    CASE(gap_before_an_earlier_one_needs_none),
    CASE(parts_of_one_tensor_need_one),
    CASE(same_place_in_another_buffer_needs_none),
    CASE(what_is_not_to_be_computed_needs_none),
    CASE(norm_and_weight_are_one_kernel),
    CASE(norm_that_is_read_again_is_not_fused),
    CASE(separator_prevents_fusion),
    CASE(additions_from_two_buffers_are_not_fused),
    CASE(additions_from_one_buffer_are_fused),
    CASE(no_more_than_seven_additions_are_fused),
    CASE(middle_of_a_fused_kernel_is_compared),
    CASE(end_of_a_fused_kernel_is_compared),
    CASE(operations_of_several_kernels),
    CASE(attention_by_shape),
    CASE(inner_barrier_orders_what_was_before),
    CASE(first_buffer_takes_64_or_a_tenth),
    CASE(chain_is_cut_instead_of_a_barrier),
    CASE(cut_parts_what_would_be_fused),
    CASE(chains_go_in_step),
    CASE(cut_falls_between_phases),
    CASE(wide_phase_is_cut),
    CASE(no_two_tensors_touch),
    CASE(shared_memory_is_less),
    CASE(missing_barrier_is_refuted),
    CASE(what_was_apart_is_not_fused),
    CASE(what_was_together_stays_fused),
    CASE(empty_graph_has_nothing),
    CASE(wrong_arguments_are_told),
#undef CASE
};

int main(int argc, char ** argv) {
    test_begin(argc, argv, 1, 1);
    const size_t n_cases = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < n_cases; i++) {
        struct scene s;
        test_case("%s", cases[i].name);
        scene_init(&s);
        cases[i].run(&s);
        scene_free(&s);
    }
    return test_passed("%zu cases", n_cases);
}
