// What memory.c knows of a plan and its tensors, and what the others make of it.
#pragma once

#include "memory.h"

// Tensors of which each is written in the place of the last one, or one alone.
struct slot {
    uint64_t size, offset;
    uint32_t first, last;   // the units that access it first and last, serially
    uint32_t issued;        // the place in the plan's order of the one that is issued first
    uint32_t begins, ends;  // when these accesses do, as memory_rank_times says
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
    uint32_t *begins, *ends;  // of each unit, as memory_rank_times says
    uint64_t max_buffer;
    bool hasty;  // slots are placed with less pains

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

static inline double memory_cost(const struct memory_problem * problem, uint32_t unit) {
    return problem->cost != NULL ? problem->cost[unit] : 1.0;
}

// memory.c. Nothing but the problem in it yet; then its arrays, in `arena`: false when out of it.
struct memory memory_for(const struct memory_problem * problem, struct arena * arena);
bool memory_init(struct memory * m);
bool memory_valid(const struct memory_problem * problem);
// What each unit knows, and when it runs; false: the schedule is none.
bool memory_walk(struct memory * m);
// By the ranks, where the slack is finite.
void memory_find_slots(struct memory * m, double slack);
enum ggc_status memory_find_bound(const struct memory * m, uint64_t * bound);
void memory_place_apart(struct memory * m, uint64_t * offset, struct memory_layout * layout);
// place_slots for the slots that were found, and nothing left behind in the arena.
enum ggc_status memory_place(struct memory * m, double slack, uint64_t goal, uint64_t most,
                             uint64_t * size);
void memory_take(const struct memory * m, uint64_t size, enum memory_sharing sharing, double slack,
                 uint64_t * offset, struct memory_layout * layout);
// memory_times.c.
// Sorts units by a time of each; equals stay as they are.
enum ggc_status memory_sort(const struct memory * m, const double * time, uint32_t * order);
// For each unit, how many start before it does, and how many do before it has finished and `slack`
// has passed: one is over when another begins if `ends` of the one is at most `begins` of the
// other. `order` gets the units as they start; of equals the one that takes no time comes first,
// then the serially first: the others may have to come after it. GGC_E_NOMEM.
enum ggc_status memory_rank_times(struct memory * m, double slack, uint32_t * order);

// memory_place.c: gives each slot an offset; *size gets the bytes of all buffers together. More
// pains are taken where that is more than `goal`. Where it is sure beforehand that it is more than
// `most`, no slot gets any, and *size is what is sure. GGC_E_NOMEM.
enum ggc_status place_slots(struct memory * m, double slack, uint64_t goal, uint64_t most,
                            uint64_t * size);

// memory_schedule.c: for the slots of the serial order in `m`, which stay as they are, and for the
// problem's dependences.
struct scheduler;
struct scheduler * scheduler_new(const struct memory * m);  // in the arena; NULL when out of memory
// Bytes that are in use at once serially: no layout is smaller.
uint64_t scheduler_least(const struct scheduler * scheduler);
// Places all units on streams once more so that they should need no more than `budget` bytes at
// once. No unit runs further ahead of the longest chain than `ahead`, a part of it. Writes
// m->start, m->finish, and each unit's stream; returns when the last one ends. Infinite, and only a
// part is written: it would take more than `most` bytes, or end no earlier than `limit`.
double scheduler_run(struct scheduler * scheduler, uint64_t budget, double ahead, uint64_t most,
                     double limit, uint32_t * stream);
