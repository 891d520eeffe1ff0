// After ggml-cuda of ggml 0.25.3: what each operation allocates from ggml_cuda_pool, as an upper
// bound that is easy to tell, and ggml_backend_cuda_context::cublas_handle.
#include "cuda_memory.h"

#include "ggml/op_of.h"

#define MIB ((size_t) 1 << 20)
#define POOL_STEP (2 * MIB)  // by which a pool grows
#define WORKSPACE_HOPPER 32  // MiB that ggml gives cuBLAS, from compute capability 9.0 on
#define WORKSPACE 4          // before
#define HANDLE 8             // MiB, allowed for cuBLAS's own and the stream's
#define TILES 16             // MiB, allowed for partial tiles of MMQ and of flash attention
#define VECTOR_TOKENS 8      // up to which a product needs no tiles and no cuBLAS
#define FLASH_PARTS 64       // in how many parts a row of attention may be computed
#define TURING 750           // from which on quantised matrices are never converted as a whole

static size_t elements(const struct ggml_tensor * tensor) {
    return (size_t) ggml_nelements(tensor);
}

static size_t all_bytes(const struct ggml_tensor * node) {
    size_t bytes = ggml_nbytes(node);
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        bytes += node->src[s] != NULL ? ggml_nbytes(node->src[s]) : 0;
    }
    return bytes;
}

static bool is_few(const struct ggml_tensor * product) {
    const int64_t tokens = op_of(product) == GGML_OP_MUL_MAT_ID ? product->ne[2] : product->ne[1];
    return tokens <= VECTOR_TOKENS;
}

static bool uses_blas(const struct ggml_tensor * node) {
    switch (op_of(node)) {
        case GGML_OP_MUL_MAT: return !is_few(node) || !ggml_is_quantized(node->src[0]->type);
        case GGML_OP_MUL_MAT_ID: return !is_few(node);
        case GGML_OP_OUT_PROD:
        case GGML_OP_SOLVE_TRI: return true;
        default: return false;
    }
}

// Copies of the second factor (quantised, sorted by expert, as f16) and of the result; of a
// quantised matrix, as f16, on old devices.
static size_t product_bytes(const struct ggml_tensor * node, int capability) {
    const struct ggml_tensor *a = node->src[0], *b = node->src[1];
    const size_t sent = op_of(node) == GGML_OP_MUL_MAT_ID ? (size_t) node->ne[1] : 1;
    const size_t copies = 4 * elements(b) * sent + 512 * (size_t) ggml_nrows(b) * sent;
    if (is_few(node)) {
        return copies;
    }
    const bool converts = ggml_is_quantized(a->type) && capability < TURING;
    return copies + 4 * elements(node) + TILES * MIB + (converts ? 2 * elements(a) : 0);
}

static size_t pool_bytes(const struct ggml_tensor * node, int capability) {
    switch (op_of(node)) {
        case GGML_OP_MUL_MAT:
        case GGML_OP_MUL_MAT_ID: return product_bytes(node, capability);
        case GGML_OP_FLASH_ATTN_EXT: {
            const size_t parts = FLASH_PARTS * (elements(node) * 4 + 8 * (size_t) ggml_nrows(node));
            const size_t one = elements(node) * 4 + TILES * MIB;
            return parts < one ? parts : one;
        }
        case GGML_OP_ARGSORT:
        case GGML_OP_TOP_K:
        case GGML_OP_CUMSUM:
        case GGML_OP_SUM:
        case GGML_OP_MEAN:
        case GGML_OP_SSM_SCAN:
        case GGML_OP_CONV_2D:
        case GGML_OP_CONV_3D:
        case GGML_OP_OUT_PROD:
        case GGML_OP_SOLVE_TRI:
        case GGML_OP_CROSS_ENTROPY_LOSS: return 4 * all_bytes(node);
        default: return 0;
    }
}

struct cuda_need cuda_stream_need(const struct segment_list * stream, int capability) {
    size_t pool = 0;
    bool blas = false;
    for (uint32_t k = 0; k < stream->n; k++) {
        const struct ggml_cgraph * graph = &stream->items[k].graph;
        for (int i = 0; i < graph->n_nodes; i++) {
            const size_t bytes = pool_bytes(graph->nodes[i], capability);
            pool = bytes > pool ? bytes : pool;
            blas = blas || uses_blas(graph->nodes[i]);
        }
    }
    const size_t workspace = capability >= 900 ? WORKSPACE_HOPPER : WORKSPACE;
    return (struct cuda_need) {
        .pool = (pool + POOL_STEP - 1) / POOL_STEP * POOL_STEP,
        .blas = blas ? (workspace + HANDLE) * MIB : 0,
    };
}
