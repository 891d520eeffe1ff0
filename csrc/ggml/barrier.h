// Nodes that a backend skips, to stand between others.
#pragma once

#include "ggml-concurrent.h"
#include "ggml-impl.h"

// Whether `ctx` has room for n more tensors.
bool context_has_room(struct ggml_context * ctx, size_t n_tensors);

// A GGML_OP_NONE node without data. There must be room for it.
struct ggml_tensor * new_barrier(struct ggml_context * ctx);
