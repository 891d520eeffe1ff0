#include "units.h"

#include <math.h>
#include <stdlib.h>

#include "costs.h"
#include "fuse.h"
#include "ggml-backend-impl.h"
#include "metal_fuse.h"
#include "pointer_map.h"

struct builder {
    struct graph_units * units;
    const struct ggml_cgraph * graph;
    struct pointer_map buffers;  // root tensor or device buffer -> buffer of the core
    uint32_t n_buffers;
    uint32_t n_accesses;
    bool tracked;
    const struct ggml_backend_buffer * last_buffer;  // of the last root with memory,
    bool last_is_host;                               // and whether it lies in host memory
};

enum { HOST = 0 };  // all host memory is one buffer: two ggml buffers may map the same bytes

static bool buffer_of_pointer(struct builder * b, const void * key, uint32_t * buffer) {
    *buffer = pointer_map_get(&b->buffers, key, GGC_NONE);
    if (*buffer == GGC_NONE) {
        *buffer = b->n_buffers++;
        return pointer_map_put(&b->buffers, key, *buffer);
    }
    return true;
}

static bool is_host(struct builder * b, struct ggml_backend_buffer * buffer) {
    if (buffer != b->last_buffer) {
        b->last_buffer = buffer;
        b->last_is_host = buffer == NULL || ggml_backend_buffer_is_host(buffer);
    }
    return b->last_is_host;
}

// All of a tensor that owns its memory, as ggml-metal's range tracker takes every access; and a
// byte more, since it takes ranges that only touch for overlapping.
static struct ggc_access whole(const struct ggml_tensor * root) {
    const uint64_t size = root->buffer != NULL
                              ? ggml_backend_buffer_get_alloc_size(root->buffer, root)
                              : ggml_nbytes(root);
    return (struct ggc_access) {.run = size + 1, .stride = size + 1, .count = 1};
}

// A tensor without memory is told apart by itself, one with memory by where that lies.
static bool add_access(struct builder * b, const struct ggml_tensor * tensor, uint32_t mode) {
    const struct ggml_tensor * root = root_of(tensor);
    size_t alloc_size = 0;
    uint32_t buffer = HOST;
    uint64_t base = 0;
    bool ok = true;
    if (root->data == NULL) {
        ok = buffer_of_pointer(b, root, &buffer);
    } else {
        base = (uint64_t) (uintptr_t) root->data;
        if (!is_host(b, root->buffer)) {
            ok = buffer_of_pointer(b, root->buffer, &buffer);
        }
        if (root->buffer != NULL && mode == GGC_WRITE) {
            alloc_size = ggml_backend_buffer_get_alloc_size(root->buffer, root);
        }
    }
    struct ggc_access access = access_of_tensor(tensor, alloc_size);
    if (b->tracked) {
        access = whole(root);
    }
    access.offset += base;
    access.buffer = buffer;
    access.mode = mode;
    if (ok && access.run != 0) {
        b->units->accesses[b->n_accesses++] = access;
    }
    return ok;
}

static bool add_node(struct builder * b, const struct ggml_tensor * node, uint32_t unit) {
    const struct access_rule rule = access_rule_of(op_of(node));
    // a kernel that reads past its view stays inside of what the tracker takes for read
    if (b->tracked ? rule.fence : is_fence(node)) {
        b->units->fence[unit] = 1;
        return true;
    }
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        if (node->src[s] != NULL && (b->tracked || (rule.reads >> s & 1)) &&
            !add_access(b, node->src[s], GGC_READ)) {
            return false;
        }
    }
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        if (node->src[s] != NULL && (rule.writes >> s & 1) &&
            !add_access(b, node->src[s], GGC_WRITE)) {
            return false;
        }
    }
    return add_access(b, node, GGC_WRITE);
}

// 1. Runs of nodes that may be fused become one unit each, with the nodes without work that stand
// inside; others of those join none.
static void group_nodes(struct graph_units * units, const struct ggml_cgraph * graph,
                        const struct ggc_graph_params * params) {
    const struct fuse_starts starts = find_fuse_starts(params->fuse);
    uint32_t n_units = 0, n_nodes = 0;
    for (int begin = 0, end; begin < graph->n_nodes; begin = end) {
        end = params->tracked && params->fuse == GGC_FUSE_METAL
                  ? metal_fused_end(graph, begin)
                  : begin + fused_run(graph, begin, &starts, params->apart);
        if (end == begin + 1 && !node_computes(graph->nodes[begin])) {
            units->unit_of_node[begin] = GGC_NONE;
            continue;
        }
        units->node_begin[n_units] = n_nodes;
        for (int i = begin; i < end; i++) {
            units->unit_of_node[i] = n_units;
            units->nodes[n_nodes++] = (uint32_t) i;
        }
        n_units++;
    }
    units->node_begin[n_units] = n_nodes;
    units->core.n_units = n_units;
}

// 2. Their accesses and costs.
static enum ggc_status fill_units(struct builder * b, enum ggc_fuse fuse,
                                  const double * node_cost) {
    struct graph_units * units = b->units;
    const enum cost_model model = fuse == GGC_FUSE_CUDA ? COST_GPU : COST_CPU;
    for (uint32_t u = 0; u < units->core.n_units; u++) {
        units->access_begin[u] = b->n_accesses;
        for (uint32_t k = units->node_begin[u]; k < units->node_begin[u + 1]; k++) {
            const uint32_t index = units->nodes[k];
            const struct ggml_tensor * node = b->graph->nodes[index];
            if (!node_computes(node)) {
                continue;
            }
            if (!add_node(b, node, u)) {
                return GGC_E_NOMEM;
            }
            const double cost = node_cost != NULL ? node_cost[index] : estimated_cost(node, model);
            if (!isfinite(cost) || cost < 0) {
                return GGC_E_INVALID;
            }
            units->cost[u] += cost;
        }
    }
    units->access_begin[units->core.n_units] = b->n_accesses;
    return GGC_OK;
}

static uint32_t later(uint32_t a, uint32_t b) {
    if (a == GGC_NONE || b == GGC_NONE) {
        return a == GGC_NONE ? b : a;
    }
    return a > b ? a : b;
}

// 3. A view stands right after the latest node that it is made from.
static bool place_views(struct graph_units * units, const struct ggml_cgraph * graph) {
    struct pointer_map index;
    if (!pointer_map_init(&index, (size_t) graph->n_nodes)) {
        return false;
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor * node = graph->nodes[i];
        uint32_t after = GGC_NONE;
        if (units->unit_of_node[i] == GGC_NONE) {
            for (int s = 0; s < GGML_MAX_SRC; s++) {
                if (node->src[s] != NULL) {
                    after = later(after, pointer_map_get(&index, node->src[s], GGC_NONE));
                }
            }
            if (node->view_src != NULL) {
                after = later(after, pointer_map_get(&index, node->view_src, GGC_NONE));
            }
        }
        units->view_after[i] = after;
        if (!pointer_map_put(&index, node, (uint32_t) i)) {
            pointer_map_free(&index);
            return false;
        }
    }
    pointer_map_free(&index);
    return true;
}

static bool allocate(struct graph_units * units, const struct ggml_cgraph * graph) {
    const size_t n = (size_t) graph->n_nodes + 1;
    units->n_nodes = (uint32_t) graph->n_nodes;
    units->unit_of_node = malloc(n * sizeof(uint32_t));
    units->node_begin = malloc(n * sizeof(uint32_t));
    units->nodes = malloc(n * sizeof(uint32_t));
    units->view_after = malloc(n * sizeof(uint32_t));
    units->access_begin = malloc(n * sizeof(uint32_t));
    units->fence = calloc(n, sizeof(uint8_t));
    units->cost = calloc(n, sizeof(double));
    return units->unit_of_node != NULL && units->node_begin != NULL && units->nodes != NULL &&
           units->view_after != NULL && units->access_begin != NULL && units->fence != NULL &&
           units->cost != NULL;
}

// As many accesses as the units can make at most.
static size_t max_accesses(const struct graph_units * units, const struct ggml_cgraph * graph) {
    size_t n = 1;
    const uint32_t n_nodes = units->node_begin[units->core.n_units];
    for (uint32_t k = 0; k < n_nodes; k++) {
        const struct ggml_tensor * node = graph->nodes[units->nodes[k]];
        n += 1;
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            n += node->src[s] != NULL ? 2 : 0;
        }
    }
    return n;
}

static enum ggc_status build(struct builder * b, const struct ggc_graph_params * params) {
    struct graph_units * units = b->units;
    if (!allocate(units, b->graph)) {
        return GGC_E_NOMEM;
    }
    group_nodes(units, b->graph, params);
    units->accesses = malloc(max_accesses(units, b->graph) * sizeof(struct ggc_access));
    if (units->accesses == NULL || !pointer_map_init(&b->buffers, units->n_nodes)) {
        return GGC_E_NOMEM;
    }
    const enum ggc_status status = fill_units(b, params->fuse, params->cost);
    if (status != GGC_OK) {
        return status;
    }
    units->core.access_begin = units->access_begin;
    units->core.accesses = units->accesses;
    units->core.fence = units->fence;
    units->core.cost = units->cost;
    return place_views(units, b->graph) ? GGC_OK : GGC_E_NOMEM;
}

enum ggc_status graph_units_init(struct graph_units * units, const struct ggml_cgraph * graph,
                                 const struct ggc_graph_params * params) {
    *units = (struct graph_units) {0};
    struct builder b = {.units = units,
                        .graph = graph,
                        .n_buffers = HOST + 1,
                        .tracked = params->tracked,
                        .last_is_host = true};
    const enum ggc_status status = build(&b, params);
    pointer_map_free(&b.buffers);
    if (status != GGC_OK) {
        graph_units_free(units);
    }
    return status;
}

void graph_units_free(struct graph_units * units) {
    free(units->unit_of_node);
    free(units->node_begin);
    free(units->nodes);
    free(units->view_after);
    free(units->access_begin);
    free(units->accesses);
    free(units->fence);
    free(units->cost);
    *units = (struct graph_units) {0};
}
