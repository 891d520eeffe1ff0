// A plan that is asked again: the same graph, one that has only moved, another one.
#include <string.h>

#include "support_ggml.h"

static struct scene s;
static struct ggc_graph_plan * plan;
static struct ggc_graph_params params;

static struct ggml_tensor * expanded(struct ggml_tensor * t) {
    expand(&s, t);
    return t;
}

// A cache of which a window is written, and one is read: offsets in floats.
struct window_graph {
    struct ggml_tensor *x, *cache, *target, *copy, *source, *read;
};

static struct window_graph window_graph(size_t written, size_t source) {
    struct window_graph g;
    g.x = vector(&s, 8);
    g.cache = vector(&s, 64);
    g.target = ggml_view_1d(s.ctx, g.cache, 8, written * sizeof(float));
    g.copy = expanded(ggml_cpy(s.ctx, g.x, g.target));
    g.source = ggml_view_1d(s.ctx, g.cache, 8, source * sizeof(float));
    g.read = expanded(ggml_sqr(s.ctx, g.source));
    return g;
}

static void set_offset(struct ggml_tensor * view, size_t offset) {
    view->view_offs = offset * sizeof(float);
}

static void open_plan(void) {
    CHECK_STATUS(ggc_graph_plan_new(s.graph, &params, &plan), GGC_OK);
}

static void check_change(enum ggc_change expected) {
    enum ggc_change change = (enum ggc_change) - 1;
    CHECK_STATUS(ggc_graph_plan_update(plan, s.graph, &params, &change), GGC_OK);
    CHECK_EQ(change, expected);
}

static uint32_t n_deps(void) {
    return (uint32_t) ggc_plan_get_stats(ggc_graph_plan_core(plan)).n_deps;
}

static void the_same_graph(void) {
    window_graph(0, 0);
    open_plan();
    check_change(GGC_UNCHANGED);
    check_change(GGC_UNCHANGED);
    // what the operation computes is no concern of the plan's, and neither are contents
    s.graph->nodes[0]->op_params[3] ^= 1;
    check_change(GGC_UNCHANGED);
}

static void the_cache_window_moves(void) {
    struct window_graph g = window_graph(0, 0);
    open_plan();
    CHECK_EQ(n_deps(), 1);
    set_offset(g.target, 16);
    set_offset(g.copy, 16);
    set_offset(g.source, 12);
    check_change(GGC_MOVED);  // they still overlap
    check_change(GGC_UNCHANGED);
    const struct ggc_units units = ggc_graph_plan_units(plan);
    struct ggc_conflict conflict;
    CHECK_STATUS(ggc_explain(&units, 0, 1, &conflict), GGC_OK);
    CHECK_EQ(conflict.begin, 16 * sizeof(float));
    CHECK_EQ(conflict.end, 20 * sizeof(float));
}

static void the_hazard_goes_away(void) {
    struct window_graph g = window_graph(0, 0);
    open_plan();
    set_offset(g.source, 8);  // touches what is written, shares nothing with it
    check_change(GGC_CHANGED);
    CHECK_EQ(n_deps(), 1);  // the plan is as it was
    set_offset(g.source, 7);
    check_change(GGC_MOVED);
}

static void a_hazard_appears(void) {
    struct window_graph g = window_graph(0, 32);
    open_plan();
    CHECK_EQ(n_deps(), 0);
    set_offset(g.source, 31);
    check_change(GGC_MOVED);
    set_offset(g.source, 7);
    check_change(GGC_CHANGED);
}

static void another_operation_or_flag(void) {
    window_graph(0, 0);
    open_plan();
    s.graph->nodes[1]->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
    bool view_is_first = s.graph->nodes[1]->op == GGML_OP_VIEW;
    check_change(view_is_first ? GGC_MOVED : GGC_CHANGED);
    struct ggml_tensor * last = s.graph->nodes[s.graph->n_nodes - 1];
    last->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
    check_change(GGC_CHANGED);
}

static void fewer_nodes(void) {
    window_graph(0, 0);
    open_plan();
    s.graph->n_nodes--;
    check_change(GGC_CHANGED);
}

// The same addresses, reused for another graph: pointers alone would say it is the same.
static void recycled_pointers(void) {
    struct window_graph g = window_graph(0, 0);
    open_plan();
    struct ggml_tensor * other = vector(&s, 8);
    g.read->src[0] = other;
    check_change(GGC_CHANGED);
}

static void equal_uids_are_believed(void) {
    struct window_graph g = window_graph(0, 0);
    s.graph->uid = 7;
    open_plan();
    set_offset(g.source, 8);
    check_change(GGC_UNCHANGED);  // ggml promises that it is
    s.graph->uid = 8;
    check_change(GGC_CHANGED);
    s.graph->uid = 0;
    check_change(GGC_CHANGED);
}

static void without_watching_only_uids_tell(void) {
    params.watch = false;
    window_graph(0, 0);
    open_plan();
    check_change(GGC_MOVED);
    s.graph->uid = 9;
    check_change(GGC_MOVED);
    check_change(GGC_UNCHANGED);
}

static void bad_arguments(void) {
    window_graph(0, 0);
    open_plan();
    enum ggc_change change;
    CHECK_STATUS(ggc_graph_plan_update(NULL, s.graph, NULL, &change), GGC_E_INVALID);
    CHECK_STATUS(ggc_graph_plan_update(plan, NULL, NULL, &change), GGC_E_INVALID);
    CHECK_STATUS(ggc_graph_plan_update(plan, s.graph, NULL, NULL), GGC_E_INVALID);
}

static const struct {
    const char * name;
    void (*run)(void);
} cases[] = {
    {"the same graph", the_same_graph},
    {"the cache window moves", the_cache_window_moves},
    {"the hazard goes away", the_hazard_goes_away},
    {"a hazard appears", a_hazard_appears},
    {"another operation or flag", another_operation_or_flag},
    {"fewer nodes", fewer_nodes},
    {"recycled pointers", recycled_pointers},
    {"equal uids are believed", equal_uids_are_believed},
    {"without watching only uids tell", without_watching_only_uids_tell},
    {"bad arguments", bad_arguments},
};

int main(int argc, char ** argv) {
    test_begin(argc, argv, 1, 1);
    const size_t n_cases = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < n_cases; i++) {
        test_case("%s", cases[i].name);
        scene_init(&s);
        ggc_graph_params_init(&params);
        params.watch = true;
        plan = NULL;
        cases[i].run();
        ggc_graph_plan_free(plan);
        scene_free(&s);
    }
    return test_passed("%zu cases", n_cases);
}
