// Plans of small, named cases: the shapes, fences and hazards that the planner must get right.
#include "plan_cases.h"

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
    make_chain(50);
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
    make_diamond();
    check_plans(3);
    DEPS(1, 0);
    DEPS(2, 0);
    DEPS(3, 1, 2);
}

// A fork whose branches are far cheaper than a wait stays on one stream.
static void fork_not_worth_it(void) {
    make_diamond();
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
    make_diamond();
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

// A unit may be late by what the longest chain beside it is longer.
static void slack(void) {
    static const double cost[] = {1, 10, 4, 2};  // 0 forks to 1 and 2, which join in 3
    double found[4] = {-1, -1, -1, -1};
    make_diamond();
    for (uint32_t u = 0; u < units.n_units; u++) {
        units.cost[u] = cost[u];
    }
    units.has_cost = true;
    struct ggc_units view = test_view(&units);
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LIST, 2);
    CHECK_STATUS(ggc_plan_slack(plan, &view, found), GGC_OK);
    CHECK(found[0] == 0 && found[1] == 0 && found[2] == 6 && found[3] == 0);
    view.cost = NULL;  // all units cost the same
    CHECK_STATUS(ggc_plan_slack(plan, &view, found), GGC_OK);
    CHECK(found[0] == 0 && found[1] == 0 && found[2] == 0 && found[3] == 0);
    view.n_units--;
    CHECK_STATUS(ggc_plan_slack(plan, &view, found), GGC_E_INVALID);
    CHECK_STATUS(ggc_plan_slack(plan, NULL, found), GGC_E_INVALID);
    ggc_plan_free(plan);
}

// Level by level, work is balanced by cost, not by number.
static void levels_are_balanced(void) {
    static const double cost[] = {1, 1, 8, 1, 5};
    for (uint32_t i = 0; i < 5; i++) {
        unit();
        writes(0, 8 * i, 8 * i + 8);
        units.cost[i] = cost[i];
    }
    units.has_cost = true;
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LEVELS, 2);
    const struct ggc_schedule s = ggc_plan_schedule(plan);
    double load[2] = {0};
    for (uint32_t u = 0; u < 5; u++) {
        load[s.stream[u]] += cost[u];
    }
    CHECK(load[0] == 8 && load[1] == 8);
    ggc_plan_free(plan);
}

// As many chains as streams: each keeps to one, and nobody waits.
static void levels_keep_chains_together(void) {
    enum { CHAINS = 4, LENGTH = 6 };
    for (uint64_t i = 0; i < LENGTH; i++) {
        for (uint64_t c = 0; c < CHAINS; c++) {
            step(100 * c + 8 * i, 100 * c + 8 * i + 8);
        }
    }
    struct ggc_plan * plan = plan_with(GGC_STRATEGY_LEVELS, CHAINS);
    CHECK_EQ(ggc_plan_get_stats(plan).n_streams, CHAINS);
    CHECK_EQ(ggc_plan_get_stats(plan).n_waits, 0);
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
// MLX #3630: for two years only reads after writes were tracked, and gradients were wrong now and
// then.
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
    test_access(&units,
                (struct ggc_access) {.offset = 8, .run = 8, .stride = 8, .mode = GGC_WRITE});
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
    return (struct ggc_access) {
        .offset = offset, .run = run, .stride = 96, .count = 5, .mode = mode};
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
    const uint32_t *phase = ggc_plan_phases(plan), n_phases = ggc_plan_get_stats(plan).n_phases;
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

#define CASE(name) {#name, name}
static const struct {
    const char * name;
    void (*run)(void);
} cases[] = {
    CASE(no_units),
    CASE(one_unit),
    CASE(units_that_touch_nothing),
    CASE(all_independent),
    CASE(chain),
    CASE(two_chains),
    CASE(fan_out_and_in),
    CASE(diamond),
    CASE(fork_not_worth_it),
    CASE(fork_worth_it),
    CASE(slack),
    CASE(levels_are_balanced),
    CASE(levels_keep_chains_together),
    CASE(fence_between),
    CASE(fences_in_a_row),
    CASE(hazard_across_a_fence),
    CASE(fence_with_accesses),
    CASE(kv_cache_write_then_read),
    CASE(partial_write_keeps_earlier_writer),
    CASE(middle_write_splits),
    CASE(read_of_several_writers),
    CASE(reader_kept_after_partial_overwrite),
    CASE(readers_all_come_before_the_write),
    CASE(write_after_read_across_memory_reuse),
    CASE(overwritten_twice),
    CASE(self_overlap_inside_one_unit),
    CASE(in_place_chain_with_a_sibling_reader),
    CASE(zero_size_accesses),
    CASE(equal_offsets_in_many_buffers),
    CASE(interleaved_stripes),
    CASE(stripe_keeps_the_writer_of_its_gaps),
    CASE(projections_of_one_input_stay_together),
    CASE(look_ahead_bounds_overtaking),
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
