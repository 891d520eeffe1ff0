#include "arena.h"
#include "ggc-core.h"

static double cost_of(const struct ggc_units * units, uint32_t unit) {
    return units->cost != NULL ? units->cost[unit] : 1.0;
}

// When each unit can start at the earliest; returns when the last one ends.
static double find_starts(const struct ggc_plan * plan, const struct ggc_units * units,
                          double * start) {
    double end = 0;
    for (uint32_t u = 0; u < units->n_units; u++) {
        start[u] = 0;
        uint32_t n;
        const uint32_t * deps = ggc_plan_deps(plan, u, &n);
        for (uint32_t i = 0; i < n; i++) {
            const double ready = start[deps[i]] + cost_of(units, deps[i]);
            start[u] = ready > start[u] ? ready : start[u];
        }
        const double finish = start[u] + cost_of(units, u);
        end = finish > end ? finish : end;
    }
    return end;
}

// From the start of each unit to the end of the longest chain that begins with it.
static void find_tails(const struct ggc_plan * plan, const struct ggc_units * units,
                       double * tail) {
    for (uint32_t u = units->n_units; u-- > 0;) {
        tail[u] += cost_of(units, u);
        uint32_t n;
        const uint32_t * deps = ggc_plan_deps(plan, u, &n);
        for (uint32_t i = 0; i < n; i++) {
            double * before = &tail[deps[i]];
            *before = tail[u] > *before ? tail[u] : *before;
        }
    }
}

enum ggc_status ggc_plan_slack(const struct ggc_plan * plan, const struct ggc_units * units,
                               double * slack) {
    if (plan == NULL || units == NULL || slack == NULL ||
        units->n_units != ggc_plan_get_stats(plan).n_units) {
        return GGC_E_INVALID;
    }
    struct arena scratch;
    arena_init(&scratch, NULL);
    double * tail = arena_zalloc(&scratch, units->n_units, sizeof(double));
    if (tail != NULL) {
        const double end = find_starts(plan, units, slack);
        find_tails(plan, units, tail);
        for (uint32_t u = 0; u < units->n_units; u++) {
            const double left = end - slack[u] - tail[u];
            slack[u] = left > 0 ? left : 0;  // rounding aside
        }
    }
    arena_free(&scratch);
    return tail != NULL ? GGC_OK : GGC_E_NOMEM;
}
