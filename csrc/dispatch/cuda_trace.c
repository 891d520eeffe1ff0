// Streams of a CUDA device that note when each unit starts and ends: events of the driver's around
// every unit. Launching a kernel takes the host longer than many a kernel runs, so the device must
// not start before the host is done, or it would be the host that is timed: a number of units is
// issued behind a gate, then the gate opens and they run one after another, as fast as they can.
//
// A unit's time has a part of the events' own in it.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda_driver.h"
#include "cuda_instance.h"
#include "ggml-backend-impl.h"
#include "ggml/backends.h"
#include "segments.h"

// As many segments behind a gate: what a stream can hold is limited, to about a thousand launches.
#define BATCH 128

// Should ggml wait for the device itself while it issues, the gate opens after this long.
#define GATE_MILLISECONDS 50

struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool open;
};

struct cuda_trace {
    struct segments segments;
    uint32_t n_streams;
    const struct cuda_driver * driver;
    CUdevice device;
    CUcontext context;
    CUstream stream;  // ours: the gate is on it
    ggml_backend_t * backends;
    struct ggml_backend_event fork;          // after the gate; ggml's struct, the driver's event
    struct ggml_backend_event *begin, *end;  // of each segment, by place in `order`
    struct gate gate;
    uint64_t mark;
    double * unit_times;
};

static bool can_time(const struct cuda_driver * driver, const struct message * message) {
    const bool can = driver->event_create != NULL && driver->event_destroy != NULL &&
                     driver->event_elapsed != NULL && driver->launch_host != NULL;
    if (!can) {
        message_set(message, "the CUDA driver cannot time units");
    }
    return can;
}

//
// The gate
//

static void wait_at_gate(void * data) {
    struct gate * gate = data;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += GATE_MILLISECONDS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&gate->mutex);
    while (!gate->open && pthread_cond_timedwait(&gate->changed, &gate->mutex, &until) == 0) {
    }
    pthread_mutex_unlock(&gate->mutex);
}

static void set_gate(struct gate * gate, bool open) {
    pthread_mutex_lock(&gate->mutex);
    gate->open = open;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

//
// Computing
//

// The events between units also keep kernels from beginning early (cuda_early.h): whisper-large-v3
// had the right bits on an H100.
static enum ggc_status issue_segment(struct cuda_trace * trace, uint32_t place,
                                     const struct message * message) {
    struct segment * segment = trace->segments.order[place];
    ggml_backend_t backend = trace->backends[segment->stream];
    for (uint32_t k = 0; k < segment->n_waits; k++) {
        const struct segment_wait * wait = &segment->waits[k];
        const struct segment * other =
            &trace->segments.streams[wait->stream].items[wait->count - 1];
        ggml_backend_event_wait(backend, &trace->end[other->place]);
    }
    ggml_backend_event_record(&trace->begin[place], backend);
    memcpy(segment->marker->op_params, &trace->mark, sizeof(trace->mark));
    const enum ggml_status status = ggml_backend_graph_compute_async(backend, &segment->graph);
    ggml_backend_event_record(&trace->end[place], backend);
    if (status != GGML_STATUS_SUCCESS) {
        message_set(message, "ggml: %s", ggml_status_to_string(status));
        return GGC_E_DEVICE;
    }
    return GGC_OK;
}

static CUresult close_gate(struct cuda_trace * trace) {
    set_gate(&trace->gate, false);
    CUresult error = trace->driver->launch_host(trace->stream, wait_at_gate, &trace->gate);
    if (error == 0) {
        error = trace->driver->event_record(trace->fork.context, trace->stream);
    }
    for (uint32_t s = 0; error == 0 && s < trace->n_streams; s++) {
        ggml_backend_event_wait(trace->backends[s], &trace->fork);
    }
    return error;
}

static void wait_for_all(const struct cuda_trace * trace) {
    for (uint32_t s = 0; s < trace->n_streams; s++) {
        ggml_backend_synchronize(trace->backends[s]);
    }
    trace->driver->stream_synchronize(trace->stream);
}

static double after_gate(const struct cuda_trace * trace, const struct ggml_backend_event * event) {
    float milliseconds = 0;
    trace->driver->event_elapsed(&milliseconds, trace->fork.context, event->context);
    return 1e3 * (double) milliseconds;
}

static enum ggc_status compute_batch(struct cuda_trace * trace, uint32_t first, uint32_t end,
                                     double * clock, const struct message * message) {
    enum ggc_status status = GGC_OK;
    const CUresult error = close_gate(trace);
    for (uint32_t i = first; error == 0 && status == GGC_OK && i < end; i++) {
        status = issue_segment(trace, i, message);
    }
    set_gate(&trace->gate, true);
    wait_for_all(trace);
    if (error != 0) {
        message_set(message, "timing units failed: %s", cuda_error(trace->driver, error));
        return GGC_E_DEVICE;
    }
    double latest = *clock;
    for (uint32_t i = first; status == GGC_OK && i < end; i++) {
        double * times = trace->unit_times + 2 * (size_t) trace->segments.order[i]->unit;
        times[0] = *clock + after_gate(trace, &trace->begin[i]);
        times[1] = *clock + after_gate(trace, &trace->end[i]);
        latest = times[1] > latest ? times[1] : latest;
    }
    *clock = latest;
    return status;
}

static enum ggc_status trace_compute(void * state, const struct message * message) {
    struct cuda_trace * trace = state;
    const uint32_t n = trace->segments.n_segments;
    CUcontext popped;
    const CUresult error = trace->driver->push(trace->context);
    if (error != 0) {
        message_set(message, "the device cannot be used: %s", cuda_error(trace->driver, error));
        return GGC_E_DEVICE;
    }
    enum ggc_status status = GGC_OK;
    double clock = 0;
    trace->mark = cuda_next_mark();
    for (uint32_t i = 0; status == GGC_OK && i < n; i += BATCH) {
        status = compute_batch(trace, i, i + BATCH < n ? i + BATCH : n, &clock, message);
    }
    trace->driver->pop(&popped);
    return status;
}

//
// Opening and closing
//

static void destroy_event(struct cuda_trace * trace, struct ggml_backend_event * event) {
    if (event->context != NULL) {
        trace->driver->event_destroy(event->context);
    }
}

static void trace_close(void * state) {
    struct cuda_trace * trace = state;
    CUcontext popped;
    for (uint32_t s = 0; trace->backends != NULL && s < trace->n_streams; s++) {
        cuda_instance_free(trace->backends[s]);
    }
    if (trace->context != NULL) {
        if (trace->driver->push(trace->context) == 0) {
            for (uint32_t i = 0; i < trace->segments.n_segments; i++) {
                if (trace->begin != NULL && trace->end != NULL) {
                    destroy_event(trace, &trace->begin[i]);
                    destroy_event(trace, &trace->end[i]);
                }
            }
            destroy_event(trace, &trace->fork);
            if (trace->stream != NULL) {
                trace->driver->stream_destroy(trace->stream);
            }
            trace->driver->pop(&popped);
        }
        trace->driver->primary_release(trace->device);
    }
    segments_free(&trace->segments);
    pthread_mutex_destroy(&trace->gate.mutex);
    pthread_cond_destroy(&trace->gate.changed);
    free(trace->backends);
    free(trace->begin);
    free(trace->end);
    free(trace->unit_times);
    free(trace);
}

static CUresult create_event(struct cuda_trace * trace, struct ggml_backend_event * event,
                             ggml_backend_dev_t device) {
    CUevent made = NULL;
    const CUresult error = trace->driver->event_create(&made, 0);
    *event = (struct ggml_backend_event) {.device = device, .context = made};
    return error;
}

static CUresult open_driver(struct cuda_trace * trace, ggml_backend_dev_t device,
                            const char * pci_id) {
    const struct cuda_driver * driver = trace->driver;
    CUcontext popped;
    CUresult error = driver->device_by_pci(&trace->device, pci_id);
    if (error != 0) {
        return error;
    }
    error = driver->primary_retain(&trace->context, trace->device);
    if (error != 0) {
        trace->context = NULL;
        return error;
    }
    error = driver->push(trace->context);
    if (error != 0) {
        return error;
    }
    error = driver->stream_create(&trace->stream, CU_STREAM_NON_BLOCKING);
    if (error == 0) {
        error = create_event(trace, &trace->fork, device);
    }
    for (uint32_t i = 0; error == 0 && i < trace->segments.n_segments; i++) {
        error = create_event(trace, &trace->begin[i], device);
        error = error == 0 ? create_event(trace, &trace->end[i], device) : error;
    }
    driver->pop(&popped);
    return error;
}

static enum ggc_status open_all(struct cuda_trace * trace, const struct dispatch_args * args,
                                const struct message * message) {
    struct ggml_backend_dev_props props;
    const enum ggc_status status = segments_init(
        &trace->segments, args, (struct segment_cuts) {.every_unit = true, .markers = true});
    if (status != GGC_OK) {
        return status;
    }
    const struct ggc_plan_stats stats = ggc_plan_get_stats(ggc_graph_plan_core(args->plan));
    const size_t n = trace->segments.n_segments;
    trace->n_streams = trace->segments.n_streams;
    trace->backends = calloc(trace->n_streams, sizeof(ggml_backend_t));
    trace->begin = calloc(n + 1, sizeof(*trace->begin));
    trace->end = calloc(n + 1, sizeof(*trace->end));
    trace->unit_times = calloc(2 * ((size_t) stats.n_units + 1), sizeof(double));
    if (trace->backends == NULL || trace->begin == NULL || trace->end == NULL ||
        trace->unit_times == NULL) {
        return GGC_E_NOMEM;
    }
    for (uint32_t s = 0; s < trace->n_streams; s++) {
        trace->backends[s] = new_backend(args->device, message);
        if (trace->backends[s] == NULL) {
            return GGC_E_DEVICE;
        }
    }
    trace->driver = cuda_driver_get(message);
    if (trace->driver == NULL || !can_time(trace->driver, message)) {
        return GGC_E_DEVICE;
    }
    ggml_backend_dev_get_props(args->device, &props);
    const CUresult error = open_driver(trace, args->device, props.device_id);
    if (error != 0) {
        message_set(message, "timing units failed: %s", cuda_error(trace->driver, error));
        return GGC_E_DEVICE;
    }
    return GGC_OK;
}

static enum ggc_status trace_open(const struct dispatch_args * args, void ** state,
                                  const struct message * message) {
    struct cuda_trace * trace = calloc(1, sizeof(*trace));
    if (trace == NULL) {
        return GGC_E_NOMEM;
    }
    pthread_mutex_init(&trace->gate.mutex, NULL);
    pthread_cond_init(&trace->gate.changed, NULL);
    const enum ggc_status status = open_all(trace, args, message);
    if (status != GGC_OK) {
        trace_close(trace);
        return status;
    }
    *state = trace;
    return GGC_OK;
}

static uint32_t trace_unit_threads(const void * state, uint32_t unit) {
    (void) state;
    (void) unit;
    return 1;
}

static const double * trace_unit_times(const void * state) {
    return ((const struct cuda_trace *) state)->unit_times;
}

const struct dispatch_i dispatch_cuda_trace = {
    "cuda_trace",     trace_open,  trace_compute, trace_unit_threads,
    trace_unit_times, trace_close, NULL,
};
