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

// From nothing to everything.
enum snapshot_change {
    SNAPSHOT_SAME = 0,
    SNAPSHOT_PARAMETERS,  // other operation parameters
    SNAPSHOT_ADDRESSES,   // other memory
    SNAPSHOT_SHAPES,      // other types, sizes, strides
    SNAPSHOT_SOURCES,     // other sources, operations, flags
    SNAPSHOT_NODES,       // another list of nodes
};

// The furthest that any tensor has changed; contents do not count. Equal uids that are not 0 are
// ggml's promise of equal graphs.
enum snapshot_change snapshot_compare(const struct snapshot * snapshot,
                                      const struct ggml_cgraph * graph);

// Whether `graph` is what it was as far as plans depend on it: operation parameters do not count.
bool snapshot_matches(const struct snapshot * snapshot, const struct ggml_cgraph * graph);
