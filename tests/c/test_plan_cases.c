// Plans of small, named cases: what the planner must find, and what it must refuse.
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct test_units units;  // of the case that runs

#define N_STRATEGIES 4
static const enum ggc_strategy strategies[N_STRATEGIES] = {
    GGC_STRATEGY_LIST, GGC_STRATEGY_SERIAL, GGC_STRATEGY_LEVELS, GGC_STRATEGY_COVER};

static void reads(uint32_t buffer, uint64_t begin, uint64_t end) {
    test_read(&units, buffer, begin, end);
}

static void writes(uint32_t buffer, uint64_t begin, uint64_t end) {
    test_write(&units, buffer, begin, end);
}

static uint32_t unit(void) { return test_unit(&units); }

// A unit that reads [a, a+8) and writes [b, b+8) of buffer 0.
static uint32_t step(uint64_t a, uint64_t b) {
    const uint32_t u = unit();
    reads(0, a, a + 8);
    writes(0, b, b + 8);
    return u;
}

static struct ggc_plan * plan_with(enum ggc_strategy strategy, uint32_t n_streams) {
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
static void check_plans(uint32_t n_phases) {
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

static bool reaches(const struct ggc_plan * plan, uint32_t from, uint32_t to) {
    uint32_t n = 0;
    const uint32_t * deps = ggc_plan_deps(plan, to, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (deps[i] == from || (deps[i] > from && reaches(plan, from, deps[i]))) {
            return true;
        }
    }
    return false;
}

static bool contains(const uint32_t * values, uint32_t n, uint32_t value) {
    uint32_t i = 0;
    while (i < n && values[i] != value) {
        i++;
    }
    return i < n;
}

// The dependences of a unit are those given (-1 at the end), and no others but such as follow from
// them: the planner may name a conflict that another one hides.
static void check_deps(uint32_t u, const int * expected) {
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

#define DEPS(u, ...) check_deps(u, (const int[]){__VA_ARGS__, -1})
#define NO_DEPS(u) check_deps(u, (const int[]){-1})

//
// Shapes
//

static void no_units(void) {
    check_plans(0);
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 2);
    const struct ggc_schedule s = ggc_plan_schedule(plan);
    const struct ggc_plan_stats stats = ggc_plan_get_stats(plan);
    CHECK(s.n_units == 0 && stats.n_units == 0 && stats.width == 0 && stats.n_streams == 0);
    CHECK(stats.n_deps == 0 && stats.n_waits == 0 && stats.cost == 0 && stats.critical == 0);
    ggc_plan_free(plan);
}

static void one_unit(void) {
    unit();
    writes(0, 0, 8);
    check_plans(1);
    NO_DEPS(0);
}

static void units_that_touch_nothing(void) {
    for (int i = 0; i < 20; i++) {
        unit();
    }
    check_plans(1);
}

static void all_independent(void) {
    for (uint32_t i = 0; i < 100; i++) {
        unit();
        writes(i % 3, 8 * i, 8 * i + 8);
    }
    check_plans(1);
    for (int i = 0; i < 3; i += 2) {
        struct ggc_plan * plan = plan_with(strategies[i], 4);
        const struct ggc_plan_stats stats = ggc_plan_get_stats(plan);
        CHECK_EQ(stats.width, 100);
        CHECK_EQ(stats.n_streams, 4);
        CHECK_EQ(stats.n_waits, 0);
        CHECK_EQ(stats.n_deps, 0);
        ggc_plan_free(plan);
    }
}

static void chain(void) {
    for (uint64_t i = 0; i < 50; i++) {
        step(8 * i, 8 * i + 8);
    }
    check_plans(50);
    NO_DEPS(0);
    DEPS(49, 48);
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 4);
    CHECK_MSG(ggc_plan_get_stats(plan).n_waits == 0, "a chain needs no second stream");
    ggc_plan_free(plan);
}

static void two_chains(void) {
    for (uint64_t i = 0; i < 40; i++) {
        unit();
        reads((uint32_t) i % 2, 4 * i, 4 * i + 8);
        writes((uint32_t) i % 2, 4 * i + 8, 4 * i + 16);
    }
    check_plans(20);
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 2);
    CHECK_EQ(ggc_plan_get_stats(plan).n_streams, 2);
    CHECK_MSG(ggc_plan_get_stats(plan).n_waits == 0, "each chain has a stream of its own");
    ggc_plan_free(plan);
}

static void fan_out_and_in(void) {
    for (uint32_t width = 1; width <= 64; width++) {
        test_units_clear(&units);
        unit();
        writes(0, 0, 8);
        for (uint32_t i = 0; i < width; i++) {
            unit();
            reads(0, 0, 8);
            writes(1, 8 * i, 8 * i + 8);
        }
        const uint32_t join = unit();
        reads(1, 0, 8 * width);
        writes(0, 0, 8);
        check_plans(3);
        struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 4);
        uint32_t n = 0;
        ggc_plan_deps(plan, join, &n);
        CHECK(n == width || n == width + 1);  // it overwrites what the first wrote, too
        CHECK_EQ(ggc_plan_get_stats(plan).width, width);
        const uint32_t * phase = ggc_plan_phases(plan);
        CHECK(phase[0] == 0 && phase[1] == 1 && phase[width] == 1 && phase[join] == 2);
        ggc_plan_free(plan);
    }
}

static void diamond(void) {
    unit();
    writes(0, 0, 8);
    step(0, 8);
    step(0, 16);
    unit();
    reads(0, 8, 24);
    writes(0, 24, 32);
    check_plans(3);
    DEPS(1, 0);
    DEPS(2, 0);
    DEPS(3, 1, 2);
}

// A fork whose branches are far cheaper than a wait stays on one stream.
static void fork_not_worth_it(void) {
    diamond();
    for (uint32_t u = 0; u < units.n_units; u++) {
        units.cost[u] = 0.001;
    }
    units.has_cost = true;
    const struct ggc_units view = test_view(&units);
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.wait_cost = 1000;
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&view, &params, &plan), GGC_OK);
    CHECK_EQ(ggc_plan_get_stats(plan).n_waits, 0);
    CHECK_EQ(ggc_plan_get_stats(plan).n_streams, 1);
    ggc_plan_free(plan);
}

// One whose branches are dear is taken.
static void fork_worth_it(void) {
    diamond();
    for (uint32_t u = 0; u < units.n_units; u++) {
        units.cost[u] = 1000;
    }
    units.has_cost = true;
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 2);
    CHECK_EQ(ggc_plan_get_stats(plan).n_streams, 2);
    CHECK_EQ(ggc_plan_get_stats(plan).n_waits, 2);
    CHECK(ggc_plan_get_stats(plan).cost == 4000 && ggc_plan_get_stats(plan).critical == 3000);
    ggc_plan_free(plan);
}

//
// Fences
//

static void fence_between(void) {
    for (uint32_t i = 0; i < 9; i++) {
        if (i == 4) {
            test_fence(&units);
        } else {
            unit();
            writes(i, 0, 8);
        }
    }
    check_plans(3);
    DEPS(4, 0, 1, 2, 3);
    DEPS(5, 4);
    DEPS(8, 4);
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 2);
    CHECK_EQ(ggc_plan_get_stats(plan).hazards[GGC_FENCE], 8);
    ggc_plan_free(plan);
}

static void fences_in_a_row(void) {
    unit();
    for (int i = 0; i < 10; i++) {
        test_fence(&units);
    }
    unit();
    check_plans(12);
    DEPS(1, 0);
    DEPS(10, 9);
    DEPS(11, 10);
}

// A hazard across a fence is hidden by it.
static void hazard_across_a_fence(void) {
    unit();
    writes(0, 0, 8);
    test_fence(&units);
    unit();
    reads(0, 0, 8);
    check_plans(3);
    DEPS(2, 1);
}

// A fence with accesses of its own, which after it are those of a fence only.
static void fence_with_accesses(void) {
    unit();
    writes(0, 0, 8);
    test_fence(&units);
    writes(0, 0, 8);
    reads(1, 0, 8);
    unit();
    writes(1, 0, 8);
    unit();
    reads(0, 0, 8);
    check_plans(3);
    DEPS(1, 0);
    DEPS(2, 1);
    DEPS(3, 1);
}

//
// Hazards on bytes
//

static void kv_cache_write_then_read(void) {
    unit();
    writes(7, 4096, 4096 + 64);  // one row of the cache
    unit();
    reads(7, 0, 8192);  // attention, through another view
    writes(0, 0, 8);
    unit();
    writes(7, 4096 + 64, 4096 + 128);  // the next row
    unit();
    reads(7, 0, 4096);  // older rows only
    check_plans(3);
    DEPS(1, 0);
    DEPS(2, 1);
    NO_DEPS(3);
}

static void partial_write_keeps_earlier_writer(void) {
    unit();
    writes(0, 0, 100);
    unit();
    writes(0, 0, 50);
    unit();
    reads(0, 50, 100);
    unit();
    reads(0, 0, 50);
    check_plans(3);
    DEPS(1, 0);
    DEPS(2, 0);
    DEPS(3, 1);
}

static void middle_write_splits(void) {
    unit();
    writes(0, 0, 100);
    unit();
    writes(0, 40, 60);
    unit();
    reads(0, 0, 40);
    unit();
    reads(0, 60, 100);
    unit();
    reads(0, 40, 60);
    check_plans(3);
    DEPS(2, 0);
    DEPS(3, 0);
    DEPS(4, 1);
}

static void read_of_several_writers(void) {
    for (uint64_t i = 0; i < 4; i++) {
        unit();
        writes(0, 10 * i, 10 * i + 10);
    }
    unit();
    reads(0, 5, 35);
    unit();
    reads(0, 10, 30);
    check_plans(2);
    DEPS(4, 0, 1, 2, 3);
    DEPS(5, 1, 2);
}

static void reader_kept_after_partial_overwrite(void) {
    unit();
    reads(0, 0, 100);
    unit();
    writes(0, 0, 50);
    unit();
    writes(0, 50, 100);  // must still come after the reader
    check_plans(2);
    DEPS(1, 0);
    DEPS(2, 0);
}

static void readers_all_come_before_the_write(void) {
    for (int i = 0; i < 70; i++) {
        unit();
        reads(0, 0, 8);
    }
    unit();
    writes(0, 4, 5);
    check_plans(2);
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 8);
    uint32_t n = 0;
    ggc_plan_deps(plan, 70, &n);
    CHECK_EQ(n, 70);
    CHECK_EQ(ggc_plan_get_stats(plan).hazards[GGC_WAR], 70);
    ggc_plan_free(plan);
}

// The reads of one unit are forgotten once a write has come after them, not before.
static void write_after_read_across_memory_reuse(void) {
    unit();
    writes(0, 0, 64);  // tensor a
    unit();
    reads(0, 0, 64);  // b from a
    writes(0, 64, 128);
    unit();
    writes(0, 0, 64);  // tensor c where a was: must wait for b
    unit();
    reads(0, 0, 64);  // d from c
    check_plans(4);
    DEPS(2, 1);
    DEPS(3, 2);
}

// Writes in between hide older ones: the chain is enough.
static void overwritten_twice(void) {
    for (int i = 0; i < 5; i++) {
        unit();
        writes(0, 0, 8);
    }
    check_plans(5);
    DEPS(4, 3);
}

static void self_overlap_inside_one_unit(void) {
    unit();
    reads(0, 0, 64);
    writes(0, 0, 64);  // in place
    reads(0, 8, 16);
    writes(0, 4, 100);
    unit();
    writes(0, 0, 8);
    reads(0, 0, 64);
    check_plans(2);
    NO_DEPS(0);
    DEPS(1, 0);
}

static void in_place_chain_with_a_sibling_reader(void) {
    unit();
    writes(0, 0, 8);
    unit();
    reads(0, 0, 8);  // a sibling that reads the old value
    unit();
    reads(0, 0, 8);
    writes(0, 0, 8);  // in place
    unit();
    reads(0, 0, 8);
    check_plans(4);
    DEPS(2, 1);
}

static void zero_size_accesses(void) {
    unit();
    writes(0, 0, 64);
    unit();
    reads(0, 32, 32);
    test_access(&units, (struct ggc_access){.offset = 8, .run = 8, .stride = 8, .mode = GGC_WRITE});
    unit();
    writes(0, 16, 16);
    check_plans(1);
}

static void equal_offsets_in_many_buffers(void) {
    for (uint32_t i = 0; i < 300; i++) {
        unit();
        writes(i * 14316557, 0, 64);
    }
    check_plans(1);
    unit();
    reads(299 * 14316557u, 63, 64);
    DEPS(300, 299);
}

static struct ggc_access column(uint32_t mode, uint64_t offset, uint64_t run) {
    return (struct ggc_access){.offset = offset, .run = run, .stride = 96, .count = 5, .mode = mode};
}

// The norm of Q, the norm of K, and the reader of V of one fused QKV tensor run at once.
static void interleaved_stripes(void) {
    unit();
    writes(0, 0, 5 * 96);
    for (uint64_t i = 0; i < 3; i++) {
        unit();
        test_access(&units, column(GGC_READ, 32 * i, 32));
        test_access(&units, column(GGC_WRITE, 32 * i, 32));
    }
    unit();
    reads(0, 0, 5 * 96);
    check_plans(3);
    for (uint32_t i = 1; i < 4; i++) {
        DEPS(i, 0);
    }
    DEPS(4, 1, 2, 3);
}

// A strided write leaves the gaps to whom they belong.
static void stripe_keeps_the_writer_of_its_gaps(void) {
    unit();
    writes(0, 0, 5 * 96);
    unit();
    test_access(&units, column(GGC_WRITE, 0, 32));
    unit();
    reads(0, 40, 50);
    unit();
    reads(0, 20, 40);
    check_plans(3);
    DEPS(1, 0);
    DEPS(2, 0);
    DEPS(3, 0, 1);
}

//
// Phases
//

// Q and K have much to do before they are used, V has not; all three read the same norm, and stay
// in one phase, as in the example of #915.
static void projections_of_one_input_stay_together(void) {
    unit();
    writes(0, 0, 64);  // norm
    for (uint32_t i = 1; i < 4; i++) {
        unit();
        reads(0, 0, 64);
        reads(9, 64 * i, 64 * i + 64);  // weights
        writes(i, 0, 64);
    }
    for (uint32_t i = 1; i < 3; i++) {  // rope of Q and K, twice
        for (uint64_t k = 0; k < 2; k++) {
            unit();
            reads(i, 64 * k, 64 * k + 64);
            writes(i, 64 * k + 64, 64 * k + 128);
        }
    }
    unit();
    reads(1, 128, 192);
    reads(2, 128, 192);
    reads(3, 0, 64);
    check_plans(5);
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 4);
    const uint32_t * phase = ggc_plan_phases(plan);
    CHECK(phase[0] == 0 && phase[1] == 1 && phase[2] == 1 && phase[3] == 1);
    ggc_plan_free(plan);
}

static void check_overtaking(uint32_t look_ahead) {
    const struct ggc_units view = test_view(&units);
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.look_ahead = look_ahead;
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&view, &params, &plan), GGC_OK);
    const uint32_t * phase = ggc_plan_phases(plan), n_phases = ggc_plan_get_stats(plan).n_phases;
    const struct ggc_schedule schedule = ggc_plan_schedule(plan);
    CHECK_STATUS(ggc_verify_phases(&view, phase, NULL), GGC_OK);
    CHECK_STATUS(ggc_verify_schedule(&view, &schedule, NULL), GGC_OK);
    uint32_t * members = test_alloc(n_phases * sizeof *members);
    for (uint32_t u = 0; u < units.n_units; u++) {
        uint32_t overtaken = 0;
        for (uint32_t v = 0; v < u; v++) {
            overtaken += phase[v] > phase[u];
        }
        CHECK_MSG(overtaken <= look_ahead, "unit %u overtakes %u units", u, overtaken);
        CHECK(phase[u] < n_phases);
        members[phase[u]]++;
    }
    for (uint32_t p = 0; p < n_phases; p++) {
        CHECK_MSG(members[p] > 0, "phase %u of %u is empty", p, n_phases);
    }
    free(members);
    ggc_plan_free(plan);
}

static void look_ahead_bounds_overtaking(void) {
    static const uint32_t bounds[] = {1, 2, 5, 20, 100, UINT32_MAX};
    for (uint64_t seed = 1; seed < 40; seed++) {
        struct test_rng rng = test_rng(seed, 7);
        test_random_units(&rng, 150, &units);
        for (int i = 0; i < 6; i++) {
            check_overtaking(bounds[i]);
        }
    }
}

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

static void chain_of_10000(void) {
    for (uint64_t i = 0; i < 10000; i++) {
        step(8 * i, 8 * i + 8);
    }
    check_plans(10000);
}

static void wide_10000(void) {
    for (uint64_t i = 0; i < 10000; i++) {
        unit();
        reads(1, 0, 8);
        writes(0, 8 * i, 8 * i + 8);
    }
    unit();
    reads(0, 0, 80000);
    check_plans(2);
}

// The same bytes again and again, in pieces of every size: pieces must not pile up.
static void much_reuse(void) {
    struct test_rng rng = test_rng(5, 0);
    for (uint32_t i = 0; i < 3000; i++) {
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
    chain();
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
    diamond();
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
    diamond();
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
        diamond();
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
    diamond();
    units.begin[2] = units.begin[1] - 1;
    const struct ggc_units view = test_view(&units);
    struct ggc_plan * plan = NULL;
    struct ggc_conflict c;
    CHECK_STATUS(ggc_plan_new(&view, NULL, &plan), GGC_E_INVALID);
    CHECK_STATUS(ggc_verify_phases(&view, (const uint32_t[]){0, 1, 2, 3}, &c), GGC_E_INVALID);
}

// Arrays that are no schedule of a diamond (0; 1 and 2; 3).
static void no_schedules(void) {
    diamond();
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
    CHECK_STATUS(ggc_verify_phases(NULL, (const uint32_t[]){0}, NULL), GGC_E_INVALID);
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
    CASE(no_units), CASE(one_unit), CASE(units_that_touch_nothing), CASE(all_independent),
    CASE(chain), CASE(two_chains), CASE(fan_out_and_in), CASE(diamond), CASE(fork_not_worth_it),
    CASE(fork_worth_it), CASE(fence_between), CASE(fences_in_a_row), CASE(hazard_across_a_fence),
    CASE(fence_with_accesses), CASE(kv_cache_write_then_read),
    CASE(partial_write_keeps_earlier_writer), CASE(middle_write_splits),
    CASE(read_of_several_writers), CASE(reader_kept_after_partial_overwrite),
    CASE(readers_all_come_before_the_write), CASE(write_after_read_across_memory_reuse),
    CASE(overwritten_twice), CASE(self_overlap_inside_one_unit),
    CASE(in_place_chain_with_a_sibling_reader), CASE(zero_size_accesses),
    CASE(equal_offsets_in_many_buffers), CASE(interleaved_stripes),
    CASE(stripe_keeps_the_writer_of_its_gaps), CASE(projections_of_one_input_stay_together), CASE(look_ahead_bounds_overtaking), CASE(too_many_units_for_a_path_cover), CASE(chain_of_10000), CASE(wide_10000),
    CASE(much_reuse), CASE(waits_name_earlier_units), CASE(deps_outside_the_plan),
    CASE(accesses_in_the_middle_of_an_array), CASE(parameter_limits), CASE(nothing_given),
    CASE(strange_costs), CASE(access_lists_that_go_backwards), CASE(no_schedules), CASE(names),
};

int main(int argc, char ** argv) {
    test_begin(argc, argv, 0, 0);
    const size_t n = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < n; i++) {
        test_case("%s", cases[i].name);
        test_units_init(&units);
        cases[i].run();
        test_units_free(&units);
    }
    return test_passed("%zu cases", n);
}
