// A plan of a graph, as the rest of the adapter and the dispatchers see it.
#pragma once

#include "snapshot.h"
#include "units.h"

struct ggc_graph_plan {
    struct graph_units units;
    struct ggc_plan * core;
    uint32_t * node_phase;     // of each node, the phase that it stands in
    uint32_t * node_order;     // nodes by phase, within a phase as in the graph
    uint32_t n_phases;         // at least 1 where there are nodes
    double wait_cost;          // that it was made with
    struct snapshot snapshot;  // of the graph; only its uid where nobody asked to watch it
    double adapter_seconds, core_seconds;
};
