#include "phase.h"

// What is known of a unit, together, since it is asked for one unit after another at random.
struct unit_use {
    uint32_t latest;       // the phase before the first successor's; GGC_NONE: no successor
    uint32_t first_phase;  // of those that depend on the unit: the earliest phase,
    uint32_t together;     // how many of them stand in it,
    uint32_t last_phase;   // and the latest phase
    uint64_t written;      // bytes that the unit writes
};

struct phaser {
    const struct ggc_units * units;
    const struct hazards * hazards;
    uint32_t * phase;
    uint32_t n_phases;
    uint32_t look_ahead;
    uint32_t *
        earliest_from;  // with look_ahead: the earliest phase of each unit and those after it
    struct unit_use * use;
    uint32_t * next;   // the next member of a unit's group; GGC_NONE: the last
    uint32_t * group;  // the first member of a unit's group
};

// Units this near to each other in the serial order, which depend on nothing and read the same
// input, form a group: the projections of one layer do, the loads of all layers do not.
#define GROUP_REACH 16

// 1. The earliest phase: one more than the latest of the dependences; and no earlier than that of
// any unit that must not be overtaken.
static void find_earliest(struct phaser * p) {
    uint32_t passed = 0;  // the latest phase of units more than look_ahead places before
    p->n_phases = 0;
    for (uint32_t u = 0; u < p->units->n_units; u++) {
        if (p->look_ahead > 0 && u > p->look_ahead) {
            const uint32_t last = p->phase[u - p->look_ahead - 1];
            passed = last > passed ? last : passed;
        }
        uint32_t phase = passed;
        for (uint32_t i = p->hazards->begin[u]; i < p->hazards->begin[u + 1]; i++) {
            const uint32_t after = p->phase[p->hazards->dep[i]] + 1;
            phase = after > phase ? after : phase;
        }
        p->phase[u] = phase;
        p->n_phases = phase + 1 > p->n_phases ? phase + 1 : p->n_phases;
    }
}

static uint64_t bytes_written(const struct ggc_units * units, uint32_t unit) {
    uint64_t bytes = 0;
    for (uint32_t i = units->access_begin[unit]; i < units->access_begin[unit + 1]; i++) {
        const struct ggc_access * access = &units->accesses[i];
        bytes += access->mode == GGC_WRITE ? access->run * access->count : 0;
    }
    return bytes;
}

// 2. Who reads what, at the earliest phases.
static void find_readers(struct phaser * p) {
    for (uint32_t u = 0; u < p->units->n_units; u++) {
        const uint32_t phase = p->phase[u];
        p->use[u] = (struct unit_use) {GGC_NONE, GGC_NONE, 0, 0, bytes_written(p->units, u)};
        for (uint32_t i = p->hazards->begin[u]; i < p->hazards->begin[u + 1]; i++) {
            struct unit_use * dep = &p->use[p->hazards->dep[i]];
            if (phase < dep->first_phase) {
                dep->first_phase = phase;
                dep->together = 0;
            }
            dep->together += phase == dep->first_phase;
            dep->last_phase = phase > dep->last_phase ? phase : dep->last_phase;
        }
    }
}

static bool is_source(const struct phaser * p, uint32_t unit) {
    return p->hazards->begin[unit] == p->hazards->begin[unit + 1];
}

static bool same_bytes(const struct ggc_access * a, const struct ggc_access * b) {
    return a->buffer == b->buffer && a->offset == b->offset && a->run == b->run &&
           a->count == b->count && (a->count <= 1 || a->stride == b->stride);
}

static bool share_an_input(const struct ggc_units * units, uint32_t u, uint32_t v) {
    for (uint32_t i = units->access_begin[u]; i < units->access_begin[u + 1]; i++) {
        for (uint32_t j = units->access_begin[v]; j < units->access_begin[v + 1]; j++) {
            if (units->accesses[i].mode == GGC_READ && units->accesses[j].mode == GGC_READ &&
                same_bytes(&units->accesses[i], &units->accesses[j])) {
                return true;
            }
        }
    }
    return false;
}

// 3. Groups of units that depend on nothing.
static void find_groups(struct phaser * p) {
    for (uint32_t u = 0; u < p->units->n_units; u++) {
        p->group[u] = u;
        p->next[u] = GGC_NONE;
        const uint32_t reach = u < GROUP_REACH ? u : GROUP_REACH;
        for (uint32_t v = u; is_source(p, u) && v-- > u - reach;) {
            if (p->next[v] == GGC_NONE && is_source(p, v) && share_an_input(p->units, u, v)) {
                p->next[v] = u;
                p->group[u] = p->group[v];
                break;
            }
        }
    }
}

// Whether unit u had better move from its earliest phase to `to`: nobody is left behind with whom
// it shares a result, and what it writes is larger than what is kept for it alone meanwhile.
static bool should_move(const struct phaser * p, uint32_t u, uint32_t to) {
    uint64_t kept = 0;
    for (uint32_t i = p->hazards->begin[u]; i < p->hazards->begin[u + 1]; i++) {
        const struct unit_use * dep = &p->use[p->hazards->dep[i]];
        if (dep->first_phase == p->phase[u] && dep->together > 1) {
            return false;
        }
        if (dep->last_phase < to) {
            kept += dep->written;
        }
    }
    return p->use[u].written > kept;
}

// How late unit u may stand: before its first successor, and where no unit overtakes it that must
// not. Units after u stand where they will, or a little earlier. GGC_NONE: nothing follows it.
static uint32_t latest_of(const struct phaser * p, uint32_t u) {
    const uint64_t after = (uint64_t) u + p->look_ahead + 1;
    if (p->look_ahead == 0 || p->use[u].latest == GGC_NONE || after >= p->units->n_units) {
        return p->use[u].latest;
    }
    return p->earliest_from[after] < p->use[u].latest ? p->earliest_from[after] : p->use[u].latest;
}

// A group moves as one, to the latest phase that suits all its members.
static void move_group(struct phaser * p, uint32_t first) {
    uint32_t to = GGC_NONE;
    for (uint32_t u = first; u != GGC_NONE; u = p->next[u]) {
        const uint32_t latest = latest_of(p, u);
        to = latest < to ? latest : to;
    }
    for (uint32_t u = first; to != GGC_NONE && u != GGC_NONE; u = p->next[u]) {
        p->phase[u] = to > p->phase[u] ? to : p->phase[u];
    }
}

static void note_earliest(struct phaser * p, uint32_t u) {
    if (p->look_ahead > 0) {
        const bool last = u + 1 == p->units->n_units;
        const uint32_t rest = last ? GGC_NONE : p->earliest_from[u + 1];
        p->earliest_from[u] = p->phase[u] < rest ? p->phase[u] : rest;
    }
}

// 4. Back to front, so that what a unit waits for has moved before it; a group when its first
// member's turn comes, since nobody waits on it earlier.
static void move_later(struct phaser * p) {
    for (uint32_t u = p->units->n_units; u-- > 0;) {
        if (is_source(p, u)) {
            if (p->group[u] == u) {
                move_group(p, u);
            }
            note_earliest(p, u);
            continue;
        }
        const uint32_t to = latest_of(p, u);
        if (to != GGC_NONE && to > p->phase[u] && should_move(p, u, to)) {
            p->phase[u] = to;
        }
        note_earliest(p, u);
        for (uint32_t i = p->hazards->begin[u]; i < p->hazards->begin[u + 1]; i++) {
            uint32_t * latest = &p->use[p->hazards->dep[i]].latest;
            *latest = p->phase[u] - 1 < *latest ? p->phase[u] - 1 : *latest;
        }
    }
}

enum ggc_status phases_find(uint32_t * phase, uint32_t * n_phases, const struct ggc_units * units,
                            const struct hazards * hazards, uint32_t look_ahead,
                            struct arena * scratch) {
    const uint32_t n = units->n_units;
    struct phaser p = {
        .units = units, .hazards = hazards, .phase = phase, .look_ahead = look_ahead};
    p.earliest_from = arena_alloc(scratch, look_ahead > 0 ? n : 0, sizeof(uint32_t));
    p.use = arena_alloc(scratch, n, sizeof(struct unit_use));
    p.next = arena_alloc(scratch, n, sizeof(uint32_t));
    p.group = arena_alloc(scratch, n, sizeof(uint32_t));
    if (p.earliest_from == NULL || p.use == NULL || p.next == NULL || p.group == NULL) {
        return GGC_E_NOMEM;
    }
    find_earliest(&p);
    find_readers(&p);
    find_groups(&p);
    move_later(&p);
    *n_phases = p.n_phases;
    return GGC_OK;
}
