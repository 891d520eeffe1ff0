// What ggml-metal computes in one kernel, exactly: the rules of its ggml-metal-fusion.cpp (ggml
// 0.25.3). fusions.def tells a superset of them, which needs no shapes; this is for predictions.
#pragma once

#include "ggml-impl.h"

// Whether ggml-metal's encoder sees the node: it passes over those without work and without
// elements. It does see those that are not to be computed, and nothing is fused across them.
bool metal_encodes(const struct ggml_tensor * node);

// How many of the nodes indices[at ..] (indices of graph->nodes, only of what metal_encodes) become
// one kernel; at least 1. Where the tensors have memory, ggml-metal also looks at where they lie.
int metal_fused(const struct ggml_cgraph * graph, const int * indices, int n, int at);

// The index after the last node that must stay together with that at `index` for ggml-metal to fuse
// what it fuses there, views inside and at the end included; at least index + 1.
int metal_fused_end(const struct ggml_cgraph * graph, int index);
