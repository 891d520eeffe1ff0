// Plans that are asked again after something has changed: units whose accesses were moved or
// spoilt, graphs of which a tensor, a source, an offset or the memory is another. Whatever is kept
// must be right for what there is now, by a plan made afresh; and what is afresh the same must be
// kept.
#include "random_graph.h"

static struct {
    uint64_t units, kept, graphs, unchanged, moved, changed;
} total;

//
// Units
//

static void spoil_units(struct test_rng * rng, struct test_units * units) {
    if (units->n_accesses == 0) {
        return;
    }
    struct ggc_access * a = &units->accesses[test_below(rng, units->n_accesses)];
    switch (test_below(rng, 4)) {
        case 0: a->mode = a->mode == GGC_READ ? GGC_WRITE : GGC_READ; break;
        case 1: a->buffer = test_below(rng, TEST_BUFFERS); break;
        case 2: a->offset -= a->offset ? test_below(rng, (uint32_t) a->offset) : 0; break;
        default: a->count = a->count ? test_range(rng, 0, a->count) : 0;
    }
}

// Other addresses: every buffer elsewhere, and with another number.
static void move_units(struct test_rng * rng, struct test_units * units) {
    uint32_t numbers[TEST_BUFFERS] = {17, 5, UINT32_MAX, 0};
    test_shuffle(rng, numbers, TEST_BUFFERS);
    const uint64_t distance = test_rand(rng) >> 10;
    for (uint32_t i = 0; i < units->n_accesses; i++) {
        units->accesses[i].offset += distance * (units->accesses[i].buffer + 1);
        units->accesses[i].buffer = numbers[units->accesses[i].buffer];
    }
}

static bool same_deps(const struct ggc_plan * a, const struct ggc_plan * b, uint32_t n_units) {
    for (uint32_t u = 0; u < n_units; u++) {
        uint32_t n_a, n_b;
        const uint32_t *x = ggc_plan_deps(a, u, &n_a), *y = ggc_plan_deps(b, u, &n_b);
        if (n_a != n_b || (n_a && memcmp(x, y, n_a * sizeof *x) != 0)) {
            return false;
        }
    }
    return true;
}

static void check_kept(const struct ggc_plan * plan, const struct ggc_units * units,
                       bool must_be_kept) {
    bool kept = false;
    CHECK_STATUS(ggc_plan_still_right(plan, units, &kept), GGC_OK);
    struct ggc_plan * fresh = NULL;
    CHECK_STATUS(ggc_plan_new(units, NULL, &fresh), GGC_OK);
    CHECK_EQ(kept, same_deps(plan, fresh, units->n_units));
    CHECK_MSG(kept || !must_be_kept, "a plan was not kept though nothing but places changed");
    if (kept) {
        const struct ggc_schedule s = ggc_plan_schedule(plan);
        CHECK_STATUS(ggc_verify_schedule(units, &s, NULL), GGC_OK);
        CHECK_STATUS(ggc_verify_phases(units, ggc_plan_phases(plan), NULL), GGC_OK);
    }
    ggc_plan_free(fresh);
    total.units++;
    total.kept += kept;
}

static void random_units_again(struct test_rng * rng, struct test_units * units) {
    test_random_units(rng, test_chance(rng, 0.1) ? 200 : 20, units);
    struct ggc_units view = test_view(units);
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&view, NULL, &plan), GGC_OK);
    check_kept(plan, &view, true);
    for (int i = 0; i < 3; i++) {
        spoil_units(rng, units);
        view = test_view(units);
        check_kept(plan, &view, false);
    }
    ggc_plan_free(plan);
    CHECK_STATUS(ggc_plan_new(&view, NULL, &plan), GGC_OK);
    move_units(rng, units);
    view = test_view(units);
    check_kept(plan, &view, true);
    ggc_plan_free(plan);
}

static void other_numbers_of_units(void) {
    struct test_units units;
    test_units_init(&units);
    test_unit(&units);
    test_write(&units, 0, 0, 8);
    struct ggc_units view = test_view(&units);
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&view, NULL, &plan), GGC_OK);
    test_unit(&units);
    view = test_view(&units);
    bool kept = true;
    CHECK_STATUS(ggc_plan_still_right(plan, &view, &kept), GGC_OK);
    CHECK(!kept);
    units.n_units = 1;
    test_access(&units, (struct ggc_access) {.run = 8, .stride = 1, .count = 2, .mode = GGC_READ});
    view = test_view(&units);
    CHECK_STATUS(ggc_plan_still_right(plan, &view, &kept), GGC_E_INVALID);
    CHECK_STATUS(ggc_plan_still_right(plan, &view, NULL), GGC_E_INVALID);
    CHECK_STATUS(ggc_plan_still_right(NULL, &view, &kept), GGC_E_INVALID);
    CHECK_STATUS(ggc_plan_still_right(plan, NULL, &kept), GGC_E_INVALID);
    ggc_plan_free(plan);
    test_units_free(&units);
}

//
// Graphs
//

static struct ggml_tensor * random_node(struct random_graph * g) {
    return g->graph->nodes[test_below(&g->rng, (uint32_t) g->graph->n_nodes)];
}

static void swap_memory(struct ggml_tensor * a, struct ggml_tensor * b) {
    if (!a->view_src && !b->view_src && a->data && b->data && ggml_nbytes(a) == ggml_nbytes(b)) {
        void * data = a->data;
        a->data = b->data;
        b->data = data;
    }
}

// Another tensor of the same form as a source.
static void change_source(struct random_graph * g, struct ggml_tensor * node) {
    struct ggml_tensor * other = g->values[test_below(&g->rng, g->n_values)];
    if (node->op == GGML_OP_ADD && other != node && ggml_are_same_shape(node->src[0], other)) {
        node->src[0] = other;
    }
}

static void shift_view(struct random_graph * g, struct ggml_tensor * node) {
    if (node->view_src && node->view_offs >= 4) {
        const size_t by = 4 * (size_t) test_range(&g->rng, 1, (uint32_t) (node->view_offs / 4));
        node->view_offs -= by;
        node->data = node->data ? (char *) node->data - by : NULL;
    }
}

// One change that leaves a graph that can be planned. May change nothing.
static void spoil_graph(struct random_graph * g) {
    struct ggml_tensor * node = random_node(g);
    switch (test_below(&g->rng, 8)) {
        case 0: shift_view(g, node); break;
        case 1: swap_memory(node, random_node(g)); break;
        case 2: node->flags ^= GGML_TENSOR_FLAG_COMPUTE; break;
        case 3: change_source(g, node); break;
        case 4: node->ne[1] = node->ne[1] > 1 ? node->ne[1] - 1 : 1; break;
        case 5: g->graph->n_nodes -= g->graph->n_nodes > 1; break;
        case 6: {
            struct ggml_tensor ** at =
                &g->graph->nodes[test_below(&g->rng, (uint32_t) g->graph->n_nodes)];
            struct ggml_tensor * other = *at;
            *at = g->graph->nodes[0];
            g->graph->nodes[0] = other;
            break;
        }
        default: node->op = node->op == GGML_OP_ADD ? GGML_OP_SUB : node->op;
    }
}

// What the plan says now must be what a fresh one would say of the graph.
static void check_against_fresh(const struct ggc_graph_plan * plan, const struct random_graph * g,
                                const struct ggc_graph_params * params) {
    struct ggc_graph_plan * fresh = NULL;
    CHECK_STATUS(ggc_graph_plan_new(g->graph, params, &fresh), GGC_OK);
    const struct ggc_units now = ggc_graph_plan_units(fresh), old = ggc_graph_plan_units(plan);
    const struct ggc_schedule s = ggc_plan_schedule(ggc_graph_plan_core(plan));
    CHECK_EQ(old.n_units, now.n_units);
    CHECK_EQ(ggc_graph_plan_n_nodes(plan), g->graph->n_nodes);
    CHECK(memcmp(ggc_graph_plan_unit_of_node(plan), ggc_graph_plan_unit_of_node(fresh),
                 (size_t) g->graph->n_nodes * sizeof(uint32_t)) == 0);
    CHECK_STATUS(ggc_verify_schedule(&now, &s, NULL), GGC_OK);
    CHECK_STATUS(ggc_verify_schedule(&old, &s, NULL), GGC_OK);
    CHECK_EQ(old.access_begin[old.n_units], now.access_begin[now.n_units]);
    for (uint32_t i = 0; i < old.access_begin[old.n_units]; i++) {
        const struct ggc_access *a = &old.accesses[i], *b = &now.accesses[i];
        CHECK(a->offset == b->offset && a->run == b->run && a->count == b->count);
        CHECK(a->mode == b->mode && (a->count < 2 || a->stride == b->stride));
    }
    ggc_graph_plan_free(fresh);
}

static enum ggc_change ask(struct ggc_graph_plan * plan, const struct random_graph * g,
                           const struct ggc_graph_params * params) {
    enum ggc_change change = (enum ggc_change) 99;
    CHECK_STATUS(ggc_graph_plan_update(plan, g->graph, params, &change), GGC_OK);
    CHECK(change == GGC_UNCHANGED || change == GGC_MOVED || change == GGC_CHANGED);
    if (change != GGC_CHANGED) {
        check_against_fresh(plan, g, params);
    }
    total.unchanged += change == GGC_UNCHANGED;
    total.moved += change == GGC_MOVED;
    total.changed += change == GGC_CHANGED;
    return change;
}

static void random_graph_again(struct test_rng * rng) {
    struct random_graph g;
    random_graph_init(&g, test_rand(rng), test_range(rng, 1, 12));
    if (test_chance(rng, 0.7)) {
        random_graph_place(&g);
    }
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.fuse = (enum ggc_fuse) test_below(rng, GGC_FUSE_METAL + 1);
    params.watch = test_chance(rng, 0.7);
    struct ggc_graph_plan * plan = NULL;
    CHECK_STATUS(ggc_graph_plan_new(g.graph, &params, &plan), GGC_OK);
    CHECK(ask(plan, &g, &params) == (params.watch ? GGC_UNCHANGED : GGC_MOVED));
    if (!g.own_buffer) {  // now it gets memory
        random_graph_place(&g);
        CHECK(ask(plan, &g, &params) != GGC_UNCHANGED);
    }
    for (int i = 0; i < 6; i++) {
        spoil_graph(&g);
        ask(plan, &g, &params);
    }
    total.graphs++;
    ggc_graph_plan_free(plan);
    random_graph_free(&g);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 3000);
    struct test_units units;
    test_case("other numbers of units");
    other_numbers_of_units();
    test_units_init(&units);
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        struct test_rng rng = test_rng(options.seed, i);
        test_case("random units %llu", (unsigned long long) i);
        random_units_again(&rng, &units);
        test_case("random graph %llu", (unsigned long long) i);
        random_graph_again(&rng);
    }
    test_units_free(&units);
    printf("units: %llu asked, %llu kept\n", (unsigned long long) total.units,
           (unsigned long long) total.kept);
    return test_passed("%llu graphs: %llu unchanged, %llu moved, %llu changed",
                       (unsigned long long) total.graphs, (unsigned long long) total.unchanged,
                       (unsigned long long) total.moved, (unsigned long long) total.changed);
}
