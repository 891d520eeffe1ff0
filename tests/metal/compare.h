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

// Numbers of barriers. `minimum`: one less than the longest chain of units that conflict, found by
// comparing every pair of units.
struct metal_barriers {
    int32_t nodes;    // that compute something
    int32_t units;    // ours
    int32_t plain;    // ggml-metal, the nodes in the order of the graph
    int32_t reorder;  // ggml-metal, after its own reorder
    int32_t refused;  // the same, and what the reorder has made neighbours is fused anew
    int32_t ours;     // between the phases of our plan
    int32_t minimum;
    int32_t needed, theirs_exact;
    int32_t tracked;  // ggml-metal's tracker on our order, instead of our barriers
};

// Sums of seconds: ggml-metal's reorder and our plan, `repeats` times in turns.
struct metal_seconds {
    double reorder, plan;
};

// Both return NULL, or what is wrong: an error of the library, a plan that is refuted, a fusion of
// ggml-metal that lies across two units. The graph is as it was afterwards.
METAL_API const char * metal_compare(struct ggml_cgraph * graph, struct metal_barriers * barriers);
// The same after allocation, each order with memory that is laid out for it: ggml's allocator for
// ggml-metal's orders, ours for ours. Only for graphs whose nodes have no memory yet.
METAL_API const char * metal_compare_allocated(struct ggml_cgraph * graph,
                                               struct metal_barriers * barriers);
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
