#include <stdlib.h>

#include "cuda_instance.h"
#include "dispatch.h"
#include "ggml/backends.h"

struct serial {
    struct ggml_cgraph graph;  // the same nodes
    bool has_uid;
    ggml_backend_t backend;
    uint32_t n_threads;
};

// ggml-cuda takes a graph with the uid of the last one for the same, without looking; one without
// it compares node by node, each time. We are told of changes. Numbers as far as this are nobody's.
#define FIRST_UID (UINT64_C(1) << 62)

static void name_graph(struct serial * serial) {
    serial->graph.uid = serial->has_uid ? FIRST_UID + cuda_next_mark() : serial->graph.uid;
}

static enum ggc_status serial_open(const struct dispatch_args * args, void ** state,
                                   const struct message * message) {
    struct serial * serial = malloc(sizeof(*serial));
    if (serial == NULL) {
        return GGC_E_NOMEM;
    }
    serial->graph = *args->graph;
    serial->has_uid = args->params->device == GGC_DEVICE_CUDA;
    serial->n_threads = args->params->n_threads;
    name_graph(serial);
    serial->backend = new_backend(args->device, message);
    if (serial->backend == NULL) {
        free(serial);
        return GGC_E_DEVICE;
    }
    if (ggml_backend_dev_type(args->device) == GGML_BACKEND_DEVICE_TYPE_CPU) {
        set_n_threads(serial->backend, serial->n_threads);
    } else {
        serial->n_threads = 0;
    }
    *state = serial;
    return GGC_OK;
}

static enum ggc_status serial_compute(void * state, const struct message * message) {
    struct serial * serial = state;
    return compute_guarded(serial->backend, &serial->graph, serial->n_threads, message);
}

static uint32_t serial_unit_threads(const void * state, uint32_t unit) {
    (void) unit;
    return ((const struct serial *) state)->n_threads;
}

// A runner that traces plays a plan of one stream instead.
static const double * serial_unit_times(const void * state) {
    (void) state;
    return NULL;
}

static void serial_close(void * state) {
    struct serial * serial = state;
    cuda_instance_free(serial->backend);
    free(serial);
}

// A device works by itself; the CPU is what computes here.
static ggml_backend_t serial_transfers(void * state) {
    const struct serial * serial = state;
    return serial->n_threads == 0 ? serial->backend : NULL;
}

static enum ggc_status serial_compute_async(void * state, const struct message * message) {
    struct serial * serial = state;
    const enum ggml_status status =
        ggml_backend_graph_compute_async(serial->backend, &serial->graph);
    if (status != GGML_STATUS_SUCCESS) {
        message_set(message, "ggml: %s", ggml_status_to_string(status));
        return GGC_E_DEVICE;
    }
    return GGC_OK;
}

static enum ggc_status serial_synchronize(void * state, const struct message * message) {
    (void) message;
    ggml_backend_synchronize(((const struct serial *) state)->backend);
    return GGC_OK;
}

static void serial_changed(void * state, enum snapshot_change change) {
    (void) change;
    name_graph(state);
}

static const struct dispatch_async async = {
    serial_transfers,
    serial_compute_async,
    serial_synchronize,
    serial_changed,
};

const struct dispatch_i dispatch_serial = {
    "serial",          serial_open,  serial_compute, serial_unit_threads,
    serial_unit_times, serial_close, &async,
};
