// Which tensors of a runner's graph the drop-in may give memory of its own, and where that lies.
#include <stdlib.h>
#include <string.h>

#include "support_ggml.h"

#include "dropin/own_memory.h"

// x -> a -> b -> out, with a view of a read by c, which out reads too.
struct sample {
    struct scene s;
    struct ggml_tensor *x, *a, *view, *b, *c, *out;
};

enum { GIVEN = 0, COMPUTED = 1 };

static void place_sample(struct sample * t) {
    size_t used = 0;
    place_at(&t->s, t->x, GIVEN, 0);
    ggml_backend_buffer_set_usage(t->s.buffers[GIVEN], GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (int i = 0; i < t->s.graph->n_nodes; i++) {
        struct ggml_tensor * node = t->s.graph->nodes[i];
        if (node->view_src == NULL && node->data == NULL) {
            place_at(&t->s, node, COMPUTED, used);
            used += (ggml_nbytes(node) + 63) / 64 * 64;
        }
    }
    ggml_backend_buffer_set_usage(t->s.buffers[COMPUTED], GGML_BACKEND_BUFFER_USAGE_COMPUTE);
    place_all(&t->s);
}

static void sample_init(struct sample * t) {
    scene_init(&t->s);
    t->x = matrix(&t->s, 8, 8);
    t->a = ggml_scale(t->s.ctx, t->x, 2);
    t->view = ggml_view_2d(t->s.ctx, t->a, 8, 4, t->a->nb[1], 0);
    t->b = ggml_sqr(t->s.ctx, t->a);
    t->c = ggml_sqr(t->s.ctx, t->view);
    t->out = ggml_mul_mat(t->s.ctx, t->b, t->c);
    expand(&t->s, t->out);
}

static ggml_backend_dev_t cpu(void) {
    CHECK_STATUS(ggc_load_backends(NULL, NULL, 0), GGC_OK);
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

static bool has(const struct own_memory * own, const struct ggml_tensor * tensor) {
    for (uint32_t i = 0; i < own->n_tensors; i++) {
        if (own->tensors[i] == tensor) {
            return true;
        }
    }
    return false;
}

// Whether a, the view of it, b and c, of which out is never, are the graph's own.
static void expect(const struct sample * t, const struct ggml_cgraph * graph, bool a, bool b,
                   bool c) {
    struct own_memory own;
    CHECK_STATUS(own_memory_find(&own, graph, cpu()), GGC_OK);
    CHECK_EQ(has(&own, t->a), a);
    CHECK_EQ(has(&own, t->view), a);
    CHECK_EQ(has(&own, t->b), b);
    CHECK_EQ(has(&own, t->c), c);
    CHECK(!has(&own, t->out));
    CHECK(!has(&own, t->x));
    own_memory_free(&own);
}

static void which(void) {
    struct sample t;
    sample_init(&t);
    place_sample(&t);
    test_case("all that others read inside");
    expect(&t, t.s.graph, true, true, true);

    static const int flags[] = {GGML_TENSOR_FLAG_INPUT, GGML_TENSOR_FLAG_OUTPUT,
                                GGML_TENSOR_FLAG_PARAM, GGML_TENSOR_FLAG_LOSS};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        test_case("flag %d", flags[i]);
        t.b->flags |= flags[i];
        expect(&t, t.s.graph, true, false, true);
        t.b->flags &= ~flags[i];
        t.view->flags |= flags[i];  // the runner reads a through it
        expect(&t, t.s.graph, false, true, true);
        t.view->flags &= ~flags[i];
    }

    test_case("not computed");
    t.b->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
    expect(&t, t.s.graph, true, false, true);
    t.b->flags |= GGML_TENSOR_FLAG_COMPUTE;

    test_case("a buffer that is not for intermediate results");
    ggml_backend_buffer_set_usage(t.s.buffers[COMPUTED], GGML_BACKEND_BUFFER_USAGE_ANY);
    expect(&t, t.s.graph, false, false, false);
    ggml_backend_buffer_set_usage(t.s.buffers[COMPUTED], GGML_BACKEND_BUFFER_USAGE_COMPUTE);

    test_case("the rest of the graph reads it");
    struct ggml_cgraph part = ggml_graph_view(t.s.graph, 0, (int) node_index(t.s.graph, t.c));
    expect(&t, &part, false, false, false);
    part = ggml_graph_view(t.s.graph, 0, t.s.graph->n_nodes - 1);
    expect(&t, &part, true, false, false);
    scene_free(&t.s);
}

static void others_read(void) {
    struct sample t;
    test_case("read by a node that is not in this graph");
    sample_init(&t);
    struct ggml_tensor * more = ggml_sqr(t.s.ctx, t.b);
    expand(&t.s, more);
    place_sample(&t);
    struct ggml_cgraph part = ggml_graph_view(t.s.graph, 0, t.s.graph->n_nodes - 1);
    expect(&t, &part, true, false, true);
    scene_free(&t.s);

    test_case("a view that nobody reads");
    sample_init(&t);
    struct ggml_tensor * dangling = ggml_view_1d(t.s.ctx, t.b, 8, 0);
    expand(&t.s, dangling);
    place_sample(&t);
    expect(&t, t.s.graph, true, false, true);
    scene_free(&t.s);

    test_case("a view that is no node of the graph");
    sample_init(&t);
    place_sample(&t);
    struct ggml_tensor * hidden = ggml_view_tensor(t.s.ctx, t.b);
    CHECK(ggml_backend_view_init(hidden) == GGML_STATUS_SUCCESS);
    t.out->src[2] = hidden;
    expect(&t, t.s.graph, true, false, true);
    scene_free(&t.s);
}

//
// Where
//

static void plan_without_memory(const struct sample * t, const struct own_memory * own,
                                struct ggc_graph_plan ** plan) {
    own_memory_hide(own);
    CHECK_STATUS(ggc_graph_plan_new(t->s.graph, NULL, plan), GGC_OK);
    CHECK(t->a->data == NULL);
    own_memory_leave(own);
}

static void where(void) {
    struct sample t;
    struct own_memory own;
    struct scratches scratches = {0};
    struct ggc_graph_plan * plan;
    test_case("addresses come and go");
    sample_init(&t);
    place_sample(&t);
    void * const theirs[] = {t.a->data, t.view->data, t.b->data, t.c->data, t.out->data};
    CHECK_STATUS(own_memory_find(&own, t.s.graph, cpu()), GGC_OK);
    CHECK_EQ(own.n_roots, 3);
    CHECK_EQ(own.n_tensors, 4);
    plan_without_memory(&t, &own, &plan);
    CHECK_STATUS(own_memory_lay_out(&own, t.s.graph, plan, &scratches, 1), GGC_E_CAPACITY);
    CHECK(own.scratch == NULL && scratches.bytes == 0);
    CHECK_STATUS(own_memory_lay_out(&own, t.s.graph, plan, &scratches, 1 << 20), GGC_OK);
    CHECK(own.size >= ggml_nbytes(t.a) && own.size <= 1 << 20);
    own_memory_enter(&own);
    const char * base = ggml_backend_buffer_get_base(own.scratch->buffer);
    struct ggml_tensor * const moved[] = {t.a, t.view, t.b, t.c};
    for (size_t i = 0; i < 4; i++) {
        const char * at = moved[i]->data;
        CHECK(at >= base);
        CHECK(at + ggml_nbytes(moved[i]) <=
              base + ggml_backend_buffer_get_size(own.scratch->buffer));
    }
    CHECK((char *) t.view->data == (char *) t.a->data + t.view->view_offs);
    CHECK(t.out->data == theirs[4]);
    own_memory_leave(&own);
    CHECK(t.a->data == theirs[0] && t.view->data == theirs[1]);
    CHECK(t.b->data == theirs[2] && t.c->data == theirs[3]);
    ggc_graph_plan_free(plan);
    own_memory_free(&own);
    CHECK(own.tensors == NULL && scratches.bytes == 0);
    scene_free(&t.s);
}

// ggml's allocator gave two branches the same bytes: in memory of their own they are independent.
static void undoes_reuse(void) {
    struct sample t;
    struct own_memory own;
    struct scratches scratches = {0};
    struct ggc_graph_plan *plan, *apart;
    test_case("reuse in serial order");
    sample_init(&t);
    struct ggml_tensor * p = ggml_sqr(t.s.ctx, t.x);
    struct ggml_tensor * q = ggml_sum(t.s.ctx, p);
    expand(&t.s, q);
    place_at(&t.s, t.a, COMPUTED, 0);
    place_at(&t.s, t.b, COMPUTED, 256);
    place_at(&t.s, t.c, COMPUTED, 512);
    place_at(&t.s, t.out, COMPUTED, 1024);
    place_at(&t.s, p, COMPUTED, 0);  // a's
    place_at(&t.s, q, COMPUTED, 2048);
    place_sample(&t);
    CHECK_STATUS(ggc_graph_plan_new(t.s.graph, NULL, &plan), GGC_OK);
    CHECK_STATUS(own_memory_find(&own, t.s.graph, cpu()), GGC_OK);
    plan_without_memory(&t, &own, &apart);
    const struct ggc_plan_stats with = ggc_plan_get_stats(ggc_graph_plan_core(plan));
    const struct ggc_plan_stats without = ggc_plan_get_stats(ggc_graph_plan_core(apart));
    CHECK(with.n_phases > without.n_phases);
    CHECK_STATUS(own_memory_lay_out(&own, t.s.graph, apart, &scratches, SIZE_MAX), GGC_OK);
    ggc_graph_plan_free(plan);
    own_memory_enter(&own);
    CHECK_STATUS(ggc_graph_plan_new(t.s.graph, NULL, &plan), GGC_OK);
    own_memory_leave(&own);
    CHECK_EQ(ggc_plan_get_stats(ggc_graph_plan_core(plan)).n_phases, without.n_phases);
    ggc_graph_plan_free(plan);
    ggc_graph_plan_free(apart);
    own_memory_free(&own);
    scene_free(&t.s);
}

#define MIB ((size_t) 1 << 20)

static struct scratch * use(struct scratches * scratches, size_t size, size_t budget) {
    ggml_backend_buffer_type_t buft = ggml_backend_dev_buffer_type(cpu());
    struct scratch * scratch = scratch_use(scratches, buft, size, 128, budget);
    CHECK(scratch != NULL && scratch->size >= size && scratch->start % 128 == 0);
    const char * base = ggml_backend_buffer_get_base(scratch->buffer);
    CHECK((char *) scratch->start >= base);
    CHECK((char *) scratch->start + scratch->size <=
          base + ggml_backend_buffer_get_size(scratch->buffer));
    memset((char *) scratch->start, 0xa5, scratch->size);
    return scratch;
}

static size_t room(const struct scratches * scratches, size_t budget) {
    return scratch_room(scratches, ggml_backend_dev_buffer_type(cpu()), budget);
}

static bool can_grow(const struct scratches * scratches, size_t budget, size_t kept) {
    return scratch_room_can_grow(scratches, ggml_backend_dev_buffer_type(cpu()), budget, kept);
}

static void shared(void) {
    struct scratches scratches = {0};
    test_case("graphs share what is large enough");
    CHECK_EQ(room(&scratches, 10 * MIB), 10 * MIB);
    struct scratch * first = use(&scratches, 3 * MIB, 10 * MIB);
    CHECK_EQ(scratches.bytes, 4 * MIB);  // rounded up
    CHECK(use(&scratches, 4 * MIB, 10 * MIB) == first);
    CHECK(use(&scratches, 1, 0) == first);
    CHECK_EQ(scratches.bytes, 4 * MIB);
    CHECK_EQ(room(&scratches, 10 * MIB), 6 * MIB);
    CHECK_EQ(room(&scratches, 5 * MIB), 4 * MIB);            // shared
    CHECK_EQ(scratch_room(&scratches, NULL, 5 * MIB), MIB);  // that is of another type
    test_case("one that is too small stays for those who use it");
    struct scratch * second = use(&scratches, 5 * MIB + 1, 4 * MIB + 5 * MIB + 1);
    CHECK(second != first);
    CHECK_EQ(scratches.bytes, 9 * MIB + 1);  // no more than the budget
    CHECK(use(&scratches, 1, 0) == second);
    test_case("what others use is not given up in vain");
    CHECK(can_grow(&scratches, 10 * MIB, 4 * MIB));           // 6 MiB instead of 5
    CHECK(!can_grow(&scratches, 9 * MIB, 4 * MIB));           // 5 MiB are shared already
    CHECK(!can_grow(&scratches, 10 * MIB, scratches.bytes));  // it is all this graph's
    CHECK(!can_grow(&scratches, 3 * MIB, 4 * MIB));
    for (int i = 0; i < 2; i++) {
        scratch_leave(&scratches, first);
        CHECK_EQ(scratches.bytes, 9 * MIB + 1);
    }
    scratch_leave(&scratches, first);
    CHECK_EQ(scratches.bytes, 5 * MIB + 1);
    scratch_leave(&scratches, second);
    scratch_leave(&scratches, second);
    CHECK(scratches.bytes == 0 && scratches.last == NULL);
    scratch_leave(&scratches, NULL);
}

int main(int argc, char ** argv) {
    test_begin(argc, argv, 1, 1);
    which();
    others_read();
    where();
    undoes_reuse();
    shared();
    return test_passed("own memory");
}
