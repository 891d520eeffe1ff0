#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "pointer_map.h"

// The fields of a tensor before and after its operation parameters, which ggml keeps together.
#define HEAD_SIZE offsetof(struct ggml_tensor, op_params)
#define TAIL_START offsetof(struct ggml_tensor, flags)
#define TAIL_SIZE (offsetof(struct ggml_tensor, name) - TAIL_START)

struct tensor_state {
    const struct ggml_tensor * tensor;
    unsigned char head[HEAD_SIZE];
    unsigned char tail[TAIL_SIZE];
};

static void take(struct tensor_state * state, const struct ggml_tensor * tensor) {
    state->tensor = tensor;
    memcpy(state->head, tensor, HEAD_SIZE);
    memcpy(state->tail, (const char *) tensor + TAIL_START, TAIL_SIZE);
}

static bool matches(const struct tensor_state * state) {
    return memcmp(state->head, state->tensor, HEAD_SIZE) == 0 &&
           memcmp(state->tail, (const char *) state->tensor + TAIL_START, TAIL_SIZE) == 0;
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

bool snapshot_matches(const struct snapshot * snapshot, const struct ggml_cgraph * graph) {
    if (graph->uid != 0 && graph->uid == snapshot->uid) {
        return true;  // ggml's promise: equal uids, equal graphs
    }
    if (snapshot->tensors == NULL || snapshot->n_nodes != (uint32_t) graph->n_nodes) {
        return false;
    }
    for (uint32_t i = 0; i < snapshot->n_nodes; i++) {
        if (graph->nodes[i] != snapshot->tensors[i].tensor) {
            return false;
        }
    }
    // every other tensor is one that these refer to, if they match
    for (uint32_t i = 0; i < snapshot->n_tensors; i++) {
        if (!matches(&snapshot->tensors[i])) {
            return false;
        }
    }
    return true;
}
