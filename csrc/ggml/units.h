// From a graph to what the core plans: units with their accesses and costs.
#pragma once

#include "access_rules.h"

struct graph_units {
    uint32_t n_nodes;
    uint32_t * unit_of_node;  // GGC_NONE: computes nothing
    uint32_t * node_begin;    // n_units + 1
    uint32_t * nodes;         // of each unit, ascending
    uint32_t * view_after;    // of a node that computes nothing: the node it comes right after, or
                              // GGC_NONE where it depends on no node of the graph
    uint32_t * access_begin;
    struct ggc_access * accesses;
    uint8_t * fence;
    double * cost;
    struct ggc_units core;  // the same, as the core wants it
};

// Zeroed memory is a valid empty object. GGC_E_NOMEM, GGC_E_INVALID (cost).
enum ggc_status graph_units_init(struct graph_units * units, const struct ggml_cgraph * graph,
                                 const struct ggc_graph_params * params);
void graph_units_free(struct graph_units * units);
