// CUDA's driver API, as far as a schedule is captured and replayed with it; loaded when it is first
// asked for, so that nothing here needs CUDA to be built or installed. Declared after NVIDIA's
// documentation of the driver API: the names and types are cuda.h's, which is not needed.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ggml/message.h"

typedef int CUresult;  // 0: success
typedef int CUdevice;
typedef struct CUctx_st * CUcontext;
typedef struct CUstream_st * CUstream;
typedef struct CUevent_st * CUevent;
typedef struct CUgraph_st * CUgraph;
typedef struct CUgraphNode_st * CUgraphNode;
typedef struct CUgraphExec_st * CUgraphExec;
typedef struct CUgraphEdgeData_st CUgraphEdgeData;

enum {
    CU_STREAM_NON_BLOCKING = 1,
    CU_STREAM_CAPTURE_MODE_RELAXED = 2,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
    CU_GRAPH_NODE_TYPE_KERNEL = 0,
    CU_LAUNCH_ATTRIBUTE_PRIORITY = 8,
    CU_GRAPH_INSTANTIATE_USE_NODE_PRIORITY = 8,
    CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE = 910,
};

struct CUgraphEdgeData_st {
    unsigned char from_port, to_port, type, reserved[5];
};

struct CUgraphExecUpdateResultInfo {
    int result;
    CUgraphNode node, from_node;
};

// symbol in the library, name here, parameters; all return CUresult
#define CUDA_DRIVER_FUNCTIONS(X)                                                        \
    X(cuInit, init, (unsigned flags))                                                   \
    X(cuDriverGetVersion, driver_version, (int * version))                              \
    X(cuGetErrorString, error_string, (CUresult error, const char ** text))             \
    X(cuDeviceGetByPCIBusId, device_by_pci, (CUdevice * device, const char * id))       \
    X(cuDeviceGetAttribute, attribute, (int * value, int attribute, CUdevice device))   \
    X(cuDevicePrimaryCtxRetain, primary_retain, (CUcontext * context, CUdevice device)) \
    X(cuDevicePrimaryCtxRelease_v2, primary_release, (CUdevice device))                 \
    X(cuCtxPushCurrent_v2, push, (CUcontext context))                                   \
    X(cuCtxPopCurrent_v2, pop, (CUcontext * context))                                   \
    X(cuStreamCreate, stream_create, (CUstream * stream, unsigned flags))               \
    X(cuStreamDestroy_v2, stream_destroy, (CUstream stream))                            \
    X(cuStreamSynchronize, stream_synchronize, (CUstream stream))                       \
    X(cuStreamWaitEvent, stream_wait, (CUstream stream, CUevent event, unsigned flags)) \
    X(cuEventRecord, event_record, (CUevent event, CUstream stream))                    \
    X(cuThreadExchangeStreamCaptureMode, exchange_mode, (int * mode))                   \
    X(cuStreamBeginCapture_v2, begin_capture, (CUstream stream, int mode))              \
    X(cuStreamEndCapture, end_capture, (CUstream stream, CUgraph * graph))              \
    X(cuGraphInstantiateWithFlags, instantiate,                                         \
      (CUgraphExec * exec, CUgraph graph, unsigned long long flags))                    \
    X(cuGraphExecUpdate_v2, exec_update,                                                \
      (CUgraphExec exec, CUgraph graph, struct CUgraphExecUpdateResultInfo * info))     \
    X(cuGraphLaunch, launch, (CUgraphExec exec, CUstream stream))                       \
    X(cuGraphExecDestroy, exec_destroy, (CUgraphExec exec))                             \
    X(cuGraphGetNodes, graph_nodes, (CUgraph graph, CUgraphNode * nodes, size_t * n))   \
    X(cuGraphDestroy, graph_destroy, (CUgraph graph))

// Those that are done without where they are missing: they are NULL then.
#define CUDA_DRIVER_EXTRAS(X)                                                                    \
    X(cuGraphGetEdges_v2, graph_edges, /* CUDA 12.3 */                                           \
      (CUgraph graph, CUgraphNode * from, CUgraphNode * to, CUgraphEdgeData * data, size_t * n)) \
    X(cuGraphRemoveDependencies_v2, remove_edges,                                                \
      (CUgraph graph, const CUgraphNode * from, const CUgraphNode * to,                          \
       const CUgraphEdgeData * data, size_t n))                                                  \
    X(cuGraphAddDependencies_v2, add_edges,                                                      \
      (CUgraph graph, const CUgraphNode * from, const CUgraphNode * to,                          \
       const CUgraphEdgeData * data, size_t n))                                                  \
    X(cuStreamGetCaptureInfo_v2, capture_info,                                                   \
      (CUstream stream, int * status, uint64_t * id, CUgraph * graph, const CUgraphNode ** next, \
       size_t * n_next))                                                                         \
    X(cuEventCreate, event_create, (CUevent * event, unsigned flags))                            \
    X(cuEventDestroy_v2, event_destroy, (CUevent event))                                         \
    X(cuEventElapsedTime, event_elapsed, (float * milliseconds, CUevent begin, CUevent end))     \
    X(cuLaunchHostFunc, launch_host,                                                             \
      (CUstream stream, void (*function)(void * data), void * data))                             \
    X(cuCtxGetStreamPriorityRange, priorities, (int * least, int * greatest))                    \
    X(cuGraphNodeGetType, node_type, (CUgraphNode node, int * type))                             \
    X(cuGraphKernelNodeSetAttribute, set_attribute,                                              \
      (CUgraphNode node, int attribute, const void * value))

struct cuda_driver {
#define X(symbol, name, parameters) CUresult(*name) parameters;
    CUDA_DRIVER_FUNCTIONS(X)
    CUDA_DRIVER_EXTRAS(X)
#undef X
};

// The driver, initialised; the same one at every call. NULL with a reason where there is none, or
// an older one than CUDA 12's.
const struct cuda_driver * cuda_driver_get(const struct message * message);

// 90 for 9.0.
CUresult cuda_capability(const struct cuda_driver * driver, CUdevice device, int * capability);

// What an error is called; never NULL.
const char * cuda_error(const struct cuda_driver * driver, CUresult error);
