#include "own_memory.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "ggml/access_rules.h"
#include "ggml/pointer_map.h"

#define ALIGNMENT 128  // keeps two streams from writing the same pair of cache lines

//
// Which tensors
//

struct finder {
    struct own_memory * own;
    const struct ggml_cgraph * graph;
    struct pointer_map index;  // node -> number
    int32_t * n_uses;          // of each node, by nodes of the graph
    bool * is_private;         // of each root; of a view, what is true of it alone
};

// Whether `node` alone, its views apart, is only for the graph.
static bool is_inner(const struct finder * f, uint32_t i) {
    const struct ggml_tensor * node = f->graph->nodes[i];
    const struct ggml_hash_set * set = &f->graph->visited_hash_set;
    const int special = GGML_TENSOR_FLAG_INPUT | GGML_TENSOR_FLAG_OUTPUT | GGML_TENSOR_FLAG_PARAM |
                        GGML_TENSOR_FLAG_LOSS;
    const size_t slot = ggml_hash_find(set, node);
    return slot != GGML_HASHSET_FULL && ggml_bitset_get(set->used, slot) && f->n_uses[i] > 0 &&
           f->graph->use_counts[slot] == f->n_uses[i] && !(node->flags & special);
}

// Plain host memory, which ggml says no device has, is the CPU's.
static bool is_of_device(const struct ggml_tensor * tensor, ggml_backend_dev_t device) {
    ggml_backend_dev_t owner =
        ggml_backend_buft_get_device(ggml_backend_buffer_get_type(tensor->buffer));
    return owner == device || (owner == NULL && ggml_backend_buffer_is_host(tensor->buffer) &&
                               ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU);
}

static bool may_have_memory(struct finder * f, const struct ggml_tensor * node,
                            ggml_backend_dev_t device) {
    if (node->data == NULL || node->buffer == NULL || !node_computes(node) ||
        ggml_is_quantized(node->type) ||
        ggml_backend_buffer_get_usage(node->buffer) != GGML_BACKEND_BUFFER_USAGE_COMPUTE) {
        return false;
    }
    ggml_backend_buffer_type_t buft = ggml_backend_buffer_get_type(node->buffer);
    if (f->own->buft == NULL && is_of_device(node, device)) {
        f->own->buft = buft;
    }
    return buft == f->own->buft;
}

static uint32_t index_of(const struct finder * f, const struct ggml_tensor * tensor) {
    return pointer_map_get(&f->index, tensor, GGC_NONE);
}

static bool count_uses(struct finder * f) {
    const struct ggml_cgraph * graph = f->graph;
    for (int i = 0; i < graph->n_nodes; i++) {
        if (!pointer_map_put(&f->index, graph->nodes[i], (uint32_t) i)) {
            return false;
        }
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * source = graph->nodes[i]->src[s];
            const uint32_t index = source != NULL ? index_of(f, source) : GGC_NONE;
            if (index != GGC_NONE) {
                f->n_uses[index]++;
            }
        }
    }
    return true;
}

static void drop_root(struct finder * f, const struct ggml_tensor * tensor) {
    const uint32_t root = index_of(f, root_of(tensor));
    if (root != GGC_NONE) {
        f->is_private[root] = false;
    }
}

// A view that somebody else may look through, or that is no node of this graph, gives its root
// away.
static void find_private(struct finder * f, ggml_backend_dev_t device) {
    const struct ggml_cgraph * graph = f->graph;
    for (uint32_t i = 0; i < (uint32_t) graph->n_nodes; i++) {
        const struct ggml_tensor * node = graph->nodes[i];
        f->is_private[i] =
            is_inner(f, i) && (node->view_src != NULL || may_have_memory(f, node, device));
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor * node = graph->nodes[i];
        if (node->view_src != NULL && !f->is_private[i]) {
            drop_root(f, node);
        }
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * source = node->src[s];
            if (source != NULL && source->view_src != NULL && index_of(f, source) == GGC_NONE) {
                drop_root(f, source);
            }
        }
    }
}

static bool is_private_root(const struct finder * f, const struct ggml_tensor * tensor) {
    const uint32_t root = index_of(f, tensor);
    return root != GGC_NONE && tensor->view_src == NULL && f->is_private[root];
}

static bool list_tensors(struct finder * f) {
    struct own_memory * own = f->own;
    const struct ggml_cgraph * graph = f->graph;
    const size_t n = (size_t) graph->n_nodes + 1;
    own->tensors = malloc(n * sizeof(*own->tensors));
    own->theirs = malloc(n * sizeof(*own->theirs));
    own->ours = malloc(n * sizeof(*own->ours));
    if (own->tensors == NULL || own->theirs == NULL || own->ours == NULL) {
        return false;
    }
    for (int views = 0; views < 2; views++) {
        for (int i = 0; i < graph->n_nodes; i++) {
            struct ggml_tensor * node = graph->nodes[i];
            if ((node->view_src != NULL) == views && is_private_root(f, root_of(node))) {
                own->theirs[own->n_tensors] = node->data;
                own->tensors[own->n_tensors++] = node;
            }
        }
        own->n_roots = views == 0 ? own->n_tensors : own->n_roots;
    }
    return true;
}

enum ggc_status own_memory_find(struct own_memory * own, const struct ggml_cgraph * graph,
                                ggml_backend_dev_t device) {
    const size_t n = (size_t) graph->n_nodes + 1;
    struct finder f = {.own = own, .graph = graph};
    *own = (struct own_memory) {0};
    f.n_uses = calloc(n, sizeof(*f.n_uses));
    f.is_private = calloc(n, sizeof(*f.is_private));
    bool ok = f.n_uses != NULL && f.is_private != NULL && pointer_map_init(&f.index, n);
    ok = ok && count_uses(&f);
    if (ok) {
        find_private(&f, device);
        ok = list_tensors(&f);
    }
    pointer_map_free(&f.index);
    free(f.n_uses);
    free(f.is_private);
    if (!ok) {
        own_memory_free(own);
    }
    return ok ? GGC_OK : GGC_E_NOMEM;
}

//
// Where they lie
//

struct use {
    uint32_t tensor, unit;
};

static int by_tensor(const void * a, const void * b) {
    const struct use *x = a, *y = b;
    return x->tensor != y->tensor ? (x->tensor > y->tensor) - (x->tensor < y->tensor)
                                  : (x->unit > y->unit) - (x->unit < y->unit);
}

struct layouter {
    struct own_memory * own;
    const struct ggc_graph_plan * plan;
    struct pointer_map roots;  // root -> number
    struct memory_tensor * tensors;
    struct use * uses;
    uint32_t * use_units;
    uint64_t * offset;
    uint32_t n_uses;
};

static void note_use(struct layouter * l, const struct ggml_tensor * tensor, uint32_t unit) {
    const uint32_t index =
        tensor != NULL ? pointer_map_get(&l->roots, root_of(tensor), GGC_NONE) : GGC_NONE;
    if (index != GGC_NONE) {
        l->uses[l->n_uses++] = (struct use) {index, unit};
    }
}

static void note_uses(struct layouter * l, const struct ggml_cgraph * graph) {
    const struct graph_units * units = &l->plan->units;
    for (uint32_t u = 0; u < units->core.n_units; u++) {
        for (uint32_t k = units->node_begin[u]; k < units->node_begin[u + 1]; k++) {
            const struct ggml_tensor * node = graph->nodes[units->nodes[k]];
            note_use(l, node, u);
            for (int s = 0; s < GGML_MAX_SRC; s++) {
                note_use(l, node->src[s], u);
            }
        }
    }
}

// Of each tensor the units that use it, each once, ascending.
static void group_uses(struct layouter * l) {
    uint32_t n = 0;
    qsort(l->uses, l->n_uses, sizeof(*l->uses), by_tensor);
    for (uint32_t i = 0; i < l->n_uses; i++) {
        struct memory_tensor * tensor = &l->tensors[l->uses[i].tensor];
        if (i == 0 || l->uses[i].tensor != l->uses[i - 1].tensor) {
            tensor->begin = n;
        } else if (l->uses[i].unit == l->uses[i - 1].unit) {
            continue;
        }
        l->use_units[n++] = l->uses[i].unit;
        tensor->end = n;
    }
}

static bool prepare(struct layouter * l, const struct ggml_cgraph * graph) {
    const struct own_memory * own = l->own;
    const size_t n_uses = (size_t) graph->n_nodes * (GGML_MAX_SRC + 1) + 1;
    const size_t n = (size_t) own->n_roots + 1;
    l->tensors = calloc(n, sizeof(*l->tensors));
    l->offset = malloc(n * sizeof(*l->offset));
    l->uses = malloc(n_uses * sizeof(*l->uses));
    l->use_units = malloc(n_uses * sizeof(*l->use_units));
    bool ok = l->tensors != NULL && l->offset != NULL && l->uses != NULL && l->use_units != NULL &&
              pointer_map_init(&l->roots, n);
    for (uint32_t i = 0; ok && i < own->n_roots; i++) {
        const struct ggml_tensor * root = own->tensors[i];
        ok = pointer_map_put(&l->roots, root, i);
        l->tensors[i] = (struct memory_tensor) {
            .size = ggml_backend_buffer_get_alloc_size(root->buffer, root),
            .in_place = GGC_NONE,
        };
    }
    if (ok) {
        note_uses(l, graph);
        group_uses(l);
    }
    return ok;
}

static enum ggc_status place(struct layouter * l, struct scratches * scratches, size_t budget) {
    struct own_memory * own = l->own;
    struct memory_layout layout;
    const size_t alignment = ggml_backend_buft_get_alignment(own->buft);
    const struct memory_problem problem = {
        .n_units = l->plan->units.core.n_units,
        .cost = l->plan->units.core.cost,
        .schedule = ggc_plan_schedule(l->plan->core),
        .wait_cost = l->plan->wait_cost,
        .tensors = l->tensors,
        .n_tensors = own->n_roots,
        .uses = l->use_units,
        .alignment = alignment > ALIGNMENT ? alignment : ALIGNMENT,
        .max_buffer = UINT64_C(1) << 62,
    };
    const size_t room = scratch_room(scratches, own->buft, budget);
    const enum ggc_status status = memory_lay_out(&problem, room, NULL, l->offset, &layout);
    if (status != GGC_OK) {
        return status;
    }
    if (layout.size > room || layout.size > ggml_backend_buft_get_max_size(own->buft)) {
        return GGC_E_CAPACITY;
    }
    own->scratches = scratches;
    own->scratch =
        scratch_use(scratches, own->buft, (size_t) layout.size, (size_t) problem.alignment, budget);
    if (own->scratch == NULL) {
        return GGC_E_NOMEM;
    }
    own->size = (size_t) layout.size;
    for (uint32_t i = 0; i < own->n_roots; i++) {
        own->ours[i] = (void *) (own->scratch->start + l->offset[i]);
    }
    for (uint32_t i = own->n_roots; i < own->n_tensors; i++) {
        const struct ggml_tensor * view = own->tensors[i];
        const uint32_t root = pointer_map_get(&l->roots, root_of(view), GGC_NONE);
        own->ours[i] = (char *) own->ours[root] + view->view_offs;
    }
    return GGC_OK;
}

enum ggc_status own_memory_lay_out(struct own_memory * own, const struct ggml_cgraph * graph,
                                   const struct ggc_graph_plan * plan, struct scratches * scratches,
                                   size_t budget) {
    if (own->n_roots == 0) {
        return GGC_OK;
    }
    struct layouter l = {.own = own, .plan = plan};
    const enum ggc_status status = prepare(&l, graph) ? place(&l, scratches, budget) : GGC_E_NOMEM;
    pointer_map_free(&l.roots);
    free(l.tensors);
    free(l.offset);
    free(l.uses);
    free(l.use_units);
    return status;
}

void own_memory_free(struct own_memory * own) {
    scratch_leave(own->scratches, own->scratch);
    free(own->tensors);
    free(own->theirs);
    free(own->ours);
    *own = (struct own_memory) {0};
}

void own_memory_hide(const struct own_memory * own) {
    for (uint32_t i = 0; i < own->n_roots; i++) {
        own->tensors[i]->data = NULL;
    }
}

void own_memory_enter(const struct own_memory * own) {
    for (uint32_t i = 0; i < own->n_tensors; i++) {
        own->tensors[i]->data = own->ours[i];
    }
}

void own_memory_leave(const struct own_memory * own) {
    for (uint32_t i = 0; i < own->n_tensors; i++) {
        own->tensors[i]->data = own->theirs[i];
    }
}
