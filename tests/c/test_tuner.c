// The choice among ways of computing, with made-up times.
#include "dispatch/tuner.h"
#include "support.h"

// Computes until the choice is made; returns how many computations that took.
static uint32_t run(struct tuner * tuner, const double * microseconds) {
    uint32_t n = 0;
    for (; !tuner->settled; n++) {
        CHECK_MSG(n < 5000, "never settles");
        tuner_note(tuner, microseconds[tuner->current]);
    }
    return n;
}

static uint32_t chosen(const double * microseconds, uint32_t n_ways) {
    struct tuner tuner;
    tuner_init(&tuner, n_ways, 0.97);
    run(&tuner, microseconds);
    return tuner.current;
}

static void one_way_is_no_choice(void) {
    struct tuner tuner;
    tuner_init(&tuner, 1, 0.97);
    CHECK(tuner.settled && tuner.current == 0);
    tuner_note(&tuner, 5);
    CHECK(tuner.settled && tuner.current == 0 && tuner_median(&tuner, 0) == 0);
}

static void the_fastest_is_chosen(void) {
    for (uint32_t best = 0; best < 4; best++) {
        double times[4] = {100, 100, 100, 100};
        times[best] = 50;
        CHECK_EQ(chosen(times, 4), best);
        for (int w = 0; w < 4; w++) {
            times[w] *= 1000;  // milliseconds: few computations a turn
        }
        CHECK_EQ(chosen(times, 4), best);
    }
}

// A gain within the noise is none: the first way stays.
static void a_later_way_must_be_worth_it(void) {
    CHECK_EQ(chosen((const double[]) {100, 98}, 2), 0);
    CHECK_EQ(chosen((const double[]) {100, 96}, 2), 1);
    CHECK_EQ(chosen((const double[]) {100, 96, 95}, 3), 1);
    CHECK_EQ(chosen((const double[]) {100, 96, 92}, 3), 2);
}

static void hopeless_ways_are_tried_once(void) {
    struct tuner tuner;
    const double times[] = {10000, 12500, 9000};
    tuner_init(&tuner, 3, 0.97);
    run(&tuner, times);
    CHECK_EQ(tuner.current, 2);
    CHECK(tuner.ways[1].dropped);
    CHECK_EQ(tuner.ways[1].n_times * 3, tuner.ways[0].n_times);
    CHECK_EQ(tuner.ways[0].n_times, tuner.ways[2].n_times);
}

// What is not to be had takes no turns, and what was found of the others counts.
static void ways_that_are_not_to_be_had(void) {
    for (uint32_t n_dropped = 0; n_dropped <= 3; n_dropped++) {
        struct tuner tuner;
        const double times[] = {10000, 7000, 6000, 5000};
        tuner_init(&tuner, 4, 0.97);
        for (int n = 0; !tuner.settled; n++) {
            CHECK_MSG(n < 500, "never settles");
            if (tuner.current >= 4 - n_dropped) {
                tuner_drop(&tuner, tuner.current);
            } else {
                tuner_note(&tuner, times[tuner.current]);
            }
        }
        CHECK_EQ(tuner.current, 3 - n_dropped);
        for (uint32_t w = 0; w < 4; w++) {
            CHECK_EQ(tuner_median(&tuner, w), w < 4 - n_dropped ? times[w] : 0);
        }
    }
    struct tuner tuner;
    tuner_init(&tuner, 3, 0.97);
    tuner_drop(&tuner, 0);
    tuner_drop(&tuner, 2);  // before its turn
    CHECK(!tuner.settled && tuner.current == 0 && !tuner.ways[0].dropped);
    run(&tuner, (const double[]) {100, 50, 10});
    CHECK(tuner.current == 1 && tuner.ways[2].n_times == 0);
}

// A way that was dropped is no measure for the others: the machine may have become slower.
static void dropped_ways_are_no_measure(void) {
    struct tuner tuner;
    double times[] = {10000, 1000, 1300};
    tuner_init(&tuner, 3, 0.97);
    while (tuner.round == 0) {
        tuner_note(&tuner, times[tuner.current]);
    }
    CHECK(tuner.ways[2].dropped);
    times[0] = 2000, times[1] = 1700;
    run(&tuner, times);
    CHECK(tuner.current == 1 && !tuner.ways[1].dropped);
}

// A first way that is slower by far still is what the others are compared with.
static void first_way_is_never_dropped(void) {
    struct tuner tuner;
    const double times[] = {10000, 1000};
    tuner_init(&tuner, 2, 0.97);
    run(&tuner, times);
    CHECK_EQ(tuner.current, 1);
    CHECK(!tuner.ways[0].dropped);
}

// What a way finds when its turn begins is the previous one's doing.
static void beginnings_of_turns_do_not_count(void) {
    struct tuner tuner;
    tuner_init(&tuner, 2, 0.97);
    uint32_t last = UINT32_MAX;
    double slow = 0;
    for (int n = 0; !tuner.settled && n < 5000; n++) {
        slow = tuner.current != last ? 5000 : 0;
        last = tuner.current;
        tuner_note(&tuner, slow + (tuner.current == 0 ? 100 : 90));
    }
    CHECK(tuner.settled && tuner.current == 1);
    CHECK(tuner_median(&tuner, 0) == 100 && tuner_median(&tuner, 1) == 90);
}

static void single_outliers_do_not_decide(void) {
    struct tuner tuner;
    tuner_init(&tuner, 2, 0.97);
    for (int n = 0; !tuner.settled; n++) {
        const double outlier = n % 7 == 3 ? 50000 : 0;
        tuner_note(&tuner, outlier + (tuner.current == 0 ? 1000 : 800));
    }
    CHECK_EQ(tuner.current, 1);
}

// What a way costs to begin with does not count against it.
static void the_first_computations_do_not_count(void) {
    struct tuner tuner;
    uint32_t n[2] = {0};
    tuner_init(&tuner, 2, 0.97);
    while (!tuner.settled) {
        const uint32_t way = tuner.current;
        const bool begins = way == 1 && n[1] < 2;  // issued, then captured
        n[way]++;
        tuner_note(&tuner, begins ? 20000 : way == 1 ? 1000 : 2000);
    }
    CHECK_EQ(tuner.current, 1);
}

static void it_does_not_take_long(void) {
    static const double scale[] = {1, 10, 100, 1000, 100000};
    for (int i = 0; i < 5; i++) {
        struct tuner tuner;
        double times[TUNER_MAX_WAYS];
        for (uint32_t w = 0; w < TUNER_MAX_WAYS; w++) {
            times[w] = scale[i];
        }
        tuner_init(&tuner, TUNER_MAX_WAYS, 0.97);
        CHECK(run(&tuner, times) <= 3 * TUNER_MAX_WAYS * 20);
        for (uint32_t w = 0; w < TUNER_MAX_WAYS; w++) {
            CHECK(tuner.ways[w].n_times >= 6 && tuner.ways[w].n_times <= TUNER_MAX_TIMES);
        }
    }
}

// Whatever the times, it settles on a way that is not clearly slower than another.
static void random_times(struct test_rng * rng) {
    double times[TUNER_MAX_WAYS] = {0};
    const uint32_t n = test_range(rng, 1, TUNER_MAX_WAYS);
    double best = 1e9;
    for (uint32_t w = 0; w < n; w++) {
        times[w] = 1 + test_below(rng, test_chance(rng, 0.5) ? 100 : 100000);
        best = times[w] < best ? times[w] : best;
    }
    const uint32_t w = chosen(times, n);
    CHECK_MSG(times[w] * 0.97 * 0.97 <= best || n == 1, "chose %g, best %g", times[w], best);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 2000);
    one_way_is_no_choice();
    the_fastest_is_chosen();
    a_later_way_must_be_worth_it();
    hopeless_ways_are_tried_once();
    ways_that_are_not_to_be_had();
    dropped_ways_are_no_measure();
    first_way_is_never_dropped();
    beginnings_of_turns_do_not_count();
    single_outliers_do_not_decide();
    the_first_computations_do_not_count();
    it_does_not_take_long();
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        struct test_rng rng = test_rng(options.seed, i);
        test_case("random times %llu", (unsigned long long) i);
        random_times(&rng);
    }
    return test_passed("11 cases, %llu random", (unsigned long long) options.iterations);
}
