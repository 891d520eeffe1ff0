// An order of nodes of which ggml-metal makes few barriers and command buffers.
#pragma once

#include "ggml/graph_plan.h"

struct metal_order {
    struct ggml_tensor ** nodes;
    int n_nodes;
    struct ggml_context * extra;  // of the nodes in between
};

// The units of a plan by phase. Views that nothing fuses are left out, for nobody computes them;
// what might newly be fused is kept apart, for it would be another result; and nodes without work
// come first, as many as it takes for the second command buffer to begin with a phase.
// `seed`, where it is not 0, shuffles the units of each phase. GGC_E_NOMEM. Zeroed memory is a
// valid order.
enum ggc_status metal_order_init(struct metal_order * order, const struct ggml_cgraph * graph,
                                 const struct ggc_graph_plan * plan, uint32_t seed);
void metal_order_free(struct metal_order * order);
