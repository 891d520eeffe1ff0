// CUDA's rules for streams, events, captures and graphs as questions that any driver can answer:
// the fake one in every run of the tests, a real one where there is a GPU (see test_fake_driver.c).
#pragma once

#include "driver_rig.h"

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

// Before it is instantiated; full edges, as they are without data.
static inline void rule_edges_can_be_changed(struct rig * r) {
    CUgraphNode from[8], to[8];
    CUgraphEdgeData data[8];
    size_t n = 8;
    capture_diamond(r, 7);
    end(r, 0);
    OK(cu.cuGraphGetEdges_v2(r->graph, from, to, data, &n));
    SAME(n, 4);
    SAME(data[0].type, 0);
    OK(cu.cuGraphRemoveDependencies_v2(r->graph, from, to, data, 2));
    EXPECT(cu.cuGraphRemoveDependencies_v2(r->graph, from, to, data, 1), CUDA_ERROR_INVALID_VALUE);
    OK(cu.cuGraphGetEdges_v2(r->graph, NULL, NULL, NULL, &n));
    SAME(n, 2);
    OK(cu.cuGraphAddDependencies_v2(r->graph, from, to, data, 2));
    EXPECT(cu.cuGraphAddDependencies_v2(r->graph, from, to, data, 1), CUDA_ERROR_INVALID_VALUE);
    OK(cu.cuGraphGetEdges_v2(r->graph, NULL, NULL, NULL, &n));
    SAME(n, 4);
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
    EXPECT(cu.cuStreamWaitEvent(r->s[1], r->e[0], 0), CUDA_ERROR_INVALID_VALUE);
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

// Copies that wait for a stream of their own, too: ggml-cuda's to and from the host do.
static inline void rule_no_waiting_beside_a_capture(struct rig * r) {
    CUresult (*const waits[])(CUstream) = {cu.cuStreamSynchronize, cu.cuStreamQuery};
    for (int i = 0; i < 2; i++) {
        OK(cu.cuStreamBeginCapture_v2(r->s[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
        EXPECT(waits[i](r->s[1]), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        expect_spoilt(r);
    }
    record(r, 1, 1);
    OK(cu.cuStreamBeginCapture_v2(r->s[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT(cu.cuEventSynchronize(r->e[1]), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
    begin(r, 0);  // a relaxed one allows it
    OK(cu.cuStreamSynchronize(r->s[1]));
    OK(cu.cuEventSynchronize(r->e[1]));
    end(r, 0);
}

static inline void add_one(void * data) {
    ++*(int *) data;
}

static inline void rule_the_host_is_called_in_order(struct rig * r) {
    int n = 0;
    for (int i = 0; i < 3; i++) {
        OK(cu.cuLaunchHostFunc(r->s[i % 2], add_one, &n));
        record(r, 0, i % 2);
        await(r, (i + 1) % 2, 0);
    }
    OK(cu.cuStreamSynchronize(r->s[1]));
    SAME(n, 3);
}

static inline void rule_events_with_times(struct rig * r) {
    CUevent begin = NULL, end = NULL;
    float milliseconds = -1;
    OK(cu.cuEventCreate(&begin, CU_EVENT_DEFAULT));
    OK(cu.cuEventCreate(&end, CU_EVENT_DEFAULT));
    EXPECT(cu.cuEventElapsedTime(&milliseconds, begin, end), CUDA_ERROR_INVALID_HANDLE);
    OK(cu.cuEventRecord(begin, r->s[0]));
    put_byte(r, 0, 1, 0);
    OK(cu.cuEventRecord(end, r->s[0]));
    record(r, 0, 0);
    OK(cu.cuStreamSynchronize(r->s[0]));
    OK(cu.cuEventElapsedTime(&milliseconds, begin, end));
    SAME(milliseconds >= 0 && milliseconds < 10000, true);
    EXPECT(cu.cuEventElapsedTime(&milliseconds, begin, r->e[0]), CUDA_ERROR_INVALID_HANDLE);
    OK(cu.cuEventDestroy_v2(begin));
    OK(cu.cuEventDestroy_v2(end));
}

// What a thread may do during captures of its own, by the mode that it has set for itself.
static inline void rule_modes_of_threads(struct rig * r) {
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    CUdeviceptr address = 0;
    record(r, 1, 1);
    OK(cu.cuThreadExchangeStreamCaptureMode(&mode));
    SAME(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
    OK(cu.cuStreamBeginCapture_v2(r->s[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
    OK(cu.cuMemAlloc_v2(&address, 256));
    OK(cu.cuMemFree_v2(address));
    OK(cu.cuEventQuery(r->e[1]));
    OK(cu.cuStreamSynchronize(r->s[1]));
    end(r, 0);
    OK(cu.cuThreadExchangeStreamCaptureMode(&mode));
    SAME(mode, CU_STREAM_CAPTURE_MODE_RELAXED);
}

struct elsewhere {
    CUcontext context;
    CUstreamCaptureMode mode;
    CUresult result;
};

static inline void * allocate_elsewhere(void * arg) {
    struct elsewhere * elsewhere = arg;
    CUdeviceptr address = 0;
    cu.cuCtxSetCurrent(elsewhere->context);
    cu.cuThreadExchangeStreamCaptureMode(&elsewhere->mode);
    elsewhere->result = cu.cuMemAlloc_v2(&address, 256);
    if (elsewhere->result == CUDA_SUCCESS) {
        cu.cuMemFree_v2(address);
    }
    return NULL;
}

static inline CUresult allocate_on_another_thread(CUstreamCaptureMode mode) {
    struct elsewhere elsewhere = {.mode = mode};
    pthread_t thread;
    OK(cu.cuCtxGetCurrent(&elsewhere.context));
    CHECK(pthread_create(&thread, NULL, allocate_elsewhere, &elsewhere) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return elsewhere.result;
}

// A capture of somebody else's in mode GLOBAL forbids allocation to every thread that has not said
// that it does not mind: which is what a library that allocates has to say.
static inline void rule_modes_of_other_threads(struct rig * r) {
    OK(cu.cuStreamBeginCapture_v2(r->s[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
    SAME(allocate_on_another_thread(CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
    SAME(allocate_on_another_thread(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), CUDA_SUCCESS);
    SAME(allocate_on_another_thread(CU_STREAM_CAPTURE_MODE_GLOBAL),
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
}

// Not even in a relaxed capture: which is why nobody may destroy a cuBLAS handle meanwhile.
static inline void rule_no_waiting_for_the_context(struct rig * r) {
    OK(cu.cuCtxSynchronize());
    begin(r, 0);
    put_byte(r, 0, 1, 0);
    EXPECT(cu.cuCtxSynchronize(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
    OK(cu.cuCtxSynchronize());
}

static inline void rule_capability_of_a_device(struct rig * r) {
    (void) r;
    int major = 0, minor = -1;
    OK(cu.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0));
    OK(cu.cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0));
    SAME(major >= 3 && minor >= 0 && minor <= 9, true);
    EXPECT(cu.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, -1),
           CUDA_ERROR_INVALID_DEVICE);
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
    SAME(status_of(r, 0), CU_STREAM_CAPTURE_STATUS_NONE);  // refused, and over
    put_byte(r, 5, 1, 0);
    CUgraph graph = NULL;
    EXPECT(cu.cuStreamEndCapture(r->s[0], &graph), CUDA_ERROR_ILLEGAL_STATE);
    OK(cu.cuStreamSynchronize(r->s[0]));
    SAME(byte_at(r, 5), 1);
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

// An update changes nothing about launches that were made before it.
static inline void rule_update_after_a_launch(struct rig * r) {
    CUgraphExecUpdateResultInfo info = {CU_GRAPH_EXEC_UPDATE_ERROR, NULL, NULL};
    capture_diamond(r, 3);
    end(r, 0);
    OK(cu.cuGraphInstantiateWithFlags(&r->exec, r->graph, 0));
    OK(cu.cuGraphDestroy(r->graph));
    OK(cu.cuGraphLaunch(r->exec, r->s[0]));
    record(r, 2, 0);
    capture_diamond(r, 4);
    end(r, 0);
    OK(cu.cuGraphExecUpdate_v2(r->exec, r->graph, &info));
    await(r, 1, 2);
    OK(cu.cuStreamSynchronize(r->s[1]));
    SAME(byte_at(r, 3), 3);
    launch(r, 0);
    SAME(byte_at(r, 3), 4);
}

// The same nodes on other memory.
static inline void rule_update_of_addresses(struct rig * r) {
    CUgraphExecUpdateResultInfo info = {CU_GRAPH_EXEC_UPDATE_ERROR, NULL, NULL};
    begin(r, 0);
    put_byte(r, 5, 1, 0);
    end(r, 0);
    launch(r, 0);
    OK(cu.cuGraphDestroy(r->graph));
    begin(r, 0);
    put_byte(r, 6, 2, 0);
    end(r, 0);
    OK(cu.cuGraphExecUpdate_v2(r->exec, r->graph, &info));
    launch(r, 0);
    SAME(byte_at(r, 5), 1);
    SAME(byte_at(r, 6), 2);
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
    RULE(edges_can_be_changed),
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
    RULE(the_host_is_called_in_order),
    RULE(events_with_times),
    RULE(modes_of_threads),
    RULE(modes_of_other_threads),
    RULE(no_waiting_beside_a_capture),
    RULE(no_waiting_for_the_context),
    RULE(capability_of_a_device),
    RULE(other_streams_go_on),
    RULE(threads_of_captures),
    RULE(update_of_the_same_shape),
    RULE(update_after_a_launch),
    RULE(update_of_addresses),
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
        rule_name = list[i].name;
        rig_init(&rig);
        list[i].run(&rig);
        rig_free(&rig);
    }
}
