// Which adjacent nodes a backend may compute in one kernel.
#pragma once

#include "access_rules.h"

// Whether the node at `index` + 1 must stay with the node at `index`: a superset of what the
// backend fuses, told by operations and edges alone.
bool fuses_with_next(const struct ggml_cgraph * graph, int index, enum ggc_fuse fuse);

// Whether the backend, seeing `first` directly followed by `second`, might fuse them. Where the
// two were not neighbours in the graph, something must be put between them.
bool might_fuse(const struct ggml_tensor * first, const struct ggml_tensor * second,
                enum ggc_fuse fuse);
