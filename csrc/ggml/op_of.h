// A node's operation by the number that our headers have for it.
#pragma once

#include "ggml.h"

#ifdef GGC_FOREIGN_GGML
// The ggml at hand is a runner's, of another version perhaps: its numbers -> ours, by name.
// GGML_OP_COUNT: an operation that we do not know.
enum ggml_op op_of(const struct ggml_tensor * node);
#else
static inline enum ggml_op op_of(const struct ggml_tensor * node) {
    return node->op;
}
#endif
