// A schedule for a budget: list scheduling (as stream.c does it, by the longest chain that starts
// with each unit) in which a unit may have to wait for memory.
//
// The serial order is always a way out, and is kept open: the units that have not finished, one
// after another in that order, must always fit. Each of them needs what it has in use serially;
// beside that what units that come after it, but have started before it, have in use:
//
//     serial order   | a | b | c | d | e | f |         a and b have finished, c runs, and f waits:
//     in use serially      ======= x                   y may be begun if c, d and e can do with it
//                                  ----====== y        beside what they need
//
// So the first unit that has not finished may always start, and whatever else may start does not
// stand in its way.
#include <math.h>
#include <string.h>

#include "memory_slots.h"
#include "radix.h"

// How many units are looked at for one that fits.
#define N_TRIES 8

#define FINISHED (INT64_MIN / 2)

// Bytes for each unit: a tree of largest values, where each node adds to all below it.
struct bytes_tree {
    int64_t *most, *add;
    uint32_t n;  // leaves, a power of two
};

// Places, the least first.
struct heap {
    uint32_t *places, n;
};

struct scheduler {
    const struct memory * m;
    uint32_t *next_begin, *next;   // units that depend on each one
    uint32_t *slot_begin, *slots;  // that each unit uses, once for each tensor
    uint32_t * uses;               // of each slot
    double * rank;                 // of each unit: the longest chain that starts with it
    uint32_t *place, *by_place;    // of units by rank, the largest first, and back
    struct bytes_tree serial;      // bytes in use at each unit, one after another

    // of a run
    struct bytes_tree tree;
    uint32_t * missing;   // of each unit: dependences that have not finished
    uint32_t * left;      // of each slot: uses that have not finished
    uint32_t * begun_at;  // of each slot: the front when it was begun; GGC_NONE: not yet
    struct heap ready;    // units that begin to use memory
    struct heap light;    // and those that do not
    bool *started, *finished;
    uint32_t front;     // the first unit that has not finished
    uint32_t critical;  // and the first by place
    uint32_t running[GGC_MAX_STREAMS];
    int64_t budget;
    uint64_t kept, in_use;  // bytes at all times, and by now
    double ahead, now;      // microseconds
};

//
// 1. Bytes
//

static bool tree_init(struct bytes_tree * tree, struct arena * arena, uint32_t n) {
    tree->n = 1;
    while (tree->n < n) {
        tree->n *= 2;
    }
    tree->most = arena_zalloc(arena, 2 * (size_t) tree->n, sizeof(int64_t));
    tree->add = arena_zalloc(arena, 2 * (size_t) tree->n, sizeof(int64_t));
    return tree->most != NULL && tree->add != NULL;
}

static void tree_apply(struct bytes_tree * tree, uint32_t node, int64_t bytes) {
    tree->most[node] += bytes;
    tree->add[node] += bytes;
}

static void tree_lift(struct bytes_tree * tree, uint32_t node) {
    for (node /= 2; node > 0; node /= 2) {
        const int64_t a = tree->most[2 * node], b = tree->most[2 * node + 1];
        tree->most[node] = (a > b ? a : b) + tree->add[node];
    }
}

// To units [begin, end).
static void tree_add(struct bytes_tree * tree, uint32_t begin, uint32_t end, int64_t bytes) {
    if (begin >= end) {
        return;
    }
    uint32_t low = begin + tree->n, high = end + tree->n;
    for (; low < high; low /= 2, high /= 2) {
        if (low & 1) {
            tree_apply(tree, low++, bytes);
        }
        if (high & 1) {
            tree_apply(tree, --high, bytes);
        }
    }
    tree_lift(tree, begin + tree->n);
    tree_lift(tree, end - 1 + tree->n);
}

// Of units [begin, end): each side climbs on its own, with the largest that it has passed so far.
static int64_t tree_most(const struct bytes_tree * tree, uint32_t begin, uint32_t end) {
    int64_t left = FINISHED, right = FINISHED;
    if (begin >= end) {
        return FINISHED;
    }
    uint32_t low = begin + tree->n, high = end - 1 + tree->n;
    left = tree->most[low];
    right = tree->most[high];
    for (; low / 2 != high / 2; low /= 2, high /= 2) {
        if (!(low & 1) && tree->most[low + 1] > left) {
            left = tree->most[low + 1];
        }
        if ((high & 1) && tree->most[high - 1] > right) {
            right = tree->most[high - 1];
        }
        left += tree->add[low / 2];
        right += tree->add[high / 2];
    }
    int64_t most = left > right ? left : right;
    for (low /= 2; low > 0; low /= 2) {
        // the two have met, but for a lone leaf, whose own value is in already
        most += tree->add[low];
    }
    return most;
}

//
// 2. Which unit comes first
//

static void heap_push(struct heap * heap, uint32_t place) {
    uint32_t i = heap->n++;
    for (; i > 0 && heap->places[(i - 1) / 2] > place; i = (i - 1) / 2) {
        heap->places[i] = heap->places[(i - 1) / 2];
    }
    heap->places[i] = place;
}

static uint32_t heap_pop(struct heap * heap) {
    const uint32_t least = heap->places[0], last = heap->places[--heap->n];
    uint32_t i = 0;
    for (uint32_t k = 1; k < heap->n; k = 2 * i + 1) {
        k += k + 1 < heap->n && heap->places[k + 1] < heap->places[k];
        if (heap->places[k] >= last) {
            break;
        }
        heap->places[i] = heap->places[k];
        i = k;
    }
    heap->places[i] = last;
    return least;
}

// By the longest chain from each unit to the end; but units that nobody waits for come as soon as
// they can, so that what they read is over.
static bool find_places(struct scheduler * s) {
    const struct memory_problem * problem = s->m->problem;
    const uint32_t n = problem->n_units;
    struct keyed * items = arena_alloc(s->m->arena, n, sizeof(struct keyed));
    struct keyed * spare = arena_alloc(s->m->arena, n, sizeof(struct keyed));
    if (items == NULL || spare == NULL) {
        return false;
    }
    for (uint32_t u = n; u-- > 0;) {
        s->rank[u] += memory_cost(problem, u);
        for (uint32_t k = problem->dep_begin[u]; k < problem->dep_begin[u + 1]; k++) {
            double * before = &s->rank[problem->dep[k]];
            *before = s->rank[u] > *before ? s->rank[u] : *before;
        }
    }
    for (uint32_t u = 0; u < n; u++) {
        const uint32_t begin = problem->dep_begin[u], end = problem->dep_begin[u + 1];
        const bool is_end = s->next_begin[u] == s->next_begin[u + 1];
        for (uint32_t k = begin; k < end && is_end; k++) {
            const uint32_t d = problem->dep[k];
            // just after the longest chain that follows on what it reads
            const double before = (s->rank[d] - memory_cost(problem, d)) * (1 - 1e-9);
            s->rank[u] = k == begin || before < s->rank[u] ? before : s->rank[u];
        }
        uint64_t bits;
        memcpy(&bits, &s->rank[u], sizeof(bits));  // what is not negative sorts like its bits
        items[u] = (struct keyed) {UINT64_MAX - bits, u};
    }
    items = radix_sort(items, spare, n, UINT64_MAX);
    for (uint32_t i = 0; i < n; i++) {
        s->by_place[i] = items[i].value;
        s->place[items[i].value] = i;
    }
    return true;
}

//
// 3. Memory
//

// Bytes that a unit begins, and in *first the serially last of the units that begin them serially.
static uint64_t begins(const struct scheduler * s, uint32_t unit, uint32_t * first) {
    uint64_t bytes = 0;
    *first = 0;
    for (uint32_t k = s->slot_begin[unit]; k < s->slot_begin[unit + 1]; k++) {
        const struct slot * slot = &s->m->slots[s->slots[k]];
        if (s->begun_at[s->slots[k]] == GGC_NONE && slot->first > s->front) {
            bytes += slot->size;  // one that two of its tensors share is counted twice, but rarely
            *first = slot->first > *first ? slot->first : *first;
        }
    }
    return bytes;
}

// Units that take no more memory may run ahead as they like.
static bool may_start(const struct scheduler * s, uint32_t unit) {
    uint32_t first;
    const int64_t bytes = (int64_t) begins(s, unit, &first);
    return bytes == 0 || (s->rank[unit] + s->ahead >= s->rank[s->by_place[s->critical]] &&
                          tree_most(&s->tree, s->front, first) + bytes <= s->budget);
}

static void begin_slots(struct scheduler * s, uint32_t unit) {
    for (uint32_t k = s->slot_begin[unit]; k < s->slot_begin[unit + 1]; k++) {
        const uint32_t i = s->slots[k];
        const struct slot * slot = &s->m->slots[i];
        if (s->begun_at[i] == GGC_NONE) {
            s->begun_at[i] = s->front;
            if (!slot->kept) {
                s->in_use += slot->size;
                tree_add(&s->tree, s->front, slot->first, (int64_t) slot->size);
            }
        }
    }
}

static void end_slots(struct scheduler * s, uint32_t unit) {
    for (uint32_t k = s->slot_begin[unit]; k < s->slot_begin[unit + 1]; k++) {
        const uint32_t i = s->slots[k];
        const struct slot * slot = &s->m->slots[i];
        if (--s->left[i] == 0 && !slot->kept && !slot->result) {
            s->in_use -= slot->size;
            tree_add(&s->tree, s->begun_at[i], slot->first, -(int64_t) slot->size);
        }
    }
}

//
// 4. Time
//

// The stream on which a unit would start first, of those that are free.
static uint32_t best_stream(const struct scheduler * s, uint32_t unit, const uint32_t * stream,
                            double * start) {
    const struct memory_problem * problem = s->m->problem;
    uint32_t best = GGC_NONE;
    bool best_is_own = false;
    for (uint32_t t = 0; t < s->m->n_streams; t++) {
        double ready = s->now;
        bool own = false;
        if (s->running[t] != GGC_NONE) {
            continue;
        }
        for (uint32_t k = problem->dep_begin[unit]; k < problem->dep_begin[unit + 1]; k++) {
            const uint32_t d = problem->dep[k];
            own |= stream[d] == t;
            ready = fmax(ready, s->m->finish[d] + (stream[d] == t ? 0 : problem->wait_cost));
        }
        if (best == GGC_NONE || ready < *start || (ready == *start && own && !best_is_own)) {
            best = t;
            best_is_own = own;
            *start = ready;
        }
    }
    return best;
}

static void start_unit(struct scheduler * s, uint32_t unit, uint32_t * stream) {
    double start = 0;
    const uint32_t t = best_stream(s, unit, stream, &start);
    s->started[unit] = true;
    s->running[t] = unit;
    stream[unit] = t;
    s->m->start[unit] = start;
    s->m->finish[unit] = start + memory_cost(s->m->problem, unit);
    begin_slots(s, unit);
}

static void add_ready(struct scheduler * s, uint32_t unit) {
    bool is_light = true;
    for (uint32_t k = s->slot_begin[unit]; k < s->slot_begin[unit + 1]; k++) {
        is_light &= s->begun_at[s->slots[k]] != GGC_NONE;
    }
    heap_push(is_light ? &s->light : &s->ready, s->place[unit]);
}

static void finish_unit(struct scheduler * s, uint32_t unit) {
    const uint32_t n = s->m->problem->n_units;
    s->finished[unit] = true;
    tree_add(&s->tree, unit, unit + 1, FINISHED);
    end_slots(s, unit);
    while (s->front < n && s->finished[s->front]) {
        s->front++;
    }
    while (s->critical + 1 < n && s->finished[s->by_place[s->critical]]) {
        s->critical++;
    }
    for (uint32_t k = s->next_begin[unit]; k < s->next_begin[unit + 1]; k++) {
        if (--s->missing[s->next[k]] == 0) {
            add_ready(s, s->next[k]);
        }
    }
}

// The place of the first unit of a heap that has not been started, as the front may have been.
static uint32_t top_of(const struct scheduler * s, struct heap * heap) {
    while (heap->n > 0 && s->started[s->by_place[heap->places[0]]]) {
        heap_pop(heap);
    }
    return heap->n > 0 ? heap->places[0] : GGC_NONE;
}

// The first unit by rank that may start, or the first of the serial order; GGC_NONE: all wait.
static uint32_t choose(struct scheduler * s) {
    uint32_t passed[N_TRIES], n = 0, found = GGC_NONE;
    const uint32_t light = top_of(s, &s->light);
    while (found == GGC_NONE && n < N_TRIES && top_of(s, &s->ready) < light) {
        const uint32_t place = heap_pop(&s->ready), unit = s->by_place[place];
        if (may_start(s, unit)) {
            found = unit;
        } else {
            passed[n++] = place;
        }
    }
    while (n > 0) {
        heap_push(&s->ready, passed[--n]);
    }
    if (found == GGC_NONE && light != GGC_NONE) {
        found = s->by_place[heap_pop(&s->light)];
    }
    return found == GGC_NONE && s->front < s->m->problem->n_units && !s->started[s->front]
               ? s->front
               : found;
}

static uint32_t free_streams(const struct scheduler * s) {
    uint32_t n = 0;
    for (uint32_t t = 0; t < s->m->n_streams; t++) {
        n += s->running[t] == GGC_NONE;
    }
    return n;
}

// To where the next unit finishes.
static void advance(struct scheduler * s) {
    double next = INFINITY;
    for (uint32_t t = 0; t < s->m->n_streams; t++) {
        if (s->running[t] != GGC_NONE) {
            next = fmin(next, s->m->finish[s->running[t]]);
        }
    }
    s->now = next;
    for (uint32_t t = 0; t < s->m->n_streams; t++) {
        if (s->running[t] != GGC_NONE && s->m->finish[s->running[t]] <= next) {
            finish_unit(s, s->running[t]);
            s->running[t] = GGC_NONE;
        }
    }
}

//
// 5. All of it
//

static bool find_followers(struct scheduler * s) {
    const struct memory_problem * problem = s->m->problem;
    const uint32_t n = problem->n_units, n_deps = problem->dep_begin[n];
    s->next_begin = arena_zalloc(s->m->arena, (size_t) n + 2, sizeof(uint32_t));
    s->next = arena_alloc(s->m->arena, n_deps, sizeof(uint32_t));
    if (s->next_begin == NULL || s->next == NULL) {
        return false;
    }
    uint32_t * at = s->next_begin + 1;  // is moved to where the next one's begin
    for (uint32_t k = 0; k < n_deps; k++) {
        at[problem->dep[k] + 1]++;
    }
    for (uint32_t u = 0; u < n; u++) {
        at[u + 1] += at[u];
    }
    for (uint32_t u = 0; u < n; u++) {
        for (uint32_t k = problem->dep_begin[u]; k < problem->dep_begin[u + 1]; k++) {
            s->next[at[problem->dep[k]]++] = u;
        }
    }
    return true;
}

static bool find_slots_of_units(struct scheduler * s) {
    const struct memory_problem * problem = s->m->problem;
    uint32_t * at = s->slot_begin + 1;
    for (uint32_t i = 0; i < problem->n_tensors; i++) {
        const struct memory_tensor * tensor = &problem->tensors[i];
        for (uint32_t k = tensor->begin; k < tensor->end && tensor->size > 0; k++) {
            at[problem->uses[k] + 1]++;
            s->uses[s->m->slot_of[i]]++;
        }
    }
    for (uint32_t u = 0; u < problem->n_units; u++) {
        at[u + 1] += at[u];
    }
    s->slots = arena_alloc(s->m->arena, at[problem->n_units], sizeof(uint32_t));
    for (uint32_t i = 0; s->slots != NULL && i < problem->n_tensors; i++) {
        const struct memory_tensor * tensor = &problem->tensors[i];
        for (uint32_t k = tensor->begin; k < tensor->end && tensor->size > 0; k++) {
            s->slots[at[problem->uses[k]]++] = s->m->slot_of[i];
        }
    }
    return s->slots != NULL;
}

static void find_serial_bytes(struct scheduler * s) {
    const uint32_t n = s->m->problem->n_units;
    for (uint32_t i = 0; i < s->m->n_slots; i++) {
        const struct slot * slot = &s->m->slots[i];
        const uint32_t begin = slot->kept ? 0 : slot->first;
        s->kept += slot->kept ? slot->size : 0;
        const uint32_t end = slot->kept || slot->result ? n : slot->last + 1;
        tree_add(&s->serial, begin, end, (int64_t) slot->size);
    }
}

struct scheduler * scheduler_new(const struct memory * m) {
    struct arena * arena = m->arena;
    const size_t n = m->problem->n_units;
    struct scheduler * s = arena_zalloc(arena, 1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->m = m;
    s->slot_begin = arena_zalloc(arena, n + 2, sizeof(uint32_t));
    s->uses = arena_zalloc(arena, m->n_slots, sizeof(uint32_t));
    s->rank = arena_zalloc(arena, n, sizeof(double));
    s->place = arena_alloc(arena, n, sizeof(uint32_t));
    s->by_place = arena_alloc(arena, n, sizeof(uint32_t));
    s->missing = arena_alloc(arena, n, sizeof(uint32_t));
    s->left = arena_alloc(arena, m->n_slots, sizeof(uint32_t));
    s->begun_at = arena_alloc(arena, m->n_slots, sizeof(uint32_t));
    s->ready.places = arena_alloc(arena, n, sizeof(uint32_t));
    s->light.places = arena_alloc(arena, n, sizeof(uint32_t));
    s->started = arena_alloc(arena, n, sizeof(bool));
    s->finished = arena_alloc(arena, n, sizeof(bool));
    if (s->slot_begin == NULL || s->uses == NULL || s->rank == NULL || s->place == NULL ||
        s->by_place == NULL || s->missing == NULL || s->left == NULL || s->begun_at == NULL ||
        s->ready.places == NULL || s->light.places == NULL || s->started == NULL ||
        s->finished == NULL || !tree_init(&s->serial, arena, m->problem->n_units) ||
        !tree_init(&s->tree, arena, m->problem->n_units) || !find_followers(s) ||
        !find_slots_of_units(s) || !find_places(s)) {
        return NULL;
    }
    find_serial_bytes(s);
    return s;
}

uint64_t scheduler_least(const struct scheduler * s) {
    return (uint64_t) s->serial.most[1];
}

static void begin_run(struct scheduler * s) {
    const struct memory_problem * problem = s->m->problem;
    const uint32_t n = problem->n_units;
    memcpy(s->tree.most, s->serial.most, 2 * (size_t) s->tree.n * sizeof(int64_t));
    memcpy(s->tree.add, s->serial.add, 2 * (size_t) s->tree.n * sizeof(int64_t));
    memcpy(s->left, s->uses, s->m->n_slots * sizeof(uint32_t));
    memset(s->begun_at, 0xff, s->m->n_slots * sizeof(uint32_t));
    memset(s->started, 0, n * sizeof(bool));
    memset(s->finished, 0, n * sizeof(bool));
    memset(s->running, 0xff, sizeof(s->running));
    s->ready.n = s->light.n = s->front = s->critical = 0;
    s->now = 0;
    s->in_use = s->kept;
    for (uint32_t u = 0; u < n; u++) {
        s->missing[u] = problem->dep_begin[u + 1] - problem->dep_begin[u];
        if (s->missing[u] == 0) {
            add_ready(s, u);
        }
    }
}

// Whether the chain that starts with a unit just started ends too late. One that nobody waits for
// has no chain, and a rank of another kind.
static bool is_late(const struct scheduler * s, uint32_t unit, double limit) {
    const bool is_end = s->next_begin[unit] == s->next_begin[unit + 1];
    return (is_end ? s->m->finish[unit] : s->m->start[unit] + s->rank[unit]) >= limit;
}

double scheduler_run(struct scheduler * s, uint64_t budget, double ahead, uint64_t most,
                     double limit, uint32_t * stream) {
    const uint32_t n = s->m->problem->n_units;
    double end = 0;
    begin_run(s);
    s->budget = budget < INT64_MAX ? (int64_t) budget : INT64_MAX;
    s->ahead = n > 0 ? ahead * s->rank[s->by_place[0]] : 0;
    while (s->front < n) {
        uint32_t unit;
        while (free_streams(s) > 0 && (unit = choose(s)) != GGC_NONE) {
            start_unit(s, unit, stream);
            end = fmax(end, s->m->finish[unit]);
            if (s->in_use > most || is_late(s, unit, limit)) {
                return INFINITY;
            }
        }
        advance(s);
    }
    return end;
}
