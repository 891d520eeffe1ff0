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
    ggml_backend_buffer_type_t buft;
    const struct message * message;
    struct pointer_map seen;  // tensor -> index into layout->tensors
};

static size_t padded_size(const struct layouter * l, const struct ggml_tensor * tensor) {
    size_t alignment = ggml_backend_buft_get_alignment(l->buft);
    alignment = alignment > MIN_ALIGNMENT ? alignment : MIN_ALIGNMENT;
    const size_t size = ggml_backend_buft_get_alloc_size(l->buft, tensor);
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

// The last phase in which each tensor is used, also by nodes that compute nothing, since ggml's
// allocator counts these as well; that of inputs never ends.
static void find_last_phases(const struct layouter * l, uint32_t * last) {
    for (uint32_t i = 0; i < l->plan->units.n_nodes; i++) {
        const struct ggml_tensor * node = l->graph->nodes[i];
        for (int s = -1; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * used = s < 0 ? node : node->src[s];
            const uint32_t index =
                used == NULL ? GGC_NONE : pointer_map_get(&l->seen, root_of(used), GGC_NONE);
            if (index != GGC_NONE && last[index] < l->plan->node_phase[i]) {
                last[index] = l->plan->node_phase[i];
            }
        }
    }
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        if (l->layout->tensors[i]->flags & GGML_TENSOR_FLAG_INPUT) {
            last[i] = l->plan->n_phases - 1;
        }
    }
}

// Indices of the tensors that own memory, by their last phase; start[p] .. start[p + 1].
static void sort_by_last_phase(const struct layouter * l, const uint32_t * last, uint32_t * start,
                               uint32_t * sorted) {
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        start[last[i] + 2]++;
    }
    for (uint32_t p = 0; p < l->plan->n_phases; p++) {
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
    const uint32_t n = l->plan->units.n_nodes;
    int n_nodes = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t node = l->plan->node_order[i];
        const uint32_t phase = l->plan->node_phase[node];
        nodes[n_nodes++] = l->graph->nodes[node];
        if (i + 1 == n || l->plan->node_phase[l->plan->node_order[i + 1]] != phase) {
            n_nodes += add_deps(l, sorted + start[phase], start[phase + 1] - start[phase],
                                nodes + n_nodes);
        }
    }
    return n_nodes;
}

// Sorts the nodes of the graph by phase; how they stood is kept.
static bool sort_nodes(const struct layouter * l) {
    struct ggml_cgraph * graph = l->layout->graph;
    const size_t n = l->plan->units.n_nodes;
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

static enum ggc_status place_shared(struct layouter * l) {
    struct layout * layout = l->layout;
    const size_t n_tensors = layout->n_tensors;
    const struct ggml_init_params params = {.mem_size = (n_tensors + 1) * ggml_tensor_overhead(),
                                            .no_alloc = true};
    uint32_t * last = calloc(n_tensors + 1, sizeof(uint32_t));
    uint32_t * sorted = calloc(n_tensors + 1, sizeof(uint32_t));
    uint32_t * start = calloc((size_t) l->plan->n_phases + 3, sizeof(uint32_t));
    struct ggml_tensor ** nodes = calloc(l->plan->units.n_nodes + n_tensors + 1, sizeof(*nodes));
    layout->deps = ggml_init(params);
    layout->galloc = ggml_gallocr_new(l->buft);
    enum ggc_status status = GGC_E_NOMEM;
    if (last != NULL && sorted != NULL && start != NULL && nodes != NULL && layout->deps != NULL &&
        layout->galloc != NULL) {
        find_last_phases(l, last);
        sort_by_last_phase(l, last, start, sorted);
        struct ggml_cgraph copy = *l->graph;
        copy.nodes = nodes;
        copy.n_nodes = order_nodes(l, start, sorted, nodes);
        copy.uid = 0;
        if (ggml_gallocr_alloc_graph(layout->galloc, &copy)) {
            layout->size = ggml_gallocr_get_buffer_size(layout->galloc, 0);
            status = sort_nodes(l) ? GGC_OK : GGC_E_NOMEM;
        } else {
            status = out_of_memory(l, ggml_gallocr_get_buffer_size(layout->galloc, 0));
        }
    }
    free(last);
    free(sorted);
    free(start);
    free(nodes);
    return status;
}

enum ggc_status layout_init(struct layout * layout, struct ggml_cgraph * graph,
                            const struct ggc_graph_plan * plan, ggml_backend_buffer_type_t buft,
                            size_t budget, const struct message * message) {
    struct layouter l = {
        .layout = layout, .graph = graph, .plan = plan, .buft = buft, .message = message};
    *layout = (struct layout) {.graph = graph};
    enum ggc_status status = GGC_E_NOMEM;
    if (pointer_map_init(&l.seen, (size_t) graph->n_nodes + (size_t) graph->n_leafs) &&
        collect_all(&l)) {
        status = size_apart(&l) <= budget ? place_apart(&l) : place_shared(&l);
    }
    pointer_map_free(&l.seen);
    if (status != GGC_OK) {
        layout_free(layout);
    }
    return status;
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
