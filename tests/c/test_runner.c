// Random graphs run on CPU streams under random delays, compared bit for bit with ggml's own serial
// computation of the same graph on memory without reuse. Needs the CPU backend module: its folder
// is taken from the environment variable GGC_LIB_DIR, else from beside the library.
#include <pthread.h>

#include "runner_support.h"

static void random_run(uint64_t seed, uint64_t index) {
    struct test_rng rng = test_rng(seed, index);
    const uint64_t graph_seed = test_rand(&rng);
    const uint32_t n_steps = test_range(&rng, 1, index % 20 ? 12 : 60);
    const struct ggc_runner_params params = random_params(&rng);
    test_case("random graph %llu: %u streams, strategy %d, fuse %d, budget %zu, stress %u",
              (unsigned long long) index, params.n_streams, params.strategy, params.fuse,
              params.budget, params.stress_seed);
    run_graph(graph_seed, n_steps, &params, index % 7 ? 2 : 5);
}

//
// Many runners at once
//

struct crowd {
    uint64_t seed, first, n;
};

static void * crowd_member(void * arg) {
    const struct crowd * crowd = arg;
    for (uint64_t i = 0; i < crowd->n; i++) {
        random_run(crowd->seed, crowd->first + i);
    }
    return NULL;
}

static void many_runners_at_once(uint64_t seed, uint64_t n) {
    enum { MEMBERS = 4 };
    pthread_t threads[MEMBERS];
    struct crowd crowds[MEMBERS];
    for (uint64_t i = 0; i < MEMBERS; i++) {
        crowds[i] = (struct crowd) {seed, 1000000 + i * 10000, n / MEMBERS + 1};
        CHECK(pthread_create(&threads[i], NULL, crowd_member, &crowds[i]) == 0);
    }
    for (int i = 0; i < MEMBERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

//
// The same graphs in other memory and another order
//

// The graph sorted by phases, with barriers that the backend skips, allocated by ggml itself and
// computed one node after another.
static void sorted_graph_computed_serially(uint64_t seed) {
    struct random_graph reference, g;
    reference_init(&reference, seed, 14);
    random_graph_init(&g, seed, 14);
    struct ggml_context * barriers = ggml_init(
        (struct ggml_init_params) {.mem_size = 1024 * ggml_tensor_overhead(), .no_alloc = true});
    CHECK_STATUS(ggml_graph_find_concurrency(barriers, g.graph), GGC_OK);
    for (uint32_t i = 0; i < g.n_values; i++) {
        struct ggml_tensor * t = g.values[i];  // ggml-alloc protects a result, not what it views
        if (t->view_src && t->flags & GGML_TENSOR_FLAG_OUTPUT) {
            ggml_set_output(t->view_src);
        }
    }
    ggml_gallocr_t alloc = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    CHECK(ggml_gallocr_alloc_graph(alloc, g.graph));
    random_graph_restore(&g);
    compute_serial(g.graph);
    same_results(&reference, &g);
    ggml_gallocr_free(alloc);
    ggml_free(barriers);
    random_graph_free(&g);
    random_graph_free(&reference);
}

// A graph that is allocated in full already: nothing is laid out, addresses decide.
static void graph_with_memory_of_ggml_alloc(uint64_t seed) {
    struct random_graph reference, g;
    reference_init(&reference, seed, 12);
    random_graph_init(&g, seed, 12);
    for (uint32_t i = 0; i < g.n_values; i++) {
        ggml_set_output(g.values[i]->view_src ? g.values[i]->view_src : g.values[i]);
    }
    ggml_gallocr_t alloc = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    CHECK(ggml_gallocr_alloc_graph(alloc, g.graph));
    void * data = g.values[g.n_values - 1]->data;
    struct test_rng rng = test_rng(seed, 9);
    struct ggc_runner_params params = random_params(&rng);
    struct ggc_runner * runner = NULL;
    new_runner(g.graph, &params, &runner);
    CHECK(g.values[g.n_values - 1]->data == data);
    for (int i = 0; i < 2; i++) {
        random_graph_restore(&g);
        compute(runner);
        same_results(&reference, &g);
    }
    ggc_runner_free(runner);
    ggml_gallocr_free(alloc);
    random_graph_free(&g);
    random_graph_free(&reference);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 2000);
    need_cpu_backend();
    const uint64_t end = options.first + options.iterations;
    for (uint64_t i = options.first; i < end; i++) {
        random_run(options.seed, i);
        if (i % 20 == 10) {
            test_case("sorted graph %llu", (unsigned long long) i);
            sorted_graph_computed_serially(options.seed + i);
            test_case("allocated graph %llu", (unsigned long long) i);
            graph_with_memory_of_ggml_alloc(options.seed + i);
        }
    }
    if (options.first == 0) {
        many_runners_at_once(options.seed, options.iterations / 10);
    }
    return test_passed("%llu graphs, %llu nodes, %llu waits, %llu computations, %llu traced",
                       atomic_load(&n_graphs), atomic_load(&n_nodes), atomic_load(&n_waits),
                       atomic_load(&n_computes), atomic_load(&n_traced));
}
