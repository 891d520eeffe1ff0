// What the rules of CUDA are asked with (driver_rules.h): a driver, whichever it is, and three
// streams, four events and some memory on it. Memory is set to a value by an asynchronous memset,
// the only kernel that needs no module.
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
// Of a real driver differences are told and counted; of the fake one they are failures.
static bool is_real_driver;
static const char * rule_name = "";

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
    printf("%s: %s is %d, expected %d\n", rule_name, call, got, expected);
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
