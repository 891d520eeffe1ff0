// One backend of a runner's, whose graphs come through here: planned once they have come back a few
// times, or at once where they are like others that streams are faster for; computed in the way
// that was fastest.
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "host.h"

struct session_counts {
    uint64_t graphs;      // that the runner computed
    uint64_t on_streams;  // of these, on streams
    uint64_t plans;       // made and proven
    uint64_t failures;    // of ours, after which the runner's own way was taken
    // of the host's: to look at new graphs, and to make them ready, first computations included
    uint64_t own_nanoseconds;
};

// Of the last plan. `phases_theirs`: on the memory that the runner's allocator gave out, found with
// GGML_CONCURRENT=always alone.
struct session_plan {
    uint32_t n_nodes, n_units, n_phases, n_phases_theirs, n_streams;
    size_t own_bytes;
};

struct session;

// For a backend that is hooked by now; `compute` is its own graph_compute. NULL: out of memory.
struct session * session_new(struct host * host, ggml_backend_t backend,
                             enum ggml_status (*compute)(ggml_backend_t, struct ggml_cgraph *));
// Waits for what is under way and gives everything back but the memory of the session itself, which
// then passes graphs on as they are.
void session_close(struct session * session);
void session_free(struct session * session);

enum ggml_status session_compute(struct session * session, struct ggml_cgraph * graph);

// What the runner sets on its CPU backend.
void session_set_threads(struct session * session, int n_threads);
void session_set_threadpool(struct session * session, bool has_one);
void session_set_abort(struct session * session, bool has_one);

// At any time, from any thread.
struct session_counts session_counts(const struct session * session);
struct session_plan session_last_plan(struct session * session);
// Why graphs of this backend go through as they are, "" if they do not; and the last failure.
const char * session_reason(const struct session * session);
const char * session_warning(const struct session * session);

// In a child process the threads of streams are missing: sessions from before do without.
void session_forked(void);
// There each of them is told besides: whoever computed on it then is gone.
void session_child(struct session * session);
