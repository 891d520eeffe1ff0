// Chooses among several ways of computing one graph by timing them on computations that are made
// anyway. Each way has its turns, one after another, in several rounds; a turn begins with
// computations that do not count, until what the way before has left (awake threads, caches) is
// gone. A way that is clearly slower is not tried again. Knows nothing of graphs.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TUNER_MAX_WAYS 16
#define TUNER_MAX_TIMES 32

struct tuner_way {
    double times[TUNER_MAX_TIMES];  // microseconds, of the computations that count
    uint32_t n_times;
    bool dropped;
};

struct tuner {
    struct tuner_way ways[TUNER_MAX_WAYS];
    uint32_t n_ways;
    double worth_it;
    uint32_t current;  // the way of the next computation; once settled, the one that is kept
    bool settled;
    uint32_t round;
    // of the turn
    bool counts;
    uint32_t n;
    double sum;
};

// n_ways at least 1, at most TUNER_MAX_WAYS, in order of preference: a later way is chosen only if
// it takes less than `worth_it` of the time of every earlier one, which is to be more than the
// noise of a measurement. One way alone is settled at once.
void tuner_init(struct tuner * tuner, uint32_t n_ways, double worth_it);

// Takes the time of a computation in the current way, and decides which way is next.
void tuner_note(struct tuner * tuner, double microseconds);

// A way, not the first, that turns out not to be had.
void tuner_drop(struct tuner * tuner, uint32_t way);

// The median time of a way; 0 where it was not timed.
double tuner_median(const struct tuner * tuner, uint32_t way);
