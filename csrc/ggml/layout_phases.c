// Memory for Metal, where a plan is an order of phases.
#include <stdlib.h>
#include <string.h>

#include "layout_parts.h"

//
// The nodes by phase, and at the end of each phase nodes without work that still "use" what was
// used in it last, so that ggml's allocator cannot give it away inside the phase. ggml's scheduler
// extends lifetimes in the same way.
//

// Without a plan every node is a phase.
static uint32_t n_nodes_of(const struct layouter * l) {
    return (uint32_t) l->graph->n_nodes;
}

static uint32_t n_phases_of(const struct layouter * l) {
    return l->plan != NULL ? l->plan->n_phases : n_nodes_of(l);
}

static uint32_t phase_of(const struct layouter * l, uint32_t node) {
    return l->plan != NULL ? l->plan->node_phase[node] : node;
}

static uint32_t node_at(const struct layouter * l, uint32_t place) {
    return l->plan != NULL ? l->plan->node_order[place] : place;
}

// The last phase in which each tensor is used, also by nodes that compute nothing, since ggml's
// allocator counts these as well; that of inputs never ends.
static void find_last_phases(const struct layouter * l, uint32_t * last) {
    for (uint32_t i = 0; i < n_nodes_of(l); i++) {
        const struct ggml_tensor * node = l->graph->nodes[i];
        for (int s = -1; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * used = s < 0 ? node : node->src[s];
            const uint32_t index =
                used == NULL ? GGC_NONE : pointer_map_get(&l->seen, root_of(used), GGC_NONE);
            if (index != GGC_NONE && last[index] < phase_of(l, i)) {
                last[index] = phase_of(l, i);
            }
        }
    }
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        if (l->layout->tensors[i]->flags & GGML_TENSOR_FLAG_INPUT) {
            last[i] = n_phases_of(l) - 1;
        }
    }
}

// Indices of the tensors that own memory, by their last phase; start[p] .. start[p + 1].
static void sort_by_last_phase(const struct layouter * l, const uint32_t * last, uint32_t * start,
                               uint32_t * sorted) {
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        start[last[i] + 2]++;
    }
    for (uint32_t p = 0; p < n_phases_of(l); p++) {
        start[p + 2] += start[p + 1];
    }
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        sorted[start[last[i] + 1]++] = (uint32_t) i;
    }
}

// Adds nodes that use tensors sorted[0 .. n); returns how many nodes.
static int add_deps(const struct layouter * l, struct ggml_context * deps, const uint32_t * sorted,
                    uint32_t n, struct ggml_tensor ** nodes) {
    struct ggml_tensor * dep = NULL;
    int n_nodes = 0, n_src = 0;
    for (uint32_t k = 0; k < n; k++) {
        struct ggml_tensor * tensor = l->layout->tensors[sorted[k]];
        if (tensor->view_src != NULL) {
            continue;
        }
        if (dep == NULL || n_src == GGML_MAX_SRC) {
            dep = ggml_view_tensor(deps, tensor);
            nodes[n_nodes++] = dep;
            n_src = 0;
        }
        dep->src[n_src++] = tensor;
    }
    return n_nodes;
}

static int order_nodes(const struct layouter * l, struct ggml_context * deps,
                       const uint32_t * start, const uint32_t * sorted,
                       struct ggml_tensor ** nodes) {
    const uint32_t n = n_nodes_of(l);
    int n_nodes = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t node = node_at(l, i);
        const uint32_t phase = phase_of(l, node);
        nodes[n_nodes++] = l->graph->nodes[node];
        if (i + 1 == n || phase_of(l, node_at(l, i + 1)) != phase) {
            n_nodes += add_deps(l, deps, sorted + start[phase], start[phase + 1] - start[phase],
                                nodes + n_nodes);
        }
    }
    return n_nodes;
}

//
// Gaps: ggml's allocator leaves none, but can be asked where it would put tensors. Every place
// where one begins then moves up by one alignment more than the last, and with it whatever lies
// there:
//
//     |== a ==|== b ==|= c =|          |== a ==| |== b ==| |= c =|
//         |==== d ====|          ->       |==== d ====|             later, in the same memory
//

#define NOWHERE ((char *) 4096)  // where memory that is only asked about begins

static void * nowhere_base(ggml_backend_buffer_t buffer) {
    (void) buffer;
    return NOWHERE;
}

static ggml_backend_buffer_t nowhere_alloc(ggml_backend_buffer_type_t type, size_t size) {
    const struct ggml_backend_buffer_i interface = {.get_base = nowhere_base};
    return ggml_backend_buffer_init(type, interface, NULL, size);
}

static ggml_backend_buffer_type_t real_type(ggml_backend_buffer_type_t type) {
    return type->context;
}

static const char * nowhere_name(ggml_backend_buffer_type_t type) {
    return ggml_backend_buft_name(real_type(type));
}

static size_t nowhere_alignment(ggml_backend_buffer_type_t type) {
    const size_t alignment = ggml_backend_buft_get_alignment(real_type(type));
    return alignment > MIN_ALIGNMENT ? alignment : MIN_ALIGNMENT;
}

static size_t nowhere_alloc_size(ggml_backend_buffer_type_t type,
                                 const struct ggml_tensor * tensor) {
    return ggml_backend_buft_get_alloc_size(real_type(type), tensor);
}

static struct ggml_backend_buffer_type nowhere(ggml_backend_buffer_type_t real) {
    return (struct ggml_backend_buffer_type) {
        .iface = {.get_name = nowhere_name,
                  .alloc_buffer = nowhere_alloc,
                  .get_alignment = nowhere_alignment,
                  .get_alloc_size = nowhere_alloc_size},
        .device = real->device,
        .context = real,
    };
}

static int by_offset(const void * a, const void * b) {
    const size_t x = *(const size_t *) a, y = *(const size_t *) b;
    return (x > y) - (x < y);
}

static size_t place_of(size_t offset, const size_t * offsets, size_t n) {
    const size_t * found = bsearch(&offset, offsets, n, sizeof(*offsets), by_offset);
    return (size_t) (found - offsets);
}

// Where each tensor begins, from 0, gaps included; returns how much memory that takes.
static size_t add_gaps(const struct layouter * l, size_t alignment, size_t * offsets) {
    size_t n = 0, n_distinct = 0, size = 0;
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = l->layout->tensors[i];
        l->offset[i] = (size_t) ((char *) tensor->data - NOWHERE);
        if (tensor->view_src == NULL) {
            offsets[n++] = (size_t) l->offset[i];
        }
    }
    qsort(offsets, n, sizeof(*offsets), by_offset);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || offsets[i] != offsets[i - 1]) {
            offsets[n_distinct++] = offsets[i];
        }
    }
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = l->layout->tensors[i];
        if (tensor->view_src == NULL) {
            l->offset[i] += alignment * place_of((size_t) l->offset[i], offsets, n_distinct);
            const size_t end = (size_t) l->offset[i] + layout_size_of(l, tensor);
            size = end > size ? end : size;
        }
    }
    return size;
}

static void forget_places(const struct layouter * l) {
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        l->layout->tensors[i]->data = NULL;
        l->layout->tensors[i]->buffer = NULL;
    }
}

static enum ggc_status find_gaps(struct layouter * l, struct ggml_cgraph * graph) {
    struct ggml_backend_buffer_type type = nowhere(l->buft);
    size_t * offsets = calloc(l->layout->n_tensors + 1, sizeof(*offsets));
    ggml_gallocr_t galloc = ggml_gallocr_new(&type);
    enum ggc_status status = GGC_E_NOMEM;
    if (offsets != NULL && galloc != NULL && ggml_gallocr_alloc_graph(galloc, graph)) {
        l->layout->figures.size = add_gaps(l, nowhere_alignment(&type), offsets);
        forget_places(l);
        status = GGC_OK;
    }
    ggml_gallocr_free(galloc);
    free(offsets);
    return status;
}

enum ggc_status layout_by_phases(struct layouter * l) {
    const size_t n_tensors = l->layout->n_tensors;
    const struct ggml_init_params params = {.mem_size = (n_tensors + 1) * ggml_tensor_overhead(),
                                            .no_alloc = true};
    uint32_t * last = calloc(n_tensors + 1, sizeof(uint32_t));
    uint32_t * sorted = calloc(n_tensors + 1, sizeof(uint32_t));
    uint32_t * start = calloc((size_t) n_phases_of(l) + 3, sizeof(uint32_t));
    struct ggml_tensor ** nodes = calloc(n_nodes_of(l) + n_tensors + 1, sizeof(*nodes));
    struct ggml_context * deps = ggml_init(params);
    enum ggc_status status = GGC_E_NOMEM;
    if (last != NULL && sorted != NULL && start != NULL && nodes != NULL && deps != NULL) {
        find_last_phases(l, last);
        sort_by_last_phase(l, last, start, sorted);
        struct ggml_cgraph copy = *l->graph;
        copy.nodes = nodes;
        copy.n_nodes = order_nodes(l, deps, start, sorted, nodes);
        copy.uid = 0;
        status = find_gaps(l, &copy);
        l->layout->figures.sharing = GGC_SHARING_BY_PHASE;
        l->max_buffer = UINT64_MAX / 4;
    }
    free(last);
    free(sorted);
    free(start);
    free(nodes);
    ggml_free(deps);
    return status;
}
