#include <stdlib.h>
#include <string.h>

#include "ggml/threads.h"
#include "runner_state.h"
#include "tuning_file.h"

static bool graph_depends_on_threads(const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (depends_on_threads(graph->nodes[i])) {
            return true;
        }
    }
    return false;
}

// As the nodes stand, and by phase.
static enum ggc_status add_metal_players(struct ggc_runner * runner,
                                         const struct message * message) {
    const struct ggc_runner_params * params = &runner->params;
    const bool forced = params->always || params->stress_seed != 0 || runner->only_plan != NULL;
    enum ggc_status status = GGC_OK;
    if (params->n_streams == 1 || !forced) {
        status = add_player(runner, GGC_STRATEGY_SERIAL, 1, 1, message);
    }
    if (status == GGC_OK && params->n_streams > 1) {
        status = add_player(runner, GGC_STRATEGY_LEVELS, params->n_streams, 1, message);
    }
    return status;
}

// Numbers of streams that are tried, those that change nothing any more left out; each with and
// without urgency, where they are timed.
static const uint32_t quick_streams[] = {2, 4, 8}, full_streams[] = {2, 3, 4, 6, 8, 16};

static enum ggc_status add_cuda_way(struct ggc_runner * runner, uint32_t n_streams, bool urgency,
                                    const struct message * message) {
    const enum ggc_status status =
        add_player(runner, runner->params.strategy, n_streams, 1, message);
    if (status == GGC_OK) {
        runner->players[runner->tuner.n_ways - 1].params.urgency = urgency;
    }
    return status;
}

static enum ggc_status add_cuda_streams(struct ggc_runner * runner,
                                        const struct message * message) {
    const struct ggc_runner_params * params = &runner->params;
    const bool full = params->tune == GGC_TUNE_FULL;
    const uint32_t * numbers = full ? full_streams : quick_streams;
    const size_t n = full ? sizeof(full_streams) / sizeof(*full_streams)
                          : sizeof(quick_streams) / sizeof(*quick_streams);
    const bool timed = params->tune != GGC_TUNE_OFF && !params->trace;
    enum ggc_status status = GGC_OK;
    uint32_t before = 1, n_streams = 1;
    for (size_t i = 0; status == GGC_OK && i < n && n_streams < params->n_streams; i++) {
        n_streams = numbers[i] < params->n_streams ? numbers[i] : params->n_streams;
        status = add_cuda_way(runner, n_streams, !timed && params->urgency, message);
        const uint32_t used =
            status == GGC_OK ? streams_of(&runner->players[runner->tuner.n_ways - 1]) : 0;
        if (status == GGC_OK && used <= before) {
            drop_player(runner, runner->tuner.n_ways - 1);
            break;
        }
        if (status == GGC_OK && timed) {
            status = add_cuda_way(runner, n_streams, true, message);
        }
        before = used;
    }
    return status;
}

bool needs_costs(const struct ggc_runner * runner) {
    const struct ggc_runner_params * params = &runner->params;
    return is_cuda(runner) && params->n_streams > 1 && !params->always && !params->trace &&
           params->tune != GGC_TUNE_OFF && runner->costs == NULL;
}

// Serial first, by whose units costs are known; where they are not, what needs them comes later.
static enum ggc_status add_cuda_players(struct ggc_runner * runner,
                                        const struct message * message) {
    const struct ggc_runner_params * params = &runner->params;
    enum ggc_status status = add_player(runner, GGC_STRATEGY_SERIAL, 1, 1, message);
    if (status != GGC_OK || params->n_streams == 1) {
        return status;
    }
    const bool known = find_costs(runner);
    if (params->always) {
        status = add_player(runner, params->strategy, params->n_streams, 1, message);
        if (status == GGC_OK) {
            drop_player(runner, 0);
        }
        return status;
    }
    return known || !needs_costs(runner) ? add_cuda_streams(runner, message) : GGC_OK;
}

enum ggc_status add_late_players(struct ggc_runner * runner, const struct message * message) {
    enum ggc_status status = add_cuda_streams(runner, message);
    if (status == GGC_OK) {
        status = choose(runner);
    }
    return status == GGC_OK ? open_players(runner, message) : status;
}

enum ggc_status add_players(struct ggc_runner * runner, const struct message * message) {
    const struct ggc_runner_params * params = &runner->params;
    const uint32_t n_threads = params->n_threads;
    if (is_metal(runner)) {
        return add_metal_players(runner, message);
    }
    if (is_cuda(runner)) {
        return add_cuda_players(runner, message);
    }
    if (params->always || params->stress_seed != 0) {
        return add_player(runner, params->strategy, params->n_streams, n_threads, message);
    }
    enum ggc_status status = add_player(runner, GGC_STRATEGY_SERIAL, 1, n_threads, message);
    if (status != GGC_OK || params->n_streams == 1) {
        return status;
    }
    status = add_player(runner, params->strategy, params->n_streams, n_threads, message);
    if (status == GGC_OK && streams_of(&runner->players[1]) <= 1) {
        drop_player(runner, 1);
    }
    if (status != GGC_OK || params->tune == GGC_TUNE_OFF || params->trace) {
        return status;
    }
    if (runner->tuner.n_ways > 1 && params->strategy == GGC_STRATEGY_LIST) {
        status = add_player(runner, GGC_STRATEGY_LEVELS, params->n_streams, n_threads, message);
    }
    if (status == GGC_OK && n_threads > 1 && !graph_depends_on_threads(runner->graph)) {
        status = add_player(runner, GGC_STRATEGY_SERIAL, 1, 1, message);
    }
    return status;
}

//
// Choosing
//

static void choose_by_estimate(struct ggc_runner * runner) {
    const struct dispatch_args args = args_of(runner, &runner->players[1]);
    keep_only(runner, cpu_streams_pay(&args) ? 1 : 0);
}

// What is remembered holds for this graph, processor, ggml and version, and these parameters.
static bool find_key(struct ggc_runner * runner) {
    const struct ggc_runner_params * params = &runner->params;
    char extra[500];
    snprintf(extra, sizeof(extra), "%s, ggml %s, %s, %u %u %d %d %d", GGC_VERSION, ggml_version(),
             ggml_backend_dev_description(runner->device), params->n_streams, params->n_threads,
             (int) params->strategy, (int) params->fuse, (int) params->tune);
    return graph_key_of(&runner->key, runner->graph, extra);
}

// Keeps the way that is remembered, if it is one of those that there are.
static void choose_by_memory(struct ggc_runner * runner) {
    struct tuning tuning;
    if (tuning_read(runner->params.tuning_dir, &runner->key, &tuning, &runner->warnings) !=
        TUNING_FOUND) {
        return;
    }
    const struct tuning_way best = tuning.best;
    for (uint32_t w = 0; w < runner->tuner.n_ways; w++) {
        const struct ggc_runner_params * params = &runner->players[w].params;
        if (params->strategy == best.strategy && params->n_streams == best.n_streams &&
            params->n_threads == best.n_threads && params->urgency == best.urgency) {
            keep_only(runner, w);
            return;
        }
    }
}
enum ggc_status choose(struct ggc_runner * runner) {
    const struct ggc_runner_params * params = &runner->params;
    if (runner->tuner.n_ways == 1) {
        return GGC_OK;
    }
    if (params->tune == GGC_TUNE_OFF || params->trace) {
        if (is_cuda(runner)) {
            keep_only(runner, runner->tuner.n_ways - 1);
        } else if (!is_metal(runner)) {
            choose_by_estimate(runner);
        }
        return GGC_OK;
    }
    if (params->tuning_dir == NULL) {
        return GGC_OK;
    }
    if (!find_key(runner)) {
        return GGC_E_NOMEM;
    }
    choose_by_memory(runner);
    runner->remembers = runner->tuner.n_ways > 1;
    return GGC_OK;
}

//
// Remembering
//

static int by_time(const void * a, const void * b) {
    const struct tuning_way *x = a, *y = b;
    return (x->nanoseconds > y->nanoseconds) - (x->nanoseconds < y->nanoseconds);
}

// The ways that were timed; the chosen one first, whatever the others took.
static void remember(struct ggc_runner * runner) {
    struct tuning_way ways[TUNER_MAX_WAYS];
    uint32_t n = 1;
    for (uint32_t w = 0; w < runner->tuner.n_ways; w++) {
        const struct ggc_runner_params * params = &runner->players[w].params;
        ways[w == runner->tuner.current ? 0 : n++] = (struct tuning_way) {
            .strategy = params->strategy,
            .n_streams = params->n_streams,
            .n_threads = params->n_threads,
            .urgency = params->urgency,
            .nanoseconds = (uint64_t) (1e3 * tuner_median(&runner->tuner, w)) + 1,
        };
    }
    qsort(ways + 1, n - 1, sizeof(*ways), by_time);
    tuning_write(runner->params.tuning_dir, &runner->key, ways, n, 0, &runner->warnings);
}

// The losers' threads and backends go; their plans stay, somebody may look at them.
static void finish_tuning(struct ggc_runner * runner) {
    for (uint32_t w = 0; w < runner->tuner.n_ways; w++) {
        if (w != runner->tuner.current) {
            close_player(&runner->players[w]);
        }
    }
    if (runner->remembers) {
        remember(runner);
    }
}

void note_time(struct ggc_runner * runner, double microseconds) {
    tuner_note(&runner->tuner, microseconds);
    if (runner->tuner.settled) {
        finish_tuning(runner);
    }
}
