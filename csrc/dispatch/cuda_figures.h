// What dispatch_cuda tells about itself, beside what every dispatcher does.
#pragma once

#include "dispatch.h"

struct ggc_cuda_figures cuda_figures(const void * state);

// Bytes that the streams took, 0 before the first computation.
size_t cuda_streams_bytes(const void * state);
// Whether every computation is issued anew: there is no CUDA graph to be had.
bool cuda_always_issues(const void * state);
