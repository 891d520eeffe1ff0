// Plans at the limits: very many units, the form of the arrays, what is refused, what is no
// schedule.
#include <math.h>

#include "plan_cases.h"

//
// Size
//

// Minimum path cover needs memory for every pair; beyond its bound it says so.
static void too_many_units_for_a_path_cover(void) {
    for (uint32_t i = 0; i <= 32768; i++) {
        unit();
    }
    const struct ggc_units view = test_view(&units);
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.strategy = GGC_STRATEGY_COVER;
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&view, &params, &plan), GGC_E_CAPACITY);
    CHECK(plan == NULL);
    params.strategy = GGC_STRATEGY_LIST;
    CHECK_STATUS(ggc_plan_new(&view, &params, &plan), GGC_OK);
    ggc_plan_free(plan);
}

static uint32_t many;  // 10,000, or what GGC_TEST_SCALE makes of it

// No recursion may go as deep as this.
static void long_chain(void) {
    make_chain(many);
    check_plans(many);
}

static void wide(void) {
    for (uint64_t i = 0; i < many; i++) {
        unit();
        reads(1, 0, 8);
        writes(0, 8 * i, 8 * i + 8);
    }
    unit();
    reads(0, 0, 8 * (uint64_t) many);
    check_plans(2);
}

// The same bytes again and again, in pieces of every size: pieces must not pile up.
static void much_reuse(void) {
    struct test_rng rng = test_rng(5, 0);
    for (uint32_t i = 0; i < many / 3; i++) {
        unit();
        const uint64_t a = test_below(&rng, 4000), b = test_below(&rng, 4000);
        reads(0, a, a + test_below(&rng, 200));
        writes(0, b, b + test_below(&rng, 200));
    }
    const struct ggc_units view = test_view(&units);
    for (int i = 0; i < N_STRATEGIES; i++) {
        struct ggc_plan * plan = plan_with(strategies[i], 4);
        const struct ggc_schedule s = ggc_plan_schedule(plan);
        CHECK_STATUS(ggc_verify_schedule(&view, &s, NULL), GGC_OK);
        CHECK_STATUS(ggc_verify_phases(&view, ggc_plan_phases(plan), NULL), GGC_OK);
        ggc_plan_free(plan);
    }
}

//
// The form of a plan
//

static void many_random_units(uint64_t seed) {
    struct test_rng rng = test_rng(seed, 0);
    do {
        test_random_units(&rng, 300, &units);
    } while (units.n_units < 100);
}

static void waits_name_earlier_units(void) {
    for (uint64_t seed = 1; seed < 20; seed++) {
        many_random_units(seed);
        for (int i = 0; i < N_STRATEGIES; i++) {
            struct ggc_plan * plan = plan_with(strategies[i], 5);
            const struct ggc_schedule s = ggc_plan_schedule(plan);
            uint32_t * place = test_alloc(s.n_units * sizeof *place);
            for (uint32_t k = 0; k < s.n_units; k++) {
                CHECK(s.order[k] < s.n_units && s.stream[k] < s.n_streams);
                place[s.order[k]] = k;
            }
            for (uint32_t u = 0; u < s.n_units; u++) {
                CHECK(s.order[place[u]] == u && s.wait_begin[u] <= s.wait_begin[u + 1]);
                for (uint32_t w = s.wait_begin[u]; w < s.wait_begin[u + 1]; w++) {
                    CHECK(place[s.waits[w]] < place[u]);
                    CHECK_MSG(s.stream[s.waits[w]] != s.stream[u], "a wait for the own stream");
                }
            }
            free(place);
            ggc_plan_free(plan);
        }
    }
}

static void deps_outside_the_plan(void) {
    make_chain(50);
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 2);
    const uint32_t outside[] = {50, 51, GGC_NONE};
    for (int i = 0; i < 3; i++) {
        uint32_t n = 99;
        CHECK(ggc_plan_deps(plan, outside[i], &n) == NULL);
        CHECK_EQ(n, 0);
    }
    ggc_plan_free(plan);
}

// The accesses of the first unit are not the first of the array: refused by all, or right.
static void accesses_in_the_middle_of_an_array(void) {
    const struct ggc_access all[] = {
        {.mode = 99, .run = 1, .count = 1},  // nobody's
        {.mode = GGC_WRITE, .run = 8, .count = 1},
        {.mode = GGC_READ, .run = 8, .count = 1},
    };
    const uint32_t begin[] = {1, 2, 3}, phase[] = {0, 0};
    const struct ggc_units view = {.n_units = 2, .access_begin = begin, .accesses = all};
    struct ggc_plan * plan = NULL;
    struct ggc_conflict c = {0};
    const enum ggc_status status = ggc_plan_new(&view, NULL, &plan);
    const bool right = status == GGC_OK;
    CHECK_STATUS(status, right ? GGC_OK : GGC_E_INVALID);
    CHECK(!right || ggc_plan_get_stats(plan).n_phases == 2);
    CHECK_STATUS(ggc_verify_phases(&view, phase, NULL), right ? GGC_E_RACE : GGC_E_INVALID);
    CHECK_STATUS(ggc_explain(&view, 0, 1, &c), right ? GGC_OK : GGC_E_INVALID);
    CHECK(!right || (c.access_a == 1 && c.access_b == 2 && c.begin == 0 && c.end == 8));
    ggc_plan_free(plan);
}

//
// What is refused
//

static void check_params(const struct ggc_plan_params * params, enum ggc_status expected) {
    const struct ggc_units view = test_view(&units);
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&view, params, &plan), expected);
    CHECK((plan != NULL) == (expected == GGC_OK));
    ggc_plan_free(plan);
}

static void parameter_limits(void) {
    make_diamond();
    check_params(NULL, GGC_OK);
    struct ggc_plan_params params, defaults;
    memset(&params, 0xff, sizeof params);
    ggc_plan_params_init(&params);
    CHECK(params.n_streams == 2 && params.strategy == GGC_STRATEGY_LIST);
    CHECK(params.wait_cost == 2 && params.allocator == NULL);
    defaults = params;
    check_params(&params, GGC_OK);
    params.n_streams = 0;
    check_params(&params, GGC_E_INVALID);
    params.n_streams = GGC_MAX_STREAMS;
    check_params(&params, GGC_OK);
    params.n_streams = GGC_MAX_STREAMS + 1;
    check_params(&params, GGC_E_INVALID);
    params.n_streams = UINT32_MAX;
    check_params(&params, GGC_E_INVALID);
    params = defaults;
    params.strategy = (enum ggc_strategy) 99;
    check_params(&params, GGC_E_INVALID);
}

static void nothing_given(void) {
    make_diamond();
    const struct ggc_units view = test_view(&units);
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(NULL, NULL, &plan), GGC_E_INVALID);
    CHECK(plan == NULL);
    CHECK_STATUS(ggc_plan_new(&view, NULL, NULL), GGC_E_INVALID);
    ggc_plan_free(NULL);
}

// Costs that are no numbers of microseconds: refused, or harmless; never a wrong plan.
static void strange_costs(void) {
    const double strange[] = {NAN, INFINITY, -INFINITY, -1, 1e308};
    for (int i = 0; i < 5 * N_STRATEGIES; i++) {
        test_units_clear(&units);
        make_diamond();
        test_cost(&units, strange[i % 5]);
        units.cost[1] = strange[i % 5];
        const struct ggc_units view = test_view(&units);
        struct ggc_plan_params params;
        ggc_plan_params_init(&params);
        params.strategy = strategies[i / 5];
        params.wait_cost = i % 2 ? 2 : strange[i % 5];
        struct ggc_plan * plan = NULL;
        const enum ggc_status status = ggc_plan_new(&view, &params, &plan);
        CHECK(status == GGC_OK || status == GGC_E_INVALID);
        if (status == GGC_OK) {
            const struct ggc_schedule s = ggc_plan_schedule(plan);
            CHECK_STATUS(ggc_verify_schedule(&view, &s, NULL), GGC_OK);
        }
        ggc_plan_free(plan);
    }
}

static void access_lists_that_go_backwards(void) {
    make_diamond();
    units.begin[2] = units.begin[1] - 1;
    const struct ggc_units view = test_view(&units);
    struct ggc_plan * plan = NULL;
    struct ggc_conflict c;
    CHECK_STATUS(ggc_plan_new(&view, NULL, &plan), GGC_E_INVALID);
    CHECK_STATUS(ggc_verify_phases(&view, (const uint32_t[]) {0, 1, 2, 3}, &c), GGC_E_INVALID);
}

// Arrays that are no schedule of a diamond (0; 1 and 2; 3).
static void no_schedules(void) {
    make_diamond();
    const struct ggc_units view = test_view(&units);
    struct ggc_conflict race, before;
    memset(&race, 0x5a, sizeof race);
    before = race;
    const struct {
        uint32_t n_units, n_streams, order[4], stream[4], wait_begin[5], waits[2];
        enum ggc_status expected;
    } cases[] = {
        {4, 2, {0, 1, 2, 3}, {0, 0, 1, 0}, {0, 0, 0, 1, 2}, {0, 2}, GGC_OK},
        {4, 2, {0, 2, 1, 3}, {0, 0, 1, 0}, {0, 0, 0, 1, 2}, {0, 2}, GGC_OK},
        {3, 2, {0, 1, 2, 3}, {0, 0, 1, 0}, {0, 0, 0, 1, 2}, {0, 2}, GGC_E_INVALID},
        {4, 0, {0, 1, 2, 3}, {0, 0, 0, 0}, {0, 0, 0, 0, 0}, {0, 0}, GGC_E_INVALID},
        {4, 2, {0, 1, 2, 2}, {0, 0, 1, 0}, {0, 0, 0, 1, 2}, {0, 2}, GGC_E_INVALID},
        {4, 2, {0, 1, 2, 4}, {0, 0, 1, 0}, {0, 0, 0, 1, 2}, {0, 2}, GGC_E_INVALID},
        {4, 2, {0, 1, 2, GGC_NONE}, {0, 0, 1, 0}, {0, 0, 0, 1, 2}, {0, 2}, GGC_E_INVALID},
        {4, 2, {0, 1, 2, 3}, {0, 0, 2, 0}, {0, 0, 0, 1, 2}, {0, 2}, GGC_E_INVALID},
        {4, 2, {0, 1, 2, 3}, {0, 0, GGC_NONE, 0}, {0, 0, 0, 1, 2}, {0, 2}, GGC_E_INVALID},
        {4, 2, {0, 1, 2, 3}, {0, 0, 1, 0}, {0, 0, 0, 1, 2}, {3, 2}, GGC_E_INVALID},  // later
        {4, 2, {0, 1, 2, 3}, {0, 0, 1, 0}, {0, 0, 0, 1, 2}, {2, 2}, GGC_E_INVALID},  // itself
        {4, 2, {0, 1, 2, 3}, {0, 0, 1, 0}, {0, 0, 0, 1, 2}, {4, 2}, GGC_E_INVALID},  // nobody
        {4, 2, {0, 1, 2, 3}, {0, 0, 1, 0}, {0, 0, 1, 0, 2}, {0, 2}, GGC_E_INVALID},  // backwards
        {4, 2, {0, 1, 2, 3}, {0, 0, 1, 0}, {0, 0, 0, 0, 1}, {2, 0}, GGC_E_RACE},
        {4, 2, {0, 1, 2, 3}, {0, 0, 1, 0}, {0, 0, 0, 1, 1}, {0, 0}, GGC_E_RACE},
        {4, 1, {0, 1, 3, 2}, {0, 0, 0, 0}, {0, 0, 0, 0, 0}, {0, 0}, GGC_E_RACE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case("no_schedules %zu", i);
        const struct ggc_schedule s = {cases[i].n_units, cases[i].n_streams,  cases[i].order,
                                       cases[i].stream,  cases[i].wait_begin, cases[i].waits};
        CHECK_STATUS(ggc_verify_schedule(&view, &s, &race), cases[i].expected);
        if (cases[i].expected == GGC_E_INVALID) {
            CHECK_MSG(memcmp(&race, &before, sizeof race) == 0, "*race was changed");
        }
        race = before;
    }
    const struct ggc_schedule none = {0};
    CHECK_STATUS(ggc_verify_schedule(&view, NULL, NULL), GGC_E_INVALID);
    CHECK_STATUS(ggc_verify_schedule(NULL, &none, NULL), GGC_E_INVALID);
    CHECK_STATUS(ggc_verify_schedule(&view, &none, NULL), GGC_E_INVALID);
    CHECK_STATUS(ggc_verify_phases(&view, NULL, NULL), GGC_E_INVALID);
    CHECK_STATUS(ggc_verify_phases(NULL, (const uint32_t[]) {0}, NULL), GGC_E_INVALID);
}

static void names(void) {
    for (int i = -2; i < 40; i++) {
        CHECK(ggc_status_string((enum ggc_status) i) != NULL);
        CHECK(ggc_hazard_string((enum ggc_hazard) i) != NULL);
    }
    for (int i = 0; i <= GGC_E_ASSERT; i++) {
        for (int j = 0; j < i; j++) {
            CHECK(strcmp(ggc_status_string((enum ggc_status) i),
                         ggc_status_string((enum ggc_status) j)) != 0);
        }
    }
}

#define CASE(name) {#name, name}
static const struct {
    const char * name;
    void (*run)(void);
} cases[] = {
    CASE(too_many_units_for_a_path_cover),
    CASE(long_chain),
    CASE(wide),
    CASE(much_reuse),
    CASE(waits_name_earlier_units),
    CASE(deps_outside_the_plan),
    CASE(accesses_in_the_middle_of_an_array),
    CASE(parameter_limits),
    CASE(nothing_given),
    CASE(strange_costs),
    CASE(access_lists_that_go_backwards),
    CASE(no_schedules),
    CASE(names),
};

int main(int argc, char ** argv) {
    many = (uint32_t) test_begin(argc, argv, 0, 10000).iterations;
    const size_t n = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < n; i++) {
        test_case("%s", cases[i].name);
        test_units_init(&units);
        cases[i].run();
        test_units_free(&units);
    }
    return test_passed("%zu cases", n);
}
