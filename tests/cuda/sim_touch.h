// Which bytes an operation of ggml reads and writes.
#pragma once

#include "fake_driver.h"

struct ggml_tensor;

bool sim_is_empty(const struct ggml_tensor * node);  // computes nothing
// Which source of the operation has indices, and what all of them are below; -1: none.
int sim_index_source(const struct ggml_tensor * node, int64_t * below);
// On a GPU those that are not are an illegal access; where kernels race they are what was in memory
// before.
bool sim_indices_fit(const struct ggml_tensor * ids, int64_t below);

// All of a tensor, read.
void sim_touch_view(const struct ggml_tensor * t, fake_visit visit, void * visitor);
// Of a node that computes something. Reads the indices of SET_ROWS.
void sim_touch(const struct ggml_tensor * node, fake_visit visit, void * visitor);
