#include "threads.h"

// Scratch memory that ggml gives a convolution, and to which it adds a little for each thread.
#define SCRATCH ((size_t) 16 << 20)

// A convolution unrolls its input into columns, as many patches at a time as fit into its scratch
// memory, and multiplies these. Where it takes several batches, the number of threads decides where
// one ends, and a last patch on its own takes another kernel.
static bool takes_several_batches(const struct ggml_tensor * node) {
    const struct ggml_tensor * kernel = node->src[0];
    const int64_t n_results = op_of(node) == GGML_OP_CONV_3D ? node->op_params[11] : kernel->ne[3];
    if (n_results <= 0) {
        return true;
    }
    const size_t column = (size_t) (ggml_nelements(kernel) / n_results);
    const size_t patch = column * ggml_type_size(kernel->type) + (size_t) n_results * sizeof(float);
    const size_t n_patches = (size_t) (ggml_nelements(node) / n_results);
    return n_patches > SCRATCH / patch / 8 * 8;  // batches are multiples of 8 patches
}

// One query over a long cache: each thread takes a part of the cache, and the parts are added up.
// Otherwise the queries and heads are shared out, and each is computed by one thread.
static bool splits_the_cache(const struct ggml_tensor * node) {
    return node->src[0]->ne[1] == 1 && node->src[1]->ne[1] >= 512;
}

bool depends_on_threads(const struct ggml_tensor * node) {
    switch (op_of(node)) {
        case GGML_OP_CONV_2D:
        case GGML_OP_CONV_3D: return takes_several_batches(node);
        case GGML_OP_CROSS_ENTROPY_LOSS: return true;  // one partial sum a thread
        case GGML_OP_FLASH_ATTN_EXT: return splits_the_cache(node);
        default: return false;
    }
}
