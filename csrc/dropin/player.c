#include "player.h"

#include <stdlib.h>

#include "dispatch/cuda_figures.h"
#include "ggml/fuse.h"
#include "ggml/pointer_map.h"
#include "settings.h"

#define CPU_WAIT_COST 5.0  // microseconds, as for runners
#define CUDA_WAIT_COST 0.5

#define LEAST_BUDGET ((size_t) 32 << 20)
#define BUDGET_SHARE 50  // of the weights that the graph reads

static size_t weight_bytes(const struct ggml_cgraph * graph) {
    struct pointer_map seen;
    size_t bytes = 0;
    bool ok = pointer_map_init(&seen, (size_t) graph->n_nodes);
    for (int i = 0; ok && i < graph->n_nodes; i++) {
        for (int s = 0; ok && s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * source = graph->nodes[i]->src[s];
            if (source == NULL || source->buffer == NULL ||
                ggml_backend_buffer_get_usage(source->buffer) !=
                    GGML_BACKEND_BUFFER_USAGE_WEIGHTS ||
                pointer_map_get(&seen, source, 0) != 0) {
                continue;
            }
            bytes += ggml_nbytes(source);
            ok = pointer_map_put(&seen, source, 1);
        }
    }
    pointer_map_free(&seen);
    return bytes;
}

size_t player_budget(const struct ggml_cgraph * graph) {
    const size_t share = weight_bytes(graph) / BUDGET_SHARE;
    return share > LEAST_BUDGET ? share : LEAST_BUDGET;
}

struct ggc_graph_params player_plan_params(bool is_cuda, uint32_t n_streams) {
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.plan.n_streams = n_streams;
    params.plan.wait_cost = is_cuda ? CUDA_WAIT_COST : CPU_WAIT_COST;
    params.fuse = is_cuda ? GGC_FUSE_CUDA : GGC_FUSE_CPU;
    return params;
}

static enum ggc_status lay_out(struct own_memory * own, const struct player_args * args,
                               const struct ggc_graph_plan * plan) {
    struct scratches * scratches = args->scratches;
    const enum ggc_status status =
        own_memory_lay_out(own, args->graph, plan, scratches, args->budget);
    if (status != GGC_E_CAPACITY ||
        !scratch_room_can_grow(scratches, own->buft, args->budget, args->used_by_graph)) {
        return status;
    }
    args->make_room(args->user);
    return own_memory_lay_out(own, args->graph, plan, scratches, args->budget);
}

// 1. A plan of the graph as if no two tensors of its own shared memory. 2. Memory for that plan, or
// the runner's where it does not fit. 3. The plan for the addresses, in the same order if possible.
static enum ggc_status make_plan(struct player * player, const struct player_args * args,
                                 const bool * apart) {
    struct own_memory * own = &player->own;
    struct ggc_graph_params params = player_plan_params(args->is_cuda, args->n_streams);
    struct ggc_graph_plan * wish = NULL;
    params.apart = apart;
    enum ggc_status status = own_memory_find(own, args->graph, args->backend->device);
    if (status != GGC_OK) {
        return status;
    }
    own_memory_hide(own);
    status = ggc_graph_plan_new(args->graph, &params, &wish);
    own_memory_leave(own);
    if (status == GGC_OK) {
        status = lay_out(own, args, wish);
    }
    if (status == GGC_E_CAPACITY || (status == GGC_E_NOMEM && wish != NULL)) {
        own_memory_free(own);
        status = GGC_OK;
    }
    if (status == GGC_OK) {
        const struct ggc_schedule keep = ggc_plan_schedule(ggc_graph_plan_core(wish));
        params.plan.keep = &keep;
        own_memory_enter(own);
        status = ggc_graph_plan_new(args->graph, &params, &player->plan);
        if (status == GGC_E_INVALID) {
            params.plan.keep = NULL;
            status = ggc_graph_plan_new(args->graph, &params, &player->plan);
        }
        own_memory_leave(own);
    }
    ggc_graph_plan_free(wish);
    return status;
}

// What the backend refuses to fuse in the runner's memory is not fused in ours: the kernels, and so
// the bits, are those of the runner's own path.
static enum ggc_status make_plan_apart(struct player * player, const struct player_args * args) {
    bool * apart = malloc((size_t) args->graph->n_nodes + 1);
    if (apart == NULL) {
        return GGC_E_NOMEM;
    }
    find_apart(args->graph, player_plan_params(args->is_cuda, 1).fuse, apart);
    const enum ggc_status status = make_plan(player, args, apart);
    free(apart);
    return status;
}

static enum ggc_status prove(const struct ggc_graph_plan * plan, const struct message * message) {
    const struct ggc_units units = ggc_graph_plan_units(plan);
    const struct ggc_schedule schedule = ggc_plan_schedule(ggc_graph_plan_core(plan));
    const enum ggc_status status = ggc_verify_schedule(&units, &schedule, NULL);
    if (status != GGC_OK) {
        message_set(message, "the plan is not proven (%s)", ggc_status_string(status));
    }
    return status;
}

static void enter(void * own) {
    own_memory_enter(own);
}

static void leave(void * own) {
    own_memory_leave(own);
}

enum ggc_status player_open(struct player * player, const struct player_args * args,
                            const struct message * message) {
    enum ggc_status status = make_plan_apart(player, args);
    if (status == GGC_OK) {
        status = prove(player->plan, message);
    }
    if (status != GGC_OK) {
        return status;
    }
    if (ggc_plan_get_stats(ggc_graph_plan_core(player->plan)).n_streams <= args->more_than) {
        return GGC_E_UNSUPPORTED;  // nothing (more) to be had at the same time
    }
    const enum ggc_fuse fuse = args->is_cuda ? GGC_FUSE_CUDA : GGC_FUSE_CPU;
    player->params = (struct ggc_runner_params) {
        .device = args->is_cuda ? GGC_DEVICE_CUDA : GGC_DEVICE_CPU,
        .n_streams = args->n_streams,
        .n_threads = args->n_threads > 0 ? args->n_threads : 1,
        .fuse = fuse,
        .stress_seed = settings_get()->stress_seed,
    };
    player->to_warning = (struct message) {player->warning, sizeof(player->warning)};
    const struct dispatch_args to_play = {
        .graph = args->graph,
        .plan = player->plan,
        .params = &player->params,
        .device = args->backend->device,
        .instances = args->instances,
        .alike = args->alike != NULL ? args->alike->state : NULL,
        .places = {enter, leave, &player->own},
        .warning = &player->to_warning,
    };
    if (!args->is_cuda && settings_get()->mode != MODE_ALWAYS && !cpu_streams_pay(&to_play)) {
        return GGC_E_UNSUPPORTED;  // not worth a trial, which is a slow token if it fails
    }
    const struct dispatch_i * dispatch = args->is_cuda ? &dispatch_cuda : &dispatch_cpu;
    status = dispatch->open(&to_play, &player->state, message);
    player->dispatch = status == GGC_OK ? dispatch : NULL;
    return status;
}

void player_close(struct player * player) {
    if (player->dispatch != NULL) {
        player->dispatch->close(player->state);
    }
    own_memory_free(&player->own);
    ggc_graph_plan_free(player->plan);
    *player = (struct player) {0};
}

bool player_is_ready(const struct player * player) {
    return player->dispatch != &dispatch_cuda || cuda_always_issues(player->state)
               ? player->n_computed > 0
               : player_is_replayed(player);
}

bool player_is_replayed(const struct player * player) {
    return player->dispatch == &dispatch_cuda && cuda_figures(player->state).captured;
}

enum ggc_status player_compute(struct player * player, const struct message * message) {
    const struct dispatch_i * dispatch = player->dispatch;
    player->n_computed++;
    return dispatch->async != NULL ? dispatch->async->compute(player->state, message)
                                   : dispatch->compute(player->state, message);
}
