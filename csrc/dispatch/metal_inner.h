// Barriers that ggml-metal (0.25.3) sets inside of operations that are several kernels, whatever
// the order of the nodes.
#pragma once

#include "ggml-impl.h"

// How many `node` makes. Assumes an Apple GPU of 2020 (M1, A14) or later, which has matrix
// multiplication for SIMD groups, and pipelines of 1024 threads.
uint32_t metal_inner_barriers(const struct ggml_tensor * node);
