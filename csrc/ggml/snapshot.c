#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "pointer_map.h"

// All of a tensor that a kernel depends on stands before its name.
#define STATE_SIZE offsetof(struct ggml_tensor, name)

struct tensor_state {
    const struct ggml_tensor * tensor;
    unsigned char bytes[STATE_SIZE];
};

static void take(struct tensor_state * state, const struct ggml_tensor * tensor) {
    state->tensor = tensor;
    memcpy(state->bytes, tensor, STATE_SIZE);
}

// Makes `tensor` what it was in all that counts up to `change`.
static void set_back(struct ggml_tensor * tensor, const struct ggml_tensor * was,
                     enum snapshot_change change) {
    memcpy(tensor->op_params, was->op_params, sizeof(was->op_params));
    if (change >= SNAPSHOT_ADDRESSES) {
        tensor->data = was->data;
        tensor->buffer = was->buffer;
        tensor->view_offs = was->view_offs;
    }
    if (change >= SNAPSHOT_SHAPES) {
        tensor->type = was->type;
        memcpy(tensor->ne, was->ne, sizeof(was->ne));
        memcpy(tensor->nb, was->nb, sizeof(was->nb));
    }
}

// What differs, for a tensor of which something does.
static enum snapshot_change change_of(const struct tensor_state * state) {
    struct ggml_tensor was, is;
    memcpy(&was, state->bytes, STATE_SIZE);
    memcpy(&is, state->tensor, STATE_SIZE);
    for (enum snapshot_change change = SNAPSHOT_PARAMETERS; change <= SNAPSHOT_SHAPES; change++) {
        set_back(&is, &was, change);
        if (memcmp(&is, &was, STATE_SIZE) == 0) {
            return change;
        }
    }
    return SNAPSHOT_SOURCES;
}

static bool add(struct snapshot * snapshot, struct pointer_map * seen, size_t * capacity,
                const struct ggml_tensor * tensor) {
    if (tensor == NULL || pointer_map_get(seen, tensor, UINT32_MAX) != UINT32_MAX) {
        return true;
    }
    if (snapshot->n_tensors == *capacity) {
        struct tensor_state * grown =
            realloc(snapshot->tensors, *capacity * 2 * sizeof(struct tensor_state));
        if (grown == NULL) {
            return false;
        }
        snapshot->tensors = grown;
        *capacity *= 2;
    }
    take(&snapshot->tensors[snapshot->n_tensors], tensor);
    return pointer_map_put(seen, tensor, snapshot->n_tensors++);
}

static bool add_all(struct snapshot * snapshot, const struct ggml_cgraph * graph,
                    struct pointer_map * seen) {
    size_t capacity = (size_t) graph->n_nodes + 16;
    snapshot->tensors = malloc(capacity * sizeof(struct tensor_state));
    bool ok = snapshot->tensors != NULL;
    for (int i = 0; ok && i < graph->n_nodes; i++) {
        ok = add(snapshot, seen, &capacity, graph->nodes[i]);
    }
    for (int i = 0; ok && i < graph->n_nodes; i++) {
        for (int s = 0; ok && s < GGML_MAX_SRC; s++) {
            ok = add(snapshot, seen, &capacity, graph->nodes[i]->src[s]);
        }
    }
    for (uint32_t i = 0; ok && i < snapshot->n_tensors; i++) {  // grows while it runs
        ok = add(snapshot, seen, &capacity, snapshot->tensors[i].tensor->view_src);
    }
    return ok;
}

bool snapshot_take(struct snapshot * snapshot, const struct ggml_cgraph * graph) {
    struct pointer_map seen;
    *snapshot = (struct snapshot) {.uid = graph->uid, .n_nodes = (uint32_t) graph->n_nodes};
    bool ok = pointer_map_init(&seen, 2 * (size_t) graph->n_nodes);
    ok = ok && add_all(snapshot, graph, &seen);
    pointer_map_free(&seen);
    if (!ok) {
        snapshot_free(snapshot);
    }
    return ok;
}

void snapshot_free(struct snapshot * snapshot) {
    free(snapshot->tensors);
    *snapshot = (struct snapshot) {0};
}

enum snapshot_change snapshot_compare(const struct snapshot * snapshot,
                                      const struct ggml_cgraph * graph) {
    if (graph->uid != 0 && graph->uid == snapshot->uid) {
        return SNAPSHOT_SAME;
    }
    if (snapshot->tensors == NULL || snapshot->n_nodes != (uint32_t) graph->n_nodes) {
        return SNAPSHOT_NODES;
    }
    enum snapshot_change furthest = SNAPSHOT_SAME;
    for (uint32_t i = 0; i < snapshot->n_nodes; i++) {
        if (graph->nodes[i] != snapshot->tensors[i].tensor) {
            return SNAPSHOT_NODES;
        }
    }
    // Every other tensor is one that these refer to, or referred to: where a node has another
    // source, what it had is not looked at, it may be gone.
    for (uint32_t i = 0; i < snapshot->n_tensors; i++) {
        const struct tensor_state * state = &snapshot->tensors[i];
        if (i >= snapshot->n_nodes && furthest == SNAPSHOT_SOURCES) {
            break;
        }
        if (memcmp(state->bytes, state->tensor, STATE_SIZE) != 0) {
            const enum snapshot_change change = change_of(state);
            furthest = change > furthest ? change : furthest;
        }
    }
    return furthest;
}

bool snapshot_matches(const struct snapshot * snapshot, const struct ggml_cgraph * graph) {
    return snapshot_compare(snapshot, graph) <= SNAPSHOT_PARAMETERS;
}
