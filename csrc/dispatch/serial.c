#include <stdlib.h>

#include "dispatch.h"
#include "ggml/backends.h"

struct serial {
    struct ggml_cgraph * graph;
    ggml_backend_t backend;
    uint32_t n_threads;
};

static enum ggc_status serial_open(const struct dispatch_args * args, void ** state,
                                   const struct message * message) {
    struct serial * serial = malloc(sizeof(*serial));
    if (serial == NULL) {
        return GGC_E_NOMEM;
    }
    serial->graph = args->graph;
    serial->n_threads = args->params->n_threads;
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
    return compute_guarded(serial->backend, serial->graph, serial->n_threads, message);
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
    ggml_backend_free(serial->backend);
    free(serial);
}

const struct dispatch_i dispatch_serial = {
    "serial", serial_open, serial_compute, serial_unit_threads, serial_unit_times, serial_close,
};
