#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dispatch.h"
#include "ggml/backends.h"
#include "ggml/layout.h"
#include "ggml/threads.h"
#include "metal.h"
#include "tuner.h"
#include "tuning_file.h"

#define MESSAGE_SIZE 1024

// A way of computing the graph, ready to be used.
struct player {
    struct ggc_runner_params params;
    struct ggc_graph_plan * plan;
    const struct dispatch_i * dispatch;
    void * state;  // NULL once it is not needed any more
};

struct ggc_runner {
    struct ggml_cgraph * graph;
    struct ggc_runner_params params;
    ggml_backend_dev_t device;
    struct layout layout;
    struct ggc_graph_plan * only_plan;      // that the memory is for; NULL: for any
    struct player players[TUNER_MAX_WAYS];  // serial with all threads first
    struct tuner tuner;                     // over these
    bool remembers;                         // what tuning finds is to be kept, under
    struct graph_key key;
    char * tuning_dir;
    char message[MESSAGE_SIZE], warning[MESSAGE_SIZE];
    struct message warnings;  // into `warning`
};

void ggc_runner_params_init(struct ggc_runner_params * params) {
    *params = (struct ggc_runner_params) {
        .device = GGC_DEVICE_CPU,
        .n_streams = 2,
        .n_threads = 2,
        .strategy = GGC_STRATEGY_LIST,
        .wait_cost = 5.0,
        .fuse = GGC_FUSE_CPU,
        .tune = GGC_TUNE_QUICK,
        .tuning_dir = NULL,
        .always = false,
        .verify = true,
        .budget = (size_t) 32 << 20,
        .stress_seed = 0,
        .trace = false,
    };
}

static bool params_valid(const struct ggc_runner_params * params, const struct message * message) {
    if ((unsigned) params->device > GGC_DEVICE_METAL) {
        message_set(message, "unknown device %d", (int) params->device);
    } else if (params->device != GGC_DEVICE_CPU && params->trace) {
        message_set(message, "another device does not tell when a unit runs: trace is for the CPU");
    } else if (params->n_streams < 1 || params->n_streams > GGC_MAX_STREAMS) {
        message_set(message, "n_streams is %u, expected 1 to %d", params->n_streams,
                    GGC_MAX_STREAMS);
    } else if ((unsigned) params->strategy > GGC_STRATEGY_COVER) {
        message_set(message, "unknown strategy %d", (int) params->strategy);
    } else if (!(params->wait_cost >= 0 && params->wait_cost < 1e9)) {
        message_set(message, "wait_cost is %g, expected microseconds, 0 or more",
                    params->wait_cost);
    } else if ((unsigned) params->fuse > GGC_FUSE_METAL) {
        message_set(message, "unknown fuse %d", (int) params->fuse);
    } else if ((unsigned) params->tune > GGC_TUNE_QUICK) {
        message_set(message, "unknown tune %d", (int) params->tune);
    } else if (params->n_threads < 1 || params->n_threads > 512) {
        message_set(message, "n_threads is %u, expected 1 to 512", params->n_threads);
    } else {
        return true;
    }
    return false;
}

static enum ggc_status plan_graph(const struct ggml_cgraph * graph,
                                  const struct ggc_runner_params * params,
                                  struct ggc_graph_plan ** plan, const struct message * message) {
    struct ggc_graph_params graph_params;
    ggc_graph_params_init(&graph_params);
    graph_params.plan.n_streams = params->n_streams;
    graph_params.plan.strategy = params->strategy;
    graph_params.plan.wait_cost = params->wait_cost;
    graph_params.fuse = params->fuse;
    if (params->device == GGC_DEVICE_CUDA) {
        graph_params.fuse = GGC_FUSE_CUDA;
    }
    if (params->device == GGC_DEVICE_METAL) {
        graph_params.plan.n_streams = 1;
        graph_params.fuse = GGC_FUSE_METAL;
        graph_params.tracked = true;
    }
    const enum ggc_status status = ggc_graph_plan_new(graph, &graph_params, plan);
    if (status != GGC_OK) {
        message_set(message, "planning failed: %s", ggc_status_string(status));
    }
    return status;
}

static bool is_metal(const struct ggc_runner * runner) {
    return runner->params.device == GGC_DEVICE_METAL;
}

static bool is_cuda(const struct ggc_runner * runner) {
    return runner->params.device == GGC_DEVICE_CUDA;
}

static enum ggc_status find_device(struct ggc_runner * runner, const struct message * message) {
    const struct ggc_runner_params * params = &runner->params;
    runner->device = is_cuda(runner)    ? cuda_device(params->device_index, message)
                     : is_metal(runner) ? metal_device(message)
                                        : cpu_device(message);
    if (runner->device != NULL && is_metal(runner) && !metal_is_apple(runner->device)) {
        message_set(&runner->warnings,
                    "ggml's Metal backend gives wrong results with concurrency on %s, which is not "
                    "Apple silicon (llama.cpp#19567, #25866): it is off",
                    ggml_backend_dev_description(runner->device));
        runner->params.n_streams = 1;
    }
    return runner->device != NULL ? GGC_OK : GGC_E_DEVICE;
}

// 1. Memory. Where tensors have none yet, a plan by identity tells how to lay them out. On Metal it
// is for one order alone, if shared: that of the graph, or the plan's, which is then kept.
static enum ggc_status lay_out(struct ggc_runner * runner, const struct message * message) {
    struct ggc_graph_plan * plan;
    enum ggc_status status = plan_graph(runner->graph, &runner->params, &plan, message);
    if (status != GGC_OK) {
        return status;
    }
    const struct layout_params params = {
        .buft = ggml_backend_dev_buffer_type(runner->device),
        .budget = runner->params.budget,
        .gaps = is_metal(runner),  // its range tracker takes what touches for overlapping
        .keep_nodes = is_metal(runner),
    };
    const bool as_it_stands = is_metal(runner) && runner->params.n_streams == 1;
    status =
        layout_init(&runner->layout, runner->graph, as_it_stands ? NULL : plan, &params, message);
    if (status == GGC_OK && is_metal(runner) && layout_shares(&runner->layout)) {
        runner->only_plan = plan;
    } else {
        ggc_graph_plan_free(plan);
    }
    return status;
}

// ggml 0.25.3 gives SET_ROWS no scratch memory for the rows that it converts, when these are f16.
static bool overflows(const struct ggml_tensor * node) {
    return node->op == GGML_OP_SET_ROWS && node->src[0]->type == GGML_TYPE_F16 &&
           node->type != GGML_TYPE_F16;
}

static bool is_cpu(ggml_backend_dev_t device) {
    return ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
}

// Memory of the device's own, or for the CPU whatever it can read.
static bool can_use(ggml_backend_dev_t device, const struct ggml_tensor * tensor) {
    const struct ggml_backend_buffer * buffer = root_of(tensor)->buffer;
    if (buffer == NULL) {
        return is_cpu(device);
    }
    return ggml_backend_dev_supports_buft(device, buffer->buft);
}

// 2. What the backend would abort on.
static enum ggc_status check_nodes(const struct ggml_cgraph * graph, ggml_backend_dev_t device,
                                   const struct message * message) {
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor * node = graph->nodes[i];
        if (!node_computes(node)) {
            continue;
        }
        for (int s = -1; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * tensor = s < 0 ? node : node->src[s];
            if (tensor != NULL && root_of(tensor)->data == NULL) {
                message_set(message, "node %d (%s) uses tensor '%s', which has no memory", i,
                            ggml_op_desc(node), tensor->name);
                return GGC_E_INVALID;
            }
            if (tensor != NULL && !can_use(device, tensor)) {
                message_set(message,
                            "node %d (%s) uses tensor '%s', whose memory %s cannot use: make it in "
                            "a store of that device",
                            i, ggml_op_desc(node), tensor->name, ggml_backend_dev_name(device));
                return GGC_E_INVALID;
            }
        }
        if (is_cpu(device) && overflows(node)) {
            message_set(message,
                        "node %d, '%s': this ggml overruns its memory when it sets rows of "
                        "f16 in a tensor of %s; cast the rows to f32 first",
                        i, node->name, ggml_type_name(node->type));
            return GGC_E_UNSUPPORTED;
        }
        if (!ggml_backend_dev_supports_op(device, node)) {
            message_set(message, "the %s backend cannot compute node %d, '%s' (%s of %s)",
                        ggml_backend_dev_name(device), i, node->name, ggml_op_desc(node),
                        ggml_type_name(node->type));
            return GGC_E_UNSUPPORTED;
        }
    }
    return GGC_OK;
}

// 3. Plans on the addresses, and their proof. For Metal it is what the backend will make of the
// order that is proven: see metal.c.
static enum ggc_status plan_and_verify(struct ggc_runner * runner, struct player * player,
                                       const struct message * message) {
    if (runner->only_plan != NULL) {
        player->plan = runner->only_plan;
        runner->only_plan = NULL;
        return GGC_OK;
    }
    enum ggc_status status = plan_graph(runner->graph, &player->params, &player->plan, message);
    if (status != GGC_OK || !player->params.verify || is_metal(runner)) {
        return status;
    }
    const struct ggc_units units = ggc_graph_plan_units(player->plan);
    const struct ggc_schedule schedule = ggc_plan_schedule(player->plan->core);
    struct ggc_conflict race;
    status = ggc_verify_schedule(&units, &schedule, &race);
    if (status == GGC_E_RACE) {
        message_set(message, "the plan races: units %u and %u (%s), please report this", race.a,
                    race.b, ggc_hazard_string(race.hazard));
    }
    return status;
}

static uint32_t streams_of(const struct player * player) {
    return ggc_plan_get_stats(player->plan->core).n_streams;
}

static struct dispatch_args args_of(const struct ggc_runner * runner,
                                    const struct player * player) {
    return (struct dispatch_args) {runner->graph, player->plan, &player->params, runner->device,
                                   &runner->warnings};
}

// A player that is planned, proven, and not yet opened.
static enum ggc_status add_player(struct ggc_runner * runner, enum ggc_strategy strategy,
                                  uint32_t n_streams, uint32_t n_threads,
                                  const struct message * message) {
    struct player * player = &runner->players[runner->tuner.n_ways];
    player->params = runner->params;
    player->params.strategy = strategy;
    player->params.n_streams = n_streams;
    player->params.n_threads = n_threads;
    const enum ggc_status status = plan_and_verify(runner, player, message);
    runner->tuner.n_ways += status == GGC_OK;
    return status;
}

static void drop_player(struct ggc_runner * runner, uint32_t way) {
    struct player * player = &runner->players[way];
    if (player->state != NULL) {
        player->dispatch->close(player->state);
    }
    ggc_graph_plan_free(player->plan);
    runner->tuner.n_ways--;
    memmove(player, player + 1, (runner->tuner.n_ways - way) * sizeof(*player));
    runner->players[runner->tuner.n_ways] = (struct player) {0};
}

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

// Serial, and with 2, 4, 8, ... streams, as many as are allowed and of use.
static enum ggc_status add_cuda_players(struct ggc_runner * runner,
                                        const struct message * message) {
    const struct ggc_runner_params * params = &runner->params;
    if (params->always || params->n_streams == 1) {
        return add_player(runner, params->strategy, params->n_streams, 1, message);
    }
    enum ggc_status status = add_player(runner, GGC_STRATEGY_SERIAL, 1, 1, message);
    for (uint32_t n = 2, before = 1; status == GGC_OK && n <= params->n_streams; n *= 2) {
        if (runner->tuner.n_ways == TUNER_MAX_WAYS) {
            break;
        }
        status = add_player(runner, params->strategy, n, 1, message);
        const uint32_t way = runner->tuner.n_ways - 1;
        if (status == GGC_OK && streams_of(&runner->players[way]) <= before) {
            drop_player(runner, way);
            break;
        }
        before = n;
    }
    return status;
}

// 4. The ways that there are, serial with all threads first.
static enum ggc_status add_players(struct ggc_runner * runner, const struct message * message) {
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

// 5. Of these, the only one where the choice is known.
static void keep_only(struct ggc_runner * runner, uint32_t way) {
    for (uint32_t w = runner->tuner.n_ways; w-- > 0;) {
        if (w != way) {
            drop_player(runner, w);
        }
    }
}

static void choose_by_estimate(struct ggc_runner * runner) {
    const struct dispatch_args args = args_of(runner, &runner->players[1]);
    keep_only(runner, cpu_streams_pay(&args) ? 1 : 0);
}

// What is remembered holds for this graph, processor, ggml and version, and these parameters.
static bool find_key(struct ggc_runner * runner) {
    const struct ggc_runner_params * params = &runner->params;
    char extra[500];
    snprintf(extra, sizeof(extra), "%s, ggml %s, %s, %u %u %d %d", GGC_VERSION, ggml_version(),
             ggml_backend_dev_description(runner->device), params->n_streams, params->n_threads,
             (int) params->strategy, (int) params->fuse);
    return graph_key_of(&runner->key, runner->graph, extra);
}

// Keeps the way that is remembered, if it is one of those that there are.
static void choose_by_memory(struct ggc_runner * runner) {
    struct tuning_way best;
    if (tuning_read(runner->tuning_dir, &runner->key, &best, &runner->warnings) != TUNING_FOUND) {
        return;
    }
    for (uint32_t w = 0; w < runner->tuner.n_ways; w++) {
        const struct ggc_runner_params * params = &runner->players[w].params;
        if (params->strategy == best.strategy && params->n_streams == best.n_streams &&
            params->n_threads == best.n_threads) {
            keep_only(runner, w);
            return;
        }
    }
}

static enum ggc_status choose(struct ggc_runner * runner) {
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
    runner->tuning_dir = strdup(params->tuning_dir);
    if (runner->tuning_dir == NULL || !find_key(runner)) {
        return GGC_E_NOMEM;
    }
    choose_by_memory(runner);
    runner->remembers = runner->tuner.n_ways > 1;
    return GGC_OK;
}

// 6. Ready to compute. A way that cannot be had is done without, as long as there is another.
static const struct dispatch_i * dispatcher_for(const struct ggc_runner * runner,
                                                const struct player * player) {
    if (is_metal(runner)) {
        return &dispatch_metal;
    }
    // a plan that came out on one stream needs no threads or streams of its own
    if (streams_of(player) <= 1 && !player->params.trace) {
        return &dispatch_serial;
    }
    return is_cuda(runner) ? &dispatch_cuda : &dispatch_cpu;
}

// The only way, which cannot be had: plain ggml gives the same result.
static enum ggc_status fall_back(struct ggc_runner * runner, struct player * player,
                                 const struct message * message) {
    const struct dispatch_args args = args_of(runner, player);
    if (message->text != NULL) {
        message_set(&runner->warnings, "%s: computed serially", message->text);
    }
    player->dispatch = &dispatch_serial;
    return player->dispatch->open(&args, &player->state, message);
}

static enum ggc_status open_player(struct ggc_runner * runner, struct player * player,
                                   const struct message * message) {
    const struct dispatch_args args = args_of(runner, player);
    player->dispatch = dispatcher_for(runner, player);
    const enum ggc_status status = player->dispatch->open(&args, &player->state, message);
    if (status == GGC_E_DEVICE && player->dispatch == &dispatch_cuda && runner->tuner.n_ways == 1) {
        return fall_back(runner, player, message);
    }
    return status;
}

// What ggml-metal makes of the orders is known once they are ready.
static void choose_by_figures(struct ggc_runner * runner) {
    if (is_metal(runner) && runner->params.tune == GGC_TUNE_OFF && runner->tuner.n_ways == 2) {
        const struct ggc_metal_figures serial = metal_figures(runner->players[0].state),
                                       phases = metal_figures(runner->players[1].state);
        keep_only(runner, phases.microseconds < serial.microseconds ? 1 : 0);
    }
}

static enum ggc_status open_players(struct ggc_runner * runner, const struct message * message) {
    for (uint32_t w = 0; w < runner->tuner.n_ways;) {
        const enum ggc_status status = open_player(runner, &runner->players[w], message);
        if (status == GGC_OK) {
            w++;
        } else if (w == 0 || status == GGC_E_NOMEM) {
            return status;
        } else {
            if (!is_cpu(runner->device) && message->text != NULL) {
                message_set(&runner->warnings, "%s", message->text);
            }
            drop_player(runner, w);
        }
    }
    choose_by_figures(runner);
    tuner_init(&runner->tuner, runner->tuner.n_ways);
    return GGC_OK;
}

static enum ggc_status open_runner(struct ggc_runner * runner, const struct message * message) {
    enum ggc_status status = find_device(runner, message);
    if (status == GGC_OK) {
        status = lay_out(runner, message);
    }
    if (status == GGC_OK) {
        status = check_nodes(runner->graph, runner->device, message);
    }
    if (status == GGC_OK) {
        status = add_players(runner, message);
    }
    if (status == GGC_OK) {
        status = choose(runner);
    }
    return status == GGC_OK ? open_players(runner, message) : status;
}

enum ggc_status ggc_runner_new(struct ggml_cgraph * graph, const struct ggc_runner_params * params,
                               struct ggc_runner ** runner, char * text, size_t text_size) {
    const struct message message = {text, text_size};
    struct ggc_runner_params defaults;
    ggc_runner_params_init(&defaults);
    params = params != NULL ? params : &defaults;
    if (runner != NULL) {
        *runner = NULL;
    }
    if (graph == NULL || runner == NULL) {
        message_set(&message, "no graph, or no place for the runner");
        return GGC_E_INVALID;
    }
    if (!params_valid(params, &message)) {
        return GGC_E_INVALID;
    }
    struct ggc_runner * made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return GGC_E_NOMEM;
    }
    made->graph = graph;
    made->params = *params;
    made->warnings = (struct message) {made->warning, sizeof(made->warning)};
    const enum ggc_status status = open_runner(made, &message);
    if (status != GGC_OK) {
        ggc_runner_free(made);
        return status;
    }
    *runner = made;
    return GGC_OK;
}

static struct player * current(struct ggc_runner * runner) {
    return &runner->players[runner->tuner.current];
}

static const struct player * current_of(const struct ggc_runner * runner) {
    return &runner->players[runner->tuner.current];
}

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
            .nanoseconds = (uint64_t) (1e3 * tuner_median(&runner->tuner, w)) + 1,
        };
    }
    qsort(ways + 1, n - 1, sizeof(*ways), by_time);
    tuning_write(runner->tuning_dir, &runner->key, ways, n, &runner->warnings);
}

// The losers' threads and backends go; their plans stay, somebody may look at them.
static void finish_tuning(struct ggc_runner * runner) {
    for (uint32_t w = 0; w < runner->tuner.n_ways; w++) {
        struct player * player = &runner->players[w];
        if (w != runner->tuner.current) {
            player->dispatch->close(player->state);
            player->state = NULL;
        }
    }
    if (runner->remembers) {
        remember(runner);
    }
}

enum ggc_status ggc_runner_compute(struct ggc_runner * runner) {
    const struct message message = {runner->message, sizeof(runner->message)};
    struct player * player = current(runner);
    runner->message[0] = '\0';
    if (runner->tuner.settled) {
        return player->dispatch->compute(player->state, &message);
    }
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    const enum ggc_status status = player->dispatch->compute(player->state, &message);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (status == GGC_OK) {
        tuner_note(&runner->tuner, 1e6 * (double) (end.tv_sec - begin.tv_sec) +
                                       1e-3 * (double) (end.tv_nsec - begin.tv_nsec));
        if (runner->tuner.settled) {
            finish_tuning(runner);
        }
    }
    return status;
}

uint32_t ggc_runner_ways(const struct ggc_runner * runner, struct ggc_way * ways,
                         uint32_t capacity) {
    const struct tuner * tuner = &runner->tuner;
    for (uint32_t w = 0; w < tuner->n_ways && w < capacity; w++) {
        const struct ggc_runner_params * params = &runner->players[w].params;
        ways[w] = (struct ggc_way) {
            .strategy = params->strategy,
            .n_streams = params->n_streams,
            .n_threads = params->n_threads,
            .microseconds = tuner_median(tuner, w),
            .in_use = w == tuner->current,
        };
    }
    return tuner->n_ways;
}

bool ggc_runner_settled(const struct ggc_runner * runner) {
    return runner->tuner.settled;
}

const char * ggc_runner_warning(const struct ggc_runner * runner) {
    return runner->warning;
}

const char * ggc_runner_message(const struct ggc_runner * runner) {
    return runner->message;
}

const struct ggc_graph_plan * ggc_runner_plan(const struct ggc_runner * runner) {
    return current_of(runner)->plan;
}

enum ggc_status ggc_runner_metal_figures(const struct ggc_runner * runner,
                                         struct ggc_metal_figures * figures) {
    if (runner == NULL || figures == NULL || !is_metal(runner)) {
        return GGC_E_INVALID;
    }
    *figures = metal_figures(current_of(runner)->state);
    return GGC_OK;
}

size_t ggc_runner_buffer_size(const struct ggc_runner * runner) {
    return runner->layout.size;
}

uint32_t ggc_runner_unit_threads(const struct ggc_runner * runner, uint32_t unit) {
    const struct player * player = current_of(runner);
    if (unit >= ggc_plan_get_stats(player->plan->core).n_units) {
        return 0;
    }
    return player->dispatch->unit_threads(player->state, unit);
}

const double * ggc_runner_unit_times(const struct ggc_runner * runner) {
    const struct player * player = current_of(runner);
    return runner->params.trace ? player->dispatch->unit_times(player->state) : NULL;
}

void ggc_runner_free(struct ggc_runner * runner) {
    if (runner == NULL) {
        return;
    }
    for (uint32_t w = 0; w < TUNER_MAX_WAYS; w++) {
        struct player * player = &runner->players[w];
        if (player->state != NULL) {
            player->dispatch->close(player->state);
        }
        ggc_graph_plan_free(player->plan);
    }
    ggc_graph_plan_free(runner->only_plan);
    layout_free(&runner->layout);
    free(runner->tuning_dir);
    free(runner);
}

enum ggc_status ggc_compute_serial(struct ggml_cgraph * graph, uint32_t n_threads, char * text,
                                   size_t text_size) {
    const struct message message = {text, text_size};
    if (graph == NULL || n_threads < 1 || n_threads > 512) {
        message_set(&message, "n_threads is %u, expected 1 to 512", n_threads);
        return GGC_E_INVALID;
    }
    ggml_backend_dev_t device = cpu_device(&message);
    if (device == NULL) {
        return GGC_E_DEVICE;
    }
    enum ggc_status status = check_nodes(graph, device, &message);
    if (status != GGC_OK) {
        return status;
    }
    ggml_backend_t backend = new_cpu_backend(&message);
    if (backend == NULL) {
        return GGC_E_DEVICE;
    }
    set_n_threads(backend, n_threads);
    status = compute_guarded(backend, graph, n_threads, &message);
    ggml_backend_free(backend);
    return status;
}
