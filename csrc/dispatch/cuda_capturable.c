// Read in ggml-cuda of ggml 0.25.3, operation by operation. Three things cannot be captured:
//
//   - waiting for the stream: the general path of MUL_MAT_ID alone, which brings the experts'
//     numbers to the host (ggml_cuda_mul_mat_id_needs_sync);
//   - copies from or to memory of the host, which a replay would repeat with whatever is there by
//     then: the same path alone;
//   - another kernel, with another result, than outside of a capture: ARGSORT and TOP_K of several
//     long rows, which CUB sorts otherwise, equal values in another order and with other temporary
//     memory; MEAN of one long row where ggml's own graphs are switched off.
//
// Everything else may be captured. Temporary memory comes from the instance's pool, its size
// depends on types and shapes alone, and a run outside of a capture has brought the pool to it, or
// one of a graph alike nearly so; so it is with cuBLAS, whose handle is made, and given a
// workspace, by the first product. Where the pool grows all the same, a relaxed capture allows
// that. Attributes of kernels may be set at any time.
//
// tests/python/test_cuda_capturable.py looks in ggml's source for waits, copies and questions after
// captures that are not among these.
#include "cuda_capturable.h"

#include <stdlib.h>
#include <string.h>

#include "ggml/op_of.h"

#define VOLTA 700
#define TURING 750
#define AMPERE 800
#define ADA 890
#define PASCAL 600
#define DP4A 610

#define VECTOR_TOKENS 8       // MMVQ_MAX_BATCH_SIZE
#define MMF_ROWS 32           // MMF_ROWS_PER_BLOCK
#define MMQ_DP4A_TOKENS 64    // MMQ_DP4A_MAX_BATCH_SIZE
#define BITONIC_COLUMNS 1024  // up to which ARGSORT does without CUB
#define MEAN_COLUMNS 65536    // from which MEAN of one row uses CUB, and half of it in a capture

//
// What ggml-cuda was built for
//

static const char * feature(ggml_backend_dev_t device, const char * name) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device);
    ggml_backend_get_features_t get = NULL;
    *(void **) &get = ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features");
    const struct ggml_backend_feature * list = get != NULL ? get(reg) : NULL;
    for (; list != NULL && list->name != NULL; list++) {
        if (strcmp(list->name, name) == 0) {
            return list->value;
        }
    }
    return NULL;
}

// "750,800,900"; a build that does not tell is taken for one that suits the device, as ggml does.
static int highest_of(const char * archs, int capability) {
    int highest = 0;
    if (archs == NULL) {
        return capability;
    }
    while (*archs != '\0') {
        char * end;
        const long arch = strtol(archs, &end, 10);
        if (arch <= capability && arch > highest) {
            highest = (int) arch;
        }
        archs = end > archs ? end : archs + 1;
    }
    return highest;
}

struct cuda_build cuda_build_of(ggml_backend_dev_t device, int capability) {
    return (struct cuda_build) {
        .capability = 10 * capability,
        .compiled = highest_of(feature(device, "ARCHS"), 10 * capability),
        .blas_only = feature(device, "FORCE_CUBLAS") != NULL,
        .no_graphs = getenv("GGML_CUDA_DISABLE_GRAPHS") != NULL,
    };
}

//
// Experts: the order and the conditions of ggml_cuda_mul_mat_id
//

// get_mmvq_mmid_max_batch, for NVIDIA's devices.
static int64_t most_vector_tokens(enum ggml_type type, int capability) {
    if (capability == VOLTA || capability >= ADA) {
        return VECTOR_TOKENS;
    }
    const bool old = capability < TURING;
    switch (type) {
        case GGML_TYPE_IQ2_S: return old ? 4 : 7;
        case GGML_TYPE_IQ3_S: return old ? 4 : 6;
        case GGML_TYPE_IQ3_XXS: return old ? 4 : 7;
        case GGML_TYPE_MXFP4: return old ? 4 : 7;
        case GGML_TYPE_Q2_K: return old ? 4 : 7;
        case GGML_TYPE_Q3_K: return old ? 4 : 5;
        case GGML_TYPE_NVFP4:
        case GGML_TYPE_Q6_K:
        case GGML_TYPE_Q8_0: return old ? 4 : VECTOR_TOKENS;
        case GGML_TYPE_IQ2_XS:
        case GGML_TYPE_IQ2_XXS:
        case GGML_TYPE_IQ4_XS:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K: return old ? 5 : VECTOR_TOKENS;
        case GGML_TYPE_IQ1_S:
        case GGML_TYPE_IQ1_M:
        case GGML_TYPE_IQ4_NL:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1: return old ? 6 : VECTOR_TOKENS;
        default: return VECTOR_TOKENS;
    }
}

static bool has_mmq_kernels(enum ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q1_0:
        case GGML_TYPE_Q2_0:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q2_K:
        case GGML_TYPE_Q3_K:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_Q6_K:
        case GGML_TYPE_IQ1_S:
        case GGML_TYPE_IQ2_XXS:
        case GGML_TYPE_IQ2_XS:
        case GGML_TYPE_IQ2_S:
        case GGML_TYPE_IQ3_XXS:
        case GGML_TYPE_IQ3_S:
        case GGML_TYPE_IQ4_XS:
        case GGML_TYPE_IQ4_NL:
        case GGML_TYPE_MXFP4:
        case GGML_TYPE_NVFP4: return true;
        default: return false;
    }
}

// ggml_cuda_should_use_mmq
static bool uses_mmq(const struct ggml_tensor * node, const struct cuda_build * build) {
    if (build->blas_only || !has_mmq_kernels(node->src[0]->type)) {
        return false;
    }
    if (build->compiled >= TURING) {
        return true;
    }
    if (build->compiled < DP4A) {
        return build->capability >= PASCAL;
    }
    return build->capability < VOLTA || node->src[1]->ne[2] < MMQ_DP4A_TOKENS;
}

// ggml_cuda_should_use_mmf
static bool uses_mmf(const struct ggml_tensor * node, const struct cuda_build * build) {
    const struct ggml_tensor * experts = node->src[0];
    const size_t size = ggml_type_size(experts->type);
    const int64_t tokens = node->src[1]->ne[2];
    bool available = false;
    switch (experts->type) {
        case GGML_TYPE_F32:
        case GGML_TYPE_BF16: available = build->compiled >= AMPERE; break;
        case GGML_TYPE_F16:
            available = build->compiled == VOLTA || build->compiled >= TURING;
            break;
        default: break;
    }
    for (int i = 1; i < GGML_MAX_DIMS; i++) {
        available = available && experts->nb[i] % (2 * size) == 0;
    }
    return available && experts->nb[0] == size &&
           (size_t) experts->ne[0] % (32 * (4 / size)) == 0 && experts->ne[1] % MMF_ROWS == 0 &&
           tokens <= (experts->ne[1] <= 1024 ? 512 : 128);
}

static bool experts_wait(const struct ggml_tensor * node, const struct cuda_build * build) {
    const enum ggml_type type = node->src[0]->type;
    if (node->src[1]->type != GGML_TYPE_F32 || node->type != GGML_TYPE_F32) {
        return true;
    }
    if (ggml_is_quantized(type) && node->ne[2] <= VECTOR_TOKENS &&
        node->ne[2] <= most_vector_tokens(type, build->capability)) {
        return false;
    }
    return !uses_mmq(node, build) && !uses_mmf(node, build);
}

//
// All operations
//

static bool sorts_otherwise(const struct ggml_tensor * node) {
    return node->src[0]->ne[0] > BITONIC_COLUMNS && ggml_nrows(node->src[0]) > 1;
}

static bool sums_otherwise(const struct ggml_tensor * node) {
    const int64_t n = node->src[0]->ne[0];
    return ggml_nrows(node->src[0]) == 1 && n > MEAN_COLUMNS / 2 && n <= MEAN_COLUMNS;
}

const char * cuda_not_capturable(const struct ggml_tensor * node, const struct cuda_build * build) {
    switch (op_of(node)) {
        case GGML_OP_MUL_MAT_ID:
            return experts_wait(node, build) ? "the host must know the experts of each token"
                                             : NULL;
        case GGML_OP_ARGSORT:
        case GGML_OP_TOP_K:
            return sorts_otherwise(node) ? "a capture would sort long rows otherwise" : NULL;
        case GGML_OP_MEAN:
            return build->no_graphs && sums_otherwise(node)
                       ? "with GGML_CUDA_DISABLE_GRAPHS a capture would sum a long row otherwise"
                       : NULL;
        default: return NULL;
    }
}
