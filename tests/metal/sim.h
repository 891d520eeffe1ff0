// A device with Metal's semantics, for machines without Metal: what ggml-metal-device.m and
// ggml-metal-context.m are to ggml-metal, on the CPU. All the rest of ggml-metal is built from its
// own source beside it, so that command buffers, fusion and barriers are what it really makes.
//
// Loaded as a backend module it is the registry "MTL" with the device "MTL0", whose description is
// that of GGC_METAL_SIM_DESCRIPTION ("Apple Sim" by default).
//
// A kernel is what ggml-metal encodes at once: a node, or several that it fuses. Kernels between
// two barriers of an encoder run in any order, or two at a time, as the seed has it; command
// buffers run one after another. Nothing runs before somebody waits for it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef METAL_API
#    define METAL_API __attribute__((visibility("default")))
#endif

// Counted since metal_sim_reset, by all backends.
struct metal_sim_report {
    int32_t graphs;           // computed
    int32_t command_buffers;  // of those graphs; only those with a dispatch
    int32_t barriers;         // in them, all
    int32_t inner_barriers;   // of those, the ones between two dispatches of one kernel
    int32_t kernels;
    int32_t dispatches;
    int32_t widest;   // the most kernels between two barriers
    int32_t races;    // pairs of kernels that conflict, with no barrier between
    int32_t strays;   // dispatches that are given other memory than their kernel's tensors'
    int32_t hasty;    // accesses of the host, or frees, while commands were under way
    char first[320];  // the first of the last three, in words
};

METAL_API void metal_sim_reset(void);
METAL_API void metal_sim_read(struct metal_sim_report * report);

// 0: kernels run in the order in which they are encoded. Also GGC_METAL_SIM_SEED, at loading.
METAL_API void metal_sim_seed(uint64_t seed);

// Leaves one barrier out of each graph that is computed from now on, counted from 0; -1: none.
// ggml-metal believes that it is there.
METAL_API void metal_sim_leave_out(int32_t barrier);

// Whether graphs are encoded and checked, and not computed; for graphs too large for a CPU.
METAL_API void metal_sim_dry(int32_t dry);

#ifdef __cplusplus
}
#endif
