// Which adjacent nodes a backend may compute in one kernel: fusions.def says it, this finds it.
#pragma once

#include "access_rules.h"

// By operation: whether any fusion of the backend begins with a node of it, or right before one.
struct fuse_starts {
    enum ggc_fuse fuse;
    bool with[GGML_OP_COUNT + 1], before[GGML_OP_COUNT + 1];  // COUNT: one that we do not know
};
struct fuse_starts find_fuse_starts(enum ggc_fuse fuse);

// How many adjacent nodes, from `index` on, must stay together: 1, or a run of which some part may
// be fused and that no possible fusion crosses the end of. Nodes without work stand inside of a run
// where they stand between its others, and at its ends where the backend wants them there. To be
// asked at the ends of runs: 0, 0 + run, ... `apart`: see ggc_graph_params; NULL: no node is.
int fused_run(const struct ggml_cgraph * graph, int index, const struct fuse_starts * starts,
              const bool * apart);

// Of each node: whether a run begins with it, of those that the backend would not refuse where the
// tensors lie now. ggml-cuda does not fuse some operations where the result overlaps a source from
// outside of them. All that computes must have memory.
void find_apart(const struct ggml_cgraph * graph, enum ggc_fuse fuse, bool * apart);

// Whether the backend, seeing a unit that ends with `last` directly before one that begins with
// `first`, might fuse across. Where they were not neighbours in the graph, a separator must stand
// between them.
bool might_fuse(const struct ggml_tensor * last, const struct ggml_tensor * first,
                enum ggc_fuse fuse);

// A node that no backend computes and none fuses across: a real operation that is not marked to be
// computed. A GGML_OP_NONE node would do for ggml's CPU backend; ggml-cuda (delta nets) and
// ggml-metal (everything) look through those. There must be room for it.
struct ggml_tensor * new_separator(struct ggml_context * ctx);
