// Streams of a CUDA device. Each stream is an instance of ggml's CUDA backend, with a CUDA stream,
// a memory pool and a cuBLAS handle of its own; events of ggml's order them. The first computation
// issues everything to them, which also fills their pools; the second does so while a stream of
// ours captures, and from then on the captured graph is launched.
//
// Issued or captured, a segment is a graph of ggml's that begins with a node which computes nothing
// and changes from call to call: ggml's own logic for CUDA graphs then never finds the same graph
// twice, and does not capture inside of our capture.
//
// Where a call of ours fails, the streams are used without a capture; the reason is told once.
// ggml itself ends the process where CUDA refuses one of *its* calls: what it needs is checked
// before, as far as that is possible.
#include <stdlib.h>
#include <string.h>

#include "cuda_driver.h"
#include "ggml-backend-impl.h"
#include "ggml/backends.h"
#include "segments.h"

// What a further instance takes besides the graph's tensors: cuBLAS's workspace (32 MiB on Hopper)
// and its pool.
#define BYTES_PER_STREAM ((size_t) 64 << 20)

// Experts chosen for more tokens than this may go through a path that waits for the host, which a
// capture cannot hold.
#define EXPERT_TOKENS_MAX 1

enum capture {
    CAPTURE_NEXT,  // nothing has been computed yet
    CAPTURE_NOW,   // pools are filled
    CAPTURE_DONE,  // there is `exec`
    CAPTURE_NEVER,
};

struct cuda {
    struct segments segments;
    uint32_t n_streams;
    ggml_backend_t * backends;         // n_streams; the first is the main one
    ggml_backend_event_t * events;     // of each segment that is waited for, by place in `order`
    ggml_backend_event_t fork, *join;  // join: n_streams
    uint64_t n_issued;                 // counts issues, for the markers
    const struct message * warning;

    enum capture capture;
    const struct cuda_driver * driver;
    CUdevice device;
    CUcontext context;
    CUstream stream;
    CUgraphExec exec;
};

//
// Issuing
//

static uint32_t place_of(const struct cuda * cuda, const struct segment_wait * wait) {
    const struct segment * segment = &cuda->segments.streams[wait->stream].items[wait->count - 1];
    return segment->place;
}

static enum ggc_status issue(struct cuda * cuda, const struct message * message) {
    cuda->n_issued++;
    for (uint32_t i = 0; i < cuda->segments.n_segments; i++) {
        struct segment * segment = cuda->segments.order[i];
        ggml_backend_t backend = cuda->backends[segment->stream];
        for (uint32_t k = 0; k < segment->n_waits; k++) {
            ggml_backend_event_wait(backend, cuda->events[place_of(cuda, &segment->waits[k])]);
        }
        memcpy(segment->marker->op_params, &cuda->n_issued, sizeof(cuda->n_issued));
        const enum ggml_status status = ggml_backend_graph_compute_async(backend, &segment->graph);
        if (status != GGML_STATUS_SUCCESS) {
            message_set(message, "ggml: %s", ggml_status_to_string(status));
            return GGC_E_DEVICE;
        }
        if (segment->is_waited_for) {
            ggml_backend_event_record(cuda->events[i], backend);
        }
    }
    return GGC_OK;
}

static void wait_for_all(const struct cuda * cuda) {
    for (uint32_t s = 0; s < cuda->n_streams; s++) {
        ggml_backend_synchronize(cuda->backends[s]);
    }
}

//
// Capturing
//

static void warn(const struct cuda * cuda, const char * what, CUresult error) {
    message_set(cuda->warning, "%s failed (%s): the streams are used without a CUDA graph", what,
                cuda_error(cuda->driver, error));
}

// Draws every stream into the capture of ours, issues, and joins them again. The main stream comes
// first: what is captured first is launched first.
static CUresult issue_captured(struct cuda * cuda, enum ggc_status * status,
                               const struct message * message) {
    const struct cuda_driver * driver = cuda->driver;
    CUresult error = driver->event_record(cuda->fork->context, cuda->stream);
    if (error != 0) {
        return error;
    }
    for (uint32_t s = 0; s < cuda->n_streams; s++) {
        ggml_backend_event_wait(cuda->backends[s], cuda->fork);
    }
    *status = issue(cuda, message);
    for (uint32_t s = 0; s < cuda->n_streams; s++) {
        ggml_backend_event_record(cuda->join[s], cuda->backends[s]);
        const CUresult failed = driver->stream_wait(cuda->stream, cuda->join[s]->context, 0);
        error = error != 0 ? error : failed;
    }
    return error;
}

static enum ggc_status capture(struct cuda * cuda, const struct message * message) {
    const struct cuda_driver * driver = cuda->driver;
    enum ggc_status status = GGC_OK;
    CUgraph graph = NULL;
    CUresult error = driver->begin_capture(cuda->stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    if (error != 0) {
        warn(cuda, "beginning a capture", error);
        return GGC_OK;
    }
    const CUresult issued = issue_captured(cuda, &status, message);
    error = driver->end_capture(cuda->stream, &graph);
    error = issued != 0 ? issued : error;
    if (error != 0) {
        warn(cuda, "capturing", error);
    } else if (status == GGC_OK) {
        error = driver->instantiate(&cuda->exec, graph, 0);
        if (error != 0) {
            cuda->exec = NULL;
            warn(cuda, "instantiating the captured graph", error);
        }
    }
    if (graph != NULL) {
        driver->graph_destroy(graph);
    }
    return status;
}

static bool replay(struct cuda * cuda, const char ** what, CUresult * error) {
    *what = "launching the captured graph";
    *error = cuda->driver->launch(cuda->exec, cuda->stream);
    if (*error == 0) {
        *what = "waiting for the captured graph";
        *error = cuda->driver->stream_synchronize(cuda->stream);
    }
    return *error == 0;
}

//
// Computing
//

static enum ggc_status compute_issued(struct cuda * cuda, const struct message * message) {
    const enum ggc_status status = issue(cuda, message);
    wait_for_all(cuda);
    return status;
}

static enum ggc_status compute_captured(struct cuda * cuda, const struct message * message) {
    const char * what;
    CUresult error;
    enum ggc_status status = GGC_OK;
    if (cuda->capture == CAPTURE_NOW) {
        status = capture(cuda, message);
        cuda->capture = cuda->exec != NULL ? CAPTURE_DONE : CAPTURE_NEVER;
    }
    if (status != GGC_OK) {
        return status;
    }
    if (cuda->capture == CAPTURE_NEVER) {
        return compute_issued(cuda, message);
    }
    if (!replay(cuda, &what, &error)) {
        message_set(message, "%s failed: %s", what, cuda_error(cuda->driver, error));
        return GGC_E_DEVICE;
    }
    return GGC_OK;
}

static enum ggc_status cuda_compute(void * state, const struct message * message) {
    struct cuda * cuda = state;
    if (cuda->capture == CAPTURE_NEXT || cuda->capture == CAPTURE_NEVER) {
        cuda->capture = cuda->capture == CAPTURE_NEXT ? CAPTURE_NOW : CAPTURE_NEVER;
        return compute_issued(cuda, message);
    }
    CUcontext popped;
    const CUresult error = cuda->driver->push(cuda->context);
    if (error != 0) {
        warn(cuda, "making the device current", error);
        cuda->capture = CAPTURE_NEVER;
        return compute_issued(cuda, message);
    }
    const enum ggc_status status = compute_captured(cuda, message);
    cuda->driver->pop(&popped);
    return status;
}

//
// Opening and closing
//

static bool can_be_captured(const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor * node = graph->nodes[i];
        if (node->op == GGML_OP_MUL_MAT_ID &&
            (node->ne[2] > EXPERT_TOKENS_MAX || !ggml_is_quantized(node->src[0]->type))) {
            return false;
        }
    }
    return true;
}

static void free_event(ggml_backend_event_t event) {
    if (event != NULL) {
        ggml_backend_event_free(event);
    }
}

// A stream of ours in the device's primary context, which ggml uses as well.
static bool open_capture(struct cuda * cuda, const char * pci_id) {
    CUcontext popped;
    cuda->driver = cuda_driver_get(cuda->warning);
    if (cuda->driver == NULL) {
        return false;
    }
    const struct cuda_driver * driver = cuda->driver;
    const char * what = "finding the device";
    CUresult error = pci_id != NULL ? driver->device_by_pci(&cuda->device, pci_id) : -1;
    if (error == 0) {
        what = "using the device's context";
        error = driver->primary_retain(&cuda->context, cuda->device);
    }
    if (error == 0 && (error = driver->push(cuda->context)) == 0) {
        what = "making a stream";
        error = driver->stream_create(&cuda->stream, CU_STREAM_NON_BLOCKING);
        driver->pop(&popped);
    }
    if (error != 0) {
        warn(cuda, what, error);
    }
    return error == 0;
}

static void close_capture(struct cuda * cuda) {
    CUcontext popped;
    if (cuda->context == NULL) {
        return;
    }
    if (cuda->driver->push(cuda->context) == 0) {
        if (cuda->exec != NULL) {
            cuda->driver->exec_destroy(cuda->exec);
        }
        if (cuda->stream != NULL) {
            cuda->driver->stream_destroy(cuda->stream);
        }
        cuda->driver->pop(&popped);
    }
    cuda->driver->primary_release(cuda->device);
}

static void cuda_close(void * state) {
    struct cuda * cuda = state;
    if (cuda->backends != NULL) {
        for (uint32_t s = 0; s < cuda->n_streams; s++) {
            if (cuda->backends[s] != NULL) {
                ggml_backend_synchronize(cuda->backends[s]);
            }
        }
    }
    close_capture(cuda);
    for (uint32_t i = 0; cuda->events != NULL && i < cuda->segments.n_segments; i++) {
        free_event(cuda->events[i]);
    }
    for (uint32_t s = 0; cuda->join != NULL && s < cuda->n_streams; s++) {
        free_event(cuda->join[s]);
    }
    free_event(cuda->fork);
    for (uint32_t s = 0; cuda->backends != NULL && s < cuda->n_streams; s++) {
        ggml_backend_free(cuda->backends[s]);
    }
    segments_free(&cuda->segments);
    free(cuda->backends);
    free(cuda->events);
    free(cuda->join);
    free(cuda);
}

static enum ggc_status open_events(struct cuda * cuda, ggml_backend_dev_t device) {
    const uint32_t n_segments = cuda->segments.n_segments;
    bool ok = (cuda->fork = ggml_backend_event_new(device)) != NULL;
    cuda->events = calloc(n_segments + 1, sizeof(ggml_backend_event_t));
    cuda->join = calloc(cuda->n_streams, sizeof(ggml_backend_event_t));
    if (cuda->events == NULL || cuda->join == NULL) {
        return GGC_E_NOMEM;
    }
    for (uint32_t i = 0; ok && i < n_segments; i++) {
        if (cuda->segments.order[i]->is_waited_for) {
            ok = (cuda->events[i] = ggml_backend_event_new(device)) != NULL;
        }
    }
    for (uint32_t s = 0; ok && s < cuda->n_streams; s++) {
        ok = (cuda->join[s] = ggml_backend_event_new(device)) != NULL;
    }
    return ok ? GGC_OK : GGC_E_DEVICE;
}

static enum ggc_status open_streams(struct cuda * cuda, ggml_backend_dev_t device,
                                    const struct message * message) {
    size_t free_bytes, total;
    cuda->backends = calloc(cuda->n_streams, sizeof(ggml_backend_t));
    if (cuda->backends == NULL) {
        return GGC_E_NOMEM;
    }
    ggml_backend_dev_memory(device, &free_bytes, &total);
    if (free_bytes < cuda->n_streams * BYTES_PER_STREAM) {
        message_set(message, "%u streams need %zu MiB beside the graph, %zu are free",
                    cuda->n_streams, cuda->n_streams * (BYTES_PER_STREAM >> 20), free_bytes >> 20);
        return GGC_E_DEVICE;
    }
    for (uint32_t s = 0; s < cuda->n_streams; s++) {
        cuda->backends[s] = ggml_backend_dev_init(device, NULL);
        if (cuda->backends[s] == NULL) {
            message_set(message, "ggml could not start instance %u of %s", s,
                        ggml_backend_dev_name(device));
            return GGC_E_DEVICE;
        }
    }
    return GGC_OK;
}

static enum ggc_status cuda_open(const struct dispatch_args * args, void ** state,
                                 const struct message * message) {
    struct ggml_backend_dev_props props;
    struct cuda * cuda = calloc(1, sizeof(*cuda));
    if (cuda == NULL) {
        return GGC_E_NOMEM;
    }
    ggml_backend_dev_get_props(args->device, &props);
    cuda->warning = args->warning;
    enum ggc_status status = segments_init(&cuda->segments, args, false, true);
    if (status == GGC_OK) {
        cuda->n_streams = cuda->segments.n_streams;
        status = open_streams(cuda, args->device, message);
    }
    if (status == GGC_OK) {
        status = open_events(cuda, args->device);
        if (status == GGC_E_DEVICE) {
            message_set(message, "%s has no events", ggml_backend_dev_name(args->device));
        }
    }
    if (status != GGC_OK) {
        cuda_close(cuda);
        return status;
    }
    const bool captures = can_be_captured(args->graph) && open_capture(cuda, props.device_id);
    cuda->capture = captures ? CAPTURE_NEXT : CAPTURE_NEVER;
    *state = cuda;
    return GGC_OK;
}

static uint32_t cuda_unit_threads(const void * state, uint32_t unit) {
    (void) state;
    (void) unit;
    return 1;
}

static const double * cuda_unit_times(const void * state) {
    (void) state;
    return NULL;
}

const struct dispatch_i dispatch_cuda = {
    "cuda", cuda_open, cuda_compute, cuda_unit_threads, cuda_unit_times, cuda_close,
};
