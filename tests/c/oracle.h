// The oracle: the third opinion on races, so slow and so plain that it can be believed. It knows
// one thing only: two units must stay in order when there is a byte that both touch and that one of
// them writes, or when one of them is a fence. It looks at every byte of every pair of units, and
// at the reachability of every pair in a schedule.
#pragma once

#include <stdlib.h>
#include <string.h>

#include "support.h"

struct test_oracle {
    uint32_t n_units;
    uint32_t words;       // of a row of bits
    uint64_t * conflict;  // row b, bit a: a < b and the two must stay in order
    uint64_t * closure;   // the same, and everything that follows from it
    uint32_t longest;     // units in the longest chain of conflicts
    double critical;      // the dearest such chain, in microseconds
};

struct footprint {
    uint32_t words;  // of one row
    uint64_t * reads;
    uint64_t * writes;
};

static inline uint32_t buffer_index(uint32_t * known, uint32_t * n, uint32_t buffer) {
    uint32_t i = 0;
    while (i < *n && known[i] != buffer) {
        i++;
    }
    if (i == *n) {
        CHECK_MSG(*n < 64, "the oracle takes at most 64 buffers");
        known[(*n)++] = buffer;
    }
    return i;
}

static inline void mark(uint64_t * row, uint32_t base, const struct ggc_access * access) {
    for (uint32_t i = 0; i < access->count; i++) {
        for (uint64_t j = 0; j < access->run; j++) {
            const uint64_t byte = access->offset + i * access->stride + j;
            CHECK_MSG(byte < TEST_UNIVERSE, "byte %llu is outside the oracle's universe",
                      (unsigned long long) byte);
            test_set_bit(row, base + (uint32_t) byte);
        }
    }
}

static inline struct footprint footprints(const struct ggc_units * units) {
    uint32_t known[64], n_buffers = 0;
    const uint32_t first = units->n_units ? units->access_begin[0] : 0;
    const uint32_t last = units->n_units ? units->access_begin[units->n_units] : 0;
    for (uint32_t i = first; i < last; i++) {
        buffer_index(known, &n_buffers, units->accesses[i].buffer);
    }
    struct footprint f;
    f.words = n_buffers * (TEST_UNIVERSE / 64);
    f.reads = test_alloc((size_t) units->n_units * f.words * sizeof *f.reads);
    f.writes = test_alloc((size_t) units->n_units * f.words * sizeof *f.writes);
    for (uint32_t u = 0; u < units->n_units; u++) {
        for (uint32_t i = units->access_begin[u]; i < units->access_begin[u + 1]; i++) {
            const struct ggc_access * a = &units->accesses[i];
            uint64_t * rows = a->mode == GGC_READ ? f.reads : f.writes;
            mark(rows + (size_t) u * f.words,
                 buffer_index(known, &n_buffers, a->buffer) * TEST_UNIVERSE, a);
        }
    }
    return f;
}

static inline bool touching(const struct footprint * f, uint32_t a, uint32_t b) {
    const uint64_t *ra = f->reads + (size_t) a * f->words, *wa = f->writes + (size_t) a * f->words;
    const uint64_t *rb = f->reads + (size_t) b * f->words, *wb = f->writes + (size_t) b * f->words;
    uint64_t both = 0;
    for (uint32_t i = 0; i < f->words; i++) {
        both |= (wa[i] & (rb[i] | wb[i])) | (ra[i] & wb[i]);
    }
    return both != 0;
}

static inline uint64_t * row(const struct test_oracle * oracle, uint64_t * rows, uint32_t u) {
    return rows + (size_t) u * oracle->words;
}

static inline void find_longest(struct test_oracle * o, const struct ggc_units * units) {
    uint32_t * length = test_alloc(o->n_units * sizeof *length);
    double * cost = test_alloc(o->n_units * sizeof *cost);
    o->longest = 0;
    o->critical = 0;
    for (uint32_t b = 0; b < o->n_units; b++) {
        for (uint32_t a = 0; a < b; a++) {
            if (test_bit(row(o, o->conflict, b), a)) {
                length[b] = length[a] > length[b] ? length[a] : length[b];
                cost[b] = cost[a] > cost[b] ? cost[a] : cost[b];
            }
        }
        length[b] += 1;
        cost[b] += units->cost ? units->cost[b] : 1;
        o->longest = length[b] > o->longest ? length[b] : o->longest;
        o->critical = cost[b] > o->critical ? cost[b] : o->critical;
    }
    free(length);
    free(cost);
}

// Units must keep to TEST_UNIVERSE bytes; at most 64 different buffers.
static inline void test_oracle_init(struct test_oracle * o, const struct ggc_units * units) {
    const uint32_t n = o->n_units = units->n_units;
    o->words = (n + 63) / 64;
    o->conflict = test_alloc((size_t) n * o->words * sizeof *o->conflict);
    o->closure = test_alloc((size_t) n * o->words * sizeof *o->closure);
    struct footprint f = footprints(units);
    for (uint32_t b = 0; b < n; b++) {
        for (uint32_t a = 0; a < b; a++) {
            const bool fence = units->fence && (units->fence[a] || units->fence[b]);
            if (!fence && !touching(&f, a, b)) {
                continue;
            }
            test_set_bit(row(o, o->conflict, b), a);
            test_set_bit(row(o, o->closure, b), a);
            for (uint32_t i = 0; i < o->words; i++) {
                row(o, o->closure, b)[i] |= row(o, o->closure, a)[i];
            }
        }
    }
    free(f.reads);
    free(f.writes);
    find_longest(o, units);
}

static inline void test_oracle_free(struct test_oracle * o) {
    free(o->conflict);
    free(o->closure);
    memset(o, 0, sizeof *o);
}

static inline bool test_oracle_conflict(const struct test_oracle * o, uint32_t a, uint32_t b) {
    return test_bit(row(o, o->conflict, b), a);
}

// What is ordered before each unit: everything before its predecessor on the stream, everything
// before those that it waits for, and these themselves.
static inline bool happens_before(const struct test_oracle * o, const struct ggc_schedule * s,
                                  uint64_t * before, bool * issued, uint32_t * last) {
    for (uint32_t i = 0; i < s->n_units; i++) {
        const uint32_t u = s->order[i];
        if (u >= s->n_units || issued[u] || s->stream[u] >= s->n_streams) {
            return false;
        }
        uint32_t w = s->wait_begin[u];
        const uint32_t end = s->wait_begin[u + 1];
        uint32_t p = last[s->stream[u]];
        while (p != GGC_NONE || w < end) {
            p = p != GGC_NONE ? p : s->waits[w++];
            if (p >= s->n_units || !issued[p]) {
                return false;
            }
            for (uint32_t j = 0; j < o->words; j++) {
                row(o, before, u)[j] |= row(o, before, p)[j];
            }
            test_set_bit(row(o, before, u), p);
            p = GGC_NONE;
        }
        issued[u] = true;
        last[s->stream[u]] = u;
    }
    return true;
}

// A row for each unit, to be freed; NULL where the schedule is none.
static inline uint64_t * reachability(const struct test_oracle * o, const struct ggc_schedule * s) {
    uint64_t * before = test_alloc((size_t) o->n_units * o->words * sizeof *before);
    bool * issued = test_alloc(o->n_units * sizeof *issued);
    uint32_t * last = test_alloc(s->n_streams * sizeof *last);
    memset(last, 0xff, s->n_streams * sizeof *last);
    if (!happens_before(o, s, before, issued, last)) {
        free(before);
        before = NULL;
    }
    free(issued);
    free(last);
    return before;
}

// GGC_OK, GGC_E_RACE or GGC_E_INVALID, by the reachability of every pair.
static inline enum ggc_status test_oracle_schedule(const struct test_oracle * o,
                                                   const struct ggc_schedule * s) {
    uint64_t * before = reachability(o, s);
    enum ggc_status status = before ? GGC_OK : GGC_E_INVALID;
    for (size_t i = 0; status == GGC_OK && i < (size_t) o->n_units * o->words; i++) {
        status = (o->conflict[i] & ~before[i]) ? GGC_E_RACE : GGC_OK;
    }
    free(before);
    return status;
}

// Whether `schedule` (one that the oracle does not call invalid) has a finish before b starts.
static inline bool test_oracle_ordered(const struct test_oracle * o, const struct ggc_schedule * s,
                                       uint32_t a, uint32_t b) {
    uint64_t * before = reachability(o, s);
    const bool ordered = before && test_bit(row(o, before, b), a);
    free(before);
    return ordered;
}

// Whether no two units of one phase are ordered: the concurrency of the phases is kept.
static inline bool test_oracle_keeps_phases(const struct test_oracle * o,
                                            const struct ggc_schedule * s, const uint32_t * phase) {
    uint64_t * before = reachability(o, s);
    bool kept = before != NULL;
    for (uint32_t b = 0; kept && b < o->n_units; b++) {
        for (uint32_t a = 0; kept && a < o->n_units; a++) {
            kept = !test_bit(row(o, before, b), a) || phase[a] < phase[b];
        }
    }
    free(before);
    return kept;
}

static inline enum ggc_status test_oracle_phases(const struct test_oracle * o,
                                                 const uint32_t * phase) {
    for (uint32_t b = 0; b < o->n_units; b++) {
        for (uint32_t a = 0; a < b; a++) {
            if (test_oracle_conflict(o, a, b) && phase[a] >= phase[b]) {
                return GGC_E_RACE;
            }
        }
    }
    return GGC_OK;
}
