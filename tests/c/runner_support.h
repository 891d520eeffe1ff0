// What the tests of runners share: a random graph computed by ggml alone, on memory without reuse,
// and comparisons with it bit for bit.
#pragma once

#include <stdatomic.h>

#include "random_graph.h"

static atomic_ullong n_graphs, n_nodes, n_computes, n_waits, n_traced;

//
// One graph: the reference, and what must equal it
//

// What ggml has allocated for a computation that its assertion ends stays allocated, as guard.h
// says: the leak checker of a sanitizer build asks this function for what it is not to report.
const char * __lsan_default_suppressions(void);
const char * __lsan_default_suppressions(void) {
    return "leak:ggml_graph_compute\n";
}

static inline enum ggc_status new_runner(struct ggml_cgraph * graph,
                                         const struct ggc_runner_params * params,
                                         struct ggc_runner ** runner) {
    char message[300] = "";
    const enum ggc_status status = ggc_runner_new(graph, params, runner, message, sizeof message);
    CHECK_MSG(status == GGC_OK, "ggc_runner_new: %s: %s", ggc_status_string(status), message);
    return status;
}

static inline void compute(struct ggc_runner * runner) {
    const enum ggc_status status = ggc_runner_compute(runner);
    CHECK_MSG(status == GGC_OK, "ggc_runner_compute: %s: %s", ggc_status_string(status),
              ggc_runner_message(runner));
    CHECK(ggc_runner_message(runner)[0] == '\0');
    atomic_fetch_add(&n_computes, 1);
}

static inline void compute_serial(struct ggml_cgraph * graph) {
    char message[300] = "";
    const enum ggc_status status = ggc_compute_serial(graph, 1, message, sizeof message);
    CHECK_MSG(status == GGC_OK, "ggc_compute_serial: %s: %s", ggc_status_string(status), message);
}

static inline void same_bytes(const struct ggml_tensor * a, const struct ggml_tensor * b,
                              const char * what, uint32_t index) {
    const size_t n = ggml_nbytes(a);
    char *x = test_alloc(n), *y = test_alloc(n);
    CHECK_EQ(n, ggml_nbytes(b));
    ggml_backend_tensor_get(a, x, 0, n);
    ggml_backend_tensor_get(b, y, 0, n);
    if (memcmp(x, y, n) != 0) {
        size_t at = 0;
        while (x[at] == y[at]) {
            at++;
        }
        test_fail(__FILE__, __LINE__, "%s %u (%s '%s') differs from byte %zu of %zu on", what,
                  index, ggml_op_name(a->op), a->name, at, n);
    }
    free(x);
    free(y);
}

// Results and caches; everything that either graph was told to keep.
static inline void same_results(const struct random_graph * a, const struct random_graph * b) {
    CHECK_EQ(a->n_values, b->n_values);
    for (uint32_t i = 0; i < a->n_values; i++) {
        if (a->values[i]->flags & GGML_TENSOR_FLAG_OUTPUT) {
            same_bytes(a->values[i], b->values[i], "value", i);
        }
    }
    for (uint32_t i = 0; i < 3; i++) {
        same_bytes(a->caches[i], b->caches[i], "cache", i);
    }
}

static inline struct ggc_runner_params random_params(struct test_rng * rng) {
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.always = true;
    params.n_streams = test_range(rng, 1, 4);
    params.n_threads = test_chance(rng, 0.8) ? params.n_streams : 4;
    // list scheduling forks seldom where everything is as small as here
    params.strategy =
        test_chance(rng, 0.6) ? GGC_STRATEGY_LEVELS : (enum ggc_strategy) test_below(rng, 4);
    params.fuse = test_chance(rng, 0.5) ? GGC_FUSE_CPU : GGC_FUSE_NONE;
    params.budget = test_chance(rng, 0.5) ? 0 : test_below(rng, 1 << 16);
    if (test_chance(rng, 0.3)) {
        params.budget = (size_t) 32 << 20;
    }
    params.stress_seed = test_chance(rng, 0.8) ? 1 + test_below(rng, 1 << 30) : 0;
    params.trace = test_chance(rng, 0.2);
    return params;
}

// Plain ggml through its own scheduler.
static inline struct ggc_runner_params scheduled_params(uint32_t n_threads) {
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.scheduled = true;
    params.n_streams = 1;
    params.n_threads = n_threads;
    return params;
}

static inline void reference_init(struct random_graph * reference, uint64_t seed,
                                  uint32_t n_steps) {
    random_graph_init(reference, seed, n_steps);
    random_graph_place(reference);
    random_graph_restore(reference);
    compute_serial(reference->graph);
}

static inline void check_threads(const struct ggc_runner * runner, uint32_t n_threads) {
    const struct ggc_plan * plan = ggc_graph_plan_core(ggc_runner_plan(runner));
    const struct ggc_schedule s = ggc_plan_schedule(plan);
    for (uint32_t u = 0; u < s.n_units; u++) {
        const uint32_t n = ggc_runner_unit_threads(runner, u);
        CHECK_MSG(n >= 1 && n <= n_threads, "unit %u has %u of %u threads", u, n, n_threads);
    }
    atomic_fetch_add(&n_waits, s.wait_begin[s.n_units]);
}

// Where a run was traced, units ran one after another on each stream and after what they wait for.
static inline void check_times(const struct ggc_runner * runner) {
    const double * times = ggc_runner_unit_times(runner);
    const struct ggc_schedule s = ggc_plan_schedule(ggc_graph_plan_core(ggc_runner_plan(runner)));
    uint32_t last[GGC_MAX_STREAMS];
    memset(last, 0xff, sizeof(last));
    for (uint32_t i = 0; times != NULL && i < s.n_units; i++) {
        const uint32_t u = s.order[i];
        CHECK(0 < times[2 * u] && times[2 * u] <= times[2 * u + 1]);
        CHECK(last[s.stream[u]] == GGC_NONE || times[2 * last[s.stream[u]] + 1] <= times[2 * u]);
        for (uint32_t k = s.wait_begin[u]; k < s.wait_begin[u + 1]; k++) {
            CHECK(times[2 * s.waits[k] + 1] <= times[2 * u]);
        }
        last[s.stream[u]] = u;
    }
    atomic_fetch_add(&n_traced, times != NULL);
}

static inline void run_graph(uint64_t seed, uint32_t n_steps,
                             const struct ggc_runner_params * params, int times) {
    struct random_graph reference, g;
    struct ggc_runner * runner = NULL;
    reference_init(&reference, seed, n_steps);
    random_graph_init(&g, seed, n_steps);
    new_runner(g.graph, params, &runner);
    check_threads(runner, params->n_threads);
    for (int i = 0; i < times; i++) {
        random_graph_restore(&g);
        compute(runner);
        same_results(&reference, &g);
        check_times(runner);
    }
    random_graph_restore(&g);
    compute_serial(g.graph);  // the same memory in the serial order
    same_results(&reference, &g);
    ggc_runner_free(runner);
    atomic_fetch_add(&n_graphs, 1);
    atomic_fetch_add(&n_nodes, (unsigned long long) g.graph->n_nodes);
    random_graph_free(&g);
    random_graph_free(&reference);
}

// Ends the test as skipped where there is no CPU backend. OpenMP is told to sleep: idle threads
// would spin on cores that the next computation needs.
static inline void need_cpu_backend(void) {
    char message[300] = "";
    setenv("OMP_WAIT_POLICY", "passive", 0);
    if (ggc_load_backends(getenv("GGC_LIB_DIR"), message, sizeof message) != GGC_OK) {
        test_skip("no CPU backend module (%s); set GGC_LIB_DIR to its folder", message);
    }
}
