// What a graph looked like, to tell whether it is still the same.
#pragma once

#include "ggml-impl.h"

struct tensor_state;

struct snapshot {
    uint64_t uid;
    uint32_t n_nodes, n_tensors;
    struct tensor_state * tensors;  // the nodes in order, then whatever else they refer to
};

// False when out of memory. Zeroed memory is a valid empty snapshot.
bool snapshot_take(struct snapshot * snapshot, const struct ggml_cgraph * graph);
void snapshot_free(struct snapshot * snapshot);

// Whether `graph` is what it was: the same tensors in the same order with the same operations,
// types, sizes, flags, sources and memory. Contents and operation parameters do not count, since no
// plan depends on them.
bool snapshot_matches(const struct snapshot * snapshot, const struct ggml_cgraph * graph);
