// Slots find their places one after another, each in the smallest gap between those that it may not
// share bytes with:
//
//     |== a ==|          |==== b ====|     |= c =|         in conflict with the slot at hand
//        |----- d -----|       |-- e --|                   not
//             ^^^^^^^^^^                                   where it goes
//
// The largest come first, as is usual where lifetimes are known, but only within a window of the
// serial order: what is over before anything of the later windows begins need not be looked at any
// more, so that time grows with the number of slots and not with its square.
#include <math.h>
#include <string.h>

#include "memory_slots.h"
#include "radix.h"

// Slots.
#define WINDOW 1024

// A slot that has its place, with what its neighbours ask most often.
struct placed {
    uint64_t offset, end;
    uint32_t first, last;  // units; last is GGC_NONE where nobody comes after it
    uint32_t passed;       // the units before this one have all finished before the first access
    uint32_t slot;
};

// For each place on a stream, the serially first unit from there on: rows of length[s] + 1, one
// stream after another, beginning at row_at[s]. NULL when out of memory.
static uint32_t * first_units(const struct memory * m, uint32_t * row_at) {
    const struct ggc_schedule * schedule = &m->problem->schedule;
    const uint32_t n = m->problem->n_units;
    uint32_t * first = arena_alloc(m->arena, (size_t) n + m->n_streams, sizeof(uint32_t));
    uint32_t length[GGC_MAX_STREAMS] = {0}, at = 0;
    for (uint32_t u = 0; u < n; u++) {
        length[schedule->stream[u]]++;
    }
    for (uint32_t s = 0; s < m->n_streams; s++) {
        row_at[s] = at;
        at += length[s] + 1;
    }
    for (uint32_t u = 0; first != NULL && u < n; u++) {
        first[row_at[schedule->stream[u]] + m->position[u]] = u;
    }
    for (uint32_t s = 0; first != NULL && s < m->n_streams; s++) {
        uint32_t * row = first + row_at[s];
        row[length[s]] = GGC_NONE;
        for (uint32_t k = length[s]; k-- > 0;) {
            row[k] = row[k] < row[k + 1] ? row[k] : row[k + 1];
        }
    }
    return first;
}

static struct placed describe(const struct memory * m, uint32_t slot, const uint32_t * first,
                              const uint32_t * row_at) {
    const struct slot * s = &m->slots[slot];
    const uint32_t * known = m->known + (size_t) slot * m->n_streams;
    struct placed placed = {.first = s->kept ? 0 : s->first,
                            .last = s->kept || s->result ? GGC_NONE : s->last,
                            .slot = slot};
    for (uint32_t k = 0; k < m->n_streams && !s->kept; k++) {
        const uint32_t unit = first[row_at[k] + known[k]];
        placed.passed = k == 0 || unit < placed.passed ? unit : placed.passed;
    }
    // the first unit knows itself
    placed.passed = placed.passed < placed.first ? placed.passed : placed.first;
    return placed;
}

static bool comes_before(const struct memory * m, double slack, const struct placed * a,
                         const struct placed * b) {
    if (a->last >= b->first || a->last < b->passed) {
        return a->last < b->first;
    }
    const uint32_t n = m->n_streams;
    return row_within(m->last + (size_t) a->slot * n, m->known + (size_t) b->slot * n, n) ||
           m->slots[a->slot].finish + slack <= m->slots[b->slot].start;
}

// The smallest gap between those placed (by offset) that the slot may not share bytes with, or the
// first place behind them.
static uint64_t find_gap(const struct memory * m, double slack, const struct placed * slot,
                         const struct placed * placed, uint32_t n_placed) {
    const uint64_t size = m->slots[slot->slot].size, buffer = m->max_buffer;
    uint64_t at = 0, best = UINT64_MAX, best_gap = UINT64_MAX;
    for (uint32_t i = 0; i < n_placed; i++) {
        const struct placed * other = &placed[i];
        if (other->end <= at || comes_before(m, slack, slot, other) ||
            comes_before(m, slack, other, slot)) {
            continue;
        }
        if (at + size <= other->offset && other->offset - at < best_gap) {
            const uint64_t begin = at % buffer + size > buffer ? (at / buffer + 1) * buffer : at;
            if (begin + size <= other->offset) {
                best = begin;
                best_gap = other->offset - at;
            }
        }
        at = other->end;
    }
    if (best != UINT64_MAX) {
        return best;
    }
    return at % buffer + size > buffer ? (at / buffer + 1) * buffer : at;
}

// Bytes of all buffers: each ends where its last slot does.
static uint64_t bytes_of(const struct memory * m) {
    uint64_t size = 0, end = 0;
    for (uint32_t i = 0; i < m->n_slots; i++) {
        const uint64_t last = m->slots[i].offset + m->slots[i].size;
        end = last > end ? last : end;
    }
    size = end;
    if (end <= m->max_buffer) {
        return size;
    }
    for (uint64_t buffer = 0; buffer < end; buffer += m->max_buffer) {
        uint64_t top = buffer;
        for (uint32_t i = 0; i < m->n_slots; i++) {
            const uint64_t last = m->slots[i].offset + m->slots[i].size;
            top = m->slots[i].offset / m->max_buffer == buffer / m->max_buffer && last > top ? last
                                                                                             : top;
        }
        const uint64_t whole = end - buffer < m->max_buffer ? end - buffer : m->max_buffer;
        size -= whole - (top - buffer);
    }
    return size;
}

// The slots by the unit that uses them first; those that are kept before all others.
static struct placed * sort_slots(const struct memory * m, struct keyed ** items,
                                  struct keyed ** spare) {
    const uint32_t n = m->n_slots;
    uint32_t row_at[GGC_MAX_STREAMS];
    const uint32_t * first = first_units(m, row_at);
    struct placed * slots = arena_alloc(m->arena, n, sizeof(struct placed));
    *items = arena_alloc(m->arena, n, sizeof(struct keyed));
    *spare = arena_alloc(m->arena, n, sizeof(struct keyed));
    if (first == NULL || slots == NULL || *items == NULL || *spare == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++) {
        (*items)[i] = (struct keyed) {m->slots[i].kept ? 0 : (uint64_t) m->slots[i].first + 1, i};
    }
    const struct keyed * sorted = radix_sort(*items, *spare, n, UINT32_MAX);
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = describe(m, sorted[i].value, first, row_at);
    }
    return slots;
}

// For the window from each multiple of WINDOW on: what is over before this unit is over before all
// that is in that window and in those after it.
static uint32_t * find_ends(const struct memory * m, const struct placed * slots, double slack) {
    const uint32_t n = m->n_slots, n_windows = n / WINDOW + 2;
    uint32_t * ends = arena_alloc(m->arena, n_windows, sizeof(uint32_t));
    if (ends != NULL) {
        memset(ends, 0xff, n_windows * sizeof(uint32_t));
        for (uint32_t i = n; i-- > 0;) {
            const uint32_t w = i / WINDOW;
            const uint32_t over = slack < 0 && isinf(slack) ? slots[i].first : slots[i].passed;
            ends[w] = ends[w] < ends[w + 1] ? ends[w] : ends[w + 1];
            ends[w] = over < ends[w] ? over : ends[w];
        }
    }
    return ends;
}

// Adds a slot to those placed, which stand by offset.
static void insert(struct placed * placed, uint32_t n_placed, const struct placed * slot) {
    uint32_t low = 0, high = n_placed;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (placed[middle].offset <= slot->offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    memmove(&placed[low + 1], &placed[low], (n_placed - low) * sizeof(*placed));
    placed[low] = *slot;
}

enum ggc_status place_slots(struct memory * m, double slack, uint64_t * size) {
    struct keyed *items, *spare;
    struct placed * slots = sort_slots(m, &items, &spare);
    uint32_t * ends = slots != NULL ? find_ends(m, slots, slack) : NULL;
    struct placed * placed = arena_alloc(m->arena, m->n_slots, sizeof(struct placed));
    if (slots == NULL || ends == NULL || placed == NULL) {
        return GGC_E_NOMEM;
    }
    uint32_t n_placed = 0;
    for (uint32_t begin = 0; begin < m->n_slots; begin += WINDOW) {
        const uint32_t rest = m->n_slots - begin, n = rest < WINDOW ? rest : WINDOW;
        uint32_t n_left = 0;
        for (uint32_t i = 0; i < n_placed; i++) {
            if (placed[i].last >= ends[begin / WINDOW]) {
                placed[n_left++] = placed[i];
            }
        }
        n_placed = n_left;
        for (uint32_t i = 0; i < n; i++) {
            items[i] =
                (struct keyed) {UINT64_MAX - m->slots[slots[begin + i].slot].size, begin + i};
        }
        const struct keyed * sorted = radix_sort(items, spare, n, UINT64_MAX);
        for (uint32_t i = 0; i < n; i++) {
            struct placed * slot = &slots[sorted[i].value];
            slot->offset = find_gap(m, slack, slot, placed, n_placed);
            slot->end = slot->offset + m->slots[slot->slot].size;
            m->slots[slot->slot].offset = slot->offset;
            insert(placed, n_placed++, slot);
        }
    }
    *size = bytes_of(m);
    return GGC_OK;
}
