// What a node costs, guessed from the bytes that it moves and the operations that it does: until
// something is measured.
#pragma once

#include "ggml-impl.h"
#include "op_of.h"

enum cost_model {
    COST_CPU = 0,  // one core of a server of 2023: 25 GB/s, 14 GFLOP/s, half a microsecond to start
    COST_GPU =
        1,  // a kernel of a large GPU of 2023: 2.5 TB/s, 200 TFLOP/s, 2 microseconds to start
};

// Microseconds.
double estimated_cost(const struct ggml_tensor * node, enum cost_model model);
