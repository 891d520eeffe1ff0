// Slots find their places one after another, each in a gap between those that it may not share
// bytes with:
//
//     |== a ==|          |==== b ====|     |= c =|         in conflict with the slot at hand
//        |----- d -----|       |-- e --|                   not
//             ^^^^^^^^^^                                   where it goes
//
// Which slots come first, and which gap they take, decides how much is left over between them, and
// no rule is best for all graphs: where the first that is tried takes more than there is, so are
// the others, and the best of them counts. Only slots within a window of the serial order change
// places so: what is over before anything of the later windows begins need not be looked at any
// more, so that time grows with the number of slots and not with its square.
#include <math.h>
#include <string.h>

#include "memory_slots.h"
#include "radix.h"

// Slots.
#define WINDOW 1024

// A slot, with what its neighbours ask most often.
struct neighbour {
    uint32_t first, last;  // units; last is GGC_NONE where nobody comes after it
    uint32_t passed;       // the units before this one have all finished before the first access
    uint32_t over;         // what is over before this unit is so before this slot and all after it
    uint32_t slot;
};

// A slot that has its place; `column` is where the window's table of conflicts tells of it.
struct placed {
    uint64_t offset, end;
    uint32_t neighbour, column;
};

// Slots `begin` .. `begin + n` of the serial order, and who may not share bytes with whom: columns
// are what has its place already, then the window's own slots.
struct window {
    const struct memory * m;
    const struct neighbour * all;
    uint32_t begin, n, n_before;
    uint64_t * conflicts;  // n rows of `words`
    size_t words;
    uint32_t * degree;  // of each slot of the window: how many conflicts it has
    struct keyed *items, *spare;
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

static struct neighbour describe(const struct memory * m, double slack, uint32_t slot,
                                 const uint32_t * first, const uint32_t * row_at) {
    const struct slot * s = &m->slots[slot];
    const uint32_t * known = m->known + (size_t) slot * m->n_streams;
    struct neighbour self = {.first = s->kept ? 0 : s->first,
                             .last = s->kept || s->result ? GGC_NONE : s->last,
                             .slot = slot};
    for (uint32_t k = 0; k < m->n_streams && !s->kept; k++) {
        const uint32_t unit = first[row_at[k] + known[k]];
        self.passed = k == 0 || unit < self.passed ? unit : self.passed;
    }
    // the first unit knows itself; and serially all before it have finished
    const bool serially = isinf(slack) && slack < 0;
    self.passed = self.passed < self.first && !serially ? self.passed : self.first;
    return self;
}

static bool comes_before(const struct memory * m, double slack, const struct neighbour * a,
                         const struct neighbour * b) {
    if (a->last >= b->first || a->last < b->passed) {
        return a->last < b->first;
    }
    const uint32_t n = m->n_streams;
    return row_within(m->last + (size_t) a->slot * n, m->known + (size_t) b->slot * n, n) ||
           m->slots[a->slot].finish + slack <= m->slots[b->slot].start;
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

//
// 1. Who may not share bytes with whom
//

// The slots by the unit that uses them first; those that are kept before all others.
static struct neighbour * sort_slots(const struct memory * m, double slack, struct keyed * items,
                                     struct keyed * spare) {
    const uint32_t n = m->n_slots;
    uint32_t row_at[GGC_MAX_STREAMS], over = GGC_NONE;
    const uint32_t * first = first_units(m, row_at);
    struct neighbour * all = arena_alloc(m->arena, n, sizeof(struct neighbour));
    if (first == NULL || all == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++) {
        items[i] = (struct keyed) {m->slots[i].kept ? 0 : (uint64_t) m->slots[i].first + 1, i};
    }
    const struct keyed * sorted = radix_sort(items, spare, n, UINT32_MAX);
    for (uint32_t i = n; i-- > 0;) {
        all[i] = describe(m, slack, sorted[i].value, first, row_at);
        over = all[i].passed < over ? all[i].passed : over;
        all[i].over = over;
    }
    return all;
}

static bool in_conflict(const struct window * w, uint32_t i, uint32_t column) {
    return w->conflicts[i * w->words + column / 64] >> (column % 64) & 1;
}

static void add_conflict(struct window * w, uint32_t i, uint32_t column) {
    w->conflicts[i * w->words + column / 64] |= UINT64_C(1) << (column % 64);
    w->degree[i]++;
}

// `active` are the slots that may not be over yet, with their columns: those placed before, at
// first, and there is room for the window's own.
static void find_conflicts(struct window * w, double slack, struct placed * active) {
    uint32_t n_active = w->n_before;
    for (uint32_t i = 0; i < w->n; i++) {
        const struct neighbour * self = &w->all[w->begin + i];
        uint32_t n_left = 0;
        for (uint32_t k = 0; k < n_active; k++) {
            const struct placed other = active[k];
            const struct neighbour * it = &w->all[other.neighbour];
            if (it->last < self->over) {
                continue;
            }
            active[n_left++] = other;
            // the other stands first in the serial order, or begins with the same unit
            if (!comes_before(w->m, slack, it, self)) {
                add_conflict(w, i, other.column);
                if (other.column >= w->n_before) {
                    add_conflict(w, other.column - w->n_before, w->n_before + i);
                }
            }
        }
        n_active = n_left;
        active[n_active++] = (struct placed) {.neighbour = w->begin + i, .column = w->n_before + i};
    }
}

static bool window_init(struct window * w, double slack, const struct placed * placed) {
    struct arena * arena = w->m->arena;
    const size_t most = (size_t) w->n_before + w->n;
    w->words = (most + 63) / 64;
    w->conflicts = arena_zalloc(arena, w->words * w->n, sizeof(uint64_t));
    w->degree = arena_zalloc(arena, w->n, sizeof(uint32_t));
    struct placed * active = arena_alloc(arena, most, sizeof(struct placed));
    if (w->conflicts == NULL || w->degree == NULL || active == NULL) {
        return false;
    }
    memcpy(active, placed, w->n_before * sizeof(struct placed));
    find_conflicts(w, slack, active);
    return true;
}

//
// 2. Places
//

// Where one rule takes so many times what there is, no other makes up for it.
#define HOPELESS 2

// Rules for who comes first, and for the gap: the smallest, or the lowest.
static const struct rule {
    enum { BY_SIZE, BY_CONFLICTS, BETWEEN } key;
    bool lowest;
} RULES[] = {{BY_SIZE, false}, {BY_CONFLICTS, true}, {BY_SIZE, true}, {BETWEEN, true}};
#define N_RULES (sizeof(RULES) / sizeof(*RULES))

// Bytes, or bytes that are in the way of others, or what is halfway between: bytes first in each.
static uint64_t weight_of(const struct window * w, const struct rule * rule, uint32_t i) {
    const double size = (double) w->m->slots[w->all[w->begin + i].slot].size;
    const double degree = (double) w->degree[i] + 1;
    const double weight = rule->key == BY_SIZE        ? size
                          : rule->key == BY_CONFLICTS ? size * degree
                                                      : size * sqrt(degree);
    uint64_t bits;
    memcpy(&bits, &weight, sizeof(bits));  // what is not negative sorts like its bits
    return bits;
}

static uint64_t find_gap(const struct window * w, uint32_t i, bool lowest,
                         const struct placed * placed, uint32_t n_placed) {
    const uint64_t size = w->m->slots[w->all[w->begin + i].slot].size, buffer = w->m->max_buffer;
    uint64_t at = 0, best = UINT64_MAX, best_gap = UINT64_MAX;
    for (uint32_t k = 0; k < n_placed; k++) {
        const struct placed * other = &placed[k];
        if (other->end <= at || !in_conflict(w, i, other->column)) {
            continue;
        }
        if (at + size <= other->offset && other->offset - at < best_gap) {
            const uint64_t begin = at % buffer + size > buffer ? (at / buffer + 1) * buffer : at;
            if (begin + size <= other->offset) {
                best = begin;
                best_gap = other->offset - at;
                if (lowest) {
                    break;
                }
            }
        }
        at = other->end;
    }
    if (best != UINT64_MAX) {
        return best;
    }
    return at % buffer + size > buffer ? (at / buffer + 1) * buffer : at;
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

// Adds the window's slots to the n_before that are placed; returns where the last one ends.
static uint64_t place_window(const struct window * w, const struct rule * rule,
                             struct placed * placed) {
    uint64_t top = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        w->items[i] = (struct keyed) {UINT64_MAX - weight_of(w, rule, i), i};
    }
    const struct keyed * sorted = radix_sort(w->items, w->spare, w->n, UINT64_MAX);
    for (uint32_t k = 0; k < w->n; k++) {
        const uint32_t i = sorted[k].value, n_placed = w->n_before + k;
        struct placed self = {.neighbour = w->begin + i, .column = w->n_before + i};
        self.offset = find_gap(w, i, rule->lowest, placed, n_placed);
        self.end = self.offset + w->m->slots[w->all[self.neighbour].slot].size;
        top = self.end > top ? self.end : top;
        insert(placed, n_placed, &self);
    }
    return top;
}

// By one rule after another, until nothing ends above `goal`; the best is then in `placed`.
static uint64_t place_well(const struct window * w, uint64_t goal, struct placed * placed,
                           struct placed * trial, struct placed * best) {
    uint64_t least = UINT64_MAX;
    for (size_t r = 0; r < N_RULES && least > goal; r++) {
        if (r > 0 && goal > 0 && least / HOPELESS > goal) {
            break;
        }
        memcpy(trial, placed, w->n_before * sizeof(struct placed));
        const uint64_t top = place_window(w, &RULES[r], trial);
        if (top < least) {
            struct placed * const worse = best;
            least = top;
            best = trial;
            trial = worse;
        }
    }
    memcpy(placed, best, ((size_t) w->n_before + w->n) * sizeof(struct placed));
    return least;
}

// Of those placed, what may be in use beside a slot of the window or after it.
static uint32_t drop_over(const struct window * w, struct placed * placed, uint32_t n_placed) {
    uint32_t n = 0;
    for (uint32_t k = 0; k < n_placed; k++) {
        if (w->all[placed[k].neighbour].last >= w->all[w->begin].over) {
            placed[n] = placed[k];
            placed[n].column = n;
            n++;
        }
    }
    return n;
}

enum ggc_status place_slots(struct memory * m, double slack, uint64_t goal, uint64_t * size) {
    struct window w = {.m = m};
    const uint32_t n = m->n_slots;
    w.items = arena_alloc(m->arena, n, sizeof(struct keyed));
    w.spare = arena_alloc(m->arena, n, sizeof(struct keyed));
    struct placed * placed = arena_alloc(m->arena, n, sizeof(struct placed));
    struct placed * trial = arena_alloc(m->arena, n, sizeof(struct placed));
    struct placed * best = arena_alloc(m->arena, n, sizeof(struct placed));
    if (w.items == NULL || w.spare == NULL || placed == NULL || trial == NULL || best == NULL ||
        (w.all = sort_slots(m, slack, w.items, w.spare)) == NULL) {
        return GGC_E_NOMEM;
    }
    for (uint32_t n_placed = 0; w.begin < n; w.begin += w.n) {
        const struct arena_mark mark = arena_mark(m->arena);
        w.n = n - w.begin < WINDOW ? n - w.begin : WINDOW;
        w.n_before = drop_over(&w, placed, n_placed);
        if (!window_init(&w, slack, placed)) {
            return GGC_E_NOMEM;
        }
        const uint64_t top = place_well(&w, goal, placed, trial, best);
        goal = top > goal ? top : goal;  // lower is of no use any more
        n_placed = w.n_before + w.n;
        for (uint32_t k = 0; k < n_placed; k++) {
            m->slots[w.all[placed[k].neighbour].slot].offset = placed[k].offset;
        }
        arena_release(m->arena, mark);
    }
    *size = bytes_of(m);
    return GGC_OK;
}
