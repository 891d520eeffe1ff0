// ggml-metal's own reorder and barriers, built from its portable source, beside ours on one graph.
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

// One graph. A kernel is what ggml-metal makes of a node or of several that it fuses, found in the
// order in question: another order may make other nodes neighbours.
struct metal_figures {
    // ggml-metal: barriers that its range tracker places, in the order of the graph and after its
    // own reorder; kernels after that
    int32_t plain, reorder, reorder_kernels;
    // ours: barriers that the order by phases needs between its kernels, byte for byte; and at
    // least, one less than the longest chain of kernels that conflict, all pairs compared
    int32_t ours, minimum, kernels;
    // the plan itself: units, barriers between its phases, and at least, as above
    int32_t units, phase_barriers, phase_minimum;
    // barriers that ggml-metal's tracker places on our order
    int32_t tracked;
};

// Sums of seconds: ggml-metal's reorder and our plan, `repeats` times in turns.
struct metal_seconds {
    double reorder, plan;
};

// All return NULL, or what is wrong: an error of the library, a plan that is refuted, a fusion of
// ggml-metal that lies across two units. The graph is as it was afterwards.
METAL_API const char * metal_compare(struct ggml_cgraph * graph, struct metal_figures * figures);
// The same after allocation, each order with memory that is laid out for it: by ggml's allocator
// for ggml-metal's orders, by ours for ours. Only for graphs whose nodes have no memory yet. Where
// tensors begin only at multiples of a large `alignment`, a power of two, there are gaps between
// them: the tracker takes ranges that only touch for overlapping.
METAL_API const char * metal_compare_allocated(struct ggml_cgraph * graph, size_t alignment,
                                               struct metal_figures * figures);
METAL_API const char * metal_time(struct ggml_cgraph * graph, int repeats,
                                  struct metal_seconds * seconds);

// Graphs for the comparison; the number of steps as in tests/c/random_graph.h, or the number of
// layers of a transformer. To be freed with metal_graph_free.
struct metal_graph;
METAL_API struct metal_graph * metal_random_graph(uint64_t seed, uint32_t n_steps);
METAL_API struct metal_graph * metal_layered_graph(uint32_t n_layers);
METAL_API struct ggml_cgraph * metal_graph_get(struct metal_graph * graph);
METAL_API void metal_graph_free(struct metal_graph * graph);

#ifdef __cplusplus
}
#endif
