#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "ggml/backends.h"
#include "ggml/layout.h"

#define MESSAGE_SIZE 1024

struct ggc_runner {
    struct ggml_cgraph * graph;
    struct ggc_runner_params params;
    struct ggc_graph_plan * plan;
    struct layout layout;
    const struct dispatch_i * dispatch;
    void * state;
    char message[MESSAGE_SIZE];
};

void ggc_runner_params_init(struct ggc_runner_params * params) {
    *params = (struct ggc_runner_params) {
        .device = GGC_DEVICE_CPU,
        .n_streams = 2,
        .n_threads = 2,
        .strategy = GGC_STRATEGY_LIST,
        .wait_cost = 50.0,
        .fuse = GGC_FUSE_CPU,
        .always = false,
        .verify = true,
        .budget = (size_t) 32 << 20,
        .stress_seed = 0,
        .trace = false,
    };
}

static bool params_valid(const struct ggc_runner_params * params, const struct message * message) {
    if (params->device != GGC_DEVICE_CPU) {
        message_set(message, "unknown device %d", (int) params->device);
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
    } else if (params->n_threads < 1 || params->n_threads > 512) {
        message_set(message, "n_threads is %u, expected 1 to 512", params->n_threads);
    } else {
        return true;
    }
    return false;
}

static struct ggc_graph_params graph_params(const struct ggc_runner * runner) {
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.plan.n_streams = runner->params.n_streams;
    params.plan.strategy = runner->params.strategy;
    params.plan.wait_cost = runner->params.wait_cost;
    params.fuse = runner->params.fuse;
    return params;
}

static enum ggc_status plan_graph(struct ggc_runner * runner, struct ggc_graph_plan ** plan,
                                  const struct message * message) {
    const struct ggc_graph_params params = graph_params(runner);
    const enum ggc_status status = ggc_graph_plan_new(runner->graph, &params, plan);
    if (status != GGC_OK) {
        message_set(message, "planning failed: %s", ggc_status_string(status));
    }
    return status;
}

// 1. Memory. Where tensors have none yet, a plan by identity tells how to lay them out.
static enum ggc_status lay_out(struct ggc_runner * runner, const struct message * message) {
    struct ggc_graph_plan * plan;
    ggml_backend_dev_t device = cpu_device(message);
    if (device == NULL) {
        return GGC_E_DEVICE;
    }
    enum ggc_status status = plan_graph(runner, &plan, message);
    if (status == GGC_OK) {
        status = layout_init(&runner->layout, runner->graph, plan,
                             ggml_backend_dev_buffer_type(device), runner->params.budget, message);
        ggc_graph_plan_free(plan);
    }
    return status;
}

// ggml 0.25.3 gives SET_ROWS no scratch memory for the rows that it converts, when these are f16.
static bool overflows(const struct ggml_tensor * node) {
    return node->op == GGML_OP_SET_ROWS && node->src[0]->type == GGML_TYPE_F16 &&
           node->type != GGML_TYPE_F16;
}

// 2. What the backend would abort on.
static enum ggc_status check_nodes(const struct ggml_cgraph * graph,
                                   const struct message * message) {
    ggml_backend_dev_t device = cpu_device(message);
    if (device == NULL) {
        return GGC_E_DEVICE;
    }
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
        }
        if (overflows(node)) {
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

// 3. The plan on the addresses, and its proof.
static enum ggc_status plan_and_verify(struct ggc_runner * runner, const struct message * message) {
    enum ggc_status status = plan_graph(runner, &runner->plan, message);
    if (status != GGC_OK || !runner->params.verify) {
        return status;
    }
    const struct ggc_units units = ggc_graph_plan_units(runner->plan);
    const struct ggc_schedule schedule = ggc_plan_schedule(runner->plan->core);
    struct ggc_conflict race;
    status = ggc_verify_schedule(&units, &schedule, &race);
    if (status == GGC_E_RACE) {
        message_set(message, "the plan races: units %u and %u (%s), please report this", race.a,
                    race.b, ggc_hazard_string(race.hazard));
    }
    return status;
}

// 4. Where streams would not pay, the plan that is played has one.
static enum ggc_status plan_serially(struct ggc_runner * runner, const struct message * message) {
    ggc_graph_plan_free(runner->plan);
    runner->plan = NULL;
    runner->params.n_streams = 1;
    return plan_and_verify(runner, message);
}

static enum ggc_status open_runner(struct ggc_runner * runner, const struct message * message) {
    enum ggc_status status = lay_out(runner, message);
    if (status == GGC_OK) {
        status = check_nodes(runner->graph, message);
    }
    if (status == GGC_OK) {
        status = plan_and_verify(runner, message);
    }
    if (status != GGC_OK) {
        return status;
    }
    struct dispatch_args args = {runner->graph, runner->plan, &runner->params};
    // a plan that came out on one stream needs no threads of its own
    bool serial = ggc_plan_get_stats(runner->plan->core).n_streams <= 1;
    const bool free_to_choose = !runner->params.always && runner->params.stress_seed == 0;
    if (!serial && free_to_choose && !cpu_streams_pay(&args)) {
        serial = true;
        status = plan_serially(runner, message);
        args.plan = runner->plan;
    }
    if (status != GGC_OK) {
        return status;
    }
    runner->dispatch = serial && !runner->params.trace ? &dispatch_serial : &dispatch_cpu;
    return runner->dispatch->open(&args, &runner->state, message);
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
    const enum ggc_status status = open_runner(made, &message);
    if (status != GGC_OK) {
        ggc_runner_free(made);
        return status;
    }
    *runner = made;
    return GGC_OK;
}

enum ggc_status ggc_runner_compute(struct ggc_runner * runner) {
    const struct message message = {runner->message, sizeof(runner->message)};
    runner->message[0] = '\0';
    return runner->dispatch->compute(runner->state, &message);
}

const char * ggc_runner_message(const struct ggc_runner * runner) {
    return runner->message;
}

const struct ggc_graph_plan * ggc_runner_plan(const struct ggc_runner * runner) {
    return runner->plan;
}

size_t ggc_runner_buffer_size(const struct ggc_runner * runner) {
    return runner->layout.size;
}

uint32_t ggc_runner_unit_threads(const struct ggc_runner * runner, uint32_t unit) {
    if (unit >= ggc_plan_get_stats(runner->plan->core).n_units) {
        return 0;
    }
    return runner->dispatch->unit_threads(runner->state, unit);
}

const double * ggc_runner_unit_times(const struct ggc_runner * runner) {
    return runner->params.trace ? runner->dispatch->unit_times(runner->state) : NULL;
}

void ggc_runner_free(struct ggc_runner * runner) {
    if (runner == NULL) {
        return;
    }
    if (runner->state != NULL) {
        runner->dispatch->close(runner->state);
    }
    layout_free(&runner->layout);
    ggc_graph_plan_free(runner->plan);
    free(runner);
}

enum ggc_status ggc_compute_serial(struct ggml_cgraph * graph, uint32_t n_threads, char * text,
                                   size_t text_size) {
    const struct message message = {text, text_size};
    if (graph == NULL || n_threads < 1 || n_threads > 512) {
        message_set(&message, "n_threads is %u, expected 1 to 512", n_threads);
        return GGC_E_INVALID;
    }
    enum ggc_status status = check_nodes(graph, &message);
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
