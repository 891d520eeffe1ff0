// Operations of ggml's CPU backend whose result depends on the number of threads.
#pragma once

#include "ggml-impl.h"
#include "op_of.h"

// Whether the bits of `node` may differ between two thread counts: it sums in a different order
// when the work is split differently. All others give the same bits with any number of threads.
bool depends_on_threads(const struct ggml_tensor * node);
