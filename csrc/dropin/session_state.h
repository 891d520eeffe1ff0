// What a session is made of, shared by the files that make it up: `session` (opening, closing, what
// the runner sets and asks), `session_compute` (graphs that come, and what becomes of them).
#pragma once

#include "dispatch/cuda_instance.h"
#include "family.h"
#include "player.h"
#include "session.h"
#include "stopwatch.h"

#define MAX_ENTRIES 8
#define MAX_FAMILIES 16

struct entry {
    uint64_t uid, last_used;
    uint32_t n_seen, expected;  // computations, so far and as many as before of a graph like it
    bool hopeless, is_early, is_announced;  // to its family, as a new one
    struct ggml_cgraph graph;  // the runner's struct as it was; the nodes are the runner's
    struct family * family;
    struct player players[MAX_WAYS];
    double opening;         // microseconds that it took to make one ready, so far
    bool failed[MAX_WAYS];  // those that are not to be had
};

struct session {
    pthread_mutex_t mutex;
    struct host * host;
    ggml_backend_t backend;
    enum ggml_status (*compute)(ggml_backend_t, struct ggml_cgraph *);
    ggml_backend_dev_t device;
    bool is_cuda, is_closed;
    unsigned generation;
    char reason[HOST_TEXT], warning[512];
    bool has_warned;
    atomic_int n_threads;
    atomic_bool has_threadpool, has_abort;

    struct cuda_instances instances;
    struct scratches scratches;
    uint64_t clock;
    struct entry entries[MAX_ENTRIES];
    uint32_t n_entries;
    struct family families[MAX_FAMILIES];
    uint32_t n_families;
    struct newcomers newcomers;

    pthread_mutex_t plan_mutex;
    struct session_plan last_plan;  // under its own lock: it is asked for while graphs are computed
    bool can_time;
    struct stopwatch watch;
    struct family * timed;  // whose trial the stopwatch holds
    struct {
        _Atomic uint64_t graphs, on_streams, plans, failures, own_nanoseconds;
    } counts;
};

// session_compute.c: with the lock held, and among the host's functions.
enum ggml_status compute_locked(struct session * session, struct ggml_cgraph * graph);
// Gives back the players of an entry but that of one way; MAX_WAYS: all.
void drop_players(struct entry * entry, uint32_t but);

// session.c: how often the process has forked.
unsigned session_generation(void);
