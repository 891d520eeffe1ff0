#include <math.h>
#include <string.h>

#include "hazard.h"
#include "phase.h"
#include "stream.h"

// Keeps every index, and twice every index, within 32 bits.
#define MAX_UNITS (UINT32_C(1) << 30)

struct ggc_plan {
    struct arena arena;  // of everything below and of the plan itself
    struct hazards hazards;
    struct streams streams;
    uint32_t * phase;
    struct ggc_plan_stats stats;
};

void ggc_plan_params_init(struct ggc_plan_params * params) {
    *params = (struct ggc_plan_params) {
        .n_streams = 2,
        .strategy = GGC_STRATEGY_LIST,
        .wait_cost = 2.0,
        .look_ahead = 0,
        .keep = NULL,
        .allocator = NULL,
    };
}

static bool params_valid(const struct ggc_plan_params * params) {
    return params->n_streams >= 1 && params->n_streams <= GGC_MAX_STREAMS &&
           (unsigned) params->strategy <= GGC_STRATEGY_COVER && isfinite(params->wait_cost) &&
           params->wait_cost >= 0;
}

// The order itself is checked where it is taken over.
static bool keep_valid(const struct ggc_schedule * keep, const struct ggc_units * units) {
    return keep == NULL || (keep->n_units == units->n_units && keep->n_streams >= 1 &&
                            keep->n_streams <= GGC_MAX_STREAMS &&
                            (keep->n_units == 0 || (keep->order != NULL && keep->stream != NULL)));
}

// Everything but the accesses themselves, which are checked where they are read.
static bool units_valid(const struct ggc_units * units) {
    if (units->n_units > MAX_UNITS || units->access_begin == NULL || units->access_begin[0] != 0) {
        return false;
    }
    for (uint32_t u = 0; u < units->n_units; u++) {
        if (units->access_begin[u + 1] < units->access_begin[u]) {
            return false;
        }
        if (units->cost != NULL && !(isfinite(units->cost[u]) && units->cost[u] >= 0)) {
            return false;
        }
    }
    const uint32_t n_accesses = units->access_begin[units->n_units];
    return n_accesses <= MAX_UNITS && (n_accesses == 0 || units->accesses != NULL);
}

static enum ggc_status measure(struct ggc_plan * plan, const struct ggc_units * units,
                               struct arena * scratch) {
    const uint32_t n = units->n_units;
    double * finish = arena_alloc(scratch, n, sizeof(double));
    uint32_t * width = arena_zalloc(scratch, n, sizeof(uint32_t));
    if (finish == NULL || width == NULL) {
        return GGC_E_NOMEM;
    }
    struct ggc_plan_stats * stats = &plan->stats;
    for (uint32_t u = 0; u < n; u++) {
        double start = 0;
        for (uint32_t i = plan->hazards.begin[u]; i < plan->hazards.begin[u + 1]; i++) {
            const uint32_t dep = plan->hazards.dep[i];
            start = finish[dep] > start ? finish[dep] : start;
        }
        const double cost = units->cost != NULL ? units->cost[u] : 1.0;
        finish[u] = start + cost;
        stats->cost += cost;
        stats->critical = finish[u] > stats->critical ? finish[u] : stats->critical;
        const uint32_t now = ++width[plan->phase[u]];
        stats->width = now > stats->width ? now : stats->width;
    }
    return GGC_OK;
}

static enum ggc_status find_phases(struct ggc_plan * plan, const struct ggc_units * units,
                                   const struct ggc_plan_params * params, struct arena * scratch) {
    plan->phase = arena_alloc(&plan->arena, units->n_units, sizeof(uint32_t));
    if (plan->phase == NULL) {
        return GGC_E_NOMEM;
    }
    const enum ggc_status status = phases_find(plan->phase, &plan->stats.n_phases, units,
                                               &plan->hazards, params->look_ahead, scratch);
    return status == GGC_OK ? measure(plan, units, scratch) : status;
}

static enum ggc_status make_plan(struct ggc_plan * plan, const struct ggc_units * units,
                                 const struct ggc_plan_params * params, struct arena * scratch) {
    const struct arena_mark mark = arena_mark(scratch);
    enum ggc_status status = hazards_find(&plan->hazards, units, &plan->arena, scratch);
    arena_release(scratch, mark);
    if (status == GGC_OK) {
        status = find_phases(plan, units, params, scratch);
        arena_release(scratch, mark);
    }
    if (status == GGC_OK) {
        status = streams_place(&plan->streams, units, &plan->hazards, plan->phase,
                               plan->stats.n_phases, params, &plan->arena, scratch);
    }
    if (status != GGC_OK) {
        return status;
    }
    struct ggc_plan_stats * stats = &plan->stats;
    stats->n_units = units->n_units;
    stats->n_streams = units->n_units > 0 ? plan->streams.n_streams : 0;
    stats->n_deps = plan->hazards.begin[units->n_units];
    stats->n_waits = plan->streams.wait_begin[units->n_units];
    memcpy(stats->hazards, plan->hazards.count, sizeof(stats->hazards));
    return GGC_OK;
}

// Bytes of a plan, roughly: dependences and waits are as many as it happens.
static size_t plan_size(const struct ggc_units * units) {
    return sizeof(struct ggc_plan) + (size_t) units->n_units * 40;
}

// Bytes that planning needs for a while, roughly: the most is in line.c.
static size_t scratch_size(const struct ggc_units * units) {
    return (size_t) units->access_begin[units->n_units] * 130 + (size_t) units->n_units * 40;
}

enum ggc_status ggc_plan_new(const struct ggc_units * units, const struct ggc_plan_params * params,
                             struct ggc_plan ** plan) {
    struct ggc_plan_params defaults;
    ggc_plan_params_init(&defaults);
    params = params != NULL ? params : &defaults;
    if (units == NULL || plan == NULL || !units_valid(units) || !params_valid(params) ||
        !keep_valid(params->keep, units)) {
        return GGC_E_INVALID;
    }
    struct arena arena, scratch;
    arena_init(&arena, params->allocator);
    arena_init(&scratch, params->allocator);
    arena_expect(&arena, plan_size(units));
    struct ggc_plan * made = arena_zalloc(&arena, 1, sizeof(struct ggc_plan));
    if (made == NULL) {
        return GGC_E_NOMEM;
    }
    arena_move(&made->arena, &arena);
    arena_expect(&scratch, scratch_size(units));
    const enum ggc_status status = make_plan(made, units, params, &scratch);
    arena_free(&scratch);
    if (status != GGC_OK) {
        ggc_plan_free(made);
        return status;
    }
    *plan = made;
    return GGC_OK;
}

enum ggc_status ggc_plan_still_right(const struct ggc_plan * plan, const struct ggc_units * units,
                                     bool * kept) {
    if (plan == NULL || kept == NULL || units == NULL || !units_valid(units)) {
        return GGC_E_INVALID;
    }
    *kept = false;
    const uint32_t n = units->n_units;
    if (n != plan->stats.n_units) {
        return GGC_OK;
    }
    struct arena arena;
    struct hazards hazards;
    arena_init(&arena, plan->arena.allocator);
    const enum ggc_status status = hazards_find(&hazards, units, &arena, &arena);
    if (status == GGC_OK) {
        *kept = memcmp(hazards.begin, plan->hazards.begin, (n + 1) * sizeof(uint32_t)) == 0 &&
                memcmp(hazards.dep, plan->hazards.dep, hazards.begin[n] * sizeof(uint32_t)) == 0;
    }
    arena_free(&arena);
    return status;
}

void ggc_plan_free(struct ggc_plan * plan) {
    if (plan != NULL) {
        struct arena arena;
        arena_move(&arena, &plan->arena);  // the plan lies in its own arena
        arena_free(&arena);
    }
}

struct ggc_schedule ggc_plan_schedule(const struct ggc_plan * plan) {
    return (struct ggc_schedule) {
        .n_units = plan->stats.n_units,
        .n_streams = plan->streams.n_streams,
        .order = plan->streams.order,
        .stream = plan->streams.stream,
        .wait_begin = plan->streams.wait_begin,
        .waits = plan->streams.waits,
    };
}

struct ggc_plan_stats ggc_plan_get_stats(const struct ggc_plan * plan) {
    return plan->stats;
}

const uint32_t * ggc_plan_phases(const struct ggc_plan * plan) {
    return plan->phase;
}

const uint32_t * ggc_plan_deps(const struct ggc_plan * plan, uint32_t unit, uint32_t * n) {
    if (unit >= plan->stats.n_units) {
        *n = 0;
        return NULL;
    }
    *n = plan->hazards.begin[unit + 1] - plan->hazards.begin[unit];
    return plan->hazards.dep + plan->hazards.begin[unit];
}
