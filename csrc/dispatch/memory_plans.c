// How runners laid out memory, and how they would.
#include <math.h>
#include <stdlib.h>

#include "ggml/backends.h"
#include "runner_state.h"

const struct ggc_memory * ggc_runner_memory(const struct ggc_runner * runner) {
    return &runner->layout.figures;
}

uint32_t ggc_runner_places(const struct ggc_runner * runner, struct ggc_tensor_place * places,
                           uint32_t capacity) {
    const struct layout * layout = &runner->layout;
    uint32_t n = 0;
    for (size_t i = 0; i < layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = layout->tensors[i];
        if (tensor->view_src != NULL) {
            continue;
        }
        uint32_t b = 0;
        while (b + 1 < layout->n_buffers && layout->buffers[b] != tensor->buffer) {
            b++;
        }
        const char * base = ggml_backend_buffer_get_base(tensor->buffer);
        if (n < capacity) {
            places[n] = (struct ggc_tensor_place) {
                .tensor = tensor,
                .buffer = b,
                .offset = (size_t) ((const char *) tensor->data - base),
                .size = ggml_backend_buft_get_alloc_size(tensor->buffer->buft, tensor),
            };
            if (layout->uses != NULL) {
                places[n].uses = layout->uses + layout->use_begin[i];
                places[n].n_uses = layout->use_begin[i + 1] - layout->use_begin[i];
            }
        }
        n++;
    }
    return n;
}

//
// Plans for the memory that was shared out
//

// When the last unit of the plan ends; 0 where there is no memory to find out.
static double time_of(const struct ggc_graph_plan * plan) {
    const struct ggc_schedule s = ggc_plan_schedule(plan->core);
    double free_at[GGC_MAX_STREAMS] = {0}, end = 0;
    double * finish = malloc(((size_t) s.n_units + 1) * sizeof(double));
    for (uint32_t i = 0; finish != NULL && i < s.n_units; i++) {
        const uint32_t u = s.order[i];
        double start = free_at[s.stream[u]];
        for (uint32_t k = s.wait_begin[u]; k < s.wait_begin[u + 1]; k++) {
            start = fmax(start, finish[s.waits[k]] + plan->wait_cost);
        }
        finish[u] = free_at[s.stream[u]] = start + plan->units.core.cost[u];
        end = fmax(end, finish[u]);
    }
    free(finish);
    return end;
}

enum ggc_status plan_in_memory(const struct ggml_cgraph * graph,
                               const struct ggc_runner_params * params,
                               const struct layout * layout, struct ggc_graph_plan ** plan,
                               const struct message * message) {
    enum ggc_status status = plan_graph(graph, params, plan, message);
    if (status != GGC_OK || layout->order == NULL || params->n_streams < layout->n_streams ||
        (*plan)->units.core.n_units != layout->n_units) {
        return status;
    }
    const struct ggc_schedule keep = {.n_units = layout->n_units,
                                      .n_streams = layout->n_streams,
                                      .order = layout->order,
                                      .stream = layout->stream};
    struct ggc_graph_params graph_params = graph_params_of(params);
    struct ggc_graph_plan * kept = NULL;
    graph_params.plan.keep = &keep;
    status = ggc_graph_plan_new(graph, &graph_params, &kept);
    if (status == GGC_E_NOMEM) {
        ggc_graph_plan_free(*plan);
        *plan = NULL;
        return status;
    }
    // refused where the layout asks for another order: then the new plan it is
    const bool is_faster = status == GGC_OK && time_of(kept) < time_of(*plan);
    ggc_graph_plan_free(is_faster ? *plan : kept);
    *plan = is_faster ? kept : *plan;
    return GGC_OK;
}

//
// Laid out for the plan, or for one that suits the budget better
//

enum ggc_status lay_out_graph(struct ggml_cgraph * graph, const struct ggc_runner_params * params,
                              const struct ggc_graph_plan * plan,
                              const struct layout_params * layout_params, struct layout * layout,
                              const struct message * message) {
    struct layout_params anew = *layout_params;
    anew.may_plan_anew = params->strategy == GGC_STRATEGY_LIST && params->n_streams > 1;
    return anew.leafs_have_memory ? layout_sketch(layout, graph, plan, &anew, message)
                                  : layout_init(layout, graph, plan, &anew, message);
}

//
// Without memory
//

static double seconds_of(const struct ggc_graph_plan * plan) {
    double adapter, core;
    ggc_graph_plan_times(plan, &adapter, &core);
    return adapter + core;
}

static enum ggc_status sketch_for(struct ggml_cgraph * graph,
                                  const struct ggc_runner_params * params,
                                  ggml_backend_dev_t device, const struct ggc_graph_plan * plan,
                                  struct ggc_memory_sketch * sketch,
                                  const struct message * message) {
    const struct layout_params layout_params = {
        .buft = ggml_backend_dev_buffer_type(device),
        .budget = params->budget,
        .leafs_have_memory = true,
    };
    struct ggc_graph_plan * placed = NULL;
    struct layout layout;
    enum ggc_status status = lay_out_graph(graph, params, plan, &layout_params, &layout, message);
    if (status != GGC_OK) {
        return status;
    }
    status = plan_in_memory(graph, params, &layout, &placed, message);
    if (status == GGC_OK) {
        sketch->memory = layout.figures;
        sketch->serial_time = ggc_plan_get_stats(plan->core).cost;
        sketch->apart_time = time_of(plan);
        sketch->time = time_of(placed);
        sketch->plan_seconds = seconds_of(plan);
    }
    ggc_graph_plan_free(placed);
    layout_free(&layout);
    return status;
}

enum ggc_status ggc_memory_sketch(struct ggml_cgraph * graph,
                                  const struct ggc_runner_params * params,
                                  struct ggc_memory_sketch * sketch, char * text,
                                  size_t text_size) {
    const struct message message = {text, text_size};
    if (graph == NULL || sketch == NULL || params == NULL || params->device != GGC_DEVICE_CPU) {
        message_set(&message, "no graph, no place for the result, or another device than the CPU");
        return GGC_E_INVALID;
    }
    ggml_backend_dev_t device = cpu_device(&message);
    if (device == NULL) {
        return GGC_E_DEVICE;
    }
    struct ggc_graph_plan * plan;
    enum ggc_status status = plan_graph(graph, params, &plan, &message);
    if (status == GGC_OK) {
        status = sketch_for(graph, params, device, plan, sketch, &message);
        ggc_graph_plan_free(plan);
    }
    return status;
}
