// Which bytes conflict: every decision, asked in every way that the core offers (explain, both
// verifiers, the planner), against bytes counted one by one.
#include "support.h"

#include <string.h>

//
// One question, asked of everybody
//

// Two units with one access each.
struct pair {
    struct ggc_access accesses[2];
    uint32_t begin[3];
    struct ggc_units units;
};

static void pair_init(struct pair * p, struct ggc_access a, struct ggc_access b) {
    *p = (struct pair) {.accesses = {a, b}, .begin = {0, 1, 2}};
    p->units = (struct ggc_units) {.n_units = 2, .access_begin = p->begin, .accesses = p->accesses};
}

static const uint32_t forward[2] = {0, 1}, backward[2] = {1, 0}, apart[2] = {0, 1};
static const uint32_t together[2] = {0, 0}, no_waits[3] = {0, 0, 0}, one_wait[3] = {0, 0, 1};
static const uint32_t first_unit[1] = {0};

static enum ggc_status schedule(const struct ggc_units * units, const uint32_t * order,
                                const uint32_t * stream, const uint32_t * wait_begin,
                                struct ggc_conflict * race) {
    const struct ggc_schedule s = {.n_units = 2,
                                   .n_streams = 2,
                                   .order = order,
                                   .stream = stream,
                                   .wait_begin = wait_begin,
                                   .waits = first_unit};
    return ggc_verify_schedule(units, &s, race);
}

static void check_race(const struct ggc_units * units, enum ggc_status status,
                       const struct ggc_conflict * race, bool expected) {
    CHECK_STATUS(status, expected ? GGC_E_RACE : GGC_OK);
    if (expected) {
        test_check_conflict(units, race);
    }
}

static void check_verdicts(const struct ggc_units * units, bool expected) {
    struct ggc_conflict race;
    check_race(units, schedule(units, forward, apart, no_waits, &race), &race, expected);
    check_race(units, schedule(units, backward, together, no_waits, &race), &race, expected);
    CHECK_STATUS(schedule(units, forward, together, no_waits, NULL), GGC_OK);
    CHECK_STATUS(schedule(units, forward, apart, one_wait, NULL), GGC_OK);
    check_race(units, ggc_verify_phases(units, together, &race), &race, expected);
    check_race(units, ggc_verify_phases(units, backward, &race), &race, expected);
    CHECK_STATUS(ggc_verify_phases(units, forward, NULL), GGC_OK);
}

static bool beyond_planning(const struct ggc_access * a) {
    const uint64_t limit = UINT64_C(1) << 62;
    return a->run && a->count &&
           (a->offset >= limit || a->run >= limit ||
            (a->count > 1 && a->stride >= limit / (a->count - 1)));
}

// The planner may refuse what reaches beyond 2^62; it must not get it wrong.
static void check_plan(const struct ggc_units * units, bool expected) {
    struct ggc_plan * plan = NULL;
    const enum ggc_status status = ggc_plan_new(units, NULL, &plan);
    if (beyond_planning(&units->accesses[0]) || beyond_planning(&units->accesses[1])) {
        if (status == GGC_E_INVALID) {
            CHECK(plan == NULL);
            return;
        }
    }
    CHECK_STATUS(status, GGC_OK);
    uint32_t n = 7;
    const uint32_t * deps = ggc_plan_deps(plan, 1, &n);
    CHECK_EQ(n, expected);
    CHECK(n == 0 || deps[0] == 0);
    CHECK_EQ(ggc_plan_get_stats(plan).n_phases, 1 + expected);
    ggc_plan_free(plan);
}

static void check_units(const struct ggc_units * units, bool expected) {
    struct ggc_conflict conflict;
    CHECK_STATUS(ggc_explain(units, 0, 1, &conflict), expected ? GGC_OK : GGC_E_INVALID);
    if (expected) {
        CHECK(conflict.a == 0 && conflict.b == 1);
        test_check_conflict(units, &conflict);
    }
    check_verdicts(units, expected);
    check_plan(units, expected);
}

static void check(struct ggc_access a, struct ggc_access b, bool expected) {
    struct pair p;
    pair_init(&p, a, b);
    check_units(&p.units, expected);
}

// The same in the other order of the two.
static void check_both(struct ggc_access a, struct ggc_access b, bool expected) {
    check(a, b, expected);
    check(b, a, expected);
}

static void check_invalid(struct ggc_access a, struct ggc_access b) {
    struct pair p;
    pair_init(&p, a, b);
    struct ggc_conflict race, before;
    memset(&race, 0x5a, sizeof race);
    before = race;
    struct ggc_plan * const untouched = (struct ggc_plan *) (void *) &p;
    struct ggc_plan * plan = untouched;
    CHECK_STATUS(ggc_plan_new(&p.units, NULL, &plan), GGC_E_INVALID);
    CHECK(plan == untouched || plan == NULL);
    CHECK_STATUS(ggc_explain(&p.units, 0, 1, &race), GGC_E_INVALID);
    CHECK_STATUS(schedule(&p.units, forward, apart, no_waits, &race), GGC_E_INVALID);
    CHECK_STATUS(ggc_verify_phases(&p.units, together, &race), GGC_E_INVALID);
    CHECK(memcmp(&race, &before, sizeof race) == 0);
}

static struct ggc_access stripes(uint32_t mode, uint64_t offset, uint64_t run, uint64_t stride,
                                 uint32_t count) {
    return (struct ggc_access) {
        .offset = offset, .run = run, .stride = stride, .count = count, .buffer = 3, .mode = mode};
}

static struct ggc_access range(uint32_t mode, uint64_t begin, uint64_t end) {
    return stripes(mode, begin, end - begin, 0, 1);
}

#define R GGC_READ
#define W GGC_WRITE

//
// Named cases
//

static void read_after_write(void) {
    check(range(W, 0, 8), range(R, 4, 12), true);
}
static void write_after_read(void) {
    check(range(R, 0, 8), range(W, 4, 12), true);
}
static void write_after_write(void) {
    check(range(W, 0, 8), range(W, 7, 12), true);
}
static void reads_do_not_conflict(void) {
    check(range(R, 0, 8), range(R, 0, 8), false);
}

static void hazards_are_named(void) {
    static const struct {
        uint32_t a, b;
        enum ggc_hazard hazard;
    } cases[] = {{W, R, GGC_RAW}, {R, W, GGC_WAR}, {W, W, GGC_WAW}};
    for (int i = 0; i < 3; i++) {
        struct pair p;
        pair_init(&p, range(cases[i].a, 10, 20), range(cases[i].b, 15, 30));
        struct ggc_conflict c;
        CHECK_STATUS(ggc_explain(&p.units, 0, 1, &c), GGC_OK);
        CHECK_EQ(c.hazard, cases[i].hazard);
        CHECK(c.begin == 15 && c.end == 20 && c.buffer == 3);
        CHECK(c.access_a == 0 && c.access_b == 1);
    }
}

static void ranges_that_touch(void) {
    check_both(range(W, 0, 8), range(W, 8, 16), false);
    check_both(range(W, 0, 9), range(W, 8, 16), true);
}

static void zero_size(void) {
    check_both(range(W, 4, 4), range(W, 0, 8), false);
    check_both(stripes(W, 4, 4, 4, 0), range(W, 0, 8), false);
    check_both(stripes(W, 4, 0, 8, 3), range(W, 0, 32), false);
    check_both(range(W, 4, 4), range(W, 4, 4), false);
}

static void equal_offset_in_other_buffer(void) {
    struct ggc_access a = range(W, 0, 64), b = range(W, 0, 64);
    const uint32_t buffers[] = {0, 1, 2, 4, UINT32_MAX - 1, UINT32_MAX};
    for (int i = 0; i < 6; i++) {
        b.buffer = buffers[i];
        check_both(a, b, false);
    }
    a.buffer = UINT32_MAX;
    check_both(a, b, true);
}

// One projection gives Q, K and V side by side in each row; each is then used apart.
static void interleaved_stripes_fused_qkv(void) {
    const uint64_t q = 4096, kv = 512, row = q + 2 * kv;
    const struct ggc_access views[3] = {stripes(W, 0, q, row, 7), stripes(W, q, kv, row, 7),
                                        stripes(W, q + kv, kv, row, 7)};
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            check(views[i], views[j], i == j);
        }
        check_both(views[i], range(R, 0, 7 * row), true);
        check_both(views[i], range(R, 7 * row, 8 * row), false);
    }
    check_both(stripes(W, 0, q + 1, row, 7), views[1], true);
}

static void stripes_with_different_strides(void) {
    check_both(stripes(W, 0, 1, 4, 8), stripes(W, 1, 1, 6, 5), false);  // even and odd
    check_both(stripes(W, 0, 1, 4, 8), stripes(W, 1, 1, 5, 5), true);   // 0 4 8 16, 1 6 11 16
    check_both(stripes(W, 0, 2, 6, 5), stripes(W, 2, 1, 9, 4), false);  // by the residue of 3
    check_both(stripes(W, 0, 2, 6, 5), stripes(W, 2, 2, 9, 4), true);
}

static void stripe_against_contiguous(void) {
    check_both(stripes(W, 8, 4, 16, 4), range(R, 20, 25), true);
    check_both(stripes(W, 8, 4, 16, 4), range(R, 0, 8), false);
    check_both(stripes(W, 8, 4, 16, 4), range(R, 60, 80), false);
    check_both(stripes(W, 8, 4, 16, 4), range(R, 59, 80), true);
}

static void inside_the_gap(void) {
    check_both(stripes(W, 8, 4, 16, 4), range(R, 12, 24), false);
    check_both(stripes(W, 8, 4, 16, 4), range(R, 11, 24), true);
    check_both(stripes(W, 8, 4, 16, 4), range(R, 12, 25), true);
    check_both(stripes(W, 8, 4, 16, 4), stripes(R, 12, 2, 3, 4), false);
    check_both(stripes(W, 8, 4, 16, 4), stripes(R, 12, 2, 3, 5), true);
}

static void stride_of_one_run_is_ignored(void) {
    for (uint64_t stride = 0; stride < 3; stride++) {
        check_both(stripes(W, 0, 8, stride, 1), range(R, 8, 16), false);
        check_both(stripes(W, 0, 8, stride, 1), range(R, 7, 16), true);
    }
    check_both(stripes(W, 0, 8, UINT64_MAX, 1), range(R, 8, 16), false);
}

static void stripes_without_gaps_are_a_range(void) {
    check_both(stripes(W, 0, 4, 4, 4), range(R, 16, 20), false);
    check_both(stripes(W, 0, 4, 4, 4), range(R, 15, 20), true);
    check_both(stripes(W, 0, 4, 4, 4), range(R, 4, 5), true);
}

//
// Limits
//

static void offsets_near_the_end(void) {
    const uint64_t end = UINT64_MAX;
    check_both(range(W, end - 8, end), range(R, end - 1, end), true);
    check_both(range(W, end - 8, end), range(R, 0, 8), false);
    check_both(range(W, end - 8, end), range(R, end - 16, end - 8), false);
    check_both(range(W, 0, end), range(R, end - 1, end), true);
    check_both(stripes(W, end - 100, 4, 32, 4), range(R, 0, end), true);
    check_both(stripes(W, end - 100, 4, 32, 4), range(R, end - 96, end - 68), false);
    check_both(stripes(W, 0, 1, UINT64_C(1) << 62, 3), range(R, 1, UINT64_C(1) << 62), false);
    check_both(stripes(W, 0, 1, UINT64_C(1) << 62, 3), range(R, 1, UINT64_C(1) << 63), true);
}

// Accesses that would reach past 2^64. Had the sum wrapped, they would look small and harmless.
static void accesses_that_overflow(void) {
    const struct ggc_access good = range(W, 0, 64);
    const struct ggc_access bad[] = {
        stripes(W, UINT64_MAX, 2, 0, 1),        stripes(W, UINT64_MAX - 8, 16, 0, 1),
        stripes(W, 1, UINT64_MAX, 0, 1),        stripes(W, 32, 8, UINT64_MAX / 2, 3),
        stripes(W, 0, 8, UINT64_C(1) << 63, 3), stripes(W, 0, 8, UINT64_C(1) << 33, UINT32_MAX),
        stripes(W, UINT64_MAX - 64, 8, 32, 3),  stripes(W, 5, 1, UINT64_MAX, UINT32_MAX),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_case("accesses_that_overflow %zu", i);
        check_invalid(bad[i], good);
        check_invalid(good, bad[i]);
    }
}

static void malformed_accesses(void) {
    const struct ggc_access good = range(W, 0, 64);
    const struct ggc_access bad[] = {
        stripes(W, 0, 8, 7, 2),                              // stride below run
        stripes(W, 0, 8, 0, 2),     stripes(0, 0, 8, 0, 1),  // no mode
        stripes(R | W, 0, 8, 0, 1),                          // two
        stripes(4, 0, 8, 0, 1),     stripes(UINT32_MAX, 0, 8, 0, 1),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_case("malformed_accesses %zu", i);
        check_invalid(bad[i], good);
        check_invalid(good, bad[i]);
    }
}

// Exact, and fast, also where the runs are far too many to walk over.
static void many_runs(void) {
    const uint32_t n = UINT32_MAX;
    check_both(stripes(W, 0, 1, 2, n), stripes(W, 1, 1, 2, n), false);
    check_both(stripes(W, 0, 2, 6, n), stripes(W, 2, 4, 6, n), false);
    check_both(stripes(W, 0, 2, 6, n), stripes(W, 1, 4, 6, n), true);
    check_both(stripes(W, 0, 4, 8, n), range(R, 4, 8), false);
    check_both(stripes(W, 0, 4, 8, n), range(R, UINT64_C(8) * (n - 1) + 3, UINT64_MAX), true);
    check_both(stripes(W, 0, 4, 8, n), range(R, UINT64_C(8) * (n - 1) + 4, UINT64_MAX), false);
    check_both(stripes(W, 0, 2, 6, n), stripes(W, 2, 1, 9, n), false);
    check_both(stripes(W, 0, 2, 6, n), stripes(W, 2, 2, 9, n), true);
    check_both(stripes(W, 0, 1, 1000003, n), stripes(W, 1, 1, 999983, n), true);
    // They meet once below 10^12: 649989 * 1000003 == 1 + 650002 * 999983.
    check_both(stripes(W, 0, 1, 1000003, 649990), stripes(W, 1, 1, 999983, 650003), true);
    check_both(stripes(W, 0, 1, 1000003, 649989), stripes(W, 1, 1, 999983, 650003), false);
    check_both(stripes(W, 0, 1, 1000003, 649990), stripes(W, 1, 1, 999983, 650002), false);
}

// More runs than anyone looks at one by one, against a map of the bytes.
static void long_stripes(void) {
    enum { BYTES = 1 << 15 };
    static bool map[BYTES];
    struct test_rng rng = test_rng(3, 14);
    for (int i = 0; i < 3000; i++) {
        struct ggc_access access[2];
        for (int k = 0; k < 2; k++) {
            const uint32_t run = test_range(&rng, 1, 4), stride = run + test_below(&rng, 40);
            access[k] = stripes(W, test_below(&rng, 2000), run, stride, test_range(&rng, 60, 400));
        }
        memset(map, 0, sizeof map);
        bool shared = false;
        for (int k = 0; k < 2; k++) {
            for (uint64_t j = 0; j < access[k].count * access[k].run; j++) {
                const uint64_t run = access[k].run;
                const uint64_t at = access[k].offset + j / run * access[k].stride + j % run;
                shared |= k == 1 && map[at];
                map[at] |= k == 0;
            }
        }
        check_both(access[0], access[1], shared);
    }
}

//
// Fences
//

static void fences(void) {
    const struct ggc_access none = range(R, 0, 0);
    for (uint32_t which = 1; which < 4; which++) {
        const uint8_t fence[2] = {which & 1 ? 1 : 0, which & 2 ? 255 : 0};
        struct pair p;
        pair_init(&p, none, none);
        p.units.fence = fence;
        check_units(&p.units, true);
        pair_init(&p, range(W, 0, 8), range(W, 0, 8));
        p.units.fence = fence;
        check_units(&p.units, true);
    }
    const uint8_t no_fence[2] = {0, 0};
    struct pair p;
    pair_init(&p, none, none);
    p.units.fence = no_fence;
    check_units(&p.units, false);
}

static void units_that_are_no_pair(void) {
    struct pair p;
    pair_init(&p, range(W, 0, 8), range(W, 0, 8));
    struct ggc_conflict c;
    const uint32_t wrong[][2] = {{0, 0}, {1, 0}, {1, 1}, {0, 2}, {2, 3}, {0, GGC_NONE}};
    for (int i = 0; i < 6; i++) {
        CHECK_STATUS(ggc_explain(&p.units, wrong[i][0], wrong[i][1], &c), GGC_E_INVALID);
    }
    CHECK_STATUS(ggc_explain(NULL, 0, 1, &c), GGC_E_INVALID);
    CHECK_STATUS(ggc_explain(&p.units, 0, 1, NULL), GGC_E_INVALID);
}

//
// All small accesses, and random larger ones
//

#define BYTES 4096

static void bitmap(const struct ggc_access * a, uint8_t * bytes) {
    memset(bytes, 0, BYTES);
    for (uint32_t i = 0; i < a->count; i++) {
        memset(bytes + a->offset + i * a->stride, 1, a->run);
    }
}

static uint64_t small_mask(const struct ggc_access * a) {
    uint64_t mask = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        mask |= ((UINT64_C(1) << a->run) - 1) << (a->offset + i * a->stride);
    }
    return mask;
}

// Every access with offset < 6, run < 5, count < 6 and stride < 7.
static uint32_t small_accesses(struct ggc_access * out) {
    uint32_t n = 0;
    for (uint64_t offset = 0; offset < 6; offset++) {
        out[n++] = stripes(W, offset, 0, 3, 2);
        out[n++] = stripes(W, offset, 3, 3, 0);
        for (uint64_t run = 1; run < 5; run++) {
            out[n++] = stripes(W, offset, run, 0, 1);
            for (uint64_t stride = run; stride < 7; stride++) {
                for (uint32_t count = 2; count < 6; count++) {
                    out[n++] = stripes(W, offset, run, stride, count);
                }
            }
        }
    }
    return n;
}

// `base` moves both, `factor` stretches both: neither changes the answer. Every `step`-th pair.
static uint64_t exhaustive(uint64_t base, uint64_t factor, uint32_t step) {
    static struct ggc_access all[1024];
    const uint32_t n = small_accesses(all);
    uint64_t asked = 0;
    for (uint64_t k = 0; k < (uint64_t) n * n; k += step) {
        struct ggc_access a = all[k / n], b = all[k % n];
        const bool overlap = (small_mask(&a) & small_mask(&b)) != 0;
        test_case("exhaustive %llu %llu: %llu+%llu x%u/%llu, %llu+%llu x%u/%llu",
                  (unsigned long long) base, (unsigned long long) factor,
                  (unsigned long long) a.offset, (unsigned long long) a.run, a.count,
                  (unsigned long long) a.stride, (unsigned long long) b.offset,
                  (unsigned long long) b.run, b.count, (unsigned long long) b.stride);
        struct ggc_access * both[2] = {&a, &b};
        for (int i = 0; i < 2; i++) {
            both[i]->offset = base + both[i]->offset * factor;
            both[i]->run *= factor;
            both[i]->stride *= factor;
        }
        for (uint32_t modes = 0; modes < 4; modes++) {
            a.mode = modes & 1 ? R : W;
            b.mode = modes & 2 ? R : W;
            check(a, b, overlap && modes != 3);
            asked++;
        }
    }
    return asked;
}

static struct ggc_access random_access(struct test_rng * rng) {
    const uint32_t run = test_range(rng, 0, test_chance(rng, 0.5) ? 8 : 64);
    const uint32_t stride = run + test_range(rng, 0, test_chance(rng, 0.5) ? 4 : 64);
    const uint32_t count = test_range(rng, 0, 24);
    return stripes(test_chance(rng, 0.5) ? R : W, test_below(rng, 900), run, stride, count);
}

static void random_pairs(const struct test_options * options) {
    static uint8_t left[BYTES], right[BYTES];
    for (uint64_t k = options->first; k < options->first + options->iterations; k++) {
        test_case("random pair %llu", (unsigned long long) k);
        struct test_rng rng = test_rng(options->seed, k);
        const struct ggc_access a = random_access(&rng), b = random_access(&rng);
        bitmap(&a, left);
        bitmap(&b, right);
        bool overlap = false;
        for (int i = 0; i < BYTES; i++) {
            overlap = overlap || (left[i] & right[i]);
        }
        check(a, b, overlap && (a.mode == W || b.mode == W));
    }
}

#define CASE(name) {#name, name}
static const struct {
    const char * name;
    void (*run)(void);
} cases[] = {
    CASE(read_after_write),
    CASE(write_after_read),
    CASE(write_after_write),
    CASE(reads_do_not_conflict),
    CASE(hazards_are_named),
    CASE(ranges_that_touch),
    CASE(zero_size),
    CASE(equal_offset_in_other_buffer),
    CASE(interleaved_stripes_fused_qkv),
    CASE(stripes_with_different_strides),
    CASE(stripe_against_contiguous),
    CASE(inside_the_gap),
    CASE(stride_of_one_run_is_ignored),
    CASE(stripes_without_gaps_are_a_range),
    CASE(offsets_near_the_end),
    CASE(accesses_that_overflow),
    CASE(malformed_accesses),
    CASE(many_runs),
    CASE(long_stripes),
    CASE(fences),
    CASE(units_that_are_no_pair),
};

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 100000);
    const size_t n_cases = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < n_cases; i++) {
        test_case("%s", cases[i].name);
        cases[i].run();
    }
    const uint32_t step = options.iterations < 100000 ? 11 : 1;
    uint64_t asked = exhaustive(0, 1, step);
    asked += exhaustive(UINT64_MAX - 64, 1, step * 7);
    asked += exhaustive((UINT64_C(1) << 63) - 17, 1, step * 7);
    asked += exhaustive(1, UINT64_C(1) << 40, step * 7);
    random_pairs(&options);
    return test_passed("%zu cases, %llu small pairs, %llu random pairs", n_cases,
                       (unsigned long long) asked, (unsigned long long) options.iterations);
}
