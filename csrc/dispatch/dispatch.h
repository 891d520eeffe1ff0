// The seam between a runner and what plays its plan: five functions a dispatcher, and some more
// where it need not block.
#pragma once

#include "ggml-backend.h"
#include "ggml/graph_plan.h"
#include "ggml/message.h"

struct cuda_instances;

// What is to be done around whatever looks at the nodes' addresses. Zeroed: nothing.
struct dispatch_places {
    void (*enter)(void * user);
    void (*leave)(void * user);
    void * user;
};

static inline void places_enter(const struct dispatch_places * places) {
    if (places->enter != NULL) {
        places->enter(places->user);
    }
}

static inline void places_leave(const struct dispatch_places * places) {
    if (places->leave != NULL) {
        places->leave(places->user);
    }
}

struct dispatch_args {
    struct ggml_cgraph * graph;          // allocated
    const struct ggc_graph_plan * plan;  // of that graph on those addresses, verified
    const struct ggc_runner_params * params;
    ggml_backend_dev_t device;
    // CUDA: streams that this plan shares with others; the first may be somebody else's, and what
    // its owner puts on it before and after is in order with the plan. NULL: streams of its own
    struct cuda_instances * instances;
    // CUDA: what was opened for a graph that may look the same and not come again. Its CUDA graph
    // is taken over, to be updated, which takes less time than to make one; should it come again
    // all the same, it makes one anew. NULL: there is none
    void * alike;
    struct dispatch_places places;   // streams of the CPU and of CUDA alone
    const struct message * warning;  // for what does no harm; kept while the dispatcher is open
};

// For devices that work by themselves. Everything happens in the order in which it is asked for.
struct dispatch_async {
    // The instance whose stream copies to and from tensors are put on, now; NULL: this one blocks.
    ggml_backend_t (*transfers)(void * state);
    // As compute, but returns when everything is issued.
    enum ggc_status (*compute)(void * state, const struct message * message);
    enum ggc_status (*synchronize)(void * state, const struct message * message);
    // Before a computation: tensors have changed so far, and the plan is right all the same. NULL:
    // whatever is computed is read from the graph each time.
    void (*changed)(void * state, enum snapshot_change change);
};

struct dispatch_i {
    const char * name;
    // *state is the dispatcher's own, to be closed with close, also when nothing was computed.
    enum ggc_status (*open)(const struct dispatch_args * args, void ** state,
                            const struct message * message);
    // Computes the graph once; returns when everything is done, or has failed and stopped.
    enum ggc_status (*compute)(void * state, const struct message * message);
    // Threads with which a unit is computed.
    uint32_t (*unit_threads)(const void * state, uint32_t unit);
    // When units ran: see ggc_runner_unit_times. NULL where that is not noted.
    const double * (*unit_times)(const void * state);
    void (*close)(void * state);
    const struct dispatch_async * async;  // NULL: everything blocks, and graphs must not change
};

// The unmodified graph through ggml_backend_graph_compute.
extern const struct dispatch_i dispatch_serial;

// The graph through ggml_backend_sched, which also gives memory to the tensors that have none, as
// long as it is open.
extern const struct dispatch_i dispatch_sched;
// Bytes of that memory on the device.
size_t sched_buffer_size(const void * state);

// Streams as threads, each with its own CPU backend instance, events between them.
extern const struct dispatch_i dispatch_cpu;

// Streams of a CUDA device, captured into one CUDA graph.
extern const struct dispatch_i dispatch_cuda;

// The same, issued unit by unit, each timed.
extern const struct dispatch_i dispatch_cuda_trace;

// One instance of ggml's Metal backend, the nodes by phase, or as they stand where the plan has one
// stream: see metal.h.
extern const struct dispatch_i dispatch_metal;

// Whether a rough estimate says that dispatch_cpu gains over dispatch_serial.
bool cpu_streams_pay(const struct dispatch_args * args);
