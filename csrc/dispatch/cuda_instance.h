// Instances of ggml's CUDA backend, of which a process may have many.
#pragma once

#include <stdint.h>

#include "ggml-backend.h"

// A number that none was before, in any thread: what the markers of segments are told apart by.
//
// ggml-cuda captures by itself a graph that it is given twice in a row, unchanged, with the same
// first node: for each address of a first node an instance keeps what the nodes looked like at the
// last call (about 1.1 KB a node, on the host), and compares. A first node with another number each
// time is a change each time, so that the graph is always issued directly; nor can a new segment
// whose marker lies where an old one was look like the second call of that. There is one entry for
// each segment, however often it is issued; an entry goes when others are used more than ten
// seconds after it, or with the instance. A graph's uid would be taken for all that without
// comparing: segments have none.
uint64_t cuda_next_mark(void);

// Destroying an instance destroys its cuBLAS handle, for which CUDA waits for the whole device,
// which it refuses, and spoils the capture, while any stream of the device is capturing. ggml keeps
// those apart from captures of its own, we from ours: an instance is destroyed when no capture of
// ours is under way, and no capture begins meanwhile. An instance of somebody else's may still be
// destroyed by another thread while we capture: ggml then ends the process. `backend` may be NULL.
void cuda_instance_free(ggml_backend_t backend);
void cuda_capture_enter(void);
void cuda_capture_leave(void);
