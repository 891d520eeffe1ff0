// Graphs on ggml's Metal device, or the simulated one, as ggml itself computes them: what we
// compare with.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef METAL_API
#    define METAL_API __attribute__((visibility("default")))
#endif

struct ggml_cgraph;

// Memory on the device for weights that have none, with nothing in it; for graphs that are not
// computed, be they larger than the machine's memory.
struct metal_run_weights;
METAL_API struct metal_run_weights * metal_run_weights_new(struct ggml_cgraph * graph);
// The graph's tensors are as they were.
METAL_API void metal_run_weights_free(struct metal_run_weights * weights);

// One graph without memory for its nodes, on the device, without us.
enum metal_run_way {
    METAL_RUN_PLAIN,    // in its order or `order`, memory by ggml's allocator, computed directly
    METAL_RUN_REORDER,  // under ggml's scheduler, which lets ggml-metal reorder it
    METAL_RUN_LATE,     // a mistake to be found: `order`, in memory laid out for the graph's order
};
struct metal_run;

// Gives memory to whatever has none; weights in host memory are used where they are. `order` has
// the nodes' numbers, or is NULL. Returns NULL where ggml-metal cannot compute a node, or there is
// no memory. Not more than one for a graph at a time.
METAL_API struct metal_run * metal_run_new(struct ggml_cgraph * graph, enum metal_run_way way,
                                           const int32_t * order);
// 0: done, and, unless `start_only`, waited for. Inputs are set and outputs read with
// ggml_backend_tensor_set and _get.
METAL_API int metal_run_compute(struct metal_run * run, int32_t start_only);
// The graph has no memory again.
METAL_API void metal_run_free(struct metal_run * run);

#ifdef __cplusplus
}
#endif
