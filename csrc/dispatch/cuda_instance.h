// Instances of ggml's CUDA backend, of which a process may have many.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cuda_memory.h"
#include "ggml-backend.h"
#include "ggml/message.h"

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

// The streams of a plan, or of several that are played one after another: each begins and ends on
// the first instance, so whatever one plan left on the others is over before the next begins. Their
// pools and cuBLAS workspaces are shared with them; memory that a captured graph has in a pool
// stays the pool's when that grows. Zeroed memory is a valid empty one.
struct cuda_instances {
    ggml_backend_t items[GGC_MAX_STREAMS];
    uint32_t n;
    bool has_guest;  // the first is somebody else's, who uses it between two plays
    struct cuda_need granted[GGC_MAX_STREAMS];  // that each may come to, as far as was asked
    bool has_blas[GGC_MAX_STREAMS];             // a product was issued to it: there is a handle
};

// At least `n`, that may come to `need` each beside the tensors. `free_before`: bytes that
// the device had before, if it had to be asked. GGC_E_DEVICE: less is free than they may need, or
// ggml has no more; those that there are stay.
enum ggc_status cuda_instances_need(struct cuda_instances * instances, ggml_backend_dev_t device,
                                    uint32_t n, const struct cuda_need * need, size_t * free_before,
                                    const struct message * message);
// A plan of that need was issued to them, outside of a capture; and whether cuBLAS's handles that
// it takes are there, each made where the first product was issued.
void cuda_instances_issued(struct cuda_instances * instances, uint32_t n,
                           const struct cuda_need * need);
bool cuda_instances_have_handles(const struct cuda_instances * instances, uint32_t n,
                                 const struct cuda_need * need);
// Gives back all but the guest.
void cuda_instances_close(struct cuda_instances * instances);
