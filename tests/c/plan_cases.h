// What the tests of named plans share: the units of the case that runs, and what every plan of them
// must be.
#pragma once

#include <stdlib.h>
#include <string.h>

#include "support.h"

static struct test_units units;  // of the case that runs

#define N_STRATEGIES 4
static const enum ggc_strategy strategies[N_STRATEGIES] = {GGC_STRATEGY_LIST, GGC_STRATEGY_SERIAL,
                                                           GGC_STRATEGY_LEVELS, GGC_STRATEGY_COVER};

static inline void reads(uint32_t buffer, uint64_t begin, uint64_t end) {
    test_read(&units, buffer, begin, end);
}

static inline void writes(uint32_t buffer, uint64_t begin, uint64_t end) {
    test_write(&units, buffer, begin, end);
}

static inline uint32_t unit(void) {
    return test_unit(&units);
}

// A unit that reads [a, a+8) and writes [b, b+8) of buffer 0.
static inline uint32_t step(uint64_t a, uint64_t b) {
    const uint32_t u = unit();
    reads(0, a, a + 8);
    writes(0, b, b + 8);
    return u;
}

static inline struct ggc_plan * plan_with(enum ggc_strategy strategy, uint32_t n_streams) {
    const struct ggc_units view = test_view(&units);
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.strategy = strategy;
    params.n_streams = n_streams;
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&view, &params, &plan), GGC_OK);
    return plan;
}

// Every strategy on 1, 2, 3 and 8 streams: right by the verifiers, and as many phases as told.
static inline void check_plans(uint32_t n_phases) {
    static const uint32_t streams[] = {1, 2, 3, 8, GGC_MAX_STREAMS};
    const struct ggc_units view = test_view(&units);
    for (int i = 0; i < 5 * N_STRATEGIES; i++) {
        struct ggc_plan * plan = plan_with(strategies[i / 5], streams[i % 5]);
        const struct ggc_schedule s = ggc_plan_schedule(plan);
        CHECK_STATUS(ggc_verify_schedule(&view, &s, NULL), GGC_OK);
        CHECK_STATUS(ggc_verify_phases(&view, ggc_plan_phases(plan), NULL), GGC_OK);
        CHECK_EQ(ggc_plan_get_stats(plan).n_phases, n_phases);
        CHECK(s.n_streams <= streams[i % 5]);
        ggc_plan_free(plan);
    }
}

static inline bool reaches(const struct ggc_plan * plan, uint32_t from, uint32_t to) {
    uint32_t n = 0;
    const uint32_t * deps = ggc_plan_deps(plan, to, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (deps[i] == from || (deps[i] > from && reaches(plan, from, deps[i]))) {
            return true;
        }
    }
    return false;
}

static inline bool contains(const uint32_t * values, uint32_t n, uint32_t value) {
    uint32_t i = 0;
    while (i < n && values[i] != value) {
        i++;
    }
    return i < n;
}

// The dependences of a unit are those given (-1 at the end), and no others but such as follow from
// them: the planner may name a conflict that another one hides.
static inline void check_deps(uint32_t u, const int * expected) {
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 2);
    uint32_t n = 0, n_expected = 0;
    const uint32_t * deps = ggc_plan_deps(plan, u, &n);
    for (; expected[n_expected] >= 0; n_expected++) {
        CHECK_MSG(contains(deps, n, (uint32_t) expected[n_expected]),
                  "unit %u does not depend on unit %d", u, expected[n_expected]);
    }
    for (uint32_t i = 0; i < n; i++) {
        bool implied = false;
        for (uint32_t j = 0; j < n_expected; j++) {
            const uint32_t e = (uint32_t) expected[j];
            implied = implied || e == deps[i] || (e > deps[i] && reaches(plan, deps[i], e));
        }
        CHECK_MSG(implied, "unit %u depends on unit %u", u, deps[i]);
    }
    ggc_plan_free(plan);
}

#define DEPS(u, ...) check_deps(u, (const int[]) {__VA_ARGS__, -1})
#define NO_DEPS(u) check_deps(u, (const int[]) {-1})

// 0; 1 and 2 from it; 3 from both.
static inline void make_diamond(void) {
    unit();
    writes(0, 0, 8);
    step(0, 8);
    step(0, 16);
    unit();
    reads(0, 8, 24);
    writes(0, 24, 32);
}

static inline void make_chain(uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        step(8 * i, 8 * i + 8);
    }
}
