// The Metal dispatcher's predictions beside ggml-metal's own portable source.
#pragma once

#include "compare.h"

#ifdef __cplusplus
extern "C" {
#endif

// Of one graph with memory: kernels and barriers (without inner ones) as ggml-metal's fusion table
// and range tracker make them, and as the dispatcher predicts them.
struct metal_prediction {
    uint32_t kernels, barriers, command_buffers;
    uint32_t predicted_kernels, predicted_barriers, predicted_command_buffers, inner_barriers;
    uint32_t phases;      // of the plan, in our order; else 0
    uint32_t cuts_phase;  // whether the command buffer is cut inside of a phase
    uint32_t nodes;
};

// In the order of the graph, in memory from ggml's allocator: NULL, or what is wrong. Every fusion
// that begins at any node is compared.
METAL_API const char * metal_predict_plain(struct ggml_cgraph * graph,
                                           struct metal_prediction * prediction);
// In our order, in memory that is laid out for it: shared as far as the phases allow, or none.
// `seed`: not 0 shuffles the phases. The order is also proven.
METAL_API const char * metal_predict_ours(struct ggml_cgraph * graph, size_t budget, uint32_t seed,
                                          struct metal_prediction * prediction);
// With half of the barriers missing. NULL where the proof refutes that (or there was none), else
// what it let pass.
METAL_API const char * metal_prove_wrong(struct ggml_cgraph * graph);

#ifdef __cplusplus
}
#endif
