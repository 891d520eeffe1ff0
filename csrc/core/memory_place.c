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

#include "memory_window.h"
#include "radix.h"

// Slots.
#define WINDOW 1024

struct range {
    uint64_t offset, end;
};

// A slot from before the window, or several side by side.
struct wall {
    struct range range;
    uint32_t column;
};

// A slot that has its place.
struct placed {
    struct range range;
    uint32_t index;  // in the order
};

// The columns of a window that have their places, the lowest first.
struct places {
    struct range * ranges;
    uint32_t *column, n;
    uint32_t * rank;  // of each column
    uint64_t * done;  // which columns, as bits
};

struct placer {
    struct memory * m;
    struct window window;
    struct places places, best;
    uint64_t * ranks;
    struct keyed *items, *spare;
    struct placed *before, *after;  // by offset
    uint32_t n_placed;
    struct wall * walls;  // by offset
    uint32_t n_walls;
};

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
// 1. Gaps
//

static uint64_t size_of(const struct placer * p, uint32_t i) {
    return p->m->slots[p->window.order->slot[p->window.begin + i]].size;
}

struct gap {
    uint64_t at;           // so far everything lies below
    uint64_t best, bytes;  // the best gap: where it begins, and how large it is
    bool is_found;         // no better one will be
};

static uint64_t fit_into_buffer(const struct placer * p, uint64_t at, uint64_t size) {
    const uint64_t buffer = p->m->max_buffer;
    return at % buffer + size > buffer ? (at / buffer + 1) * buffer : at;
}

// The next range that is in the way, by offset.
static inline void pass(const struct placer * p, struct gap * gap, struct range range,
                        uint64_t size, bool lowest) {
    if (gap->at + size <= range.offset && range.offset - gap->at < gap->bytes) {
        const uint64_t begin = fit_into_buffer(p, gap->at, size);
        if (begin + size <= range.offset) {
            gap->best = begin;
            gap->bytes = range.offset - gap->at;
            gap->is_found = lowest;
        }
    }
    gap->at = range.end > gap->at ? range.end : gap->at;
}

// The columns with a place that row i is in conflict with, as bits by rank: sorted, that is.
static size_t find_ranks(const struct placer * p, uint32_t i) {
    const uint64_t * row = window_row(&p->window, i);
    const size_t n = (p->places.n + 63) / 64;
    memset(p->ranks, 0, n * sizeof(uint64_t));
    for (size_t k = 0; k < p->window.words; k++) {
        for (uint64_t bits = row[k] & p->places.done[k]; bits != 0; bits &= bits - 1) {
            const uint32_t rank = p->places.rank[64 * k + (uint32_t) __builtin_ctzll(bits)];
            p->ranks[rank / 64] |= UINT64_C(1) << (rank % 64);
        }
    }
    return n;
}

static void look_at_few(const struct placer * p, uint32_t i, uint64_t size, bool lowest,
                        struct gap * gap) {
    const size_t n = find_ranks(p, i);
    for (size_t k = 0; k < n; k++) {
        for (uint64_t bits = p->ranks[k]; bits != 0 && !gap->is_found; bits &= bits - 1) {
            const size_t rank = 64 * k + (uint32_t) __builtin_ctzll(bits);
            pass(p, gap, p->places.ranges[rank], size, lowest);
        }
    }
}

static void look_at_all(const struct placer * p, uint32_t i, uint64_t size, bool lowest,
                        struct gap * gap) {
    const uint64_t * row = window_row(&p->window, i);
    for (uint32_t k = 0; k < p->places.n && !gap->is_found; k++) {
        const uint32_t column = p->places.column[k];
        if (p->places.ranges[k].end > gap->at && (row[column / 64] >> (column % 64) & 1)) {
            pass(p, gap, p->places.ranges[k], size, lowest);
        }
    }
}

// With so many of those that have a place, each is looked at.
#define MANY(n) ((n) / 4)

static uint64_t find_gap(const struct placer * p, uint32_t i, bool lowest) {
    const uint64_t size = size_of(p, i);
    struct gap gap = {0, UINT64_MAX, UINT64_MAX, false};
    if (p->window.degree[i] > MANY(window_columns(&p->window))) {
        look_at_all(p, i, size, lowest, &gap);
    } else {
        look_at_few(p, i, size, lowest, &gap);
    }
    return gap.best != UINT64_MAX ? gap.best : fit_into_buffer(p, gap.at, size);
}

static void put(struct places * places, uint32_t column, struct range range) {
    uint32_t low = 0, high = places->n++;
    const uint32_t n = high;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (places->ranges[middle].offset <= range.offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    memmove(&places->ranges[low + 1], &places->ranges[low], (n - low) * sizeof(range));
    memmove(&places->column[low + 1], &places->column[low], (n - low) * sizeof(column));
    places->ranges[low] = range;
    places->column[low] = column;
    for (uint32_t k = low; k <= n; k++) {
        places->rank[places->column[k]] = k;
    }
    places->done[column / 64] |= UINT64_C(1) << (column % 64);
}

//
// 2. Windows
//

// Where one rule takes so many times what there is, no other makes up for it.
#define HOPELESS 1.35

// Rules for who comes first, and for the gap: the smallest, or the lowest.
static const struct rule {
    enum { BY_SIZE, BY_CONFLICTS, BETWEEN } key;
    bool lowest;
} RULES[] = {{BY_SIZE, false}, {BY_CONFLICTS, true}, {BY_SIZE, true}, {BETWEEN, true}};
#define N_RULES (sizeof(RULES) / sizeof(*RULES))
#define N_HASTY 2  // the others are seldom the best

// Bytes, or bytes that are in the way of others, or what is halfway between: bytes first in each.
static uint64_t weight_of(const struct placer * p, const struct rule * rule, uint32_t i) {
    const uint64_t size = size_of(p, i);
    if (rule->key == BY_SIZE) {
        return size / p->m->problem->alignment;
    }
    const double degree = (double) p->window.degree[i] + 1;
    const double weight = (double) size * (rule->key == BY_CONFLICTS ? degree : sqrt(degree));
    uint64_t bits;
    memcpy(&bits, &weight, sizeof(bits));  // what is not negative sorts like its bits
    return bits;
}

// The rows of the window, the heaviest first.
static const struct keyed * sort_rows(const struct placer * p, const struct rule * rule) {
    uint64_t most = 0;
    for (uint32_t i = 0; i < p->window.n; i++) {
        p->items[i] = (struct keyed) {weight_of(p, rule, i), i};
        most = p->items[i].key > most ? p->items[i].key : most;
    }
    for (uint32_t i = 0; i < p->window.n; i++) {
        p->items[i].key = most - p->items[i].key;
    }
    return radix_sort(p->items, p->spare, p->window.n, most);
}

// Adds the window's slots to the n_before that are placed; returns where the last one ends.
static uint64_t place_window(struct placer * p, const struct rule * rule) {
    const struct window * w = &p->window;
    uint64_t top = 0;
    memset(p->places.done, 0, w->words * sizeof(uint64_t));
    p->places.n = 0;
    for (uint32_t k = 0; k < p->n_walls; k++) {
        put(&p->places, p->walls[k].column, p->walls[k].range);
    }
    const struct keyed * sorted = sort_rows(p, rule);
    for (uint32_t k = 0; k < w->n; k++) {
        const uint32_t i = sorted[k].value;
        const uint64_t offset = find_gap(p, i, rule->lowest), size = size_of(p, i);
        top = offset + size > top ? offset + size : top;
        put(&p->places, i, (struct range) {offset, offset + size});
    }
    return top;
}

// By one rule after another, until nothing ends above `goal`, or something will above `most`; the
// best is then in `best`.
static uint64_t place_well(struct placer * p, uint64_t goal, uint64_t most) {
    const size_t n_rules = p->m->hasty ? N_HASTY : N_RULES;
    uint64_t least = UINT64_MAX;
    for (size_t r = 0; r < n_rules && least > goal; r++) {
        if (r > 0 && (goal > most || (double) least > HOPELESS * (double) most)) {
            break;
        }
        const uint64_t top = place_window(p, &RULES[r]);
        if (top == least && r == 1) {
            break;  // two so different rules end there because something has to
        }
        if (top < least) {
            const struct places worse = p->best;
            least = top;
            p->best = p->places;
            p->places = worse;
        }
    }
    return least;
}

static bool places_init(struct places * places, struct arena * arena, const struct window * w) {
    const size_t n = window_columns(w);
    places->ranges = arena_alloc(arena, n, sizeof(struct range));
    places->column = arena_alloc(arena, n, sizeof(uint32_t));
    places->rank = arena_alloc(arena, n, sizeof(uint32_t));
    places->done = arena_alloc(arena, w->words, sizeof(uint64_t));
    return places->ranges != NULL && places->column != NULL && places->rank != NULL &&
           places->done != NULL;
}

// What is in the way of all rows, and lies side by side, is in the way as one.
static bool find_walls(struct placer * p) {
    const struct window * w = &p->window;
    uint64_t * always = arena_alloc(p->m->arena, w->words, sizeof(uint64_t));
    uint32_t last = GGC_NONE;
    p->walls = arena_alloc(p->m->arena, w->n_before, sizeof(struct wall));
    p->n_walls = 0;
    if (always == NULL || p->walls == NULL) {
        return false;
    }
    window_always(w, always);
    for (uint32_t k = 0; k < w->n_before; k++) {
        const struct wall wall = {p->before[k].range, w->first_before + k};
        const bool is_always = always[wall.column / 64] >> (wall.column % 64) & 1;
        if (is_always && last != GGC_NONE && wall.range.offset <= p->walls[last].range.end) {
            struct range * range = &p->walls[last].range;
            range->end = wall.range.end > range->end ? wall.range.end : range->end;
            continue;
        }
        last = is_always ? p->n_walls : last;
        p->walls[p->n_walls++] = wall;
    }
    return true;
}

static bool begin_window(struct placer * p) {
    struct window * w = &p->window;
    struct arena * arena = p->m->arena;
    uint32_t * before = arena_alloc(arena, w->n_before, sizeof(uint32_t));
    for (uint32_t k = 0; before != NULL && k < w->n_before; k++) {
        before[k] = p->before[k].index;
    }
    w->before = before;
    if (before == NULL || !window_init(w, arena)) {
        return false;
    }
    p->ranks = arena_alloc(arena, w->words, sizeof(uint64_t));
    return p->ranks != NULL && find_walls(p) && places_init(&p->places, arena, w) &&
           places_init(&p->best, arena, w);
}

// What has its place, by offset, is what comes before the next window.
static void end_window(struct placer * p) {
    const struct window * w = &p->window;
    uint32_t n = 0, old = 0;
    for (uint32_t k = 0; k < p->best.n; k++) {
        const uint32_t column = p->best.column[k];
        const struct range range = p->best.ranges[k];
        if (column >= w->n) {
            continue;  // a wall
        }
        while (old < w->n_before && p->before[old].range.offset <= range.offset) {
            p->after[n++] = p->before[old++];
        }
        p->after[n++] = (struct placed) {range, w->begin + column};
        p->m->slots[w->order->slot[w->begin + column]].offset = range.offset;
    }
    while (old < w->n_before) {
        p->after[n++] = p->before[old++];
    }
    struct placed * const spare = p->before;
    p->before = p->after;
    p->after = spare;
    p->n_placed = n;
}

// Leaves out what is over before any slot of the next window begins, or of those after it.
static uint32_t drop_over(struct placer * p) {
    uint32_t n = 0;
    for (uint32_t k = 0; k < p->n_placed; k++) {
        if (!is_over(p->window.order, p->before[k].index, p->window.begin)) {
            p->before[n++] = p->before[k];
        }
    }
    return n;
}

enum ggc_status place_slots(struct memory * m, double slack, uint64_t goal, uint64_t most,
                            uint64_t * size) {
    struct slot_order order;
    struct placer p = {.m = m, .window = {.order = &order}};
    struct window * w = &p.window;
    const uint32_t n = m->n_slots;
    p.items = arena_alloc(m->arena, n < WINDOW ? n : WINDOW, sizeof(struct keyed));
    p.spare = arena_alloc(m->arena, n < WINDOW ? n : WINDOW, sizeof(struct keyed));
    p.before = arena_alloc(m->arena, n, sizeof(struct placed));
    p.after = arena_alloc(m->arena, n, sizeof(struct placed));
    if (p.items == NULL || p.spare == NULL || p.before == NULL || p.after == NULL ||
        !slot_order_init(&order, m, slack, WINDOW)) {
        return GGC_E_NOMEM;
    }
    if (order.peak > most) {
        *size = order.peak;
        return GGC_OK;
    }
    goal = goal > order.peak ? goal : order.peak;
    for (; w->begin < n; w->begin += w->n) {
        const struct arena_mark mark = arena_mark(m->arena);
        w->n = n - w->begin < WINDOW ? n - w->begin : WINDOW;
        w->n_before = drop_over(&p);
        if (!begin_window(&p)) {
            return GGC_E_NOMEM;
        }
        const uint64_t top = place_well(&p, goal, most);
        goal = top > goal ? top : goal;  // lower is of no use any more
        end_window(&p);
        arena_release(m->arena, mark);
    }
    *size = bytes_of(m);
    return GGC_OK;
}
