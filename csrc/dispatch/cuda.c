// Streams of a CUDA device. Each stream is an instance of ggml's CUDA backend, with a CUDA stream,
// a memory pool and a cuBLAS handle of its own; events of ggml's order them. The first computation
// issues everything to them, which also fills their pools; the second does so while a stream of
// ours captures, and from then on the captured graph is launched. Where addresses or parameters of
// the graph change it is captured again, where sizes do it is issued once before; a graph that
// takes over the CUDA graph of another one is captured the first time (take_graph).
//
// Copies to and from the host are put on the first instance's stream. Issued, everything begins and
// ends there; a launch, which has a stream of its own, is put between two events.
//
// Issued or captured, a segment is a graph of ggml's that begins with a node which computes nothing
// and changes from call to call, so that ggml-cuda does not capture inside of our capture: see
// cuda_next_mark.
//
// Where a call of ours fails, the streams are used without a capture; the reason is told once.
// ggml itself ends the process where CUDA refuses one of *its* calls: what it needs is checked
// before, as far as that is possible. What remains: memory that others take between that check and
// the first computation, and instances that others destroy while we capture (cuda_instance.h).
#include <stdlib.h>
#include <string.h>

#include "cuda_capturable.h"
#include "cuda_early.h"
#include "cuda_edges.h"
#include "cuda_figures.h"
#include "cuda_instance.h"
#include "cuda_memory.h"
#include "cuda_replay.h"
#include "cuda_urgency.h"
#include "ggml-backend-impl.h"

enum capture {
    CAPTURE_NEXT,  // to be issued once before, which fills pools
    CAPTURE_NOW,
    CAPTURE_DONE,  // there is a graph to launch
    CAPTURE_NEVER,
};

struct cuda {
    struct segments segments;
    bool * early;  // of each segment, by place: see cuda_early.h
    const struct ggml_cgraph * graph;
    ggml_backend_dev_t device;
    uint32_t n_streams;
    struct cuda_instances own, *instances;
    struct cuda_need need[GGC_MAX_STREAMS];
    ggml_backend_t * backends;         // of the instances, n_streams; the first is the main one
    ggml_backend_event_t * events;     // of each segment that is waited for, by place in `order`
    ggml_backend_event_t fork, *join;  // join: n_streams
    struct dispatch_places places;
    const struct message * warning;
    size_t free_before;    // bytes, before there were streams; 0: that is of no more use
    size_t streams_bytes;  // that they took, once that is known

    struct cuda_replay replay;
    struct cuda_captured captured;
    struct cuda_urgency urgency;
    bool has_urgency, is_capturing;
    bool can_capture;  // there is what it takes
    enum capture capture;
    // what nobody has waited for
    bool main_is_busy;  // copies, or what was issued
    bool has_launched;
    bool was_issued;  // the last computation
};

static void warn(const struct cuda * cuda, const struct cuda_failure * failure,
                 const char * remedy) {
    message_set(cuda->warning, "%s failed (%s): %s", failure->what,
                cuda_error(cuda->replay.driver, failure->error), remedy);
}

static void do_without_graph(struct cuda * cuda, const struct cuda_failure * failure) {
    warn(cuda, failure, "the streams are used without a CUDA graph");
    cuda->can_capture = false;
    cuda->capture = CAPTURE_NEVER;
}

//
// Issuing
//

static uint32_t place_of(const struct cuda * cuda, const struct segment_wait * wait) {
    const struct segment * segment = &cuda->segments.streams[wait->stream].items[wait->count - 1];
    return segment->place;
}

static enum ggc_status issue_segments(struct cuda * cuda, const struct message * message) {
    const uint64_t mark = cuda_next_mark();
    for (uint32_t i = 0; i < cuda->segments.n_segments; i++) {
        struct segment * segment = cuda->segments.order[i];
        ggml_backend_t backend = cuda->backends[segment->stream];
        for (uint32_t k = 0; k < segment->n_waits; k++) {
            ggml_backend_event_wait(backend, cuda->events[place_of(cuda, &segment->waits[k])]);
        }
        if (cuda->early[i] && !cuda->is_capturing) {
            ggml_backend_synchronize(backend);  // in a capture its edges are made full ones
        }
        memcpy(segment->marker->op_params, &mark, sizeof(mark));
        const enum ggml_status status = ggml_backend_graph_compute_async(backend, &segment->graph);
        if (status != GGML_STATUS_SUCCESS) {
            message_set(message, "ggml: %s", ggml_status_to_string(status));
            return GGC_E_DEVICE;
        }
        if (segment->is_waited_for) {
            ggml_backend_event_record(cuda->events[i], backend);
        }
        if (cuda->is_capturing) {
            cuda_captured_note(&cuda->captured, &cuda->replay, i);
        }
    }
    return GGC_OK;
}

static enum ggc_status issue(struct cuda * cuda, const struct message * message) {
    places_enter(&cuda->places);
    const enum ggc_status status = issue_segments(cuda, message);
    places_leave(&cuda->places);
    return status;
}

// Everything after what the main stream has been given, and before what it is given next.
static enum ggc_status issue_forked(struct cuda * cuda, const struct message * message) {
    ggml_backend_event_record(cuda->fork, cuda->backends[0]);
    for (uint32_t s = 1; s < cuda->n_streams; s++) {
        ggml_backend_event_wait(cuda->backends[s], cuda->fork);
    }
    cuda->was_issued = cuda->main_is_busy = true;
    const enum ggc_status status = issue(cuda, message);
    for (uint32_t s = 1; s < cuda->n_streams; s++) {
        ggml_backend_event_record(cuda->join[s], cuda->backends[s]);
        ggml_backend_event_wait(cuda->backends[0], cuda->join[s]);
    }
    if (status == GGC_OK) {
        cuda_instances_issued(cuda->instances, cuda->n_streams, cuda->need);
    }
    if (cuda->free_before > 0) {
        size_t free_after, total;
        ggml_backend_dev_memory(cuda->device, &free_after, &total);
        cuda->streams_bytes = cuda->free_before > free_after ? cuda->free_before - free_after : 0;
        cuda->free_before = 0;
    }
    return status;
}

//
// Capturing and launching
//

// Draws every stream into the capture of ours, issues, and joins them again. The main stream comes
// first: what is captured first is launched first.
static CUresult issue_captured(struct cuda * cuda, enum ggc_status * status,
                               const struct message * message) {
    const struct cuda_driver * driver = cuda->replay.driver;
    CUstream stream = cuda->replay.stream;
    CUresult error = driver->event_record(cuda->fork->context, stream);
    if (error != 0) {
        return error;
    }
    for (uint32_t s = 0; s < cuda->n_streams; s++) {
        ggml_backend_event_wait(cuda->backends[s], cuda->fork);
    }
    cuda->is_capturing = true;
    cuda_captured_begin(&cuda->captured);
    *status = issue(cuda, message);
    cuda->is_capturing = false;
    for (uint32_t s = 0; s < cuda->n_streams; s++) {
        ggml_backend_event_record(cuda->join[s], cuda->backends[s]);
        const CUresult failed = driver->stream_wait(stream, cuda->join[s]->context, 0);
        error = error != 0 ? error : failed;
    }
    return error;
}

static enum ggc_status capture(struct cuda * cuda, const struct message * message) {
    struct cuda_failure failure;
    enum ggc_status status = GGC_OK;
    bool fine = cuda_replay_begin(&cuda->replay, &failure);
    if (fine) {
        const CUresult issued = issue_captured(cuda, &status, message);
        struct cuda_urgency * urgency = cuda->has_urgency ? &cuda->urgency : NULL;
        fine = cuda_replay_end(&cuda->replay, issued, &cuda->captured, urgency, &failure);
    }
    if (!fine) {
        do_without_graph(cuda, &failure);
    } else if (status == GGC_OK) {
        cuda->capture = CAPTURE_DONE;
    }
    return status;
}

// What was put on the main stream comes before the launch. `fork` is free between captures, and so
// is the main stream's `join`.
static void launch_after_transfers(struct cuda * cuda) {
    if (!cuda->main_is_busy) {
        return;
    }
    ggml_backend_event_record(cuda->fork, cuda->backends[0]);
    const CUresult error =
        cuda->replay.driver->stream_wait(cuda->replay.stream, cuda->fork->context, 0);
    if (error != 0) {
        warn(cuda, &(struct cuda_failure) {"waiting for copies", error}, "the host waits instead");
        ggml_backend_synchronize(cuda->backends[0]);
    }
}

// What is put on the main stream from now on comes after the launch. False: the device has failed.
static bool transfers_after_launch(struct cuda * cuda, struct cuda_failure * failure) {
    const CUresult error =
        cuda->replay.driver->event_record(cuda->join[0]->context, cuda->replay.stream);
    if (error == 0) {
        ggml_backend_event_wait(cuda->backends[0], cuda->join[0]);
        return true;
    }
    warn(cuda, &(struct cuda_failure) {"marking the end of a launch", error},
         "the host waits instead");
    return cuda_replay_wait(&cuda->replay, failure);
}

static enum ggc_status failed(struct cuda * cuda, const struct cuda_failure * failure,
                              const struct message * message) {
    message_set(message, "%s failed: %s", failure->what,
                cuda_error(cuda->replay.driver, failure->error));
    return GGC_E_DEVICE;
}

// A launch that is refused has done nothing, and if the device is well everything can be issued.
// One that is waited for has everything before it.
static enum ggc_status launch(struct cuda * cuda, bool blocks, const struct message * message) {
    struct cuda_failure failure, waiting;
    launch_after_transfers(cuda);
    if (!cuda_replay_launch(&cuda->replay, &failure)) {
        if (!cuda_replay_wait(&cuda->replay, &waiting)) {
            return failed(cuda, &failure, message);
        }
        do_without_graph(cuda, &failure);
        return issue_forked(cuda, message);
    }
    cuda->has_launched = !blocks;
    cuda->main_is_busy = !blocks;
    const bool fine =
        blocks ? cuda_replay_wait(&cuda->replay, &failure) : transfers_after_launch(cuda, &failure);
    return fine ? GGC_OK : failed(cuda, &failure, message);
}

//
// Computing
//

static enum ggc_status start_in_context(struct cuda * cuda, bool blocks,
                                        const struct message * message) {
    enum ggc_status status = GGC_OK;
    if (cuda->capture == CAPTURE_NOW) {
        status = capture(cuda, message);
    }
    if (status != GGC_OK) {
        return status;
    }
    return cuda->capture == CAPTURE_DONE ? launch(cuda, blocks, message)
                                         : issue_forked(cuda, message);
}

// `blocks`: the caller waits before anything else is put on the main stream.
static enum ggc_status start(struct cuda * cuda, bool blocks, const struct message * message) {
    struct cuda_failure failure;
    enum ggc_status status;
    cuda->was_issued = false;
    cuda->main_is_busy |= cuda->instances->has_guest;
    if (cuda->capture == CAPTURE_NOW || cuda->capture == CAPTURE_DONE) {
        if (cuda_replay_enter(&cuda->replay, &failure)) {
            status = start_in_context(cuda, blocks, message);
            cuda_replay_leave(&cuda->replay);
            return status;
        }
        do_without_graph(cuda, &failure);
    }
    status = issue_forked(cuda, message);
    if (status == GGC_OK && cuda->capture == CAPTURE_NEXT) {
        cuda->capture = CAPTURE_NOW;
    }
    return status;
}

static bool wait_for_launch(struct cuda * cuda, struct cuda_failure * failure) {
    if (!cuda->has_launched) {
        return true;
    }
    cuda->has_launched = false;
    if (!cuda_replay_enter(&cuda->replay, failure)) {
        return false;
    }
    const bool fine = cuda_replay_wait(&cuda->replay, failure);
    cuda_replay_leave(&cuda->replay);
    return fine;
}

// The launch first: CUDA tells us of what went wrong there, and for ggml it is the end.
static enum ggc_status cuda_synchronize(void * state, const struct message * message) {
    struct cuda * cuda = state;
    struct cuda_failure failure;
    if (!wait_for_launch(cuda, &failure)) {
        return failed(cuda, &failure, message);
    }
    ggml_backend_synchronize(cuda->backends[0]);
    cuda->main_is_busy = false;
    return GGC_OK;
}

// What was issued ends on the main stream.
static enum ggc_status cuda_compute(void * state, const struct message * message) {
    struct cuda * cuda = state;
    const enum ggc_status status = start(cuda, true, message);
    if (!cuda->was_issued) {
        return status;
    }
    const enum ggc_status waited = cuda_synchronize(cuda, message);
    return status != GGC_OK ? status : waited;
}

static enum ggc_status cuda_compute_async(void * state, const struct message * message) {
    return start(state, false, message);
}

static ggml_backend_t cuda_transfers(void * state) {
    struct cuda * cuda = state;
    cuda->main_is_busy = true;
    return cuda->backends[0];
}

//
// Changes
//

static bool is_capturable(const struct cuda * cuda) {
    const struct cuda_build build = cuda_build_of(cuda->device, cuda->replay.capability);
    for (int i = 0; i < cuda->graph->n_nodes; i++) {
        if (cuda_not_capturable(cuda->graph->nodes[i], &build) != NULL) {
            return false;
        }
    }
    return true;
}

static void decide_capture(struct cuda * cuda) {
    cuda->capture = cuda->can_capture && is_capturable(cuda) ? CAPTURE_NEXT : CAPTURE_NEVER;
}

// Segments hold the nodes themselves, and see what they have become.
static void cuda_changed(void * state, enum snapshot_change change) {
    struct cuda * cuda = state;
    if (change > SNAPSHOT_ADDRESSES) {
        decide_capture(cuda);
    } else if (cuda->capture == CAPTURE_DONE) {
        cuda->capture = CAPTURE_NOW;
    }
}

//
// Opening and closing
//

static void free_event(ggml_backend_event_t event) {
    if (event != NULL) {
        ggml_backend_event_free(event);
    }
}

static void cuda_close(void * state) {
    struct cuda * cuda = state;
    for (uint32_t s = 0; cuda->backends != NULL && s < cuda->n_streams; s++) {
        ggml_backend_synchronize(cuda->backends[s]);
    }
    cuda_replay_close(&cuda->replay);
    for (uint32_t i = 0; cuda->events != NULL && i < cuda->segments.n_segments; i++) {
        free_event(cuda->events[i]);
    }
    for (uint32_t s = 0; cuda->join != NULL && s < cuda->n_streams; s++) {
        free_event(cuda->join[s]);
    }
    free_event(cuda->fork);
    cuda_instances_close(&cuda->own);
    segments_free(&cuda->segments);
    free(cuda->early);
    cuda_captured_free(&cuda->captured);
    cuda_urgency_free(&cuda->urgency);
    free(cuda->events);
    free(cuda->join);
    free(cuda);
}

static enum ggc_status open_events(struct cuda * cuda, const struct message * message) {
    const uint32_t n_segments = cuda->segments.n_segments;
    bool ok = (cuda->fork = ggml_backend_event_new(cuda->device)) != NULL;
    cuda->events = calloc(n_segments + 1, sizeof(ggml_backend_event_t));
    cuda->join = calloc(cuda->n_streams, sizeof(ggml_backend_event_t));
    if (cuda->events == NULL || cuda->join == NULL) {
        return GGC_E_NOMEM;
    }
    for (uint32_t i = 0; ok && i < n_segments; i++) {
        if (cuda->segments.order[i]->is_waited_for) {
            ok = (cuda->events[i] = ggml_backend_event_new(cuda->device)) != NULL;
        }
    }
    for (uint32_t s = 0; ok && s < cuda->n_streams; s++) {
        ok = (cuda->join[s] = ggml_backend_event_new(cuda->device)) != NULL;
    }
    if (!ok) {
        message_set(message, "%s has no events", ggml_backend_dev_name(cuda->device));
        return GGC_E_DEVICE;
    }
    return GGC_OK;
}

#define NEWEST 900  // what a device is taken for that does not say

static enum ggc_status open_streams(struct cuda * cuda, struct cuda_instances * instances,
                                    const struct message * message) {
    const int capability = cuda->replay.capability > 0 ? 10 * cuda->replay.capability : NEWEST;
    for (uint32_t s = 0; s < cuda->n_streams; s++) {
        cuda->need[s] = cuda_stream_need(&cuda->segments.streams[s], capability);
    }
    cuda->instances = instances != NULL ? instances : &cuda->own;
    const enum ggc_status status = cuda_instances_need(
        cuda->instances, cuda->device, cuda->n_streams, cuda->need, &cuda->free_before, message);
    cuda->backends = status == GGC_OK ? cuda->instances->items : NULL;
    return status;
}

static void open_replay(struct cuda * cuda) {
    struct ggml_backend_dev_props props;
    struct cuda_failure failure = {NULL, 0};
    ggml_backend_dev_get_props(cuda->device, &props);
    cuda->can_capture = cuda_replay_open(&cuda->replay, props.device_id, &failure, cuda->warning);
    if (failure.what != NULL) {
        do_without_graph(cuda, &failure);
    }
}

// A launch that nobody has waited for comes along. Nor need this one be issued before it is
// captured where its streams have cuBLAS's handles: pools may grow in a capture of the relaxed
// mode, and kernels be loaded (seen on an H100; there handles were made in one as well, which other
// drivers are said to refuse).
static void take_graph(struct cuda * cuda, struct cuda * from) {
    if (cuda->capture != CAPTURE_NEXT || from->capture != CAPTURE_DONE ||
        from->has_urgency != cuda->has_urgency) {
        return;
    }
    const struct cuda_replay empty = cuda->replay;
    cuda->replay = from->replay;
    cuda->has_launched = from->has_launched;
    from->replay = empty;
    from->has_launched = false;
    from->capture = CAPTURE_NOW;
    const bool has_handles =
        cuda_instances_have_handles(cuda->instances, cuda->n_streams, cuda->need);
    cuda->capture = has_handles ? CAPTURE_NOW : CAPTURE_NEXT;
}

static enum ggc_status cuda_open(const struct dispatch_args * args, void ** state,
                                 const struct message * message) {
    struct cuda * cuda = calloc(1, sizeof(*cuda));
    if (cuda == NULL) {
        return GGC_E_NOMEM;
    }
    cuda->graph = args->graph;
    cuda->device = args->device;
    cuda->warning = args->warning;
    cuda->places = args->places;
    enum ggc_status status = segments_init(
        &cuda->segments, args, (struct segment_cuts) {.before = cuda_reads_early, .markers = true});
    if (status == GGC_OK) {
        cuda->n_streams = cuda->segments.n_streams;
        open_replay(cuda);
        status = open_streams(cuda, args->instances, message);
    }
    if (status == GGC_OK) {
        status = open_events(cuda, message);
    }
    if (status == GGC_OK) {
        cuda->early = cuda_early_segments(&cuda->segments, args);
        status =
            cuda->early != NULL && cuda_captured_init(&cuda->captured, &cuda->segments, cuda->early)
                ? GGC_OK
                : GGC_E_NOMEM;
    }
    if (status == GGC_OK && args->params->urgency) {
        cuda->has_urgency = cuda_urgency_init(&cuda->urgency, &cuda->segments, args);
        status = cuda->has_urgency ? GGC_OK : GGC_E_NOMEM;
    }
    if (status != GGC_OK) {
        cuda_close(cuda);
        return status;
    }
    decide_capture(cuda);
    if (args->alike != NULL) {
        take_graph(cuda, args->alike);
    }
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

struct ggc_cuda_figures cuda_figures(const void * state) {
    const struct cuda * cuda = state;
    struct ggc_cuda_figures figures = cuda->replay.figures;
    figures.captured = cuda->capture == CAPTURE_DONE;
    return figures;
}

bool cuda_always_issues(const void * state) {
    return ((const struct cuda *) state)->capture == CAPTURE_NEVER;
}

size_t cuda_streams_bytes(const void * state) {
    return ((const struct cuda *) state)->streams_bytes;
}

static const struct dispatch_async async = {
    cuda_transfers,
    cuda_compute_async,
    cuda_synchronize,
    cuda_changed,
};

const struct dispatch_i dispatch_cuda = {
    "cuda", cuda_open, cuda_compute, cuda_unit_threads, cuda_unit_times, cuda_close, &async,
};
