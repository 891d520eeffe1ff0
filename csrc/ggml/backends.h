// ggml's devices, as the dispatchers need them.
#pragma once

#include "ggml-backend.h"
#include "ggml-concurrent.h"
#include "message.h"

// The CPU device, or NULL with a message when no CPU backend has been loaded.
ggml_backend_dev_t cpu_device(const struct message * message);

// A new instance of a device's backend, or NULL with a message.
ggml_backend_t new_backend(ggml_backend_dev_t device, const struct message * message);

// The CUDA device of that number, or NULL with a message. ggml's CUDA backend is loaded from the
// folder of this library if none is loaded.
ggml_backend_dev_t cuda_device(uint32_t index, const struct message * message);

// A new instance of the CPU backend, or NULL with a message.
ggml_backend_t new_cpu_backend(const struct message * message);

// The first Metal device, or NULL with a message. ggml's Metal backend is loaded from the folder of
// this library if none is loaded.
ggml_backend_dev_t metal_device(const struct message * message);

// Whether ggml-metal's concurrent encoder gives right results on the device: Apple silicon.
bool metal_is_apple(ggml_backend_dev_t device);

// A new instance of the Metal backend, or NULL with a message. Its encoder is serial where it must
// not be concurrent.
ggml_backend_t new_metal_backend(ggml_backend_dev_t device, const struct message * message);

void set_n_threads(ggml_backend_t backend, uint32_t n_threads);

// ggml's graph_compute with its failures, assertions included, as a status. An assertion that
// fails inside OpenMP's threads (n_threads > 1) or on another device (n_threads 0) still aborts the
// process.
enum ggc_status compute_guarded(ggml_backend_t backend, struct ggml_cgraph * graph,
                                uint32_t n_threads, const struct message * message);

// The same of a graph that was allocated with that scheduler.
enum ggc_status sched_compute_guarded(ggml_backend_sched_t sched, struct ggml_cgraph * graph,
                                      uint32_t n_threads, const struct message * message);
