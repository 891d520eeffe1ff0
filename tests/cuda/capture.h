// Streams, events and captures: CUDA's rules for them. Called with the driver's lock held; results
// are CUDA's error codes.
#pragma once

#include "nodes.h"

CUresult stream_new(CUstream * stream, int device, unsigned flags, bool of_runtime);
CUresult stream_free(CUstream stream);
CUresult stream_synchronize(CUstream stream);
CUresult stream_query(CUstream stream);
CUresult stream_wait(CUstream stream, CUevent event, unsigned flags);
CUresult stream_launch(CUstream stream, struct payload * payload);  // borrowed
CUresult stream_status(CUstream stream, CUstreamCaptureStatus * status);

CUresult event_new(CUevent * event, int device, unsigned flags, bool of_runtime);
CUresult event_free(CUevent event);
CUresult event_record(CUevent event, CUstream stream);
CUresult event_query(CUevent event);
CUresult event_synchronize(CUevent event);
CUresult event_elapsed(float * milliseconds, CUevent begin, CUevent end);

CUresult capture_begin(CUstream stream, CUstreamCaptureMode mode);
CUresult capture_end(CUstream stream, CUgraph * graph);
// The graph that a capturing stream's capture is making, to count its nodes: NULL of a stream that
// does not capture. Its only use is with capture_nodes.
CUresult capture_info(CUstream stream, CUstreamCaptureStatus * status, CUgraph * graph);
// Whether `graph` is such a one; *n: how many nodes it has by now.
bool capture_nodes(CUgraph graph, size_t * n);
// After a failure that was injected: what CUDA would have done to the capture.
void capture_fault(CUstream stream, CUresult error);
void capture_abandon(CUstream stream);
// Allocations and the like are refused while some capture forbids them to this thread, and spoil
// it.
CUresult capture_unsafe_call(void);
// What this thread lets captures forbid it; *mode takes what it was before.
CUresult capture_exchange_mode(CUstreamCaptureMode * mode);
// A capture on a stream of the device, which nobody may then wait for as a whole: spoils it.
CUresult capture_on_device(int device);

// What follows all that was issued to a stream: the last work (NULL: none), then `work`, which the
// stream takes over. Not for streams that capture.
struct work * stream_tail(CUstream stream);
void stream_set_tail(CUstream stream, struct work * work);
// CUDA_SUCCESS, or the error of an operation that no capture can hold, which is spoilt by it.
CUresult stream_not_capturing(CUstream stream);
