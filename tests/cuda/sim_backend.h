// A ggml backend "CUDA" on the fake driver: what ggml's CUDA backend looks like from outside, on
// CPU threads. A module for ggml_backend_load, with two devices, CUDA0 and CUDA1; it computes with
// the CPU backend, which has to be loaded too. The fake driver comes with it: from then on
// dlopen("libcuda.so.1") finds that one, wherever a real one may be.
//
// As ggml-cuda does, an instance issues its graphs node by node to a stream of its own, and a
// kernel takes its arguments by value: it works on the tensors as they were when it was issued. An
// instance has scratch memory that every kernel of it writes, so two of its kernels that nothing
// orders are a race. It keeps graphs of its own by the address of the first node, and captures the
// second call in a row that looks the same, ggml_cgraph::uid included. What ggml-cuda would abort
// on is an error here, that sim_errors counts. Each node is computed by the CPU backend on one
// thread: the bits are the CPU's.
//
// Races: all that the views of an operation show, row by row, is read or written; of
// GGML_OP_SET_ROWS only the rows that the indices name. The rules are in sim_touch.c and share
// nothing with the library.
//
// What it does not show, beside what the fake driver does not (fake_driver.h): ggml-cuda's kernels,
// what they fuse and what bits they give, which operations it supports, cuBLAS, growing memory
// pools; copies whose memory is not pinned, which CUDA completes earlier than it must: here the
// host's memory is read and written as late as it may be.
#pragma once

#include "fake_driver.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sim_counters {
    uint64_t instances, events, buffers;  // alive
    uint64_t graphs, kernels;             // issued
    uint64_t event_records, event_waits, synchronises, copies;
    uint64_t own_captures, own_launches;  // of an instance's own graphs
    uint64_t captures_inside;             // attempts at those while the stream was capturing
};
FAKE_API void sim_get_counters(struct sim_counters * counters);
FAKE_API uint64_t sim_instances_made(void);  // since the module was loaded

FAKE_API uint64_t sim_races(void);
FAKE_API const char * sim_first_race(void);  // "" if none
// What ggml-cuda would abort on, and what the fake driver calls an error.
FAKE_API uint64_t sim_errors(void);
FAKE_API const char * sim_first_error(void);

// Waits for all work and forgets races, errors, counts (not of what is alive) and all that was set;
// also calls fake_reset.
FAKE_API void sim_reset(void);
FAKE_API void sim_seed(uint64_t seed);

// The n-th call from now fails; -n: it and all that follow; 0: none. `what` is "init" (no
// instance), "event" (no event), "buffer" (no memory), or "compute" (GGML_STATUS_FAILED, nothing
// issued).
FAKE_API void sim_fail(const char * what, int n);
// An operation, by ggml's name for it, that is not supported, or after whose kernel the host waits
// for the stream, as ggml-cuda does in some matrix products of experts. NULL: none.
FAKE_API void sim_refuse_op(const char * name);
FAKE_API void sim_waiting_op(const char * name);

#ifdef __cplusplus
}
#endif
