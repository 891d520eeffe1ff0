#include "cover.h"

#include <string.h>

// Successors in the transitive reduction: those of u are successor[begin[u]] .. begin[u + 1].
struct reduction {
    uint32_t * begin;
    uint32_t * successor;
};

// A dependence d of u follows from another one, e, if e comes after d. Looking at the latest
// dependences first, one that is reached already is left out.
static uint32_t reduce_row(const struct hazards * hazards, uint32_t unit, uint64_t * reach,
                           size_t words, uint32_t * kept) {
    uint64_t * own = reach + unit * words;
    uint32_t n = 0;
    for (uint32_t i = hazards->begin[unit + 1]; i-- > hazards->begin[unit];) {
        const uint32_t dep = hazards->dep[i];
        if (own[dep / 64] >> (dep % 64) & 1) {
            continue;
        }
        const uint64_t * other = reach + dep * words;
        for (size_t w = 0; w <= dep / 64; w++) {
            own[w] |= other[w];
        }
        own[dep / 64] |= UINT64_C(1) << (dep % 64);
        kept[n++] = dep;
    }
    return n;
}

static enum ggc_status reduce(struct reduction * reduction, const struct ggc_units * units,
                              const struct hazards * hazards, struct arena * scratch) {
    const uint32_t n = units->n_units;
    const size_t words = ((size_t) n + 63) / 64;
    const uint32_t n_deps = hazards->begin[n];
    uint64_t * reach = arena_zalloc(scratch, n * words, sizeof(uint64_t));
    uint32_t * kept = arena_alloc(scratch, n_deps, sizeof(uint32_t));
    uint32_t * n_kept = arena_alloc(scratch, n, sizeof(uint32_t));
    reduction->begin = arena_zalloc(scratch, (size_t) n + 2, sizeof(uint32_t));
    reduction->successor = arena_alloc(scratch, n_deps, sizeof(uint32_t));
    if (reach == NULL || kept == NULL || n_kept == NULL || reduction->begin == NULL ||
        reduction->successor == NULL) {
        return GGC_E_NOMEM;
    }
    for (uint32_t u = 0; u < n; u++) {
        uint32_t * row = kept + hazards->begin[u];
        n_kept[u] = reduce_row(hazards, u, reach, words, row);
        for (uint32_t i = 0; i < n_kept[u]; i++) {
            reduction->begin[row[i] + 2]++;
        }
    }
    for (uint32_t u = 0; u < n; u++) {
        reduction->begin[u + 2] += reduction->begin[u + 1];
    }
    for (uint32_t u = 0; u < n; u++) {
        for (uint32_t i = 0; i < n_kept[u]; i++) {
            const uint32_t dep = kept[hazards->begin[u] + i];
            reduction->successor[reduction->begin[dep + 1]++] = u;
        }
    }
    return GGC_OK;
}

// Hopcroft-Karp between units as predecessors (left) and units as successors (right).
struct matching {
    const struct reduction * reduction;
    uint32_t n;
    uint32_t * next;      // of each left unit
    uint32_t * previous;  // of each right unit
    uint32_t * layer;     // of each left unit, in the breadth-first search
    uint32_t * queue;
    uint32_t * edge;  // of each left unit: where the depth-first search goes on
    uint32_t * path;  // its stack
};

// Layers of left units by alternating paths from the free ones. False: no free right unit is
// reached, the matching is maximum.
static bool find_layers(struct matching * m) {
    uint32_t head = 0, tail = 0;
    bool reached = false;
    for (uint32_t u = 0; u < m->n; u++) {
        m->edge[u] = m->reduction->begin[u];
        m->layer[u] = m->next[u] == GGC_NONE ? 0 : GGC_NONE;
        if (m->next[u] == GGC_NONE) {
            m->queue[tail++] = u;
        }
    }
    while (head < tail) {
        const uint32_t u = m->queue[head++];
        for (uint32_t i = m->reduction->begin[u]; i < m->reduction->begin[u + 1]; i++) {
            const uint32_t v = m->previous[m->reduction->successor[i]];
            if (v == GGC_NONE) {
                reached = true;
            } else if (m->layer[v] == GGC_NONE) {
                m->layer[v] = m->layer[u] + 1;
                m->queue[tail++] = v;
            }
        }
    }
    return reached;
}

// One augmenting path from the free left unit `start`, without recursion.
static void augment(struct matching * m, uint32_t start) {
    uint32_t depth = 0;
    m->path[0] = start;
    for (;;) {
        const uint32_t u = m->path[depth];
        if (m->edge[u] == m->reduction->begin[u + 1]) {  // a dead end
            if (depth == 0) {
                return;
            }
            m->edge[m->path[--depth]]++;
            continue;
        }
        const uint32_t v = m->previous[m->reduction->successor[m->edge[u]]];
        if (v == GGC_NONE) {
            break;
        }
        if (m->layer[v] == m->layer[u] + 1) {
            m->path[++depth] = v;
        } else {
            m->edge[u]++;
        }
    }
    for (uint32_t k = 0; k <= depth; k++) {  // each unit on the path takes the edge it stands at
        const uint32_t u = m->path[k];
        const uint32_t successor = m->reduction->successor[m->edge[u]++];
        m->next[u] = successor;
        m->previous[successor] = u;
    }
}

static enum ggc_status match(struct matching * m, struct arena * scratch) {
    m->previous = arena_alloc(scratch, m->n, sizeof(uint32_t));
    m->layer = arena_alloc(scratch, m->n, sizeof(uint32_t));
    m->queue = arena_alloc(scratch, m->n, sizeof(uint32_t));
    m->edge = arena_alloc(scratch, m->n, sizeof(uint32_t));
    m->path = arena_alloc(scratch, m->n, sizeof(uint32_t));
    if (m->previous == NULL || m->layer == NULL || m->queue == NULL || m->edge == NULL ||
        m->path == NULL) {
        return GGC_E_NOMEM;
    }
    memset(m->next, 0xff, m->n * sizeof(uint32_t));
    memset(m->previous, 0xff, m->n * sizeof(uint32_t));
    while (find_layers(m)) {
        for (uint32_t u = 0; u < m->n; u++) {
            if (m->next[u] == GGC_NONE) {
                augment(m, u);
            }
        }
    }
    return GGC_OK;
}

enum ggc_status cover_chains(uint32_t * next, const struct ggc_units * units,
                             const struct hazards * hazards, struct arena * scratch) {
    struct reduction reduction;
    if (units->n_units > COVER_MAX_UNITS) {
        return GGC_E_CAPACITY;
    }
    const enum ggc_status status = reduce(&reduction, units, hazards, scratch);
    struct matching m = {.reduction = &reduction, .n = units->n_units, .next = next};
    return status == GGC_OK ? match(&m, scratch) : status;
}
