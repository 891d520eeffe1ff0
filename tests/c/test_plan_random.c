// Random units, planned by every strategy on 1 .. 8 streams, and judged by three who share no code:
// the planner's own claims, the verifiers, and the byte oracle of oracle.h. Then mutants: plans
// with one wait less, two phases merged, something moved; and schedules with no sense at all. The
// verifiers must agree with the oracle on every one of them.
#include <math.h>

#include "oracle.h"

static struct {
    uint64_t graphs, units, conflicts, plans, waits;
    uint64_t removed_waits, merged_phases;  // mutants that must race
    uint64_t changed, schedules, phases;    // mutants and nonsense, judged by the oracle
    uint64_t accepted, raced, invalid;      // what it said of these
    uint64_t covers;                        // plans whose number of waits was computed anew
    uint32_t largest;
} total;

// One graph under test.
struct subject {
    struct test_rng * rng;
    struct ggc_units units;
    struct test_oracle oracle;
};

//
// A schedule that can be changed
//

struct draft {
    struct ggc_schedule schedule;
    uint32_t *order, *stream, *wait_begin, *waits;
    uint32_t wait_capacity;
};

static void draft_init(struct draft * d, uint32_t n_units, uint32_t n_streams, uint32_t n_waits) {
    d->order = test_alloc(n_units * sizeof(uint32_t));
    d->stream = test_alloc(n_units * sizeof(uint32_t));
    d->wait_begin = test_alloc((n_units + 1) * sizeof(uint32_t));
    d->wait_capacity = n_waits + 1;  // room for one more
    d->waits = test_alloc(d->wait_capacity * sizeof(uint32_t));
    d->schedule = (struct ggc_schedule) {.n_units = n_units,
                                         .n_streams = n_streams,
                                         .order = d->order,
                                         .stream = d->stream,
                                         .wait_begin = d->wait_begin,
                                         .waits = d->waits};
}

static void draft_free(struct draft * d) {
    free(d->order);
    free(d->stream);
    free(d->wait_begin);
    free(d->waits);
}

static void draft_set(struct draft * d, const struct ggc_schedule * s) {
    const size_t n = s->n_units;
    memcpy(d->order, s->order, n * sizeof(uint32_t));
    memcpy(d->stream, s->stream, n * sizeof(uint32_t));
    memcpy(d->wait_begin, s->wait_begin, (n + 1) * sizeof(uint32_t));
    if (s->wait_begin[n]) {
        memcpy(d->waits, s->waits, s->wait_begin[n] * sizeof(uint32_t));
    }
}

static void draft_copy(struct draft * d, const struct ggc_schedule * s) {
    draft_init(d, s->n_units, s->n_streams, s->wait_begin[s->n_units]);
    draft_set(d, s);
}

static void remove_wait(struct draft * d, uint32_t unit, uint32_t index) {
    const uint32_t n = d->schedule.n_units, end = d->wait_begin[n];
    memmove(d->waits + index, d->waits + index + 1, (end - index - 1) * sizeof(uint32_t));
    for (uint32_t u = unit + 1; u <= n; u++) {
        d->wait_begin[u]--;
    }
}

static void add_wait(struct draft * d, uint32_t unit, uint32_t wait) {
    const uint32_t n = d->schedule.n_units, end = d->wait_begin[n], at = d->wait_begin[unit];
    CHECK(end < d->wait_capacity);
    memmove(d->waits + at + 1, d->waits + at, (end - at) * sizeof(uint32_t));
    d->waits[at] = wait;
    for (uint32_t u = unit + 1; u <= n; u++) {
        d->wait_begin[u]++;
    }
}

static uint32_t waiting_unit(const struct ggc_schedule * s, uint32_t index) {
    uint32_t u = 0;
    while (s->wait_begin[u + 1] <= index) {
        u++;
    }
    return u;
}

//
// Verdicts
//

static void check_verdict(struct subject * t, const struct ggc_schedule * s,
                          enum ggc_status expected) {
    struct ggc_conflict race;
    CHECK_STATUS(ggc_verify_schedule(&t->units, s, &race), expected);
    if (expected == GGC_E_RACE) {
        test_check_conflict(&t->units, &race);
        CHECK_MSG(!test_oracle_ordered(&t->oracle, s, race.a, race.b),
                  "the verifier reports units %u and %u, which are ordered", race.a, race.b);
    }
}

static void check_phase_verdict(struct subject * t, const uint32_t * phase,
                                enum ggc_status expected) {
    struct ggc_conflict race;
    CHECK_STATUS(ggc_verify_phases(&t->units, phase, &race), expected);
    if (expected == GGC_E_RACE) {
        test_check_conflict(&t->units, &race);
        CHECK_MSG(phase[race.a] >= phase[race.b],
                  "the verifier reports units %u and %u, which are in order", race.a, race.b);
    }
}

static void agree(struct subject * t, const struct ggc_schedule * s) {
    const enum ggc_status status = test_oracle_schedule(&t->oracle, s);
    check_verdict(t, s, status);
    total.accepted += status == GGC_OK;
    total.raced += status == GGC_E_RACE;
    total.invalid += status == GGC_E_INVALID;
}

//
// What a plan claims
//

static void check_deps(struct subject * t, const struct ggc_plan * plan) {
    const struct test_oracle * o = &t->oracle;
    uint64_t * closure = test_alloc((size_t) o->n_units * o->words * sizeof *closure);
    uint64_t n_deps = 0;
    for (uint32_t u = 0; u < o->n_units; u++) {
        uint32_t n;
        const uint32_t * deps = ggc_plan_deps(plan, u, &n);
        n_deps += n;
        for (uint32_t i = 0; i < n; i++) {
            CHECK_MSG(deps[i] < u && (i == 0 || deps[i - 1] < deps[i]),
                      "dependences of unit %u are not ascending", u);
            CHECK_MSG(test_oracle_conflict(o, deps[i], u), "units %u and %u do not conflict",
                      deps[i], u);
            test_set_bit(closure + (size_t) u * o->words, deps[i]);
            for (uint32_t j = 0; j < o->words; j++) {
                closure[(size_t) u * o->words + j] |= closure[(size_t) deps[i] * o->words + j];
            }
        }
        CHECK_MSG(memcmp(closure + (size_t) u * o->words, o->closure + (size_t) u * o->words,
                         o->words * sizeof *closure) == 0,
                  "unit %u does not depend on what it must, or on more", u);
    }
    free(closure);
    const struct ggc_plan_stats stats = ggc_plan_get_stats(plan);
    CHECK_EQ(stats.n_deps, n_deps);
    CHECK_EQ(stats.hazards[GGC_RAW] + stats.hazards[GGC_WAR] + stats.hazards[GGC_WAW] +
                 stats.hazards[GGC_FENCE],
             n_deps);
}

static void check_phases(struct subject * t, const struct ggc_plan * plan) {
    const struct ggc_plan_stats stats = ggc_plan_get_stats(plan);
    const uint32_t * phase = ggc_plan_phases(plan);
    const uint32_t n = t->units.n_units;
    CHECK_EQ(stats.n_phases, t->oracle.longest);
    CHECK_STATUS(test_oracle_phases(&t->oracle, phase), GGC_OK);
    CHECK_STATUS(ggc_verify_phases(&t->units, phase, NULL), GGC_OK);
    uint32_t *members = test_alloc(n * sizeof *members), width = 0;
    for (uint32_t u = 0; u < n; u++) {
        CHECK(phase[u] < stats.n_phases);
        members[phase[u]]++;
        width = members[phase[u]] > width ? members[phase[u]] : width;
    }
    CHECK_EQ(stats.width, width);
    free(members);
}

static bool close_to(double a, double b) {
    return fabs(a - b) <= 1e-9 * (1 + fabs(b));
}

static void check_stats(struct subject * t, const struct ggc_plan * plan,
                        const struct ggc_schedule * s) {
    const struct ggc_plan_stats stats = ggc_plan_get_stats(plan);
    double cost = 0;
    uint64_t streams = 0;
    uint32_t used = 0;
    for (uint32_t u = 0; u < s->n_units; u++) {
        cost += t->units.cost ? t->units.cost[u] : 1;
        used += !(streams >> s->stream[u] & 1);
        streams |= UINT64_C(1) << s->stream[u];
    }
    CHECK_EQ(stats.n_units, s->n_units);
    CHECK_EQ(stats.n_waits, s->wait_begin[s->n_units]);
    CHECK_EQ(stats.n_streams, used);
    CHECK_MSG(close_to(stats.cost, cost), "cost %g, expected %g", stats.cost, cost);
    CHECK_MSG(close_to(stats.critical, t->oracle.critical), "critical %g, expected %g",
              stats.critical, t->oracle.critical);
}

static void check_plan(struct subject * t, const struct ggc_plan * plan,
                       const struct ggc_plan_params * params) {
    const struct ggc_schedule s = ggc_plan_schedule(plan);
    CHECK_EQ(s.n_units, t->units.n_units);
    CHECK(s.n_streams <= params->n_streams);
    CHECK_EQ(s.wait_begin[0], 0);
    CHECK_STATUS(test_oracle_schedule(&t->oracle, &s), GGC_OK);
    CHECK_STATUS(ggc_verify_schedule(&t->units, &s, NULL), GGC_OK);
    check_phases(t, plan);
    check_deps(t, plan);
    check_stats(t, plan, &s);
    const bool serial = params->strategy == GGC_STRATEGY_SERIAL;
    if (serial || params->n_streams == 1) {
        CHECK_EQ(s.wait_begin[s.n_units], 0);
    }
    for (uint32_t u = 0; serial && u < s.n_units; u++) {
        CHECK_MSG(s.order[u] == u && s.stream[u] == s.stream[0], "the serial plan is not serial");
    }
    total.plans++;
    total.waits += s.wait_begin[s.n_units];
}

// The same units at other addresses, planned in memory full of garbage.
static void check_same_again(struct subject * t, const struct ggc_plan * plan,
                             const struct ggc_plan_params * params) {
    struct test_units moved;
    test_units_init(&moved);
    const struct ggc_units * units = &t->units;
    for (uint32_t u = 0; u < units->n_units; u++) {
        test_unit(&moved);
        moved.fence[u] = units->fence ? units->fence[u] : 0;
        test_cost(&moved, units->cost ? units->cost[u] : 1);
        for (uint32_t i = units->access_begin[u]; i < units->access_begin[u + 1]; i++) {
            test_access(&moved, units->accesses[i]);
        }
    }
    struct test_heap heap;
    test_heap_init(&heap);
    struct ggc_plan_params again = *params;
    again.allocator = &heap.allocator;
    const struct ggc_units view = test_view(&moved);
    struct ggc_plan * other = NULL;
    CHECK_STATUS(ggc_plan_new(&view, &again, &other), GGC_OK);
    test_units_free(&moved);
    const struct ggc_schedule s = ggc_plan_schedule(plan), o = ggc_plan_schedule(other);
    const size_t size = s.n_units * sizeof(uint32_t);
    CHECK(memcmp(s.order, o.order, size) == 0);
    CHECK(memcmp(s.stream, o.stream, size) == 0);
    CHECK(memcmp(s.wait_begin, o.wait_begin, size + sizeof(uint32_t)) == 0);
    for (uint32_t i = 0; i < s.wait_begin[s.n_units]; i++) {
        CHECK_EQ(s.waits[i], o.waits[i]);
    }
    CHECK(memcmp(ggc_plan_phases(plan), ggc_plan_phases(other), size) == 0);
    ggc_plan_free(other);
    CHECK_EQ(heap.live_blocks, 0);
}

//
// Mutants
//

// No wait is redundant, so without any one of them two units race.
static void remove_each_wait(struct subject * t, const struct ggc_schedule * s) {
    const uint32_t n = s->wait_begin[s->n_units], step = n / 24 + 1;
    struct draft d;
    draft_copy(&d, s);
    for (uint32_t i = n ? test_below(t->rng, step) : 0; i < n; i += step) {
        draft_set(&d, s);
        const uint32_t unit = waiting_unit(s, i);
        remove_wait(&d, unit, i);
        CHECK_MSG(test_oracle_schedule(&t->oracle, &d.schedule) == GGC_E_RACE,
                  "unit %u waits for %u without need", unit, s->waits[i]);
        check_verdict(t, &d.schedule, GGC_E_RACE);
        total.removed_waits++;
    }
    draft_free(&d);
}

// There are as few phases as can be, so no two neighbours can be one.
static void merge_each_phase(struct subject * t, const struct ggc_plan * plan) {
    const uint32_t * phase = ggc_plan_phases(plan);
    const uint32_t n = t->units.n_units, n_phases = ggc_plan_get_stats(plan).n_phases;
    const uint32_t step = n_phases / 24 + 1;
    uint32_t * merged = test_alloc(n * sizeof *merged);
    for (uint32_t p = 1; p < n_phases; p += step) {
        for (uint32_t u = 0; u < n; u++) {
            merged[u] = phase[u] - (phase[u] >= p);
        }
        check_phase_verdict(t, merged, GGC_E_RACE);
        total.merged_phases++;
    }
    free(merged);
}

static void swap(uint32_t * values, uint32_t i, uint32_t j) {
    const uint32_t value = values[i];
    values[i] = values[j];
    values[j] = value;
}

static void change(struct draft * d, struct test_rng * rng) {
    const uint32_t n = d->schedule.n_units, n_waits = d->wait_begin[n];
    const uint32_t u = test_below(rng, n), v = test_below(rng, n);
    const uint32_t i = n_waits ? test_below(rng, n_waits) : 0;
    switch (test_below(rng, 6)) {
        case 0: swap(d->order, u, v); break;
        case 1: swap(d->order, u, u ? u - 1 : 0); break;
        case 2: d->stream[u] = test_below(rng, d->schedule.n_streams); break;
        case 3: add_wait(d, u, n_waits ? d->waits[i] : v); break;
        case 4:
            if (n_waits) {  // the wait of one unit becomes that of another
                const uint32_t wait = d->waits[i];
                remove_wait(d, waiting_unit(&d->schedule, i), i);
                add_wait(d, u, wait);
            }
            break;
        default:
            if (n_waits) {
                d->waits[i] = v;
            }
    }
}

static void change_something(struct subject * t, const struct ggc_schedule * s, int times) {
    struct draft d;
    draft_copy(&d, s);
    for (int i = 0; i < times; i++) {
        draft_set(&d, s);
        change(&d, t->rng);
        agree(t, &d.schedule);
        total.changed++;
    }
    draft_free(&d);
}

//
// Schedules out of thin air: a few disturbances of the serial order, random streams and waits
//

static void random_schedule(struct subject * t) {
    struct test_rng * rng = t->rng;
    const uint32_t n = t->units.n_units, streams = test_range(rng, 1, 9);
    const uint32_t most = test_below(rng, 4), disturb = test_below(rng, 3) * n / 4;
    struct draft d;
    draft_init(&d, n, streams, n * most);
    uint32_t * place = test_alloc(n * sizeof *place);
    for (uint32_t i = 0; i < n; i++) {
        d.order[i] = i;
        d.stream[i] = test_below(rng, streams);
    }
    for (uint32_t i = 0; i < disturb; i++) {
        const uint32_t at = test_below(rng, n);
        swap(d.order, at, at ? at - 1 : 0);
    }
    for (uint32_t i = 0; i < n; i++) {
        place[d.order[i]] = i;
    }
    uint32_t n_waits = 0;
    for (uint32_t u = 0; u < n; u++) {
        d.wait_begin[u] = n_waits;
        for (uint32_t i = 0; i < most && place[u] > 0; i++) {
            const uint32_t back = test_chance(rng, 0.7) && place[u] > 3 ? 3 : place[u];
            d.waits[n_waits++] = d.order[place[u] - test_range(rng, 1, back)];
        }
    }
    d.wait_begin[n] = n_waits;
    agree(t, &d.schedule);
    total.schedules++;
    free(place);
    draft_free(&d);
}

static void random_phases(struct subject * t, const uint32_t * good) {
    const uint32_t n = t->units.n_units;
    uint32_t * phase = test_alloc(n * sizeof *phase);
    const bool near = test_chance(t->rng, 0.5);
    for (uint32_t u = 0; u < n; u++) {
        phase[u] = near ? good[u] : u - test_below(t->rng, u < 3 ? u + 1 : 3);
    }
    phase[test_below(t->rng, n)] = test_below(t->rng, n);
    check_phase_verdict(t, phase, test_oracle_phases(&t->oracle, phase));
    total.phases++;
    free(phase);
}

//
// The minimum path cover: as few waits as full concurrency allows, or less where chains that do not
// meet in any phase share a stream. Computed anew here from the oracle's closure: the conflicts
// that follow from no others, and the largest matching of them.
//

static bool follows_from_others(const struct test_oracle * o, uint32_t a, uint32_t b) {
    for (uint32_t c = a + 1; c < b; c++) {
        if (test_bit(o->closure + (size_t) b * o->words, c) &&
            test_bit(o->closure + (size_t) c * o->words, a)) {
            return true;
        }
    }
    return false;
}

static bool find_partner(const uint64_t * edges, uint32_t n, uint32_t words, uint32_t a,
                         uint32_t * partner, bool * tried) {
    for (uint32_t b = a + 1; b < n; b++) {
        if (!test_bit(edges + (size_t) b * words, a) || tried[b]) {
            continue;
        }
        tried[b] = true;
        if (partner[b] == GGC_NONE || find_partner(edges, n, words, partner[b], partner, tried)) {
            partner[b] = a;
            return true;
        }
    }
    return false;
}

static uint32_t largest_matching(const uint64_t * edges, uint32_t n, uint32_t words) {
    uint32_t *partner = test_alloc(n * sizeof *partner), matched = 0;
    bool * tried = test_alloc(n * sizeof *tried);
    memset(partner, 0xff, n * sizeof *partner);
    for (uint32_t a = 0; a < n; a++) {
        memset(tried, 0, n * sizeof *tried);
        matched += find_partner(edges, n, words, a, partner, tried);
    }
    free(partner);
    free(tried);
    return matched;
}

static void check_path_cover(struct subject * t) {
    const struct test_oracle * o = &t->oracle;
    const uint32_t n = o->n_units;
    uint64_t *edges = test_alloc((size_t) n * o->words * sizeof *edges), n_edges = 0;
    for (uint32_t b = 0; b < n; b++) {
        for (uint32_t a = 0; a < b; a++) {
            if (test_oracle_conflict(o, a, b) && !follows_from_others(o, a, b)) {
                test_set_bit(edges + (size_t) b * o->words, a);
                n_edges++;
            }
        }
    }
    const uint32_t matched = largest_matching(edges, n, o->words);
    free(edges);
    if (n - matched > GGC_MAX_STREAMS) {
        return;
    }
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.strategy = GGC_STRATEGY_COVER;
    params.n_streams = GGC_MAX_STREAMS;
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&t->units, &params, &plan), GGC_OK);
    check_plan(t, plan, &params);
    const struct ggc_schedule schedule = ggc_plan_schedule(plan);
    CHECK_MSG(test_oracle_keeps_phases(o, &schedule, ggc_plan_phases(plan)), "concurrency is lost");
    CHECK(ggc_plan_get_stats(plan).n_streams <= n - matched);
    CHECK(ggc_plan_get_stats(plan).n_waits <= n_edges - matched);
    ggc_plan_free(plan);
    total.covers++;
}

//
// One graph
//

static void plan_once(struct subject * t, enum ggc_strategy strategy, uint32_t n_streams) {
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.n_streams = n_streams;
    params.strategy = strategy;
    params.wait_cost = test_below(t->rng, 4) * 1.5;
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&t->units, &params, &plan), GGC_OK);
    const struct ggc_schedule s = ggc_plan_schedule(plan);
    check_plan(t, plan, &params);
    remove_each_wait(t, &s);
    change_something(t, &s, t->units.n_units < 50 ? 4 : 2);
    if (strategy == GGC_STRATEGY_LIST) {
        merge_each_phase(t, plan);
        random_phases(t, ggc_plan_phases(plan));
        check_same_again(t, plan, &params);
    }
    ggc_plan_free(plan);
}

static void one_graph(struct test_rng * rng, struct test_units * units, uint32_t max_units,
                      bool every_width) {
    test_random_units(rng, max_units, units);
    struct subject t = {.rng = rng, .units = test_view(units)};
    test_subject(&t.units);
    test_oracle_init(&t.oracle, &t.units);
    for (uint32_t streams = 1; streams <= 8; streams++) {
        const uint32_t width = every_width ? streams : test_range(rng, 1, 8);
        for (int s = GGC_STRATEGY_LIST; s <= GGC_STRATEGY_COVER; s++) {
            plan_once(&t, (enum ggc_strategy) s, width);
        }
        if (!every_width) {
            break;
        }
    }
    for (int i = 0; i < (units->n_units < 50 ? 4 : 1); i++) {
        random_schedule(&t);
    }
    if (units->n_units <= 80) {
        check_path_cover(&t);
    }
    total.graphs++;
    total.units += units->n_units;
    total.largest = units->n_units > total.largest ? units->n_units : total.largest;
    for (size_t i = 0; i < (size_t) t.oracle.n_units * t.oracle.words; i++) {
        for (uint64_t bits = t.oracle.conflict[i]; bits; bits &= bits - 1) {
            total.conflicts++;
        }
    }
    test_oracle_free(&t.oracle);
    test_subject(NULL);
}

// Mostly small ones, where mistakes hide and pairs are cheap; one in 1000 has up to 2000 units.
static uint32_t size_of_graph(uint64_t i) {
    return i % 1000 == 999 ? 2000 : i % 100 == 50 ? 300 : i % 10 == 5 ? 80 : i % 2 ? 24 : 8;
}

static void report(void) {
    printf("graphs          %llu (%llu units, the largest has %u; %llu conflicting pairs)\n",
           (unsigned long long) total.graphs, (unsigned long long) total.units, total.largest,
           (unsigned long long) total.conflicts);
    printf("plans           %llu (%llu waits)\n", (unsigned long long) total.plans,
           (unsigned long long) total.waits);
    printf("path covers     %llu, none with more waits than needed\n",
           (unsigned long long) total.covers);
    printf("mutants         %llu with a wait removed, %llu with two phases merged: all found\n",
           (unsigned long long) total.removed_waits, (unsigned long long) total.merged_phases);
    printf("verifier=oracle %llu changed plans, %llu random schedules, %llu random phases\n",
           (unsigned long long) total.changed, (unsigned long long) total.schedules,
           (unsigned long long) total.phases);
    printf("                of the schedules %llu were right, %llu raced, %llu were none\n",
           (unsigned long long) total.accepted, (unsigned long long) total.raced,
           (unsigned long long) total.invalid);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 24000);
    struct test_units units;
    test_units_init(&units);
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        struct test_rng rng = test_rng(options.seed, i);
        test_case("random graph %llu", (unsigned long long) i);
        one_graph(&rng, &units, size_of_graph(i), i % 40 == 0);
    }
    test_units_free(&units);
    report();
    return test_passed("%llu graphs", (unsigned long long) total.graphs);
}
