#include "costs.h"

#include <math.h>

struct rates {
    double start, bytes, flops;  // microseconds; per microsecond
};

static const struct rates rates[] = {
    [COST_CPU] = {0.5, 25e3, 14e3},
    [COST_GPU] = {2.0, 2.5e6, 200e6},
};

static double bytes_moved(const struct ggml_tensor * node) {
    if (op_of(node) == GGML_OP_GET_ROWS) {
        return 2.0 * (double) ggml_nbytes(node);  // of the table only what is asked for
    }
    if (op_of(node) == GGML_OP_SET_ROWS) {
        return 2.0 * (double) ggml_nbytes(node->src[0]);
    }
    double bytes = (double) ggml_nbytes(node);
    if (op_of(node) == GGML_OP_MUL_MAT_ID && node->src[2] != NULL) {
        const double n_experts = (double) node->src[0]->ne[2];
        const double n_chosen = fmin(n_experts, (double) ggml_nelements(node->src[2]));
        return bytes + n_chosen * (double) node->src[0]->nb[2] + (double) ggml_nbytes(node->src[1]);
    }
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        bytes += node->src[s] != NULL ? (double) ggml_nbytes(node->src[s]) : 0;
    }
    return bytes;
}

double estimated_cost(const struct ggml_tensor * node, enum cost_model model) {
    double flops = 0;
    if (op_of(node) == GGML_OP_MUL_MAT || op_of(node) == GGML_OP_MUL_MAT_ID) {
        flops = 2.0 * (double) ggml_nelements(node) * (double) node->src[0]->ne[0];
    }
    const struct rates * r = &rates[model];
    return r->start + fmax(bytes_moved(node) / r->bytes, flops / r->flops);
}
