// One way of computing a runner's graph on streams: a plan, memory of our own for it, and the
// dispatcher that plays it.
#pragma once

#include "dispatch/dispatch.h"
#include "host.h"
#include "own_memory.h"

struct player {
    struct ggc_graph_plan * plan;
    struct own_memory own;
    struct ggc_runner_params params;
    const struct dispatch_i * dispatch;  // NULL: not open
    void * state;
    uint64_t n_computed;
    char warning[HOST_TEXT];  // of the dispatcher: what went wrong and did no harm
    struct message to_warning;
};

struct player_args {
    struct ggml_cgraph * graph;  // kept as long as the player is open
    ggml_backend_t backend;      // the runner's
    bool is_cuda;
    uint32_t n_streams, n_threads;      // threads: of the CPU, all streams together
    uint32_t more_than;                 // streams: a plan with no more has been tried
    const struct player * alike;        // of a graph like this one, closed or not; NULL: none
    struct cuda_instances * instances;  // of the backend, the first the runner's; NULL: the CPU
    // Of the backend, which may come to `budget` bytes; this graph's players use `used_by_graph`,
    // and make_room gives up what others use.
    struct scratches * scratches;
    size_t budget, used_by_graph;
    void (*make_room)(void * user);
    void * user;
};

// Zeroed memory is a player that is closed. Without success it is to be closed as well, and may
// have a plan: GGC_E_UNSUPPORTED, when streams have nothing to offer here, which is no failure;
// else what went wrong, told in `message`.
enum ggc_status player_open(struct player * player, const struct player_args * args,
                            const struct message * message);
void player_close(struct player * player);

// Whether nothing is left to make: on CUDA the first computation issues everything, and the second
// captures it; or the first one does where there was a graph alike. A graph whose CUDA graph was
// taken over has to be captured again.
bool player_is_ready(const struct player * player);
// Whether it is launched as a CUDA graph by now.
bool player_is_replayed(const struct player * player);

// Computes the graph; on CUDA returns when everything is issued.
enum ggc_status player_compute(struct player * player, const struct message * message);

struct ggc_graph_params player_plan_params(bool is_cuda, uint32_t n_streams);
// The larger of 32 MiB and 2 % of the weights that the graph reads.
size_t player_budget(const struct ggml_cgraph * graph);
