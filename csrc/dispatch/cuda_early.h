// Kernels that read before they wait. ggml-cuda launches most kernels with programmatic
// serialization (PDL): they begin before the one that they follow is over, and wait for it inside.
// So does flash attention, before it reads its queries, as the source has it; but the compiler has
// moved these loads in front of the wait (flash_attn_ext_vec for f16 and bf16, flash_attn_tile;
// ggml 0.25.3, CUDA 13.0, sm_90: scripts/cuda_early_reads.py lists them). Where the kernel that it
// follows has written the queries, or lets it begin while one before that writes them, it takes
// what was there before.
//
// Every flash attention counts as such here. It may follow SET_ROWS or a matrix product that has
// not made its queries: their last kernels let it begin only when they have waited themselves.
#pragma once

#include <stdbool.h>

#include "segments.h"

// Whether a unit with this node must begin a segment.
bool cuda_reads_early(const struct ggml_tensor * node);

// Of each segment, by place: whether it must not begin before what precedes it on its stream is
// over. To be freed; NULL when out of memory.
bool * cuda_early_segments(const struct segments * segments, const struct dispatch_args * args);

// Whether queries are read too early where ggml-cuda computes the graph in its own order, whatever
// the plan's: on a device for which it uses PDL, if everything is launched so.
bool cuda_order_is_early(const struct dispatch_args * args);
