// Runners in named cases: shapes, memory, failures. Needs the CPU backend module, as test_runner
// does.
#include "runner_support.h"

//
// Shapes
//

// 8 towers of 12 layers: much to do at once.
static void towers(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor *x = matrix(&s, 64, 4), *w = matrix(&s, 64, 64), *ends[8];
    place(&s, x);
    place(&s, w);
    struct test_rng rng = test_rng(3, 0);
    for (int64_t i = 0; i < ggml_nelements(x); i++) {
        ((float *) x->data)[i] = random_float(&rng);
    }
    for (int64_t i = 0; i < ggml_nelements(w); i++) {
        ((float *) w->data)[i] = 0.2f * random_float(&rng);
    }
    for (int t = 0; t < 8; t++) {
        ends[t] = ggml_scale(s.ctx, x, (float) (t + 1));
        for (int l = 0; l < 12; l++) {
            ends[t] = ggml_tanh(s.ctx, ggml_mul_mat(s.ctx, w, ends[t]));
        }
        ggml_set_output(ends[t]);
        expand(&s, ends[t]);
    }
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.always = true;
    params.n_streams = params.n_threads = 4;
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    const struct ggc_plan_stats stats =
        ggc_plan_get_stats(ggc_graph_plan_core(ggc_runner_plan(runner)));
    CHECK(stats.width >= 8 && stats.n_streams == 4 && stats.n_waits == 0);
    CHECK(ggc_runner_buffer_size(runner) >= 8 * ggml_nbytes(x));
    float results[8][256];
    for (int k = 0; k < 20; k++) {
        compute(runner);
        for (int t = 0; t < 8; t++) {
            if (k == 0) {
                memcpy(results[t], ends[t]->data, sizeof results[t]);
            }
            CHECK(memcmp(results[t], ends[t]->data, sizeof results[t]) == 0);
        }
    }
    compute_serial(s.graph);
    for (int t = 0; t < 8; t++) {
        CHECK(memcmp(results[t], ends[t]->data, sizeof results[t]) == 0);
        CHECK_MSG(t == 0 || memcmp(results[t], results[0], sizeof results[t]) != 0,
                  "the towers do not differ: this test tests nothing");
    }
    ggc_runner_free(runner);
    scene_free(&s);
}

static void empty_graph(void) {
    struct scene s;
    scene_init(&s);
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, NULL, &runner);
    compute(runner);
    compute(runner);
    ggc_runner_free(runner);
    scene_free(&s);
}

static void graph_of_views(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor * x = matrix(&s, 8, 8);
    ggml_set_input(x);
    expand(&s, ggml_transpose(s.ctx, ggml_view_2d(s.ctx, x, 4, 4, 32, 0)));
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, NULL, &runner);
    compute(runner);
    ggc_runner_free(runner);
    scene_free(&s);
}

// Two runners with graphs of their own, used in turn and freed in the order they were made.
static void runners_in_turn(void) {
    struct random_graph g[3], reference[3];
    struct ggc_runner * runners[3];
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.always = true;
    for (uint32_t i = 0; i < 3; i++) {
        reference_init(&reference[i], 50 + i, 10);
        random_graph_init(&g[i], 50 + i, 10);
        new_runner(g[i].graph, &params, &runners[i]);
    }
    for (int k = 0; k < 12; k++) {
        random_graph_restore(&g[k % 3]);
        compute(runners[k % 3]);
        same_results(&reference[k % 3], &g[k % 3]);
    }
    for (int i = 0; i < 3; i++) {
        ggc_runner_free(runners[i]);
        random_graph_free(&g[i]);
        random_graph_free(&reference[i]);
    }
}

//
// Memory
//

static struct ggml_tensor * doubled(struct scene * s, struct ggml_tensor * t) {
    t = ggml_scale(s->ctx, t, 2);
    expand(s, t);
    return t;
}

static float first_value(const struct ggml_tensor * t) {
    float value = 0;
    ggml_backend_tensor_get(t, &value, 0, sizeof value);
    return value;
}

// Sorted by phases, the beginning of the long chain comes before `early`, which may therefore take
// its memory; in the order of the list it comes after `early` and would overwrite it before `sum`
// has read it.
static void memory_shared_in_the_order_of_the_phases(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor * x = vector(&s, 64);
    ggml_set_input(x);
    struct ggml_tensor *early = doubled(&s, doubled(&s, doubled(&s, x))), *chain = x;
    for (int i = 0; i < 6; i++) {
        chain = doubled(&s, chain);
    }
    struct ggml_tensor * sum = ggml_add(s.ctx, early, chain);
    ggml_set_output(sum);
    expand(&s, sum);
    for (uint32_t i = 0; i < 12; i++) {
        struct ggc_runner_params params;
        ggc_runner_params_init(&params);
        params.always = true;
        params.budget = 0;
        params.n_streams = params.n_threads = 1 + i / 4;
        params.strategy = (enum ggc_strategy)(i % 4);
        params.stress_seed = i + 1;
        struct ggc_runner * runner = NULL;
        new_runner(s.graph, &params, &runner);
        const float two[64] = {2};
        ggml_backend_tensor_set(x, two, 0, sizeof two);
        compute(runner);
        CHECK_MSG(first_value(sum) == 144, "the result is %g, expected 144", first_value(sum));
        compute_serial(s.graph);
        CHECK_MSG(first_value(sum) == 144, "serially the result is %g, expected 144",
                  first_value(sum));
        ggc_runner_free(runner);
    }
    scene_free(&s);
}

// Without a budget a chain needs no more memory than two of its links and its input.
static void chain_reuses_its_memory(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor *x = vector(&s, 1024), *t = x;
    ggml_set_input(x);
    for (int i = 0; i < 50; i++) {
        t = ggml_soft_max(s.ctx, t);
        expand(&s, t);
    }
    ggml_set_output(t);
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.always = true;
    struct ggc_runner * runner = NULL;
    for (int with_budget = 0; with_budget < 2; with_budget++) {
        params.budget = with_budget ? 1 << 20 : 0;
        new_runner(s.graph, &params, &runner);
        const size_t size = ggc_runner_buffer_size(runner);
        CHECK_MSG(with_budget ? size >= 51 * 4096 : size <= 6 * 4096, "budget %zu: %zu bytes",
                  params.budget, size);
        ggc_runner_free(runner);
    }
    scene_free(&s);
}

// A result that is a view: what it views must live as long.
static void result_in_place(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor * x = vector(&s, 64);
    ggml_set_input(x);
    struct ggml_tensor *first = doubled(&s, x), *t = first;
    struct ggml_tensor * result = ggml_scale_inplace(s.ctx, first, 5);
    struct ggml_tensor * half = ggml_view_1d(s.ctx, result, 32, 0);
    expand(&s, half);
    ggml_set_output(half);
    t = result;
    for (int i = 0; i < 20; i++) {
        t = doubled(&s, t);
    }
    ggml_set_output(t);
    for (uint32_t i = 0; i < 8; i++) {
        struct test_rng rng = test_rng(i, 3);
        struct ggc_runner_params params = random_params(&rng);
        params.budget = 0;
        struct ggc_runner * runner = NULL;
        new_runner(s.graph, &params, &runner);
        const float one[64] = {1};
        ggml_backend_tensor_set(x, one, 0, sizeof one);
        compute(runner);
        CHECK_MSG(first_value(half) == 10, "a result was overwritten: %g", first_value(half));
        ggc_runner_free(runner);
    }
    scene_free(&s);
}

// A node of no elements in a late phase. A debug build of ggml asserts that memory is given once.
static void zero_size_node_in_a_late_phase(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor * x = vector(&s, 64);
    ggml_set_input(x);
    struct ggml_tensor * y = doubled(&s, doubled(&s, doubled(&s, x)));
    struct ggml_tensor * none = doubled(&s, ggml_view_1d(s.ctx, y, 0, 0));
    struct ggml_tensor * z = doubled(&s, y);
    ggml_set_output(z);
    CHECK_EQ(ggml_nelements(none), 0);
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.always = true;
    params.budget = 0;
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    const float one[64] = {1};
    ggml_backend_tensor_set(x, one, 0, sizeof one);
    compute(runner);
    CHECK(first_value(z) == 16);
    ggc_runner_free(runner);
    scene_free(&s);
}

// Freeing a runner gives the graph back as it was: another runner can be made for it.
static void runners_of_one_graph_after_one_another(void) {
    struct random_graph reference, g;
    reference_init(&reference, 77, 12);
    random_graph_init(&g, 77, 12);
    const int n = g.graph->n_nodes;
    struct ggml_tensor ** nodes = test_alloc((size_t) n * sizeof *nodes);
    memcpy(nodes, g.graph->nodes, (size_t) n * sizeof *nodes);
    for (uint32_t i = 0; i < 6; i++) {
        struct test_rng rng = test_rng(i, 0);
        struct ggc_runner_params params = random_params(&rng);
        struct ggc_runner * runner = NULL;
        params.budget = i % 2 ? (size_t) 32 << 20 : 0;
        new_runner(g.graph, &params, &runner);
        random_graph_restore(&g);
        compute(runner);
        same_results(&reference, &g);
        ggc_runner_free(runner);
        CHECK(memcmp(nodes, g.graph->nodes, (size_t) n * sizeof *nodes) == 0);
        for (int k = 0; k < n; k++) {
            CHECK(!nodes[k]->data || nodes[k]->view_src);  // a view of a leaf keeps its place
        }
    }
    free(nodes);
    random_graph_free(&g);
    random_graph_free(&reference);
}

//
// Failures
//

static void check_refused(struct ggml_cgraph * graph, const struct ggc_runner_params * params,
                          enum ggc_status expected) {
    char message[200] = "";
    struct ggc_runner * runner = (struct ggc_runner *) (void *) message;
    const enum ggc_status status = ggc_runner_new(graph, params, &runner, message, sizeof message);
    CHECK_MSG(status == expected, "%s: %s, expected %s", ggc_status_string(status), message,
              ggc_status_string(expected));
    CHECK(runner == NULL);
    CHECK_MSG(message[0], "no reason is given");
    runner = (struct ggc_runner *) (void *) message;
    CHECK_STATUS(ggc_runner_new(graph, params, &runner, NULL, 0), expected);
    CHECK(runner == NULL);
}

static void bad_parameters(void) {
    struct random_graph g;
    random_graph_init(&g, 5, 6);
    struct ggc_runner_params good, params;
    ggc_runner_params_init(&good);
    CHECK(good.device == GGC_DEVICE_CPU && good.n_streams == 2 && good.n_threads == 2);
    CHECK(good.strategy == GGC_STRATEGY_LIST && good.fuse == GGC_FUSE_CPU && good.verify);
    CHECK(good.budget == GGC_BUDGET_DEFAULT && good.stress_seed == 0 && !good.always);
    check_refused(NULL, &good, GGC_E_INVALID);
    params = good;
    params.n_streams = 0;
    check_refused(g.graph, &params, GGC_E_INVALID);
    params.n_streams = GGC_MAX_STREAMS + 1;
    check_refused(g.graph, &params, GGC_E_INVALID);
    params = good;
    params.n_threads = 0;
    check_refused(g.graph, &params, GGC_E_INVALID);
    params = good;
    params.strategy = (enum ggc_strategy) 50;
    check_refused(g.graph, &params, GGC_E_INVALID);
    params = good;
    params.fuse = (enum ggc_fuse) 50;
    check_refused(g.graph, &params, GGC_E_INVALID);
    params = good;
    params.device = (enum ggc_device_kind) 50;
    CHECK_STATUS(ggc_runner_new(g.graph, &params, NULL, NULL, 0), GGC_E_INVALID);
    struct ggc_runner * runner = NULL;
    const enum ggc_status status = ggc_runner_new(g.graph, &params, &runner, NULL, 0);
    CHECK(runner == NULL && (status == GGC_E_INVALID || status == GGC_E_UNSUPPORTED));
    ggc_runner_free(NULL);
    CHECK(ggc_compute_serial(NULL, 1, NULL, 0) == GGC_E_INVALID);
    random_graph_free(&g);
    struct ggc_runner_params few = good;  // fewer threads than streams is no mistake
    few.n_streams = 4;
    few.n_threads = 1;
    run_graph(6, 10, &few, 2);
}

// No CPU kernel writes this type. The graph must be left as it was, and be of use once repaired.
static void operation_that_the_cpu_lacks(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor * x = matrix(&s, 256, 2);
    struct ggml_tensor * bad = ggml_new_tensor_2d(s.ctx, GGML_TYPE_IQ2_XXS, 256, 2);
    ggml_set_input(x);
    struct ggml_tensor *y = ggml_scale(s.ctx, x, 3), *z = ggml_cpy(s.ctx, y, bad);
    ggml_set_output(y);
    expand(&s, z);
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.always = true;
    for (int i = 0; i < 4; i++) {
        params.budget = i % 2 ? 0 : 1 << 20;
        check_refused(s.graph, &params, GGC_E_UNSUPPORTED);
        CHECK_MSG(x->data == NULL && y->data == NULL && z->data == NULL && x->buffer == NULL,
                  "a failed call left memory in the graph");
        CHECK(s.graph->n_nodes == 2 && s.graph->nodes[0] == y && s.graph->nodes[1] == z);
    }
    s.graph->n_nodes--;  // without the copy
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    const float value = 7;
    ggml_backend_tensor_set(x, &value, 4, 4);
    compute(runner);
    float result = 0;
    ggml_backend_tensor_get(y, &result, 4, 4);
    CHECK(result == 21);
    ggc_runner_free(runner);
    scene_free(&s);
}

// An index out of range: ggml's kernel asserts while other streams compute. The failure is told,
// once, nobody waits for ever, and the runner computes again as soon as the input is right: nothing
// of the failed run is left behind, as llama.cpp #18496 left its events.
static void failing_operation(void) {
    enum { TOWERS = 4 };
    struct scene s;
    scene_init(&s);
    struct ggml_tensor *table = matrix(&s, 16, 8), *ids[TOWERS], *ends[TOWERS];
    ggml_set_input(table);
    for (int i = 0; i < TOWERS; i++) {
        ids[i] = ggml_new_tensor_1d(s.ctx, GGML_TYPE_I32, 1);
        ggml_set_input(ids[i]);
        struct ggml_tensor * t = doubled(&s, doubled(&s, table));
        ends[i] = ggml_get_rows(s.ctx, t, ids[i]);
        expand(&s, ends[i]);
        ends[i] = doubled(&s, ends[i]);
        ggml_set_output(ends[i]);
    }
    float values[16 * 8];
    for (int i = 0; i < 16 * 8; i++) {
        values[i] = (float) (i / 16);
    }
    for (uint32_t n_streams = 1; n_streams <= TOWERS; n_streams++) {
        struct ggc_runner_params params;
        ggc_runner_params_init(&params);
        params.always = true;
        params.n_streams = params.n_threads = n_streams;
        params.strategy = GGC_STRATEGY_LEVELS;
        params.stress_seed = n_streams;
        params.budget = (size_t) 1 << 20;
        struct ggc_runner * runner = NULL;
        new_runner(s.graph, &params, &runner);
        ggml_backend_tensor_set(table, values, 0, sizeof values);
        for (int32_t round = 0; round < 12; round++) {
            const bool bad = round % 3 == 1;
            for (int32_t i = 0; i < TOWERS; i++) {
                const int32_t index = bad && i == round % TOWERS ? 1000 : (i + round) % 8;
                ggml_backend_tensor_set(ids[i], &index, 0, sizeof index);
            }
            if (bad) {
                CHECK_STATUS(ggc_runner_compute(runner), GGC_E_ASSERT);
                CHECK_MSG(strstr(ggc_runner_message(runner), "ASSERT"), "the message is '%s'",
                          ggc_runner_message(runner));
            } else {
                compute(runner);
                for (int32_t i = 0; i < TOWERS; i++) {
                    CHECK(first_value(ends[i]) == (float) (8 * ((i + round) % 8)));
                }
            }
        }
        if (n_streams == 3) {  // freed right after a failure
            const int32_t index = -1;
            ggml_backend_tensor_set(ids[2], &index, 0, sizeof index);
            CHECK_STATUS(ggc_runner_compute(runner), GGC_E_ASSERT);
        }
        ggc_runner_free(runner);
    }
    scene_free(&s);
}

static void serial_without_memory(void) {
    struct random_graph g;
    random_graph_init(&g, 8, 6);
    char message[200] = "";
    CHECK(ggc_compute_serial(g.graph, 1, message, sizeof message) != GGC_OK);
    CHECK(message[0]);
    random_graph_free(&g);
}

static void bad_backend_folder(void) {
    char message[200] = "";
    const enum ggc_status status = ggc_load_backends("/nonexistent", message, sizeof message);
    CHECK_MSG(status == GGC_OK, "a second call must succeed at once: %s", message);
}

#define CASE(name) {#name, name}
static const struct {
    const char * name;
    void (*run)(void);
} cases[] = {
    CASE(bad_backend_folder),
    CASE(empty_graph),
    CASE(graph_of_views),
    CASE(towers),
    CASE(memory_shared_in_the_order_of_the_phases),
    CASE(chain_reuses_its_memory),
    CASE(result_in_place),
    CASE(zero_size_node_in_a_late_phase),
    CASE(runners_of_one_graph_after_one_another),
    CASE(runners_in_turn),
    CASE(bad_parameters),
    CASE(operation_that_the_cpu_lacks),
    CASE(failing_operation),
    CASE(serial_without_memory),
};

int main(int argc, char ** argv) {
    test_begin(argc, argv, 0, 0);
    need_cpu_backend();
    const size_t n = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < n; i++) {
        test_case("%s", cases[i].name);
        cases[i].run();
    }
    return test_passed("%zu cases", n);
}
