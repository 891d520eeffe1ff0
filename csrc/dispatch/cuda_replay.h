// A stream of ours and the CUDA graph that is launched into it: captured, made, updated, launched.
//
// All but open and close need the device's context to be current: between enter and leave.
#pragma once

#include "cuda_driver.h"
#include "ggml-concurrent.h"

struct cuda_replay {
    const struct cuda_driver * driver;
    CUdevice device;
    CUcontext context;  // the device's primary one, which ggml uses as well
    CUstream stream;
    CUgraphExec exec;
    int capability;  // of the device, times ten
    struct ggc_cuda_figures figures;
};

struct cuda_captured;
struct cuda_urgency;

// A call that failed.
struct cuda_failure {
    const char * what;
    CUresult error;
};

// False where there is no stream to be had; to be closed all the same. A missing driver is told in
// `message`, a call that failed in `failure`.
bool cuda_replay_open(struct cuda_replay * replay, const char * pci_id,
                      struct cuda_failure * failure, const struct message * message);
void cuda_replay_close(struct cuda_replay * replay);

bool cuda_replay_enter(struct cuda_replay * replay, struct cuda_failure * failure);
void cuda_replay_leave(struct cuda_replay * replay);

// What is issued between begin and end, to streams that are drawn in, becomes the graph: the one
// that there is is updated in place where its shape allows, else made anew. `issued` is an error
// met between the two; `captured` says whose the nodes are, `urgency` (NULL: none) what priorities
// the kernels get. After a failure there is no graph to launch.
bool cuda_replay_begin(struct cuda_replay * replay, struct cuda_failure * failure);
bool cuda_replay_end(struct cuda_replay * replay, CUresult issued,
                     const struct cuda_captured * captured, struct cuda_urgency * urgency,
                     struct cuda_failure * failure);

bool cuda_replay_launch(struct cuda_replay * replay, struct cuda_failure * failure);
bool cuda_replay_wait(struct cuda_replay * replay, struct cuda_failure * failure);
