#include "stopwatch.h"

#include <time.h>

double stopwatch_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e6 * (double) time.tv_sec + 1e-3 * (double) time.tv_nsec;
}

static CUresult open_events(struct stopwatch * watch, ggml_backend_t backend) {
    const struct cuda_driver * driver = watch->driver;
    struct ggml_backend_dev_props props;
    CUcontext popped;
    ggml_backend_dev_get_props(backend->device, &props);
    CUresult error = driver->device_by_pci(&watch->device, props.device_id);
    error = error != 0 ? error : driver->primary_retain(&watch->context, watch->device);
    if (error != 0) {
        watch->context = NULL;
        return error;
    }
    error = driver->push(watch->context);
    if (error != 0) {
        return error;
    }
    CUevent begin = NULL, end = NULL;
    error = driver->event_create(&begin, 0);
    error = error != 0 ? error : driver->event_create(&end, 0);
    watch->begin = (struct ggml_backend_event) {backend->device, begin};
    watch->end = (struct ggml_backend_event) {backend->device, end};
    driver->pop(&popped);
    return error;
}

bool stopwatch_open(struct stopwatch * watch, ggml_backend_t backend, bool is_cuda,
                    const struct message * message) {
    *watch = (struct stopwatch) {.is_cuda = is_cuda};
    if (!is_cuda) {
        return true;
    }
    watch->driver = cuda_driver_get(message);
    if (watch->driver == NULL) {
        return false;
    }
    if (watch->driver->event_create == NULL || watch->driver->event_destroy == NULL ||
        watch->driver->event_elapsed == NULL) {
        message_set(message, "the CUDA driver cannot time graphs");
        return false;
    }
    const CUresult error = open_events(watch, backend);
    if (error != 0) {
        message_set(message, "timing graphs failed: %s", cuda_error(watch->driver, error));
        stopwatch_close(watch);
    }
    return error == 0;
}

void stopwatch_close(struct stopwatch * watch) {
    CUcontext popped;
    if (watch->context != NULL) {
        if (watch->driver->push(watch->context) == 0) {
            if (watch->begin.context != NULL) {
                watch->driver->event_destroy(watch->begin.context);
            }
            if (watch->end.context != NULL) {
                watch->driver->event_destroy(watch->end.context);
            }
            watch->driver->pop(&popped);
        }
        watch->driver->primary_release(watch->device);
    }
    *watch = (struct stopwatch) {0};
}

void stopwatch_start(struct stopwatch * watch, ggml_backend_t backend) {
    watch->is_running = true;
    if (watch->is_cuda) {
        backend->iface.event_record(backend, &watch->begin);
    } else {
        watch->start = stopwatch_now();
    }
}

void stopwatch_stop(struct stopwatch * watch, ggml_backend_t backend) {
    if (watch->is_cuda) {
        backend->iface.event_record(backend, &watch->end);
    } else {
        watch->start = stopwatch_now() - watch->start;
    }
}

double stopwatch_read(struct stopwatch * watch) {
    float milliseconds = 0;
    CUcontext popped;
    if (!watch->is_running) {
        return -1;
    }
    watch->is_running = false;
    if (!watch->is_cuda) {
        return watch->start;
    }
    if (watch->driver->push(watch->context) != 0) {
        return -1;
    }
    const CUresult error =
        watch->driver->event_elapsed(&milliseconds, watch->begin.context, watch->end.context);
    watch->driver->pop(&popped);
    return error == 0 ? 1e3 * (double) milliseconds : -1;
}
