// One slot is over before another begins if it is in all keys. For each key, slots are taken in
// the order in which they end, and those that look back in the order in which they begin:
//
//     ends      a     b        c   d      e
//     begins       1      2 3        4         2 has a and b behind it, 4 all but e
//
// What has ended by then is a set of bits, and each row keeps only what is in the sets of all keys.
// So a pair of slots costs a few bits, and there is none to be looked at by itself.
#include "memory_window.h"

#include <math.h>
#include <string.h>

#include "radix.h"

//
// 1. Keys
//

static bool sort_slots(struct slot_order * order, const struct memory * m) {
    struct keyed * items = arena_alloc(m->arena, order->n, sizeof(struct keyed));
    struct keyed * spare = arena_alloc(m->arena, order->n, sizeof(struct keyed));
    if (items == NULL || spare == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < order->n; i++) {
        items[i] = (struct keyed) {m->slots[i].kept ? 0 : (uint64_t) m->slots[i].first + 1, i};
    }
    const struct keyed * sorted = radix_sort(items, spare, order->n, m->problem->n_units);
    for (uint32_t i = 0; i < order->n; i++) {
        order->slot[i] = sorted[i].value;
    }
    return true;
}

static void find_stream_keys(struct slot_order * order, const struct memory * m) {
    const uint32_t n = m->n_streams;
    for (uint32_t i = 0; i < order->n; i++) {
        const size_t row = (size_t) order->slot[i] * n;
        for (uint32_t s = 0; s < n; s++) {
            order->last[s][i] = m->last[row + s];
            // of what nobody uses, all bits are set; it is kept, whatever is over by then
            order->first[s][i] = m->known[row + s] == GGC_NONE ? 0 : m->known[row + s];
        }
    }
}

static void find_serial_keys(struct slot_order * order, const struct memory * m) {
    uint32_t *last = order->last[order->n_keys - 1], *first = order->first[order->n_keys - 1];
    for (uint32_t i = 0; i < order->n; i++) {
        const struct slot * slot = &m->slots[order->slot[i]];
        last[i] = slot->kept || slot->result ? GGC_NONE : slot->last + 1;
        first[i] = slot->kept ? 0 : slot->first;
    }
}

// Bytes in use at once, one unit after another.
static bool find_serial_peak(struct slot_order * order, const struct memory * m) {
    const uint32_t n = m->problem->n_units;
    uint64_t * ended = arena_zalloc(m->arena, (size_t) n + 1, sizeof(uint64_t));
    uint64_t alive = 0;
    for (uint32_t i = 0, unit = 0; ended != NULL && i < order->n; i++) {
        const struct slot * slot = &m->slots[order->slot[i]];
        for (; !slot->kept && unit < slot->first; unit++) {
            alive -= ended[unit];
        }
        alive += slot->size;
        if (!slot->kept && !slot->result) {
            ended[slot->last] += slot->size;
        }
        order->peak = alive > order->peak ? alive : order->peak;
    }
    return ended != NULL;
}

// What is in use between two units that start one after the other shares nothing.
static bool find_time_keys(struct slot_order * order, const struct memory * m, double slack) {
    const uint32_t n = m->problem->n_units, k = order->n_streams;
    int64_t * change = arena_zalloc(m->arena, (size_t) n + 1, sizeof(int64_t));
    int64_t alive = 0, peak = 0;
    for (uint32_t i = 0; change != NULL && i < order->n; i++) {
        const struct slot * slot = &m->slots[order->slot[i]];
        order->last[k][i] = slot->ends;
        order->first[k][i] = slot->kept ? 0 : slot->begins;
        change[order->first[k][i]] += (int64_t) slot->size;
        change[slot->ends] -= slot->kept || slot->result ? 0 : (int64_t) slot->size;
    }
    for (uint32_t r = 0; change != NULL && r <= n; r++) {
        alive += change[r];
        peak = alive > peak ? alive : peak;
    }
    order->peak = slack <= 0 ? (uint64_t) peak : 0;
    return change != NULL;
}

static bool find_least(struct slot_order * order, const struct memory * m) {
    const uint32_t n_keys = order->n_keys, n_windows = order->n / order->window + 1;
    uint32_t least[MAX_KEYS];
    memset(least, 0xff, sizeof(least));
    order->least = arena_alloc(m->arena, (size_t) n_windows * n_keys, sizeof(uint32_t));
    for (uint32_t i = order->n; order->least != NULL && i-- > 0;) {
        for (uint32_t k = 0; k < n_keys; k++) {
            least[k] = order->first[k][i] < least[k] ? order->first[k][i] : least[k];
        }
        if (i % order->window == 0) {
            memcpy(order->least + (size_t) (i / order->window) * n_keys, least,
                   n_keys * sizeof(uint32_t));
        }
    }
    return order->least != NULL;
}

// Without slack, what the plan knows to be over is over by the times as well.
bool slot_order_init(struct slot_order * order, const struct memory * m, double slack,
                     uint32_t window) {
    const bool by_time = isfinite(slack);
    order->n = m->n_slots;
    order->n_streams = slack > 0 ? m->n_streams : 0;
    order->n_keys = order->n_streams + by_time + 1;
    order->window = window;
    order->peak = 0;
    order->slot = arena_alloc(m->arena, order->n, sizeof(uint32_t));
    for (uint32_t k = 0; k < order->n_keys; k++) {
        order->last[k] = arena_alloc(m->arena, order->n, sizeof(uint32_t));
        order->first[k] = arena_alloc(m->arena, order->n, sizeof(uint32_t));
        if (order->last[k] == NULL || order->first[k] == NULL) {
            return false;
        }
    }
    if (order->slot == NULL || !sort_slots(order, m)) {
        return false;
    }
    if (order->n_streams > 0) {
        find_stream_keys(order, m);
    }
    find_serial_keys(order, m);
    return (!by_time || find_time_keys(order, m, slack)) &&
           (order->n_keys > 1 || find_serial_peak(order, m)) && find_least(order, m);
}

bool is_over(const struct slot_order * order, uint32_t i, uint32_t from) {
    const uint32_t n = order->n_streams, serial = order->n_keys - 1;
    const uint32_t * least = order->least + (size_t) (from / order->window) * order->n_keys;
    bool known = n > 0 || serial == 0;
    for (uint32_t k = 0; k < n && known; k++) {
        known = order->last[k][i] <= least[k];
    }
    return order->last[serial][i] <= least[serial] &&
           (known || (n < serial && order->last[n][i] <= least[n]));
}

//
// 2. Rows
//

struct sweep {
    struct keyed *ends, *begins, *spare;  // columns, rows
    uint32_t * count;                     // of each key, where they are close together
    uint64_t * over;                      // columns
};

// How many keys there may be for each item that is sorted by counting.
#define SPARSE 4

// Keys below n_keys. Returns the array that holds the result; the other one is the spare one then.
static struct keyed * sort_keys(struct sweep * s, struct keyed * items, uint32_t n,
                                uint32_t n_keys) {
    struct keyed * sorted = s->spare;
    if (n_keys > SPARSE * n) {
        sorted = radix_sort(items, s->spare, n, n_keys);
    } else {
        memset(s->count, 0, n_keys * sizeof(uint32_t));
        for (uint32_t i = 0; i < n; i++) {
            s->count[items[i].key]++;
        }
        for (uint32_t k = 0, at = 0; k < n_keys; k++) {
            const uint32_t here = s->count[k];
            s->count[k] = at;
            at += here;
        }
        for (uint32_t i = 0; i < n; i++) {
            sorted[s->count[items[i].key]++] = items[i];
        }
    }
    s->spare = sorted == items ? s->spare : items;
    return sorted;
}

static bool sweep_init(struct sweep * s, const struct window * w, struct arena * arena) {
    const uint32_t n = w->n + w->n_before;
    s->ends = arena_alloc(arena, n, sizeof(struct keyed));
    s->begins = arena_alloc(arena, n, sizeof(struct keyed));
    s->spare = arena_alloc(arena, n, sizeof(struct keyed));
    s->count = arena_alloc(arena, (size_t) SPARSE * n, sizeof(uint32_t));
    s->over = arena_alloc(arena, w->words, sizeof(uint64_t));
    return s->ends != NULL && s->begins != NULL && s->spare != NULL && s->count != NULL &&
           s->over != NULL;
}

// A row is of use up to its own column, and for the columns before the window.
static void combine(const struct window * w, uint32_t i, const uint64_t * over, bool either) {
    uint64_t * row = w->conflicts + (size_t) i * w->words;
    const size_t begin = w->first_before / 64, end = i / 64 + 1;
    for (size_t k = 0; k < end; k++) {
        row[k] = either ? row[k] | over[k] : row[k] & over[k];
    }
    for (size_t k = begin; k < w->words; k++) {
        row[k] = either ? row[k] | over[k] : row[k] & over[k];
    }
}

// Each row keeps what is over by the key, or gets it as well.
static void sweep(struct sweep * s, const struct window * w, uint32_t key, bool either) {
    const uint32_t *last = w->order->last[key], *first = w->order->first[key];
    uint32_t low = GGC_NONE, high = 0, n = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        low = first[w->begin + i] < low ? first[w->begin + i] : low;
        high = first[w->begin + i] > high ? first[w->begin + i] : high;
    }
    for (uint32_t i = 0; i < w->n; i++) {
        s->begins[i] = (struct keyed) {first[w->begin + i] - low, i};
    }
    for (uint32_t i = 0; i < w->n + w->n_before; i++) {
        const bool own = i < w->n;
        const uint32_t end = last[own ? w->begin + i : w->before[i - w->n]];
        const uint32_t column = own ? i : w->first_before + i - w->n;
        if (end <= high) {
            s->ends[n++] = (struct keyed) {end > low ? end - low : 0, column};
        }
    }
    s->ends = sort_keys(s, s->ends, n, high - low + 1);
    s->begins = sort_keys(s, s->begins, w->n, high - low + 1);
    memset(s->over, 0, w->words * sizeof(uint64_t));
    for (uint32_t i = 0, k = 0; i < w->n; i++) {
        for (; k < n && s->ends[k].key <= s->begins[i].key; k++) {
            s->over[s->ends[k].value / 64] |= UINT64_C(1) << (s->ends[k].value % 64);
        }
        combine(w, s->begins[i].value, s->over, either);
    }
}

// Bit c of row r becomes bit r of row c.
static void transpose(uint64_t rows[64]) {
    uint64_t mask = UINT32_MAX;
    for (uint32_t j = 32; j > 0; j /= 2, mask ^= mask << j) {
        for (uint32_t k = 0; k < 64; k = ((k | j) + 1) & ~j) {
            const uint64_t swapped = (rows[k] >> j ^ rows[k | j]) & mask;
            rows[k] ^= swapped << j;
            rows[k | j] ^= swapped;
        }
    }
}

// What is over becomes what is not, of the columns that stand before each row; and each of the
// window's own is told, too, which come after it.
static void mirror(const struct window * w) {
    uint64_t block[64];
    for (uint32_t i = 0; i < w->n; i++) {
        uint64_t * row = w->conflicts + (size_t) i * w->words;
        for (size_t k = 0; k < w->words; k++) {
            row[k] = ~row[k];
        }
        row[i / 64] &= (UINT64_C(1) << (i % 64)) - 1;
        memset(row + i / 64 + 1, 0, (w->first_before / 64 - i / 64 - 1) * sizeof(uint64_t));
        if (w->n_before % 64 != 0) {
            row[w->words - 1] &= (UINT64_C(1) << (w->n_before % 64)) - 1;
        }
    }
    for (uint32_t r = 0; r < w->n; r += 64) {
        for (uint32_t c = 0; c <= r; c += 64) {
            const uint32_t n = w->n - r < 64 ? w->n - r : 64;
            uint64_t any = 0;
            for (uint32_t k = 0; k < 64; k++) {
                block[k] = k < n ? window_row(w, r + k)[c / 64] : 0;
                any |= block[k];
            }
            if (any == 0) {
                continue;
            }
            transpose(block);
            for (uint32_t k = 0; k < 64 && c + k < w->n; k++) {
                w->conflicts[(size_t) (c + k) * w->words + r / 64] |= block[k];
            }
        }
    }
}

void window_always(const struct window * w, uint64_t * columns) {
    memset(columns, 0xff, w->words * sizeof(uint64_t));
    for (uint32_t i = 0; i < w->n; i++) {
        for (size_t k = w->first_before / 64; k < w->words; k++) {
            columns[k] &= window_row(w, i)[k];
        }
    }
}

static void find_degrees(const struct window * w) {
    for (uint32_t i = 0; i < w->n; i++) {
        w->degree[i] = 0;
        for (size_t k = 0; k < w->words; k++) {
            w->degree[i] += (uint32_t) __builtin_popcountll(window_row(w, i)[k]);
        }
    }
}

bool window_init(struct window * w, struct arena * arena) {
    const struct slot_order * order = w->order;
    struct sweep s;
    w->first_before = (w->n + 63) / 64 * 64;
    w->words = (window_columns(w) + 63) / 64;
    w->conflicts = arena_alloc(arena, w->words * w->n, sizeof(uint64_t));
    w->degree = arena_alloc(arena, w->n, sizeof(uint32_t));
    if (w->conflicts == NULL || w->degree == NULL || !sweep_init(&s, w, arena)) {
        return false;
    }
    const bool by_time = order->n_keys > order->n_streams + 1;
    memset(w->conflicts, by_time && order->n_streams == 0 ? 0 : 0xff,
           w->words * w->n * sizeof(uint64_t));
    for (uint32_t k = 0; k < order->n_streams; k++) {
        sweep(&s, w, k, false);
    }
    if (by_time) {
        sweep(&s, w, order->n_streams, true);
    }
    sweep(&s, w, order->n_keys - 1, false);
    mirror(w);
    find_degrees(w);
    return true;
}
