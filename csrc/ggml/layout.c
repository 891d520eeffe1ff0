#include "layout.h"

#include <stdlib.h>
#include <string.h>

#include "pointer_map.h"

// Keeps two streams from writing the same pair of cache lines.
#define MIN_ALIGNMENT 128

struct layouter {
    struct layout * layout;
    const struct ggml_cgraph * graph;
    const struct ggc_graph_plan * plan;
    const struct layout_params * params;
    ggml_backend_buffer_type_t buft;
    const struct message * message;
    struct pointer_map seen;  // tensor -> index into layout->tensors
};

static size_t padded_size(const struct layouter * l, const struct ggml_tensor * tensor) {
    size_t alignment = ggml_backend_buft_get_alignment(l->buft);
    alignment = alignment > MIN_ALIGNMENT ? alignment : MIN_ALIGNMENT;
    const size_t size =
        ggml_backend_buft_get_alloc_size(l->buft, tensor) + (l->params->gaps ? 1 : 0);
    return (size + alignment - 1) / alignment * alignment;
}

//
// Which tensors need memory
//

static bool collect(struct layouter * l, struct ggml_tensor * tensor, size_t * capacity) {
    struct layout * layout = l->layout;
    if (tensor == NULL || tensor->data != NULL ||
        pointer_map_get(&l->seen, tensor, GGC_NONE) != GGC_NONE) {
        return true;
    }
    if (tensor->view_src != NULL && !collect(l, tensor->view_src, capacity)) {
        return false;  // what is viewed stands before the view
    }
    if (layout->n_tensors == *capacity) {
        const size_t larger = *capacity * 2 + 64;
        struct ggml_tensor ** grown = realloc(layout->tensors, larger * sizeof(*grown));
        if (grown == NULL) {
            return false;
        }
        layout->tensors = grown;
        *capacity = larger;
    }
    layout->tensors[layout->n_tensors] = tensor;
    return pointer_map_put(&l->seen, tensor, (uint32_t) layout->n_tensors++);
}

static bool collect_all(struct layouter * l) {
    size_t capacity = 0;
    bool ok = true;
    for (int i = 0; ok && i < l->graph->n_leafs; i++) {
        ok = collect(l, l->graph->leafs[i], &capacity);
    }
    for (int i = 0; ok && i < l->graph->n_nodes; i++) {
        struct ggml_tensor * node = l->graph->nodes[i];
        for (int s = 0; ok && s < GGML_MAX_SRC; s++) {
            ok = collect(l, node->src[s], &capacity);
        }
        ok = ok && collect(l, node, &capacity);
    }
    return ok;
}

//
// Without reuse
//

static enum ggc_status out_of_memory(const struct layouter * l, size_t size) {
    message_set(l->message, "cannot allocate %zu bytes of %s memory for the tensors of the graph",
                size, ggml_backend_buft_name(l->buft));
    return GGC_E_NOMEM;
}

// One buffer for tensors [first, last), which need `size` bytes.
static enum ggc_status place_in_buffer(struct layouter * l, size_t first, size_t last,
                                       size_t size) {
    struct layout * layout = l->layout;
    ggml_backend_buffer_t * grown =
        realloc(layout->buffers, (layout->n_buffers + 1) * sizeof(*grown));
    if (grown == NULL) {
        return out_of_memory(l, size);
    }
    layout->buffers = grown;
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(l->buft, size + MIN_ALIGNMENT);
    if (buffer == NULL) {
        return out_of_memory(l, size);
    }
    layout->buffers[layout->n_buffers++] = buffer;
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_COMPUTE);
    uintptr_t at = (uintptr_t) ggml_backend_buffer_get_base(buffer);
    at = (at + MIN_ALIGNMENT - 1) / MIN_ALIGNMENT * MIN_ALIGNMENT;
    for (size_t i = first; i < last; i++) {
        struct ggml_tensor * tensor = layout->tensors[i];
        if (tensor->view_src != NULL) {
            continue;
        }
        if (ggml_backend_tensor_alloc(buffer, tensor, (void *) at) != GGML_STATUS_SUCCESS) {
            return out_of_memory(l, size);
        }
        at += padded_size(l, tensor);
    }
    layout->size += size;
    return GGC_OK;
}

static enum ggc_status init_views(struct layouter * l) {
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        struct ggml_tensor * tensor = l->layout->tensors[i];
        if (tensor->view_src == NULL || tensor->buffer != NULL) {
            continue;
        }
        if (tensor->view_src->buffer == NULL) {  // memory from ggml_init, outside any buffer
            tensor->data = (char *) tensor->view_src->data + tensor->view_offs;
        } else if (ggml_backend_view_init(tensor) != GGML_STATUS_SUCCESS) {
            return out_of_memory(l, 0);
        }
    }
    return GGC_OK;
}

static enum ggc_status place_apart(struct layouter * l) {
    const size_t max_size = ggml_backend_buft_get_max_size(l->buft);
    enum ggc_status status = GGC_OK;
    size_t first = 0, size = 0;
    for (size_t i = 0; status == GGC_OK && i < l->layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = l->layout->tensors[i];
        const size_t needed = tensor->view_src == NULL ? padded_size(l, tensor) : 0;
        if (size > 0 && size + needed > max_size - MIN_ALIGNMENT) {
            status = place_in_buffer(l, first, i, size);
            first = i;
            size = 0;
        }
        size += needed;
    }
    if (status == GGC_OK && first < l->layout->n_tensors) {
        status = place_in_buffer(l, first, l->layout->n_tensors, size);
    }
    return status == GGC_OK ? init_views(l) : status;
}

static size_t size_apart(const struct layouter * l) {
    size_t size = 0;
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = l->layout->tensors[i];
        size += tensor->view_src == NULL ? padded_size(l, tensor) : 0;
    }
    return size;
}

//
// With reuse: the nodes by phase, and at the end of each phase nodes without work that still "use"
// what was used in it last, so that ggml's allocator cannot give it away inside the phase. ggml's
// scheduler extends lifetimes in the same way.
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
static int add_deps(const struct layouter * l, const uint32_t * sorted, uint32_t n,
                    struct ggml_tensor ** nodes) {
    struct ggml_tensor * dep = NULL;
    int n_nodes = 0, n_src = 0;
    for (uint32_t k = 0; k < n; k++) {
        struct ggml_tensor * tensor = l->layout->tensors[sorted[k]];
        if (tensor->view_src != NULL) {
            continue;
        }
        if (dep == NULL || n_src == GGML_MAX_SRC) {
            dep = ggml_view_tensor(l->layout->deps, tensor);
            nodes[n_nodes++] = dep;
            n_src = 0;
        }
        dep->src[n_src++] = tensor;
    }
    return n_nodes;
}

static int order_nodes(const struct layouter * l, const uint32_t * start, const uint32_t * sorted,
                       struct ggml_tensor ** nodes) {
    const uint32_t n = n_nodes_of(l);
    int n_nodes = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t node = node_at(l, i);
        const uint32_t phase = phase_of(l, node);
        nodes[n_nodes++] = l->graph->nodes[node];
        if (i + 1 == n || phase_of(l, node_at(l, i + 1)) != phase) {
            n_nodes += add_deps(l, sorted + start[phase], start[phase + 1] - start[phase],
                                nodes + n_nodes);
        }
    }
    return n_nodes;
}

// Sorts the nodes of the graph by phase; how they stood is kept.
static bool sort_nodes(const struct layouter * l) {
    struct ggml_cgraph * graph = l->layout->graph;
    const size_t n = n_nodes_of(l);
    if (l->plan == NULL || l->params->keep_nodes) {
        return true;
    }
    struct ggml_tensor ** nodes = malloc((n + 1) * sizeof(*nodes));
    if (nodes == NULL) {
        return false;
    }
    memcpy(nodes, graph->nodes, n * sizeof(*nodes));
    for (size_t i = 0; i < n; i++) {
        graph->nodes[i] = nodes[l->plan->node_order[i]];
    }
    graph->uid = 0;  // another graph now: whoever remembers the old one must look again
    l->layout->nodes = nodes;
    return true;
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
static size_t add_gaps(const struct layouter * l, size_t alignment, size_t * begin,
                       size_t * offsets) {
    size_t n = 0, n_distinct = 0, size = 0;
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = l->layout->tensors[i];
        begin[i] = (size_t) ((char *) tensor->data - NOWHERE);
        if (tensor->view_src == NULL) {
            offsets[n++] = begin[i];
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
            begin[i] += alignment * place_of(begin[i], offsets, n_distinct);
            const size_t end = begin[i] + padded_size(l, tensor);
            size = end > size ? end : size;
        }
    }
    return size;
}

static enum ggc_status place_at(struct layouter * l, const size_t * begin, size_t size) {
    struct layout * layout = l->layout;
    layout->buffers = malloc(sizeof(*layout->buffers));
    if (layout->buffers == NULL) {
        return out_of_memory(l, size);
    }
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(l->buft, size + MIN_ALIGNMENT);
    if (buffer == NULL) {
        return out_of_memory(l, size);
    }
    layout->buffers[layout->n_buffers++] = buffer;
    layout->size = size;
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_COMPUTE);
    uintptr_t base = (uintptr_t) ggml_backend_buffer_get_base(buffer);
    base = (base + MIN_ALIGNMENT - 1) / MIN_ALIGNMENT * MIN_ALIGNMENT;
    for (size_t i = 0; i < layout->n_tensors; i++) {
        struct ggml_tensor * tensor = layout->tensors[i];
        if (tensor->view_src == NULL &&
            ggml_backend_tensor_alloc(buffer, tensor, (void *) (base + begin[i])) !=
                GGML_STATUS_SUCCESS) {
            return out_of_memory(l, size);
        }
    }
    return init_views(l);
}

static void forget_places(const struct layouter * l) {
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        l->layout->tensors[i]->data = NULL;
        l->layout->tensors[i]->buffer = NULL;
    }
}

static enum ggc_status place_with_gaps(struct layouter * l, struct ggml_cgraph * graph) {
    struct ggml_backend_buffer_type type = nowhere(l->buft);
    size_t * begin = calloc(2 * l->layout->n_tensors + 1, sizeof(*begin));
    ggml_gallocr_t galloc = ggml_gallocr_new(&type);
    enum ggc_status status = GGC_E_NOMEM;
    if (begin != NULL && galloc != NULL && ggml_gallocr_alloc_graph(galloc, graph)) {
        const size_t size =
            add_gaps(l, nowhere_alignment(&type), begin, begin + l->layout->n_tensors);
        forget_places(l);
        status = place_at(l, begin, size);
    }
    ggml_gallocr_free(galloc);
    free(begin);
    return status;
}

static enum ggc_status place_without_gaps(struct layouter * l, struct ggml_cgraph * graph) {
    struct layout * layout = l->layout;
    layout->galloc = ggml_gallocr_new(l->buft);
    if (layout->galloc == NULL) {
        return GGC_E_NOMEM;
    }
    if (!ggml_gallocr_alloc_graph(layout->galloc, graph)) {
        return out_of_memory(l, ggml_gallocr_get_buffer_size(layout->galloc, 0));
    }
    layout->size = ggml_gallocr_get_buffer_size(layout->galloc, 0);
    return GGC_OK;
}

static enum ggc_status place_shared(struct layouter * l) {
    struct layout * layout = l->layout;
    const size_t n_tensors = layout->n_tensors;
    const struct ggml_init_params params = {.mem_size = (n_tensors + 1) * ggml_tensor_overhead(),
                                            .no_alloc = true};
    uint32_t * last = calloc(n_tensors + 1, sizeof(uint32_t));
    uint32_t * sorted = calloc(n_tensors + 1, sizeof(uint32_t));
    uint32_t * start = calloc((size_t) n_phases_of(l) + 3, sizeof(uint32_t));
    struct ggml_tensor ** nodes = calloc(n_nodes_of(l) + n_tensors + 1, sizeof(*nodes));
    layout->deps = ggml_init(params);
    enum ggc_status status = GGC_E_NOMEM;
    if (last != NULL && sorted != NULL && start != NULL && nodes != NULL && layout->deps != NULL) {
        find_last_phases(l, last);
        sort_by_last_phase(l, last, start, sorted);
        struct ggml_cgraph copy = *l->graph;
        copy.nodes = nodes;
        copy.n_nodes = order_nodes(l, start, sorted, nodes);
        copy.uid = 0;
        status = l->params->gaps ? place_with_gaps(l, &copy) : place_without_gaps(l, &copy);
        if (status == GGC_OK) {
            layout->shares = true;
            status = sort_nodes(l) ? GGC_OK : GGC_E_NOMEM;
        }
    }
    free(last);
    free(sorted);
    free(start);
    free(nodes);
    return status;
}

enum ggc_status layout_init(struct layout * layout, struct ggml_cgraph * graph,
                            const struct ggc_graph_plan * plan, const struct layout_params * params,
                            const struct message * message) {
    struct layouter l = {.layout = layout,
                         .graph = graph,
                         .plan = plan,
                         .params = params,
                         .buft = params->buft,
                         .message = message};
    *layout = (struct layout) {.graph = graph};
    enum ggc_status status = GGC_E_NOMEM;
    if (pointer_map_init(&l.seen, (size_t) graph->n_nodes + (size_t) graph->n_leafs) &&
        collect_all(&l)) {
        status = size_apart(&l) <= params->budget ? place_apart(&l) : place_shared(&l);
    }
    pointer_map_free(&l.seen);
    if (status != GGC_OK) {
        layout_free(layout);
    }
    return status;
}

bool layout_shares(const struct layout * layout) {
    return layout->shares;
}

void layout_free(struct layout * layout) {
    for (size_t i = 0; i < layout->n_tensors; i++) {
        layout->tensors[i]->data = NULL;
        layout->tensors[i]->buffer = NULL;
    }
    for (size_t i = 0; i < layout->n_buffers; i++) {
        ggml_backend_buffer_free(layout->buffers[i]);
    }
    if (layout->nodes != NULL) {
        memcpy(layout->graph->nodes, layout->nodes,
               (size_t) layout->graph->n_nodes * sizeof(*layout->nodes));
        layout->graph->uid = 0;
    }
    free(layout->nodes);
    ggml_gallocr_free(layout->galloc);
    ggml_free(layout->deps);
    free(layout->buffers);
    free(layout->tensors);
    *layout = (struct layout) {0};
}
