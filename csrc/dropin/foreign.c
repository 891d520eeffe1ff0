// The functions of ggml that the core's rooms call, as those of the host at hand: which one that
// is, a thread says by entering it. Nothing of our own ggml is linked here.
#include "ggml/metal_fuse.h"
#include "ggml/op_of.h"
#include "host.h"

static _Thread_local struct host * current;

struct host * host_enter(struct host * host) {
    struct host * before = current;
    current = host;
    return before;
}

void host_leave(struct host * before) {
    current = before;
}

#define F(result, name, parameters, arguments)    \
    result name parameters {                      \
        return current->functions.name arguments; \
    }
#define V(name, parameters, arguments)     \
    void name parameters {                 \
        current->functions.name arguments; \
    }
#include "host_functions.def"
#undef F
#undef V

enum ggml_op op_of(const struct ggml_tensor * node) {
    const unsigned op = (unsigned) node->op;
    return op < current->n_ops ? current->ops[op] : GGML_OP_COUNT;
}

//
// What an instance does is done by itself, on any thread: streams' workers have entered no host.
//

void ggml_backend_free(ggml_backend_t backend) {
    backend->iface.free(backend);
}

void ggml_backend_synchronize(ggml_backend_t backend) {
    if (backend->iface.synchronize != NULL) {
        backend->iface.synchronize(backend);
    }
}

enum ggml_status ggml_backend_graph_compute_async(ggml_backend_t backend,
                                                  struct ggml_cgraph * graph) {
    return backend->iface.graph_compute(backend, graph);
}

void ggml_backend_event_record(ggml_backend_event_t event, ggml_backend_t backend) {
    backend->iface.event_record(backend, event);
}

void ggml_backend_event_wait(ggml_backend_t backend, ggml_backend_event_t event) {
    backend->iface.event_wait(backend, event);
}

// Metal's encoder is followed by runners alone: no plan here is `tracked`.
int metal_fused_end(const struct ggml_cgraph * graph, int begin) {
    (void) graph;
    return begin + 1;
}
