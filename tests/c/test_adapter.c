// What the operations of real ggml graphs read and write, seen through the plans of small graphs:
// each case asks which two nodes conflict. No backend is needed, since nothing is computed.
#include "adapter_cases.h"

//
// Plain data flow
//

static void read_of_what_was_computed(void) {
    struct ggml_tensor *x = vector(s, 64), *y = vector(s, 64);
    struct ggml_tensor *a = scaled(x), *b = scaled(y), *c = node(ggml_add(s->ctx, a, b));
    plan();
    NO_CONFLICT(s, a, b);
    HAZARD(s, a, c, GGC_RAW);
    HAZARD(s, b, c, GGC_RAW);
}

static void readers_of_one_tensor(void) {
    struct ggml_tensor *x = vector(s, 64), *y = scaled(x), *nodes[20];
    for (int i = 0; i < 20; i++) {
        nodes[i] = scaled(y);
    }
    plan();
    for (int i = 1; i < 20; i++) {
        NO_CONFLICT(s, nodes[0], nodes[i]);
    }
    CHECK_EQ(ggc_plan_get_stats(ggc_graph_plan_core(s->plan)).n_phases, 2);
    CHECK_EQ(ggc_plan_get_stats(ggc_graph_plan_core(s->plan)).width, 20);
}

// Every source counts, not only the first: masks, positions, frequency factors, indices.
static void every_source_is_read(void) {
    struct ggml_context * ctx = s->ctx;
    struct ggml_tensor *x = scaled(matrix(s, 32, 8)), *mask = scaled(matrix(s, 32, 8));
    struct ggml_tensor *factors = scaled(vector(s, 8)), *rows = scaled(matrix(s, 32, 8));
    struct ggml_tensor * ids = node(ggml_argsort(ctx, vector(s, 8), GGML_SORT_ORDER_ASC));
    struct ggml_tensor * soft = node(ggml_soft_max_ext(ctx, x, mask, 1, 0));
    struct ggml_tensor * x3 = ggml_reshape_3d(ctx, x, 16, 2, 8);
    struct ggml_tensor * rope =
        node(ggml_rope_ext(ctx, x3, ids, factors, 16, 0, 0, 10000, 1, 0, 1, 32, 1));
    struct ggml_tensor * got = node(ggml_get_rows(ctx, rows, ids));
    plan();
    HAZARD(s, mask, soft, GGC_RAW);
    HAZARD(s, x, soft, GGC_RAW);
    HAZARD(s, x, rope, GGC_RAW);
    HAZARD(s, ids, rope, GGC_RAW);
    HAZARD(s, factors, rope, GGC_RAW);
    HAZARD(s, ids, got, GGC_RAW);
    HAZARD(s, rows, got, GGC_RAW);
    NO_CONFLICT(s, soft, rope);
}

//
// Views
//

static void views_of_views(void) {
    struct ggml_tensor * y = scaled(vector(s, 64));
    struct ggml_tensor * low = part(part(part(y, 0, 60), 10, 50), 0, 10);    // 10 .. 20
    struct ggml_tensor * high = part(part(part(y, 4, 64), 26, 60), 10, 20);  // 40 .. 50
    struct ggml_tensor *a = scaled(low), *b = scaled_in_place(high);
    struct ggml_tensor * c = scaled(part(part(y, 30, 60), 15, 20));  // 45 .. 50
    struct ggml_tensor * d = scaled(part(y, 50, 64));
    plan();
    HAZARD(s, y, a, GGC_RAW);
    NO_CONFLICT(s, a, b);
    HAZARD(s, b, c, GGC_RAW);
    NO_CONFLICT(s, b, d);
}

static void views_are_no_units(void) {
    struct ggml_tensor * y = scaled(matrix(s, 8, 8));
    struct ggml_tensor * v = node(ggml_view_2d(s->ctx, y, 4, 4, y->nb[1], 16));
    struct ggml_tensor * r = node(ggml_reshape_1d(s->ctx, y, 64));
    struct ggml_tensor * p = node(ggml_permute(s->ctx, y, 1, 0, 2, 3));
    struct ggml_tensor * t = node(ggml_transpose(s->ctx, y));
    struct ggml_tensor * z = scaled(v);
    plan();
    CHECK(unit_of(s, v) == GGC_NONE && unit_of(s, r) == GGC_NONE);
    CHECK(unit_of(s, p) == GGC_NONE && unit_of(s, t) == GGC_NONE);
    HAZARD(s, y, z, GGC_RAW);
    CHECK_EQ(ggc_plan_get_stats(ggc_graph_plan_core(s->plan)).n_units, 2);
    CHECK_EQ(ggc_plan_get_stats(ggc_graph_plan_core(s->plan)).n_phases, 2);
}

static void permuted_views(void) {
    struct ggml_tensor * y = scaled(ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, 4, 6, 8));
    struct ggml_tensor * a = node(ggml_cont(s->ctx, ggml_permute(s->ctx, y, 2, 0, 1, 3)));
    struct ggml_tensor * upper = ggml_view_3d(s->ctx, y, 4, 6, 4, y->nb[1], y->nb[2], 4 * y->nb[2]);
    struct ggml_tensor * b = node(ggml_scale_inplace(s->ctx, upper, 2));
    struct ggml_tensor * lower = ggml_view_3d(s->ctx, y, 4, 6, 4, y->nb[1], y->nb[2], 0);
    struct ggml_tensor * c = node(ggml_cont(s->ctx, ggml_permute(s->ctx, lower, 1, 2, 0, 3)));
    struct ggml_tensor * d = node(ggml_cont(s->ctx, ggml_permute(s->ctx, upper, 1, 2, 0, 3)));
    plan();
    HAZARD(s, y, a, GGC_RAW);
    HAZARD(s, a, b, GGC_WAR);
    NO_CONFLICT(s, b, c);
    HAZARD(s, b, d, GGC_RAW);
}

// Overlapping windows, as a convolution over time takes them from one row.
static void self_overlapping_view(void) {
    struct ggml_tensor * y = scaled(vector(s, 256));
    struct ggml_tensor * windows = ggml_view_2d(s->ctx, y, 8, 20, 4, 16);  // bytes 16 .. 124
    struct ggml_tensor * a = node(ggml_cont(s->ctx, windows));
    struct ggml_tensor *b = scaled_in_place(part(y, 30, 32)), *c = scaled_in_place(part(y, 31, 40));
    struct ggml_tensor * d = scaled_in_place(part(y, 0, 4));
    plan();
    HAZARD(s, a, b, GGC_WAR);
    NO_CONFLICT(s, a, c);
    NO_CONFLICT(s, a, d);
    CONFLICT(s, b, c);
}

static void interleaved_stripes_fused_qkv(void) {
    struct ggml_tensor *w = matrix(s, 16, 48), *x = matrix(s, 16, 5);
    struct ggml_tensor * qkv = node(ggml_mul_mat(s->ctx, w, x));
    struct ggml_tensor *views[3], *nodes[3];
    for (size_t i = 0; i < 3; i++) {
        views[i] = ggml_view_2d(s->ctx, qkv, 16, 5, qkv->nb[1], i * 16 * sizeof(float));
        nodes[i] = node(ggml_rms_norm_inplace(s->ctx, views[i], 1e-6f));
    }
    struct ggml_tensor * q = scaled(ggml_cont(s->ctx, views[0]));
    struct ggml_tensor * all = node(ggml_soft_max(s->ctx, qkv));
    plan();
    for (int i = 0; i < 3; i++) {
        HAZARD(s, qkv, nodes[i], qkv->op == GGML_OP_MUL_MAT ? GGC_RAW : GGC_WAW);
        NO_CONFLICT(s, nodes[i], nodes[(i + 1) % 3]);
        HAZARD(s, nodes[i], all, GGC_RAW);
    }
    HAZARD(s, nodes[0], q->src[0], GGC_RAW);
    NO_CONFLICT(s, nodes[1], q->src[0]);
}

// Q, K and V of each head side by side: stripes in two dimensions at one stride.
static void interleaved_heads(void) {
    struct ggml_tensor *w = matrix(s, 16, 96), *x = matrix(s, 16, 5);
    struct ggml_tensor * qkv = node(ggml_mul_mat(s->ctx, w, x));
    struct ggml_tensor * nodes[3];
    for (size_t i = 0; i < 3; i++) {
        struct ggml_tensor * heads = ggml_view_3d(s->ctx, qkv, 8, 4, 5, 24 * sizeof(float),
                                                  qkv->nb[1], i * 8 * sizeof(float));
        nodes[i] = node(ggml_rms_norm_inplace(s->ctx, heads, 1e-6f));
    }
    struct ggml_tensor * last_row =
        node(ggml_sqr(s->ctx, ggml_view_2d(s->ctx, qkv, 96, 1, qkv->nb[1], 4 * qkv->nb[1])));
    struct ggml_tensor * last_head =
        node(ggml_sqr(s->ctx, ggml_view_1d(s->ctx, qkv, 8, 4 * qkv->nb[1] + 72 * sizeof(float))));
    plan();
    for (int i = 0; i < 3; i++) {
        HAZARD(s, qkv, nodes[i], GGC_RAW);
        NO_CONFLICT(s, nodes[i], nodes[(i + 1) % 3]);
        HAZARD(s, nodes[i], last_row, GGC_RAW);
    }
    HAZARD(s, nodes[0], last_head, GGC_RAW);
    NO_CONFLICT(s, nodes[1], last_head);
    NO_CONFLICT(s, nodes[2], last_head);
}

//
// In-place operations and writes into views
//

static void in_place(void) {
    struct ggml_tensor * y = scaled(vector(s, 64));
    struct ggml_tensor *before = scaled(y), *change = scaled_in_place(y), *after = scaled(y);
    plan();
    HAZARD(s, before, change, GGC_WAR);
    HAZARD(s, change, after, GGC_RAW);
    NO_CONFLICT(s, before, after);
}

static void in_place_on_a_leaf(void) {
    struct ggml_tensor * x = vector(s, 64);
    struct ggml_tensor *before = scaled(x), *change = scaled_in_place(x), *after = scaled(x);
    plan();
    HAZARD(s, before, change, GGC_WAR);
    HAZARD(s, change, after, GGC_RAW);
}

// #3012: V is made contiguous from a view of the cache that another view has just written.
static void cpy_into_a_cache_read_through_another_view(void) {
    struct ggml_tensor *cache = vector(s, 8 * 32), *v = scaled(matrix(s, 8, 2));
    struct ggml_tensor * write = node(ggml_cpy(s->ctx, v, part(cache, 8 * 10, 8 * 12)));
    struct ggml_tensor * read = ggml_view_2d(s->ctx, cache, 8, 12, 32, 0);
    struct ggml_tensor * cont = node(ggml_cont(s->ctx, ggml_transpose(s->ctx, read)));
    struct ggml_tensor * old = node(ggml_cont(s->ctx, ggml_view_2d(s->ctx, cache, 8, 10, 32, 0)));
    struct ggml_tensor * next = node(ggml_cpy(s->ctx, v, part(cache, 8 * 12, 8 * 14)));
    plan();
    HAZARD(s, v, write, GGC_RAW);
    HAZARD(s, write, cont, GGC_RAW);
    NO_CONFLICT(s, write, old);
    NO_CONFLICT(s, cont, next);
    NO_CONFLICT(s, write, next);
}

// A cache with K of all positions in columns: writing one position touches every row.
static void cpy_into_a_transposed_cache(void) {
    struct ggml_tensor *cache = vector(s, 32 * 8), *v = scaled(matrix(s, 8, 1));
    struct ggml_tensor * column = ggml_view_2d(s->ctx, cache, 1, 8, 128, 5 * 4);
    struct ggml_tensor * write = node(ggml_cpy(s->ctx, ggml_transpose(s->ctx, v), column));
    struct ggml_tensor * up_to_5 = ggml_view_2d(s->ctx, cache, 5, 8, 128, 0);
    struct ggml_tensor * up_to_6 = ggml_view_2d(s->ctx, cache, 6, 8, 128, 0);
    struct ggml_tensor * old = node(ggml_cont(s->ctx, up_to_5));
    struct ggml_tensor * new = node(ggml_cont(s->ctx, up_to_6));
    plan();
    NO_CONFLICT(s, write, old);
    HAZARD(s, write, new, GGC_RAW);
}

static void set_rows_into_a_cache(void) {
    struct ggml_tensor *cache = matrix(s, 16, 32), *k = scaled(matrix(s, 16, 2));
    struct ggml_tensor * ids = node(ggml_argsort(s->ctx, vector(s, 2), GGML_SORT_ORDER_DESC));
    struct ggml_tensor * before = node(ggml_cont(s->ctx, ggml_view_1d(s->ctx, cache, 64, 0)));
    struct ggml_tensor * write = node(ggml_set_rows(s->ctx, cache, k, ids));
    struct ggml_tensor * view = ggml_view_3d(s->ctx, cache, 8, 32, 2, 64, 32, 0);
    struct ggml_tensor * read =
        node(ggml_mul_mat(s->ctx, view, ggml_new_tensor_3d(s->ctx, GGML_TYPE_F32, 8, 1, 2)));
    struct ggml_tensor * through_result = scaled(write);
    plan();
    HAZARD(s, k, write, GGC_RAW);
    HAZARD(s, ids, write, GGC_RAW);
    HAZARD(s, before, write, GGC_WAR);
    HAZARD(s, write, read, GGC_RAW);
    HAZARD(s, write, through_result, GGC_RAW);
}

// Two sequences of one cache: writes into the part of one leave the other alone.
static void set_rows_into_a_view_of_a_cache(void) {
    struct ggml_tensor *cache = matrix(s, 16, 32), *k = scaled(matrix(s, 16, 2));
    struct ggml_tensor * ids = ggml_new_tensor_1d(s->ctx, GGML_TYPE_I64, 2);
    struct ggml_tensor * first = ggml_view_2d(s->ctx, cache, 16, 16, 64, 0);
    struct ggml_tensor * second = ggml_view_2d(s->ctx, cache, 16, 16, 64, 16 * 64);
    struct ggml_tensor * write = node(ggml_set_rows(s->ctx, first, k, ids));
    struct ggml_tensor *mine = scaled(first), *other = scaled(second);
    plan();
    HAZARD(s, write, mine, GGC_RAW);
    NO_CONFLICT(s, write, other);
}

// #27805: the recurrent state is read through one view and written through another.
static void recurrent_state_read_and_written_through_views(void) {
    struct ggml_tensor *state = vector(s, 64), *x = matrix(s, 16, 4);
    struct ggml_tensor * ids = ggml_new_tensor_1d(s->ctx, GGML_TYPE_I32, 4);
    struct ggml_tensor * rows = ggml_reshape_2d(s->ctx, state, 16, 4);
    struct ggml_tensor * old = node(ggml_get_rows(s->ctx, rows, ids));
    struct ggml_tensor * new = node(ggml_add(s->ctx, old, x));
    struct ggml_tensor * store = node(ggml_cpy(s->ctx, new, ggml_view_1d(s->ctx, state, 64, 0)));
    struct ggml_tensor * again = node(ggml_get_rows(
        s->ctx, ggml_view_2d(s->ctx, rows, 16, 2, 64, 64), ggml_view_1d(s->ctx, ids, 2, 0)));
    struct ggml_tensor * store_again =
        node(ggml_cpy(s->ctx, x, ggml_view_2d(s->ctx, state, 16, 4, 64, 0)));
    plan();
    HAZARD(s, old, store, GGC_WAR);
    HAZARD(s, store, again, GGC_RAW);
    HAZARD(s, again, store_again, GGC_WAR);
    HAZARD(s, store, store_again, GGC_WAW);
}

static void set_and_acc_in_place(void) {
    struct ggml_tensor *y = scaled(vector(s, 64)), *b = scaled(vector(s, 8));
    struct ggml_tensor * before = scaled(y);
    struct ggml_tensor * set = node(ggml_set_1d_inplace(s->ctx, y, b, 32));
    struct ggml_tensor * read = scaled(part(y, 8, 16));
    struct ggml_tensor * acc = node(ggml_acc_inplace(s->ctx, y, b, 256, 256, 256, 64));
    struct ggml_tensor * after = scaled(part(y, 16, 24));
    plan();
    HAZARD(s, before, set, GGC_WAR);
    HAZARD(s, b, set, GGC_RAW);
    HAZARD(s, set, read, GGC_RAW);
    HAZARD(s, b, acc, GGC_RAW);
    HAZARD(s, acc, after, GGC_RAW);
    CONFLICT(s, y, acc);
}

static void set_and_acc_into_a_copy(void) {
    struct ggml_tensor *y = scaled(vector(s, 64)), *b = scaled(vector(s, 8));
    struct ggml_tensor * set = node(ggml_set_1d(s->ctx, y, b, 32));
    struct ggml_tensor * acc = node(ggml_acc(s->ctx, y, b, 256, 256, 256, 64));
    struct ggml_tensor *other = scaled(y), *use = scaled(acc);
    plan();
    HAZARD(s, y, set, GGC_RAW);
    HAZARD(s, y, acc, GGC_RAW);
    HAZARD(s, acc, use, GGC_RAW);
    NO_CONFLICT(s, set, acc);
    NO_CONFLICT(s, set, other);
}

// A view of the result of a copy is a view of its destination.
static void reads_through_the_result_of_a_copy(void) {
    struct ggml_tensor *cache = vector(s, 64), *x = scaled(vector(s, 8));
    struct ggml_tensor * copy = node(ggml_cpy(s->ctx, x, part(cache, 8, 16)));
    struct ggml_tensor *read = scaled(part(copy, 4, 8)),
                       *write = scaled_in_place(part(cache, 15, 20));
    plan();
    HAZARD(s, copy, read, GGC_RAW);
    HAZARD(s, read, write, GGC_WAR);
    CONFLICT(s, copy, write);
}

static void optimiser_steps_write_their_sources(void) {
    struct ggml_tensor * t[6];
    for (int i = 0; i < 6; i++) {
        t[i] = vector(s, i < 4 ? 64 : i == 4 ? 7 : 2);
    }
    ggml_set_param(t[0]);
    struct ggml_tensor *grad = scaled(t[1]), *weight_before = scaled(t[0]);
    struct ggml_tensor *m_before = scaled(t[2]), *v_before = scaled(t[3]);
    struct ggml_tensor * adamw = node(ggml_opt_step_adamw(s->ctx, t[0], grad, t[2], t[3], t[4]));
    struct ggml_tensor *m_after = scaled(t[2]), *v_after = scaled(t[3]);
    struct ggml_tensor *weight_after = scaled(t[0]), *params = scaled(t[4]);
    struct ggml_tensor * sgd = node(ggml_opt_step_sgd(s->ctx, t[0], grad, t[5]));
    plan();
    HAZARD(s, grad, adamw, GGC_RAW);
    HAZARD(s, weight_before, adamw, GGC_WAR);
    HAZARD(s, m_before, adamw, GGC_WAR);
    HAZARD(s, v_before, adamw, GGC_WAR);
    HAZARD(s, adamw, m_after, GGC_RAW);
    HAZARD(s, adamw, v_after, GGC_RAW);
    HAZARD(s, adamw, weight_after, GGC_RAW);
    NO_CONFLICT(s, adamw, params);
    HAZARD(s, weight_after, sgd, GGC_WAR);
    CONFLICT(s, adamw, sgd);
    NO_CONFLICT(s, m_after, sgd);
}

//
// Fences
//

static void custom1(struct ggml_tensor * dst, const struct ggml_tensor * a, int ith, int nth,
                    void * userdata) {
    (void) dst, (void) a, (void) ith, (void) nth, (void) userdata;
}

static void custom2(struct ggml_tensor * dst, const struct ggml_tensor * a,
                    const struct ggml_tensor * b, int ith, int nth, void * userdata) {
    (void) dst, (void) a, (void) b, (void) ith, (void) nth, (void) userdata;
}

static void custom3(struct ggml_tensor * dst, const struct ggml_tensor * a,
                    const struct ggml_tensor * b, const struct ggml_tensor * c, int ith, int nth,
                    void * userdata) {
    (void) dst, (void) a, (void) b, (void) c, (void) ith, (void) nth, (void) userdata;
}

static void custom(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    (void) dst, (void) ith, (void) nth, (void) userdata;
}

static void user_code_is_a_fence(void) {
    struct ggml_context * ctx = s->ctx;
    struct ggml_tensor * x = vector(s, 8);
    struct ggml_tensor * fences[] = {
        ggml_map_custom1(ctx, x, custom1, 1, NULL),
        ggml_map_custom2(ctx, x, x, custom2, 1, NULL),
        ggml_map_custom3(ctx, x, x, x, custom3, 1, NULL),
        ggml_map_custom1_inplace(ctx, x, custom1, 1, NULL),
        ggml_custom_4d(ctx, GGML_TYPE_F32, 8, 1, 1, 1, &x, 1, custom, 1, NULL),
        ggml_custom_inplace(ctx, x, &x, 1, custom, 1, NULL),
    };
    struct ggml_tensor * apart[7];
    apart[0] = scaled(vector(s, 4));
    for (int i = 0; i < 6; i++) {
        node(fences[i]);
        apart[i + 1] = scaled(vector(s, 4));
    }
    plan();
    for (int i = 0; i < 6; i++) {
        HAZARD(s, apart[i], fences[i], GGC_FENCE);
        HAZARD(s, fences[i], apart[i + 1], GGC_FENCE);
        NO_CONFLICT(s, apart[0], apart[i + 1]);
    }
    CHECK_EQ(ggc_plan_get_stats(ggc_graph_plan_core(s->plan)).n_phases, 13);
}

// An operation of a newer ggml than the one that we were built with.
static void unknown_operations_are_fences(void) {
    struct ggml_tensor *a = scaled(vector(s, 8)), *x = scaled(vector(s, 8)),
                       *b = scaled(vector(s, 8));
    place_all(s);
    x->op = (enum ggml_op)(GGML_OP_COUNT + 3);
    struct ggc_graph_plan * made = NULL;
    const enum ggc_status status = ggc_graph_plan_new(s->graph, NULL, &made);
    CHECK(status == GGC_OK || status == GGC_E_INVALID || status == GGC_E_UNSUPPORTED);
    if (status == GGC_OK) {
        s->plan = made;
        HAZARD(s, a, x, GGC_FENCE);
        HAZARD(s, x, b, GGC_FENCE);
    }
}

static const struct adapter_case cases[] = {
    BOTH(read_of_what_was_computed),
    BOTH(readers_of_one_tensor),
    BOTH(every_source_is_read),
    BOTH(views_of_views),
    BOTH(views_are_no_units),
    BOTH(permuted_views),
    BOTH(self_overlapping_view),
    BOTH(interleaved_stripes_fused_qkv),
    BOTH(interleaved_heads),
    BOTH(in_place),
    BOTH(in_place_on_a_leaf),
    BOTH(cpy_into_a_cache_read_through_another_view),
    BOTH(cpy_into_a_transposed_cache),
    BOTH(set_rows_into_a_cache),
    BOTH(set_rows_into_a_view_of_a_cache),
    BOTH(recurrent_state_read_and_written_through_views),
    BOTH(set_and_acc_in_place),
    BOTH(set_and_acc_into_a_copy),
    BOTH(reads_through_the_result_of_a_copy),
    BOTH(optimiser_steps_write_their_sources),
    BOTH(user_code_is_a_fence),
    ONCE(unknown_operations_are_fences),
};

int main(int argc, char ** argv) {
    test_begin(argc, argv, 0, 0);
    return run_adapter_cases(cases, sizeof cases / sizeof *cases);
}
