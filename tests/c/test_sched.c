// Plain ggml through its own scheduler: random graphs compared bit for bit with the backend alone,
// and graphs handed from runner to runner. Needs the CPU backend module, as test_runner does.
#include "runner_support.h"

//
// A graph is as it was when the runner has gone
//

struct before {
    struct ggml_tensor ** nodes;
    struct ggml_tensor * tensors;  // nodes and leafs
    int n_nodes, n;
};

static const struct ggml_tensor * nth(const struct ggml_cgraph * graph, int i) {
    return i < graph->n_nodes ? graph->nodes[i] : graph->leafs[i - graph->n_nodes];
}

static struct before remember(const struct ggml_cgraph * graph) {
    struct before before = {.n_nodes = graph->n_nodes, .n = graph->n_nodes + graph->n_leafs};
    before.nodes = test_alloc((size_t) graph->n_nodes * sizeof *before.nodes);
    before.tensors = test_alloc((size_t) before.n * sizeof *before.tensors);
    memcpy(before.nodes, graph->nodes, (size_t) graph->n_nodes * sizeof *before.nodes);
    for (int i = 0; i < before.n; i++) {
        before.tensors[i] = *nth(graph, i);
    }
    return before;
}

static void check_as_before(struct before * before, const struct ggml_cgraph * graph) {
    CHECK_EQ(before->n_nodes, graph->n_nodes);
    CHECK(memcmp(before->nodes, graph->nodes, (size_t) graph->n_nodes * sizeof *graph->nodes) == 0);
    for (int i = 0; i < before->n; i++) {
        const struct ggml_tensor *was = &before->tensors[i], *is = nth(graph, i);
        CHECK_MSG(was->data == is->data && was->buffer == is->buffer && was->extra == is->extra,
                  "tensor %d, '%s', has other memory", i, is->name);
        CHECK_MSG(was->flags == is->flags, "tensor %d, '%s', has other flags", i, is->name);
        CHECK(memcmp(was->src, is->src, sizeof is->src) == 0);
    }
    free(before->nodes);
    free(before->tensors);
}

static void computes(struct random_graph * g, const struct random_graph * reference,
                     const struct ggc_runner_params * params, int times) {
    struct ggc_runner * runner = NULL;
    new_runner(g->graph, params, &runner);
    for (int i = 0; i < times; i++) {
        random_graph_restore(g);
        compute(runner);
        same_results(reference, g);
    }
    CHECK(ggc_runner_settled(runner) && ggc_runner_unit_times(runner) == NULL);
    CHECK(!params->scheduled || ggc_runner_buffer_size(runner) > 0);
    ggc_runner_free(runner);
}

// Scheduled, on streams, and scheduled again.
static void random_run(uint64_t seed, uint64_t index) {
    struct test_rng rng = test_rng(seed, index);
    struct random_graph reference, g;
    const uint64_t graph_seed = test_rand(&rng);
    const uint32_t n_steps = test_range(&rng, 1, index % 20 ? 12 : 60);
    struct ggc_runner_params params = random_params(&rng);
    params.trace = false;
    const struct ggc_runner_params scheduled = scheduled_params(test_range(&rng, 1, 2));
    reference_init(&reference, graph_seed, n_steps);
    random_graph_init(&g, graph_seed, n_steps);
    struct before before = remember(g.graph);
    computes(&g, &reference, &scheduled, 3);
    check_as_before(&before, g.graph);
    computes(&g, &reference, &params, 2);
    computes(&g, &reference, &scheduled, 1);
    random_graph_free(&g);
    random_graph_free(&reference);
    atomic_fetch_add(&n_graphs, 1);
}

//
// Named cases
//

// ggml-alloc would give the input's memory away after its only use.
static void inputs_and_results_keep_their_values(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor *x = vector(&s, 64), *root = ggml_scale(s.ctx, x, 2);
    ggml_set_input(x);
    struct ggml_tensor *seen = ggml_view_1d(s.ctx, root, 64, 0), *end = seen;
    ggml_set_output(seen);
    expand(&s, seen);
    for (int i = 0; i < 6; i++) {
        end = ggml_sqr(s.ctx, ggml_mul_mat(s.ctx, end, end));
        end = ggml_repeat(s.ctx, end, x);
    }
    ggml_set_output(end);
    expand(&s, end);
    const struct ggc_runner_params params = scheduled_params(1);
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    float values[64], got[64];
    for (int i = 0; i < 64; i++) {
        values[i] = 0.01f * (float) i;
    }
    ggml_backend_tensor_set(x, values, 0, sizeof values);
    for (int round = 0; round < 3; round++) {
        compute(runner);
        ggml_backend_tensor_get(x, got, 0, sizeof got);
        CHECK_MSG(memcmp(got, values, sizeof got) == 0, "the input has changed");
        ggml_backend_tensor_get(seen, got, 0, sizeof got);
        for (int i = 0; i < 64; i++) {
            CHECK_MSG(got[i] == 2 * values[i], "what the result views was overwritten");
        }
    }
    ggc_runner_free(runner);
    scene_free(&s);
}

static void nothing_to_compute(void) {
    struct scene s;
    scene_init(&s);
    const struct ggc_runner_params params = scheduled_params(1);
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    compute(runner);
    CHECK(ggc_runner_buffer_size(runner) == 0);
    ggc_runner_free(runner);
    struct ggml_tensor * x = matrix(&s, 8, 8);
    ggml_set_input(x);
    expand(&s, ggml_transpose(s.ctx, ggml_view_2d(s.ctx, x, 4, 4, 32, 0)));
    new_runner(s.graph, &params, &runner);
    compute(runner);
    CHECK(x->data != NULL);
    ggc_runner_free(runner);
    CHECK(x->data == NULL);
    scene_free(&s);
}

static void refused(struct ggml_cgraph * graph, const struct ggc_runner_params * params,
                    enum ggc_status status, const char * text) {
    struct ggc_runner * runner = NULL;
    char message[300] = "";
    CHECK_STATUS(ggc_runner_new(graph, params, &runner, message, sizeof message), status);
    CHECK(runner == NULL);
    CHECK_MSG(strstr(message, text) != NULL, "the message is '%s'", message);
}

static void what_does_not_go_with_it(void) {
    struct random_graph g;
    random_graph_init(&g, 1, 8);
    struct before before = remember(g.graph);
    struct ggc_runner_params params = scheduled_params(2);
    params.n_streams = 2;
    refused(g.graph, &params, GGC_E_INVALID, "n_streams 1");
    params = scheduled_params(2);
    params.trace = true;
    refused(g.graph, &params, GGC_E_INVALID, "without trace");
    params = scheduled_params(2);
    params.device = GGC_DEVICE_METAL;
    refused(g.graph, &params, GGC_E_INVALID, "not for Metal");
    check_as_before(&before, g.graph);
    random_graph_free(&g);
}

static void failing_operation(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor *table = matrix(&s, 4, 8),
                       *ids = ggml_new_tensor_1d(s.ctx, GGML_TYPE_I32, 1);
    ggml_set_input(table);
    ggml_set_input(ids);
    struct ggml_tensor * row = ggml_get_rows(s.ctx, table, ids);
    ggml_set_output(row);
    expand(&s, row);
    const struct ggc_runner_params params = scheduled_params(1);
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    for (int32_t i = 0; i < 3; i++) {
        const int32_t index = i == 1 ? 1000 : i;
        ggml_backend_tensor_set(ids, &index, 0, sizeof index);
        CHECK_STATUS(ggc_runner_compute(runner), i == 1 ? GGC_E_ASSERT : GGC_OK);
        CHECK((strstr(ggc_runner_message(runner), "ASSERT") != NULL) == (i == 1));
    }
    ggc_runner_free(runner);
    scene_free(&s);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 100);
    need_cpu_backend();
    if (options.first == 0) {
        test_case("%s", "named cases");
        inputs_and_results_keep_their_values();
        nothing_to_compute();
        what_does_not_go_with_it();
        failing_operation();
    }
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        test_case("random graph %llu", (unsigned long long) i);
        random_run(options.seed, i);
    }
    return test_passed("%llu graphs, %llu computations", atomic_load(&n_graphs),
                       atomic_load(&n_computes));
}
