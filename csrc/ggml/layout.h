// Gives memory to the tensors of a graph that have none, as a plan of it needs.
#pragma once

#include "ggml-alloc.h"
#include "ggml-backend-impl.h"
#include "graph_plan.h"
#include "message.h"

struct layout_params {
    ggml_backend_buffer_type_t buft;
    size_t budget;
    bool gaps;        // between any two tensors that hold values at the same time
    bool keep_nodes;  // the nodes of the graph stay where they are, whatever the memory is for
};

struct layout {
    struct ggml_tensor ** tensors;  // that got memory here, views included
    size_t n_tensors;
    ggml_backend_buffer_t * buffers;  // without reuse
    size_t n_buffers;
    ggml_gallocr_t galloc;  // with reuse
    struct ggml_context * deps;
    struct ggml_cgraph * graph;
    struct ggml_tensor ** nodes;  // the graph's, in the order they had; NULL: not sorted
    size_t size;                  // bytes
    bool shares;
};

// Up to params->budget bytes every tensor gets memory of its own; beyond, ggml's allocator shares
// it out in the order of the plan's phases, and what a phase uses is free again only when the phase
// is over. Memory that is shared in one order cannot be used in another, so the nodes of the graph
// are then sorted by phase: that is its serial order until layout_free. With params->keep_nodes
// they are not, and whoever computes them must bring them in order. Without a plan, memory is for
// the nodes as they stand. Inputs keep their memory for themselves. Zeroed memory is a valid empty
// layout.
enum ggc_status layout_init(struct layout * layout, struct ggml_cgraph * graph,
                            const struct ggc_graph_plan * plan, const struct layout_params * params,
                            const struct message * message);

// Whether tensors share memory, which is then for the order of the plan alone.
bool layout_shares(const struct layout * layout);

// Frees the memory; the tensors have none afterwards and the nodes stand as they did.
void layout_free(struct layout * layout);
