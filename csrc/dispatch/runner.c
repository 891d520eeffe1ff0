#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda_driver.h"
#include "cuda_figures.h"
#include "ggml/backends.h"
#include "ggml/threads.h"
#include "metal.h"
#include "runner_state.h"

void ggc_runner_params_init(struct ggc_runner_params * params) {
    *params = (struct ggc_runner_params) {
        .device = GGC_DEVICE_CPU,
        .n_streams = 2,
        .n_threads = 2,
        .strategy = GGC_STRATEGY_LIST,
        .wait_cost = -1,
        .fuse = GGC_FUSE_CPU,
        .tune = GGC_TUNE_QUICK,
        .tuning_dir = NULL,
        .always = false,
        .verify = true,
        .budget = GGC_BUDGET_DEFAULT,
        .stress_seed = 0,
        .trace = false,
        .scheduled = false,
    };
}

static bool params_valid(const struct ggc_runner_params * params, const struct message * message) {
    if ((unsigned) params->device > GGC_DEVICE_METAL) {
        message_set(message, "unknown device %d", (int) params->device);
    } else if (params->device == GGC_DEVICE_METAL && params->trace) {
        message_set(message, "Metal does not tell when a unit runs: trace is for other devices");
    } else if (params->scheduled && params->device == GGC_DEVICE_METAL) {
        message_set(message, "scheduled is for the CPU and CUDA, not for Metal");
    } else if (params->scheduled && (params->n_streams != 1 || params->trace)) {
        message_set(message, "scheduled is plain ggml: it goes with n_streams 1 and without trace");
    } else if (params->n_streams < 1 || params->n_streams > GGC_MAX_STREAMS) {
        message_set(message, "n_streams is %u, expected 1 to %d", params->n_streams,
                    GGC_MAX_STREAMS);
    } else if ((unsigned) params->strategy > GGC_STRATEGY_COVER) {
        message_set(message, "unknown strategy %d", (int) params->strategy);
    } else if (!(params->wait_cost < 1e9)) {
        message_set(message, "wait_cost is %g, expected microseconds", params->wait_cost);
    } else if ((unsigned) params->fuse > GGC_FUSE_METAL) {
        message_set(message, "unknown fuse %d", (int) params->fuse);
    } else if ((unsigned) params->tune > GGC_TUNE_FULL) {
        message_set(message, "unknown tune %d", (int) params->tune);
    } else if (params->n_threads < 1 || params->n_threads > 512) {
        message_set(message, "n_threads is %u, expected 1 to 512", params->n_threads);
    } else {
        return true;
    }
    return false;
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

// Where tensors have none yet, a plan by identity tells how to lay them out. On Metal shared memory
// is for one order alone: that of the graph, or the plan's, which is then kept.
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
        .pool = runner->params.pool,
    };
    const bool as_it_stands = is_metal(runner) && runner->params.n_streams == 1;
    status = is_metal(runner) ? layout_init(&runner->layout, runner->graph,
                                            as_it_stands ? NULL : plan, &params, message)
                              : lay_out_graph(runner->graph, &runner->params, plan, &params,
                                              &runner->layout, message);
    if (status == GGC_OK && layout_is_for_phases(&runner->layout)) {
        runner->only_plan = plan;
    } else {
        ggc_graph_plan_free(plan);
    }
    return status;
}
// What the parameters point to is the caller's.
static bool copy_params(struct ggc_runner * runner) {
    struct ggc_runner_params * params = &runner->params;
    const size_t size = (size_t) runner->graph->n_nodes * sizeof(double);
    runner->costs = params->costs != NULL ? malloc(size + 1) : NULL;
    runner->tuning_dir = params->tuning_dir != NULL ? strdup(params->tuning_dir) : NULL;
    if ((params->costs != NULL && runner->costs == NULL) ||
        (params->tuning_dir != NULL && runner->tuning_dir == NULL)) {
        return false;
    }
    if (params->costs != NULL) {
        memcpy(runner->costs, params->costs, size);
    }
    params->costs = runner->costs;
    params->tuning_dir = runner->tuning_dir;
    return true;
}

// Units are timed on the first computations; where that cannot be, costs are guessed.
static enum ggc_status open_measure(struct ggc_runner * runner, const struct message * message) {
    if (!needs_costs(runner)) {
        return GGC_OK;
    }
    const enum ggc_status status = measure_open(runner, message);
    if (status != GGC_E_DEVICE) {
        return status;
    }
    measure_close(runner);
    message_set(&runner->warnings, "%s: costs are guessed",
                message->text != NULL ? message->text : "units cannot be timed");
    return add_late_players(runner, message);
}

static enum ggc_status open_runner(struct ggc_runner * runner, const struct message * message) {
    if (!copy_params(runner)) {
        return GGC_E_NOMEM;
    }
    enum ggc_status status = find_device(runner, message);
    if (status == GGC_OK && !runner->params.scheduled) {
        status = lay_out(runner, message);
    }
    if (status == GGC_OK) {
        status = check_nodes(runner->graph, runner->device, !runner->params.scheduled, message);
    }
    if (status == GGC_OK) {
        status = add_players(runner, message);
    }
    if (status == GGC_OK) {
        status = choose(runner);
    }
    if (status == GGC_OK) {
        status = open_players(runner, message);
    }
    if (status == GGC_OK) {
        status = follow_begin(runner);
    }
    return status == GGC_OK ? open_measure(runner, message) : status;
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
    const int mode = unbound_begin(is_cuda(made));
    const enum ggc_status status = open_runner(made, &message);
    unbound_end(is_cuda(made), mode);
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

static enum ggc_status compute(struct ggc_runner * runner, const struct message * message) {
    struct player * player = current(runner);
    if (measures(runner)) {
        const enum ggc_status status = measure_compute(runner, message);
        return status == GGC_OK && !measures(runner) ? add_late_players(runner, message) : status;
    }
    if (player->state == NULL) {
        message_set(message, "the changed graph could not be made ready: make a new runner");
        return GGC_E_DEVICE;
    }
    if (runner->tuner.settled) {
        return player->dispatch->compute(player->state, message);
    }
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    const enum ggc_status status = player->dispatch->compute(player->state, message);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (status == GGC_OK) {
        note_time(runner, 1e6 * (double) (end.tv_sec - begin.tv_sec) +
                              1e-3 * (double) (end.tv_nsec - begin.tv_nsec));
    }
    return status;
}

enum ggc_status ggc_runner_compute(struct ggc_runner * runner) {
    const struct message message = {runner->message, sizeof(runner->message)};
    const int mode = unbound_begin(is_cuda(runner));
    runner->message[0] = '\0';
    enum ggc_status status = follow(runner, &message);
    if (status == GGC_OK) {
        status = compute(runner, &message);
    }
    unbound_end(is_cuda(runner), mode);
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
            .urgency = params->urgency,
            .microseconds = tuner_median(tuner, w),
            .dropped = tuner->ways[w].dropped,
            .in_use = w == tuner->current,
        };
    }
    return tuner->n_ways;
}

bool ggc_runner_settled(const struct ggc_runner * runner) {
    return runner->tuner.settled && !measures(runner);
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

enum ggc_status ggc_runner_cuda_figures(const struct ggc_runner * runner,
                                        struct ggc_cuda_figures * figures) {
    if (runner == NULL || figures == NULL || current_of(runner)->dispatch != &dispatch_cuda) {
        return GGC_E_INVALID;
    }
    *figures = cuda_figures(current_of(runner)->state);
    return GGC_OK;
}

size_t ggc_runner_stream_bytes(const struct ggc_runner * runner) {
    const struct player * player = current_of(runner);
    return player->dispatch == &dispatch_cuda ? cuda_streams_bytes(player->state) : 0;
}

size_t ggc_runner_buffer_size(const struct ggc_runner * runner) {
    return runner->params.scheduled ? sched_buffer_size(current_of(runner)->state)
                                    : runner->layout.figures.size;
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
    const bool cuda = is_cuda(runner);
    const int mode = unbound_begin(cuda);
    for (uint32_t w = 0; w < TUNER_MAX_WAYS; w++) {
        struct player * player = &runner->players[w];
        close_player(player);
        ggc_graph_plan_free(player->plan);
    }
    measure_close(runner);
    ggc_graph_plan_free(runner->only_plan);
    layout_free(&runner->layout);
    follow_end(runner);
    free(runner->costs);
    free(runner->tuning_dir);
    free(runner);
    unbound_end(cuda, mode);
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
    enum ggc_status status = check_nodes(graph, device, true, &message);
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
