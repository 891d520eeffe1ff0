// Memory of our own for the tensors of a runner's graph that nobody but the graph looks at, in
// place of what the runner's allocator gave them: that one reuses memory in serial order, which
// undoes most concurrency. The tensors point there only while we issue or compute, so that the
// runner never sees it.
#pragma once

#include "ggml-backend-impl.h"
#include "ggml/graph_plan.h"
#include "ggml/message.h"
#include "scratch.h"

struct own_memory {
    struct ggml_tensor ** tensors;  // those with memory of their own, then the views of them
    void ** theirs;                 // addresses that the runner gave them
    void ** ours;
    uint32_t n_tensors, n_roots;
    ggml_backend_buffer_type_t buft;
    struct scratches * scratches;
    struct scratch * scratch;
    size_t size;  // bytes of it that are used
};

// Finds the tensors: computed by the graph; read in it at least once, and by nobody outside, views
// included, as `use_counts` tells; no input, output or parameter; in a buffer for intermediate
// results of `device`. GGC_E_NOMEM. Zeroed memory is a valid empty one.
enum ggc_status own_memory_find(struct own_memory * own, const struct ggml_cgraph * graph,
                                ggml_backend_dev_t device);
// Lays them out for a plan of the graph that was found while the tensors had no memory, in one of
// `scratches`, which may come to `budget` bytes together. The plan may not be right then, where
// memory is shared: another is due. GGC_E_CAPACITY: it does not fit. GGC_E_NOMEM.
enum ggc_status own_memory_lay_out(struct own_memory * own, const struct ggml_cgraph * graph,
                                   const struct ggc_graph_plan * plan, struct scratches * scratches,
                                   size_t budget);
void own_memory_free(struct own_memory * own);

// Tensors without memory (those that are no views), with ours, with theirs again.
void own_memory_hide(const struct own_memory * own);
void own_memory_enter(const struct own_memory * own);
void own_memory_leave(const struct own_memory * own);
