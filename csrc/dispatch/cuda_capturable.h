// Which operations of ggml-cuda a capture can hold.
#pragma once

#include <stdbool.h>

#include "ggml-backend.h"

// What ggml-cuda decides by.
struct cuda_build {
    int capability;  // of the device, as ggml-cuda counts: 900 for 9.0
    int compiled;    // the highest one up to it that ggml-cuda was built for; 0: none
    bool blas_only;  // GGML_CUDA_FORCE_CUBLAS
    bool no_graphs;  // GGML_CUDA_DISABLE_GRAPHS is set
};

// `capability` times ten, as the driver tells it (90 for 9.0); the rest is asked of ggml's
// registry.
struct cuda_build cuda_build_of(ggml_backend_dev_t device, int capability);

// Why a capture cannot hold the node, or NULL if it can.
const char * cuda_not_capturable(const struct ggml_tensor * node, const struct cuda_build * build);
