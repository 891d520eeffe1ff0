#include "graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"

struct CUgraph_st {
    struct object object;
    struct nodes nodes;
};

struct CUgraphExec_st {
    struct object object;
    struct nodes nodes;
    struct work * last;  // launch
};

// Kernels that are launched with programmatic serialization follow other kernels so, on all
// streams.
CUgraph graph_new(const struct nodes * nodes, int device, bool of_runtime) {
    CUgraph graph = object_new(sizeof *graph, GRAPH, device, of_runtime);
    nodes_copy(&graph->nodes, nodes);
    for (uint32_t i = 0; i < nodes->n; i++) {
        struct node * node = &graph->nodes.items[i];
        for (uint32_t k = 0; node->payload->kernel.programmatic && k < node->deps.n; k++) {
            const uint32_t dep = node->deps.items[k];
            if (nodes->items[dep].payload->kernel.kind == FAKE_KERNEL) {
                set_add(&node->programmatic, dep);
            }
        }
    }
    return graph;
}

CUresult graph_free(CUgraph graph) {
    if (!is_alive(graph, GRAPH)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    nodes_clear(&graph->nodes);
    graph->object.dead = true;
    return CUDA_SUCCESS;
}

static CUgraphNode node_handle(CUgraph graph, uint32_t node) {
    return (CUgraphNode) (void *) &graph->nodes.items[node];
}

CUresult graph_nodes(CUgraph graph, CUgraphNode * nodes, size_t * n) {
    if (n != NULL && nodes == NULL && capture_nodes(graph, n)) {
        return CUDA_SUCCESS;
    }
    if (!is_alive(graph, GRAPH) || n == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    const size_t capacity = nodes != NULL ? *n : 0;
    for (size_t i = 0; i < capacity; i++) {
        nodes[i] = i < graph->nodes.n ? node_handle(graph, (uint32_t) i) : NULL;
    }
    *n = nodes == NULL || graph->nodes.n < capacity ? graph->nodes.n : capacity;
    return CUDA_SUCCESS;
}

static const struct payload * payload_of(CUgraphNode node) {
    return ((const struct node *) (void *) node)->payload;
}

CUresult graph_node_type(CUgraphNode node, int * type) {
    if (node == NULL || type == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *type = (int) payload_of(node)->kernel.kind;
    return CUDA_SUCCESS;
}

CUresult graph_set_attribute(CUgraphNode node, int attribute, const void * value) {
    if (node == NULL || value == NULL || payload_of(node)->kernel.kind != FAKE_KERNEL ||
        attribute != CU_LAUNCH_ATTRIBUTE_PRIORITY) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CUresult graph_edges(CUgraph graph, CUgraphNode * from, CUgraphNode * to, CUgraphEdgeData * data,
                     size_t * n) {
    if (!is_alive(graph, GRAPH) || n == NULL || (from == NULL) != (to == NULL)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    const size_t capacity = from != NULL ? *n : 0;
    size_t count = 0;
    for (uint32_t i = 0; i < graph->nodes.n; i++) {
        const struct node * node = &graph->nodes.items[i];
        for (uint32_t k = 0; k < node->deps.n; k++, count++) {
            if (count < capacity) {
                from[count] = node_handle(graph, node->deps.items[k]);
                to[count] = node_handle(graph, i);
            }
            if (count < capacity && data != NULL) {
                const bool is_programmatic = set_has(&node->programmatic, node->deps.items[k]);
                memset(&data[count], 0, sizeof *data);
                data[count].from_port = data[count].type = is_programmatic;
            }
        }
    }
    for (size_t i = count; i < capacity; i++) {
        from[i] = to[i] = NULL;
    }
    *n = from == NULL || count < capacity ? count : capacity;
    return CUDA_SUCCESS;
}

static bool find_node(CUgraph graph, CUgraphNode handle, uint32_t * node) {
    for (uint32_t i = 0; i < graph->nodes.n; i++) {
        if (node_handle(graph, i) == handle) {
            *node = i;
            return true;
        }
    }
    return false;
}

static bool change_edge(CUgraph graph, CUgraphNode from, CUgraphNode to, bool is_programmatic,
                        bool add) {
    uint32_t source, target;
    if (!find_node(graph, from, &source) || !find_node(graph, to, &target)) {
        return false;
    }
    struct node * node = &graph->nodes.items[target];
    const bool is_there = set_has(&node->deps, source);
    if (is_there == add || (!add && set_has(&node->programmatic, source) != is_programmatic)) {
        return false;
    }
    if (!add) {
        set_remove(&node->deps, source);
        set_remove(&node->programmatic, source);
        return true;
    }
    set_add(&node->deps, source);
    if (is_programmatic) {
        set_add(&node->programmatic, source);
    }
    return true;
}

CUresult graph_change_edges(CUgraph graph, const CUgraphNode * from, const CUgraphNode * to,
                            const CUgraphEdgeData * data, size_t n, bool add) {
    if (!is_alive(graph, GRAPH) || (n > 0 && (from == NULL || to == NULL))) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < n; i++) {
        if (!change_edge(graph, from[i], to[i], data != NULL && data[i].type == 1, add)) {
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    return CUDA_SUCCESS;
}

CUresult exec_new(CUgraphExec * exec, CUgraph graph, bool of_runtime) {
    if (exec == NULL || !is_alive(graph, GRAPH)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *exec = object_new(sizeof **exec, EXEC, graph->object.device, of_runtime);
    nodes_copy(&(*exec)->nodes, &graph->nodes);
    return CUDA_SUCCESS;
}

static CUresult same_topology(const struct nodes * old, CUgraph graph,
                              CUgraphExecUpdateResultInfo * info) {
    const struct nodes * new = &graph->nodes;
    if (old->n != new->n) {
        info->result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    }
    for (uint32_t i = 0; i < new->n; i++) {
        const struct node *a = &old->items[i], *b = &new->items[i];
        const bool edges =
            set_equal(&a->deps, &b->deps) && set_equal(&a->programmatic, &b->programmatic);
        if (edges && a->payload->kernel.kind == b->payload->kernel.kind) {
            continue;
        }
        info->result = edges ? CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED
                             : CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        info->errorNode = node_handle(graph, i);
        return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    }
    return CUDA_SUCCESS;
}

// A launch that has begun keeps what it was launched with.
CUresult exec_update(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo * info) {
    if (info == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *info = (CUgraphExecUpdateResultInfo) {CU_GRAPH_EXEC_UPDATE_ERROR, NULL, NULL};
    if (!is_alive(exec, EXEC) || !is_alive(graph, GRAPH)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    const CUresult result = same_topology(&exec->nodes, graph, info);
    if (result == CUDA_SUCCESS) {
        nodes_clear(&exec->nodes);
        nodes_copy(&exec->nodes, &graph->nodes);
        info->result = CU_GRAPH_EXEC_UPDATE_SUCCESS;
    }
    return result;
}

// Of each node: the work, when it may begin, and when it has waited.
struct issued {
    struct work *work, *begin, *waited;
};

// A kernel with a programmatic edge from another may begin as soon as that lets it. From another
// stream's nothing says that it waits for it at all.
static struct issued issue_node(const struct nodes * nodes, const struct node * node,
                                const struct issued * issued, struct work * before,
                                const char * place) {
    struct work ** begin = allocate((node->deps.n + 1) * sizeof *begin);
    struct work ** deps = allocate((node->deps.n + 1) * sizeof *deps);
    uint32_t n = 0;
    for (uint32_t k = 0; k < node->deps.n; k++) {
        const uint32_t dep = node->deps.items[k];
        const struct node * other = &nodes->items[dep];
        const bool is_programmatic = set_has(&node->programmatic, dep);
        if (is_programmatic && other->stream != node->stream) {
            continue;
        }
        const bool lets_begin = is_programmatic && other->payload->kernel.programmatic;
        begin[n] = !lets_begin                   ? issued[dep].work
                   : other->payload->kernel.late ? issued[dep].waited
                                                 : issued[dep].begin;
        deps[n++] = issued[dep].work;
    }
    if (n == 0) {  // without any it follows `before`
        begin[n] = deps[n] = before;
        n++;
    }
    struct issued result = {.begin = work_after(begin, n, place),
                            .waited = work_after(deps, n, place)};
    result.work = work_issue_early(node->payload, result.begin, deps, n, place);
    free(begin);
    free(deps);
    return result;
}

static struct work * issue_nodes(const struct nodes * nodes, struct work * before,
                                 const char * place) {
    struct issued * issued = allocate((nodes->n + 1) * sizeof *issued);
    struct work ** all = allocate((nodes->n + 1) * sizeof *all);
    for (uint32_t i = 0; i < nodes->n; i++) {
        issued[i] = issue_node(nodes, &nodes->items[i], issued, before, place);
        all[i] = issued[i].work;
    }
    all[nodes->n] = before;  // the end follows it even if the graph is empty
    struct work * end = work_issue(NULL, all, nodes->n + 1, place);
    for (uint32_t i = 0; i < nodes->n; i++) {
        work_unref(issued[i].work);
        work_unref(issued[i].begin);
        work_unref(issued[i].waited);
    }
    free(issued);
    free(all);
    return end;
}

CUresult exec_launch(CUgraphExec exec, CUstream stream) {
    if (!is_alive(exec, EXEC)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    const CUresult refused = stream_not_capturing(stream);
    if (refused != CUDA_SUCCESS) {
        return refused;
    }
    char text[64];
    snprintf(text, sizeof text, "in a launch of x%u", exec->object.id);
    const char * place = intern(text);
    struct work * const deps[] = {stream_tail(stream), exec->last};
    struct work * before = work_issue(NULL, deps, 2, place);
    struct work * end = issue_nodes(&exec->nodes, before, place);
    work_unref(before);
    work_unref(exec->last);
    exec->last = work_ref(end);
    stream_set_tail(stream, end);
    return CUDA_SUCCESS;
}

CUresult exec_free(CUgraphExec exec) {
    if (!is_alive(exec, EXEC)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    nodes_clear(&exec->nodes);
    work_unref(exec->last);
    exec->last = NULL;
    exec->object.dead = true;
    return CUDA_SUCCESS;
}
