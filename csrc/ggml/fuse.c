#include "fuse.h"

// ggml-cpu.c, ggml_cpu_try_fuse_ops: RMS_NORM followed by the MUL of its result.
static bool cpu_fuses(const struct ggml_tensor * first, const struct ggml_tensor * second) {
    return first->op == GGML_OP_RMS_NORM && second->op == GGML_OP_MUL &&
           (second->src[0] == first || second->src[1] == first);
}

bool might_fuse(const struct ggml_tensor * first, const struct ggml_tensor * second,
                enum ggc_fuse fuse) {
    switch (fuse) {
        case GGC_FUSE_NONE: return false;
        case GGC_FUSE_CPU: return cpu_fuses(first, second);
    }
    return false;
}

bool fuses_with_next(const struct ggml_cgraph * graph, int index, enum ggc_fuse fuse) {
    return index + 1 < graph->n_nodes &&
           might_fuse(graph->nodes[index], graph->nodes[index + 1], fuse);
}
