// The edges of a captured graph. Kernels that ggml launches with programmatic serialization (PDL)
// may start before those that they follow are over, and wait for them inside. In a capture that
// holds for all that such a kernel follows, on other streams as well, and there it is not safe: on
// an H100 (driver 580, CUDA 13.0) kernels read what a kernel of another stream had not written yet.
// So edges between streams are made full ones; along a stream they are what ggml's own graphs have.
#pragma once

#include "cuda_replay.h"
#include "segments.h"

// Which nodes of a capture are whose: they are made in the order in which segments are issued.
struct cuda_captured {
    const struct segments * segments;
    size_t * nodes_end;  // in the capture, after each segment, by place
    bool is_known;       // of all segments
};

// False when out of memory.
bool cuda_captured_init(struct cuda_captured * captured, const struct segments * segments);
void cuda_captured_free(struct cuda_captured * captured);

// While replay's stream captures: nothing is issued yet; segment `place` has been issued.
void cuda_captured_begin(struct cuda_captured * captured);
void cuda_captured_note(struct cuda_captured * captured, const struct cuda_replay * replay,
                        uint32_t place);

// Makes programmatic edges between streams full ones; all of them, where it is not known whose the
// nodes are. False: `failure` says which call failed, and the graph must not be used.
bool cuda_edges_secure(const struct cuda_captured * captured, const struct cuda_replay * replay,
                       CUgraph graph, struct cuda_failure * failure);
