// ggml-concurrent, drop-in: makes a runner that has a ggml of its own (llama.cpp, llama-cpp-python,
// node-llama-cpp, ...) compute its graphs concurrently, without being changed or built anew.
//
// This library needs the C library alone and never loads a ggml. It is loaded
//   - by a program, which calls ggc_dropin_attach once the runner's ggml is loaded;
//   - by a runner's ggml, as GGML_BACKEND_PATH, where that loads its backends at run time;
//   - by the dynamic loader, in LD_PRELOAD, ahead of any runner that is linked dynamically.
// It then finds each ggml of the process that exports its functions, makes sure of the layout of
// the structures it touches, and takes hold of backends that are made from then on by function
// pointers in ggml's devices. Linux only.
//
// Environment, read once: GGML_CONCURRENT=off|auto|eager|always (auto; always is for tests),
// GGML_CONCURRENT_STREAMS (at most so many, 8), GGML_CONCURRENT_CACHE (folder for what was found
// fastest), GGML_CONCURRENT_QUIET=1 (no line on standard error).
#pragma once

#include "ggc-core.h"

// What is exported; the core inside is not, since a preloaded library comes before all others.
#define GGC_DROPIN_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_backend;

// Takes hold of every ggml in the process but the copies that ggml-concurrent brings along; of
// those that it has already, of devices that came since. Backends that exist stay as they are.
// *n: ggmls that are held now. `message` (may be NULL) gets one line that says of each ggml which
// version it is, on which devices it is held or why it is not. GGC_E_UNSUPPORTED: none is. From any
// thread, but not while another thread makes backends.
GGC_DROPIN_API enum ggc_status ggc_dropin_attach(uint32_t * n, char * message, size_t message_size);

// Takes hold of one backend that exists, for programs that make their own; whosever ggml it is.
// Nothing may be computed on it meanwhile. GGC_E_INVALID: NULL, or a device that no ggml of the
// process has; GGC_E_UNSUPPORTED: its ggml does not fit, see the message.
GGC_DROPIN_API enum ggc_status ggc_dropin_attach_backend(struct ggml_backend * backend,
                                                         char * message, size_t message_size);

// Puts everything back as it was: backends that live go on as without us. Waits for graphs that
// are being computed.
GGC_DROPIN_API void ggc_dropin_detach(void);

// What is held and what it does, as JSON: {"hosts": [{"path", "version", "ours", "held", "reason",
// "devices": [{"name", "description", "hooked", "backends", "live", "graphs", "on_streams",
// "plans", "failures", "own_us", "reason", "warning", "last_plan": {"nodes", "units", "phases",
// "phases_theirs", "streams", "own_bytes"}}]}]}. Cut off where `size` is too small; returns the
// length without the final zero.
GGC_DROPIN_API size_t ggc_dropin_report(char * text, size_t size);

#ifdef __cplusplus
}
#endif
