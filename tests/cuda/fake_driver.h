// A CUDA driver without a GPU: a library with the file name and SONAME libcuda.so.1 whose streams,
// events, captures and graphs keep CUDA's rules on CPU threads. For tests of code that drives CUDA.
//
// How it works. Every operation becomes a piece of work with the pieces that it must follow: the
// last one of its stream, those of the events that the stream has waited for, its predecessors in a
// captured graph. A few threads take any piece that is ready, in random order and after random
// delays. Beside that, each piece has a vector clock over the same edges, and every byte of the
// device's memory knows who wrote it last and who has read it since: two accesses that no edge
// orders are reported, however the run went (shadow.h).
//
// What it shows: missing and superfluous order between streams and inside captured graphs, calls
// that CUDA refuses, leaks, what happens after a failure.
// What it does not show:
//   - CUDA's memory model, caches, unified or pinned memory: a piece of work sees all that is
//     ordered before it, at once; kernels that overlap are whole functions on CPU threads;
//   - the contents of real kernels, and what their launch needs (modules, parameters, cuBLAS);
//   - time: how long anything takes (events tell when work was over here), priorities (kept,
//   ignored), how many kernels fit at once;
//   - bugs and limits of any real driver; contexts other than the primary ones; the legacy and the
//     per-thread stream (refused), implicit synchronisation, child graphs, memory nodes, external
//     events; of programmatic dependent launch only what a kernel does before it waits, and
//     that nothing says that it waits for other streams' kernels (graph.c);
//   - order between host threads: what any host thread has waited for counts as seen by all.
// Where CUDA's documentation leaves the error code open, it is what we believe the driver answers;
// `test_fake_driver` can put the same questions to a real driver (GGC_LIBCUDA). Stricter than
// CUDA: launching a graph into a capturing stream, and destroying a capturing stream, are errors;
// cuGraphExecUpdate pairs nodes by their position only. What CUDA leaves undefined is an error that
// fake_errors counts: use after destruction, kernels that touch memory that is not allocated.
//
// Every function may be called from any thread. Functions given to the driver (kernels, `release`)
// run on its threads and must not call it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cuda_api.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FAKE_API __attribute__((visibility("default")))
#define FAKE_DEVICES 2
#define FAKE_PCI_IDS {"0000:3b:00.0", "0000:5e:00.0"}

#define FAKE_DECLARE(name, parameters) FAKE_API CUresult name parameters;
CUDA_FUNCTIONS(FAKE_DECLARE)
#undef FAKE_DECLARE

//
// Work
//

// Whether all of it is allocated; if not, it is no use to go on.
typedef bool (*fake_visit)(void * visitor, const void * address, size_t size, bool write);

// as CUgraphNodeType
enum fake_kind { FAKE_KERNEL = 0, FAKE_MEMCPY = 1, FAKE_MEMSET = 2, FAKE_HOST = 3 };

struct fake_kernel {
    const char * name;  // copied
    enum fake_kind kind;
    // Launched with programmatic serialization, where the device can; then a kernel may begin
    // before the one that it follows is over, and waits for it inside. `late`: it lets the next one
    // begin only when it has waited itself.
    bool programmatic, late;
    void (*function)(void * argument);
    void * argument;
    // Tells each range of device memory that the function will touch, when it is about to run;
    // NULL: none.
    void (*accesses)(void * argument, fake_visit visit, void * visitor);
    // What it does before it waits, and the device memory that this touches; NULL: nothing.
    void (*early)(void * argument);
    void (*early_accesses)(void * argument, fake_visit visit, void * visitor);
    // When no stream and no graph needs the argument any more, also after a failed launch; NULL:
    // nothing to release.
    void (*release)(void * argument);
};

struct fake_access {
    const void * address;
    size_t size;
    int write;
};

// Puts a kernel on a stream; into the graph if the stream is capturing.
FAKE_API CUresult fake_launch_kernel(CUstream stream, const struct fake_kernel * kernel);
// The same with accesses that are known before; they are copied.
FAKE_API CUresult fake_launch(CUstream stream, void (*function)(void * argument), void * argument,
                              const char * name, const struct fake_access * accesses, size_t n);

// Kernels are launched as if none was `programmatic`.
FAKE_API void fake_plain_launches(bool plain);

//
// How it runs
//

FAKE_API void fake_seed(uint64_t seed);
FAKE_API void fake_threads(unsigned n);           // 3 at first; before the first work
FAKE_API void fake_delay(unsigned microseconds);  // the longest usual delay before a piece of work
// Nothing begins any more until the hold is lifted, or somebody waits.
FAKE_API void fake_hold(bool hold);
FAKE_API void fake_idle(void);  // waits until all work is done, without CUDA's order coming of it

//
// What was seen
//

FAKE_API uint64_t fake_races(void);
FAKE_API const char * fake_first_race(void);  // "" if none
FAKE_API uint64_t fake_errors(void);          // what CUDA leaves undefined
FAKE_API const char * fake_first_error(void);
FAKE_API uint64_t fake_kernels_run(void);

// Objects alive: "stream", "event", "graph", "exec", "context" (retained), "memory" (bytes). Those
// that are made on behalf of the CUDA runtime are not counted.
FAKE_API uint64_t fake_live(const char * kind);

// One line a call: "cuStreamWaitEvent(s3, e5, 0) = 0". Lines stay until fake_reset.
FAKE_API size_t fake_log_count(void);
FAKE_API const char * fake_log_line(size_t index);  // NULL past the end
FAKE_API uint64_t fake_calls(const char * function);

// The n-th call (from 1, from now on) of the function returns `error` and does nothing else, except
// that a failing cuStreamEndCapture ends the capture. n < 0: the -n-th and all that follow; 0: the
// function works again.
FAKE_API void fake_fail(const char * function, int n, CUresult error);

// Calls of this thread are those of the CUDA runtime, as a backend makes them: not logged, not
// counted, not made to fail. Returns what was set before.
FAKE_API bool fake_as_runtime(bool runtime);

FAKE_API void fake_set_version(int version);
FAKE_API void fake_set_device_count(int n);
FAKE_API void fake_set_capability(int capability);  // compute capability times ten; 90 at first
FAKE_API void fake_set_memory(size_t total);        // of each device; 16 GiB at first

// Waits for all work; forgets races, errors, log, faults and counts, and what was set above.
// Objects stay.
FAKE_API void fake_reset(void);

#ifdef __cplusplus
}
#endif
