#include "memory.h"

#include <math.h>
#include <string.h>

#include "memory_slots.h"

// How often the range of slacks is halved.
#define N_STEPS 6

// The part of the time for which nobody would wait for a unit by which it is expected to start
// later than it could. All of it leaves nothing to spare, none of it much memory in use.
#define DELAY 0.5

static uint64_t padded(const struct memory_problem * problem, uint64_t size) {
    return (size + problem->alignment - 1) & ~(problem->alignment - 1);
}

bool memory_valid(const struct memory_problem * problem) {
    const uint64_t alignment = problem->alignment;
    uint64_t sum = 0;
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || problem->max_buffer < alignment ||
        problem->schedule.n_units != problem->n_units) {
        return false;
    }
    for (uint32_t i = 0; i < problem->n_tensors; i++) {
        const struct memory_tensor * tensor = &problem->tensors[i];
        if (tensor->end < tensor->begin ||
            (tensor->in_place != GGC_NONE && tensor->in_place >= i)) {
            return false;
        }
        for (uint32_t k = tensor->begin; k < tensor->end; k++) {
            const uint32_t before = k > tensor->begin ? problem->uses[k - 1] : 0;
            if (problem->uses[k] >= problem->n_units || problem->uses[k] < before) {
                return false;
            }
        }
        if (tensor->size > UINT64_MAX / 4 || alignment > UINT64_MAX / 4) {
            return false;
        }
        sum += padded(problem, tensor->size);
        if (sum > UINT64_MAX / 4) {
            return false;
        }
    }
    return true;
}

//
// 1. The plan: what each unit knows to have finished, and when it is expected to run
//

bool memory_walk(struct memory * m) {
    const struct memory_problem * problem = m->problem;
    const struct ggc_schedule * schedule = &problem->schedule;
    uint32_t last[GGC_MAX_STREAMS], length[GGC_MAX_STREAMS] = {0};
    memset(last, 0xff, sizeof(last));
    memset(m->position, 0xff, problem->n_units * sizeof(uint32_t));  // GGC_NONE: not issued yet
    m->makespan = 0;
    for (uint32_t i = 0; i < schedule->n_units; i++) {
        const uint32_t u = schedule->order[i];
        if (u >= problem->n_units || m->position[u] != GGC_NONE ||
            schedule->stream[u] >= m->n_streams) {
            return false;
        }
        uint32_t * clock = m->clock + (size_t) u * m->n_streams;
        const uint32_t s = schedule->stream[u];
        memset(clock, 0, m->n_streams * sizeof(uint32_t));
        m->start[u] = 0;
        if (last[s] != GGC_NONE) {
            memcpy(clock, m->clock + (size_t) last[s] * m->n_streams,
                   m->n_streams * sizeof(uint32_t));
            m->start[u] = m->finish[last[s]];
        }
        for (uint32_t k = schedule->wait_begin[u]; k < schedule->wait_begin[u + 1]; k++) {
            const uint32_t v = schedule->waits[k];
            if (v >= problem->n_units || m->position[v] == GGC_NONE) {
                return false;
            }
            row_join(clock, m->clock + (size_t) v * m->n_streams, m->n_streams);
            m->start[u] = fmax(m->start[u], m->finish[v] + problem->wait_cost);
        }
        m->issue[u] = i;
        m->position[u] = length[s]++;
        clock[s] = length[s];
        m->finish[u] = m->start[u] + memory_cost(problem, u);
        m->makespan = fmax(m->makespan, m->finish[u]);
        last[s] = u;
    }
    return true;
}

// Units start later than they could, by `part` of the time for which nobody would wait for them.
// What runs ahead then holds less memory, and the plan takes no longer: any mixture of two ways to
// run it is a way to run it.
static bool delay_units(struct memory * m, double part) {
    const struct ggc_schedule * schedule = &m->problem->schedule;
    const uint32_t n = m->problem->n_units;
    double next[GGC_MAX_STREAMS];  // when the next unit of each stream must start
    double * latest = arena_alloc(m->arena, n, sizeof(double));  // finish
    for (uint32_t s = 0; s < m->n_streams; s++) {
        next[s] = m->makespan;
    }
    for (uint32_t u = 0; latest != NULL && u < n; u++) {
        latest[u] = m->makespan;
    }
    for (uint32_t i = n; latest != NULL && i-- > 0;) {
        const uint32_t u = schedule->order[i], s = schedule->stream[u];
        latest[u] = fmin(latest[u], next[s]);
        const double start = latest[u] - memory_cost(m->problem, u);
        next[s] = start;
        for (uint32_t k = schedule->wait_begin[u]; k < schedule->wait_begin[u + 1]; k++) {
            const uint32_t v = schedule->waits[k];
            latest[v] = fmin(latest[v], start - m->problem->wait_cost);
        }
        const double delay = part * fmax(latest[u] - m->finish[u], 0);
        m->start[u] += delay;
        m->finish[u] += delay;
    }
    return latest != NULL;
}

// Whether unit a has finished when b, another one, starts: known, or expected with some slack.
static bool before(const struct memory * m, uint32_t a, uint32_t b, double slack) {
    const uint32_t s = m->problem->schedule.stream[a];
    return m->clock[(size_t) b * m->n_streams + s] > m->position[a] ||
           m->finish[a] + slack <= m->start[b];
}

//
// 2. Slots
//

// Whether tensor `i` may be written in the place of another: a unit reads that one last and writes
// this one first, and all else that uses them comes before and after.
static bool may_take_over(const struct memory * m, uint32_t i, double slack) {
    const struct memory_problem * problem = m->problem;
    const struct memory_tensor * b = &problem->tensors[i];
    if (b->in_place == GGC_NONE || b->kept || b->begin == b->end) {
        return false;
    }
    const struct memory_tensor * a = &problem->tensors[b->in_place];
    const uint32_t u = problem->uses[b->begin];
    if (a->kept || a->result || a->begin == a->end || m->taken_over[b->in_place] ||
        padded(problem, a->size) != padded(problem, b->size) || problem->uses[a->begin] == u ||
        problem->uses[a->end - 1] != u) {
        return false;
    }
    for (uint32_t k = a->begin; k < a->end; k++) {
        if (problem->uses[k] != u && !before(m, problem->uses[k], u, slack)) {
            return false;
        }
    }
    for (uint32_t k = b->begin; k < b->end; k++) {
        if (problem->uses[k] != u && !before(m, u, problem->uses[k], slack)) {
            return false;
        }
    }
    return true;
}

static uint32_t new_slot(struct memory * m, const struct memory_tensor * tensor) {
    const uint32_t index = m->n_slots++;
    m->slots[index] = (struct slot) {.size = padded(m->problem, tensor->size),
                                     .first = GGC_NONE,
                                     .issued = GGC_NONE,
                                     .begins = GGC_NONE,
                                     .kept = tensor->kept || tensor->begin == tensor->end};
    const size_t row = (size_t) index * m->n_streams;
    memset(m->known + row, 0xff, m->n_streams * sizeof(uint32_t));
    memset(m->last + row, 0, m->n_streams * sizeof(uint32_t));
    return index;
}

static void add_uses(struct memory * m, uint32_t index, const struct memory_tensor * tensor) {
    struct slot * slot = &m->slots[index];
    uint32_t * known = m->known + (size_t) index * m->n_streams;
    slot->result |= tensor->result;
    for (uint32_t k = tensor->begin; k < tensor->end; k++) {
        const uint32_t u = m->problem->uses[k];
        const uint32_t * clock = m->clock + (size_t) u * m->n_streams;
        for (uint32_t s = 0; s < m->n_streams; s++) {
            known[s] = clock[s] < known[s] ? clock[s] : known[s];
        }
        row_join(m->last + (size_t) index * m->n_streams, clock, m->n_streams);
        slot->first = u < slot->first ? u : slot->first;
        slot->issued = m->issue[u] < slot->issued ? m->issue[u] : slot->issued;
        slot->last = u > slot->last ? u : slot->last;
        slot->begins = m->begins[u] < slot->begins ? m->begins[u] : slot->begins;
        slot->ends = m->ends[u] > slot->ends ? m->ends[u] : slot->ends;
    }
}

void memory_find_slots(struct memory * m, double slack) {
    m->n_slots = 0;
    memset(m->taken_over, 0, m->problem->n_tensors * sizeof(bool));
    for (uint32_t i = 0; i < m->problem->n_tensors; i++) {
        const struct memory_tensor * tensor = &m->problem->tensors[i];
        m->slot_of[i] = GGC_NONE;
        if (tensor->size == 0) {
            continue;
        }
        if (may_take_over(m, i, slack)) {
            m->slot_of[i] = m->slot_of[tensor->in_place];
            m->taken_over[tensor->in_place] = true;
        } else {
            m->slot_of[i] = new_slot(m, tensor);
        }
        add_uses(m, m->slot_of[i], tensor);
    }
}

//
// 3. The bound. Units are issued in the plan's order, and each is taken to run until something has
// waited for it. Such a state can occur, and no two slots that are in use in it may share a byte.
//

struct bound {
    uint32_t * unit_at;    // stream by stream
    uint32_t * stream_at;  // where each stream begins in it
    uint32_t * finished;   // units of each stream, by now
    uint32_t * to_issue;   // of each unit: the slots that are in use from then on, as a list
    uint32_t * to_finish;  // and those that wait for it to finish
    uint32_t * next;       // of each slot, in either list
    uint64_t alive;        // bytes
};

static bool bound_init(struct bound * b, const struct memory * m) {
    const uint32_t n = m->problem->n_units;
    b->unit_at = arena_alloc(m->arena, n, sizeof(uint32_t));
    b->stream_at = arena_zalloc(m->arena, (size_t) m->n_streams + 1, sizeof(uint32_t));
    b->finished = arena_zalloc(m->arena, m->n_streams, sizeof(uint32_t));
    b->to_issue = arena_alloc(m->arena, n, sizeof(uint32_t));
    b->to_finish = arena_alloc(m->arena, n, sizeof(uint32_t));
    b->next = arena_alloc(m->arena, m->n_slots, sizeof(uint32_t));
    if (b->unit_at == NULL || b->stream_at == NULL || b->finished == NULL || b->to_issue == NULL ||
        b->to_finish == NULL || b->next == NULL) {
        return false;
    }
    memset(b->to_issue, 0xff, n * sizeof(uint32_t));
    memset(b->to_finish, 0xff, n * sizeof(uint32_t));
    for (uint32_t u = 0; u < n; u++) {
        b->stream_at[m->problem->schedule.stream[u] + 1]++;
    }
    for (uint32_t s = 0; s < m->n_streams; s++) {
        b->stream_at[s + 1] += b->stream_at[s];
    }
    for (uint32_t u = 0; u < n; u++) {
        b->unit_at[b->stream_at[m->problem->schedule.stream[u]] + m->position[u]] = u;
    }
    b->alive = 0;
    for (uint32_t i = 0; i < m->n_slots; i++) {
        const struct slot * slot = &m->slots[i];
        if (slot->kept) {
            b->alive += slot->size;
        } else {
            const uint32_t u = m->problem->schedule.order[slot->issued];
            b->next[i] = b->to_issue[u];
            b->to_issue[u] = i;
        }
    }
    return true;
}

// A slot is in use until all units that access it have finished: it waits for one after another.
static void wait_or_end(struct bound * b, const struct memory * m, uint32_t slot) {
    const uint32_t * last = m->last + (size_t) slot * m->n_streams;
    for (uint32_t s = 0; s < m->n_streams; s++) {
        if (b->finished[s] < last[s]) {
            uint32_t * list = &b->to_finish[b->unit_at[b->stream_at[s] + last[s] - 1]];
            b->next[slot] = *list;
            *list = slot;
            return;
        }
    }
    b->alive -= m->slots[slot].size;
}

static void finish_known(struct bound * b, const struct memory * m, uint32_t unit) {
    const uint32_t * clock = m->clock + (size_t) unit * m->n_streams;
    uint32_t before[GGC_MAX_STREAMS];
    memcpy(before, b->finished, m->n_streams * sizeof(uint32_t));
    row_join(b->finished, clock, m->n_streams);
    // the unit itself is not finished, the one before it on its stream is
    b->finished[m->problem->schedule.stream[unit]] = m->position[unit];
    for (uint32_t s = 0; s < m->n_streams; s++) {
        for (uint32_t k = before[s]; k < b->finished[s]; k++) {
            uint32_t * list = &b->to_finish[b->unit_at[b->stream_at[s] + k]];
            for (uint32_t slot = *list, next; slot != GGC_NONE; slot = next) {
                next = b->next[slot];
                wait_or_end(b, m, slot);
            }
        }
    }
}

enum ggc_status memory_find_bound(const struct memory * m, uint64_t * bound) {
    struct bound b;
    if (!bound_init(&b, m)) {
        return GGC_E_NOMEM;
    }
    *bound = b.alive;
    for (uint32_t i = 0; i < m->problem->n_units; i++) {
        const uint32_t u = m->problem->schedule.order[i];
        finish_known(&b, m, u);
        for (uint32_t slot = b.to_issue[u], next; slot != GGC_NONE; slot = next) {
            next = b.next[slot];
            b.alive += m->slots[slot].size;
            if (!m->slots[slot].result) {
                wait_or_end(&b, m, slot);
            }
        }
        *bound = b.alive > *bound ? b.alive : *bound;
    }
    return GGC_OK;
}

//
// 4. The fastest layout that fits
//

enum ggc_status memory_place(struct memory * m, double slack, uint64_t goal, uint64_t most,
                             uint64_t * size) {
    const struct arena_mark mark = arena_mark(m->arena);
    const enum ggc_status status = place_slots(m, slack, goal, most, size);
    arena_release(m->arena, mark);
    return status;
}

void memory_take(const struct memory * m, uint64_t size, enum memory_sharing sharing, double slack,
                 uint64_t * offset, struct memory_layout * layout) {
    layout->sharing = sharing;
    layout->slack = slack;
    layout->size = size;
    for (uint32_t i = 0; i < m->problem->n_tensors; i++) {
        offset[i] = m->slot_of[i] != GGC_NONE ? m->slots[m->slot_of[i]].offset : 0;
    }
}

// Between all that the plan has and nothing: by halves, finer where both ends meet.
static enum ggc_status search(struct memory * m, uint64_t budget, uint64_t * offset,
                              struct memory_layout * layout) {
    double low = -1, high = 1;  // of the square root of slack / makespan
    for (int step = 0; step < N_STEPS; step++) {
        const double middle = (low + high) / 2, slack = middle * fabs(middle) * m->makespan;
        uint64_t size;
        const struct arena_mark mark = arena_mark(m->arena);
        uint32_t * order = arena_alloc(m->arena, m->problem->n_units, sizeof(uint32_t));
        enum ggc_status status = order != NULL ? memory_rank_times(m, slack, order) : GGC_E_NOMEM;
        if (status == GGC_OK) {
            memory_find_slots(m, slack);
            status = memory_place(m, slack, budget, budget, &size);
        }
        arena_release(m->arena, mark);
        if (status != GGC_OK) {
            return status;
        }
        if (size <= budget) {
            memory_take(m, size, MEMORY_BY_TIME, slack, offset, layout);
            low = middle;
        } else {
            high = middle;
        }
    }
    return GGC_OK;
}

void memory_place_apart(struct memory * m, uint64_t * offset, struct memory_layout * layout) {
    uint64_t at = 0;
    layout->size = 0;
    for (uint32_t i = 0; i < m->problem->n_tensors; i++) {
        const uint64_t size = padded(m->problem, m->problem->tensors[i].size);
        if (size > 0 && at % m->max_buffer + size > m->max_buffer) {
            at += m->max_buffer - at % m->max_buffer;
        }
        offset[i] = size > 0 ? at : 0;
        at += size;
        layout->size += size;
    }
    layout->sharing = MEMORY_APART;
}

static enum ggc_status lay_out(struct memory * m, uint64_t budget, uint64_t * offset,
                               struct memory_layout * layout) {
    uint64_t size;
    memory_find_slots(m, INFINITY);
    const struct arena_mark mark = arena_mark(m->arena);
    enum ggc_status status = memory_find_bound(m, &layout->bound);
    arena_release(m->arena, mark);
    if (status != GGC_OK) {
        return status;
    }
    memory_place_apart(m, offset, layout);
    layout->apart = layout->size;
    if (layout->apart <= budget) {
        return GGC_OK;
    }
    if (layout->bound <= budget) {
        status = memory_place(m, INFINITY, budget, budget, &size);
        if (status != GGC_OK || size <= budget) {
            memory_take(m, size, MEMORY_BY_PLAN, INFINITY, offset, layout);
            return status;
        }
    }
    memory_find_slots(m, -INFINITY);
    status = memory_place(m, -INFINITY, budget, UINT64_MAX, &size);
    if (status == GGC_OK) {
        memory_take(m, size, MEMORY_SERIAL, -INFINITY, offset, layout);
    }
    if (status == GGC_OK && size <= budget) {
        status = delay_units(m, DELAY) ? search(m, budget, offset, layout) : GGC_E_NOMEM;
    }
    return status;
}

static uint64_t largest(const struct memory_problem * problem) {
    uint64_t most = problem->max_buffer & ~(problem->alignment - 1);
    most = most < UINT64_MAX / 2 ? most : UINT64_MAX / 4 + 1;  // so that ends do not overflow
    for (uint32_t i = 0; i < problem->n_tensors; i++) {
        const uint64_t size = padded(problem, problem->tensors[i].size);
        most = size > most ? size : most;
    }
    return most;
}

bool memory_init(struct memory * m) {
    const size_t n_units = m->problem->n_units, n_tensors = m->problem->n_tensors;
    m->issue = arena_alloc(m->arena, n_units, sizeof(uint32_t));
    m->position = arena_alloc(m->arena, n_units, sizeof(uint32_t));
    m->clock = arena_alloc(m->arena, n_units * m->n_streams, sizeof(uint32_t));
    m->start = arena_alloc(m->arena, n_units, sizeof(double));
    m->finish = arena_alloc(m->arena, n_units, sizeof(double));
    m->begins = arena_zalloc(m->arena, n_units, sizeof(uint32_t));
    m->ends = arena_zalloc(m->arena, n_units, sizeof(uint32_t));
    m->slots = arena_alloc(m->arena, n_tensors, sizeof(struct slot));
    m->slot_of = arena_alloc(m->arena, n_tensors, sizeof(uint32_t));
    m->taken_over = arena_alloc(m->arena, n_tensors, sizeof(bool));
    m->known = arena_alloc(m->arena, n_tensors * m->n_streams, sizeof(uint32_t));
    m->last = arena_alloc(m->arena, n_tensors * m->n_streams, sizeof(uint32_t));
    return m->issue != NULL && m->position != NULL && m->clock != NULL && m->start != NULL &&
           m->finish != NULL && m->begins != NULL && m->ends != NULL && m->slots != NULL &&
           m->slot_of != NULL && m->taken_over != NULL && m->known != NULL && m->last != NULL;
}

struct memory memory_for(const struct memory_problem * problem, struct arena * arena) {
    return (struct memory) {.problem = problem,
                            .n_streams = problem->schedule.n_streams,
                            .max_buffer = largest(problem),
                            .arena = arena};
}

enum ggc_status memory_order(const struct memory_problem * problem,
                             const struct ggc_allocator * allocator, uint32_t * order) {
    struct arena arena;
    arena_init(&arena, allocator);
    struct memory m = memory_for(problem, &arena);
    enum ggc_status status = GGC_E_INVALID;
    if (memory_valid(problem)) {
        status = memory_init(&m) ? GGC_OK : GGC_E_NOMEM;
    }
    if (status == GGC_OK) {
        status = memory_walk(&m) ? GGC_OK : GGC_E_INVALID;
    }
    if (status == GGC_OK) {
        memcpy(order, problem->schedule.order, problem->n_units * sizeof(uint32_t));
        status = delay_units(&m, DELAY) ? memory_sort(&m, m.start, order) : GGC_E_NOMEM;
    }
    arena_free(&arena);
    return status;
}

enum ggc_status memory_lay_out(const struct memory_problem * problem, uint64_t budget,
                               const struct ggc_allocator * allocator, uint64_t * offset,
                               struct memory_layout * layout) {
    if (!memory_valid(problem)) {
        return GGC_E_INVALID;
    }
    struct arena arena;
    arena_init(&arena, allocator);
    struct memory m = memory_for(problem, &arena);
    struct memory_layout made = {.max_buffer = m.max_buffer};
    enum ggc_status status = GGC_E_NOMEM;
    if (memory_init(&m)) {
        status = memory_walk(&m) ? lay_out(&m, budget, offset, &made) : GGC_E_INVALID;
    }
    arena_free(&arena);
    if (status == GGC_OK) {
        *layout = made;
    }
    return status;
}
