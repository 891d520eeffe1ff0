// Walks the units in serial order and keeps, for every byte that some unit writes, who wrote it
// last and who has read it since. Bytes with the same history form a segment:
//
//     write A [0,90)          |------------ A -------------|
//     read  B [30,60)         |--- A ---|- A, B -|--- A ---|      B after A         (RAW)
//     write C [45,75)         |--- A ---|A,B|--- C --|- A -|      C after A and B   (WAW, WAR)
//     read  D [0,90)          all four segments                   D after A and C   (RAW)
//
// A contiguous write replaces the segments it covers by one, so their number stays bounded by the
// accesses, and each access costs what it touches. Interleaved stripes (count > 1) neither cover
// nor are covered exactly, so they hang on the segments as a list of their own and are compared
// one by one with what comes later.
#include "hazard.h"

#include <string.h>

#include "bitset.h"
#include "line.h"
#include "overlap.h"

// Lists share their tails: splitting a segment copies one index, clearing one sets it to 0.
struct cell {
    uint32_t item;  // a unit (readers) or an access (stripes)
    uint32_t next;  // 0: end of the list; cell 0 is never used
};

struct segment {
    uint32_t writer;   // GGC_NONE: nobody yet
    uint32_t readers;  // since then
    uint32_t stripes;  // strided accesses since then
};

struct tracker {
    const struct ggc_units * units;
    struct line line;
    struct arena * scratch;
    struct bitset starts;      // points at which a segment starts
    struct segment * segment;  // of each point that starts one
    struct cell * cells;
    uint32_t n_cells, max_cells;
    uint32_t * unit_of_access;

    // the unit at hand
    uint32_t unit;
    uint32_t fence;   // the last one before it, or GGC_NONE
    uint32_t * seen;  // seen[v] == unit + 1: v is a dependence already
    bool * has_successor;
    struct hazards * hazards;
    struct arena * out;
    uint32_t n_deps, max_deps;
};

static bool push_cell(struct tracker * t, uint32_t * list, uint32_t item) {
    if (t->n_cells == t->max_cells) {
        if (t->max_cells > UINT32_MAX / 2) {
            return false;
        }
        struct cell * grown = arena_grow(t->scratch, t->cells, t->n_cells,
                                         (size_t) t->max_cells * 2, sizeof(struct cell));
        if (grown == NULL) {
            return false;
        }
        t->cells = grown;
        t->max_cells *= 2;
    }
    t->cells[t->n_cells] = (struct cell) {item, *list};
    *list = t->n_cells++;
    return true;
}

static bool push_dep(struct tracker * t, uint32_t dep, enum ggc_hazard hazard) {
    if (t->n_deps == t->max_deps) {
        if (t->max_deps > UINT32_MAX / 2) {
            return false;
        }
        uint32_t * grown = arena_grow(t->out, t->hazards->dep, t->n_deps, (size_t) t->max_deps * 2,
                                      sizeof(uint32_t));
        if (grown == NULL) {
            return false;
        }
        t->hazards->dep = grown;
        t->max_deps *= 2;
    }
    t->seen[dep] = t->unit + 1;
    t->has_successor[dep] = true;
    t->hazards->dep[t->n_deps++] = dep;
    t->hazards->count[hazard]++;
    return true;
}

// The unit at hand comes after `dep`. Whatever lies before the last fence is ordered by it.
static bool depend(struct tracker * t, uint32_t dep, enum ggc_hazard hazard) {
    if (dep == t->unit || t->seen[dep] == t->unit + 1 ||
        (t->fence != GGC_NONE && dep <= t->fence)) {
        return true;
    }
    return push_dep(t, dep, hazard);
}

static void split(struct tracker * t, uint32_t point) {
    if (!bitset_has(&t->starts, point)) {
        t->segment[point] = t->segment[bitset_floor(&t->starts, point)];
        bitset_add(&t->starts, point);
    }
}

static enum ggc_hazard hazard_of(uint32_t earlier_mode, uint32_t later_mode) {
    if (later_mode == GGC_READ) {
        return GGC_RAW;
    }
    return earlier_mode == GGC_READ ? GGC_WAR : GGC_WAW;
}

// Dependences on the plain accesses of a segment.
static bool after_segment(struct tracker * t, const struct segment * segment, uint32_t mode) {
    if (segment->writer != GGC_NONE && !depend(t, segment->writer, hazard_of(GGC_WRITE, mode))) {
        return false;
    }
    if (mode == GGC_WRITE) {
        for (uint32_t c = segment->readers; c != 0; c = t->cells[c].next) {
            if (!depend(t, t->cells[c].item, GGC_WAR)) {
                return false;
            }
        }
    }
    return true;
}

// Dependences on the stripes of a segment; exact, whichever segment they were met in.
static bool after_stripes(struct tracker * t, const struct segment * segment,
                          const struct ggc_access * access) {
    for (uint32_t c = segment->stripes; c != 0; c = t->cells[c].next) {
        const struct ggc_access * earlier = &t->units->accesses[t->cells[c].item];
        if ((earlier->mode != GGC_WRITE && access->mode != GGC_WRITE) ||
            !access_overlap(earlier, access)) {
            continue;
        }
        if (!depend(t, t->unit_of_access[t->cells[c].item],
                    hazard_of(earlier->mode, access->mode))) {
            return false;
        }
    }
    return true;
}

static bool track_read(struct tracker * t, const struct ggc_access * access,
                       struct line_interval in) {
    for (uint32_t s = in.first; s < in.last; s = bitset_next(&t->starts, s, in.last)) {
        struct segment * segment = &t->segment[s];
        if (!after_segment(t, segment, GGC_READ) || !after_stripes(t, segment, access)) {
            return false;
        }
        const bool known = segment->readers != 0 && t->cells[segment->readers].item == t->unit;
        if (!known && !push_cell(t, &segment->readers, t->unit)) {
            return false;
        }
    }
    return true;
}

static bool track_write(struct tracker * t, const struct ggc_access * access,
                        struct line_interval in) {
    uint32_t s = in.first;
    while (s < in.last) {
        const struct segment * segment = &t->segment[s];
        if (!after_segment(t, segment, GGC_WRITE) || !after_stripes(t, segment, access)) {
            return false;
        }
        const uint32_t next = bitset_next(&t->starts, s, in.last);
        if (s != in.first) {
            bitset_remove(&t->starts, s);
        }
        s = next;
    }
    t->segment[in.first] = (struct segment) {t->unit, 0, 0};
    return true;
}

// A striped write hides the stripes that lie wholly in it.
static bool drop_covered(struct tracker * t, uint32_t * list, const struct ggc_access * access) {
    uint32_t kept = 0;
    bool dropped = false;
    for (uint32_t c = *list; c != 0 && !dropped; c = t->cells[c].next) {
        dropped = access_covers(access, &t->units->accesses[t->cells[c].item]);
    }
    if (!dropped) {
        return true;
    }
    for (uint32_t c = *list; c != 0; c = t->cells[c].next) {
        const uint32_t item = t->cells[c].item;
        if (!access_covers(access, &t->units->accesses[item]) && !push_cell(t, &kept, item)) {
            return false;
        }
    }
    *list = kept;
    return true;
}

static bool track_stripes(struct tracker * t, uint32_t index, struct line_interval in) {
    const struct ggc_access * access = &t->units->accesses[index];
    const uint64_t base = access->offset - t->line.at[in.first];  // line to buffer, modulo 2^64
    for (uint32_t s = in.first; s < in.last;) {
        struct segment * segment = &t->segment[s];
        const uint32_t next = bitset_next(&t->starts, s, in.last);
        if (access_touches(access, base + t->line.at[s], base + t->line.at[next])) {
            if (!after_segment(t, segment, access->mode) || !after_stripes(t, segment, access) ||
                (access->mode == GGC_WRITE && !drop_covered(t, &segment->stripes, access)) ||
                !push_cell(t, &segment->stripes, index)) {
                return false;
            }
        }
        s = next;
    }
    return true;
}

static bool track_access(struct tracker * t, uint32_t index) {
    const struct ggc_access * access = &t->units->accesses[index];
    const struct line_interval in = t->line.interval[index];
    if (in.first == in.last) {
        return true;
    }
    split(t, in.first);
    split(t, in.last);
    if (access->count > 1) {
        return track_stripes(t, index, in);
    }
    return access->mode == GGC_READ ? track_read(t, access, in) : track_write(t, access, in);
}

// A fence comes after everything since the last one: enough to name those that nobody follows.
static bool track_fence(struct tracker * t) {
    for (uint32_t v = t->fence == GGC_NONE ? 0 : t->fence; v < t->unit; v++) {
        if (!t->has_successor[v] && !push_dep(t, v, GGC_FENCE)) {
            return false;
        }
    }
    t->fence = t->unit;
    return true;
}

static bool track_unit(struct tracker * t) {
    const struct ggc_units * units = t->units;
    const uint32_t n_before = t->n_deps;
    if (units->fence != NULL && units->fence[t->unit]) {
        return track_fence(t);
    }
    for (uint32_t i = units->access_begin[t->unit]; i < units->access_begin[t->unit + 1]; i++) {
        t->unit_of_access[i] = t->unit;
        if (!track_access(t, i)) {
            return false;
        }
    }
    return t->n_deps > n_before || t->fence == GGC_NONE || push_dep(t, t->fence, GGC_FENCE);
}

static void sift_down(uint32_t * heap, uint32_t i, uint32_t n) {
    const uint32_t item = heap[i];
    for (uint32_t child = 2 * i + 1; child < n; i = child, child = 2 * i + 1) {
        child += child + 1 < n && heap[child + 1] > heap[child];
        if (heap[child] <= item) {
            break;
        }
        heap[i] = heap[child];
    }
    heap[i] = item;
}

// Heap sort: no memory, and a wide fan-in is no worst case.
static void sort_row(uint32_t * row, uint32_t n) {
    for (uint32_t i = n / 2; i-- > 0;) {
        sift_down(row, i, n);
    }
    for (uint32_t end = n; end-- > 1;) {
        const uint32_t largest = row[0];
        row[0] = row[end];
        row[end] = largest;
        sift_down(row, 0, end);
    }
}

static bool tracker_init(struct tracker * t, const struct ggc_units * units) {
    const size_t n_accesses = units->access_begin[units->n_units];
    const uint32_t n_points = t->line.n_points;
    t->n_cells = 1;
    t->max_cells = 1024;
    t->max_deps = 1024;
    t->fence = GGC_NONE;
    t->cells = arena_alloc(t->scratch, t->max_cells, sizeof(struct cell));
    t->segment = arena_alloc(t->scratch, (size_t) n_points + 1, sizeof(struct segment));
    t->unit_of_access = arena_alloc(t->scratch, n_accesses, sizeof(uint32_t));
    t->seen = arena_zalloc(t->scratch, units->n_units, sizeof(uint32_t));
    t->has_successor = arena_zalloc(t->scratch, units->n_units, sizeof(bool));
    t->hazards->begin = arena_alloc(t->out, (size_t) units->n_units + 1, sizeof(uint32_t));
    t->hazards->dep = arena_alloc(t->out, t->max_deps, sizeof(uint32_t));
    if (t->cells == NULL || t->segment == NULL || t->unit_of_access == NULL || t->seen == NULL ||
        t->has_successor == NULL || t->hazards->begin == NULL || t->hazards->dep == NULL ||
        !bitset_init(&t->starts, t->scratch, n_points + 1)) {
        return false;
    }
    t->segment[0] = (struct segment) {GGC_NONE, 0, 0};
    bitset_add(&t->starts, 0);
    return true;
}

enum ggc_status hazards_find(struct hazards * hazards, const struct ggc_units * units,
                             struct arena * out, struct arena * scratch) {
    struct tracker t = {.units = units, .hazards = hazards, .out = out, .scratch = scratch};
    memset(hazards, 0, sizeof(*hazards));
    const enum ggc_status status = line_init(&t.line, units, scratch);
    if (status != GGC_OK) {
        return status;
    }
    if (!tracker_init(&t, units)) {
        return GGC_E_NOMEM;
    }
    for (t.unit = 0; t.unit < units->n_units; t.unit++) {
        const uint32_t begin = t.n_deps;
        hazards->begin[t.unit] = begin;
        if (!track_unit(&t)) {
            return GGC_E_NOMEM;
        }
        sort_row(hazards->dep + begin, t.n_deps - begin);
    }
    hazards->begin[units->n_units] = t.n_deps;
    return GGC_OK;
}
