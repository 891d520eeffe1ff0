// Memory laid out for plans: random units, sizes, plans and budgets. Judges: the reachability of
// every pair of units, bytes that are stamped and poisoned in random orders that the plan allows,
// ggc_verify_schedule on the addresses, and the heaviest set of tensors that may not share.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/memory.h"
#include "oracle.h"

#define MAX_TENSORS 100
#define MAX_USES 8

struct scene {
    struct test_units units;  // accesses by identity: a buffer for each tensor
    struct ggc_plan * plan;
    struct memory_tensor tensors[MAX_TENSORS];
    uint32_t uses[MAX_TENSORS * MAX_USES];
    uint32_t n_uses;
    struct memory_problem problem;
    uint64_t * before;  // rows: what the plan orders before each unit
    struct test_oracle oracle;
    double start[MAX_TENSORS], finish[MAX_TENSORS];
    uint32_t dep_begin[MAX_TENSORS + 1], dep[MAX_TENSORS * MAX_TENSORS];
    bool ordered;  // whether the plan orders what the tensors' uses ask for
};

static struct {
    uint64_t layouts, shared, in_place, by_plan, by_time, serial, mutants, refuted, tight, orders;
    uint64_t anew, raised;
} seen;

//
// Scenes
//

static int ascending(const void * a, const void * b) {
    const uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;
    return (x > y) - (x < y);
}

static void add_tensor(struct scene * s, struct test_rng * rng, uint32_t first, uint32_t n_units) {
    struct memory_tensor * t = &s->tensors[s->problem.n_tensors];
    uint32_t * uses = s->uses + s->n_uses;
    uint32_t n = 0, reach = test_chance(rng, 0.2) ? n_units : 6;
    uses[n++] = first;
    for (uint32_t i = test_below(rng, MAX_USES); i > 0; i--) {
        const uint32_t unit = first + 1 + test_below(rng, reach);
        if (unit < n_units) {
            uses[n++] = unit;
        }
    }
    qsort(uses, n, sizeof *uses, ascending);
    *t = (struct memory_tensor) {.size = test_chance(rng, 0.3) ? 64 : test_below(rng, 500),
                                 .begin = s->n_uses,
                                 .in_place = GGC_NONE,
                                 .kept = test_chance(rng, 0.05),
                                 .result = test_chance(rng, 0.1)};
    s->n_uses += n;
    t->end = s->n_uses;
    for (uint32_t i = s->problem.n_tensors; i-- > 0 && test_chance(rng, 0.9);) {
        if (s->uses[s->tensors[i].end - 1] == first) {
            t->in_place = i;
            t->size = test_chance(rng, 0.9) ? s->tensors[i].size : t->size;
            break;
        }
    }
    s->problem.n_tensors++;
}

// The first unit that uses a tensor writes it, most others read it.
static void add_units(struct scene * s, struct test_rng * rng, uint32_t n_units) {
    test_units_clear(&s->units);
    for (uint32_t u = 0; u < n_units; u++) {
        test_unit(&s->units);
        if (test_chance(rng, 0.9)) {
            test_cost(&s->units, test_below(rng, 20));
        }
        for (uint32_t i = 0; s->ordered && i < s->problem.n_tensors; i++) {
            const struct memory_tensor * t = &s->tensors[i];
            for (uint32_t k = t->begin; k < t->end; k++) {
                if (s->uses[k] == u && (k == t->begin || test_chance(rng, 0.2))) {
                    test_write(&s->units, i, 0, t->size);
                } else if (s->uses[k] == u) {
                    test_read(&s->units, i, 0, t->size);
                }
            }
        }
    }
}

// When unit u must have finished so that nothing ends later: by what follows it.
static double latest_finish(const struct scene * s, uint32_t u, const double * latest_start,
                            uint32_t place, double end) {
    const struct ggc_schedule * p = &s->problem.schedule;
    bool is_next = true;
    for (uint32_t i = place + 1; i < p->n_units; i++) {
        const uint32_t v = p->order[i];
        if (p->stream[v] == p->stream[u] && is_next) {
            end = latest_start[v] < end ? latest_start[v] : end;
            is_next = false;
        }
        for (uint32_t k = p->wait_begin[v]; k < p->wait_begin[v + 1]; k++) {
            const double there = latest_start[v] - s->problem.wait_cost;
            end = p->waits[k] == u && there < end ? there : end;
        }
    }
    return end;
}

// As the plan is expected to run, told once more: halfway between as early as can be and as late.
static void find_times(struct scene * s) {
    const struct ggc_schedule * p = &s->problem.schedule;
    double free_at[GGC_MAX_STREAMS] = {0}, latest_start[MAX_TENSORS], end = 0;
    for (uint32_t i = 0; i < p->n_units; i++) {
        const uint32_t u = p->order[i];
        s->start[u] = free_at[p->stream[u]];
        for (uint32_t k = p->wait_begin[u]; k < p->wait_begin[u + 1]; k++) {
            const double there = s->finish[p->waits[k]] + s->problem.wait_cost;
            s->start[u] = there > s->start[u] ? there : s->start[u];
        }
        s->finish[u] = s->start[u] + (s->problem.cost != NULL ? s->problem.cost[u] : 1);
        free_at[p->stream[u]] = s->finish[u];
        end = s->finish[u] > end ? s->finish[u] : end;
    }
    for (uint32_t i = p->n_units; i-- > 0;) {
        const uint32_t u = p->order[i];
        const double cost = s->finish[u] - s->start[u];
        latest_start[u] = latest_finish(s, u, latest_start, i, end) - cost;
    }
    for (uint32_t u = 0; u < p->n_units; u++) {
        const double cost = s->finish[u] - s->start[u];
        s->start[u] = (s->start[u] + latest_start[u]) / 2;
        s->finish[u] = s->start[u] + cost;
    }
}

static void find_deps(struct scene * s) {
    for (uint32_t u = 0; u < s->problem.n_units; u++) {
        uint32_t n;
        const uint32_t * deps = ggc_plan_deps(s->plan, u, &n);
        for (uint32_t k = 0; k < n; k++) {
            s->dep[s->dep_begin[u] + k] = deps[k];
        }
        s->dep_begin[u + 1] = s->dep_begin[u] + n;
    }
    s->problem.dep_begin = s->dep_begin;
    s->problem.dep = s->dep;
}

static void scene_init(struct scene * s, struct test_rng * rng) {
    const uint32_t n_units = test_range(rng, 1, MAX_TENSORS);
    s->problem = (struct memory_problem) {.tensors = s->tensors,
                                          .uses = s->uses,
                                          .alignment = 1u << test_below(rng, 8),
                                          .max_buffer = UINT64_MAX,
                                          .wait_cost = test_below(rng, 5)};
    s->n_uses = 0;
    s->ordered = test_chance(rng, 0.8);
    for (uint32_t u = 0; u < n_units; u++) {
        for (uint32_t n = test_below(rng, 3); n > 0 && s->problem.n_tensors < MAX_TENSORS; n--) {
            add_tensor(s, rng, u, n_units);
        }
    }
    if (s->problem.n_tensors < MAX_TENSORS && test_chance(rng, 0.3)) {  // used by nobody
        s->tensors[s->problem.n_tensors++] =
            (struct memory_tensor) {.size = 100, .in_place = GGC_NONE};
    }
    if (test_chance(rng, 0.4)) {
        s->problem.max_buffer = s->problem.alignment + test_below(rng, 1500);
    }
    add_units(s, rng, n_units);
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.n_streams = test_range(rng, 1, 8);
    params.strategy = (enum ggc_strategy) test_below(rng, 4);
    const struct ggc_units view = test_view(&s->units);
    CHECK_STATUS(ggc_plan_new(&view, &params, &s->plan), GGC_OK);
    s->problem.n_units = n_units;
    s->problem.cost = view.cost;
    s->problem.schedule = ggc_plan_schedule(s->plan);
    s->oracle = (struct test_oracle) {.n_units = n_units, .words = (n_units + 63) / 64};
    s->before = reachability(&s->oracle, &s->problem.schedule);
    CHECK(s->before != NULL);
    find_times(s);
    find_deps(s);
}

static void scene_free(struct scene * s) {
    ggc_plan_free(s->plan);
    free(s->before);
}

//
// Every pair of tensors
//

static bool share(const struct scene * s, const uint64_t * offset, uint32_t i, uint32_t j) {
    const uint64_t a = s->tensors[i].size, b = s->tensors[j].size;
    return a > 0 && b > 0 && offset[i] < offset[j] + b && offset[j] < offset[i] + a;
}

static uint64_t padded(const struct scene * s, const struct memory_tensor * tensor) {
    return (tensor->size + s->problem.alignment - 1) / s->problem.alignment * s->problem.alignment;
}

// Whether the use of tensor i by unit a comes before that of j by unit b, as the layout asks for.
static bool use_before(const struct scene * s, const struct memory_layout * layout, uint32_t i,
                       uint32_t a, uint32_t j, uint32_t b) {
    if (a == b) {
        const struct memory_tensor *x = &s->tensors[i], *y = &s->tensors[j];
        return y->in_place == i && padded(s, x) == padded(s, y) && s->uses[x->begin] < a &&
               a == s->uses[x->end - 1] && b == s->uses[y->begin];
    }
    const bool planned = test_bit(s->before + (size_t) b * s->oracle.words, a);
    const bool timed = layout->sharing == MEMORY_BY_TIME &&
                       (layout->slack < 0 || s->finish[a] + layout->slack <= s->start[b] + 1e-6);
    return a < b && (layout->sharing == MEMORY_SERIAL || planned || timed);
}

static bool wholly_before(const struct scene * s, const struct memory_layout * layout, uint32_t i,
                          uint32_t j) {
    const struct memory_tensor *x = &s->tensors[i], *y = &s->tensors[j];
    bool before = !x->kept && !x->result && !y->kept && x->begin < x->end && y->begin < y->end;
    for (uint32_t k = x->begin; before && k < x->end; k++) {
        for (uint32_t l = y->begin; before && l < y->end; l++) {
            before = use_before(s, layout, i, s->uses[k], j, s->uses[l]);
        }
    }
    return before;
}

static void check_pairs(const struct scene * s, const struct memory_layout * layout,
                        const uint64_t * offset) {
    for (uint32_t j = 0; j < s->problem.n_tensors; j++) {
        const uint64_t end = offset[j] + s->tensors[j].size;
        CHECK(offset[j] % s->problem.alignment == 0);
        CHECK(s->tensors[j].size == 0 ||
              offset[j] / layout->max_buffer == (end - 1) / layout->max_buffer);
        for (uint32_t i = 0; i < j; i++) {
            if (share(s, offset, i, j)) {
                CHECK_MSG(wholly_before(s, layout, i, j) || wholly_before(s, layout, j, i),
                          "tensors %u and %u share bytes, sharing %d", i, j, layout->sharing);
                seen.shared++;
                seen.in_place += s->tensors[j].in_place == i && offset[i] == offset[j];
            }
        }
    }
}

static uint64_t extent(const struct scene * s, const struct memory_layout * layout,
                       const uint64_t * offset, uint64_t buffer) {
    uint64_t size = 0;
    for (uint32_t i = 0; i < s->problem.n_tensors; i++) {
        const uint64_t end = offset[i] + padded(s, &s->tensors[i]) - buffer * layout->max_buffer;
        if (s->tensors[i].size > 0 && offset[i] / layout->max_buffer == buffer && end > size) {
            size = end;
        }
    }
    return size;
}

static void check_extent(const struct scene * s, const struct memory_layout * layout,
                         const uint64_t * offset) {
    uint64_t size = 0;
    for (uint64_t b = 0; b <= s->problem.n_tensors; b++) {
        size += extent(s, layout, offset, b);
    }
    CHECK_EQ(size, layout->size);
    CHECK(layout->size <= layout->apart && layout->bound <= layout->apart);
    CHECK(layout->sharing != MEMORY_BY_PLAN || layout->bound <= layout->size);
}

static void check_size(const struct scene * s, const struct memory_layout * layout,
                       const uint64_t * offset, uint64_t budget) {
    check_extent(s, layout, offset);
    CHECK(layout->size <= budget || layout->sharing == MEMORY_SERIAL);
    CHECK((layout->sharing == MEMORY_APART) == (layout->apart <= budget));
}

//
// Bytes, in orders that the plan allows
//

enum { POISON = 0xffff };

static bool may_run(const struct scene * s, const bool * done, uint32_t u) {
    bool ready = !done[u];
    for (uint32_t v = 0; ready && v < s->problem.n_units; v++) {
        ready = done[v] || !test_bit(s->before + (size_t) u * s->oracle.words, v);
    }
    return ready;
}

static uint32_t next_unit(const struct scene * s, struct test_rng * rng, const bool * done,
                          bool serially) {
    uint32_t found = GGC_NONE, n = 0;
    for (uint32_t u = 0; u < s->problem.n_units; u++) {
        if (serially ? !done[u] : may_run(s, done, u)) {
            n++;
            found = found == GGC_NONE || (!serially && test_below(rng, n) == 0) ? u : found;
        }
    }
    CHECK(found != GGC_NONE);
    return found;
}

static void stamp(uint32_t * bytes, const struct memory_tensor * t, uint64_t offset,
                  uint32_t with) {
    for (uint64_t k = 0; k < t->size; k++) {
        bytes[offset + k] = with;
    }
}

// A tensor's bytes are its own from its first use on until its last, and poisoned afterwards.
static void run_units(const struct scene * s, struct test_rng * rng, const uint64_t * offset,
                      uint64_t n_bytes, bool serially) {
    uint32_t * bytes = test_alloc(n_bytes * sizeof *bytes);
    uint32_t left[MAX_TENSORS] = {0};
    bool done[MAX_TENSORS] = {false};
    for (uint32_t i = 0; i < s->problem.n_tensors; i++) {
        left[i] = s->tensors[i].end - s->tensors[i].begin;
    }
    for (uint32_t n = 0; n < s->problem.n_units; n++) {
        const uint32_t u = next_unit(s, rng, done, serially);
        for (uint32_t i = 0; i < s->problem.n_tensors; i++) {
            const struct memory_tensor * t = &s->tensors[i];
            for (uint32_t k = t->begin; k < t->end; k++) {
                const bool is_new = left[i] == t->end - t->begin;
                for (uint64_t b = 0; s->uses[k] == u && !is_new && b < t->size; b++) {
                    CHECK_MSG(bytes[offset[i] + b] == i + 1, "unit %u finds tensor %u lost", u, i);
                }
                left[i] -= s->uses[k] == u;
            }
        }
        for (uint32_t i = 0; i < s->problem.n_tensors; i++) {  // what is new, what is over
            const struct memory_tensor * t = &s->tensors[i];
            bool here = false;
            for (uint32_t k = t->begin; k < t->end; k++) {
                here |= s->uses[k] == u;
            }
            if (here && left[i] == 0 && !t->kept && !t->result) {
                stamp(bytes, t, offset[i], POISON);
            }
        }
        for (uint32_t i = 0; i < s->problem.n_tensors; i++) {
            const struct memory_tensor * t = &s->tensors[i];
            uint32_t here = 0;
            for (uint32_t k = t->begin; k < t->end; k++) {
                here += s->uses[k] == u;
            }
            if (here > 0 && left[i] + here == t->end - t->begin && left[i] > 0) {
                stamp(bytes, t, offset[i], i + 1);
            }
        }
        done[u] = true;
    }
    free(bytes);
}

static void check_bytes(const struct scene * s, struct test_rng * rng,
                        const struct memory_layout * layout, const uint64_t * offset) {
    uint64_t end = 1;
    for (uint32_t i = 0; i < s->problem.n_tensors; i++) {
        const uint64_t last = offset[i] + s->tensors[i].size;
        end = last > end ? last : end;
    }
    run_units(s, rng, offset, end, true);
    for (int k = 0; k < 2 && layout->sharing <= MEMORY_BY_PLAN && s->ordered; k++) {
        run_units(s, rng, offset, end, false);
    }
}

//
// The verifier on the addresses, and what it makes of a layout that is wrong
//

// The units on the addresses; *accesses is to be freed.
static struct ggc_units units_on(const struct scene * s, const uint64_t * offset,
                                 struct ggc_access ** accesses) {
    struct ggc_units placed = test_view(&s->units);
    const uint32_t n = placed.access_begin[placed.n_units];
    *accesses = test_alloc((n + 1) * sizeof **accesses);
    for (uint32_t k = 0; k < n; k++) {
        (*accesses)[k] = placed.accesses[k];
        (*accesses)[k].offset += offset[placed.accesses[k].buffer];
        (*accesses)[k].buffer = 0;
    }
    placed.accesses = *accesses;
    return placed;
}

static enum ggc_status verify_on(const struct scene * s, const uint64_t * offset) {
    struct ggc_access * accesses = NULL;
    const struct ggc_units placed = units_on(s, offset, &accesses);
    const enum ggc_status status = ggc_verify_schedule(&placed, &s->problem.schedule, NULL);
    free(accesses);
    return status;
}

// Some tensor is moved onto another one. Only where the plan orders all their uses is that right.
static void check_mutants(const struct scene * s, struct test_rng * rng, const uint64_t * offset) {
    uint64_t moved[MAX_TENSORS];
    const uint32_t n = s->problem.n_tensors;
    memcpy(moved, offset, n * sizeof *moved);
    const uint32_t i = test_below(rng, n), j = test_below(rng, n);
    const struct memory_tensor *x = &s->tensors[i], *y = &s->tensors[j];
    if (i == j || x->size == 0 || y->size == 0 || x->begin == x->end || y->begin == y->end) {
        return;
    }
    moved[i] = offset[j];
    bool wrong = false;
    for (uint32_t k = 0; k < n; k++) {
        const struct memory_tensor * z = &s->tensors[k];
        if (k == i || z->begin == z->end || !share(s, moved, i, k)) {
            continue;
        }
        for (uint32_t a = x->begin; a < x->end; a++) {  // the first use of each is a write
            const uint32_t u = s->uses[a], v = s->uses[z->begin];
            const uint32_t low = u < v ? u : v, high = u < v ? v : u;
            wrong |= u != v && !test_bit(s->before + (size_t) high * s->oracle.words, low);
        }
    }
    if (wrong) {
        seen.mutants++;
        CHECK_STATUS(verify_on(s, moved), GGC_E_RACE);
        seen.refuted++;
    }
}

//
// The bound
//

// The heaviest set of tensors no two of which may share bytes, by looking at all sets.
static uint64_t heaviest(const struct scene * s) {
    const struct memory_layout by_plan = {.sharing = MEMORY_BY_PLAN};
    const uint32_t n = s->problem.n_tensors;
    uint64_t most = 0;
    for (uint32_t set = 0; set < 1u << n; set++) {
        uint64_t weight = 0;
        bool clique = true;
        for (uint32_t j = 0; clique && j < n; j++) {
            if (set >> j & 1) {
                weight += padded(s, &s->tensors[j]);
                for (uint32_t i = 0; clique && i < j; i++) {
                    clique = !(set >> i & 1) || !(wholly_before(s, &by_plan, i, j) ||
                                                  wholly_before(s, &by_plan, j, i));
                }
            }
        }
        most = clique && weight > most ? weight : most;
    }
    return most;
}

//
// The order in which a layout by time asks for nothing new: with that order and the plan's streams
// there is a plan on the addresses, and it is right.
//

// The plan on the addresses that keeps this order and these streams; to be freed.
static struct ggc_plan * keep(const struct scene * s, const uint64_t * offset,
                              const uint32_t * order, const uint32_t * stream) {
    struct ggc_schedule schedule = s->problem.schedule;
    schedule.order = order;
    schedule.stream = stream;
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.keep = &schedule;
    struct ggc_access * accesses = NULL;
    const struct ggc_units placed = units_on(s, offset, &accesses);
    struct ggc_plan * plan = NULL;
    const enum ggc_status status = ggc_plan_new(&placed, &params, &plan);
    CHECK_MSG(status == GGC_OK, "the order is refused");
    const struct ggc_schedule kept = ggc_plan_schedule(plan);
    CHECK_STATUS(ggc_verify_schedule(&placed, &kept, NULL), GGC_OK);
    CHECK(memcmp(kept.order, order, placed.n_units * sizeof *order) == 0);
    free(accesses);
    seen.orders++;
    return plan;
}

static void check_order(const struct scene * s, const uint64_t * offset) {
    uint32_t order[MAX_TENSORS];
    CHECK_STATUS(memory_order(&s->problem, NULL, order), GGC_OK);
    ggc_plan_free(keep(s, offset, order, s->problem.schedule.stream));
}

//
// Plans that are made anew
//

// That the units can run at these times: each once, after what it depends on, one at a time on each
// stream, and in this order.
static void check_times(const struct scene * s, const struct memory_schedule * schedule) {
    double free_at[GGC_MAX_STREAMS] = {0}, last = 0;
    bool done[MAX_TENSORS] = {false};
    for (uint32_t i = 0; i < s->problem.n_units; i++) {
        const uint32_t u = schedule->order[i];
        CHECK(u < s->problem.n_units && !done[u]);
        const uint32_t t = schedule->stream[u];
        CHECK(t < s->problem.schedule.n_streams);
        CHECK(s->start[u] >= last && s->start[u] >= free_at[t]);
        for (uint32_t k = s->dep_begin[u]; k < s->dep_begin[u + 1]; k++) {
            const uint32_t d = s->dep[k];
            const double wait = schedule->stream[d] == t ? 0 : s->problem.wait_cost;
            CHECK(done[d] && s->start[u] >= s->finish[d] + wait);
        }
        done[u] = true;
        last = s->start[u];
        free_at[t] = s->finish[u];
    }
}

// Bytes change hands by the new times alone; and where the units run as a plan on the addresses
// lets them, nothing is lost.
static void check_anew(const struct scene * s, struct test_rng * rng,
                       const struct memory_layout * layout, const uint64_t * offset,
                       const struct memory_schedule * schedule) {
    static struct scene anew;
    anew = *s;
    for (uint32_t u = 0; u < s->problem.n_units; u++) {
        anew.start[u] = schedule->start[u];
        anew.finish[u] = schedule->start[u] + (s->problem.cost != NULL ? s->problem.cost[u] : 1);
    }
    check_times(&anew, schedule);
    CHECK(layout->slack == 0);
    anew.before = test_alloc((s->oracle.words * s->problem.n_units + 1) * sizeof *anew.before);
    memset(anew.before, 0, s->oracle.words * s->problem.n_units * sizeof *anew.before);
    check_pairs(&anew, layout, offset);
    free(anew.before);
    if (s->ordered) {
        struct ggc_plan * plan = keep(s, offset, schedule->order, schedule->stream);
        const struct ggc_schedule kept = ggc_plan_schedule(plan);
        const struct memory_layout by_plan = {.sharing = MEMORY_BY_PLAN};
        anew.before = reachability(&anew.oracle, &kept);
        CHECK(anew.before != NULL);
        check_bytes(&anew, rng, &by_plan, offset);
        free(anew.before);
        ggc_plan_free(plan);
    }
    seen.anew++;
}

static void check_fit(const struct scene * s, struct test_rng * rng, uint64_t budget) {
    struct memory_layout layout, least;
    uint64_t offset[MAX_TENSORS];
    uint32_t order[MAX_TENSORS], stream[MAX_TENSORS];
    double start[MAX_TENSORS];
    const uint32_t n = s->problem.n_units;
    const struct memory_schedule schedule = {order, stream, start};
    CHECK_STATUS(memory_lay_out(&s->problem, 0, NULL, offset, &least), GGC_OK);
    CHECK_STATUS(memory_fit(&s->problem, budget, NULL, offset, &schedule, &layout), GGC_OK);
    CHECK(layout.size <= budget || layout.size <= least.size);
    CHECK(layout.apart == least.apart && layout.bound == least.bound);
    CHECK((layout.sharing == MEMORY_APART) == (layout.apart <= budget));
    check_extent(s, &layout, offset);
    if (layout.sharing == MEMORY_BY_TIME) {
        check_anew(s, rng, &layout, offset, &schedule);
    } else {
        check_pairs(s, &layout, offset);
        check_bytes(s, rng, &layout, offset);
    }
    if (layout.sharing <= MEMORY_BY_PLAN) {
        CHECK(memcmp(order, s->problem.schedule.order, n * sizeof *order) == 0);
        CHECK(memcmp(stream, s->problem.schedule.stream, n * sizeof *stream) == 0);
        CHECK(!s->ordered || verify_on(s, offset) == GGC_OK);
    }
    seen.raised += layout.size > budget && layout.sharing != MEMORY_SERIAL;
}

//
// Cases
//

static void check_budget(const struct scene * s, struct test_rng * rng, uint64_t budget) {
    struct memory_layout layout;
    check_fit(s, rng, budget);
    uint64_t offset[MAX_TENSORS];
    CHECK_STATUS(memory_lay_out(&s->problem, budget, NULL, offset, &layout), GGC_OK);
    check_pairs(s, &layout, offset);
    check_size(s, &layout, offset, budget);
    check_bytes(s, rng, &layout, offset);
    if (layout.sharing <= MEMORY_BY_PLAN && s->ordered) {
        CHECK_STATUS(verify_on(s, offset), GGC_OK);
        check_mutants(s, rng, offset);
    }
    if (s->problem.n_tensors <= 10) {
        CHECK(layout.bound <= heaviest(s));
    }
    if (layout.sharing == MEMORY_BY_TIME && layout.slack >= 0 && s->ordered) {
        check_order(s, offset);
    }
    seen.layouts++;
    seen.by_plan += layout.sharing == MEMORY_BY_PLAN;
    seen.by_time += layout.sharing == MEMORY_BY_TIME;
    seen.serial += layout.sharing == MEMORY_SERIAL;
    seen.tight += layout.sharing == MEMORY_BY_PLAN && layout.size == layout.bound;
}

static void random_case(struct scene * s, struct test_rng * rng) {
    struct memory_layout apart, least;
    uint64_t offset[MAX_TENSORS];
    scene_init(s, rng);
    CHECK_STATUS(memory_lay_out(&s->problem, UINT64_MAX, NULL, offset, &apart), GGC_OK);
    CHECK_STATUS(memory_lay_out(&s->problem, 0, NULL, offset, &least), GGC_OK);
    check_budget(s, rng, UINT64_MAX);
    check_budget(s, rng, 0);
    if (apart.size > 0) {
        check_budget(s, rng, apart.size - 1);
    }
    for (int k = 0; k < 3; k++) {
        const uint64_t more = apart.size - (least.size < apart.size ? least.size : apart.size);
        check_budget(s, rng, least.size + test_below(rng, (uint32_t) more + 1));
    }
    scene_free(s);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 1000);
    static struct scene s;
    test_units_init(&s.units);
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        test_case("random layout %llu", (unsigned long long) i);
        struct test_rng rng = test_rng(options.seed, i);
        random_case(&s, &rng);
    }
    test_units_free(&s.units);
    if (options.iterations >= 100) {  // or this tests less than it says
        CHECK(seen.shared > 0 && seen.in_place > 0 && seen.by_plan > 0 && seen.by_time > 0);
        CHECK(seen.serial > 0 && seen.mutants > 0 && seen.tight > 0 && seen.orders > 0);
        CHECK(seen.anew > 0 && seen.raised > 0);
    }
    return test_passed(
        "%llu layouts, %llu shared pairs, %llu in place; %llu by plan, %llu by time, "
        "%llu serial; %llu mutants refuted, %llu at the bound; %llu planned anew",
        (unsigned long long) seen.layouts, (unsigned long long) seen.shared,
        (unsigned long long) seen.in_place, (unsigned long long) seen.by_plan,
        (unsigned long long) seen.by_time, (unsigned long long) seen.serial,
        (unsigned long long) seen.refuted, (unsigned long long) seen.tight,
        (unsigned long long) seen.anew);
}
