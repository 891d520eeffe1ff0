// The second opinion: decides whether a schedule is race-free without a line of the planner's.
//
//   1. The schedule is walked once and every unit gets a vector clock: how many units of each
//      stream are known to have finished before it starts.
//   2. All accesses, sorted by buffer and first byte, are swept; every pair that shares a byte and
//      of which one writes must be ordered by the clocks as the serial order has it.
//
// All pairs are looked at, so memory that is reused k times costs k^2 of them: slower than
// planning, on purpose. Overlap is decided run by run where there are few, else by counting.
#include <stdlib.h>
#include <string.h>

#include "ggc-core.h"

__extension__ typedef unsigned __int128 wide;

struct item {
    uint64_t begin, end;
    uint32_t access, unit;
};

// What decides whether unit a is known to be finished when unit b starts (or the same way round
// for phases: `clock` is then NULL).
struct order {
    uint32_t n_streams;
    const uint32_t * stream;
    const uint32_t * phase;
    uint32_t * clock;
    uint32_t * position;
};

static bool ordered(const struct order * order, uint32_t a, uint32_t b) {
    if (order->clock == NULL) {
        return order->phase[a] < order->phase[b];
    }
    return order->clock[(size_t) b * order->n_streams + order->stream[a]] > order->position[a];
}

static bool schedule_shape_valid(const struct ggc_units * units,
                                 const struct ggc_schedule * schedule) {
    if (schedule->n_units != units->n_units || schedule->n_streams == 0 ||
        schedule->n_streams > GGC_MAX_STREAMS || schedule->wait_begin == NULL ||
        schedule->wait_begin[0] != 0) {
        return false;
    }
    if (schedule->n_units > 0 && (schedule->order == NULL || schedule->stream == NULL)) {
        return false;
    }
    for (uint32_t u = 0; u < schedule->n_units; u++) {
        if (schedule->stream[u] >= schedule->n_streams ||
            schedule->wait_begin[u + 1] < schedule->wait_begin[u]) {
            return false;
        }
    }
    return schedule->wait_begin[schedule->n_units] == 0 || schedule->waits != NULL;
}

static void join(uint32_t * clock, const uint32_t * other, uint32_t n_streams) {
    for (uint32_t s = 0; s < n_streams; s++) {
        if (other[s] > clock[s]) {
            clock[s] = other[s];
        }
    }
}

// Step 1. A clock counts the unit itself, so that whoever waits for it knows of it.
static enum ggc_status run_clocks(struct order * order, const struct ggc_schedule * schedule) {
    const uint32_t n = schedule->n_units, n_streams = schedule->n_streams;
    uint32_t last[GGC_MAX_STREAMS], length[GGC_MAX_STREAMS] = {0};
    memset(last, 0xff, sizeof(last));
    memset(order->position, 0xff, n * sizeof(uint32_t));  // GGC_NONE: not issued yet
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t u = schedule->order[i];
        if (u >= n || order->position[u] != GGC_NONE) {
            return GGC_E_INVALID;
        }
        uint32_t * clock = order->clock + (size_t) u * n_streams;
        const uint32_t s = schedule->stream[u];
        if (last[s] != GGC_NONE) {
            join(clock, order->clock + (size_t) last[s] * n_streams, n_streams);
        }
        for (uint32_t w = schedule->wait_begin[u]; w < schedule->wait_begin[u + 1]; w++) {
            const uint32_t v = schedule->waits[w];
            if (v >= n || order->position[v] == GGC_NONE) {
                return GGC_E_INVALID;
            }
            join(clock, order->clock + (size_t) v * n_streams, n_streams);
        }
        order->position[u] = length[s]++;
        clock[s] = length[s];
        last[s] = u;
    }
    return GGC_OK;
}

static uint64_t last_byte_plus_one(const struct ggc_access * a) {
    return a->offset + (a->count - 1) * (a->count > 1 ? a->stride : 0) + a->run;
}

// The first byte that run [begin, end) shares with `b`, or UINT64_MAX.
static uint64_t shared_with_run(const struct ggc_access * b, uint64_t begin, uint64_t end) {
    uint64_t k = 0;
    if (b->count > 1 && begin > b->offset) {
        k = (begin - b->offset) / b->stride;
        k = k < b->count ? k : b->count - 1;
    }
    for (; k < b->count; k++) {  // the run that starts at or before `begin`, and the one after it
        const uint64_t start = b->offset + k * (b->count > 1 ? b->stride : 0);
        if (start >= end) {
            break;
        }
        if (start + b->run > begin) {
            return start > begin ? start : begin;
        }
    }
    return UINT64_MAX;
}

// The first byte that run `i` of a shares with b, or UINT64_MAX.
static uint64_t shared_with_run_of(const struct ggc_access * a, const struct ggc_access * b,
                                   uint64_t i) {
    const uint64_t begin = a->offset + i * (a->count > 1 ? a->stride : 0);
    return shared_with_run(b, begin, begin + a->run);
}

// The sum of (a * i + b) / m, rounded down, for i < n; a and b below 2 * m. After Graham, Knuth and
// Patashnik, "Concrete Mathematics", 3.5: the lattice points under a line, counted by Euclid's
// steps.
static wide floor_sum(wide n, wide m, wide a, wide b) {
    wide sum = 0;
    for (;;) {
        sum += n * (n > 0 ? n - 1 : 0) / 2 * (a / m) + n * (b / m);
        a %= m;
        b %= m;
        const wide top = a * n + b;
        if (top < m) {
            return sum;
        }
        n = top / m;
        b = top % m;
        const wide swap = m;
        m = a;
        a = swap;
    }
}

// How many of n runs of a, from run `first` on, meet a run of b when b has no ends. With `at` the
// place of the last byte of a run of a, counted from the start of a run of b, the two meet when
// at mod b->stride is at most `reach`.
static wide n_meeting(const struct ggc_access * a, const struct ggc_access * b, uint64_t first,
                      uint64_t n) {
    const wide m = b->stride;
    const wide reach = (wide) a->run + b->run - 2;
    if (reach + 1 >= m) {
        return n;
    }
    const wide start = (wide) a->offset + (wide) first * a->stride + a->run - 1;
    const wide at = (start % m + m - b->offset % m) % m;
    const wide step = a->stride % m;
    return n + floor_sum(n, m, step, at) - floor_sum(n, m, step, at + m - reach - 1);
}

// The first of the runs [first, last) of a that meets b, or `last`. Few are looked at one by one;
// of many, which must lie between the ends of b, half are left out again and again.
static uint64_t first_meeting(const struct ggc_access * a, const struct ggc_access * b,
                              uint64_t first, uint64_t last) {
    while (last - first > 64 && n_meeting(a, b, first, last - first) > 0) {
        const uint64_t half = (last - first) / 2;
        if (n_meeting(a, b, first, half) > 0) {
            last = first + half;
        } else {
            first += half;
        }
    }
    if (last - first > 64) {
        return last;  // none of them
    }
    while (first < last && shared_with_run_of(a, b, first) == UINT64_MAX) {
        first++;
    }
    return first;
}

// The runs of a, from the first that may reach into b to the last that starts before b ends.
static void runs_near(const struct ggc_access * a, const struct ggc_access * b, uint64_t * first,
                      uint64_t * last) {
    const uint64_t b_end = last_byte_plus_one(b);
    *first = 0;
    *last = a->offset < b_end ? 1 : 0;
    if (a->count > 1) {
        *first = b->offset > a->offset ? (b->offset - a->offset) / a->stride : 0;
        *last = a->offset < b_end ? (b_end - 1 - a->offset) / a->stride + 1 : 0;
        *last = *last < a->count ? *last : a->count;
    }
}

// The first byte that a and b share, or UINT64_MAX; *end gets the end of what they share there.
static uint64_t shared_byte(const struct ggc_access * a, const struct ggc_access * b,
                            uint64_t * end) {
    if (b->count < a->count) {
        const struct ggc_access * swap = a;
        a = b;
        b = swap;
    }
    uint64_t first, last;
    runs_near(a, b, &first, &last);
    // the first run and the last two may stick out of b: these one by one, the rest by counting
    const uint64_t inner_end = last > first + 3 ? last - 2 : first;
    uint64_t i = first;
    if (inner_end > first && shared_with_run_of(a, b, first) == UINT64_MAX) {
        i = first_meeting(a, b, first + 1, inner_end);
    }
    while (i < last && shared_with_run_of(a, b, i) == UINT64_MAX) {
        i++;
    }
    if (i >= last) {
        return UINT64_MAX;
    }
    const uint64_t at = shared_with_run_of(a, b, i);
    const uint64_t begin = a->offset + i * (a->count > 1 ? a->stride : 0);
    const uint64_t start =
        b->count > 1 ? b->offset + (at - b->offset) / b->stride * b->stride : b->offset;
    *end = begin + a->run < start + b->run ? begin + a->run : start + b->run;
    return at;
}

static bool conflict_of(const struct ggc_units * units, const struct item * x,
                        const struct item * y, struct ggc_conflict * conflict) {
    const struct item * a = x->unit < y->unit ? x : y;
    const struct item * b = x->unit < y->unit ? y : x;
    const struct ggc_access * first = &units->accesses[a->access];
    const struct ggc_access * second = &units->accesses[b->access];
    uint64_t end = 0;
    const uint64_t at = shared_byte(first, second, &end);
    if (at == UINT64_MAX) {
        return false;
    }
    const enum ggc_hazard hazard = second->mode == GGC_READ  ? GGC_RAW
                                   : first->mode == GGC_READ ? GGC_WAR
                                                             : GGC_WAW;
    *conflict = (struct ggc_conflict) {a->unit, b->unit,       a->access, b->access,
                                       hazard,  first->buffer, at,        end};
    return true;
}

static struct ggc_conflict fence_conflict(uint32_t a, uint32_t b) {
    return (struct ggc_conflict) {a, b, GGC_NONE, GGC_NONE, GGC_FENCE, 0, 0, 0};
}

static bool is_fence(const struct ggc_units * units, uint32_t unit) {
    return units->fence != NULL && units->fence[unit] != 0;
}

static enum ggc_status check_fences(const struct ggc_units * units, const struct order * order,
                                    struct ggc_conflict * race) {
    for (uint32_t f = 0; f < units->n_units; f++) {
        if (!is_fence(units, f)) {
            continue;
        }
        for (uint32_t u = 0; u < units->n_units; u++) {
            const uint32_t a = u < f ? u : f, b = u < f ? f : u;
            if (u != f && !ordered(order, a, b)) {
                *race = fence_conflict(a, b);
                return GGC_E_RACE;
            }
        }
    }
    return GGC_OK;
}

static int by_place(const void * left, const void * right, const struct ggc_access * accesses) {
    const struct item * a = left;
    const struct item * b = right;
    const uint32_t buffer_a = accesses[a->access].buffer, buffer_b = accesses[b->access].buffer;
    if (buffer_a != buffer_b) {
        return buffer_a < buffer_b ? -1 : 1;
    }
    return a->begin < b->begin ? -1 : a->begin > b->begin;
}

// Merge sort, since qsort takes no context.
static void sort_items(struct item * items, struct item * spare, uint32_t n,
                       const struct ggc_access * accesses) {
    if (n < 2) {
        return;
    }
    const uint32_t half = n / 2;
    sort_items(items, spare, half, accesses);
    sort_items(items + half, spare, n - half, accesses);
    memcpy(spare, items, n * sizeof(struct item));
    for (uint32_t i = 0, left = 0, right = half; i < n; i++) {
        const bool from_left =
            right == n || (left < half && by_place(&spare[left], &spare[right], accesses) <= 0);
        items[i] = from_left ? spare[left++] : spare[right++];
    }
}

static bool touches_nothing(const struct ggc_access * a) {
    return a->run == 0 || a->count == 0;
}

static bool well_formed(const struct ggc_access * a) {
    uint64_t end;
    if (a->mode != GGC_READ && a->mode != GGC_WRITE) {
        return false;
    }
    if (touches_nothing(a) || a->count == 1) {
        return touches_nothing(a) || !__builtin_add_overflow(a->offset, a->run, &end);
    }
    return a->stride >= a->run && !__builtin_mul_overflow(a->stride, a->count - 1, &end) &&
           !__builtin_add_overflow(end, a->run, &end) &&
           !__builtin_add_overflow(end, a->offset, &end);
}

// Everything that touches bytes. GGC_E_INVALID for accesses that are malformed.
static enum ggc_status collect(const struct ggc_units * units, struct item * items,
                               uint32_t * n_items) {
    *n_items = 0;
    for (uint32_t u = 0; u < units->n_units; u++) {
        for (uint32_t i = units->access_begin[u]; i < units->access_begin[u + 1]; i++) {
            const struct ggc_access * a = &units->accesses[i];
            if (!well_formed(a)) {
                return GGC_E_INVALID;
            }
            if (touches_nothing(a)) {
                continue;
            }
            items[(*n_items)++] = (struct item) {a->offset, last_byte_plus_one(a), i, u};
        }
    }
    return GGC_OK;
}

// Accesses of the current buffer that reach beyond the current first byte.
struct active {
    const struct item ** items;
    uint32_t n;
};

// Drops what has ended and compares the rest with `item`.
static enum ggc_status compare(const struct ggc_units * units, const struct order * order,
                               struct active * active, const struct item * item,
                               struct ggc_conflict * race) {
    const uint32_t buffer = units->accesses[item->access].buffer;
    uint32_t kept = 0;
    for (uint32_t k = 0; k < active->n; k++) {
        const struct item * other = active->items[k];
        if (units->accesses[other->access].buffer != buffer || other->end <= item->begin) {
            continue;
        }
        active->items[kept++] = other;
        const uint32_t a = item->unit < other->unit ? item->unit : other->unit;
        const uint32_t b = item->unit < other->unit ? other->unit : item->unit;
        if (a != b && !ordered(order, a, b) && conflict_of(units, item, other, race)) {
            return GGC_E_RACE;
        }
    }
    active->n = kept;
    return GGC_OK;
}

// Step 2. Reads meet the writes, writes meet both; `space` has room for two lists of all items.
static enum ggc_status sweep(const struct ggc_units * units, const struct order * order,
                             const struct item * items, uint32_t n_items,
                             const struct item ** space, struct ggc_conflict * race) {
    struct active reads = {space, 0}, writes = {space + n_items, 0};
    enum ggc_status status = GGC_OK;
    for (uint32_t i = 0; status == GGC_OK && i < n_items; i++) {
        const bool is_write = units->accesses[items[i].access].mode == GGC_WRITE;
        struct active * const own = is_write ? &writes : &reads;
        status = compare(units, order, &writes, &items[i], race);
        if (status == GGC_OK && is_write) {
            status = compare(units, order, &reads, &items[i], race);
        }
        own->items[own->n++] = &items[i];
    }
    return status;
}

static bool units_usable(const struct ggc_units * units) {
    if (units == NULL || units->access_begin == NULL || units->access_begin[0] != 0) {
        return false;
    }
    for (uint32_t u = 0; u < units->n_units; u++) {
        if (units->access_begin[u + 1] < units->access_begin[u]) {
            return false;
        }
    }
    return units->access_begin[units->n_units] == 0 || units->accesses != NULL;
}

static enum ggc_status check(const struct ggc_units * units, const struct order * order,
                             struct ggc_conflict * race) {
    const size_t n_accesses = units->access_begin[units->n_units];
    struct ggc_conflict unused;
    race = race != NULL ? race : &unused;
    struct item * items = malloc((n_accesses + 1) * sizeof(struct item));
    struct item * spare = malloc((n_accesses + 1) * sizeof(struct item));
    const struct item ** space = malloc((2 * n_accesses + 1) * sizeof(struct item *));
    enum ggc_status status = GGC_E_NOMEM;
    if (items != NULL && spare != NULL && space != NULL) {
        uint32_t n_items;
        status = collect(units, items, &n_items);
        if (status == GGC_OK) {
            sort_items(items, spare, n_items, units->accesses);
            status = check_fences(units, order, race);
        }
        if (status == GGC_OK) {
            status = sweep(units, order, items, n_items, space, race);
        }
    }
    free(items);
    free(spare);
    free(space);
    return status;
}

enum ggc_status ggc_verify_schedule(const struct ggc_units * units,
                                    const struct ggc_schedule * schedule,
                                    struct ggc_conflict * race) {
    if (!units_usable(units) || schedule == NULL || !schedule_shape_valid(units, schedule)) {
        return GGC_E_INVALID;
    }
    const size_t n = units->n_units;
    struct order order = {.n_streams = schedule->n_streams, .stream = schedule->stream};
    order.clock = calloc(n * schedule->n_streams + 1, sizeof(uint32_t));
    order.position = malloc((n + 1) * sizeof(uint32_t));
    enum ggc_status status = GGC_E_NOMEM;
    if (order.clock != NULL && order.position != NULL) {
        status = run_clocks(&order, schedule);
        if (status == GGC_OK) {
            status = check(units, &order, race);
        }
    }
    free(order.clock);
    free(order.position);
    return status;
}

enum ggc_status ggc_verify_phases(const struct ggc_units * units, const uint32_t * phase,
                                  struct ggc_conflict * race) {
    if (!units_usable(units) || (phase == NULL && units->n_units > 0)) {
        return GGC_E_INVALID;
    }
    const struct order order = {.phase = phase};
    return check(units, &order, race);
}

enum ggc_status ggc_explain(const struct ggc_units * units, uint32_t a, uint32_t b,
                            struct ggc_conflict * conflict) {
    if (!units_usable(units) || conflict == NULL || a >= b || b >= units->n_units) {
        return GGC_E_INVALID;
    }
    if (is_fence(units, a) || is_fence(units, b)) {
        *conflict = fence_conflict(a, b);
        return GGC_OK;
    }
    for (uint32_t i = units->access_begin[a]; i < units->access_begin[a + 1]; i++) {
        for (uint32_t j = units->access_begin[b]; j < units->access_begin[b + 1]; j++) {
            const struct ggc_access * x = &units->accesses[i];
            const struct ggc_access * y = &units->accesses[j];
            const struct item first = {0, 0, i, a}, second = {0, 0, j, b};
            if (!well_formed(x) || !well_formed(y)) {
                return GGC_E_INVALID;
            }
            if (x->buffer == y->buffer && (x->mode == GGC_WRITE || y->mode == GGC_WRITE) &&
                !touches_nothing(x) && !touches_nothing(y) &&
                conflict_of(units, &first, &second, conflict)) {
                return GGC_OK;
            }
        }
    }
    return GGC_E_INVALID;
}
