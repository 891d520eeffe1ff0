// Priorities for the kernels of a captured graph: a kernel on which the end waits is not to stand
// behind those that have time, when both want the same multiprocessors.
#pragma once

#include "cuda_edges.h"

struct cuda_urgency {
    double * slack;  // of each segment, by place: microseconds
    uint32_t n_segments;
    int least, greatest;  // priorities; the greatest is the smaller number
};

// How long each segment may wait, by the plan's costs. False when out of memory.
bool cuda_urgency_init(struct cuda_urgency * urgency, const struct segments * segments,
                       const struct dispatch_args * args);
void cuda_urgency_free(struct cuda_urgency * urgency);

// Sets the priorities of the captured kernels. It is speed alone that depends on them: what the
// driver does not let us do is left.
void cuda_urgency_apply(struct cuda_urgency * urgency, const struct cuda_captured * captured,
                        const struct cuda_replay * replay, CUgraph graph);
