// The driver's functions as programs find them, with the log of calls and the faults; what they do
// is in capture.c (streams, events), graph.c, work.c (running) and shadow.c (memory).
#include "fake_driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "capture.h"
#include "errors.h"
#include "graph.h"
#include "shadow.h"

#define MAX_STACK 32
#define MAX_FAULTS 32
#define DEFAULT_VERSION 12080
#define DEFAULT_CAPABILITY 90
#define HOPPER 90  // the first with programmatic serialization
#define DEFAULT_MEMORY ((size_t) 16 << 30)

struct CUctx_st {
    int device;
    unsigned n_retained;  // not by the runtime
    unsigned n_users;
};

struct fault {
    char function[48];
    int n;  // > 0: calls until it fails; < 0: all from the -n-th on
    CUresult error;
};

static struct CUctx_st contexts[FAKE_DEVICES] = {{.device = 0}, {.device = 1}};
static const char * const pci_ids[FAKE_DEVICES] = FAKE_PCI_IDS;

static struct {
    bool initialised, plain_launches;
    int version, n_devices, capability;
    size_t memory;
    struct fault faults[MAX_FAULTS];
    char ** log;
    size_t n_log, log_capacity;
} driver = {.version = DEFAULT_VERSION,
            .n_devices = FAKE_DEVICES,
            .capability = DEFAULT_CAPABILITY,
            .memory = DEFAULT_MEMORY};

static _Thread_local bool of_runtime;
static _Thread_local struct {
    CUcontext items[MAX_STACK];
    int n;
} stack;

//
// Log and faults
//

static void log_call(const char * function, CUresult result, const char * format, ...)
    __attribute__((format(printf, 3, 4)));

static void log_call(const char * function, CUresult result, const char * format, ...) {
    if (of_runtime) {
        return;
    }
    char arguments[200], line[300];
    va_list args;
    va_start(args, format);
    vsnprintf(arguments, sizeof arguments, format, args);
    va_end(args);
    snprintf(line, sizeof line, "%s(%s) = %d", function, arguments, result);
    if (driver.n_log == driver.log_capacity) {
        driver.log_capacity = 2 * driver.log_capacity + 64;
        driver.log = reallocate(driver.log, driver.log_capacity * sizeof *driver.log);
    }
    const size_t size = strlen(line) + 1;
    driver.log[driver.n_log++] = memcpy(allocate(size), line, size);
}

static CUresult fault_of(const char * function) {
    for (int i = 0; i < MAX_FAULTS && !of_runtime; i++) {
        struct fault * fault = &driver.faults[i];
        if (fault->n == 0 || strcmp(fault->function, function) != 0) {
            continue;
        }
        if (fault->n == 1 || fault->n == -1) {
            fault->n = fault->n == 1 ? 0 : -1;
            return fault->error;
        }
        fault->n -= fault->n > 0 ? 1 : -1;
    }
    return CUDA_SUCCESS;
}

void fake_fail(const char * function, int n, CUresult error) {
    driver_lock();
    struct fault * free_one = NULL;
    for (int i = 0; i < MAX_FAULTS; i++) {
        struct fault * fault = &driver.faults[i];
        if (fault->n == 0) {
            free_one = fault;
        } else if (n == 0 && strcmp(fault->function, function) == 0) {
            fault->n = 0;
        }
    }
    if (n != 0 && free_one != NULL) {
        *free_one = (struct fault) {.n = n, .error = error};
        snprintf(free_one->function, sizeof free_one->function, "%s", function);
    }
    driver_unlock();
}

// Every function: a fault comes first, then `action`; `on_fault` is done only where a fault came.
// `result` may be used in what is logged.
#define ENTRY(name, parameters, before, action, on_fault, ...) \
    CUresult name parameters {                                 \
        driver_lock();                                         \
        CUresult result = fault_of(#name);                     \
        if (result != CUDA_SUCCESS) {                          \
            on_fault;                                          \
        } else {                                               \
            result = before;                                   \
            result = result == CUDA_SUCCESS ? action : result; \
        }                                                      \
        log_call(#name, result, __VA_ARGS__);                  \
        driver_unlock();                                       \
        return result;                                         \
    }
#define NOTHING ((void) 0)
// The identity of a new object, once there is one.
#define NEW(pointer) (result == CUDA_SUCCESS ? id_of(*(pointer)) : 0)

static CUresult ready(void) {
    return driver.initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

static CUcontext current(void) {
    return stack.n > 0 ? stack.items[stack.n - 1] : NULL;
}

static CUresult in_context(void) {
    if (!driver.initialised) {
        return CUDA_ERROR_NOT_INITIALIZED;
    }
    return current() != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

//
// Devices and contexts
//

static CUresult initialise(unsigned flags) {
    if (flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (driver.n_devices == 0) {
        return CUDA_ERROR_NO_DEVICE;
    }
    driver.initialised = true;
    return CUDA_SUCCESS;
}

static CUresult store_int(int * to, int value) {
    if (to == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *to = value;
    return CUDA_SUCCESS;
}

static bool is_device(CUdevice device) {
    return device >= 0 && device < driver.n_devices;
}

static CUresult find_by_pci_id(CUdevice * device, const char * id) {
    if (device == NULL || id == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (int i = 0; i < driver.n_devices; i++) {
        if (strcasecmp(pci_ids[i], id) == 0) {
            return store_int(device, i);
        }
    }
    return CUDA_ERROR_INVALID_VALUE;
}

static CUresult retain(CUcontext * context, CUdevice device) {
    if (!is_device(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    if (context == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *context = &contexts[device];
    contexts[device].n_users++;
    contexts[device].n_retained += !of_runtime;
    return CUDA_SUCCESS;
}

static CUresult release(CUdevice device) {
    if (!is_device(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    struct CUctx_st * context = &contexts[device];
    if (!of_runtime && context->n_retained == 0) {
        report_error("the primary context of device %d is released more often than retained",
                     device);
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    context->n_users--;
    context->n_retained -= !of_runtime;
    return CUDA_SUCCESS;
}

static CUresult push(CUcontext context) {
    if (context == NULL || context->n_users == 0) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (stack.n == MAX_STACK) {
        report_error("%d contexts are pushed and not popped", MAX_STACK);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    stack.items[stack.n++] = context;
    return CUDA_SUCCESS;
}

static CUresult pop(CUcontext * context) {
    if (stack.n == 0) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    stack.n--;
    if (context != NULL) {
        *context = stack.items[stack.n];
    }
    return CUDA_SUCCESS;
}

static CUresult set_current(CUcontext context) {
    if (stack.n > 0) {
        stack.n--;
    }
    return context != NULL ? push(context) : CUDA_SUCCESS;
}

static CUresult get_current(CUcontext * context) {
    if (context == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *context = current();
    return CUDA_SUCCESS;
}

static CUresult wait_for_context(void) {
    const CUresult refused = capture_on_device(current()->device);
    if (refused == CUDA_SUCCESS) {
        work_wait_all();
    }
    return refused;
}

// Only what the library asks for: the compute capability.
static CUresult device_attribute(int * value, int attribute, CUdevice device) {
    if (!is_device(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
            return store_int(value, driver.capability / 10);
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
            return store_int(value, driver.capability % 10);
        default: return CUDA_ERROR_INVALID_VALUE;
    }
}

static CUresult priority_range(int * least, int * greatest) {
    if (least != NULL) {
        *least = 0;
    }
    if (greatest != NULL) {
        *greatest = -5;
    }
    return CUDA_SUCCESS;
}

ENTRY(cuInit, (unsigned flags), CUDA_SUCCESS, initialise(flags), NOTHING, "%u", flags)
ENTRY(cuDriverGetVersion, (int * version), CUDA_SUCCESS, store_int(version, driver.version),
      NOTHING, "%d", driver.version)
ENTRY(cuDeviceGetCount, (int * count), ready(), store_int(count, driver.n_devices), NOTHING, "%d",
      driver.n_devices)
ENTRY(cuDeviceGet, (CUdevice * device, int ordinal), ready(),
      is_device(ordinal) ? store_int(device, ordinal) : CUDA_ERROR_INVALID_DEVICE, NOTHING, "%d",
      ordinal)
ENTRY(cuDeviceGetByPCIBusId, (CUdevice * device, const char * id), ready(),
      find_by_pci_id(device, id), NOTHING, "%s", id != NULL ? id : "NULL")
ENTRY(cuDeviceGetAttribute, (int * value, int attribute, CUdevice device), ready(),
      device_attribute(value, attribute, device), NOTHING, "%d, %d", attribute, device)
ENTRY(cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device), ready(),
      retain(context, device), NOTHING, "%d", device)
ENTRY(cuDevicePrimaryCtxRelease_v2, (CUdevice device), ready(), release(device), NOTHING, "%d",
      device)
ENTRY(cuCtxPushCurrent_v2, (CUcontext context), ready(), push(context), NOTHING, "%d",
      context != NULL ? context->device : -1)
ENTRY(cuCtxPopCurrent_v2, (CUcontext * context), ready(), pop(context), NOTHING, "%d", stack.n)
ENTRY(cuCtxGetCurrent, (CUcontext * context), ready(), get_current(context), NOTHING, "%d",
      current() != NULL ? current()->device : -1)
ENTRY(cuCtxSetCurrent, (CUcontext context), ready(), set_current(context), NOTHING, "%d",
      context != NULL ? context->device : -1)
ENTRY(cuCtxSynchronize, (void), in_context(), wait_for_context(), NOTHING, "%d",
      current() != NULL ? current()->device : -1)
ENTRY(cuCtxGetStreamPriorityRange, (int * least, int * greatest), in_context(),
      priority_range(least, greatest), NOTHING, " ")

//
// Memory
//

struct range {
    char * address;
    size_t size;
    void * to;  // of a copy
    unsigned char value;
};

static CUresult memory_info(size_t * free_bytes, size_t * total) {
    if (free_bytes == NULL || total == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    const size_t used = shadow_used(current()->device);
    *total = driver.memory;
    *free_bytes = used < driver.memory ? driver.memory - used : 0;
    return CUDA_SUCCESS;
}

static CUresult memory_new(CUdeviceptr * address, size_t size) {
    const CUresult unsafe = capture_unsafe_call();
    if (unsafe != CUDA_SUCCESS) {
        return unsafe;
    }
    if (address == NULL || size == 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    void * memory = shadow_allocate(current()->device, size, driver.memory);
    *address = (CUdeviceptr) (uintptr_t) memory;
    return memory != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

// Waits for the device, as CUDA does.
static CUresult memory_free(CUdeviceptr address) {
    const CUresult unsafe = capture_unsafe_call();
    if (unsafe != CUDA_SUCCESS || address == 0) {
        return unsafe;
    }
    work_wait_all();
    return shadow_free((void *) (uintptr_t) address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static void visit_written(void * argument, fake_visit visit, void * visitor) {
    const struct range * range = argument;
    visit(visitor, range->address, range->size, true);
}

static void visit_read(void * argument, fake_visit visit, void * visitor) {
    const struct range * range = argument;
    visit(visitor, range->address, range->size, false);
}

static void fill(void * argument) {
    const struct range * range = argument;
    memset(range->address, range->value, range->size);
}

static void copy_out(void * argument) {
    const struct range * range = argument;
    memcpy(range->to, range->address, range->size);
}

static struct payload * range_payload(struct range value, struct fake_kernel kernel) {
    struct range * range = allocate(sizeof *range);
    *range = value;
    kernel.argument = range;
    kernel.release = free;
    return payload_new(&kernel);
}

static CUresult set_bytes(CUdeviceptr address, unsigned char value, size_t n, CUstream stream) {
    struct payload * payload = range_payload(
        (struct range) {.address = (char *) (uintptr_t) address, .size = n, .value = value},
        (struct fake_kernel) {
            .name = "memset", .kind = FAKE_MEMSET, .function = fill, .accesses = visit_written});
    const CUresult result = stream_launch(stream, payload);
    payload_unref(payload);
    return result;
}

static CUresult copy_to_host(void * to, CUdeviceptr from, size_t size) {
    const CUresult unsafe = capture_unsafe_call();
    if (unsafe != CUDA_SUCCESS) {
        return unsafe;
    }
    struct payload * payload = range_payload(
        (struct range) {.address = (char *) (uintptr_t) from, .size = size, .to = to},
        (struct fake_kernel) {
            .name = "copy", .kind = FAKE_MEMCPY, .function = copy_out, .accesses = visit_read});
    struct work * work = work_issue(payload, NULL, 0, "to the host");
    work_wait(work);
    work_unref(work);
    payload_unref(payload);
    return CUDA_SUCCESS;
}

static CUresult call_host(CUstream stream, void (*function)(void * data), void * data) {
    if (function == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    struct payload * payload = payload_new(&(struct fake_kernel) {
        .name = "host", .kind = FAKE_HOST, .function = function, .argument = data});
    const CUresult result = stream_launch(stream, payload);
    payload_unref(payload);
    return result;
}

ENTRY(cuMemGetInfo_v2, (size_t * free_bytes, size_t * total_bytes), in_context(),
      memory_info(free_bytes, total_bytes), NOTHING, " ")
ENTRY(cuMemAlloc_v2, (CUdeviceptr * address, size_t size), in_context(), memory_new(address, size),
      NOTHING, "%zu", size)
ENTRY(cuMemFree_v2, (CUdeviceptr address), in_context(), memory_free(address), NOTHING, "%llx",
      address)
ENTRY(cuMemsetD8Async, (CUdeviceptr address, unsigned char value, size_t n, CUstream stream),
      in_context(), set_bytes(address, value, n, stream), capture_fault(stream, result),
      "%llx, %u, %zu, s%u", address, value, n, id_of(stream))
ENTRY(cuMemcpyDtoH_v2, (void * to, CUdeviceptr from, size_t size), in_context(),
      copy_to_host(to, from, size), NOTHING, "%p, %llx, %zu", to, from, size)

//
// Streams, events, captures, graphs
//

ENTRY(cuStreamCreate, (CUstream * stream, unsigned flags), in_context(),
      stream_new(stream, current()->device, flags, of_runtime), NOTHING, "s%u, %u", NEW(stream),
      flags)
ENTRY(cuStreamCreateWithPriority, (CUstream * stream, unsigned flags, int priority), in_context(),
      stream_new(stream, current()->device, flags, of_runtime), NOTHING, "s%u, %u, %d", NEW(stream),
      flags, priority)
ENTRY(cuStreamDestroy_v2, (CUstream stream), ready(), stream_free(stream), NOTHING, "s%u",
      id_of(stream))
ENTRY(cuStreamSynchronize, (CUstream stream), ready(), stream_synchronize(stream),
      capture_fault(stream, result), "s%u", id_of(stream))
ENTRY(cuStreamQuery, (CUstream stream), ready(), stream_query(stream),
      capture_fault(stream, result), "s%u", id_of(stream))
ENTRY(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags), ready(),
      stream_wait(stream, event, flags), capture_fault(stream, result), "s%u, e%u, %u",
      id_of(stream), id_of(event), flags)
ENTRY(cuThreadExchangeStreamCaptureMode, (CUstreamCaptureMode * mode), ready(),
      capture_exchange_mode(mode), NOTHING, "%d", mode != NULL ? (int) *mode : -1)
ENTRY(cuStreamIsCapturing, (CUstream stream, CUstreamCaptureStatus * status), ready(),
      stream_status(stream, status), NOTHING, "s%u", id_of(stream))
ENTRY(cuStreamBeginCapture_v2, (CUstream stream, CUstreamCaptureMode mode), ready(),
      capture_begin(stream, mode), NOTHING, "s%u, %d", id_of(stream), (int) mode)
ENTRY(cuStreamEndCapture, (CUstream stream, CUgraph * graph), ready(), capture_end(stream, graph),
      capture_abandon(stream), "s%u, g%u", id_of(stream), NEW(graph))

static CUresult info_of(CUstream stream, CUstreamCaptureStatus * status, unsigned long long * id,
                        CUgraph * graph, const CUgraphNode ** next, size_t * n_next) {
    if (next != NULL || n_next != NULL) {  // what the next node will follow: not told here
        const bool whole = next != NULL && n_next != NULL;
        if (!whole) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        *next = NULL;
        *n_next = 0;
    }
    if (id != NULL) {
        *id = 0;
    }
    return capture_info(stream, status, graph);
}
ENTRY(cuStreamGetCaptureInfo_v2,
      (CUstream stream, CUstreamCaptureStatus * status, unsigned long long * id, CUgraph * graph,
       const CUgraphNode ** next, size_t * n_next),
      ready(), info_of(stream, status, id, graph, next, n_next), NOTHING, "s%u", id_of(stream))

ENTRY(cuEventCreate, (CUevent * event, unsigned flags), in_context(),
      event_new(event, current()->device, flags, of_runtime), NOTHING, "e%u, %u", NEW(event), flags)
ENTRY(cuEventDestroy_v2, (CUevent event), ready(), event_free(event), NOTHING, "e%u", id_of(event))
ENTRY(cuEventRecord, (CUevent event, CUstream stream), ready(), event_record(event, stream),
      capture_fault(stream, result), "e%u, s%u", id_of(event), id_of(stream))
ENTRY(cuEventQuery, (CUevent event), ready(), event_query(event), NOTHING, "e%u", id_of(event))
ENTRY(cuEventSynchronize, (CUevent event), ready(), event_synchronize(event), NOTHING, "e%u",
      id_of(event))
ENTRY(cuEventElapsedTime, (float * milliseconds, CUevent begin, CUevent end), ready(),
      event_elapsed(milliseconds, begin, end), NOTHING, "e%u, e%u", id_of(begin), id_of(end))
ENTRY(cuLaunchHostFunc, (CUstream stream, void (*function)(void * data), void * data), ready(),
      call_host(stream, function, data), capture_fault(stream, result), "s%u", id_of(stream))

ENTRY(cuGraphInstantiateWithFlags, (CUgraphExec * exec, CUgraph graph, unsigned long long flags),
      ready(), exec_new(exec, graph, of_runtime), NOTHING, "x%u, g%u, %llu", NEW(exec),
      id_of(graph), flags)
ENTRY(cuGraphExecUpdate_v2, (CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo * update),
      ready(), exec_update(exec, graph, update), NOTHING, "x%u, g%u", id_of(exec), id_of(graph))
ENTRY(cuGraphLaunch, (CUgraphExec exec, CUstream stream), ready(), exec_launch(exec, stream),
      capture_fault(stream, result), "x%u, s%u", id_of(exec), id_of(stream))
ENTRY(cuGraphExecDestroy, (CUgraphExec exec), ready(), exec_free(exec), NOTHING, "x%u", id_of(exec))
ENTRY(cuGraphDestroy, (CUgraph graph), ready(), graph_free(graph), NOTHING, "g%u", id_of(graph))
ENTRY(cuGraphGetNodes, (CUgraph graph, CUgraphNode * nodes, size_t * n), ready(),
      graph_nodes(graph, nodes, n), NOTHING, "g%u", id_of(graph))
ENTRY(cuGraphGetEdges, (CUgraph graph, CUgraphNode * from, CUgraphNode * to, size_t * n), ready(),
      graph_edges(graph, from, to, NULL, n), NOTHING, "g%u", id_of(graph))
ENTRY(cuGraphGetEdges_v2,
      (CUgraph graph, CUgraphNode * from, CUgraphNode * to, CUgraphEdgeData * data, size_t * n),
      ready(), graph_edges(graph, from, to, data, n), NOTHING, "g%u", id_of(graph))
ENTRY(cuGraphAddDependencies_v2,
      (CUgraph graph, const CUgraphNode * from, const CUgraphNode * to,
       const CUgraphEdgeData * data, size_t n),
      ready(), graph_change_edges(graph, from, to, data, n, true), NOTHING, "g%u, %zu",
      id_of(graph), n)
ENTRY(cuGraphRemoveDependencies_v2,
      (CUgraph graph, const CUgraphNode * from, const CUgraphNode * to,
       const CUgraphEdgeData * data, size_t n),
      ready(), graph_change_edges(graph, from, to, data, n, false), NOTHING, "g%u, %zu",
      id_of(graph), n)
ENTRY(cuGraphNodeGetType, (CUgraphNode node, int * type), ready(), graph_node_type(node, type),
      NOTHING, "%p", (void *) node)
ENTRY(cuGraphKernelNodeSetAttribute, (CUgraphNode node, int attribute, const void * value), ready(),
      graph_set_attribute(node, attribute, value), NOTHING, "%p, %d, %d", (void *) node, attribute,
      value != NULL ? *(const int *) value : 0)

//
// Texts of errors
//

ENTRY(cuGetErrorString, (CUresult error, const char ** text), CUDA_SUCCESS,
      error_text(error, text, false), NOTHING, "%d", error)
ENTRY(cuGetErrorName, (CUresult error, const char ** text), CUDA_SUCCESS,
      error_text(error, text, true), NOTHING, "%d", error)

//
// What CUDA does not have
//

void fake_plain_launches(bool plain) {
    driver_lock();
    driver.plain_launches = plain;
    driver_unlock();
}

CUresult fake_launch_kernel(CUstream stream, const struct fake_kernel * kernel) {
    struct fake_kernel launched = *kernel;
    driver_lock();
    launched.programmatic =
        kernel->programmatic && !driver.plain_launches && driver.capability >= HOPPER;
    struct payload * payload = payload_new(&launched);
    const CUresult result = stream_launch(stream, payload);
    payload_unref(payload);
    driver_unlock();
    return result;
}

struct simple {
    void (*function)(void * argument);
    void * argument;
    size_t n;
    struct fake_access accesses[];
};

static void run_simple(void * argument) {
    const struct simple * simple = argument;
    if (simple->function != NULL) {
        simple->function(simple->argument);
    }
}

static void visit_simple(void * argument, fake_visit visit, void * visitor) {
    const struct simple * simple = argument;
    for (size_t i = 0; i < simple->n; i++) {
        visit(visitor, simple->accesses[i].address, simple->accesses[i].size,
              simple->accesses[i].write != 0);
    }
}

CUresult fake_launch(CUstream stream, void (*function)(void * argument), void * argument,
                     const char * name, const struct fake_access * accesses, size_t n) {
    struct simple * simple = allocate(sizeof *simple + n * sizeof *accesses);
    *simple = (struct simple) {.function = function, .argument = argument, .n = n};
    for (size_t i = 0; i < n; i++) {
        simple->accesses[i] = accesses[i];
    }
    return fake_launch_kernel(stream, &(struct fake_kernel) {.name = name,
                                                             .function = run_simple,
                                                             .argument = simple,
                                                             .accesses = visit_simple,
                                                             .release = free});
}

uint64_t fake_kernels_run(void) {
    driver_lock();
    const uint64_t n = work_count();
    driver_unlock();
    return n;
}

static uint64_t live(const char * kind) {
    static const char * const kinds[OBJECT_KINDS] = {"stream", "event", "graph", "exec"};
    for (int i = 0; i < OBJECT_KINDS; i++) {
        if (strcmp(kind, kinds[i]) == 0) {
            return count_alive((enum object_kind) i);
        }
    }
    uint64_t n = 0;
    for (int i = 0; i < FAKE_DEVICES; i++) {
        n += strcmp(kind, "memory") == 0 ? shadow_used(i) : contexts[i].n_retained;
    }
    return n;
}

uint64_t fake_live(const char * kind) {
    driver_lock();
    const uint64_t n = live(kind);
    driver_unlock();
    return n;
}

size_t fake_log_count(void) {
    driver_lock();
    const size_t n = driver.n_log;
    driver_unlock();
    return n;
}

const char * fake_log_line(size_t index) {
    driver_lock();
    const char * line = index < driver.n_log ? driver.log[index] : NULL;
    driver_unlock();
    return line;
}

uint64_t fake_calls(const char * function) {
    const size_t n = strlen(function);
    uint64_t calls = 0;
    driver_lock();
    for (size_t i = 0; i < driver.n_log; i++) {
        calls += strncmp(driver.log[i], function, n) == 0 && driver.log[i][n] == '(';
    }
    driver_unlock();
    return calls;
}

bool fake_as_runtime(bool runtime) {
    const bool before = of_runtime;
    of_runtime = runtime;
    return before;
}

void fake_set_version(int version) {
    driver_lock();
    driver.version = version;
    driver_unlock();
}

void fake_set_device_count(int n) {
    driver_lock();
    driver.n_devices = n < FAKE_DEVICES ? n : FAKE_DEVICES;
    driver_unlock();
}

void fake_set_capability(int capability) {
    driver_lock();
    driver.capability = capability;
    driver_unlock();
}

void fake_set_memory(size_t total) {
    driver_lock();
    driver.memory = total;
    driver_unlock();
}

void fake_reset(void) {
    driver_lock();
    work_wait_all();
    work_reset_count();
    shadow_reset();
    for (size_t i = 0; i < driver.n_log; i++) {
        free(driver.log[i]);
    }
    driver.n_log = 0;
    memset(driver.faults, 0, sizeof driver.faults);
    driver.version = DEFAULT_VERSION;
    driver.n_devices = FAKE_DEVICES;
    driver.capability = DEFAULT_CAPABILITY;
    driver.memory = DEFAULT_MEMORY;
    driver.plain_launches = false;
    driver_unlock();
}
