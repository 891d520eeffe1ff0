// The part of CUDA's driver interface that the tests use, declared here so that they build without
// CUDA's headers. Names, types and numbers are those of cuda.h, in versions 11.4 to 13.
#pragma once

#include <stddef.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st * CUcontext;
typedef struct CUstream_st * CUstream;
typedef struct CUevent_st * CUevent;
typedef struct CUgraph_st * CUgraph;
typedef struct CUgraphNode_st * CUgraphNode;
typedef struct CUgraphExec_st * CUgraphExec;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_ILLEGAL_STATE = 401,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901,
    CUDA_ERROR_STREAM_CAPTURE_MERGE = 902,
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903,
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED = 904,
    CUDA_ERROR_STREAM_CAPTURE_ISOLATION = 905,
    CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906,
    CUDA_ERROR_CAPTURED_EVENT = 907,
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908,
    CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE = 910,
    CUDA_ERROR_UNKNOWN = 999,
};

enum {
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
};
enum { CU_LAUNCH_ATTRIBUTE_PRIORITY = 8 };
enum { CU_STREAM_DEFAULT = 0, CU_STREAM_NON_BLOCKING = 1 };
enum { CU_EVENT_DEFAULT = 0, CU_EVENT_DISABLE_TIMING = 2 };

typedef enum {
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0,
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1,
    CU_STREAM_CAPTURE_MODE_RELAXED = 2,
} CUstreamCaptureMode;

typedef enum {
    CU_STREAM_CAPTURE_STATUS_NONE = 0,
    CU_STREAM_CAPTURE_STATUS_ACTIVE = 1,
    CU_STREAM_CAPTURE_STATUS_INVALIDATED = 2,
} CUstreamCaptureStatus;

typedef enum {
    CU_GRAPH_EXEC_UPDATE_SUCCESS = 0,
    CU_GRAPH_EXEC_UPDATE_ERROR = 1,
    CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED = 2,
    CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED = 3,
} CUgraphExecUpdateResult;

typedef struct {
    CUgraphExecUpdateResult result;
    CUgraphNode errorNode;
    CUgraphNode errorFromNode;
} CUgraphExecUpdateResultInfo;

typedef struct {
    unsigned char from_port, to_port, type, reserved[5];
} CUgraphEdgeData;

// X(name, parameters): every function that the fake driver has, by the symbol that a program finds.
#define CUDA_FUNCTIONS(X)                                                                          \
    X(cuInit, (unsigned flags))                                                                    \
    X(cuDriverGetVersion, (int * version))                                                         \
    X(cuGetErrorString, (CUresult error, const char ** text))                                      \
    X(cuGetErrorName, (CUresult error, const char ** text))                                        \
    X(cuDeviceGetCount, (int * count))                                                             \
    X(cuDeviceGet, (CUdevice * device, int ordinal))                                               \
    X(cuDeviceGetByPCIBusId, (CUdevice * device, const char * id))                                 \
    X(cuDeviceGetAttribute, (int * value, int attribute, CUdevice device))                         \
    X(cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                            \
    X(cuDevicePrimaryCtxRelease_v2, (CUdevice device))                                             \
    X(cuCtxPushCurrent_v2, (CUcontext context))                                                    \
    X(cuCtxPopCurrent_v2, (CUcontext * context))                                                   \
    X(cuCtxGetCurrent, (CUcontext * context))                                                      \
    X(cuCtxSetCurrent, (CUcontext context))                                                        \
    X(cuCtxSynchronize, (void) )                                                                   \
    X(cuCtxGetStreamPriorityRange, (int * least, int * greatest))                                  \
    X(cuMemGetInfo_v2, (size_t * free_bytes, size_t * total_bytes))                                \
    X(cuMemAlloc_v2, (CUdeviceptr * address, size_t size))                                         \
    X(cuMemFree_v2, (CUdeviceptr address))                                                         \
    X(cuMemsetD8Async, (CUdeviceptr address, unsigned char value, size_t n, CUstream stream))      \
    X(cuMemcpyDtoH_v2, (void * to, CUdeviceptr from, size_t size))                                 \
    X(cuStreamCreate, (CUstream * stream, unsigned flags))                                         \
    X(cuStreamCreateWithPriority, (CUstream * stream, unsigned flags, int priority))               \
    X(cuStreamDestroy_v2, (CUstream stream))                                                       \
    X(cuStreamSynchronize, (CUstream stream))                                                      \
    X(cuStreamQuery, (CUstream stream))                                                            \
    X(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags))                         \
    X(cuThreadExchangeStreamCaptureMode, (CUstreamCaptureMode * mode))                             \
    X(cuStreamIsCapturing, (CUstream stream, CUstreamCaptureStatus * status))                      \
    X(cuStreamBeginCapture_v2, (CUstream stream, CUstreamCaptureMode mode))                        \
    X(cuStreamEndCapture, (CUstream stream, CUgraph * graph))                                      \
    X(cuStreamGetCaptureInfo_v2,                                                                   \
      (CUstream stream, CUstreamCaptureStatus * status, unsigned long long * id, CUgraph * graph,  \
       const CUgraphNode ** next, size_t * n_next))                                                \
    X(cuEventCreate, (CUevent * event, unsigned flags))                                            \
    X(cuEventDestroy_v2, (CUevent event))                                                          \
    X(cuEventRecord, (CUevent event, CUstream stream))                                             \
    X(cuEventQuery, (CUevent event))                                                               \
    X(cuEventSynchronize, (CUevent event))                                                         \
    X(cuEventElapsedTime, (float * milliseconds, CUevent begin, CUevent end))                      \
    X(cuLaunchHostFunc, (CUstream stream, void (*function)(void * data), void * data))             \
    X(cuGraphInstantiateWithFlags, (CUgraphExec * exec, CUgraph graph, unsigned long long flags))  \
    X(cuGraphExecUpdate_v2,                                                                        \
      (CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo * update))                     \
    X(cuGraphLaunch, (CUgraphExec exec, CUstream stream))                                          \
    X(cuGraphExecDestroy, (CUgraphExec exec))                                                      \
    X(cuGraphDestroy, (CUgraph graph))                                                             \
    X(cuGraphGetNodes, (CUgraph graph, CUgraphNode * nodes, size_t * n))                           \
    X(cuGraphGetEdges, (CUgraph graph, CUgraphNode * from, CUgraphNode * to, size_t * n))          \
    X(cuGraphGetEdges_v2,                                                                          \
      (CUgraph graph, CUgraphNode * from, CUgraphNode * to, CUgraphEdgeData * data, size_t * n))   \
    X(cuGraphAddDependencies_v2, (CUgraph graph, const CUgraphNode * from, const CUgraphNode * to, \
                                  const CUgraphEdgeData * data, size_t n))                         \
    X(cuGraphRemoveDependencies_v2,                                                                \
      (CUgraph graph, const CUgraphNode * from, const CUgraphNode * to,                            \
       const CUgraphEdgeData * data, size_t n))                                                    \
    X(cuGraphNodeGetType, (CUgraphNode node, int * type))                                          \
    X(cuGraphKernelNodeSetAttribute, (CUgraphNode node, int attribute, const void * value))
