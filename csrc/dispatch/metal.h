// Drives ggml's Metal backend, unpatched, in barrier form.
//
// What is assumed of it (ggml 0.25.3), and checked only against its source and a simulation:
// - ggml_backend_graph_compute encodes nodes in the order given. Only a scheduler has it sort them.
// - Nodes of an encoder between two barriers may run in any order; a barrier orders all before it
//   with all after it; command buffers of its one queue run in turn.
// - It sets the barriers that metal_trace.h predicts.
// - graph_compute of no nodes reports a command buffer that has failed.
#pragma once

#include "dispatch.h"

// Of what the dispatcher computes.
struct ggc_metal_figures metal_figures(const void * state);
