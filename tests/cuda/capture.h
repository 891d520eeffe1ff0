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

CUresult capture_begin(CUstream stream, CUstreamCaptureMode mode);
CUresult capture_end(CUstream stream, CUgraph * graph);
// After a failure that was injected: what CUDA would have done to the capture.
void capture_fault(CUstream stream, CUresult error);
void capture_abandon(CUstream stream);
// Allocations and the like are refused while some capture forbids them, and spoil it.
CUresult capture_unsafe_call(void);

// What follows all that was issued to a stream: the last work (NULL: none), then `work`, which the
// stream takes over. Not for streams that capture.
struct work * stream_tail(CUstream stream);
void stream_set_tail(CUstream stream, struct work * work);
// CUDA_SUCCESS, or the error of an operation that no capture can hold, which is spoilt by it.
CUresult stream_not_capturing(CUstream stream);
