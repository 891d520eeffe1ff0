// When units run, as integers.
#include <string.h>

#include "memory_slots.h"
#include "radix.h"

// Times are not negative, so their bits sort like integers.
enum ggc_status memory_sort(const struct memory * m, const double * time, uint32_t * order) {
    const uint32_t n = m->problem->n_units;
    struct keyed * items = arena_alloc(m->arena, n, sizeof(struct keyed));
    struct keyed * spare = arena_alloc(m->arena, n, sizeof(struct keyed));
    if (items == NULL || spare == NULL) {
        return GGC_E_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        memcpy(&items[i].key, &time[order[i]], sizeof(double));
        items[i].value = order[i];
    }
    items = radix_sort(items, spare, n, UINT64_MAX);
    for (uint32_t i = 0; i < n; i++) {
        order[i] = items[i].value;
    }
    return GGC_OK;
}

enum ggc_status memory_rank_times(struct memory * m, double slack, uint32_t * order) {
    const uint32_t n = m->problem->n_units;
    uint32_t * by_finish = arena_alloc(m->arena, n, sizeof(uint32_t));
    for (uint32_t u = 0; by_finish != NULL && u < n; u++) {
        by_finish[u] = u;
    }
    enum ggc_status status = by_finish != NULL ? memory_sort(m, m->finish, by_finish) : GGC_E_NOMEM;
    if (status != GGC_OK) {
        return status;
    }
    memcpy(order, by_finish, n * sizeof(uint32_t));
    status = memory_sort(m, m->start, order);
    for (uint32_t i = 0, k = 0; status == GGC_OK && i < n; i++) {
        const bool is_equal = i > 0 && m->start[order[i]] == m->start[order[i - 1]];
        m->begins[order[i]] = is_equal ? m->begins[order[i - 1]] : i;
        while (k < n && m->start[order[k]] < m->finish[by_finish[i]] + slack) {
            k++;
        }
        m->ends[by_finish[i]] = k;
    }
    return status;
}
