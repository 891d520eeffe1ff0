// The edges of a captured graph. A kernel that ggml launches with programmatic serialization (PDL)
// may start before those that it follows are over, and waits for them inside. In a capture every
// edge into it becomes a programmatic one, those from other streams as well. ggml-cuda was written
// for what comes one after another on one stream: so edges between streams are made full ones, and
// along a stream those into kernels that read before they wait (cuda_early.h).
#pragma once

#include "cuda_replay.h"
#include "segments.h"

// Which nodes of a capture are whose: they are made in the order in which segments are issued.
struct cuda_captured {
    const struct segments * segments;
    const bool * early;  // of each segment, by place
    size_t * nodes_end;  // in the capture, after each segment, by place
    bool is_known;       // of all segments
};

// False when out of memory. The arguments are kept.
bool cuda_captured_init(struct cuda_captured * captured, const struct segments * segments,
                        const bool * early);
void cuda_captured_free(struct cuda_captured * captured);

// While replay's stream captures: nothing is issued yet; segment `place` has been issued.
void cuda_captured_begin(struct cuda_captured * captured);
void cuda_captured_note(struct cuda_captured * captured, const struct cuda_replay * replay,
                        uint32_t place);

// Makes programmatic edges that are not safe full ones; all of them, where it is not known whose
// the nodes are. False: `failure` says which call failed, and the graph must not be used.
bool cuda_edges_secure(const struct cuda_captured * captured, const struct cuda_replay * replay,
                       CUgraph graph, struct cuda_failure * failure);
