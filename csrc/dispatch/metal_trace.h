// What ggml-metal (0.25.3) makes of nodes in an order.
//
// Its encoder goes from node to node. Some it fuses into one kernel; before a kernel that touches
// what others have touched since the last barrier, whole tensors compared, it sets a barrier; and
// it starts a second command buffer at a fixed node:
//
//     | kernels of phase 0 | phase 1 | phase 2 || phase 3 | phase 4 ...      | barrier
//      <------- the first 64 nodes, or 10 % ------>                          || command buffers
//
// Kernels between two of these form a group: the GPU may run them in any order.
#pragma once

#include "ggml/access_rules.h"

struct metal_kernel {
    uint32_t begin, end;   // of trace.nodes
    uint32_t first, last;  // groups of its first and its last part: operations with inner barriers
};

struct metal_trace {
    struct ggc_metal_figures figures;
    uint32_t n_kernels;
    struct metal_kernel * kernels;  // as they are issued
    int * nodes;                    // of all kernels, indices of graph->nodes
};

// Goes through an allocated graph as ggml-metal does. GGC_E_NOMEM. Zeroed memory is a valid trace.
enum ggc_status metal_trace_init(struct metal_trace * trace, const struct ggml_cgraph * graph);
void metal_trace_free(struct metal_trace * trace);

// Whether no two kernels of a group conflict: proven by ggc_verify_phases over the bytes that the
// operations touch, whatever the encoder compared. GGC_E_RACE: *race is between nodes of graph.
// That the order itself is right is another matter: whoever sorted the nodes has to prove it.
enum ggc_status metal_trace_verify(const struct metal_trace * trace,
                                   const struct ggml_cgraph * graph, struct ggc_conflict * race);

// How many nodes of a graph of n go into the first command buffer.
int metal_first_nodes(int n);
