#include "ggml/access_rules.h"
#include "runner_state.h"

// ggml 0.25.3 gives SET_ROWS no scratch memory for the rows that it converts, when these are f16.
static bool overflows(const struct ggml_tensor * node) {
    return node->op == GGML_OP_SET_ROWS && node->src[0]->type == GGML_TYPE_F16 &&
           node->type != GGML_TYPE_F16;
}

// Memory of the device's own, or for the CPU whatever it can read.
static bool can_use(ggml_backend_dev_t device, const struct ggml_tensor * tensor) {
    const struct ggml_backend_buffer * buffer = root_of(tensor)->buffer;
    if (buffer == NULL) {
        return is_cpu(device);
    }
    return ggml_backend_dev_supports_buft(device, buffer->buft);
}

enum ggc_status check_nodes(const struct ggml_cgraph * graph, ggml_backend_dev_t device,
                            bool placed, const struct message * message) {
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor * node = graph->nodes[i];
        if (!node_computes(node)) {
            continue;
        }
        for (int s = -1; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * tensor = s < 0 ? node : node->src[s];
            if (tensor == NULL || (!placed && root_of(tensor)->data == NULL)) {
                continue;
            }
            if (root_of(tensor)->data == NULL) {
                message_set(message, "node %d (%s) uses tensor '%s', which has no memory", i,
                            ggml_op_desc(node), tensor->name);
                return GGC_E_INVALID;
            }
            if (!can_use(device, tensor)) {
                message_set(message,
                            "node %d (%s) uses tensor '%s', whose memory %s cannot use: make it in "
                            "a store of that device",
                            i, ggml_op_desc(node), tensor->name, ggml_backend_dev_name(device));
                return GGC_E_INVALID;
            }
        }
        if (is_cpu(device) && overflows(node)) {
            message_set(message,
                        "node %d, '%s': this ggml overruns its memory when it sets rows of "
                        "f16 in a tensor of %s; cast the rows to f32 first",
                        i, node->name, ggml_type_name(node->type));
            return GGC_E_UNSUPPORTED;
        }
        if (!ggml_backend_dev_supports_op(device, node)) {
            message_set(message, "the %s backend cannot compute node %d, '%s' (%s of %s)",
                        ggml_backend_dev_name(device), i, node->name, ggml_op_desc(node),
                        ggml_type_name(node->type));
            return GGC_E_UNSUPPORTED;
        }
    }
    return GGC_OK;
}
