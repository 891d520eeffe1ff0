#include "metal_inner.h"

// Threads that one threadgroup of a pipeline may have, and what ggml-metal builds its kernels for:
// rows of the cache and queries of an attention, tokens of a chunk and width of a head of a scan.
enum { MAX_THREADS = 1024, KV_ROWS = 64, KV_ROWS_VECTOR = 32, CHUNK = 64, HEAD = 64 };

static int64_t min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// A power of two that is at least n, as far as there are threads.
static int64_t threads_for(int64_t n) {
    int64_t threads = 1;
    while (threads < n && 2 * threads <= MAX_THREADS) {
        threads *= 2;
    }
    return threads;
}

static uint32_t doublings(int64_t from, int64_t to) {
    uint32_t n = 0;
    for (; from < to; from *= 2) {
        n++;
    }
    return n;
}

// Blocks of rows are sorted, then merged two by two.
static uint32_t of_argsort(const struct ggml_tensor * node) {
    const int64_t n = node->src[0]->ne[0];
    return doublings(threads_for(n), n);
}

static uint32_t of_top_k(const struct ggml_tensor * node) {
    const int64_t n = node->src[0]->ne[0], k = node->ne[0], n_rows = ggml_nrows(node->src[0]);
    if (n > 2048 && (k > 64 || (n_rows > 4 && n >= 8192))) {
        return 0;  // by radix, one kernel
    }
    const int64_t threads = threads_for(n), n_blocks = (n + threads - 1) / threads;
    const int64_t kept = min(threads, k);
    const int64_t last = min(n - (n_blocks - 1) * threads, kept);
    return n_blocks > 1 ? doublings(kept, (n_blocks - 1) * kept + last) : 0;
}

static uint32_t of_cumsum(const struct ggml_tensor * node) {
    return node->src[0]->ne[0] > MAX_THREADS ? 2 : 0;  // blocks, their sums, both together
}

// Whole chunks by matrices, the tokens that are left one by one.
static uint32_t of_scan(const struct ggml_tensor * node) {
    const int64_t n_tokens = node->src[1]->ne[2], n_states = ggml_get_op_params_i32(node, 0);
    const int64_t kept = n_states > 1 ? n_states : 0;
    const int64_t in_chunks = n_tokens > kept ? (n_tokens - kept) / CHUNK * CHUNK : 0;
    const bool chunked = in_chunks > 0 && node->src[3]->ne[0] == 1 &&
                         node->src[0]->ne[0] % 8 == 0 && node->src[0]->ne[1] == HEAD;
    return chunked && in_chunks < n_tokens ? 1 : 0;
}

// Which rows go to which expert is found first, and for more precision a scale.
static uint32_t of_experts(const struct ggml_tensor * node) {
    if (node->src[0]->ne[0] < 64 || node->src[2]->ne[1] < 32) {
        return 0;
    }
    return ggml_get_op_params_i32(node, 3) == GGML_PREC_F32 ? 2 : 1;
}

static bool has_sparse_kernel(const struct ggml_tensor * keys, const struct ggml_tensor * values) {
    static const int sizes[][2] = {{32, 32},   {64, 64},   {96, 96},   {96, 64},
                                   {128, 128}, {192, 128}, {192, 192}, {256, 256},
                                   {320, 256}, {512, 512}, {576, 512}};
    bool found = false;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        found = found || (keys->ne[0] == sizes[i][0] && values->ne[0] == sizes[i][1]);
    }
    switch (keys->type) {
        case GGML_TYPE_F16:
        case GGML_TYPE_BF16:
        case GGML_TYPE_F32:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q8_0: return found;
        default: return false;
    }
}

static bool is_sparse(const struct ggml_tensor * node) {
    const int32_t n_max = ggml_get_op_params_i32(node, 4);
    return n_max > 0 && n_max <= 4096 && node->src[3] != NULL &&
           has_sparse_kernel(node->src[1], node->src[2]);
}

static bool unpacks_cache(const struct ggml_tensor * node) {
    switch (node->src[1]->type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q8_0: return node->src[0]->ne[1] >= 32;
        default: return false;
    }
}

// The cache is unpacked; what does not fill a block is padded, the mask or the list of rows is
// looked through; the attention; and where several threadgroups share a row, their results.
static uint32_t of_attention(const struct ggml_tensor * node) {
    const bool sparse = is_sparse(node);
    const int64_t n_queries = node->src[0]->ne[1], n_rows = node->src[1]->ne[1];
    const uint32_t unpacks = !sparse && unpacks_cache(node) ? 1 : 0;
    if (!sparse && (n_queries >= 20 || node->src[0]->ne[0] % 32 != 0)) {
        return unpacks + (n_rows % KV_ROWS != 0 || node->src[3] != NULL ? 1 : 0);
    }
    const bool prepares = sparse || n_rows % KV_ROWS_VECTOR != 0;
    const bool shares = !sparse || n_queries <= 32;
    return unpacks + (prepares ? 1 : 0) + (shares ? 1 : 0);
}

uint32_t metal_inner_barriers(const struct ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_ACC:
        case GGML_OP_SET:
            return ggml_get_op_params_i32(node, 4) == 0 ? 1 : 0;  // not in place: copied first
        case GGML_OP_COUNT_EQUAL: return 1;
        case GGML_OP_CUMSUM: return of_cumsum(node);
        case GGML_OP_SSM_SCAN: return of_scan(node);
        case GGML_OP_MUL_MAT_ID: return of_experts(node);
        case GGML_OP_FLASH_ATTN_EXT: return of_attention(node);
        case GGML_OP_ARGSORT: return of_argsort(node);
        case GGML_OP_TOP_K: return of_top_k(node);
        default: return 0;
    }
}
