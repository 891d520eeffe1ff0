#include "sim_graphs.h"

#include <stdlib.h>
#include <string.h>

#include "ggml.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#include "ggml-impl.h"
#pragma GCC diagnostic pop

// What of a node is compared; memory without padding that differs, so that bytes can be.
struct looks {
    struct ggml_tensor node;
    struct {
        void * data;
        int64_t ne[GGML_MAX_DIMS];
        size_t nb[GGML_MAX_DIMS];
    } src[GGML_MAX_SRC];
};

struct sim_graphs {
    const void * key;
    uint64_t uid;
    struct looks * looks;
    int n_nodes;
    bool warm;
    CUgraphExec exec;
    struct sim_graphs * next;
};

static struct looks looks_of(const struct ggml_tensor * node) {
    struct looks looks;
    memset(&looks, 0, sizeof looks);
    memcpy(&looks.node, node, sizeof *node);
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        const struct ggml_tensor * src = node->src[s];
        if (src != NULL) {
            looks.src[s].data = src->data;
            memcpy(looks.src[s].ne, src->ne, sizeof src->ne);
            memcpy(looks.src[s].nb, src->nb, sizeof src->nb);
        }
    }
    return looks;
}

static bool has_changed(struct sim_graphs * own, const struct ggml_cgraph * graph) {
    if (graph->uid != 0 && graph->uid == own->uid) {
        if (graph->n_nodes != own->n_nodes) {
            sim_error("a graph of %d nodes has the uid of one with %d and the same first node",
                      graph->n_nodes, own->n_nodes);
        }
        return false;
    }
    own->uid = graph->uid;
    bool changed = own->n_nodes != graph->n_nodes;
    if (changed) {
        free(own->looks);
        own->looks = calloc((size_t) graph->n_nodes, sizeof *own->looks);
        own->n_nodes = graph->n_nodes;
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct looks looks = looks_of(graph->nodes[i]);
        changed = changed || memcmp(&looks, &own->looks[i], sizeof looks) != 0;
        memcpy(&own->looks[i], &looks, sizeof looks);
    }
    return changed;
}

static struct sim_graphs * find(struct sim_graphs ** graphs, const void * key) {
    struct sim_graphs * own = *graphs;
    while (own != NULL && own->key != key) {
        own = own->next;
    }
    if (own == NULL) {
        own = calloc(1, sizeof *own);
        own->key = key;
        own->next = *graphs;
        *graphs = own;
    }
    return own;
}

static bool are_disabled(void) {
    return getenv("GGML_CUDA_DISABLE_GRAPHS") != NULL;
}

enum sim_way sim_graphs_next(struct sim_graphs ** graphs, const struct ggml_cgraph * graph,
                             CUgraphExec ** exec) {
    if (graph->n_nodes == 0 || are_disabled()) {
        return SIM_ISSUE;
    }
    struct sim_graphs * own = find(graphs, graph->nodes[0]);
    const bool changed = has_changed(own, graph), was_warm = own->warm;
    own->warm = !changed;
    *exec = &own->exec;
    return changed ? SIM_ISSUE : was_warm && own->exec != NULL ? SIM_LAUNCH : SIM_CAPTURE;
}

void sim_graphs_free(struct sim_graphs * graphs) {
    while (graphs != NULL) {
        struct sim_graphs * next = graphs->next;
        const bool before = fake_as_runtime(true);
        if (graphs->exec != NULL) {
            cuGraphExecDestroy(graphs->exec);
        }
        fake_as_runtime(before);
        free(graphs->looks);
        free(graphs);
        graphs = next;
    }
}
