#include <string.h>

#include "cuda_early.h"
#include "metal.h"
#include "runner_state.h"

//
// Planned
//

// What a way must gain over a simpler one. A device's times scatter less than those of threads.
#define WORTH_IT 0.97
#define GPU_WORTH_IT 0.99

// Microseconds that a wait costs: for a thread that spins; for a kernel of a captured graph.
#define CPU_WAIT_COST 5.0
#define CUDA_WAIT_COST 0.5

struct ggc_graph_params graph_params_of(const struct ggc_runner_params * params) {
    struct ggc_graph_params graph_params;
    ggc_graph_params_init(&graph_params);
    graph_params.plan.n_streams = params->n_streams;
    graph_params.plan.strategy = params->strategy;
    graph_params.plan.wait_cost = CPU_WAIT_COST;
    graph_params.fuse = params->fuse;
    graph_params.cost = params->costs;
    if (params->device == GGC_DEVICE_CUDA) {
        graph_params.plan.wait_cost = CUDA_WAIT_COST;
        graph_params.fuse = GGC_FUSE_CUDA;
    }
    if (params->wait_cost >= 0) {
        graph_params.plan.wait_cost = params->wait_cost;
    }
    if (params->device == GGC_DEVICE_METAL) {
        graph_params.plan.n_streams = 1;
        graph_params.fuse = GGC_FUSE_METAL;
        graph_params.tracked = true;
    }
    return graph_params;
}

enum ggc_status plan_graph(const struct ggml_cgraph * graph,
                           const struct ggc_runner_params * params, struct ggc_graph_plan ** plan,
                           const struct message * message) {
    const struct ggc_graph_params graph_params = graph_params_of(params);
    const enum ggc_status status = ggc_graph_plan_new(graph, &graph_params, plan);
    if (status != GGC_OK) {
        message_set(message, "planning failed: %s", ggc_status_string(status));
    }
    return status;
}

// Plans on the addresses, and their proof. For Metal it is what the backend will make of the
// order that is proven: see metal.c.
static enum ggc_status plan_and_verify(struct ggc_runner * runner, struct player * player,
                                       const struct message * message) {
    if (runner->only_plan != NULL) {
        player->plan = runner->only_plan;
        runner->only_plan = NULL;
        return GGC_OK;
    }
    enum ggc_status status =
        plan_in_memory(runner->graph, &player->params, &runner->layout, &player->plan, message);
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

uint32_t streams_of(const struct player * player) {
    return ggc_plan_get_stats(player->plan->core).n_streams;
}

struct dispatch_args args_of(const struct ggc_runner * runner, const struct player * player) {
    return (struct dispatch_args) {
        .graph = runner->graph,
        .plan = player->plan,
        .params = &player->params,
        .device = runner->device,
        .warning = &runner->warnings,
    };
}

enum ggc_status add_player(struct ggc_runner * runner, enum ggc_strategy strategy,
                           uint32_t n_streams, uint32_t n_threads, const struct message * message) {
    struct player * player = &runner->players[runner->tuner.n_ways];
    player->params = runner->params;
    player->params.strategy = strategy;
    player->params.n_streams = n_streams;
    player->params.n_threads = n_threads;
    const enum ggc_status status = plan_and_verify(runner, player, message);
    runner->tuner.n_ways += status == GGC_OK;
    return status;
}

void close_player(struct player * player) {
    if (player->state != NULL) {
        player->dispatch->close(player->state);
        player->state = NULL;
    }
}

void drop_player(struct ggc_runner * runner, uint32_t way) {
    struct player * player = &runner->players[way];
    close_player(player);
    ggc_graph_plan_free(player->plan);
    runner->tuner.n_ways--;
    memmove(player, player + 1, (runner->tuner.n_ways - way) * sizeof(*player));
    runner->players[runner->tuner.n_ways] = (struct player) {0};
}

void keep_only(struct ggc_runner * runner, uint32_t way) {
    for (uint32_t w = runner->tuner.n_ways; w-- > 0;) {
        if (w != way) {
            drop_player(runner, w);
        }
    }
}

//
// Opened
//

// Whether plain ggml gets results wrong by itself: one stream of ours then gives the right ones.
static bool ggml_is_early(const struct ggc_runner * runner, const struct player * player) {
    const struct dispatch_args args = args_of(runner, player);
    return is_cuda(runner) && cuda_order_is_early(&args);
}

static const struct dispatch_i * dispatcher_for(const struct ggc_runner * runner,
                                                const struct player * player) {
    if (is_metal(runner)) {
        return &dispatch_metal;
    }
    if (player->params.scheduled) {
        return &dispatch_sched;
    }
    // a plan that came out on one stream needs no threads or streams of its own
    if (streams_of(player) <= 1 && !player->params.trace && !ggml_is_early(runner, player)) {
        return &dispatch_serial;
    }
    if (is_cuda(runner)) {
        return player->params.trace ? &dispatch_cuda_trace : &dispatch_cuda;
    }
    return &dispatch_cpu;
}

// The only way, or the simplest, which cannot be had.
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
    const bool has_others = runner->tuner.n_ways > 1 && streams_of(player) > 1;
    if (status == GGC_E_DEVICE && player->dispatch == &dispatch_cuda && !has_others) {
        return fall_back(runner, player, message);
    }
    return status;
}

// Whoever has asked for the plan keeps it: it is the same one, with other contents.
static void exchange_plans(struct ggc_graph_plan * a, struct ggc_graph_plan * b) {
    const struct ggc_graph_plan was = *a;
    *a = *b;
    *b = was;
}

enum ggc_status replan_player(struct ggc_runner * runner, struct player * player,
                              const struct message * message) {
    struct player made = *player;
    made.plan = NULL;
    enum ggc_status status = plan_and_verify(runner, &made, message);
    if (status == GGC_OK) {
        const bool was_open = player->state != NULL;
        close_player(player);
        exchange_plans(player->plan, made.plan);
        status = was_open ? open_player(runner, player, message) : GGC_OK;
        if (was_open && status == GGC_E_DEVICE) {
            status = fall_back(runner, player, message);
        }
    }
    ggc_graph_plan_free(made.plan);
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

enum ggc_status open_players(struct ggc_runner * runner, const struct message * message) {
    for (uint32_t w = 0; w < runner->tuner.n_ways;) {
        if (runner->players[w].state != NULL) {
            w++;
            continue;
        }
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
    const double worth_it = is_cuda(runner) ? GPU_WORTH_IT : WORTH_IT;
    tuner_init(&runner->tuner, runner->tuner.n_ways, worth_it);
    return GGC_OK;
}
