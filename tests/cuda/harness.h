// Plays a plan of a graph on the simulated backend, plainly: one instance a stream, an event for
// every unit that is waited for, eagerly or as one captured graph. It is there to test the backend;
// a wait can be left out.
#pragma once

#include "fake_driver.h"
#include "ggml-backend.h"

#ifdef __cplusplus
extern "C" {
#endif

// A device by name, after the module at a path has been loaded; NULL if there is none. NULL as
// path: the device is there already.
FAKE_API ggml_backend_dev_t harness_device(const char * module, const char * name);

struct harness;

// Gives every tensor of the graph memory on the device until harness_free; contents that it had
// stay. What the graph computes has memory of its own, or with `reuse` what ggml's allocator gives
// it for the serial order; then a plan is right only if it was found after this. One harness at a
// time for a graph.
FAKE_API struct harness * harness_new(struct ggml_cgraph * graph, ggml_backend_dev_t device,
                                      bool reuse);
FAKE_API void harness_free(struct harness * h);
// What a tensor holds before each run; as long as it is. For what had no memory.
FAKE_API void harness_fill(struct harness * h, const struct ggml_tensor * tensor,
                           const void * data);
// All tensors that are not computed as they were at first; what had no contents is zero. Waits.
FAKE_API void harness_restore(struct harness * h);
// Bytes of all inputs, caches and outputs, one after another; not of what lies between them, which
// a backend need not write where it fuses operations. Returns how many there are.
FAKE_API size_t harness_read(const struct harness * h, void * data);

FAKE_API bool harness_serial(struct harness * h);  // one instance, the graph as it is

struct harness_plan {
    uint32_t n_units, n_streams;
    const uint32_t * order;       // as in struct ggc_schedule
    const uint32_t * stream;      // of each unit
    const uint32_t * wait_begin;  // n_units + 1
    const uint32_t * waits;
    const uint32_t * node_begin;  // n_units + 1
    const uint32_t * nodes;       // of each unit, indices into the graph
    uint32_t left_out;            // index into waits; UINT32_MAX: none
    bool recognisable;            // nothing keeps the backend from making graphs of its own
};
// Opens the instances. Arrays are borrowed until the next call of this function.
FAKE_API void harness_plan(struct harness * h, const struct harness_plan * plan);
FAKE_API bool harness_eager(struct harness * h);  // waits for the end
FAKE_API bool harness_capture(struct harness * h);
FAKE_API bool harness_replay(struct harness * h, bool wait);  // of the last capture
FAKE_API ggml_backend_t harness_instance(struct harness * h, uint32_t stream);

#ifdef __cplusplus
}
#endif
