#include "capture.h"

#include <stdio.h>
#include <stdlib.h>

#include "graph.h"

// What happens between begin and end. Events may remember it longer.
struct capture {
    unsigned refs;
    CUstreamCaptureMode mode;
    pthread_t thread;
    bool invalid, ended;
    struct nodes nodes;
    CUstream origin;
    CUstream * members;
    uint32_t n_members;
    struct capture * next;  // of those that have not ended
};

struct CUstream_st {
    struct object object;
    const char * place;
    struct work * tail;        // last issued
    struct work * begin;       // that is a kernel: when the next one may begin; NULL: it is not
    struct capture * capture;  // NULL: not capturing
    struct set front;          // what the next node will follow
};

struct CUevent_st {
    struct object object;
    unsigned flags;
    struct work * work;        // that it stands for; NULL: none, or recorded in a capture
    struct capture * capture;  // in which it was last recorded, over or not
    struct set front;
};

static struct capture * captures;
static _Thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

//
// Captures
//

static struct capture * capture_ref(struct capture * capture) {
    capture->refs++;
    return capture;
}

static void capture_unref(struct capture * capture) {
    if (capture != NULL && --capture->refs == 0) {
        nodes_clear(&capture->nodes);
        free(capture->members);
        free(capture);
    }
}

static void capture_join(struct capture * capture, CUstream stream) {
    stream->capture = capture_ref(capture);
    set_clear(&stream->front);
    capture->members = reallocate(capture->members, (capture->n_members + 1) * sizeof(CUstream));
    capture->members[capture->n_members++] = stream;
}

static void invalidate(struct capture * capture) {
    if (capture != NULL && !capture->ended) {
        capture->invalid = true;
    }
}

// What is refused on a capturing stream, and spoils its capture.
static CUresult refuse(struct capture * capture, CUresult error) {
    invalidate(capture);
    return error;
}

static void capture_close(struct capture * capture) {
    struct capture ** at = &captures;
    while (*at != capture) {
        at = &(*at)->next;
    }
    *at = capture->next;
    capture->ended = true;
    for (uint32_t i = 0; i < capture->n_members; i++) {
        CUstream stream = capture->members[i];
        stream->capture = NULL;
        set_clear(&stream->front);
        capture->refs--;  // never the last one
    }
    capture_unref(capture);
}

CUresult capture_begin(CUstream stream, CUstreamCaptureMode mode) {
    if (!is_alive(stream, STREAM)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (stream->capture != NULL) {
        return CUDA_ERROR_ILLEGAL_STATE;
    }
    struct capture * capture = allocate(sizeof *capture);
    capture->refs = 1;
    capture->mode = mode;
    capture->thread = pthread_self();
    capture->origin = stream;
    capture->next = captures;
    captures = capture;
    capture_join(capture, stream);
    return CUDA_SUCCESS;
}

// Whether everything captured comes before what the origin would do next.
static bool all_joined(const struct capture * capture) {
    const struct nodes * nodes = &capture->nodes;
    bool * joined = allocate(nodes->n * sizeof *joined);
    const struct set * front = &capture->origin->front;
    for (uint32_t i = 0; i < front->n; i++) {
        joined[front->items[i]] = true;
    }
    bool all = true;
    for (uint32_t i = nodes->n; i-- > 0;) {
        all = all && joined[i];
        for (uint32_t k = 0; joined[i] && k < nodes->items[i].deps.n; k++) {
            joined[nodes->items[i].deps.items[k]] = true;
        }
    }
    free(joined);
    return all;
}

CUresult capture_info(CUstream stream, CUstreamCaptureStatus * status, CUgraph * graph) {
    const CUresult error = stream_status(stream, status);
    if (error == CUDA_SUCCESS && graph != NULL) {
        *graph = (CUgraph) (void *) stream->capture;
    }
    return error;
}

bool capture_nodes(CUgraph graph, size_t * n) {
    for (const struct capture * capture = captures; capture != NULL; capture = capture->next) {
        if ((const void *) graph == (const void *) capture) {
            *n = capture->nodes.n;
            return true;
        }
    }
    return false;
}

CUresult capture_end(CUstream stream, CUgraph * graph) {
    if (!is_alive(stream, STREAM)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    struct capture * capture = stream->capture;
    if (graph == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *graph = NULL;
    if (capture == NULL) {
        return CUDA_ERROR_ILLEGAL_STATE;
    }
    if (capture->origin != stream) {
        return refuse(capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    }
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
        !pthread_equal(capture->thread, pthread_self())) {
        capture_close(capture);  // as a driver for CUDA 13.0 does
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    CUresult result = capture->invalid       ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                      : !all_joined(capture) ? CUDA_ERROR_STREAM_CAPTURE_UNJOINED
                                             : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS) {
        *graph = graph_new(&capture->nodes, stream->object.device, stream->object.of_runtime);
    }
    capture_close(capture);
    return result;
}

void capture_fault(CUstream stream, CUresult error) {
    if (is_alive(stream, STREAM) && error >= CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED &&
        error <= CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD) {
        invalidate(stream->capture);
    }
}

void capture_abandon(CUstream stream) {
    if (is_alive(stream, STREAM) && stream->capture != NULL && stream->capture->origin == stream) {
        capture_close(stream->capture);
    }
}

// After the documentation of cuThreadExchangeStreamCaptureMode:
//
//                               thread: global   thread-local   relaxed
//     own capture: not relaxed          refused  refused        -
//     capture of others: global         refused  -              -
CUresult capture_unsafe_call(void) {
    CUresult result = CUDA_SUCCESS;
    for (struct capture * c = captures; c != NULL; c = c->next) {
        const bool own = pthread_equal(c->thread, pthread_self());
        const bool forbids = own ? c->mode != CU_STREAM_CAPTURE_MODE_RELAXED
                                 : c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                                       thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
        if (forbids && thread_mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
            result = refuse(c, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
    }
    return result;
}

CUresult capture_exchange_mode(CUstreamCaptureMode * mode) {
    if (mode == NULL || *mode < CU_STREAM_CAPTURE_MODE_GLOBAL ||
        *mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    const CUstreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

// CUDA's programming guide, "prohibited and unhandled operations": a handle that encompasses a
// capturing stream, as its context does, must not be waited for, whatever the mode.
CUresult capture_on_device(int device) {
    CUresult result = CUDA_SUCCESS;
    for (struct capture * c = captures; c != NULL; c = c->next) {
        if (c->origin->object.device == device) {
            result = refuse(c, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
    }
    return result;
}

//
// Streams
//

CUresult stream_new(CUstream * stream, int device, unsigned flags, bool of_runtime) {
    if (stream == NULL || flags > CU_STREAM_NON_BLOCKING) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    char place[32];
    *stream = object_new(sizeof **stream, STREAM, device, of_runtime);
    snprintf(place, sizeof place, "on s%u", (*stream)->object.id);
    (*stream)->place = intern(place);
    return CUDA_SUCCESS;
}

CUresult stream_not_capturing(CUstream stream) {
    if (!is_alive(stream, STREAM)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (stream->capture != NULL) {
        return refuse(stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    return CUDA_SUCCESS;
}

// What asks for another stream's work, or waits for it, spoils a capture that forbids it.
static CUresult can_wait_for(CUstream stream) {
    const CUresult refused = stream_not_capturing(stream);
    return refused != CUDA_SUCCESS ? refused : capture_unsafe_call();
}

// Work that was issued goes on.
CUresult stream_free(CUstream stream) {
    const CUresult refused = stream_not_capturing(stream);
    if (refused != CUDA_SUCCESS) {
        return refused;
    }
    stream_set_tail(stream, NULL);
    stream->object.dead = true;
    return CUDA_SUCCESS;
}

CUresult stream_synchronize(CUstream stream) {
    const CUresult refused = can_wait_for(stream);
    if (refused != CUDA_SUCCESS) {
        return refused;
    }
    work_wait(stream->tail);
    return CUDA_SUCCESS;
}

static CUresult query(const struct work * work) {
    if (!work_done(work)) {
        return CUDA_ERROR_NOT_READY;
    }
    work_seen(work);
    return CUDA_SUCCESS;
}

CUresult stream_query(CUstream stream) {
    const CUresult refused = can_wait_for(stream);
    if (refused != CUDA_SUCCESS) {
        return refused;
    }
    return query(stream->tail);
}

CUresult stream_status(CUstream stream, CUstreamCaptureStatus * status) {
    if (!is_alive(stream, STREAM)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (status == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *status = stream->capture == NULL    ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                         : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

struct work * stream_tail(CUstream stream) {
    return stream->tail;
}

void stream_set_tail(CUstream stream, struct work * work) {
    work_unref(stream->tail);
    work_unref(stream->begin);
    stream->tail = work;
    stream->begin = NULL;
}

// See `issue_node` in graph.c.
static void launch_now(CUstream stream, struct payload * payload) {
    const struct fake_kernel * kernel = &payload->kernel;
    const bool is_programmatic = kernel->programmatic && stream->begin != NULL;
    struct work * begin = is_programmatic ? stream->begin : stream->tail;
    struct work * work = work_issue_early(payload, begin, &stream->tail, 1, stream->place);
    struct work * next = !kernel->programmatic ? work : kernel->late ? stream->tail : begin;
    next = next != NULL ? work_ref(next) : work_issue(NULL, NULL, 0, stream->place);
    stream_set_tail(stream, work);
    if (kernel->kind == FAKE_KERNEL) {
        stream->begin = next;
    } else {
        work_unref(next);
    }
}

CUresult stream_launch(CUstream stream, struct payload * payload) {
    if (!is_alive(stream, STREAM)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    struct capture * capture = stream->capture;
    if (capture == NULL) {
        launch_now(stream, payload);
        return CUDA_SUCCESS;
    }
    if (capture->invalid) {
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    const uint32_t node = nodes_add(&capture->nodes, payload, &stream->front, id_of(stream));
    set_clear(&stream->front);
    set_add(&stream->front, node);
    return CUDA_SUCCESS;
}

// An event that was recorded in a capture draws the stream in:
//
//                     event: not in a capture   in this one   in another   in one that is over
//     not capturing   work, or nothing          -             joins it     refused
//     capturing       refused, unless it was    follows it    refused,     refused
//                     never recorded                          both spoilt
static CUresult wait_captured(CUstream stream, CUevent event) {
    struct capture * capture = event->capture;
    if (capture->ended) {
        return refuse(stream->capture, CUDA_ERROR_INVALID_VALUE);
    }
    if (capture->invalid || (stream->capture != NULL && stream->capture->invalid)) {
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    if (stream->capture != NULL && stream->capture != capture) {
        invalidate(capture);
        return refuse(stream->capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    }
    if (stream->capture == NULL) {
        capture_join(capture, stream);
    }
    set_add_all(&stream->front, &event->front);
    return CUDA_SUCCESS;
}

CUresult stream_wait(CUstream stream, CUevent event, unsigned flags) {
    if (!is_alive(stream, STREAM) || !is_alive(event, EVENT)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (event->capture != NULL) {
        return wait_captured(stream, event);
    }
    if (stream->capture != NULL) {
        return stream->capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
               : event->work == NULL    ? CUDA_SUCCESS
                                     : refuse(stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    }
    if (event->work != NULL) {
        struct work * const deps[] = {stream->tail, event->work};
        stream_set_tail(stream, work_issue(NULL, deps, 2, stream->place));
    }
    return CUDA_SUCCESS;
}

//
// Events
//

CUresult event_new(CUevent * event, int device, unsigned flags, bool of_runtime) {
    if (event == NULL || flags > 7) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *event = object_new(sizeof **event, EVENT, device, of_runtime);
    (*event)->flags = flags;
    return CUDA_SUCCESS;
}

static void event_clear(CUevent event) {
    work_unref(event->work);
    event->work = NULL;
    capture_unref(event->capture);
    event->capture = NULL;
    set_clear(&event->front);
}

CUresult event_free(CUevent event) {
    if (!is_alive(event, EVENT)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    event_clear(event);
    event->object.dead = true;
    return CUDA_SUCCESS;
}

CUresult event_record(CUevent event, CUstream stream) {
    if (!is_alive(event, EVENT) || !is_alive(stream, STREAM) ||
        event->object.device != stream->object.device) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    struct capture * capture = stream->capture;
    if (capture != NULL && capture->invalid) {
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    event_clear(event);
    if (capture != NULL) {
        event->capture = capture_ref(capture);
        set_assign(&event->front, &stream->front);
    } else {
        event->work = work_issue(NULL, &stream->tail, 1, stream->place);
        stream_set_tail(stream, work_ref(event->work));  // what comes next starts after it
    }
    return CUDA_SUCCESS;
}

CUresult event_query(CUevent event) {
    if (!is_alive(event, EVENT)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (event->capture != NULL) {
        return refuse(event->capture, CUDA_ERROR_CAPTURED_EVENT);
    }
    const CUresult unsafe = capture_unsafe_call();
    return unsafe != CUDA_SUCCESS ? unsafe : query(event->work);
}

CUresult event_synchronize(CUevent event) {
    if (!is_alive(event, EVENT)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (event->capture != NULL) {
        return refuse(event->capture, CUDA_ERROR_CAPTURED_EVENT);
    }
    const CUresult unsafe = capture_unsafe_call();
    if (unsafe == CUDA_SUCCESS) {
        work_wait(event->work);
    }
    return unsafe;
}

// After its documentation: both recorded, both with timing, both over.
CUresult event_elapsed(float * milliseconds, CUevent begin, CUevent end) {
    CUevent const events[] = {begin, end};
    for (int i = 0; i < 2; i++) {
        if (!is_alive(events[i], EVENT) || events[i]->work == NULL ||
            (events[i]->flags & CU_EVENT_DISABLE_TIMING) != 0) {
            return CUDA_ERROR_INVALID_HANDLE;
        }
        if (!work_done(events[i]->work)) {
            return CUDA_ERROR_NOT_READY;
        }
    }
    if (milliseconds == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *milliseconds = (float) (work_finished(end->work) - work_finished(begin->work));
    return CUDA_SUCCESS;
}
