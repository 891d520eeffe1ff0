#include "tuner.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS 3

// A turn: uncounted computations for this long, and at least and at most so many, then counted
// ones. Three: on CUDA the first one fills pools and the second is captured, which takes many times
// as long as what is then replayed.
#define WARM_MICROSECONDS 3000
#define WARM_LEAST 3
#define WARM_MOST 10
#define TURN_MICROSECONDS 2000
#define TURN_LEAST 2
#define TURN_MOST (TUNER_MAX_TIMES / ROUNDS)

// A way that takes so many times as long as the fastest has no chance.
#define HOPELESS 1.2

static int by_value(const void * a, const void * b) {
    const double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

double tuner_median(const struct tuner * tuner, uint32_t way) {
    const uint32_t n = tuner->ways[way].n_times;
    double sorted[TUNER_MAX_TIMES];
    if (n == 0) {
        return 0;
    }
    memcpy(sorted, tuner->ways[way].times, n * sizeof(double));
    qsort(sorted, n, sizeof(double), by_value);
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

void tuner_init(struct tuner * tuner, uint32_t n_ways, double worth_it) {
    memset(tuner, 0, sizeof(*tuner));
    tuner->n_ways = n_ways;
    tuner->worth_it = worth_it;
    tuner->settled = n_ways == 1;
}

static void settle(struct tuner * tuner) {
    uint32_t best = 0;
    for (uint32_t w = 1; w < tuner->n_ways; w++) {
        if (!tuner->ways[w].dropped &&
            tuner_median(tuner, w) < tuner->worth_it * tuner_median(tuner, best)) {
            best = w;
        }
    }
    tuner->current = best;
    tuner->settled = true;
}

// The first way is kept in the trial to the end: what is chosen is compared with it.
static uint32_t drop_hopeless(struct tuner * tuner) {
    double best = tuner_median(tuner, 0);
    for (uint32_t w = 1; w < tuner->n_ways; w++) {
        const double median = tuner_median(tuner, w);
        best = !tuner->ways[w].dropped && median < best ? median : best;
    }
    uint32_t n_left = 1;
    for (uint32_t w = 1; w < tuner->n_ways; w++) {
        tuner->ways[w].dropped |= tuner_median(tuner, w) > HOPELESS * best;
        n_left += !tuner->ways[w].dropped;
    }
    return n_left;
}

static void next_turn(struct tuner * tuner) {
    tuner->counts = false;
    tuner->n = 0;
    tuner->sum = 0;
    do {
        tuner->current++;
    } while (tuner->current < tuner->n_ways && tuner->ways[tuner->current].dropped);
    if (tuner->current < tuner->n_ways) {
        return;
    }
    tuner->current = 0;
    if (drop_hopeless(tuner) == 1 || ++tuner->round == ROUNDS) {
        settle(tuner);
    }
}

void tuner_note(struct tuner * tuner, double microseconds) {
    if (tuner->settled) {
        return;
    }
    tuner->n++;
    tuner->sum += microseconds;
    if (!tuner->counts) {
        if (tuner->n >= WARM_LEAST && (tuner->sum >= WARM_MICROSECONDS || tuner->n == WARM_MOST)) {
            tuner->counts = true;
            tuner->n = 0;
            tuner->sum = 0;
        }
        return;
    }
    struct tuner_way * way = &tuner->ways[tuner->current];
    way->times[way->n_times++] = microseconds;
    if (tuner->n >= TURN_LEAST && (tuner->sum >= TURN_MICROSECONDS || tuner->n == TURN_MOST)) {
        next_turn(tuner);
    }
}

void tuner_drop(struct tuner * tuner, uint32_t way) {
    if (tuner->settled || way == 0 || tuner->ways[way].dropped) {
        return;
    }
    tuner->ways[way].dropped = true;
    if (tuner->current == way) {
        next_turn(tuner);
    }
}
