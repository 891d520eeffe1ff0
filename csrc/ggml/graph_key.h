// A name for what a graph computes, equal in every process: for what is remembered on disk.
#pragma once

#include "ggml-impl.h"

struct graph_key {
    uint64_t a, b;
};

// Of the nodes in their order: operations, parameters, types, shapes, strides and who reads whom;
// not of
// addresses, names or contents. `extra` is part of it. False when out of memory.
bool graph_key_of(struct graph_key * key, const struct ggml_cgraph * graph, const char * extra);

// Of graphs that are alike but for the sizes of caches: the operations in their order, and the
// sizes of products with given matrices, which tell the batch.
struct graph_key graph_family_key(const struct ggml_cgraph * graph, const char * extra);

// Of a few nodes, for what computing them costs: operations, types, shapes and strides, of their
// sources too.
struct graph_key cost_key_of(const struct ggml_cgraph * graph, const uint32_t * nodes, uint32_t n);
