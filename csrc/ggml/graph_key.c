#include "graph_key.h"

#include <string.h>

#include "op_of.h"
#include "pointer_map.h"

#define NO_TENSOR UINT32_MAX

// Two different words lead to different states; the multipliers and shifts are those of splitmix64
// (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
static uint64_t mix(uint64_t state, uint64_t word) {
    uint64_t z = state * UINT64_C(0x9E3779B97F4A7C15) + word;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void add_word(struct graph_key * key, uint64_t word) {
    key->a = mix(key->a, word);
    key->b = mix(key->b ^ UINT64_C(0x5851F42D4C957F2D), word);
}

static void add_bytes(struct graph_key * key, const void * data, size_t size) {
    const unsigned char * bytes = data;
    add_word(key, size);
    while (size > 0) {
        uint64_t word = 0;
        const size_t n = size < sizeof(word) ? size : sizeof(word);
        memcpy(&word, bytes, n);
        add_word(key, word);
        bytes += n;
        size -= n;
    }
}

// A tensor that was met before is told by its number, another one by what it looks like.
static bool add_tensor(struct graph_key * key, struct pointer_map * seen,
                       const struct ggml_tensor * tensor) {
    if (tensor == NULL) {
        add_word(key, NO_TENSOR);
        return true;
    }
    const uint32_t known = pointer_map_get(seen, tensor, NO_TENSOR);
    if (known != NO_TENSOR) {
        add_word(key, known);
        return true;
    }
    add_word(key, (uint64_t) NO_TENSOR + 1 + (uint64_t) tensor->type);
    add_bytes(key, tensor->ne, sizeof(tensor->ne));
    add_bytes(key, tensor->nb, sizeof(tensor->nb));
    return pointer_map_put(seen, tensor, (uint32_t) seen->n);
}

// The parameters of these are addresses, which are others in every process.
static bool is_users(const struct ggml_tensor * node) {
    return op_of(node) == GGML_OP_MAP_CUSTOM1 || op_of(node) == GGML_OP_MAP_CUSTOM2 ||
           op_of(node) == GGML_OP_MAP_CUSTOM3 || op_of(node) == GGML_OP_CUSTOM;
}

static bool add_node(struct graph_key * key, struct pointer_map * seen,
                     const struct ggml_tensor * node) {
    add_word(key, (uint64_t) op_of(node) << 32 | (uint32_t) node->flags);
    if (!is_users(node)) {
        add_bytes(key, node->op_params, sizeof(node->op_params));
    }
    bool ok = add_tensor(key, seen, node);
    for (int s = 0; ok && s < GGML_MAX_SRC; s++) {
        ok = add_tensor(key, seen, node->src[s]);
    }
    ok = ok && add_tensor(key, seen, node->view_src);
    add_word(key, node->view_src != NULL ? node->view_offs : 0);
    return ok;
}

bool graph_key_of(struct graph_key * key, const struct ggml_cgraph * graph, const char * extra) {
    struct pointer_map seen;
    *key = (struct graph_key) {1, 2};
    add_bytes(key, extra, strlen(extra));
    bool ok = pointer_map_init(&seen, 2 * (size_t) graph->n_nodes);
    for (int i = 0; ok && i < graph->n_nodes; i++) {
        ok = add_node(key, &seen, graph->nodes[i]);
    }
    pointer_map_free(&seen);
    return ok;
}

// A leaf that is no view and no input: a weight, a cache, or a constant.
static bool is_given(const struct ggml_tensor * tensor) {
    return tensor != NULL && tensor->view_src == NULL && op_of(tensor) == GGML_OP_NONE;
}

struct graph_key graph_family_key(const struct ggml_cgraph * graph, const char * extra) {
    struct graph_key key = {5, 6};
    add_bytes(&key, extra, strlen(extra));
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor * node = graph->nodes[i];
        add_word(&key, (uint64_t) op_of(node) << 32 | (uint32_t) node->type);
        if (op_of(node) == GGML_OP_MUL_MAT && is_given(node->src[0])) {
            add_word(&key, (uint64_t) node->src[0]->type);
            add_bytes(&key, node->src[0]->ne, sizeof(node->ne));
            add_bytes(&key, node->ne, sizeof(node->ne));
        }
    }
    return key;
}

static void add_form(struct graph_key * key, const struct ggml_tensor * tensor) {
    if (tensor == NULL) {
        add_word(key, NO_TENSOR);
        return;
    }
    add_word(key, (uint64_t) tensor->type);
    add_bytes(key, tensor->ne, sizeof(tensor->ne));
    add_bytes(key, tensor->nb, sizeof(tensor->nb));
}

struct graph_key cost_key_of(const struct ggml_cgraph * graph, const uint32_t * nodes, uint32_t n) {
    struct graph_key key = {3, 4};
    for (uint32_t i = 0; i < n; i++) {
        const struct ggml_tensor * node = graph->nodes[nodes[i]];
        const char * name = ggml_op_desc(node);
        add_bytes(&key, name, strlen(name));
        add_form(&key, node);
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            add_form(&key, node->src[s]);
        }
    }
    return key;
}
