// What a runner is made of, shared by the files that make it up: `runner` (the public entry),
// `computable` (what a backend would abort on), `ways` (which ways there are, which is kept) and
// `players` (each of them planned, proven and opened), `follow` (graphs that change), `transfer`
// (what does not block).
#pragma once

#include "dispatch.h"
#include "ggml/graph_key.h"
#include "ggml/layout.h"
#include "tuner.h"

#define MESSAGE_SIZE 1024

// A way of computing the graph, ready to be used.
struct player {
    struct ggc_runner_params params;
    struct ggc_graph_plan * plan;
    const struct dispatch_i * dispatch;
    void * state;  // NULL once it is not needed any more
};

// Units that are timed one by one, before there are ways that need to know.
struct measure {
    struct player player;   // its plan is that of the first way
    double * microseconds;  // of each unit, the least so far
    uint32_t n_runs;
};

struct ggc_runner {
    struct ggml_cgraph * graph;
    struct ggc_runner_params params;
    ggml_backend_dev_t device;
    double * costs;  // of each node, microseconds; NULL: guessed
    struct layout layout;
    struct ggc_graph_plan * only_plan;      // that the memory is for; NULL: for any
    struct player players[TUNER_MAX_WAYS];  // serial with all threads first
    struct tuner tuner;                     // over these
    struct measure measure;
    bool remembers;  // what tuning finds is to be kept, under
    struct graph_key key;
    char * tuning_dir;  // the parameter's copy
    char message[MESSAGE_SIZE], warning[MESSAGE_SIZE];
    struct message warnings;   // into `warning`
    struct snapshot snapshot;  // of the graph as it was last computed, where somebody must know
    struct given * given;      // what memory the runner gave, for each tensor of `layout`
    enum ggc_status failed;    // since somebody has waited
    char failed_message[MESSAGE_SIZE];
};

static inline const struct player * current_of(const struct ggc_runner * runner) {
    return &runner->players[runner->tuner.current];
}

static inline bool is_metal(const struct ggc_runner * runner) {
    return runner->params.device == GGC_DEVICE_METAL;
}

static inline bool is_cuda(const struct ggc_runner * runner) {
    return runner->params.device == GGC_DEVICE_CUDA;
}

// Around what a runner asks of its device: see ggc_unbound_begin.
static inline int unbound_begin(bool cuda) {
    return cuda ? ggc_unbound_begin() : 0;
}

static inline void unbound_end(bool cuda, int mode) {
    if (cuda) {
        ggc_unbound_end(mode);
    }
}

static inline bool is_cpu(ggml_backend_dev_t device) {
    return ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
}

// computable.c: what the backend would abort on is an error here; with `placed`, a tensor without
// memory too.
enum ggc_status check_nodes(const struct ggml_cgraph * graph, ggml_backend_dev_t device,
                            bool placed, const struct message * message);

// players.c: how a graph is planned for these parameters, and a plan of it.
struct ggc_graph_params graph_params_of(const struct ggc_runner_params * params);
enum ggc_status plan_graph(const struct ggml_cgraph * graph,
                           const struct ggc_runner_params * params, struct ggc_graph_plan ** plan,
                           const struct message * message);
// memory_plans.c: the same on the addresses that a layout gave. Where tensors share memory by time,
// the faster, by the estimate, of two: one found anew, and the one that the layout was made for.
enum ggc_status plan_in_memory(const struct ggml_cgraph * graph,
                               const struct ggc_runner_params * params,
                               const struct layout * layout, struct ggc_graph_plan ** plan,
                               const struct message * message);
// Lays out what has no memory, for `plan` (of these params) or, where that does not fit into the
// budget without orders of its own, for one that needs less; for Metal see layout_init.
enum ggc_status lay_out_graph(struct ggml_cgraph * graph, const struct ggc_runner_params * params,
                              const struct ggc_graph_plan * plan,
                              const struct layout_params * layout_params, struct layout * layout,
                              const struct message * message);
uint32_t streams_of(const struct player * player);
struct dispatch_args args_of(const struct ggc_runner * runner, const struct player * player);
// One more that is planned, proven, and not yet opened.
enum ggc_status add_player(struct ggc_runner * runner, enum ggc_strategy strategy,
                           uint32_t n_streams, uint32_t n_threads, const struct message * message);
void drop_player(struct ggc_runner * runner, uint32_t way);
void keep_only(struct ggc_runner * runner, uint32_t way);
// Ready to compute. A way that cannot be had is done without, as long as there is another.
enum ggc_status open_players(struct ggc_runner * runner, const struct message * message);
void close_player(struct player * player);
// Another plan in the place of the old one, which is right no more; opened again if it was open.
enum ggc_status replan_player(struct ggc_runner * runner, struct player * player,
                              const struct message * message);

// follow.c: keeps what the graph looks like, once ways are there; and before a computation takes
// notice of what has changed. On failure nothing may be computed, and it is tried again next time.
enum ggc_status follow_begin(struct ggc_runner * runner);
enum ggc_status follow(struct ggc_runner * runner, const struct message * message);
void follow_end(struct ggc_runner * runner);

// measure.c: whether the costs of all units are known, in runner->costs from now on.
bool find_costs(struct ggc_runner * runner);
// Begins to measure them; afterwards computations are made by measure_compute, as long as the
// runner measures. Once it does not any more, the costs are known.
enum ggc_status measure_open(struct ggc_runner * runner, const struct message * message);
bool measures(const struct ggc_runner * runner);
enum ggc_status measure_compute(struct ggc_runner * runner, const struct message * message);
void measure_close(struct ggc_runner * runner);

// ways.c: the ways that there are, serial with all threads first; and of these the only one where
// the choice is known.
enum ggc_status add_players(struct ggc_runner * runner, const struct message * message);
enum ggc_status choose(struct ggc_runner * runner);
// Whether there will be more ways, planned by costs that have to be measured first; and these,
// opened, once the costs are known or cannot be.
bool needs_costs(const struct ggc_runner * runner);
enum ggc_status add_late_players(struct ggc_runner * runner, const struct message * message);
// Notes how long a computation took; once the choice is made, the others are closed and it is kept.
void note_time(struct ggc_runner * runner, double microseconds);
