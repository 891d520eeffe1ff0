// Which slots may not share bytes with which: as rows of bits, for a window of the serial order.
#pragma once

#include "memory_slots.h"

// What says that one slot is over before another begins: for each stream, that it has got so far;
// that the times lie far enough apart; and that it is so serially.
#define MAX_KEYS (GGC_MAX_STREAMS + 2)

// The slots in the serial order, those that are kept before all others. In each key k, the slot at
// `i` is over before the one at `j` begins if last[k][i] <= first[k][j].
struct slot_order {
    uint32_t n, n_keys, n_streams;  // keys: n_streams, by time unless it is n_keys - 1, serially
    uint32_t * slot;
    uint32_t *last[MAX_KEYS], *first[MAX_KEYS];
    uint32_t * least;  // rows of n_keys, for every `window` slots: the least `first` from there on
    uint32_t window;
    uint64_t peak;  // bytes that are in use at once by the times, or serially: no layout is smaller
};

// False when out of memory; memory comes from m's arena. A slack of minus infinity: serially alone.
bool slot_order_init(struct slot_order * order, const struct memory * m, double slack,
                     uint32_t window);

// Whether the slot at `i` is over before any at `from` and after it begins; a window starts there.
bool is_over(const struct slot_order * order, uint32_t i, uint32_t from);

// Slots begin .. begin + n of the order, and who may not share bytes with them: each other, in the
// first columns, and those before them that are not over, from column `first_before` on.
struct window {
    const struct slot_order * order;
    uint32_t begin, n, first_before, n_before;
    const uint32_t * before;  // their places in the order
    size_t words;             // of a row
    uint64_t * conflicts;     // n rows
    uint32_t * degree;        // of each row: with how many columns it is in conflict
};

// False when out of memory; all memory comes from `arena`.
bool window_init(struct window * w, struct arena * arena);

static inline uint32_t window_columns(const struct window * w) {
    return w->first_before + w->n_before;
}

static inline const uint64_t * window_row(const struct window * w, uint32_t i) {
    return w->conflicts + (size_t) i * w->words;
}

// The columns that all rows are in conflict with, as bits.
void window_always(const struct window * w, uint64_t * columns);
