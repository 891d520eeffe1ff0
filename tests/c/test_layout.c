// Memory laid out for ggml graphs: computed unit by unit in random orders that the plan allows, the
// bytes of whatever is over poisoned; what keeps its memory; several buffers; the pool.
#include "ggml/layout.h"

#include "runner_support.h"

static struct {
    uint64_t graphs, shared, poisoned, one_in_unit, by_plan, by_time, serial, kept;
} seen;

//
// Random graphs, poisoned
//

struct run {
    struct random_graph g;
    struct ggc_graph_plan * plan;  // on the addresses
    struct layout layout;
    bool * kept;  // of each tensor that was laid out: somebody may look at it later
};

static const struct ggml_tensor * root(const struct ggml_tensor * t) {
    while (t->view_src != NULL) {
        t = t->view_src;
    }
    return t;
}

static bool reads(const struct ggml_cgraph * graph, const struct ggml_tensor * t) {
    for (int i = 0; i < graph->n_nodes; i++) {
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            if (graph->nodes[i]->src[s] == t) {
                return true;
            }
        }
    }
    return false;
}

// Inputs, leafs, results, what nobody reads, and whatever these are views of.
static void find_kept(struct run * r) {
    const struct layout * l = &r->layout;
    r->kept = test_alloc((l->n_tensors + 1) * sizeof *r->kept);
    for (size_t i = 0; i < l->n_tensors; i++) {
        const struct ggml_tensor * t = l->tensors[i];
        const bool keeps = (t->flags & (GGML_TENSOR_FLAG_INPUT | GGML_TENSOR_FLAG_OUTPUT)) ||
                           t->op == GGML_OP_NONE || !reads(r->g.graph, t);
        for (size_t k = 0; keeps && k < l->n_tensors; k++) {
            r->kept[k] |= l->tensors[k] == root(t);
        }
    }
}

static bool overlap(const struct ggml_tensor * a, const struct ggml_tensor * b) {
    const char *x = a->data, *y = b->data;
    return x < y + ggml_nbytes(b) && y < x + ggml_nbytes(a);
}

// Fills tensor i with NaNs, where nobody has its bytes already.
static void poison(struct run * r, size_t i, const bool * done) {
    const struct layout * l = &r->layout;
    for (size_t k = 0; k < l->n_tensors; k++) {
        bool begun = r->kept[k];
        for (uint32_t u = l->use_begin[k]; u < l->use_begin[k + 1]; u++) {
            begun |= done[l->uses[u]];
        }
        if (k != i && !l->tensors[k]->view_src && begun && overlap(l->tensors[k], l->tensors[i])) {
            return;
        }
    }
    memset(l->tensors[i]->data, 0xff, ggml_nbytes(l->tensors[i]));
    seen.poisoned++;
}

static void poison_what_is_over(struct run * r, uint32_t unit, const bool * done) {
    const struct layout * l = &r->layout;
    for (size_t i = 0; i < l->n_tensors; i++) {
        bool over = !l->tensors[i]->view_src && !r->kept[i], here = false;
        for (uint32_t u = l->use_begin[i]; u < l->use_begin[i + 1]; u++) {
            over &= done[l->uses[u]];
            here |= l->uses[u] == unit;
        }
        if (over && here) {
            poison(r, i, done);
        }
    }
}

static bool may_run(const struct ggc_schedule * s, const bool * done, uint32_t place) {
    const uint32_t u = s->order[place];
    bool ready = !done[u];
    for (uint32_t i = 0; ready && i < place; i++) {
        ready = done[s->order[i]] || s->stream[s->order[i]] != s->stream[u];
    }
    for (uint32_t k = s->wait_begin[u]; ready && k < s->wait_begin[u + 1]; k++) {
        ready = done[s->waits[k]];
    }
    return ready;
}

static void compute_unit(struct run * r, ggml_backend_t backend, uint32_t unit) {
    uint32_t n = 0;
    const uint32_t * nodes = ggc_graph_plan_nodes(r->plan, unit, &n);
    struct ggml_cgraph part = *r->g.graph;
    part.nodes = test_alloc(n * sizeof *part.nodes);
    part.n_nodes = (int) n;
    part.uid = 0;
    for (uint32_t i = 0; i < n; i++) {
        part.nodes[i] = r->g.graph->nodes[nodes[i]];
    }
    CHECK(ggml_backend_graph_compute(backend, &part) == GGML_STATUS_SUCCESS);
    free(part.nodes);
}

static void compute_poisoned(struct run * r, struct test_rng * rng, ggml_backend_t backend) {
    const struct ggc_schedule s = ggc_plan_schedule(ggc_graph_plan_core(r->plan));
    bool * done = test_alloc((s.n_units + 1) * sizeof *done);
    for (uint32_t n = 0; n < s.n_units; n++) {
        uint32_t unit = GGC_NONE, ready = 0;
        for (uint32_t i = 0; i < s.n_units; i++) {
            if (may_run(&s, done, i) && test_below(rng, ++ready) == 0) {
                unit = s.order[i];
            }
        }
        CHECK(unit != GGC_NONE);
        compute_unit(r, backend, unit);
        done[unit] = true;
        poison_what_is_over(r, unit, done);
    }
    free(done);
}

// In a unit of several nodes only what one node hands on to the next may be one with its result.
static void check_unit(const struct run * r, uint32_t unit) {
    const struct layout * l = &r->layout;
    uint32_t n = 0;
    ggc_graph_plan_nodes(r->plan, unit, &n);
    for (size_t i = 0; n > 1 && i < l->n_tensors; i++) {
        for (size_t k = 0; k < i; k++) {
            bool both[2] = {false, false};
            for (uint32_t u = l->use_begin[i]; u < l->use_begin[i + 1]; u++) {
                both[0] |= l->uses[u] == unit;
            }
            for (uint32_t u = l->use_begin[k]; u < l->use_begin[k + 1]; u++) {
                both[1] |= l->uses[u] == unit;
            }
            if (both[0] && both[1] && overlap(l->tensors[i], l->tensors[k])) {
                CHECK(l->tensors[i]->data == l->tensors[k]->data);
                CHECK(!r->kept[k] && l->use_begin[k + 1] - l->use_begin[k] == 1);
                CHECK(ggml_op_can_inplace(l->tensors[i]->op));
                seen.one_in_unit++;
            }
        }
    }
}

static void count_shared(const struct run * r) {
    const struct layout * l = &r->layout;
    for (size_t i = 0; i < l->n_tensors; i++) {
        for (size_t k = 0; k < i; k++) {
            seen.shared += !l->tensors[i]->view_src && !l->tensors[k]->view_src &&
                           overlap(l->tensors[i], l->tensors[k]);
        }
    }
}

// What is laid out at least, whatever the plan: by the order of the graph alone.
static size_t least_for(const struct run * r, const struct ggc_graph_plan * plan,
                        const struct layout_params * params) {
    const struct message message = {NULL, 0};
    struct layout_params serially = *params;
    struct layout layout;
    serially.budget = 0;
    serially.may_plan_anew = false;
    CHECK_STATUS(layout_init(&layout, r->g.graph, plan, &serially, &message), GGC_OK);
    const size_t size = layout.figures.size;
    layout_free(&layout);
    return size;
}

// The plan that a layout by time was made for, with what the addresses add to it.
static struct ggc_graph_plan * keep_plan(const struct run * r,
                                         const struct ggc_graph_params * params) {
    const struct ggc_schedule keep = {.n_units = r->layout.n_units,
                                      .n_streams = r->layout.n_streams,
                                      .order = r->layout.order,
                                      .stream = r->layout.stream};
    struct ggc_graph_params kept = *params;
    struct ggc_graph_plan * plan = NULL;
    kept.plan.keep = &keep;
    CHECK_STATUS(ggc_graph_plan_new(r->g.graph, &kept, &plan), GGC_OK);
    const struct ggc_units units = ggc_graph_plan_units(plan);
    const struct ggc_schedule schedule = ggc_plan_schedule(ggc_graph_plan_core(plan));
    CHECK_STATUS(ggc_verify_schedule(&units, &schedule, NULL), GGC_OK);
    seen.kept++;
    return plan;
}

static void random_graph_poisoned(uint64_t seed, struct test_rng * rng, ggml_backend_t backend) {
    struct random_graph reference;
    struct run r = {0};
    struct ggc_graph_plan * before = NULL;
    const struct message message = {NULL, 0};
    const uint32_t n_steps = test_range(rng, 1, 20);
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.plan.n_streams = test_range(rng, 1, 4);
    params.plan.strategy = test_chance(rng, 0.5) ? GGC_STRATEGY_LEVELS : GGC_STRATEGY_LIST;
    params.fuse = test_chance(rng, 0.5) ? GGC_FUSE_CUDA : GGC_FUSE_CPU;
    reference_init(&reference, seed, n_steps);
    random_graph_init(&r.g, seed, n_steps);
    const struct layout_params layout = {.buft = ggml_backend_cpu_buffer_type(),
                                         .budget =
                                             test_chance(rng, 0.3) ? 0 : test_below(rng, 40000),
                                         .may_plan_anew = test_chance(rng, 0.5)};
    CHECK_STATUS(ggc_graph_plan_new(r.g.graph, &params, &before), GGC_OK);
    const size_t least = layout.may_plan_anew ? least_for(&r, before, &layout) : 0;
    CHECK_STATUS(layout_init(&r.layout, r.g.graph, before, &layout, &message), GGC_OK);
    const struct ggc_memory * figures = &r.layout.figures;
    CHECK(figures->size <= figures->budget ||
          (layout.may_plan_anew ? figures->size <= least : figures->sharing == GGC_SHARING_SERIAL));
    CHECK(figures->size <= figures->apart && figures->bound <= figures->apart);
    CHECK_STATUS(ggc_graph_plan_new(r.g.graph, &params, &r.plan), GGC_OK);
    const struct ggc_units units = ggc_graph_plan_units(r.plan);
    if (figures->sharing <= GGC_SHARING_BY_PLAN) {  // it is right for the very plan
        const struct ggc_schedule schedule = ggc_plan_schedule(ggc_graph_plan_core(before));
        CHECK_STATUS(ggc_verify_schedule(&units, &schedule, NULL), GGC_OK);
        ggc_graph_plan_free(r.plan);
        r.plan = before;
    } else {
        ggc_graph_plan_free(before);
    }
    if (figures->sharing == GGC_SHARING_BY_TIME && layout.may_plan_anew) {
        ggc_graph_plan_free(r.plan);
        r.plan = keep_plan(&r, &params);
    }
    find_kept(&r);
    for (uint32_t u = 0; u < units.n_units; u++) {
        check_unit(&r, u);
    }
    count_shared(&r);
    random_graph_restore(&r.g);
    compute_poisoned(&r, rng, backend);
    same_results(&reference, &r.g);
    seen.graphs++;
    seen.by_plan += figures->sharing == GGC_SHARING_BY_PLAN;
    seen.by_time += figures->sharing == GGC_SHARING_BY_TIME;
    seen.serial += figures->sharing == GGC_SHARING_SERIAL;
    ggc_graph_plan_free(r.plan);
    layout_free(&r.layout);
    free(r.kept);
    random_graph_free(&r.g);
    random_graph_free(&reference);
}

//
// Named cases
//

static struct ggml_tensor * chain(struct scene * s, struct ggml_tensor * x, int length) {
    for (int i = 0; i < length; i++) {
        x = ggml_add(s->ctx, x, x);
        expand(s, x);
    }
    return x;
}

static float first_value(const struct ggml_tensor * t) {
    float value;
    ggml_backend_tensor_get(t, &value, 0, sizeof value);
    return value;
}

// A leaf without memory, which the graph writes to, keeps its values from one time to the next.
static void state_without_memory(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor *state = vector(&s, 64), *x = vector(&s, 64);
    ggml_set_input(x);
    struct ggml_tensor * sum = ggml_add(s.ctx, state, chain(&s, x, 3));
    struct ggml_tensor * copy = ggml_cpy(s.ctx, sum, state);
    expand(&s, copy);
    ggml_set_output(chain(&s, x, 9));
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.always = true;
    params.budget = 0;
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    const float zero[64] = {0}, one[64] = {1};
    ggml_backend_tensor_set(state, zero, 0, sizeof zero);
    ggml_backend_tensor_set(x, one, 0, sizeof one);
    for (int i = 1; i <= 3; i++) {
        compute(runner);
        CHECK(first_value(state) == 8 * (float) i);
    }
    ggc_runner_free(runner);
    scene_free(&s);
}

// A view of memory that was there before the view has an address at once, and no buffer: ggml-cuda
// reads through both.
static void views_of_what_was_there(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_init_params init = {16 * ggml_tensor_overhead(), NULL, true};
    struct ggml_context * weights = ggml_init(init);
    struct ggml_tensor * cache = ggml_new_tensor_1d(weights, GGML_TYPE_F32, 64);
    ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, NULL);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(weights, backend);
    struct ggml_tensor * seen_part = ggml_view_1d(s.ctx, cache, 32, 128);
    struct ggml_tensor * y = ggml_cpy(s.ctx, seen_part, ggml_view_1d(s.ctx, cache, 32, 0));
    expand(&s, y);
    CHECK(seen_part->data != NULL && seen_part->buffer == NULL && y->buffer == NULL);
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    CHECK(seen_part->buffer == buffer && y->buffer == buffer && y->src[1]->buffer == buffer);
    ggc_runner_free(runner);
    scene_free(&s);
    ggml_backend_buffer_free(buffer);
    ggml_backend_free(backend);
    ggml_free(weights);
}

// Computed in its place it would read what it has written already.
static void node_that_reads_twice(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor * x = matrix(&s, 64, 8);
    ggml_set_input(x);
    struct ggml_tensor * twice = ggml_add(s.ctx, x, x);
    struct ggml_tensor * sum = ggml_add(s.ctx, twice, ggml_view_1d(s.ctx, twice, 64, 0));
    ggml_set_output(sum);
    expand(&s, sum);
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.budget = 0;
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    float ones[512];
    for (int i = 0; i < 512; i++) {
        ones[i] = 1;
    }
    ggml_backend_tensor_set(x, ones, 0, sizeof ones);
    compute(runner);
    ggml_backend_tensor_get(sum, ones, 0, sizeof ones);
    for (int i = 0; i < 512; i++) {
        CHECK(ones[i] == 4);
    }
    ggc_runner_free(runner);
    scene_free(&s);
}

// What two nodes of a unit read is not written before the second has read it.
static void read_twice_in_a_unit(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor *x = vector(&s, 64), *w = vector(&s, 64);
    ggml_set_input(x);
    ggml_set_input(w);
    struct ggml_tensor * norm = ggml_rms_norm(s.ctx, x, 1e-6f);
    struct ggml_tensor * scaled = ggml_mul(s.ctx, norm, w);
    struct ggml_tensor * sum = ggml_add(s.ctx, scaled, norm);
    ggml_set_output(sum);
    expand(&s, sum);
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.fuse = GGC_FUSE_CUDA;
    struct ggc_graph_plan * plan = NULL;
    CHECK_STATUS(ggc_graph_plan_new(s.graph, &params, &plan), GGC_OK);
    CHECK_EQ(ggc_graph_plan_units(plan).n_units, 1);  // or this tests nothing
    const struct layout_params layout_params = {.buft = ggml_backend_cpu_buffer_type()};
    const struct message message = {NULL, 0};
    struct layout layout;
    CHECK_STATUS(layout_init(&layout, s.graph, plan, &layout_params, &message), GGC_OK);
    CHECK(scaled->data != norm->data && sum->data == scaled->data);
    layout_free(&layout);
    ggc_graph_plan_free(plan);
    scene_free(&s);
}

// What nobody reads is a result, and so is what was marked as an input though a node computes it.
static void unread_and_marked(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor * x = vector(&s, 64);
    ggml_set_input(x);
    struct ggml_tensor * unread = chain(&s, x, 3);
    struct ggml_tensor * marked = chain(&s, x, 2);
    marked->flags |= GGML_TENSOR_FLAG_INPUT;  // ggml_set_input refuses what is computed
    struct ggml_tensor * end = chain(&s, marked, 9);
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.budget = 0;
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    const float one[64] = {1};
    ggml_backend_tensor_set(x, one, 0, sizeof one);
    compute(runner);
    CHECK(first_value(unread) == 8 && first_value(marked) == 4 && first_value(end) == 2048);
    ggc_runner_free(runner);
    scene_free(&s);
}

static size_t small_buffers(ggml_backend_buffer_type_t type) {
    (void) type;
    return 5000;
}

// A backend whose buffers are small: tensors lie in several of them.
static void several_buffers(void) {
    struct ggml_backend_buffer_type small = *ggml_backend_cpu_buffer_type();
    small.iface.get_max_size = small_buffers;
    for (size_t budget = 0; budget <= 1 << 20; budget += 1 << 20) {
        struct scene s;
        scene_init(&s);
        struct ggml_tensor * sum = NULL;
        for (int i = 0; i < 8; i++) {
            struct ggml_tensor * x = vector(&s, 256);
            ggml_set_input(x);
            struct ggml_tensor * y = chain(&s, x, 3);
            sum = sum ? ggml_add(s.ctx, sum, y) : y;
        }
        ggml_set_output(sum);
        expand(&s, sum);
        const struct layout_params params = {.buft = &small, .budget = budget};
        const struct message message = {NULL, 0};
        struct layout layout;
        scene_plan(&s);
        CHECK_STATUS(layout_init(&layout, s.graph, s.plan, &params, &message), GGC_OK);
        CHECK_MSG(layout.n_buffers >= 2 && layout.figures.n_buffers == layout.n_buffers,
                  "%zu buffers", layout.n_buffers);
        for (size_t b = 0; b < layout.n_buffers; b++) {
            CHECK(ggml_backend_buffer_get_size(layout.buffers[b]) <= 5000);
        }
        for (size_t i = 0; i < layout.n_tensors; i++) {
            const float one[256] = {1};
            if (layout.tensors[i]->flags & GGML_TENSOR_FLAG_INPUT) {
                ggml_backend_tensor_set(layout.tensors[i], one, 0, sizeof one);
            }
        }
        compute_serial(s.graph);
        CHECK(first_value(sum) == 64);
        layout_free(&layout);
        scene_free(&s);
    }
}

static void what_the_runner_tells(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor * x = vector(&s, 1024);
    ggml_set_input(x);
    ggml_set_output(chain(&s, x, 20));
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    struct ggc_runner * runner = NULL;
    CHECK(params.budget == GGC_BUDGET_DEFAULT && params.pool == NULL);
    new_runner(s.graph, &params, &runner);
    const struct ggc_memory * memory = ggc_runner_memory(runner);
    CHECK(memory->sharing == GGC_SHARING_NONE && memory->n_tensors == 21);
    CHECK(memory->size == memory->apart && memory->apart == 21 * 4096);
    CHECK(memory->budget == memory->serial + ((size_t) 32 << 20));
    CHECK(memory->size == ggc_runner_buffer_size(runner) && memory->seconds >= 0);
    struct ggc_tensor_place places[21];
    CHECK_EQ(ggc_runner_places(runner, NULL, 0), 21);
    CHECK_EQ(ggc_runner_places(runner, places, 21), 21);
    uint32_t n_uses = 0;
    for (int i = 0; i < 21; i++) {
        CHECK(places[i].buffer == 0 && places[i].size == 4096);
        CHECK(places[i].offset + 4096 <= memory->size + 128);
        n_uses += places[i].n_uses;
    }
    CHECK_EQ(n_uses, 40);
    ggc_runner_free(runner);
    scene_free(&s);
}

//
// The pool
//

static struct ggc_runner * runner_of(struct scene * s, int64_t width, struct ggc_pool * pool) {
    scene_init(s);
    struct ggml_tensor * x = vector(s, width);
    ggml_set_input(x);
    ggml_set_output(chain(s, x, 9));
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.pool = pool;
    struct ggc_runner * runner = NULL;
    new_runner(s->graph, &params, &runner);
    return runner;
}

static void pool_gives_again_what_it_got(void) {
    struct ggc_pool * pool = NULL;
    struct scene a, b;
    CHECK_STATUS(ggc_pool_new(NULL), GGC_E_INVALID);
    CHECK_STATUS(ggc_pool_new(&pool), GGC_OK);
    struct ggc_runner * first = runner_of(&a, 10000, pool);
    ggml_backend_buffer_t buffer = a.graph->nodes[0]->buffer;
    struct ggc_runner * second = runner_of(&b, 10000, pool);  // while the first is in use
    CHECK(b.graph->nodes[0]->buffer != buffer);
    ggc_runner_free(second);
    scene_free(&b);
    ggc_runner_free(first);
    scene_free(&a);
    first = runner_of(&a, 200000, pool);  // too large for either
    CHECK(ggml_backend_buffer_get_size(a.graph->nodes[0]->buffer) >= 8000000);
    second = runner_of(&b, 10500, pool);  // a little more than before
    CHECK(ggml_backend_buffer_get_size(b.graph->nodes[0]->buffer) < 1000000);
    const float one[64] = {1};
    ggml_backend_tensor_set(b.graph->nodes[0]->src[0], one, 0, sizeof one);
    compute(second);
    CHECK(first_value(b.graph->nodes[8]) == 512);
    const size_t size = ggml_backend_buffer_get_size(b.graph->nodes[0]->buffer);
    ggc_runner_free(second);
    scene_free(&b);
    second = runner_of(&b, 9000, pool);  // either of the two that are there
    CHECK_EQ(ggml_backend_buffer_get_size(b.graph->nodes[0]->buffer), size);
    CHECK(size > 10000 * 4 * 10 && size < 10000 * 4 * 12);
    ggc_runner_free(second);
    scene_free(&b);
    ggc_runner_free(first);
    scene_free(&a);
    for (int i = 0; i < 8; i++) {  // more than it keeps
        struct scene scenes[8];
        struct ggc_runner * runners[8];
        for (int k = 0; k <= i; k++) {
            runners[k] = runner_of(&scenes[k], 1000 * (k + 1), pool);
        }
        for (int k = 0; k <= i; k++) {
            ggc_runner_free(runners[k]);
            scene_free(&scenes[k]);
        }
    }
    ggc_pool_free(pool);
    ggc_pool_free(NULL);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 600);
    need_cpu_backend();
    ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, NULL);
    CHECK(backend);
    test_case("a state without memory");
    state_without_memory();
    test_case("views of what was there");
    views_of_what_was_there();
    test_case("a node that reads twice");
    node_that_reads_twice();
    test_case("read twice in a unit");
    read_twice_in_a_unit();
    test_case("unread and marked");
    unread_and_marked();
    test_case("several buffers");
    several_buffers();
    test_case("what the runner tells");
    what_the_runner_tells();
    test_case("the pool");
    pool_gives_again_what_it_got();
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        test_case("random graph %llu", (unsigned long long) i);
        struct test_rng rng = test_rng(options.seed, i);
        random_graph_poisoned(options.seed * 7919 + i, &rng, backend);
    }
    ggml_backend_free(backend);
    if (options.iterations >= 100) {  // or this tests less than it says
        CHECK(seen.shared > 0 && seen.poisoned > 0 && seen.one_in_unit > 0);
        CHECK(seen.by_plan > 0 && seen.by_time > 0 && seen.serial > 0 && seen.kept > 0);
    }
    return test_passed("%llu graphs: %llu by plan, %llu by time, %llu serial; %llu shared pairs, "
                       "%llu in one unit, %llu poisoned",
                       (unsigned long long) seen.graphs, (unsigned long long) seen.by_plan,
                       (unsigned long long) seen.by_time, (unsigned long long) seen.serial,
                       (unsigned long long) seen.shared, (unsigned long long) seen.one_in_unit,
                       (unsigned long long) seen.poisoned);
}
