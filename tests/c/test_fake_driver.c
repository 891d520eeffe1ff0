// The fake CUDA driver (tests/cuda): CUDA's rules, the order that it lets work run in, the races
// that it reports, against an oracle that knows all pairs.
//
//     GGC_LIBCUDA=libcuda.so.1 test_fake_driver
//
// puts the same rules to a real driver and tells where it answers otherwise.
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "../cuda/driver_rules.h"
#include "../cuda/fake_driver.h"

#define FAKE_FUNCTIONS(X)                                                                      \
    X(CUresult, fake_launch_kernel, (CUstream stream, const struct fake_kernel * kernel))      \
    X(CUresult, fake_launch,                                                                   \
      (CUstream stream, void (*function)(void * argument), void * argument, const char * name, \
       const struct fake_access * accesses, size_t n))                                         \
    X(void, fake_seed, (uint64_t seed))                                                        \
    X(void, fake_delay, (unsigned microseconds))                                               \
    X(void, fake_hold, (bool hold))                                                            \
    X(void, fake_idle, (void) )                                                                \
    X(uint64_t, fake_races, (void) )                                                           \
    X(const char *, fake_first_race, (void) )                                                  \
    X(uint64_t, fake_errors, (void) )                                                          \
    X(const char *, fake_first_error, (void) )                                                 \
    X(uint64_t, fake_kernels_run, (void) )                                                     \
    X(uint64_t, fake_live, (const char * kind))                                                \
    X(size_t, fake_log_count, (void) )                                                         \
    X(const char *, fake_log_line, (size_t index))                                             \
    X(uint64_t, fake_calls, (const char * function))                                           \
    X(void, fake_fail, (const char * function, int n, CUresult error))                         \
    X(bool, fake_as_runtime, (bool runtime))                                                   \
    X(void, fake_set_version, (int version))                                                   \
    X(void, fake_set_device_count, (int n))                                                    \
    X(void, fake_set_capability, (int capability))                                             \
    X(void, fake_set_memory, (size_t total))                                                   \
    X(void, fake_reset, (void) )

static struct {
#define POINTER(result, name, parameters) result(*name) parameters;
    FAKE_FUNCTIONS(POINTER)
#undef POINTER
} fake;

static void load_fake(void * library) {
#define LOAD(result, name, parameters)                      \
    *(void **) (void *) &fake.name = dlsym(library, #name); \
    CHECK_MSG(fake.name != NULL, "the library has no %s", #name);
    FAKE_FUNCTIONS(LOAD)
#undef LOAD
}

//
// Kernels. Memory of the fake driver can be read by the host; cells are atomic, so that a race that
// is meant to be there is none for the thread sanitizer.
//

#define CELLS 8

static atomic_uint * cell_of(struct rig * r, int i) {
    return (atomic_uint *) (uintptr_t) (r->memory + (CUdeviceptr) i * 256);
}

static struct fake_access touch(struct rig * r, int cell, bool write) {
    return (struct fake_access) {cell_of(r, cell), 256, write};
}

static void enqueue(struct rig * r, int stream, const char * name, struct fake_access a,
                    struct fake_access b) {
    const struct fake_access accesses[] = {a, b};
    OK(fake.fake_launch(r->s[stream], NULL, NULL, name, accesses, b.address != NULL ? 2 : 1));
}

static void reads(struct rig * r, int stream, int cell) {
    enqueue(r, stream, "reader", touch(r, cell, false), (struct fake_access) {NULL, 0, 0});
}

static void writes(struct rig * r, int stream, int cell) {
    enqueue(r, stream, "writer", touch(r, cell, true), (struct fake_access) {NULL, 0, 0});
}

static void synchronise(struct rig * r) {
    for (int i = 0; i < 3; i++) {
        OK(cu.cuStreamSynchronize(r->s[i]));
    }
}

static void expect_races(struct rig * r, uint64_t n) {
    synchronise(r);
    CHECK_MSG(fake.fake_races() == n, "%llu races, expected %llu: %s",
              (unsigned long long) fake.fake_races(), (unsigned long long) n,
              fake.fake_first_race());
    CHECK_MSG(fake.fake_errors() == 0, "%s", fake.fake_first_error());
}

//
// Asynchrony
//

static atomic_int turn;

static void wait_for_turn(void * argument) {
    while (atomic_load(&turn) != (int) (intptr_t) argument) {
        sched_yield();
    }
    atomic_fetch_add(&turn, 1);
}

static void wait_for(struct rig * r, int stream, int value) {
    OK(fake.fake_launch(r->s[stream], wait_for_turn, (void *) (intptr_t) value, "turn", NULL, 0));
}

// Each can only end while the other runs: 0 on stream 0, 1 on stream 1, 2 on stream 0, ...
static void streams_run_at_once(struct rig * r) {
    atomic_store(&turn, 0);
    for (int i = 0; i < 20; i++) {
        wait_for(r, i % 2, i);
    }
    synchronise(r);
    CHECK_EQ(atomic_load(&turn), 20);
}

static void calls_return_at_once(struct rig * r) {
    atomic_store(&turn, 0);
    wait_for(r, 0, 1);
    record(r, 0, 0);
    await(r, 1, 0);
    EXPECT(cu.cuStreamQuery(r->s[0]), CUDA_ERROR_NOT_READY);
    EXPECT(cu.cuStreamQuery(r->s[1]), CUDA_ERROR_NOT_READY);
    EXPECT(cu.cuEventQuery(r->e[0]), CUDA_ERROR_NOT_READY);
    atomic_store(&turn, 1);
    OK(cu.cuEventSynchronize(r->e[0]));
    OK(cu.cuEventQuery(r->e[0]));
}

static void waits_are_for_the_last_record_issued(struct rig * r) {
    fake.fake_hold(true);
    put_byte(r, 0, 1, 0);
    record(r, 0, 0);
    await(r, 1, 0);  // for the first record
    put_byte(r, 1, 1, 1);
    atomic_store(&turn, 5);
    wait_for(r, 0, 6);
    record(r, 0, 0);
    OK(cu.cuStreamSynchronize(r->s[1]));  // ends, though stream 0 does not
    EXPECT(cu.cuEventQuery(r->e[0]), CUDA_ERROR_NOT_READY);
    atomic_store(&turn, 6);
    synchronise(r);
}

static void work_outlives_its_stream(struct rig * r) {
    CUstream stream = NULL;
    OK(cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    fake.fake_hold(true);
    OK(cu.cuMemsetD8Async(r->memory, 77, 256, stream));
    OK(cu.cuStreamDestroy_v2(stream));
    fake.fake_idle();
    SAME(byte_at(r, 0), 77);
}

static void update_needs_nodes_of_the_same_kind(struct rig * r) {
    CUgraphExecUpdateResultInfo info;
    begin(r, 0);
    put_byte(r, 0, 1, 0);
    end(r, 0);
    launch(r, 0);
    OK(cu.cuGraphDestroy(r->graph));
    begin(r, 0);
    OK(fake.fake_launch(r->s[0], NULL, NULL, "kernel", NULL, 0));
    end(r, 0);
    EXPECT(cu.cuGraphExecUpdate_v2(r->exec, r->graph, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    CHECK_EQ(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED);
    CHECK(info.errorNode != NULL);
}

static atomic_uint order_seen;

static void note_order(void * argument) {
    atomic_store(&order_seen, atomic_load(&order_seen) * 4 + (unsigned) (uintptr_t) argument);
}

// A node runs as soon as its predecessors in the graph have, wherever it was captured: of two that
// no edge orders, each comes first in some launch.
static void replays_keep_only_the_edges(struct rig * r) {
    unsigned seen[2] = {0, 0};
    begin(r, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    OK(fake.fake_launch(r->s[0], note_order, (void *) 1, "one", NULL, 0));
    OK(fake.fake_launch(r->s[1], note_order, (void *) 2, "two", NULL, 0));
    record(r, 1, 1);
    await(r, 0, 1);
    end(r, 0);
    for (int i = 0; i < 1000 && (seen[0] < 3 || seen[1] < 3); i++) {
        atomic_store(&order_seen, 0);
        launch(r, 0);
        const unsigned order = atomic_load(&order_seen);
        seen[0] += order == 4 * 1 + 2;
        seen[1] += order == 4 * 2 + 1;
    }
    CHECK(seen[0] >= 3 && seen[1] >= 3);
}

static void update_leaves_a_launch_alone(struct rig * r) {
    CUgraphExecUpdateResultInfo info;
    capture_diamond(r, 3);
    end(r, 0);
    OK(cu.cuGraphInstantiateWithFlags(&r->exec, r->graph, 0));
    OK(cu.cuGraphDestroy(r->graph));
    capture_diamond(r, 4);
    end(r, 0);
    fake.fake_hold(true);
    OK(cu.cuGraphLaunch(r->exec, r->s[0]));
    OK(cu.cuGraphExecUpdate_v2(r->exec, r->graph, &info));
    OK(cu.cuGraphExecDestroy(r->exec));  // an executable graph may go while it runs
    r->exec = NULL;
    synchronise(r);
    SAME(byte_at(r, 3), 3);
}

struct host_thread {
    struct rig rig;
    CUcontext context;
    pthread_t thread;
};

static void * drive_alone(void * arg) {
    struct host_thread * self = arg;
    struct rig * r = &self->rig;
    OK(cu.cuCtxPushCurrent_v2(self->context));
    rig_init(r);
    for (int i = 0; i < 20; i++) {
        const unsigned char value = (unsigned char) (i + 1);
        capture_diamond(r, value);
        end(r, 0);
        launch(r, i % 3);
        SAME(byte_at(r, 3), value);
        OK(cu.cuGraphExecDestroy(r->exec));
        OK(cu.cuGraphDestroy(r->graph));
        r->exec = NULL;
        r->graph = NULL;
    }
    rig_free(r);
    OK(cu.cuCtxPopCurrent_v2(NULL));
    return NULL;
}

static void host_threads_do_not_disturb_each_other(struct rig * r) {
    struct host_thread threads[4];
    (void) r;
    for (int i = 0; i < 4; i++) {
        OK(cu.cuCtxGetCurrent(&threads[i].context));
        CHECK(pthread_create(&threads[i].thread, NULL, drive_alone, &threads[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i].thread, NULL) == 0);
    }
    CHECK_MSG(fake.fake_races() == 0, "%s", fake.fake_first_race());
}

//
// Races
//

static void race_write_write(struct rig * r) {
    writes(r, 0, 0);
    writes(r, 1, 0);
    expect_races(r, 1);
    CHECK(strstr(fake.fake_first_race(), "two writes: writer on s") != NULL);
}

static void race_write_read(struct rig * r) {
    writes(r, 0, 0);
    reads(r, 1, 0);
    expect_races(r, 1);
}

static void race_of_every_reader(struct rig * r) {
    reads(r, 0, 0);
    reads(r, 1, 0);
    reads(r, 2, 0);
    expect_races(r, 0);
    reads(r, 0, 0);
    reads(r, 1, 0);
    record(r, 0, 1);
    await(r, 2, 0);
    writes(r, 2, 0);  // follows the second reader, not the first
    expect_races(r, 1);
}

static void no_race_along_events(struct rig * r) {
    writes(r, 0, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    reads(r, 1, 0);
    record(r, 1, 1);
    await(r, 2, 1);
    writes(r, 2, 0);
    expect_races(r, 0);
}

static void no_race_between_other_bytes(struct rig * r) {
    const struct fake_access low = {cell_of(r, 0), 100, 1},
                             high = {(char *) cell_of(r, 0) + 100, 156, 1};
    enqueue(r, 0, "low", low, touch(r, 1, false));
    enqueue(r, 1, "high", high, touch(r, 1, false));
    expect_races(r, 0);
    const struct fake_access middle = {(char *) cell_of(r, 0) + 99, 2, 0};
    enqueue(r, 0, "low", low, touch(r, 1, false));
    enqueue(r, 2, "middle", middle, touch(r, 1, false));
    expect_races(r, 1);
}

static void race_by_a_record_too_early(struct rig * r) {
    record(r, 0, 0);
    writes(r, 0, 0);
    await(r, 1, 0);
    reads(r, 1, 0);
    expect_races(r, 1);
}

static void no_race_after_the_host_waited(struct rig * r) {
    writes(r, 0, 0);
    OK(cu.cuStreamSynchronize(r->s[0]));
    writes(r, 1, 0);
    record(r, 0, 1);
    while (cu.cuEventQuery(r->e[0]) != CUDA_SUCCESS) {
        sched_yield();
    }
    writes(r, 2, 0);
    expect_races(r, 0);
}

// That everything has happened to end is no order.
static void race_in_spite_of_time(struct rig * r) {
    writes(r, 0, 0);
    fake.fake_idle();
    writes(r, 1, 0);
    expect_races(r, 1);
}

static void capture_fork(struct rig * r, bool joined) {
    begin(r, 0);
    writes(r, 0, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    reads(r, 1, 0);
    writes(r, 1, 1);
    record(r, 1, 1);
    writes(r, 0, 2);
    if (joined) {
        await(r, 0, 1);
    }
    reads(r, 0, 1);
    await(r, 0, 1);
    end(r, 0);
    OK(cu.cuGraphInstantiateWithFlags(&r->exec, r->graph, 0));
}

static void races_in_replays(struct rig * r) {
    capture_fork(r, false);
    expect_races(r, 0);  // capturing runs nothing
    launch(r, 0);
    expect_races(r, 1);
    launch(r, 0);
    expect_races(r, 2);
}

static void no_races_in_replays(struct rig * r) {
    capture_fork(r, true);
    for (int i = 0; i < 5; i++) {
        OK(cu.cuGraphLaunch(r->exec, r->s[i % 3]));  // launches of one graph follow each other
    }
    expect_races(r, 0);
}

//
// Kernels that begin before those that they follow are over
//

static void visit_argument(void * argument, fake_visit visit, void * visitor) {
    visit(visitor, argument, 256, false);
}

static void visit_written(void * argument, fake_visit visit, void * visitor) {
    visit(visitor, argument, 256, true);
}

static void nothing(void * argument) {
    (void) argument;
}

static void writes_programmatic(struct rig * r, int stream, int cell, bool late) {
    OK(fake.fake_launch_kernel(r->s[stream], &(struct fake_kernel) {.name = "writer",
                                                                    .programmatic = true,
                                                                    .late = late,
                                                                    .argument = cell_of(r, cell),
                                                                    .accesses = visit_written}));
}

// Reads before it waits.
static void reads_early(struct rig * r, int stream, int cell) {
    OK(fake.fake_launch_kernel(r->s[stream],
                               &(struct fake_kernel) {.name = "reader",
                                                      .programmatic = true,
                                                      .argument = cell_of(r, cell),
                                                      .early = nothing,
                                                      .early_accesses = visit_argument}));
}

// Issues to one stream, at once and captured.
static void expect_early(struct rig * r, void (*issue)(struct rig * r), bool races) {
    CUgraph graph;
    issue(r);
    synchronise(r);
    expect_races(r, races);
    OK(cu.cuStreamBeginCapture_v2(r->s[0], CU_STREAM_CAPTURE_MODE_RELAXED));
    issue(r);
    OK(cu.cuStreamEndCapture(r->s[0], &graph));
    OK(cu.cuGraphInstantiateWithFlags(&r->exec, graph, 0));
    OK(cu.cuGraphDestroy(graph));
    OK(cu.cuGraphLaunch(r->exec, r->s[0]));
    synchronise(r);
    expect_races(r, 2 * races);
}

static void write_and_read(struct rig * r) {
    writes_programmatic(r, 0, 0, false);
    reads_early(r, 0, 0);
}

static void write_late_and_read(struct rig * r) {
    writes_programmatic(r, 0, 0, true);
    reads_early(r, 0, 0);
}

static void write_another_and_read(struct rig * r) {
    writes_programmatic(r, 0, 0, false);
    writes_programmatic(r, 0, 1, false);
    reads_early(r, 0, 0);
}

static void write_another_late_and_read(struct rig * r) {
    writes_programmatic(r, 0, 0, false);
    writes_programmatic(r, 0, 1, true);
    reads_early(r, 0, 0);
}

static void write_plainly_and_read(struct rig * r) {
    writes(r, 0, 0);
    reads_early(r, 0, 0);
}

static void race_with_the_kernel_before(struct rig * r) {
    expect_early(r, write_and_read, true);
}

static void race_with_a_late_kernel_before(struct rig * r) {
    expect_early(r, write_late_and_read, true);
}

static void race_with_the_kernel_before_an_early_one(struct rig * r) {
    expect_early(r, write_another_and_read, true);
}

static void no_race_with_the_kernel_before_a_late_one(struct rig * r) {
    expect_early(r, write_another_late_and_read, false);
}

static void no_race_with_a_kernel_that_is_over(struct rig * r) {
    expect_early(r, write_plainly_and_read, false);
}

static void races_beside_replays(struct rig * r) {
    capture_fork(r, true);
    OK(cu.cuGraphLaunch(r->exec, r->s[0]));
    reads(r, 2, 2);
    expect_races(r, 1);
    OK(cu.cuGraphLaunch(r->exec, r->s[0]));
    record(r, 3, 0);
    await(r, 2, 3);
    reads(r, 2, 2);
    expect_races(r, 1);
}

static void memory_that_is_gone(struct rig * r) {
    CUdeviceptr memory = 0;
    OK(cu.cuMemAlloc_v2(&memory, 512));
    begin(r, 0);
    OK(cu.cuMemsetD8Async(memory, 1, 512, r->s[0]));
    end(r, 0);
    launch(r, 0);
    OK(cu.cuMemFree_v2(memory));
    CHECK_EQ(fake.fake_errors(), 0);
    launch(r, 0);
    CHECK_EQ(fake.fake_errors(), 1);
    CUdeviceptr in_use = 0;
    OK(cu.cuMemAlloc_v2(&in_use, 512));
    fake.fake_hold(true);
    OK(cu.cuMemsetD8Async(in_use, 1, 512, r->s[0]));
    OK(cu.cuMemFree_v2(in_use));  // waits for the device
    OK(cu.cuStreamSynchronize(r->s[0]));
    CHECK_EQ(fake.fake_errors(), 1);
    CHECK(strstr(fake.fake_first_error(), "not allocated") != NULL);
    EXPECT(cu.cuMemFree_v2(memory), CUDA_ERROR_INVALID_VALUE);
}

//
// Handles, devices, the log, faults
//

static void handles_after_destruction(struct rig * r) {
    CUstream stream = NULL;
    CUevent event = NULL;
    OK(cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cu.cuEventCreate(&event, 0));
    OK(cu.cuStreamDestroy_v2(stream));
    OK(cu.cuEventDestroy_v2(event));
    EXPECT(cu.cuStreamSynchronize(stream), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cu.cuStreamDestroy_v2(stream), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cu.cuEventRecord(event, r->s[0]), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cu.cuStreamWaitEvent(r->s[0], event, 0), CUDA_ERROR_INVALID_HANDLE);
    CHECK_EQ(fake.fake_errors(), 4);
    EXPECT(cu.cuEventRecord((CUevent) (void *) r->s[0], r->s[0]), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cu.cuStreamSynchronize(NULL), CUDA_ERROR_INVALID_HANDLE);
    CHECK_EQ(fake.fake_errors(), 4);
    capture_diamond(r, 1);
    end(r, 0);
    launch(r, 0);
    OK(cu.cuGraphExecDestroy(r->exec));
    OK(cu.cuGraphDestroy(r->graph));
    EXPECT(cu.cuGraphLaunch(r->exec, r->s[0]), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cu.cuGraphInstantiateWithFlags(&r->exec, r->graph, 0), CUDA_ERROR_INVALID_VALUE);
    CHECK_EQ(fake.fake_errors(), 6);
    r->exec = NULL;
    r->graph = NULL;
}

static void two_devices(struct rig * r) {
    static const char * const ids[] = FAKE_PCI_IDS;
    CUdevice device = -1;
    CUcontext other = NULL, before = NULL, now = NULL;
    CUevent event = NULL;
    OK(cu.cuDeviceGetByPCIBusId(&device, ids[1]));
    CHECK_EQ(device, 1);
    EXPECT(cu.cuDeviceGetByPCIBusId(&device, "0000:00:00.0"), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cu.cuDeviceGet(&device, 2), CUDA_ERROR_INVALID_DEVICE);
    const uint64_t retained = fake.fake_live("context");
    OK(cu.cuDevicePrimaryCtxRetain(&other, 1));
    CHECK_EQ(fake.fake_live("context"), retained + 1);
    OK(cu.cuCtxGetCurrent(&before));
    OK(cu.cuCtxPushCurrent_v2(other));
    OK(cu.cuEventCreate(&event, 0));
    OK(cu.cuCtxPopCurrent_v2(&now));
    CHECK(now == other && other != before);
    OK(cu.cuCtxGetCurrent(&now));
    CHECK(now == before);
    EXPECT(cu.cuEventRecord(event, r->s[0]), CUDA_ERROR_INVALID_HANDLE);  // of another device
    OK(cu.cuStreamWaitEvent(r->s[0], event, 0));                          // waiting is fine
    OK(cu.cuEventDestroy_v2(event));
    OK(cu.cuDevicePrimaryCtxRelease_v2(1));
    EXPECT(cu.cuDevicePrimaryCtxRelease_v2(1), CUDA_ERROR_INVALID_CONTEXT);
    EXPECT(cu.cuCtxPushCurrent_v2(other), CUDA_ERROR_INVALID_CONTEXT);
}

static void memory_is_limited(struct rig * r) {
    CUdeviceptr memory = 0;
    size_t available = 0, total = 0;
    (void) r;
    fake.fake_set_memory(1 << 20);
    OK(cu.cuMemGetInfo_v2(&available, &total));
    CHECK_EQ(total, 1 << 20);
    CHECK_EQ(available, (1 << 20) - BYTES);
    EXPECT(cu.cuMemAlloc_v2(&memory, 1 << 20), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cu.cuMemAlloc_v2(&memory, available));
    CHECK_EQ(fake.fake_live("memory"), 1 << 20);
    OK(cu.cuMemFree_v2(memory));
}

static void calls_are_logged(struct rig * r) {
    record(r, 0, 0);
    fake.fake_reset();
    CHECK_EQ(fake.fake_log_count(), 0);
    await(r, 1, 0);
    const bool before = fake.fake_as_runtime(true);
    await(r, 1, 0);
    fake.fake_as_runtime(before);
    EXPECT(cu.cuStreamWaitEvent(r->s[1], NULL, 0), CUDA_ERROR_INVALID_HANDLE);
    CHECK_EQ(fake.fake_log_count(), 2);
    CHECK_EQ(fake.fake_calls("cuStreamWaitEvent"), 2);
    CHECK_EQ(fake.fake_calls("cuStreamWait"), 0);
    unsigned stream = 0, event = 0;
    int result = -1;
    CHECK(sscanf(fake.fake_log_line(0), "cuStreamWaitEvent(s%u, e%u, 0) = %d", &stream, &event,
                 &result) == 3);
    CHECK(stream > 0 && event > 0 && result == 0);
    CHECK(strstr(fake.fake_log_line(1), "e0, 0) = 400") != NULL);
    CHECK(fake.fake_log_line(2) == NULL);
}

static void calls_fail_on_demand(struct rig * r) {
    CUevent event = NULL;
    const uint64_t events = fake.fake_live("event");
    fake.fake_fail("cuEventCreate", 2, CUDA_ERROR_OUT_OF_MEMORY);
    OK(cu.cuEventCreate(&event, 0));
    OK(cu.cuEventDestroy_v2(event));
    fake.fake_as_runtime(true);
    OK(cu.cuEventCreate(&event, 0));
    OK(cu.cuEventDestroy_v2(event));
    fake.fake_as_runtime(false);
    EXPECT(cu.cuEventCreate(&event, 0), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQ(fake.fake_live("event"), events);
    OK(cu.cuEventCreate(&event, 0));
    fake.fake_fail("cuEventQuery", -2, CUDA_ERROR_UNKNOWN);
    OK(cu.cuEventQuery(event));
    EXPECT(cu.cuEventQuery(event), CUDA_ERROR_UNKNOWN);
    EXPECT(cu.cuEventQuery(event), CUDA_ERROR_UNKNOWN);
    fake.fake_fail("cuEventQuery", 0, 0);
    OK(cu.cuEventQuery(event));
    OK(cu.cuEventDestroy_v2(event));
    begin(r, 0);
    fake.fake_fail("cuEventRecord", 1, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    EXPECT(cu.cuEventRecord(r->e[0], r->s[0]), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_spoilt(r);
    begin(r, 0);
    fake.fake_fail("cuStreamEndCapture", 1, CUDA_ERROR_UNKNOWN);
    EXPECT(cu.cuStreamEndCapture(r->s[0], &r->graph), CUDA_ERROR_UNKNOWN);
    CHECK(r->graph == NULL);
    SAME(status_of(r, 0), CU_STREAM_CAPTURE_STATUS_NONE);
}

static void old_and_missing_drivers(struct rig * r) {
    int version = 0;
    (void) r;
    fake.fake_set_version(11020);
    OK(cu.cuDriverGetVersion(&version));
    CHECK_EQ(version, 11020);
    fake.fake_set_device_count(0);
    EXPECT(cu.cuInit(0), CUDA_ERROR_NO_DEVICE);
}

static void errors_have_names(struct rig * r) {
    const char * text = NULL;
    (void) r;
    OK(cu.cuGetErrorName(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, &text));
    CHECK(strcmp(text, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED") == 0);
    OK(cu.cuGetErrorString(CUDA_ERROR_NOT_READY, &text));
    CHECK(strcmp(text, "device not ready") == 0);
    EXPECT(cu.cuGetErrorString(12345, &text), CUDA_ERROR_INVALID_VALUE);
}

static const struct rule cases[] = {
#define CASE(name) {#name, name}
    CASE(streams_run_at_once),
    CASE(calls_return_at_once),
    CASE(waits_are_for_the_last_record_issued),
    CASE(work_outlives_its_stream),
    CASE(replays_keep_only_the_edges),
    CASE(update_needs_nodes_of_the_same_kind),
    CASE(update_leaves_a_launch_alone),
    CASE(host_threads_do_not_disturb_each_other),
    CASE(race_write_write),
    CASE(race_write_read),
    CASE(race_of_every_reader),
    CASE(no_race_along_events),
    CASE(no_race_between_other_bytes),
    CASE(race_by_a_record_too_early),
    CASE(no_race_after_the_host_waited),
    CASE(race_in_spite_of_time),
    CASE(races_in_replays),
    CASE(no_races_in_replays),
    CASE(races_beside_replays),
    CASE(race_with_the_kernel_before),
    CASE(race_with_a_late_kernel_before),
    CASE(race_with_the_kernel_before_an_early_one),
    CASE(no_race_with_the_kernel_before_a_late_one),
    CASE(no_race_with_a_kernel_that_is_over),
    CASE(memory_that_is_gone),
    CASE(handles_after_destruction),
    CASE(two_devices),
    CASE(memory_is_limited),
    CASE(calls_are_logged),
    CASE(calls_fail_on_demand),
    CASE(old_and_missing_drivers),
    CASE(errors_have_names),
#undef CASE
};

//
// Random schedules, eager and captured. The oracle knows what comes before what from rows of bits,
// and compares all pairs.
//

#define MAX_KERNELS 40
#define STREAMS 3

struct kernel {
    int stream;
    uint64_t waits, before;  // kernels: waited for directly; before this one in all
    unsigned reads, writes;  // cells
    atomic_uint * memory;
    unsigned number;
    bool raced;
};

struct schedule {
    unsigned n, n_racing;
    struct kernel kernels[MAX_KERNELS];
    unsigned expected[CELLS];
};

static unsigned mix(unsigned a, unsigned b) {
    return (a ^ b) * 2654435761u + 12345;
}

static unsigned mixed(const struct kernel * k, unsigned cell, unsigned sum) {
    return mix(mix(sum, k->number), cell);
}

static void compute(void * argument) {
    const struct kernel * k = argument;
    unsigned sum = 0;
    for (unsigned c = 0; c < CELLS; c++) {
        sum = k->reads >> c & 1 ? mix(sum, atomic_load(k->memory + 64 * c)) : sum;
    }
    for (unsigned c = 0; c < CELLS; c++) {
        if (k->writes >> c & 1) {
            atomic_store(k->memory + 64 * c, mixed(k, c, sum));
        }
    }
}

static void compute_serially(struct schedule * s) {
    memset(s->expected, 0, sizeof s->expected);
    for (unsigned i = 0; i < s->n; i++) {
        const struct kernel * k = &s->kernels[i];
        unsigned sum = 0;
        for (unsigned c = 0; c < CELLS; c++) {
            sum = k->reads >> c & 1 ? mix(sum, s->expected[c]) : sum;
        }
        for (unsigned c = 0; c < CELLS; c++) {
            s->expected[c] = k->writes >> c & 1 ? mixed(k, c, sum) : s->expected[c];
        }
    }
}

static bool in_conflict(const struct kernel * a, const struct kernel * b) {
    return (a->writes & (b->writes | b->reads)) != 0 || (a->reads & b->writes) != 0;
}

// Waits for whatever conflicts and is not ordered yet, with one wait sometimes left out.
static void choose_waits(struct test_rng * rng, struct schedule * s, unsigned i) {
    struct kernel * k = &s->kernels[i];
    for (unsigned j = i; j-- > 0;) {
        const struct kernel * other = &s->kernels[j];
        if (other->stream == k->stream) {
            k->before |= other->before | UINT64_C(1) << j;
        }
    }
    for (unsigned j = i; j-- > 0;) {
        const bool wanted = in_conflict(&s->kernels[j], k) && !test_chance(rng, 0.03);
        if ((k->before >> j & 1) == 0 && (wanted || test_chance(rng, 0.05))) {
            k->waits |= UINT64_C(1) << j;
            k->before |= s->kernels[j].before | UINT64_C(1) << j;
        }
    }
}

static void random_schedule(struct test_rng * rng, struct rig * r, struct schedule * s) {
    memset(s, 0, sizeof *s);
    s->n = test_range(rng, 2, MAX_KERNELS);
    for (unsigned i = 0; i < s->n; i++) {
        struct kernel * k = &s->kernels[i];
        k->stream = (int) test_below(rng, STREAMS);
        k->reads = (unsigned) (test_rand(rng) & test_rand(rng)) & 0xff;
        k->writes = 1u << test_below(rng, CELLS);
        k->memory = cell_of(r, 0);
        k->number = i;
        choose_waits(rng, s, i);
        for (unsigned j = 0; j < i; j++) {
            if ((k->before >> j & 1) == 0 && in_conflict(&s->kernels[j], k)) {
                s->kernels[j].raced = k->raced = true;  // reported for whichever runs later
            }
        }
    }
    for (unsigned i = 0; i < s->n; i++) {
        s->n_racing += s->kernels[i].raced;
    }
    compute_serially(s);
}

static void touch_cells(void * argument, fake_visit visit, void * visitor) {
    const struct kernel * k = argument;
    for (unsigned c = 0; c < CELLS; c++) {
        if (k->reads >> c & 1) {
            visit(visitor, k->memory + 64 * c, 4, false);
        }
        if (k->writes >> c & 1) {
            visit(visitor, k->memory + 64 * c, 4, true);
        }
    }
}

static void issue(struct rig * r, struct schedule * s, CUevent * events) {
    for (unsigned i = 0; i < s->n; i++) {
        struct kernel * k = &s->kernels[i];
        for (unsigned j = 0; j < i; j++) {
            if (k->waits >> j & 1) {
                OK(cu.cuStreamWaitEvent(r->s[k->stream], events[j], 0));
            }
        }
        OK(fake.fake_launch_kernel(
            r->s[k->stream],
            &(struct fake_kernel) {
                .name = "kernel", .function = compute, .argument = k, .accesses = touch_cells}));
        OK(cu.cuEventRecord(events[i], r->s[k->stream]));
    }
}

static void check_schedule(struct rig * r, const struct schedule * s, const char * how) {
    const uint64_t races = fake.fake_races();
    CHECK_MSG((races > 0) == (s->n_racing > 0), "%s: %llu races told, %u kernels race: %s", how,
              (unsigned long long) races, s->n_racing, fake.fake_first_race());
    CHECK_MSG(races <= s->n_racing, "%s: %llu races told, %u kernels race", how,
              (unsigned long long) races, s->n_racing);
    for (int c = 0; races == 0 && c < CELLS; c++) {
        CHECK_EQ(atomic_load(cell_of(r, c)), s->expected[c]);
    }
    fake.fake_reset();
}

static void clear_cells(struct rig * r) {
    OK(cu.cuMemsetD8Async(r->memory, 0, BYTES, r->s[0]));
    synchronise(r);
}

static void run_eagerly(struct rig * r, struct schedule * s, CUevent * events) {
    clear_cells(r);
    issue(r, s, events);
    synchronise(r);
    check_schedule(r, s, "eager");
}

static void run_captured(struct rig * r, struct schedule * s, CUevent * events) {
    begin(r, 0);
    record(r, 0, 0);
    await(r, 1, 0);
    await(r, 2, 0);
    issue(r, s, events);
    record(r, 1, 1);
    record(r, 2, 2);
    await(r, 0, 1);
    await(r, 0, 2);
    end(r, 0);
    for (int i = 0; i < 2; i++) {
        clear_cells(r);
        launch(r, i);
        check_schedule(r, s, "replay");
    }
    OK(cu.cuGraphExecDestroy(r->exec));
    OK(cu.cuGraphDestroy(r->graph));
    r->exec = NULL;
    r->graph = NULL;
}

static void random_schedules(const struct test_options * options) {
    struct rig rig;
    CUevent events[MAX_KERNELS];
    unsigned n_racy = 0;
    rig_init(&rig);
    for (unsigned i = 0; i < MAX_KERNELS; i++) {
        OK(cu.cuEventCreate(&events[i], CU_EVENT_DISABLE_TIMING));
    }
    fake.fake_delay(3);
    for (uint64_t i = 0; i < options->iterations; i++) {
        const uint64_t number = options->first + i;
        struct test_rng rng = test_rng(options->seed, number);
        struct schedule schedule;
        test_case("random schedule %llu", (unsigned long long) number);
        fake.fake_seed(test_rand(&rng));
        random_schedule(&rng, &rig, &schedule);
        n_racy += schedule.n_racing > 0;
        run_eagerly(&rig, &schedule, events);
        run_captured(&rig, &schedule, events);
    }
    for (unsigned i = 0; i < MAX_KERNELS; i++) {
        OK(cu.cuEventDestroy_v2(events[i]));
    }
    rig_free(&rig);
    CHECK_MSG(options->iterations < 50 ||
                  (n_racy > options->iterations / 10 && n_racy < options->iterations * 9 / 10),
              "%u of %llu schedules are racy", n_racy, (unsigned long long) options->iterations);
}

//
// The program
//

static void open_context(void) {
    CUcontext context = NULL;
    CUstream stream = NULL;
    int count = 0;
    test_case("before anything else");
    EXPECT(cu.cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);
    const CUresult error = cu.cuInit(0);
    CHECK_MSG(error == CUDA_SUCCESS || is_real_driver, "the fake driver fails");
    if (error != CUDA_SUCCESS) {
        test_skip("this machine's driver finds no GPU");
    }
    EXPECT(cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_ERROR_INVALID_CONTEXT);
    OK(cu.cuDeviceGetCount(&count));
    CHECK(count >= 1);
    OK(cu.cuDevicePrimaryCtxRetain(&context, 0));
    OK(cu.cuCtxPushCurrent_v2(context));
}

#if defined(__linux__)
#    define ON_LINUX true  // where the fake driver is built with the tests
#else
#    define ON_LINUX false
#endif

static void * open_library(const char * path) {
    char own[4096];
    const bool must_be_there = path == NULL && ON_LINUX;
    if (path == NULL) {
        const ssize_t n = readlink("/proc/self/exe", own, sizeof own - 30);
        own[n > 0 ? n : 0] = '\0';
        char * slash = strrchr(own, '/');
        snprintf(slash != NULL ? slash : own, 30, "/cuda/libcuda.so.1");
        path = own;
    }
    void * library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK_MSG(library != NULL || !must_be_there, "the fake driver is missing: %s", dlerror());
    if (library == NULL) {
        test_skip("no CUDA driver, nor the fake one, which is built on Linux only (%s)", dlerror());
    }
    return library;
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 600);
    const char * path = getenv("GGC_LIBCUDA");
    void * library = open_library(path);
    is_real_driver = path != NULL;
    load_cuda(library);
    if (is_real_driver) {
        open_context();
        run_rules(rules, sizeof rules / sizeof *rules);
        return test_passed("%u answers differ from those of the fake driver", n_unlike);
    }
    load_fake(library);
    open_context();
    run_rules(rules, sizeof rules / sizeof *rules);
    run_rules(strict_rules, sizeof strict_rules / sizeof *strict_rules);
    CHECK_MSG(fake.fake_races() == 0 && fake.fake_errors() == 0, "%s%s", fake.fake_first_race(),
              fake.fake_first_error());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake.fake_reset();
        run_rules(&cases[i], 1);
    }
    fake.fake_reset();
    random_schedules(&options);
    static const char * const kinds[] = {"stream", "event", "graph", "exec", "memory"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        CHECK_MSG(fake.fake_live(kinds[i]) == 0, "a %s is left", kinds[i]);
    }
    return test_passed("%zu rules, %zu cases, %llu random schedules",
                       sizeof rules / sizeof *rules + sizeof strict_rules / sizeof *strict_rules,
                       sizeof cases / sizeof *cases, (unsigned long long) options.iterations);
}
