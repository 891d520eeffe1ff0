// Graphs and executable graphs. Called with the driver's lock held; results are CUDA's error codes.
#pragma once

#include "nodes.h"

CUgraph graph_new(const struct nodes * nodes, int device, bool of_runtime);  // copies the nodes
CUresult graph_free(CUgraph graph);
CUresult graph_nodes(CUgraph graph, CUgraphNode * nodes, size_t * n);
CUresult graph_node_type(CUgraphNode node, int * type);
CUresult graph_set_attribute(CUgraphNode node, int attribute, const void * value);  // not kept
CUresult graph_edges(CUgraph graph, CUgraphNode * from, CUgraphNode * to, CUgraphEdgeData * data,
                     size_t * n);
// Adds or removes edges, which must be missing or there, as `data` (NULL: full ones) has them.
CUresult graph_change_edges(CUgraph graph, const CUgraphNode * from, const CUgraphNode * to,
                            const CUgraphEdgeData * data, size_t n, bool add);

CUresult exec_new(CUgraphExec * exec, CUgraph graph, bool of_runtime);
CUresult exec_update(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo * info);
CUresult exec_launch(CUgraphExec exec, CUstream stream);
CUresult exec_free(CUgraphExec exec);
