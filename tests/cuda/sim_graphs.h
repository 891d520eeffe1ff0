// The graphs that an instance keeps of its own, as ggml-cuda does: by the address of the first
// node.
//
//     call                   looks as the last one did   otherwise
//     first, or not warm     warm: capture and launch    issue node by node
//     warm                   launch                      not warm: issue node by node
//
// Equal uids that are not 0 mean equal graphs, and then nothing else is looked at.
#pragma once

#include "sim_kernel.h"

struct ggml_cgraph;
struct sim_graphs;  // of one instance; NULL: none yet

enum sim_way { SIM_ISSUE, SIM_CAPTURE, SIM_LAUNCH };

// How this call is to be done; *exec is where the executable graph is kept, NULL before its
// capture.
enum sim_way sim_graphs_next(struct sim_graphs ** graphs, const struct ggml_cgraph * graph,
                             CUgraphExec ** exec);
void sim_graphs_free(struct sim_graphs * graphs);
