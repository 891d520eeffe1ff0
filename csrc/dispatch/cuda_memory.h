// Memory of the device that streams take beside the tensors.
#pragma once

#include "segments.h"

// Bytes that instances of ggml-cuda for these streams may come to, rather more than less: what
// cuBLAS is given, and the largest temporary memory that any operation of each stream asks its pool
// for. `capability` as ggml-cuda counts, 900 for 9.0. What they did come to is in
// ggc_runner_stream_bytes, once the first computation is done.
size_t cuda_streams_need(const struct segments * segments, int capability);
