// How long a backend takes for a graph, as its runner uses it: on the CPU the time until it is
// done; on a CUDA device between two events on the runner's stream, read when the next graph comes.
#pragma once

#include "dispatch/cuda_driver.h"
#include "ggml-backend-impl.h"

struct stopwatch {
    bool is_cuda, is_running;
    double start;
    const struct cuda_driver * driver;
    CUdevice device;
    CUcontext context;
    struct ggml_backend_event begin, end;
};

double stopwatch_now(void);  // microseconds, of the host's clock

// False: the time cannot be taken, with a reason; nothing is to be closed then.
bool stopwatch_open(struct stopwatch * watch, ggml_backend_t backend, bool is_cuda,
                    const struct message * message);
void stopwatch_close(struct stopwatch * watch);

void stopwatch_start(struct stopwatch * watch, ggml_backend_t backend);
void stopwatch_stop(struct stopwatch * watch, ggml_backend_t backend);
// Microseconds of the last graph; less than 0: not known (yet). Once for each graph.
double stopwatch_read(struct stopwatch * watch);
