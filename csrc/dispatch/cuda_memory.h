// Memory of the device that streams take beside the tensors.
#pragma once

#include "segments.h"

// Bytes that an instance of ggml-cuda for a stream may come to, rather more than less: the largest
// temporary memory that any operation asks its pool for; and what cuBLAS is given, 0 where it is
// not used.
struct cuda_need {
    size_t pool, blas;
};

// `capability` as ggml-cuda counts, 900 for 9.0. What all streams did come to is in
// ggc_runner_stream_bytes, once the first computation is done.
struct cuda_need cuda_stream_need(const struct segment_list * stream, int capability);
