// Nodes that do nothing, and memory: buffers, places, reuse; and the form of a graph's plan. No
// backend is needed, since nothing is computed.
#include "adapter_cases.h"

//
// Nodes that do nothing
//

static void custom1(struct ggml_tensor * dst, const struct ggml_tensor * a, int ith, int nth,
                    void * userdata) {
    (void) dst, (void) a, (void) ith, (void) nth, (void) userdata;
}

static void nodes_without_the_compute_flag(void) {
    struct ggml_tensor *x = vector(s, 64), *y = vector(s, 64);
    struct ggml_tensor *a = scaled(x), *b = scaled_in_place(x), *c = scaled(x);
    struct ggml_tensor * f = node(ggml_map_custom1(s->ctx, y, custom1, 1, NULL));
    b->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
    f->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
    plan();
    CHECK(unit_of(s, b) == GGC_NONE && unit_of(s, f) == GGC_NONE);
    NO_CONFLICT(s, a, c);
    CHECK_EQ(ggc_plan_get_stats(ggc_graph_plan_core(s->plan)).n_phases, 1);
}

static void zero_size_tensors(void) {
    struct ggml_tensor *x = vector(s, 64), *none = vector(s, 0);
    struct ggml_tensor *y = scaled(x), *e = scaled_in_place(part(y, 5, 5)), *z = scaled(y);
    struct ggml_tensor *f = scaled(none), *g = scaled_in_place(f);
    struct ggml_tensor * rows =
        node(ggml_scale_inplace(s->ctx, ggml_view_2d(s->ctx, y, 8, 0, 32, 8), 2));
    plan();
    struct ggml_tensor * empty[] = {e, f, g, rows};
    for (int i = 0; i < 4; i++) {
        if (unit_of(s, empty[i]) != GGC_NONE) {
            NO_CONFLICT(s, y, empty[i]);
            NO_CONFLICT(s, empty[i], z);
        }
    }
    HAZARD(s, y, z, GGC_RAW);
}

static void empty_graph(void) {
    plan();
    CHECK_EQ(ggc_graph_plan_n_nodes(s->plan), 0);
    CHECK_EQ(ggc_plan_get_stats(ggc_graph_plan_core(s->plan)).n_phases, 0);
}

//
// Memory
//

static void places(void) {
    struct ggml_tensor *x = vector(s, 64), *t[5];
    place_at(s, x, 1, 0);
    for (int i = 0; i < 5; i++) {
        t[i] = scaled(i == 1 ? t[0] : x);
    }
    place_at(s, t[0], 0, 0);
    place_at(s, t[1], 0, 256);
    place_at(s, t[2], 0, 0);    // where t[0] was: t[1] must have read it
    place_at(s, t[3], 0, 512);  // only touches the end of t[1]
    place_at(s, t[4], 0, 384);  // the end of t[1], the beginning of t[3]
    scene_plan(s);
    HAZARD(s, t[0], t[1], GGC_RAW);
    HAZARD(s, t[1], t[2], GGC_WAR);
    HAZARD(s, t[0], t[2], GGC_WAW);
    NO_CONFLICT(s, t[0], t[3]);
    NO_CONFLICT(s, t[1], t[3]);
    HAZARD(s, t[1], t[4], GGC_WAW);
    HAZARD(s, t[3], t[4], GGC_WAW);
}

static void equal_offsets_in_two_buffers(void) {
    struct ggml_tensor * x = vector(s, 64);
    place_at(s, x, 2, 128);
    struct ggml_tensor *a = scaled(x), *b = scaled(x), *c = scaled(a);
    place_at(s, a, 0, 128);
    place_at(s, b, 1, 128);
    place_at(s, c, 3, 128);
    scene_plan(s);
    NO_CONFLICT(s, a, b);
    NO_CONFLICT(s, b, c);
    HAZARD(s, a, c, GGC_RAW);
}

// Two ggml buffers over the same bytes, as a memory-mapped file gives them.
static void two_buffers_on_the_same_memory(void) {
    char * base = scene_base(s, 0);
    s->buffers[1] = ggml_backend_cpu_buffer_from_ptr(base, 4096);
    struct ggml_tensor * x = vector(s, 64);
    place_at(s, x, 2, 0);
    struct ggml_tensor *a = scaled(x), *b = scaled(x), *c = scaled(x);
    place_at(s, a, 0, 128);
    CHECK(ggml_backend_tensor_alloc(s->buffers[1], b, base + 128 + 64) == GGML_STATUS_SUCCESS);
    CHECK(ggml_backend_tensor_alloc(s->buffers[1], c, base + 1024) == GGML_STATUS_SUCCESS);
    scene_plan(s);
    HAZARD(s, a, b, GGC_WAW);
    NO_CONFLICT(s, a, c);
}

// Memory in the context itself, in no buffer at all.
static void tensors_without_a_buffer(void) {
    const struct ggml_init_params params = {.mem_size = 1 << 20};
    struct ggml_context * ctx = ggml_init(params);
    struct ggml_tensor * x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 64);
    struct ggml_tensor *a = node(ggml_scale(ctx, x, 2)), *b = node(ggml_scale(ctx, x, 2));
    struct ggml_tensor * change = node(ggml_scale_inplace(ctx, ggml_view_1d(ctx, x, 8, 32), 2));
    struct ggml_tensor * read = node(ggml_scale(ctx, ggml_view_1d(ctx, x, 8, 64), 2));
    scene_plan(s);
    NO_CONFLICT(s, a, b);
    HAZARD(s, a, change, GGC_WAR);
    NO_CONFLICT(s, change, read);
    ggml_free(ctx);
}

// Weights and caches have memory, the rest has none yet.
static void placed_and_unplaced_together(void) {
    struct ggml_tensor *cache = vector(s, 64), *x = vector(s, 8);
    place(s, cache);
    struct ggml_tensor *a = scaled(x), *b = scaled(x);
    struct ggml_tensor *view = part(cache, 8, 16), *other = part(cache, 0, 8);
    struct ggml_tensor * write = node(ggml_cpy(s->ctx, a, view));
    struct ggml_tensor *read = scaled(other), *read_new = scaled(part(cache, 0, 9));
    scene_plan(s);
    NO_CONFLICT(s, a, b);
    HAZARD(s, a, write, GGC_RAW);
    NO_CONFLICT(s, write, read);
    HAZARD(s, write, read_new, GGC_RAW);
    NO_CONFLICT(s, b, read_new);
}

// #2411, #2757: ggml-alloc frees and reuses memory in serial order, inside what could be a group.
// Whatever it did, the bytes decide, and every shared byte must be ordered.
static void address_reuse_after_ggml_alloc(void) {
    enum { BRANCHES = 6, DEPTH = 5 };
    struct ggml_tensor *x = vector(s, 64), *nodes[BRANCHES][DEPTH], *sum = NULL;
    ggml_set_input(x);
    for (int b = 0; b < BRANCHES; b++) {
        for (int d = 0; d < DEPTH; d++) {
            nodes[b][d] = node(ggml_sqr(s->ctx, d ? nodes[b][d - 1] : x));
        }
        struct ggml_tensor * last = nodes[b][DEPTH - 1];
        sum = sum ? node(ggml_add(s->ctx, sum, last)) : last;
    }
    ggml_gallocr_t alloc = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    CHECK(ggml_gallocr_alloc_graph(alloc, s->graph));
    scene_plan(s);
    const uint32_t n = ggc_graph_plan_units(s->plan).n_units, words = (n + 63) / 64;
    uint64_t * before = dep_closure(ggc_graph_plan_core(s->plan), n, words);
    uint32_t shared = 0;
    for (int j = 0; j < s->graph->n_nodes; j++) {
        for (int i = 0; i < j; i++) {
            if (s->graph->nodes[i]->data == s->graph->nodes[j]->data) {
                CHECK_MSG(test_bit(before + (size_t) j * words, (uint32_t) i),
                          "nodes %d and %d share memory and are not ordered", i, j);
                shared++;
            }
        }
    }
    CHECK_MSG(shared > 0, "the allocator reused nothing: this test tests nothing");
    free(before);
    ggml_gallocr_free(alloc);
}

// #21897: ggml-alloc recycled the source of a branch while another branch was to read it still.
static void recycled_source_of_a_branch(void) {
    struct ggml_tensor *x = vector(s, 64), *y = scaled(x);
    struct ggml_tensor *q = scaled(y), *k = scaled(y), *late = scaled(k);
    place_at(s, x, 1, 0);
    place_at(s, y, 0, 0);
    place_at(s, q, 0, 256);
    place_at(s, k, 0, 512);
    place_at(s, late, 0, 0);  // in the memory of y
    scene_plan(s);
    HAZARD(s, q, late, GGC_WAR);
    CONFLICT(s, k, late);
    const uint32_t * phase = ggc_graph_plan_node_phases(s->plan);
    CHECK(phase[node_index(s->graph, q)] < phase[node_index(s->graph, late)]);
}

//
// The form of a graph's plan
//

static void check_form(const struct ggc_graph_plan * p, const struct ggml_cgraph * graph) {
    const uint32_t n = ggc_graph_plan_n_nodes(p), *unit = ggc_graph_plan_unit_of_node(p);
    const struct ggc_units units = ggc_graph_plan_units(p);
    const uint32_t * phases = ggc_plan_phases(ggc_graph_plan_core(p));
    CHECK_EQ(n, graph->n_nodes);
    uint32_t with_unit = 0, members = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t phase = ggc_graph_plan_node_phases(p)[i];
        with_unit += unit[i] != GGC_NONE;
        CHECK(unit[i] == GGC_NONE || phase == phases[unit[i]]);
        CHECK(phase == 0 || phase < ggc_plan_get_stats(ggc_graph_plan_core(p)).n_phases);
    }
    for (uint32_t u = 0; u < units.n_units; u++) {
        uint32_t n_nodes = 0;
        const uint32_t * nodes = ggc_graph_plan_nodes(p, u, &n_nodes);
        CHECK(n_nodes > 0);
        for (uint32_t i = 0; i < n_nodes; i++) {
            CHECK(nodes[i] < n && unit[nodes[i]] == u && (i == 0 || nodes[i - 1] < nodes[i]));
        }
        members += n_nodes;
    }
    CHECK_EQ(members, with_unit);
    uint32_t none = 9;
    CHECK(ggc_graph_plan_nodes(p, units.n_units, &none) == NULL && none == 0);
    double adapter = -1, core = -1;
    ggc_graph_plan_times(p, &adapter, &core);
    CHECK(adapter >= 0 && core >= 0 && adapter < 60 && core < 60);
}

static void form_of_the_plan(void) {
    struct ggml_tensor *x = matrix(s, 16, 4), *w = vector(s, 16);
    for (int i = 0; i < 8; i++) {
        struct ggml_tensor * norm = ggml_mul(s->ctx, ggml_rms_norm(s->ctx, x, 1e-6f), w);
        x = node(ggml_add(s->ctx, ggml_reshape_2d(s->ctx, norm, 16, 4), x));
    }
    plan();
    check_form(s->plan, s->graph);
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.fuse = GGC_FUSE_CPU;
    struct ggc_graph_plan * fused = NULL;
    CHECK_STATUS(ggc_graph_plan_new(s->graph, &params, &fused), GGC_OK);
    check_form(fused, s->graph);
    CHECK(ggc_graph_plan_units(fused).n_units <= ggc_graph_plan_units(s->plan).n_units);
    ggc_graph_plan_free(fused);
}

static void check_refused(const struct ggml_cgraph * graph,
                          const struct ggc_graph_params * params) {
    struct ggc_graph_plan * made = NULL;
    CHECK_STATUS(ggc_graph_plan_new(graph, params, &made), GGC_E_INVALID);
    CHECK(made == NULL);
}

static void what_is_refused(void) {
    scaled(scaled(vector(s, 8)));
    plan();
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    CHECK(params.fuse == GGC_FUSE_NONE && params.cost == NULL && params.plan.n_streams == 2);
    check_refused(NULL, &params);
    CHECK_STATUS(ggc_graph_plan_new(s->graph, &params, NULL), GGC_E_INVALID);
    params.plan.n_streams = 0;
    check_refused(s->graph, &params);
    ggc_graph_params_init(&params);
    params.fuse = (enum ggc_fuse) 77;
    check_refused(s->graph, &params);
    ggc_graph_params_init(&params);
    const double cost[2] = {3, 5};
    params.cost = cost;
    struct ggc_graph_plan * made = NULL;
    CHECK_STATUS(ggc_graph_plan_new(s->graph, &params, &made), GGC_OK);
    const struct ggc_units units = ggc_graph_plan_units(made);
    CHECK(units.cost[0] == 3 && units.cost[1] == 5);
    ggc_graph_plan_free(made);
    ggc_graph_plan_free(NULL);
}

static const struct adapter_case cases[] = {
    BOTH(nodes_without_the_compute_flag),
    BOTH(zero_size_tensors),
    BOTH(empty_graph),
    ONCE(places),
    ONCE(equal_offsets_in_two_buffers),
    ONCE(two_buffers_on_the_same_memory),
    ONCE(tensors_without_a_buffer),
    ONCE(placed_and_unplaced_together),
    ONCE(address_reuse_after_ggml_alloc),
    ONCE(recycled_source_of_a_branch),
    BOTH(form_of_the_plan),
    BOTH(what_is_refused),
};

int main(int argc, char ** argv) {
    test_begin(argc, argv, 0, 0);
    return run_adapter_cases(cases, sizeof cases / sizeof *cases);
}
