// Whether a graph is still what it was, and how far it has changed.
#include <stdlib.h>
#include <string.h>

#include "support_ggml.h"

#include "ggml/snapshot.h"

struct sample {
    struct scene s;
    struct ggml_tensor *x, *view, *product, *y;
    struct snapshot snapshot;
};

static void sample_init(struct sample * t) {
    scene_init(&t->s);
    t->x = matrix(&t->s, 8, 8);
    t->view = ggml_view_2d(t->s.ctx, t->x, 8, 4, t->x->nb[1], 0);
    t->product = ggml_mul_mat(t->s.ctx, t->view, t->x);
    t->y = ggml_scale(t->s.ctx, t->product, 2);
    expand(&t->s, t->y);
    CHECK(snapshot_take(&t->snapshot, t->s.graph));
}

static void sample_free(struct sample * t) {
    snapshot_free(&t->snapshot);
    scene_free(&t->s);
}

static enum snapshot_change seen(const struct sample * t) {
    const enum snapshot_change change = snapshot_compare(&t->snapshot, t->s.graph);
    CHECK_EQ(snapshot_matches(&t->snapshot, t->s.graph), change <= SNAPSHOT_PARAMETERS);
    return change;
}

#define EXPECT_CHANGE(t, place, value, change) \
    do {                                       \
        test_case("%s = %s", #place, #value);  \
        __typeof__(place) was_ = (place);      \
        CHECK_EQ(seen(t), SNAPSHOT_SAME);      \
        (place) = (value);                     \
        CHECK_EQ(seen(t), (change));           \
        (place) = was_;                        \
    } while (0)

static void each_field(void) {
    struct sample t;
    char elsewhere[64];
    sample_init(&t);
    struct ggml_tensor * other = matrix(&t.s, 8, 8);
    EXPECT_CHANGE(&t, t.y->op_params[0], 7, SNAPSHOT_PARAMETERS);
    EXPECT_CHANGE(&t, t.y->op_params[15], 7, SNAPSHOT_PARAMETERS);
    EXPECT_CHANGE(&t, t.x->data, (void *) elsewhere, SNAPSHOT_ADDRESSES);
    EXPECT_CHANGE(&t, t.y->data, (void *) elsewhere, SNAPSHOT_ADDRESSES);
    EXPECT_CHANGE(&t, t.view->view_offs, 32, SNAPSHOT_ADDRESSES);
    EXPECT_CHANGE(&t, t.x->buffer, (struct ggml_backend_buffer *) elsewhere, SNAPSHOT_ADDRESSES);
    EXPECT_CHANGE(&t, t.view->ne[1], 3, SNAPSHOT_SHAPES);
    EXPECT_CHANGE(&t, t.x->nb[3], 3, SNAPSHOT_SHAPES);
    EXPECT_CHANGE(&t, t.x->type, GGML_TYPE_F16, SNAPSHOT_SHAPES);
    EXPECT_CHANGE(&t, t.product->src[1], other, SNAPSHOT_SOURCES);
    EXPECT_CHANGE(&t, t.product->src[7], other, SNAPSHOT_SOURCES);
    EXPECT_CHANGE(&t, t.view->view_src, other, SNAPSHOT_SOURCES);
    EXPECT_CHANGE(&t, t.y->op, GGML_OP_SQR, SNAPSHOT_SOURCES);
    EXPECT_CHANGE(&t, t.y->flags, 0, SNAPSHOT_SOURCES);
    EXPECT_CHANGE(&t, t.s.graph->n_nodes, 2, SNAPSHOT_NODES);
    EXPECT_CHANGE(&t, t.s.graph->nodes[1], t.y, SNAPSHOT_NODES);
    EXPECT_CHANGE(&t, t.y->name[0], 'y', SNAPSHOT_SAME);
    sample_free(&t);
}

static void the_furthest_counts(void) {
    struct sample t;
    char elsewhere[64];
    sample_init(&t);
    t.y->op_params[0] = 7;
    CHECK_EQ(seen(&t), SNAPSHOT_PARAMETERS);
    t.x->data = elsewhere;
    CHECK_EQ(seen(&t), SNAPSHOT_ADDRESSES);
    t.product->ne[2] = 5;
    t.product->op_params[1] = 5;
    CHECK_EQ(seen(&t), SNAPSHOT_SHAPES);
    sample_free(&t);
}

// What a node no longer refers to may be gone.
static void gone_sources_are_left_alone(void) {
    struct sample t;
    sample_init(&t);
    struct ggml_tensor * copy = test_alloc(sizeof *copy);
    memcpy(copy, t.x, sizeof *copy);
    t.product->src[1] = copy;
    snapshot_free(&t.snapshot);
    CHECK(snapshot_take(&t.snapshot, t.s.graph));
    CHECK_EQ(seen(&t), SNAPSHOT_SAME);
    t.product->src[1] = t.x;
    free(copy);
    CHECK_EQ(seen(&t), SNAPSHOT_SOURCES);
    sample_free(&t);
}

static void uids(void) {
    struct sample t;
    sample_init(&t);
    t.y->op_params[0] = 7;
    t.s.graph->uid = 5;
    CHECK_EQ(seen(&t), SNAPSHOT_PARAMETERS);  // there was none before
    snapshot_free(&t.snapshot);
    CHECK(snapshot_take(&t.snapshot, t.s.graph));
    t.y->op_params[0] = 8;
    CHECK_EQ(seen(&t), SNAPSHOT_SAME);  // ggml's promise
    t.s.graph->uid = 6;
    CHECK_EQ(seen(&t), SNAPSHOT_PARAMETERS);
    ggc_graph_promise(t.s.graph);
    const uint64_t uid = t.s.graph->uid;
    CHECK(uid != 0 && uid != 6);
    ggc_graph_promise(t.s.graph);
    CHECK(t.s.graph->uid != 0 && t.s.graph->uid != uid);
    ggc_graph_promise(NULL);
    const struct snapshot nothing = {0};
    t.s.graph->uid = 0;
    CHECK_EQ(snapshot_compare(&nothing, t.s.graph), SNAPSHOT_NODES);
    sample_free(&t);
}

int main(int argc, char ** argv) {
    test_begin(argc, argv, 1, 1);
    each_field();
    the_furthest_counts();
    gone_sources_are_left_alone();
    uids();
    return test_passed("4 cases");
}
