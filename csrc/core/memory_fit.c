// A plan and a layout for a budget: see memory_fit in memory.h.
#include <math.h>
#include <string.h>

#include "memory_slots.h"

// How many schedules are tried for one budget.
#define N_TRIALS 4

// A schedule that takes no longer than the given plan by more than this is good enough.
#define GOOD 1.05

// How far units may run ahead of the longest chain, in parts of it: a fraction of a layer, as
// models go, or as far as memory allows. What runs ahead holds memory, and seldom saves time.
#define NEAR 0.02
#define NEARER 0.01
#define FAR 2.0

// What the scheduler is told that it may use, beside the budget: it does not see all that can
// share, nor what gets lost between the tensors.
#define MORE 1.2
#define LESS 0.98

struct fit {
    struct memory m;       // for the schedule at hand
    struct memory serial;  // its slots are those of the serial order, all else is shared with m
    struct scheduler * scheduler;
    uint64_t budget;
    double planned;  // microseconds that the given plan takes
    struct memory_schedule trial;
    double best;  // microseconds of the best schedule that fits; infinite: none so far
    uint64_t * offset;
    const struct memory_schedule * schedule;
    struct memory_layout * layout;
};

static bool schedule_init(struct memory_schedule * schedule, struct arena * arena, uint32_t n) {
    schedule->order = arena_alloc(arena, n, sizeof(uint32_t));
    schedule->stream = arena_alloc(arena, n, sizeof(uint32_t));
    schedule->start = arena_alloc(arena, n, sizeof(double));
    return schedule->order != NULL && schedule->stream != NULL && schedule->start != NULL;
}

static void copy_schedule(const struct memory_schedule * to, const uint32_t * order,
                          const uint32_t * stream, const double * start, uint32_t n) {
    memcpy(to->order, order, n * sizeof(uint32_t));
    memcpy(to->stream, stream, n * sizeof(uint32_t));
    memcpy(to->start, start, n * sizeof(double));
}

// The slots of the serial order are kept apart: the schedules are made for them, again and again.
static bool serial_init(struct fit * f) {
    struct memory * m = &f->serial;
    const size_t n_tensors = f->m.problem->n_tensors;
    *m = f->m;
    m->hasty = false;
    m->slots = arena_alloc(m->arena, n_tensors, sizeof(struct slot));
    m->slot_of = arena_alloc(m->arena, n_tensors, sizeof(uint32_t));
    m->taken_over = arena_alloc(m->arena, n_tensors, sizeof(bool));
    m->known = arena_alloc(m->arena, n_tensors * m->n_streams, sizeof(uint32_t));
    m->last = arena_alloc(m->arena, n_tensors * m->n_streams, sizeof(uint32_t));
    if (m->slots == NULL || m->slot_of == NULL || m->taken_over == NULL || m->known == NULL ||
        m->last == NULL || !schedule_init(&f->trial, m->arena, m->problem->n_units)) {
        return false;
    }
    memory_find_slots(m, -INFINITY);
    f->scheduler = scheduler_new(m);
    return f->scheduler != NULL;
}

// Whether units start at other times than in the last schedule that was laid out: by these times
// bytes change hands.
static bool is_new(const struct fit * f) {
    return memcmp(f->trial.start, f->m.start, f->m.problem->n_units * sizeof(double)) != 0;
}

// One schedule, and the layout for it: bytes change hands where it has the one tensor's last access
// end before the other's first begins. *size stays as it is where the schedule is as the last one,
// or no better than the best.
static enum ggc_status try_schedule(struct fit * f, uint64_t promised, double ahead,
                                    uint64_t * size) {
    const struct memory_problem * given = f->m.problem;
    const uint32_t n = given->n_units;
    struct memory_problem anew = *given;
    // while none fits, it counts by how much one is too large
    const uint64_t most = f->best < INFINITY ? f->budget : UINT64_MAX;
    const double time =
        scheduler_run(f->scheduler, promised, ahead, most, f->best, f->trial.stream);
    if (time >= f->best || (*size > f->budget && !is_new(f))) {
        return GGC_OK;
    }
    memcpy(f->trial.start, f->m.start, n * sizeof(double));
    anew.schedule.order = f->trial.order;
    anew.schedule.stream = f->trial.stream;
    anew.schedule.wait_begin = given->dep_begin;
    anew.schedule.waits = given->dep;
    f->m.problem = &anew;
    enum ggc_status status = memory_rank_times(&f->m, 0, f->trial.order);
    if (status == GGC_OK) {
        status = memory_walk(&f->m) ? GGC_OK : GGC_E_INVALID;
    }
    for (uint32_t u = 0; u < n; u++) {  // later than could be, where there was no memory
        f->m.start[u] = f->trial.start[u];
        f->m.finish[u] = f->m.start[u] + memory_cost(given, u);
    }
    if (status == GGC_OK) {
        memory_find_slots(&f->m, 0);
        status = memory_place(&f->m, 0, f->budget, f->budget, size);
    }
    f->m.problem = given;
    if (status == GGC_OK && *size <= f->budget && time < f->best) {
        f->best = time;
        memory_take(&f->m, *size, MEMORY_BY_TIME, 0, f->offset, f->layout);
        copy_schedule(f->schedule, f->trial.order, f->trial.stream, f->trial.start, n);
    }
    return status;
}

struct trial {
    uint64_t promised;  // bytes
    double ahead;
    uint64_t size;  // of the layout
};

// What to try after `last`, the k-th trial. Where the first one needs less than there is, and
// waits, others may use more. Where nothing has fit yet, they are told that there is less, the last
// one that there is nothing beside what the serial order needs. Where one has, but not the one
// before it, something between the two may be better.
static struct trial next_trial(const struct fit * f, int k, struct trial last, bool failed) {
    const double budget = (double) f->budget;
    if (f->best < INFINITY && failed) {
        const double larger = (double) last.promised * budget / (LESS * (double) last.size);
        return (struct trial) {(uint64_t) fmin(larger, LESS * budget), NEAR, 0};
    }
    if (f->best < INFINITY) {
        return k == 1 ? (struct trial) {f->budget, FAR, 0}
                      : (struct trial) {(uint64_t) (MORE * budget), NEAR, 0};
    }
    const double less = (double) last.promised * LESS * fmin(budget / (double) last.size, 1);
    return (struct trial) {k < N_TRIALS - 1 ? (uint64_t) less : 0, k == 1 ? NEAR : NEARER, 0};
}

static enum ggc_status search(struct fit * f) {
    struct trial trial = {f->budget, NEAR, 0};
    bool failed = false;
    for (int k = 0; k < N_TRIALS - (f->best < INFINITY) && f->best > GOOD * f->planned; k++) {
        const struct arena_mark mark = arena_mark(f->m.arena);
        trial = k > 0 ? next_trial(f, k, trial, failed) : trial;
        const enum ggc_status status = try_schedule(f, trial.promised, trial.ahead, &trial.size);
        arena_release(f->m.arena, mark);
        if (status != GGC_OK) {
            return status;
        }
        failed |= trial.size > f->budget;
    }
    return GGC_OK;
}

static void keep_plan(struct fit * f) {
    const struct ggc_schedule * plan = &f->m.problem->schedule;
    copy_schedule(f->schedule, plan->order, plan->stream, f->m.start, plan->n_units);
}

// What the given plan orders.
static enum ggc_status try_plan(struct fit * f, bool * fits) {
    uint64_t size;
    *fits = false;
    if (f->layout->bound > f->budget) {
        return GGC_OK;
    }
    memory_walk(&f->m);  // back to it, after a search
    memory_find_slots(&f->m, INFINITY);
    const enum ggc_status status = memory_place(&f->m, INFINITY, f->budget, f->budget, &size);
    *fits = status == GGC_OK && size <= f->budget;
    if (*fits) {
        memory_take(&f->m, size, MEMORY_BY_PLAN, INFINITY, f->offset, f->layout);
        keep_plan(f);
    }
    return status;
}

static enum ggc_status try_serially(struct fit * f, uint64_t * size) {
    memory_walk(&f->serial);  // back to the given plan
    const enum ggc_status status = memory_place(&f->serial, -INFINITY, 0, UINT64_MAX, size);
    if (status == GGC_OK) {
        memory_take(&f->serial, *size, MEMORY_SERIAL, -INFINITY, f->offset, f->layout);
    }
    return status;
}

static enum ggc_status fit_shared(struct fit * f) {
    bool by_plan;
    uint64_t least;
    enum ggc_status status = try_plan(f, &by_plan);
    if (status != GGC_OK || by_plan) {
        return status;
    }
    status = serial_init(f) ? GGC_OK : GGC_E_NOMEM;
    if (status == GGC_OK && scheduler_least(f->scheduler) <= f->budget) {
        status = search(f);
    }
    if (status != GGC_OK || f->best < INFINITY) {
        return status;
    }
    status = try_serially(f, &least);
    if (status != GGC_OK || least <= f->budget) {
        return status;
    }
    f->budget = least;  // it takes that anyway
    f->m.hasty = false;
    status = try_plan(f, &by_plan);
    return status == GGC_OK && !by_plan ? search(f) : status;
}

static enum ggc_status fit(struct fit * f) {
    if (!memory_walk(&f->m)) {
        return GGC_E_INVALID;
    }
    memory_find_slots(&f->m, INFINITY);
    f->planned = f->m.makespan;
    f->best = INFINITY;
    f->m.hasty = true;
    const struct arena_mark mark = arena_mark(f->m.arena);
    const enum ggc_status status = memory_find_bound(&f->m, &f->layout->bound);
    arena_release(f->m.arena, mark);
    if (status != GGC_OK) {
        return status;
    }
    memory_place_apart(&f->m, f->offset, f->layout);
    f->layout->apart = f->layout->size;
    if (f->layout->apart <= f->budget) {
        keep_plan(f);
        return GGC_OK;
    }
    return fit_shared(f);
}

enum ggc_status memory_fit(const struct memory_problem * problem, uint64_t budget,
                           const struct ggc_allocator * allocator, uint64_t * offset,
                           const struct memory_schedule * schedule, struct memory_layout * layout) {
    if (!memory_valid(problem)) {
        return GGC_E_INVALID;
    }
    struct arena arena;
    arena_init(&arena, allocator);
    struct fit f = {
        .m = memory_for(problem, &arena), .budget = budget, .offset = offset, .schedule = schedule};
    struct memory_layout made = {.max_buffer = f.m.max_buffer};
    f.layout = &made;
    const enum ggc_status status = memory_init(&f.m) ? fit(&f) : GGC_E_NOMEM;
    arena_free(&arena);
    if (status == GGC_OK) {
        *layout = made;
    }
    return status;
}
