// Gives memory to the tensors of a graph that have none, as a plan of it needs.
#pragma once

#include "ggml-alloc.h"
#include "ggml-backend-impl.h"
#include "graph_plan.h"
#include "message.h"
#include "pool.h"

struct layout_params {
    ggml_backend_buffer_type_t buft;
    size_t budget;           // bytes; see ggc_runner_params
    bool gaps;               // for Metal: see layout_init
    struct ggc_pool * pool;  // where buffers come from, or NULL
    bool leafs_have_memory;  // those that are no inputs are taken to have memory elsewhere
    bool may_plan_anew;      // the units' streams and order, where the budget asks for it
};

struct layout {
    struct ggml_tensor ** tensors;  // that got memory here, views included
    size_t n_tensors;
    ggml_backend_buffer_t * buffers;
    size_t n_buffers;
    struct ggc_pool * pool;
    uint32_t *use_begin, *uses;  // of each tensor that is no view, the units that access it
    // Where memory is shared: the streams of the plan, or of the new one, and an order of the units
    // in which the layout asks for nothing new, for a plan on the addresses to keep. Else order is
    // NULL.
    uint32_t *order, *stream;
    uint32_t n_units, n_streams;
    struct ggc_memory figures;
};

// Lays out the tensors for `plan` (core/memory.h says how) within params->budget, and gives them
// the memory. The order of the graph's nodes stays valid for it, too. Inputs, and tensors that no
// unit writes first, keep their memory for themselves; results, and what is used by nobody, keep it
// to the end. A plan that is then found on the addresses is right; the plan given may not be, where
// figures.sharing is GGC_SHARING_BY_TIME or _SERIAL.
//
// With params->gaps no two tensors touch that hold values at the same time; and where they do not
// fit into the budget, ggml's allocator shares memory out in the order of the plan's phases: what a
// phase uses is free again when it is over. Memory is then for the order of the phases alone, not
// for that of the graph: whoever computes the nodes must bring them in it. Without a plan (NULL)
// that is the order in which they stand.
//
// GGC_E_NOMEM with a message. Zeroed memory is a valid empty layout.
enum ggc_status layout_init(struct layout * layout, struct ggml_cgraph * graph,
                            const struct ggc_graph_plan * plan, const struct layout_params * params,
                            const struct message * message);

// The same without memory: layout->figures, and tensors at addresses that nobody may touch, until
// layout_free.
enum ggc_status layout_sketch(struct layout * layout, struct ggml_cgraph * graph,
                              const struct ggc_graph_plan * plan,
                              const struct layout_params * params, const struct message * message);

// Whether memory is for the order of the plan's phases alone.
bool layout_is_for_phases(const struct layout * layout);

// Frees the memory, or gives it back to the pool; the tensors have none afterwards.
void layout_free(struct layout * layout);
