// Which units use the tensors that are laid out, and what may be done with their memory.
#include <stdlib.h>
#include <string.h>

#include "layout_parts.h"

struct use {
    uint32_t tensor, unit;
};

// The tensor of ours whose memory `tensor` is, or GGC_NONE.
static uint32_t root_index(const struct layouter * l, const struct ggml_tensor * tensor) {
    const struct ggml_tensor * root = root_of(tensor);
    return root->data != NULL ? GGC_NONE : pointer_map_get(&l->seen, root, GGC_NONE);
}

// All uses, unit by unit; the same one may stand there several times.
static uint32_t list_uses(struct layouter * l, struct use * uses) {
    const struct graph_units * units = &l->plan->units;
    uint32_t n = 0;
    for (uint32_t u = 0; u < units->core.n_units; u++) {
        for (uint32_t k = units->node_begin[u]; k < units->node_begin[u + 1]; k++) {
            const struct ggml_tensor * node = l->graph->nodes[units->nodes[k]];
            for (int s = -1; node_computes(node) && s < GGML_MAX_SRC; s++) {
                const struct ggml_tensor * used = s < 0 ? node : node->src[s];
                const uint32_t index = used != NULL ? root_index(l, used) : GGC_NONE;
                if (index != GGC_NONE) {
                    uses[n++] = (struct use) {index, u};
                    l->n_reads[index] += s >= 0;
                }
            }
        }
    }
    return n;
}

static size_t max_uses(const struct layouter * l) {
    size_t n = 1;
    for (int i = 0; i < l->graph->n_nodes; i++) {
        n++;
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            n += l->graph->nodes[i]->src[s] != NULL;
        }
    }
    return n;
}

// By tensor, each unit once, ascending.
enum ggc_status layout_find_uses(struct layouter * l) {
    struct layout * layout = l->layout;
    struct use * uses = malloc(max_uses(l) * sizeof(*uses));
    layout->use_begin = calloc(layout->n_tensors + 2, sizeof(uint32_t));
    layout->uses = malloc(max_uses(l) * sizeof(uint32_t));
    uint32_t * end = calloc(layout->n_tensors + 1, sizeof(uint32_t));
    l->n_reads = calloc(layout->n_tensors + 1, sizeof(uint32_t));
    l->same_as = malloc((layout->n_tensors + 1) * sizeof(uint32_t));
    enum ggc_status status = GGC_E_NOMEM;
    if (uses != NULL && layout->use_begin != NULL && layout->uses != NULL && end != NULL &&
        l->n_reads != NULL && l->same_as != NULL) {
        memset(l->same_as, 0xff, layout->n_tensors * sizeof(uint32_t));
        const uint32_t n = list_uses(l, uses);
        for (uint32_t i = 0; i < n; i++) {  // `end` is now one more than the unit seen last
            const bool is_new = end[uses[i].tensor] != uses[i].unit + 1;
            end[uses[i].tensor] = uses[i].unit + 1;
            layout->use_begin[uses[i].tensor + 1] += is_new;
        }
        for (size_t i = 0; i < layout->n_tensors; i++) {
            layout->use_begin[i + 1] += layout->use_begin[i];
            end[i] = layout->use_begin[i];
        }
        for (uint32_t i = 0; i < n; i++) {
            uint32_t * at = &end[uses[i].tensor];
            if (*at == layout->use_begin[uses[i].tensor] || layout->uses[*at - 1] != uses[i].unit) {
                layout->uses[(*at)++] = uses[i].unit;
            }
        }
        status = GGC_OK;
    }
    free(uses);
    free(end);
    return status;
}

// A source that ggml's own allocator might compute this node in place of: its root's index, or
// GGC_NONE. The node's unit is the last to use it.
static uint32_t in_place_of(const struct layouter * l, const struct ggml_tensor * node,
                            uint32_t unit) {
    const struct layout * layout = l->layout;
    if (!ggml_op_can_inplace(node->op)) {
        return GGC_NONE;
    }
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        const uint32_t index = node->src[s] != NULL ? root_index(l, node->src[s]) : GGC_NONE;
        if (index == GGC_NONE || node->src[s]->view_offs != 0 ||
            !ggml_are_same_layout(node, node->src[s]) ||
            layout->uses[layout->use_begin[index + 1] - 1] != unit) {
            continue;
        }
        int times = 0;
        for (int k = 0; k < GGML_MAX_SRC; k++) {
            times += node->src[k] != NULL && root_of(node->src[k]) == layout->tensors[index];
        }
        if (times == 1) {
            return index;
        }
    }
    return GGC_NONE;
}

// The tensor that node `i` computes, if that is no view: its index, or GGC_NONE.
static uint32_t computed_by(const struct layouter * l, uint32_t i) {
    const struct ggml_tensor * node = l->graph->nodes[i];
    const uint32_t unit = l->plan->units.unit_of_node[i];
    if (layout_is_view(node) || unit == GGC_NONE || !node_computes(node)) {
        return GGC_NONE;
    }
    const uint32_t index = root_index(l, node);
    return index != GGC_NONE && l->layout->uses[l->layout->use_begin[index]] == unit ? index
                                                                                     : GGC_NONE;
}

// A unit of one node may write in the place of what it reads. Where several may be fused, the
// kernel may still read what it has written elsewhere already; so there only what one node hands on
// to the next, and nobody else reads, shares memory with what that one makes of it: they are one.
static void find_in_place(struct layouter * l, uint32_t i, struct memory_tensor * tensors) {
    const uint32_t * node_begin = l->plan->units.node_begin;
    const uint32_t unit = l->plan->units.unit_of_node[i], index = computed_by(l, i);
    const uint32_t over = index != GGC_NONE ? in_place_of(l, l->graph->nodes[i], unit) : GGC_NONE;
    if (over == GGC_NONE) {
        return;
    }
    if (node_begin[unit + 1] == node_begin[unit] + 1) {
        tensors[index].in_place = over;
    } else if (tensors[over].end - tensors[over].begin == 1 && l->n_reads[over] == 1 &&
               !tensors[over].kept && !tensors[over].result &&
               tensors[over].size == tensors[index].size) {
        tensors[over].size = 0;
        l->same_as[over] = index;
    }
}

// Leafs, inputs, and what no unit computes before others read it, are kept.
void layout_describe(struct layouter * l, struct memory_tensor * tensors) {
    const struct layout * layout = l->layout;
    const uint32_t n_nodes = l->plan->units.n_nodes;
    for (uint32_t i = 0; i < layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = layout->tensors[i];
        tensors[i] =
            (struct memory_tensor) {.begin = layout->use_begin[i],
                                    .end = layout->use_begin[i + 1],
                                    .size = layout_is_view(tensor) ? 0 : layout_size_of(l, tensor),
                                    .in_place = GGC_NONE,
                                    .kept = true};
    }
    for (uint32_t i = 0; i < n_nodes; i++) {
        const uint32_t index = computed_by(l, i);
        if (index != GGC_NONE) {
            tensors[index].kept = false;
        }
    }
    for (uint32_t i = 0; i < layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = layout->tensors[i];
        const uint32_t root = root_index(l, tensor);
        if (root != GGC_NONE) {
            tensors[root].kept |= (tensor->flags & GGML_TENSOR_FLAG_INPUT) != 0;
            tensors[root].result |= (tensor->flags & GGML_TENSOR_FLAG_OUTPUT) || !l->is_source[i];
        }
    }
    for (uint32_t i = 0; i < n_nodes; i++) {
        find_in_place(l, i, tensors);
    }
}
