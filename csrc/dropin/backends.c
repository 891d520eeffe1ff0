// ggml/backends.h for a runner's ggml. Nothing catches its assertions: that is the runner's affair.
#include "ggml/backends.h"

#include "ggml-backend-impl.h"

ggml_backend_t new_backend(ggml_backend_dev_t device, const struct message * message) {
    ggml_backend_t backend = ggml_backend_dev_init(device, NULL);
    if (backend == NULL) {
        message_set(message, "ggml could not start another instance of %s",
                    ggml_backend_dev_name(device));
    }
    return backend;
}

// On any thread: without the host's functions.
void set_n_threads(ggml_backend_t backend, uint32_t n_threads) {
    ggml_backend_reg_t reg = backend->device->reg;
    ggml_backend_set_n_threads_t set = NULL;
    if (reg->iface.get_proc_address != NULL) {
        *(void **) &set = reg->iface.get_proc_address(reg, "ggml_backend_set_n_threads");
    }
    if (set != NULL) {
        set(backend, (int) n_threads);
    }
}

enum ggc_status compute_guarded(ggml_backend_t backend, struct ggml_cgraph * graph,
                                uint32_t n_threads, const struct message * message) {
    (void) n_threads;
    switch (backend->iface.graph_compute(backend, graph)) {
        case GGML_STATUS_SUCCESS: return GGC_OK;
        case GGML_STATUS_ABORTED: return GGC_E_ABORTED;
        case GGML_STATUS_ALLOC_FAILED: return GGC_E_NOMEM;
        default: message_set(message, "ggml could not compute"); return GGC_E_DEVICE;
    }
}
