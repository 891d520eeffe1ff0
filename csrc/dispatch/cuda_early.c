#include "cuda_early.h"

#include <stdlib.h>

#include "cuda_driver.h"
#include "ggml/access_rules.h"
#include "ggml/op_of.h"

#define HOPPER 90

bool cuda_reads_early(const struct ggml_tensor * node) {
    return op_of(node) == GGML_OP_FLASH_ATTN_EXT;
}

static const struct ggml_tensor * node_of(const struct dispatch_args * args, uint32_t node) {
    return args->graph->nodes[node];
}

// The queries of the flash attention that a unit begins with; NULL: it is another unit.
static const struct ggml_tensor * queries_of(const struct dispatch_args * args, uint32_t unit) {
    uint32_t n;
    const uint32_t * nodes = ggc_graph_plan_nodes(args->plan, unit, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (cuda_reads_early(node_of(args, nodes[i]))) {
            return root_of(node_of(args, nodes[i])->src[0]);
        }
    }
    return NULL;
}

static bool writes(const struct dispatch_args * args, uint32_t unit,
                   const struct ggml_tensor * root) {
    uint32_t n;
    const uint32_t * nodes = ggc_graph_plan_nodes(args->plan, unit, &n);
    for (uint32_t i = 0; i < n; i++) {
        const struct ggml_tensor * node = node_of(args, nodes[i]);
        if (node_computes(node) && root_of(node) == root) {
            return true;
        }
    }
    return false;
}

// Whether what follows the unit begins only when everything before the unit is over. SET_ROWS
// alone: fused into ROPE it is another kernel. A product that something is fused into is one
// kernel, or several with that of the product first.
static bool has_waited(const struct dispatch_args * args, uint32_t unit) {
    uint32_t n, n_computing = 0;
    const uint32_t * nodes = ggc_graph_plan_nodes(args->plan, unit, &n);
    enum ggml_op first = GGML_OP_NONE;
    for (uint32_t i = 0; i < n; i++) {
        const struct ggml_tensor * node = node_of(args, nodes[i]);
        if (node_computes(node)) {
            first = n_computing == 0 ? op_of(node) : first;
            n_computing++;
        }
    }
    return first == GGML_OP_MUL_MAT || first == GGML_OP_MUL_MAT_ID ||
           (first == GGML_OP_SET_ROWS && n_computing == 1);
}

// ggml_cuda_kernel_launch; where the device cannot be asked, it may.
static bool may_use_pdl(ggml_backend_dev_t device) {
    const struct message nobody = {NULL, 0};
    const struct cuda_driver * driver = cuda_driver_get(&nobody);
    const char * setting = getenv("GGML_CUDA_PDL");
    struct ggml_backend_dev_props props;
    CUdevice number;
    int capability;
    if (setting != NULL && atoi(setting) == 0) {
        return false;
    }
    ggml_backend_dev_get_props(device, &props);
    return driver == NULL || props.device_id == NULL ||
           driver->device_by_pci(&number, props.device_id) != 0 ||
           cuda_capability(driver, number, &capability) != 0 || capability >= HOPPER;
}

bool * cuda_early_segments(const struct segments * segments, const struct dispatch_args * args) {
    bool * early = calloc((size_t) segments->n_segments + 1, sizeof(bool));
    if (early == NULL || !may_use_pdl(args->device)) {
        return early;
    }
    for (uint32_t i = 0; i < segments->n_segments; i++) {
        const struct segment * segment = segments->order[i];
        const struct ggml_tensor * queries = queries_of(args, segment->unit);
        early[i] =
            queries != NULL && (segment->before == GGC_NONE || !has_waited(args, segment->before) ||
                                writes(args, segment->before, queries));
    }
    return early;
}

// Whether between the unit that writes the queries and the one that reads them there is none that
// has waited. They may also be an input.
static bool is_early(const struct dispatch_args * args, uint32_t unit,
                     const struct ggml_tensor * queries) {
    while (unit-- > 0) {
        if (writes(args, unit, queries)) {
            return true;
        }
        if (has_waited(args, unit)) {
            return false;
        }
    }
    return false;
}

bool cuda_order_is_early(const struct dispatch_args * args) {
    const uint32_t n_units = ggc_plan_get_stats(ggc_graph_plan_core(args->plan)).n_units;
    for (uint32_t u = 0; u < n_units; u++) {  // in the order of the graph
        const struct ggml_tensor * queries = queries_of(args, u);
        if (queries != NULL && is_early(args, u, queries)) {
            return may_use_pdl(args->device);
        }
    }
    return false;
}
