// Every allocation of ggc_plan_new fails in turn, alone and with all that follow: a clean status,
// nothing visible changed, nothing leaked, and the next call succeeds.
#include "support.h"

#include <string.h>

struct counts {
    uint64_t plans, failures;
};

static void check_same_plan(const struct ggc_plan * a, const struct ggc_plan * b) {
    const struct ggc_schedule s = ggc_plan_schedule(a), t = ggc_plan_schedule(b);
    const size_t n = s.n_units * sizeof(uint32_t);
    CHECK_EQ(s.n_units, t.n_units);
    CHECK_EQ(s.n_streams, t.n_streams);
    CHECK(n == 0 || memcmp(s.order, t.order, n) == 0);
    CHECK(n == 0 || memcmp(s.stream, t.stream, n) == 0);
    CHECK(n == 0 || memcmp(ggc_plan_phases(a), ggc_plan_phases(b), n) == 0);
    CHECK(n == 0 || memcmp(s.wait_begin, t.wait_begin, n + sizeof(uint32_t)) == 0);
    for (uint32_t i = 0; n && i < s.wait_begin[s.n_units]; i++) {
        CHECK_EQ(s.waits[i], t.waits[i]);
    }
}

static void fail_once(const struct ggc_units * units, struct ggc_plan_params * params,
                      struct test_heap * heap, uint64_t at, bool after) {
    test_heap_init(heap);
    heap->fail_at = at;
    heap->fail_after = after;
    struct ggc_plan * const untouched = (struct ggc_plan *) (void *) heap;
    struct ggc_plan * plan = untouched;
    CHECK_STATUS(ggc_plan_new(units, params, &plan), GGC_E_NOMEM);
    CHECK_MSG(plan == untouched || plan == NULL, "a failed call made a plan");
    CHECK(heap->n_failed >= 1);
    CHECK_MSG(heap->live_blocks == 0, "failing at %llu leaks %llu blocks, %llu bytes",
              (unsigned long long) at, (unsigned long long) heap->live_blocks,
              (unsigned long long) heap->live_bytes);
}

static void fail_everywhere(const struct ggc_units * units, uint32_t streams,
                            enum ggc_strategy strategy, struct counts * counts) {
    struct test_heap heap, failing;
    test_heap_init(&heap);
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.n_streams = streams;
    params.strategy = strategy;
    params.allocator = &heap.allocator;
    struct ggc_plan * reference = NULL;
    CHECK_STATUS(ggc_plan_new(units, &params, &reference), GGC_OK);
    const uint64_t calls = heap.n_calls;
    CHECK_MSG(calls > 0, "the allocator was never asked");
    params.allocator = &failing.allocator;
    for (uint64_t at = 1; at <= calls; at++) {
        fail_once(units, &params, &failing, at, false);
        fail_once(units, &params, &failing, at, true);
        counts->failures += 2;
    }
    test_heap_init(&failing);
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(units, &params, &plan), GGC_OK);
    CHECK_EQ(failing.n_calls, calls);
    check_same_plan(plan, reference);
    ggc_plan_free(plan);
    CHECK_EQ(failing.live_blocks, 0);
    ggc_plan_free(reference);
    CHECK_EQ(heap.live_blocks, 0);
    counts->plans++;
}

// What is refused for its arguments must not leak either.
static void invalid_input_leaks_nothing(void) {
    struct test_units units;
    test_units_init(&units);
    for (int i = 0; i < 40; i++) {
        test_unit(&units);
        test_write(&units, 0, 0, 8);
    }
    test_access(&units, (struct ggc_access) {.run = 8, .stride = 4, .count = 2, .mode = GGC_READ});
    struct test_heap heap;
    test_heap_init(&heap);
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.allocator = &heap.allocator;
    const struct ggc_units view = test_view(&units);
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&view, &params, &plan), GGC_E_INVALID);
    CHECK_EQ(heap.live_blocks, 0);
    test_units_free(&units);
}

static void every_strategy(struct test_units * units, struct test_rng * rng,
                           struct counts * counts) {
    const struct ggc_units view = test_view(units);
    for (int s = GGC_STRATEGY_LIST; s <= GGC_STRATEGY_COVER; s++) {
        fail_everywhere(&view, test_range(rng, 1, 8), (enum ggc_strategy) s, counts);
    }
}

// Growing tables: many accesses, many buffers, many pieces of one buffer.
static void large_units(struct test_units * units, struct test_rng * rng) {
    test_units_clear(units);
    for (uint32_t i = 0; i < 250; i++) {
        test_unit(units);
        test_write(units, i % 100, test_below(rng, 1000), 1000 + i);
        test_read(units, 200, test_below(rng, 5000), 5000 + i);
        test_access(units, (struct ggc_access) {.offset = i,
                                                .run = 1,
                                                .stride = 7,
                                                .count = 900,
                                                .buffer = 300,
                                                .mode = 1 + i % 2});
    }
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 300);
    struct test_rng rng = test_rng(options.seed, 0);
    struct counts counts = {0, 0};
    struct test_units units;
    test_units_init(&units);
    test_case("no units");
    every_strategy(&units, &rng, &counts);
    test_case("invalid input");
    invalid_input_leaks_nothing();
    test_case("large");
    large_units(&units, &rng);
    every_strategy(&units, &rng, &counts);
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        test_case("random graph %llu", (unsigned long long) i);
        rng = test_rng(options.seed, i);
        test_random_units(&rng, i % 10 == 0 ? 200 : 20, &units);
        every_strategy(&units, &rng, &counts);
    }
    test_units_free(&units);
    return test_passed("%llu plans, %llu allocation failures", (unsigned long long) counts.plans,
                       (unsigned long long) counts.failures);
}
