// CUDA's rules for streams, events, captures and graphs as questions that any driver can answer:
// the fake one in every run of the tests, a real one where there is a GPU (see test_fake_driver.c).
// Memory is set to a value by an asynchronous memset, the only kernel that needs no module.
#pragma once

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "cuda_api.h"
#include "support.h"

struct cuda {
#define POINTER(name, parameters) CUresult(*name) parameters;
    CUDA_FUNCTIONS(POINTER)
#undef POINTER
};

static struct cuda cu;
static unsigned n_unlike;  // answers of a real driver that differ from those of the fake one
static bool
    is_real_driver;  // differences are told and counted; from the fake one they are failures

static inline void load_cuda(void * library) {
#define LOAD(name, parameters)                            \
    *(void **) (void *) &cu.name = dlsym(library, #name); \
    CHECK_MSG(cu.name != NULL, "the driver has no %s", #name);
    CUDA_FUNCTIONS(LOAD)
#undef LOAD
}

static inline void expect(const char * file, int line, const char * call, CUresult got,
                          CUresult expected) {
    if (got == expected) {
        return;
    }
    if (!is_real_driver) {
        test_fail(file, line, "%s is %d, expected %d", call, got, expected);
    }
    printf("%s:%d: %s is %d, expected %d\n", file, line, call, got, expected);
    n_unlike++;
}

#define EXPECT(call, expected) expect(__FILE__, __LINE__, #call, (call), (expected))
#define OK(call) EXPECT(call, CUDA_SUCCESS)
#define SAME(a, b)                                                                            \
    do {                                                                                      \
        const long long rule_a_ = (long long) (a), rule_b_ = (long long) (b);                 \
        if (rule_a_ != rule_b_) {                                                             \
            expect(__FILE__, __LINE__, #a " == " #b, (CUresult) rule_a_, (CUresult) rule_b_); \
        }                                                                                     \
    } while (0)

//
// What each rule starts with: three streams, four events, memory that is zero
//

#define BYTES 4096

struct rig {
    CUstream s[3];
    CUevent e[4];
    CUdeviceptr memory;
    CUgraph graph;
    CUgraphExec exec;
};

static inline void put_byte(struct rig * r, int cell, unsigned char value, int stream) {
    OK(cu.cuMemsetD8Async(r->memory + (CUdeviceptr) cell * 256, value, 256, r->s[stream]));
}

static inline int byte_at(struct rig * r, int cell) {
    unsigned char value = 0xee;
    OK(cu.cuMemcpyDtoH_v2(&value, r->memory + (CUdeviceptr) cell * 256 + 17, 1));
    return value;
}

static inline void rig_init(struct rig * r) {
    memset(r, 0, sizeof *r);
    for (int i = 0; i < 3; i++) {
        OK(cu.cuStreamCreate(&r->s[i], CU_STREAM_NON_BLOCKING));
    }
    for (int i = 0; i < 4; i++) {
        OK(cu.cuEventCreate(&r->e[i], CU_EVENT_DISABLE_TIMING));
    }
    OK(cu.cuMemAlloc_v2(&r->memory, BYTES));
    OK(cu.cuMemsetD8Async(r->memory, 0, BYTES, r->s[0]));
    OK(cu.cuStreamSynchronize(r->s[0]));
}

static inline void rig_free(struct rig * r) {
    for (int i = 0; i < 3; i++) {
        OK(cu.cuStreamSynchronize(r->s[i]));
    }
    if (r->exec != NULL) {
        OK(cu.cuGraphExecDestroy(r->exec));
    }
    if (r->graph != NULL) {
        OK(cu.cuGraphDestroy(r->graph));
    }
    for (int i = 0; i < 3; i++) {
        OK(cu.cuStreamDestroy_v2(r->s[i]));
    }
    for (int i = 0; i < 4; i++) {
        OK(cu.cuEventDestroy_v2(r->e[i]));
    }
    OK(cu.cuMemFree_v2(r->memory));
}

static inline void begin(struct rig * r, int stream) {
    OK(cu.cuStreamBeginCapture_v2(r->s[stream], CU_STREAM_CAPTURE_MODE_RELAXED));
}

static inline void record(struct rig * r, int event, int stream) {
    OK(cu.cuEventRecord(r->e[event], r->s[stream]));
}

static inline void await(struct rig * r, int stream, int event) {
    OK(cu.cuStreamWaitEvent(r->s[stream], r->e[event], 0));
}

static inline void end(struct rig * r, int stream) {
    OK(cu.cuStreamEndCapture(r->s[stream], &r->graph));
}

static inline void launch(struct rig * r, int stream) {
    if (r->exec == NULL) {
        OK(cu.cuGraphInstantiateWithFlags(&r->exec, r->graph, 0));
    }
    OK(cu.cuGraphLaunch(r->exec, r->s[stream]));
    OK(cu.cuStreamSynchronize(r->s[stream]));
}

static inline CUstreamCaptureStatus status_of(struct rig * r, int stream) {
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    OK(cu.cuStreamIsCapturing(r->s[stream], &status));
    return status;
}

// The capture of stream 0 is spoilt: nothing goes into it, it gives no graph, and then all is well.
static inline void expect_spoilt(struct rig * r) {
    CUgraph graph = (CUgraph) (void *) r;
    SAME(status_of(r, 0), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    EXPECT(cu.cuMemsetD8Async(r->memory, 1, 1, r->s[0]), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT(cu.cuEventRecord(r->e[3], r->s[0]), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT(cu.cuStreamEndCapture(r->s[0], &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    SAME(graph == NULL, true);
    for (int i = 0; i < 3; i++) {
        SAME(status_of(r, i), CU_STREAM_CAPTURE_STATUS_NONE);
        put_byte(r, 15, 9, i);
        OK(cu.cuStreamSynchronize(r->s[i]));
    }
}

//
// Rules
//

static inline void rule_events_before_their_record(struct rig * r) {
    OK(cu.cuEventQuery(r->e[0]));
    OK(cu.cuEventSynchronize(r->e[0]));
    await(r, 1, 0);
    OK(cu.cuStreamSynchronize(r->s[1]));
}

static inline void rule_streams_keep_order(struct rig * r) {
    put_byte(r, 0, 1, 0);
    put_byte(r, 0, 2, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    put_byte(r, 0, 3, 1);
    OK(cu.cuStreamSynchronize(r->s[1]));
    SAME(byte_at(r, 0), 3);
    OK(cu.cuStreamQuery(r->s[1]));
    OK(cu.cuEventQuery(r->e[0]));
}

//     0: cell 0 ---> cell 2 --.
//          '-> 1: cell 1 ------'-> cell 3
static inline void capture_diamond(struct rig * r, unsigned char value) {
    begin(r, 0);
    put_byte(r, 0, value, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    put_byte(r, 1, value, 1);
    record(r, 1, 1);
    put_byte(r, 2, value, 0);
    await(r, 0, 1);
    put_byte(r, 3, value, 0);
}

static inline void rule_capture_makes_a_graph(struct rig * r) {
    CUgraphNode nodes[8], from[8], to[8];
    size_t n_nodes = 0, n_edges = 0;
    capture_diamond(r, 7);
    SAME(status_of(r, 1), CU_STREAM_CAPTURE_STATUS_ACTIVE);
    end(r, 0);
    SAME(status_of(r, 1), CU_STREAM_CAPTURE_STATUS_NONE);
    SAME(byte_at(r, 0), 0);  // nothing ran
    OK(cu.cuGraphGetNodes(r->graph, NULL, &n_nodes));
    OK(cu.cuGraphGetEdges(r->graph, NULL, NULL, &n_edges));
    SAME(n_edges, 4);
    OK(cu.cuGraphGetEdges_v2(r->graph, NULL, NULL, NULL, &n_edges));
    SAME(n_nodes, 4);
    SAME(n_edges, 4);
    n_nodes = n_edges = 8;
    OK(cu.cuGraphGetNodes(r->graph, nodes, &n_nodes));
    OK(cu.cuGraphGetEdges_v2(r->graph, from, to, NULL, &n_edges));
    SAME(n_nodes, 4);
    SAME(n_edges, 4);
    SAME(nodes[4] == NULL && from[4] == NULL && to[4] == NULL, true);
    launch(r, 2);
    for (int i = 0; i < 4; i++) {
        SAME(byte_at(r, i), 7);
    }
}

static inline void rule_graph_may_go_once_instantiated(struct rig * r) {
    capture_diamond(r, 5);
    end(r, 0);
    OK(cu.cuGraphInstantiateWithFlags(&r->exec, r->graph, 0));
    OK(cu.cuGraphDestroy(r->graph));
    r->graph = NULL;
    launch(r, 1);
    SAME(byte_at(r, 3), 5);
}

static inline void rule_empty_capture(struct rig * r) {
    size_t n = 9;
    begin(r, 0);
    end(r, 0);
    OK(cu.cuGraphGetNodes(r->graph, NULL, &n));
    SAME(n, 0);
    launch(r, 0);
}

// A stream that was drawn in and did nothing, and one that was drawn in by another that was.
static inline void rule_drawn_in(struct rig * r) {
    begin(r, 0);
    put_byte(r, 0, 1, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    record(r, 1, 1);
    await(r, 2, 1);
    put_byte(r, 2, 2, 2);
    record(r, 2, 2);
    await(r, 0, 2);
    end(r, 0);
    launch(r, 0);
    SAME(byte_at(r, 0), 1);
    SAME(byte_at(r, 2), 2);
}

static inline void rule_unjoined(struct rig * r) {
    begin(r, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    put_byte(r, 0, 1, 1);
    EXPECT(cu.cuStreamEndCapture(r->s[0], &r->graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    SAME(r->graph == NULL, true);
    SAME(status_of(r, 0), CU_STREAM_CAPTURE_STATUS_NONE);
    SAME(status_of(r, 1), CU_STREAM_CAPTURE_STATUS_NONE);
}

static inline void rule_joined_too_early(struct rig * r) {
    begin(r, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    put_byte(r, 0, 1, 1);
    record(r, 1, 1);
    put_byte(r, 1, 1, 1);  // after the record that the join waits for
    await(r, 0, 1);
    EXPECT(cu.cuStreamEndCapture(r->s[0], &r->graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
}

static inline void rule_no_synchronising(struct rig * r) {
    begin(r, 0);
    put_byte(r, 0, 1, 0);
    EXPECT(cu.cuStreamSynchronize(r->s[0]), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
    begin(r, 0);
    EXPECT(cu.cuStreamQuery(r->s[0]), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
}

static inline void rule_no_synchronising_where_drawn_in(struct rig * r) {
    begin(r, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    EXPECT(cu.cuStreamSynchronize(r->s[1]), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
}

static inline void rule_no_waiting_for_captured_events(struct rig * r) {
    begin(r, 0);
    put_byte(r, 0, 1, 0);
    record(r, 0, 0);
    EXPECT(cu.cuEventSynchronize(r->e[0]), CUDA_ERROR_CAPTURED_EVENT);
    expect_spoilt(r);
    begin(r, 0);
    put_byte(r, 0, 1, 0);
    record(r, 0, 0);
    EXPECT(cu.cuEventQuery(r->e[0]), CUDA_ERROR_CAPTURED_EVENT);
    expect_spoilt(r);
}

static inline void rule_begin_and_end_in_their_places(struct rig * r) {
    CUgraph graph = NULL;
    EXPECT(cu.cuStreamEndCapture(r->s[0], &graph), CUDA_ERROR_ILLEGAL_STATE);
    begin(r, 0);
    EXPECT(cu.cuStreamBeginCapture_v2(r->s[0], CU_STREAM_CAPTURE_MODE_RELAXED),
           CUDA_ERROR_ILLEGAL_STATE);
    put_byte(r, 0, 1, 0);
    end(r, 0);
    launch(r, 0);
    SAME(byte_at(r, 0), 1);
}

static inline void rule_end_where_it_began(struct rig * r) {
    CUgraph graph = NULL;
    begin(r, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    EXPECT(cu.cuStreamEndCapture(r->s[1], &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    expect_spoilt(r);
}

static inline void rule_no_waiting_for_work_outside(struct rig * r) {
    put_byte(r, 0, 1, 1);
    record(r, 0, 1);
    begin(r, 0);
    EXPECT(cu.cuStreamWaitEvent(r->s[0], r->e[0], 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    expect_spoilt(r);
}

static inline void rule_no_merging(struct rig * r) {
    CUgraph graph = NULL;
    begin(r, 0);
    begin(r, 1);
    put_byte(r, 0, 1, 1);
    record(r, 0, 1);
    EXPECT(cu.cuStreamWaitEvent(r->s[0], r->e[0], 0), CUDA_ERROR_STREAM_CAPTURE_MERGE);
    SAME(status_of(r, 1), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    EXPECT(cu.cuStreamEndCapture(r->s[1], &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    expect_spoilt(r);
}

static inline void rule_events_of_a_capture_that_is_over(struct rig * r) {
    begin(r, 0);
    put_byte(r, 0, 1, 0);
    record(r, 0, 0);
    end(r, 0);
    EXPECT(cu.cuStreamWaitEvent(r->s[1], r->e[0], 0), CUDA_ERROR_CAPTURED_EVENT);
    record(r, 0, 0);  // from now on it is an event like others
    await(r, 1, 0);
    OK(cu.cuEventSynchronize(r->e[0]));
}

static inline void rule_allocation_in_captures(struct rig * r) {
    CUdeviceptr address = 0;
    begin(r, 0);
    OK(cu.cuMemAlloc_v2(&address, 256));  // a relaxed capture allows it
    OK(cu.cuMemFree_v2(address));
    end(r, 0);
    OK(cu.cuStreamBeginCapture_v2(r->s[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT(cu.cuMemAlloc_v2(&address, 256), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
    record(r, 1, 1);
    OK(cu.cuStreamBeginCapture_v2(r->s[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT(cu.cuEventQuery(r->e[1]), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
}

static inline void rule_other_streams_go_on(struct rig * r) {
    begin(r, 0);
    put_byte(r, 0, 1, 0);
    put_byte(r, 1, 2, 1);
    record(r, 1, 1);
    await(r, 2, 1);
    put_byte(r, 2, 3, 2);
    OK(cu.cuStreamSynchronize(r->s[2]));
    OK(cu.cuEventQuery(r->e[1]));
    end(r, 0);
    SAME(byte_at(r, 0), 0);
    SAME(byte_at(r, 1), 2);
    SAME(byte_at(r, 2), 3);
}

struct ending {
    struct rig * rig;
    CUcontext context;
    CUresult result;
};

static inline void * end_elsewhere(void * arg) {
    struct ending * ending = arg;
    CUgraph graph = NULL;
    cu.cuCtxSetCurrent(ending->context);
    ending->result = cu.cuStreamEndCapture(ending->rig->s[0], &graph);
    if (ending->result == CUDA_SUCCESS) {
        cu.cuGraphDestroy(graph);
    }
    return NULL;
}

static inline CUresult end_on_another_thread(struct rig * r) {
    struct ending ending = {.rig = r};
    pthread_t thread;
    OK(cu.cuCtxGetCurrent(&ending.context));
    CHECK(pthread_create(&thread, NULL, end_elsewhere, &ending) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return ending.result;
}

static inline void rule_threads_of_captures(struct rig * r) {
    begin(r, 0);
    SAME(end_on_another_thread(r), CUDA_SUCCESS);
    OK(cu.cuStreamBeginCapture_v2(r->s[0], CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    SAME(end_on_another_thread(r), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    expect_spoilt(r);
}

static inline void rule_update_of_the_same_shape(struct rig * r) {
    CUgraphExecUpdateResultInfo info = {CU_GRAPH_EXEC_UPDATE_ERROR, NULL, NULL};
    capture_diamond(r, 3);
    end(r, 0);
    launch(r, 0);
    OK(cu.cuGraphDestroy(r->graph));
    capture_diamond(r, 4);
    end(r, 0);
    OK(cu.cuGraphExecUpdate_v2(r->exec, r->graph, &info));
    SAME(info.result, CU_GRAPH_EXEC_UPDATE_SUCCESS);
    launch(r, 0);
    SAME(byte_at(r, 3), 4);
}

static inline void refused_update(struct rig * r) {
    CUgraphExecUpdateResultInfo info = {CU_GRAPH_EXEC_UPDATE_SUCCESS, NULL, NULL};
    EXPECT(cu.cuGraphExecUpdate_v2(r->exec, r->graph, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    SAME(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
    launch(r, 0);  // as it was
    SAME(byte_at(r, 3), 3);
}

static inline void capture_row(struct rig * r, int n, unsigned char value) {
    begin(r, 0);
    for (int i = 0; i < n; i++) {
        put_byte(r, 3 - i, value, 0);
    }
    end(r, 0);
}

static inline void rule_update_of_another_shape(struct rig * r) {
    capture_diamond(r, 3);
    end(r, 0);
    launch(r, 0);
    OK(cu.cuGraphDestroy(r->graph));
    capture_row(r, 4, 4);
    refused_update(r);
}

static inline void rule_update_with_more_or_fewer_nodes(struct rig * r) {
    capture_row(r, 3, 3);
    launch(r, 0);
    for (int n = 2; n <= 4; n += 2) {
        OK(cu.cuGraphDestroy(r->graph));
        capture_row(r, n, 4);
        refused_update(r);
    }
}

static inline void rule_launches_keep_order(struct rig * r) {
    capture_diamond(r, 6);
    end(r, 0);
    OK(cu.cuGraphInstantiateWithFlags(&r->exec, r->graph, 0));
    put_byte(r, 3, 1, 0);
    OK(cu.cuGraphLaunch(r->exec, r->s[0]));
    record(r, 2, 0);
    await(r, 1, 2);
    put_byte(r, 0, 8, 1);
    OK(cu.cuStreamSynchronize(r->s[1]));
    SAME(byte_at(r, 3), 6);
    SAME(byte_at(r, 0), 8);
}

// The fake driver is stricter: CUDA makes a child graph of it.
static inline void strict_rule_no_launch_into_a_capture(struct rig * r) {
    capture_diamond(r, 6);
    end(r, 0);
    launch(r, 1);
    begin(r, 0);
    EXPECT(cu.cuGraphLaunch(r->exec, r->s[0]), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
}

static inline void strict_rule_capturing_streams_stay(struct rig * r) {
    begin(r, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    EXPECT(cu.cuStreamDestroy_v2(r->s[1]), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
}

struct rule {
    const char * name;
    void (*run)(struct rig * rig);
};

#define RULE(name) {#name, rule_##name}
static const struct rule rules[] = {
    RULE(events_before_their_record),
    RULE(streams_keep_order),
    RULE(capture_makes_a_graph),
    RULE(graph_may_go_once_instantiated),
    RULE(empty_capture),
    RULE(drawn_in),
    RULE(unjoined),
    RULE(joined_too_early),
    RULE(no_synchronising),
    RULE(no_synchronising_where_drawn_in),
    RULE(no_waiting_for_captured_events),
    RULE(begin_and_end_in_their_places),
    RULE(end_where_it_began),
    RULE(no_waiting_for_work_outside),
    RULE(no_merging),
    RULE(events_of_a_capture_that_is_over),
    RULE(allocation_in_captures),
    RULE(other_streams_go_on),
    RULE(threads_of_captures),
    RULE(update_of_the_same_shape),
    RULE(update_of_another_shape),
    RULE(update_with_more_or_fewer_nodes),
    RULE(launches_keep_order),
};
static const struct rule strict_rules[] = {
    {"no_launch_into_a_capture", strict_rule_no_launch_into_a_capture},
    {"capturing_streams_stay", strict_rule_capturing_streams_stay},
};
#undef RULE

static inline void run_rules(const struct rule * list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct rig rig;
        test_case("rule %s", list[i].name);
        rig_init(&rig);
        list[i].run(&rig);
        rig_free(&rig);
    }
}
