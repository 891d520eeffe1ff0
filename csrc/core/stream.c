#include "stream.h"

#include <string.h>

#include "cover.h"
#include "radix.h"

struct placer {
    const struct ggc_units * units;
    const struct hazards * hazards;
    const struct ggc_plan_params * params;
    struct streams * streams;
    struct arena * out;
    struct arena * scratch;
};

static double cost_of(const struct ggc_units * units, uint32_t unit) {
    return units->cost != NULL ? units->cost[unit] : 1.0;
}

static void place_serial(struct streams * streams, uint32_t n_units) {
    streams->n_streams = 1;
    for (uint32_t u = 0; u < n_units; u++) {
        streams->order[u] = u;
        streams->stream[u] = 0;
    }
}

// Units by a number, largest first, of equals the earlier first. In single precision: rounding
// keeps the order up to equality, and the bits of positive floats sort like integers.
static bool sort_descending(struct placer * p, const double * number, uint32_t * sorted) {
    const uint32_t n = p->units->n_units;
    struct keyed * items = arena_alloc(p->scratch, n, sizeof(struct keyed));
    struct keyed * spare = arena_alloc(p->scratch, n, sizeof(struct keyed));
    if (items == NULL || spare == NULL) {
        return false;
    }
    for (uint32_t u = 0; u < n; u++) {
        const float single = (float) number[u];
        uint32_t bits;
        memcpy(&bits, &single, sizeof(bits));
        items[u] = (struct keyed) {UINT32_MAX - bits, u};
    }
    items = radix_sort(items, spare, n, UINT32_MAX);
    for (uint32_t i = 0; i < n; i++) {
        sorted[i] = items[i].value;
    }
    return true;
}

// Issues units phase by phase, within a phase in the order of `units`; NULL: the serial order.
static enum ggc_status order_by_phase(struct placer * p, const uint32_t * phase, uint32_t n_phases,
                                      const uint32_t * units) {
    const uint32_t n = p->units->n_units;
    uint32_t * next = arena_zalloc(p->scratch, (size_t) n_phases + 1, sizeof(uint32_t));
    if (next == NULL) {
        return GGC_E_NOMEM;
    }
    for (uint32_t u = 0; u < n; u++) {
        next[phase[u] + 1]++;
    }
    for (uint32_t i = 0; i < n_phases; i++) {
        next[i + 1] += next[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t u = units != NULL ? units[i] : i;
        p->streams->order[next[phase[u]]++] = u;
    }
    return GGC_OK;
}

// Of the streams with the least work, that of the unit's latest dependence if it is one: no wait.
static uint32_t least_loaded(const struct placer * p, const double * load, uint32_t unit) {
    const uint32_t end = p->hazards->begin[unit + 1];
    uint32_t best =
        end > p->hazards->begin[unit] ? p->streams->stream[p->hazards->dep[end - 1]] : 0;
    for (uint32_t s = 0; s < p->params->n_streams; s++) {
        best = load[s] < load[best] ? s : best;
    }
    return best;
}

// Phase by phase, the longest unit first, each to the stream with the least work in the phase so
// far (Graham, "Bounds on multiprocessing timing anomalies", 1969).
static enum ggc_status place_levels(struct placer * p, const uint32_t * phase, uint32_t n_phases) {
    const uint32_t n = p->units->n_units;
    uint32_t * longest_first = NULL;
    if (p->units->cost != NULL) {
        longest_first = arena_alloc(p->scratch, n, sizeof(uint32_t));
        if (longest_first == NULL || !sort_descending(p, p->units->cost, longest_first)) {
            return GGC_E_NOMEM;
        }
    }
    const enum ggc_status status = order_by_phase(p, phase, n_phases, longest_first);
    double load[GGC_MAX_STREAMS] = {0};
    for (uint32_t i = 0; status == GGC_OK && i < n; i++) {
        const uint32_t u = p->streams->order[i];
        if (i > 0 && phase[u] != phase[p->streams->order[i - 1]]) {
            memset(load, 0, sizeof(load));
        }
        const uint32_t s = least_loaded(p, load, u);
        load[s] += cost_of(p->units, u);
        p->streams->stream[u] = s;
    }
    p->streams->n_streams = p->params->n_streams;
    return status;
}

//
// Minimum path cover: each chain on a stream of its own, as long as there are streams; chains that
// do not overlap in phases share one.
//

// The stream that is free by the phase `first`, of those the one that was busy last; if none is,
// the one that becomes free first.
static uint32_t stream_for(const uint32_t * free_from, uint32_t n_streams, uint32_t first) {
    uint32_t best = 0;
    for (uint32_t s = 1; s < n_streams; s++) {
        const bool is_free = free_from[s] <= first, best_is_free = free_from[best] <= first;
        const bool later = free_from[s] > free_from[best], earlier = free_from[s] < free_from[best];
        if (is_free ? !best_is_free || later : !best_is_free && earlier) {
            best = s;
        }
    }
    return best;
}

static enum ggc_status place_cover(struct placer * p, const uint32_t * phase, uint32_t n_phases) {
    const uint32_t n = p->units->n_units;
    uint32_t * next = arena_alloc(p->scratch, n, sizeof(uint32_t));
    if (next == NULL) {
        return GGC_E_NOMEM;
    }
    const enum ggc_status status = cover_chains(next, p->units, p->hazards, p->scratch);
    if (status != GGC_OK) {
        return status;
    }
    uint32_t free_from[GGC_MAX_STREAMS] = {0};
    memset(p->streams->stream, 0xff, n * sizeof(uint32_t));
    for (uint32_t u = 0; u < n; u++) {
        if (p->streams->stream[u] != GGC_NONE) {
            continue;  // not the head of its chain
        }
        const uint32_t s = stream_for(free_from, p->params->n_streams, phase[u]);
        for (uint32_t v = u; v != GGC_NONE; v = next[v]) {
            p->streams->stream[v] = s;
            free_from[s] = phase[v] + 1 > free_from[s] ? phase[v] + 1 : free_from[s];
        }
    }
    p->streams->n_streams = p->params->n_streams;
    return order_by_phase(p, phase, n_phases, NULL);
}

//
// List scheduling after HEFT (Topcuoglu, Hariri, Wu, "Performance-effective and low-complexity task
// scheduling for heterogeneous computing", 2002): units by the length of the longest chain that
// starts with them, each to the stream on which it would finish first.
//

// The length of the longest chain from each unit to the end, its own cost included.
static double * upward_ranks(struct placer * p) {
    const uint32_t n = p->units->n_units;
    double * rank = arena_zalloc(p->scratch, n, sizeof(double));
    if (rank == NULL) {
        return NULL;
    }
    for (uint32_t u = n; u-- > 0;) {
        rank[u] += cost_of(p->units, u);
        for (uint32_t i = p->hazards->begin[u]; i < p->hazards->begin[u + 1]; i++) {
            double * before = &rank[p->hazards->dep[i]];
            *before = rank[u] > *before ? rank[u] : *before;
        }
    }
    return rank;
}

// When a unit's inputs are there, on any stream: its own stream's at once, others' after a wait.
struct arrival {
    double first, second;  // latest and second latest stream's finish
    uint32_t stream;       // of the latest
};

static struct arrival arrival_of(const struct placer * p, uint32_t unit, const double * finish) {
    struct arrival arrival = {0, 0, GGC_NONE};
    for (uint32_t i = p->hazards->begin[unit]; i < p->hazards->begin[unit + 1]; i++) {
        const uint32_t dep = p->hazards->dep[i];
        const uint32_t stream = p->streams->stream[dep];
        if (finish[dep] > arrival.first || arrival.stream == GGC_NONE) {
            if (stream != arrival.stream) {
                arrival.second = arrival.first;
            }
            arrival.first = finish[dep];
            arrival.stream = stream;
        } else if (stream != arrival.stream && finish[dep] > arrival.second) {
            arrival.second = finish[dep];
        }
    }
    return arrival;
}

static double max2(double a, double b) {
    return a > b ? a : b;
}

// Of the first n_streams.
static uint32_t best_stream(const struct placer * p, const struct arrival * arrival,
                            const double * available, uint32_t n_streams, double * start) {
    const double wait = p->params->wait_cost;
    uint32_t best = GGC_NONE;
    for (uint32_t s = 0; s < n_streams; s++) {
        const bool own = s == arrival->stream;
        double ready = own ? arrival->first : arrival->first + wait;
        if (own && arrival->second > 0) {
            ready = max2(ready, arrival->second + wait);
        }
        if (arrival->stream == GGC_NONE) {
            ready = 0;
        }
        ready = max2(ready, available[s]);
        // of equals the stream of the last input: no wait there
        if (best == GGC_NONE || ready < *start || (ready == *start && own)) {
            best = s;
            *start = ready;
        }
    }
    return best;
}

// A unit that nothing can run beside is best kept on one stream, always the same: there it needs no
// wait in a chain of such units, and a device that spreads a lone unit over all it has sets that up
// once. Everything before such a unit leads to it: of the units up to it, it alone has no follower
// among them. Everything after it follows it: of the units from it on, it alone has no dependence
// among them.
static bool * find_alone(struct placer * p) {
    const uint32_t n = p->units->n_units;
    bool * alone = arena_alloc(p->scratch, n, sizeof(bool));
    bool * followed = arena_zalloc(p->scratch, n, sizeof(bool));
    uint32_t * latest_of = arena_zalloc(p->scratch, n, sizeof(uint32_t));  // of how many units
    if (alone == NULL || followed == NULL || latest_of == NULL) {
        return NULL;
    }
    uint32_t n_ends = 0, n_starts = 0;
    for (uint32_t u = 0; u < n; u++) {
        const uint32_t begin = p->hazards->begin[u], end = p->hazards->begin[u + 1];
        n_ends++;
        for (uint32_t i = begin; i < end; i++) {
            n_ends -= !followed[p->hazards->dep[i]];
            followed[p->hazards->dep[i]] = true;
        }
        if (begin < end) {
            latest_of[p->hazards->dep[end - 1]]++;
        }
        alone[u] = n_ends == 1;
    }
    // a unit is no start any more once its latest dependence is in
    for (uint32_t u = n; u-- > 0;) {
        n_starts += 1 - latest_of[u];
        alone[u] = alone[u] && n_starts == 1;
    }
    return alone;
}

// By rank, largest first, every unit comes after its dependences.
static enum ggc_status place_list(struct placer * p) {
    const uint32_t n = p->units->n_units;
    double * rank = upward_ranks(p);
    double * finish = arena_alloc(p->scratch, n, sizeof(double));
    const bool * alone = find_alone(p);
    if (rank == NULL || finish == NULL || alone == NULL ||
        !sort_descending(p, rank, p->streams->order)) {
        return GGC_E_NOMEM;
    }
    double available[GGC_MAX_STREAMS] = {0};
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t u = p->streams->order[i];
        const struct arrival arrival = arrival_of(p, u, finish);
        double start = 0;
        const uint32_t n_streams = alone[u] ? 1 : p->params->n_streams;
        const uint32_t s = best_stream(p, &arrival, available, n_streams, &start);
        finish[u] = available[s] = start + cost_of(p->units, u);
        p->streams->stream[u] = s;
    }
    p->streams->n_streams = p->params->n_streams;
    return GGC_OK;
}

// As another schedule has them.
static enum ggc_status place_kept(struct placer * p, const struct ggc_schedule * keep) {
    const uint32_t n = p->units->n_units;
    uint32_t * place = arena_alloc(p->scratch, n, sizeof(uint32_t));
    if (place == NULL) {
        return GGC_E_NOMEM;
    }
    memset(place, 0xff, n * sizeof(uint32_t));  // GGC_NONE: not issued yet
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t u = keep->order[i];
        if (u >= n || place[u] != GGC_NONE || keep->stream[u] >= keep->n_streams) {
            return GGC_E_INVALID;
        }
        for (uint32_t k = p->hazards->begin[u]; k < p->hazards->begin[u + 1]; k++) {
            if (place[p->hazards->dep[k]] == GGC_NONE) {
                return GGC_E_INVALID;
            }
        }
        place[u] = i;
    }
    memcpy(p->streams->order, keep->order, n * sizeof(uint32_t));
    memcpy(p->streams->stream, keep->stream, n * sizeof(uint32_t));
    return GGC_OK;
}

// Streams that got work, numbered by their first unit.
static void renumber(struct streams * streams, uint32_t n_units) {
    uint32_t number[GGC_MAX_STREAMS];
    uint32_t n = 0;
    memset(number, 0xff, sizeof(number));
    for (uint32_t i = 0; i < n_units; i++) {
        uint32_t * stream = &streams->stream[streams->order[i]];
        if (number[*stream] == GGC_NONE) {
            number[*stream] = n++;
        }
        *stream = number[*stream];
    }
    streams->n_streams = n > 0 ? n : 1;
}

//
// Waits, by vector clocks: clock[u][t] says how many units of stream t are known to have finished
// when u has. A dependence that the clock knows already needs no wait.
//

struct waits {
    uint32_t * clock;     // n_units rows of n_streams
    uint32_t * position;  // of each unit on its stream
    uint32_t * issued;    // of each unit in the whole order
    uint32_t * items;     // the waits found, in issue order
    uint32_t n, capacity;
};

static bool push_wait(struct placer * p, struct waits * w, uint32_t unit) {
    if (w->n == w->capacity) {
        uint32_t * grown = w->capacity > UINT32_MAX / 2
                               ? NULL
                               : arena_grow(p->scratch, w->items, w->n, (size_t) w->capacity * 2,
                                            sizeof(uint32_t));
        if (grown == NULL) {
            return false;
        }
        w->items = grown;
        w->capacity *= 2;
    }
    w->items[w->n++] = unit;
    return true;
}

// The latest dependence on each other stream: what comes before it there is implied.
static uint32_t latest_by_stream(const struct placer * p, const struct waits * w, uint32_t unit,
                                 uint32_t * latest) {
    uint32_t n = 0;
    for (uint32_t i = p->hazards->begin[unit]; i < p->hazards->begin[unit + 1]; i++) {
        const uint32_t dep = p->hazards->dep[i];
        uint32_t k = 0;
        if (p->streams->stream[dep] == p->streams->stream[unit]) {
            continue;
        }
        while (k < n && p->streams->stream[latest[k]] != p->streams->stream[dep]) {
            k++;
        }
        if (k == n) {
            latest[n++] = dep;
        } else if (w->position[dep] > w->position[latest[k]]) {
            latest[k] = dep;
        }
    }
    return n;
}

// Last issued first: one issued earlier may be implied by it, never the other way round.
static void sort_last_issued_first(uint32_t * units, uint32_t n, const uint32_t * issued) {
    for (uint32_t i = 1; i < n; i++) {
        const uint32_t unit = units[i];
        uint32_t j = i;
        for (; j > 0 && issued[units[j - 1]] < issued[unit]; j--) {
            units[j] = units[j - 1];
        }
        units[j] = unit;
    }
}

static bool waits_of_unit(struct placer * p, struct waits * w, uint32_t unit, uint32_t previous) {
    const uint32_t n_streams = p->streams->n_streams;
    uint32_t * clock = w->clock + (size_t) unit * n_streams;
    uint32_t latest[GGC_MAX_STREAMS];
    if (previous == GGC_NONE) {
        memset(clock, 0, n_streams * sizeof(uint32_t));
    } else {
        memcpy(clock, w->clock + (size_t) previous * n_streams, n_streams * sizeof(uint32_t));
    }
    const uint32_t n = latest_by_stream(p, w, unit, latest);
    sort_last_issued_first(latest, n, w->issued);
    for (uint32_t k = 0; k < n; k++) {
        if (clock[p->streams->stream[latest[k]]] > w->position[latest[k]]) {
            continue;
        }
        const uint32_t * other = w->clock + (size_t) latest[k] * n_streams;
        for (uint32_t t = 0; t < n_streams; t++) {
            clock[t] = other[t] > clock[t] ? other[t] : clock[t];
        }
        if (!push_wait(p, w, latest[k])) {
            return false;
        }
    }
    clock[p->streams->stream[unit]] = w->position[unit] + 1;
    return true;
}

static bool waits_init(struct waits * w, struct placer * p) {
    const size_t n = p->units->n_units;
    w->n = 0;
    w->capacity = 64;
    w->clock = arena_alloc(p->scratch, n * p->streams->n_streams, sizeof(uint32_t));
    w->position = arena_alloc(p->scratch, n, sizeof(uint32_t));
    w->issued = arena_alloc(p->scratch, n, sizeof(uint32_t));
    w->items = arena_alloc(p->scratch, w->capacity, sizeof(uint32_t));
    return w->clock != NULL && w->position != NULL && w->issued != NULL && w->items != NULL;
}

// Waits are found in issue order and kept by unit.
static bool find_waits(struct placer * p) {
    const uint32_t n = p->units->n_units;
    struct streams * streams = p->streams;
    struct waits w;
    uint32_t * found = arena_alloc(p->scratch, n, sizeof(uint32_t));
    uint32_t * begin = arena_zalloc(p->out, (size_t) n + 1, sizeof(uint32_t));
    if (found == NULL || begin == NULL || !waits_init(&w, p)) {
        return false;
    }
    uint32_t previous[GGC_MAX_STREAMS], length[GGC_MAX_STREAMS] = {0};
    memset(previous, 0xff, sizeof(previous));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t unit = streams->order[i], s = streams->stream[unit];
        w.issued[unit] = i;
        w.position[unit] = length[s]++;
        found[unit] = w.n;
        if (!waits_of_unit(p, &w, unit, previous[s])) {
            return false;
        }
        begin[unit + 1] = w.n - found[unit];
        previous[s] = unit;
    }
    streams->wait_begin = begin;
    streams->waits = arena_alloc(p->out, w.n, sizeof(uint32_t));
    if (streams->waits == NULL) {
        return false;
    }
    for (uint32_t u = 0; u < n; u++) {
        memcpy(streams->waits + begin[u], w.items + found[u], begin[u + 1] * sizeof(uint32_t));
        begin[u + 1] += begin[u];
    }
    return true;
}

enum ggc_status streams_place(struct streams * streams, const struct ggc_units * units,
                              const struct hazards * hazards, const uint32_t * phase,
                              uint32_t n_phases, const struct ggc_plan_params * params,
                              struct arena * out, struct arena * scratch) {
    struct placer p = {units, hazards, params, streams, out, scratch};
    const uint32_t n = units->n_units;
    streams->order = arena_alloc(out, n, sizeof(uint32_t));
    streams->stream = arena_alloc(out, n, sizeof(uint32_t));
    if (streams->order == NULL || streams->stream == NULL) {
        return GGC_E_NOMEM;
    }
    enum ggc_status status = GGC_OK;
    if (params->keep != NULL) {
        status = place_kept(&p, params->keep);
    } else {
        switch (params->n_streams == 1 ? GGC_STRATEGY_SERIAL : params->strategy) {
            case GGC_STRATEGY_SERIAL: place_serial(streams, n); break;
            case GGC_STRATEGY_LEVELS: status = place_levels(&p, phase, n_phases); break;
            case GGC_STRATEGY_LIST: status = place_list(&p); break;
            case GGC_STRATEGY_COVER: status = place_cover(&p, phase, n_phases); break;
        }
    }
    if (status != GGC_OK) {
        return status;
    }
    renumber(streams, n);
    return find_waits(&p) ? GGC_OK : GGC_E_NOMEM;
}
