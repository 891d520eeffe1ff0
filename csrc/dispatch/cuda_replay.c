#include "cuda_replay.h"

#include <string.h>
#include <time.h>

#include "cuda_edges.h"
#include "cuda_instance.h"
#include "cuda_urgency.h"

static bool ok(struct cuda_failure * failure, const char * what, CUresult error) {
    if (error != 0) {
        *failure = (struct cuda_failure) {what, error};
    }
    return error == 0;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e6 * (double) time.tv_sec + 1e-3 * (double) time.tv_nsec;
}

static void drop(struct cuda_replay * replay) {
    if (replay->exec != NULL) {
        replay->driver->exec_destroy(replay->exec);
        replay->exec = NULL;
    }
}

//
// Opening and closing
//

bool cuda_replay_open(struct cuda_replay * replay, const char * pci_id,
                      struct cuda_failure * failure, const struct message * message) {
    *replay = (struct cuda_replay) {.driver = cuda_driver_get(message)};
    const struct cuda_driver * driver = replay->driver;
    if (driver == NULL) {
        return false;
    }
    if (pci_id == NULL) {
        message_set(message, "ggml does not tell where the device is: the streams are used without "
                             "a CUDA graph");
        return false;
    }
    if (!ok(failure, "finding the device", driver->device_by_pci(&replay->device, pci_id)) ||
        !ok(failure, "asking for the compute capability",
            cuda_capability(driver, replay->device, &replay->capability))) {
        return false;
    }
    const CUresult error = driver->primary_retain(&replay->context, replay->device);
    if (!ok(failure, "using the device's context", error)) {
        replay->context = NULL;
        return false;
    }
    if (!cuda_replay_enter(replay, failure)) {
        return false;
    }
    const bool made = ok(failure, "making a stream",
                         driver->stream_create(&replay->stream, CU_STREAM_NON_BLOCKING));
    replay->stream = made ? replay->stream : NULL;
    cuda_replay_leave(replay);
    return made;
}

void cuda_replay_close(struct cuda_replay * replay) {
    struct cuda_failure failure;
    if (replay->context == NULL) {
        return;
    }
    if (cuda_replay_enter(replay, &failure)) {
        if (replay->stream != NULL) {
            replay->driver->stream_synchronize(replay->stream);
        }
        drop(replay);
        if (replay->stream != NULL) {
            replay->driver->stream_destroy(replay->stream);
        }
        cuda_replay_leave(replay);
    }
    replay->driver->primary_release(replay->device);
    *replay = (struct cuda_replay) {0};
}

bool cuda_replay_enter(struct cuda_replay * replay, struct cuda_failure * failure) {
    return ok(failure, "making the device current", replay->driver->push(replay->context));
}

void cuda_replay_leave(struct cuda_replay * replay) {
    CUcontext popped;
    replay->driver->pop(&popped);
}

//
// Capturing
//

bool cuda_replay_begin(struct cuda_replay * replay, struct cuda_failure * failure) {
    cuda_capture_enter();
    replay->figures.capture = -now();
    const CUresult error =
        replay->driver->begin_capture(replay->stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    if (error != 0) {
        cuda_capture_leave();
    }
    return ok(failure, "beginning a capture", error);
}

// For the figures alone: what cannot be told is 0.
static void count(struct cuda_replay * replay, CUgraph graph) {
    size_t nodes = 0, edges = 0;
    if (replay->driver->graph_nodes(graph, NULL, &nodes) != 0) {
        nodes = 0;
    }
    if (replay->driver->graph_edges == NULL ||
        replay->driver->graph_edges(graph, NULL, NULL, NULL, &edges) != 0) {
        edges = 0;
    }
    replay->figures.n_nodes = (uint32_t) nodes;
    replay->figures.n_edges = (uint32_t) edges;
}

static bool instantiate(struct cuda_replay * replay, CUgraph graph, bool priorities,
                        struct cuda_failure * failure) {
    const double start = now();
    const CUresult error = replay->driver->instantiate(
        &replay->exec, graph, priorities ? CU_GRAPH_INSTANTIATE_USE_NODE_PRIORITY : 0);
    if (!ok(failure, "instantiating the captured graph", error)) {
        replay->exec = NULL;
        return false;
    }
    replay->figures.instantiate = now() - start;
    replay->figures.n_instantiations++;
    return true;
}

// cuGraphExecUpdate refuses another number of nodes, other edges, other kinds of nodes, memory of
// another device; and leaves the graph as it was.
static bool update(struct cuda_replay * replay, CUgraph graph) {
    struct CUgraphExecUpdateResultInfo info = {0};
    const double start = now();
    if (replay->driver->exec_update(replay->exec, graph, &info) != 0) {
        return false;
    }
    replay->figures.update = now() - start;
    replay->figures.n_updates++;
    return true;
}

static bool apply(struct cuda_replay * replay, CUgraph graph, const struct cuda_captured * captured,
                  struct cuda_urgency * urgency, struct cuda_failure * failure) {
    count(replay, graph);
    if (!cuda_edges_secure(captured, replay, graph, failure)) {
        return false;
    }
    if (urgency != NULL) {
        cuda_urgency_apply(urgency, captured, replay, graph);
    }
    if (replay->exec != NULL && update(replay, graph)) {
        return true;
    }
    drop(replay);
    return instantiate(replay, graph, urgency != NULL, failure);
}

bool cuda_replay_end(struct cuda_replay * replay, CUresult issued,
                     const struct cuda_captured * captured, struct cuda_urgency * urgency,
                     struct cuda_failure * failure) {
    CUgraph graph = NULL;
    const CUresult ended = replay->driver->end_capture(replay->stream, &graph);
    cuda_capture_leave();
    replay->figures.capture += now();
    bool fine = ok(failure, "capturing", issued != 0 ? issued : ended);
    if (fine) {
        replay->figures.n_captures++;
        fine = apply(replay, graph, captured, urgency, failure);
    }
    if (graph != NULL) {
        replay->driver->graph_destroy(graph);
    }
    if (!fine) {
        drop(replay);
    }
    return fine;
}

bool cuda_replay_launch(struct cuda_replay * replay, struct cuda_failure * failure) {
    return ok(failure, "launching the captured graph",
              replay->driver->launch(replay->exec, replay->stream));
}

bool cuda_replay_wait(struct cuda_replay * replay, struct cuda_failure * failure) {
    return ok(failure, "waiting for the captured graph",
              replay->driver->stream_synchronize(replay->stream));
}
