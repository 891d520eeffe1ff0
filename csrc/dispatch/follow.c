// Graphs that have changed between two computations, where a device replays what it was given once.
#include <stdlib.h>

#include "ggml/access_rules.h"
#include "runner_state.h"

// The tensors that got memory from the runner may shrink, and grow again to what they were given.
struct given {
    const void * data;
    size_t size;
};

static bool needs_to_know(const struct player * player) {
    return player->state != NULL && player->dispatch->async != NULL &&
           player->dispatch->async->changed != NULL;
}

static bool replays(const struct ggc_runner * runner) {
    for (uint32_t w = 0; w < runner->tuner.n_ways; w++) {
        if (needs_to_know(&runner->players[w])) {
            return true;
        }
    }
    return false;
}

enum ggc_status follow_begin(struct ggc_runner * runner) {
    const struct layout * layout = &runner->layout;
    if (!is_cuda(runner) || runner->params.scheduled) {
        return GGC_OK;
    }
    runner->given = malloc((layout->n_tensors + 1) * sizeof(struct given));
    if (runner->given == NULL || !snapshot_take(&runner->snapshot, runner->graph)) {
        return GGC_E_NOMEM;
    }
    for (size_t i = 0; i < layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = layout->tensors[i];
        runner->given[i] = (struct given) {tensor->data, ggml_nbytes(tensor)};
    }
    return GGC_OK;
}

void follow_end(struct ggc_runner * runner) {
    snapshot_free(&runner->snapshot);
    free(runner->given);
    runner->given = NULL;
}

//
// What can be followed
//

static bool is_inside(const struct ggml_tensor * tensor) {
    const struct ggml_tensor * root = root_of(tensor);
    const struct ggml_backend_buffer * buffer = root->buffer;
    if (buffer == NULL || tensor->data == NULL) {
        return true;  // check_nodes says what is to be said
    }
    const char * base = ggml_backend_buffer_get_base(root->buffer);
    const size_t size = ggml_backend_buffer_get_size(root->buffer);
    const char * data = tensor->data;
    const size_t bytes = ggml_nbytes(tensor);
    return data >= base && bytes <= size && (size_t) (data - base) <= size - bytes;
}

static enum ggc_status check_places(const struct ggc_runner * runner,
                                    const struct message * message) {
    for (size_t i = 0; i < runner->layout.n_tensors; i++) {
        const struct ggml_tensor * tensor = runner->layout.tensors[i];
        const struct given * given = &runner->given[i];
        if (tensor->view_src == NULL && tensor->data == given->data &&
            ggml_nbytes(tensor) > given->size) {
            message_set(message,
                        "tensor '%s' has %zu bytes now, and memory for %zu: make a new runner",
                        tensor->name, ggml_nbytes(tensor), given->size);
            return GGC_E_INVALID;
        }
    }
    for (int i = 0; i < runner->graph->n_nodes; i++) {
        const struct ggml_tensor * node = runner->graph->nodes[i];
        for (int s = -1; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * tensor = s < 0 ? node : node->src[s];
            if (tensor != NULL && !is_inside(tensor)) {
                message_set(message, "tensor '%s' of node %d (%s) reaches out of its buffer",
                            tensor->name, i, ggml_op_desc(node));
                return GGC_E_INVALID;
            }
        }
    }
    return GGC_OK;
}

static enum ggc_status check_change(const struct ggc_runner * runner, enum snapshot_change change,
                                    const struct message * message) {
    if (change == SNAPSHOT_NODES) {
        message_set(message, "the graph has other nodes than those that the runner was made for: "
                             "make a new runner");
        return GGC_E_INVALID;
    }
    if (change == SNAPSHOT_SOURCES && runner->layout.figures.sharing != GGC_SHARING_NONE) {
        message_set(message, "operations have other sources, and tensors share memory for the old "
                             "ones: make a new runner, or this one with a larger budget");
        return GGC_E_INVALID;
    }
    const enum ggc_status status = check_places(runner, message);
    return status == GGC_OK ? check_nodes(runner->graph, runner->device, true, message) : status;
}

//
// Following
//

static enum ggc_status follow_player(struct ggc_runner * runner, struct player * player,
                                     enum snapshot_change change, const struct message * message) {
    enum ggc_change of_plan = GGC_UNCHANGED;
    if (change >= SNAPSHOT_ADDRESSES) {
        const struct ggc_graph_params params = graph_params_of(&player->params);
        const enum ggc_status status =
            ggc_graph_plan_update(player->plan, runner->graph, &params, &of_plan);
        if (status != GGC_OK) {
            message_set(message, "planning failed: %s", ggc_status_string(status));
            return status;
        }
    }
    if (of_plan == GGC_CHANGED) {
        return replan_player(runner, player, message);
    }
    if (needs_to_know(player)) {
        player->dispatch->async->changed(player->state, change);
    }
    return GGC_OK;
}

// Costs are told by unit, and there may be other units now.
static enum ggc_status stop_measuring(struct ggc_runner * runner, const struct message * message) {
    if (!measures(runner)) {
        return GGC_OK;
    }
    measure_close(runner);
    message_set(&runner->warnings,
                "the graph has changed while it was measured: costs are guessed");
    return add_late_players(runner, message);
}

enum ggc_status follow(struct ggc_runner * runner, const struct message * message) {
    if (runner->given == NULL || !replays(runner)) {
        return GGC_OK;
    }
    const enum snapshot_change change = snapshot_compare(&runner->snapshot, runner->graph);
    if (change == SNAPSHOT_SAME) {
        return GGC_OK;
    }
    enum ggc_status status = GGC_OK;
    if (change > SNAPSHOT_PARAMETERS) {
        status = check_change(runner, change, message);
    }
    if (status == GGC_OK && change > SNAPSHOT_PARAMETERS) {
        status = stop_measuring(runner, message);
    }
    for (uint32_t w = 0; status == GGC_OK && w < runner->tuner.n_ways; w++) {
        status = follow_player(runner, &runner->players[w], change, message);
    }
    if (status == GGC_OK) {
        snapshot_free(&runner->snapshot);
        status = snapshot_take(&runner->snapshot, runner->graph) ? GGC_OK : GGC_E_NOMEM;
    }
    return status;
}

void ggc_graph_promise(struct ggml_cgraph * graph) {
    if (graph != NULL) {
        graph->uid = ggml_graph_next_uid();
    }
}
