// What memory.c knows of a plan and its tensors, and what memory_place.c makes of it.
#pragma once

#include "memory.h"

// Tensors of which each is written in the place of the last one, or one alone.
struct slot {
    uint64_t size, offset;
    uint32_t first, last;  // the units that access it first and last, serially
    uint32_t issued;       // the place in the plan's order of the one that is issued first
    double start, finish;  // when these accesses begin and end, in microseconds
    bool kept, result;
};

struct memory {
    const struct memory_problem * problem;
    uint32_t n_streams;
    uint32_t * issue;     // the place of each unit in the plan's order
    uint32_t * position;  // and on its stream
    // rows of n_streams: how many units of each stream have finished once this one has
    uint32_t * clock;
    double *start, *finish;  // of each unit, as the plan is expected to run
    double makespan;
    uint64_t max_buffer;

    struct slot * slots;
    uint32_t n_slots;
    uint32_t * slot_of;  // of each tensor; GGC_NONE: it takes no memory
    bool * taken_over;   // of each tensor
    // rows of n_streams for each slot: what any access to it has behind it, itself counted; and
    // what has finished once all of them have
    uint32_t *known, *last;
    struct arena * arena;
};

static inline bool row_within(const uint32_t * a, const uint32_t * b, uint32_t n) {
    for (uint32_t s = 0; s < n; s++) {
        if (a[s] > b[s]) {
            return false;
        }
    }
    return true;
}

static inline void row_join(uint32_t * a, const uint32_t * b, uint32_t n) {
    for (uint32_t s = 0; s < n; s++) {
        a[s] = a[s] > b[s] ? a[s] : b[s];
    }
}

// Gives each slot an offset; *size gets the bytes of all buffers together. GGC_E_NOMEM.
enum ggc_status place_slots(struct memory * m, double slack, uint64_t * size);
