// Kernels of the simulated backend: a node of a graph, or a copy.
#pragma once

#include "sim_backend.h"

struct ggml_tensor;

// Of an instance; every kernel of it writes it all.
struct sim_scratch {
    void * address;
    size_t size;
};

// The node as it is now: nothing of it is needed later but the memory that it computes on.
CUresult sim_launch_node(CUstream stream, const struct ggml_tensor * node,
                         struct sim_scratch scratch);

enum sim_direction { SIM_TO_DEVICE, SIM_TO_HOST, SIM_ON_DEVICE };
CUresult sim_launch_copy(CUstream stream, enum sim_direction direction, void * to,
                         const void * from, size_t size);
CUresult sim_launch_fill(CUstream stream, void * to, unsigned char value, size_t size);

// What ggml-cuda would abort on.
void sim_error(const char * format, ...) __attribute__((format(printf, 1, 2)));
