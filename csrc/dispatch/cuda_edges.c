#include "cuda_edges.h"

#include <stdlib.h>
#include <string.h>

#include "ggml/pointer_map.h"

#define UNKNOWN UINT32_MAX

bool cuda_captured_init(struct cuda_captured * captured, const struct segments * segments) {
    *captured = (struct cuda_captured) {.segments = segments};
    captured->nodes_end = calloc((size_t) segments->n_segments + 1, sizeof(size_t));
    return captured->nodes_end != NULL;
}

void cuda_captured_free(struct cuda_captured * captured) {
    free(captured->nodes_end);
    *captured = (struct cuda_captured) {0};
}

void cuda_captured_begin(struct cuda_captured * captured) {
    captured->is_known = true;
}

void cuda_captured_note(struct cuda_captured * captured, const struct cuda_replay * replay,
                        uint32_t place) {
    const struct cuda_driver * driver = replay->driver;
    CUgraph graph = NULL;
    const CUgraphNode * next = NULL;
    size_t n_next = 0, n = 0;
    uint64_t id = 0;
    int status = 0;
    if (driver->capture_info == NULL ||
        driver->capture_info(replay->stream, &status, &id, &graph, &next, &n_next) != 0 ||
        graph == NULL || driver->graph_nodes(graph, NULL, &n) != 0) {
        captured->is_known = false;
        n = place > 0 ? captured->nodes_end[place - 1] : 0;
    }
    captured->nodes_end[place] = n;
}

//
// Edges
//

struct edges {
    CUgraphNode *from, *to;
    struct CUgraphEdgeData_st * data;
    size_t n;
};

static void edges_free(struct edges * edges) {
    free(edges->from);
    free(edges->to);
    free(edges->data);
    *edges = (struct edges) {0};
}

static bool edges_init(struct edges * edges, size_t n) {
    edges->n = n;
    edges->from = calloc(n + 1, sizeof(*edges->from));
    edges->to = calloc(n + 1, sizeof(*edges->to));
    edges->data = calloc(n + 1, sizeof(*edges->data));
    return edges->from != NULL && edges->to != NULL && edges->data != NULL;
}

static bool failed(struct cuda_failure * failure, const char * what, CUresult error) {
    if (error != 0) {
        *failure = (struct cuda_failure) {what, error};
    }
    return error != 0;
}

static bool read_edges(struct edges * edges, const struct cuda_driver * driver, CUgraph graph,
                       struct cuda_failure * failure) {
    const char * what = "reading the captured graph's edges";
    size_t n = 0;
    if (failed(failure, what, driver->graph_edges(graph, NULL, NULL, NULL, &n)) ||
        (!edges_init(edges, n) && failed(failure, what, CUDA_ERROR_OUT_OF_MEMORY))) {
        return false;
    }
    return n == 0 || !failed(failure, what,
                             driver->graph_edges(graph, edges->from, edges->to, edges->data, &n));
}

static size_t keep_programmatic(struct edges * edges) {
    size_t n = 0;
    for (size_t i = 0; i < edges->n; i++) {
        if (edges->data[i].type == CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC) {
            edges->from[n] = edges->from[i];
            edges->to[n] = edges->to[i];
            edges->data[n++] = edges->data[i];
        }
    }
    return edges->n = n;
}

//
// Streams of nodes
//

// Node -> its place in the order in which nodes were made, plus one.
static bool find_places(struct pointer_map * places, const struct cuda_driver * driver,
                        CUgraph graph, size_t n) {
    CUgraphNode * nodes = calloc(n + 1, sizeof(*nodes));
    bool ok = nodes != NULL && driver->graph_nodes(graph, nodes, &n) == 0;
    for (size_t i = 0; ok && i < n; i++) {
        ok = pointer_map_put(places, nodes[i], (uint32_t) i + 1);
    }
    free(nodes);
    return ok;
}

// stream[i]: of the i-th node.
static void find_streams(const struct cuda_captured * captured, uint32_t * stream, size_t n) {
    const struct segments * segments = captured->segments;
    size_t at = 0;
    for (uint32_t i = 0; i < segments->n_segments; i++) {
        for (; at < captured->nodes_end[i] && at < n; at++) {
            stream[at] = segments->order[i]->stream;
        }
    }
    for (; at < n; at++) {
        stream[at] = UNKNOWN;
    }
}

// That nodes come in the order in which they were made is nowhere promised. If they do, an edge
// leads from an earlier one to a later one, and along a stream from each to its next. Two branches
// that have changed places look the same; but the graph then is the same as well, which knows
// nothing of streams: one branch at a fork keeps its programmatic edge, whichever.
static bool is_in_order(const struct edges * edges, const struct pointer_map * places,
                        const uint32_t * stream, size_t n) {
    bool * is_followed = calloc(n + 1, sizeof(bool));
    size_t last_of[GGC_MAX_STREAMS] = {0};  // plus one
    bool ok = is_followed != NULL;
    size_t * previous = calloc(n + 1, sizeof(size_t));
    ok = ok && previous != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        ok = stream[i] < GGC_MAX_STREAMS;
        if (ok) {
            previous[i] = last_of[stream[i]];
            last_of[stream[i]] = i + 1;
        }
    }
    for (size_t i = 0; ok && i < edges->n; i++) {
        const uint32_t from = pointer_map_get(places, edges->from[i], 0);
        const uint32_t to = pointer_map_get(places, edges->to[i], 0);
        ok = from > 0 && from < to;
        if (ok && previous[to - 1] == from) {
            is_followed[to - 1] = true;
        }
    }
    for (size_t i = 0; ok && i < n; i++) {
        ok = previous[i] == 0 || is_followed[i];
    }
    free(previous);
    free(is_followed);
    return ok;
}

// Leaves those of the programmatic edges that are between streams. False: it cannot be told.
static bool keep_between_streams(struct edges * edges, const struct edges * all,
                                 const struct cuda_captured * captured,
                                 const struct cuda_driver * driver, CUgraph graph) {
    size_t n = 0;
    struct pointer_map places;
    if (!captured->is_known || driver->graph_nodes(graph, NULL, &n) != 0) {
        return false;
    }
    uint32_t * stream = calloc(n + 1, sizeof(uint32_t));
    bool ok =
        pointer_map_init(&places, n) && stream != NULL && find_places(&places, driver, graph, n);
    if (ok) {
        find_streams(captured, stream, n);
        ok = is_in_order(all, &places, stream, n);
    }
    size_t kept = 0;
    for (size_t i = 0; ok && i < edges->n; i++) {
        const uint32_t from = pointer_map_get(&places, edges->from[i], 0);
        const uint32_t to = pointer_map_get(&places, edges->to[i], 0);
        if (stream[from - 1] != stream[to - 1]) {
            edges->from[kept] = edges->from[i];
            edges->to[kept] = edges->to[i];
            edges->data[kept++] = edges->data[i];
        }
    }
    edges->n = ok ? kept : edges->n;
    pointer_map_free(&places);
    free(stream);
    return ok;
}

static bool make_full(struct edges * edges, const struct cuda_driver * driver, CUgraph graph,
                      struct cuda_failure * failure) {
    if (driver->remove_edges == NULL || driver->add_edges == NULL) {
        *failure =
            (struct cuda_failure) {"changing the captured graph's edges", CUDA_ERROR_NOT_SUPPORTED};
        return false;
    }
    if (failed(failure, "removing edges between streams",
               driver->remove_edges(graph, edges->from, edges->to, edges->data, edges->n))) {
        return false;
    }
    memset(edges->data, 0, edges->n * sizeof(*edges->data));
    return !failed(failure, "adding edges between streams",
                   driver->add_edges(graph, edges->from, edges->to, edges->data, edges->n));
}

static bool copy_edges(struct edges * copy, const struct edges * edges) {
    if (!edges_init(copy, edges->n)) {
        return false;
    }
    memcpy(copy->from, edges->from, edges->n * sizeof(*edges->from));
    memcpy(copy->to, edges->to, edges->n * sizeof(*edges->to));
    memcpy(copy->data, edges->data, edges->n * sizeof(*edges->data));
    return true;
}

bool cuda_edges_secure(const struct cuda_captured * captured, const struct cuda_replay * replay,
                       CUgraph graph, struct cuda_failure * failure) {
    const struct cuda_driver * driver = replay->driver;
    if (driver->graph_edges == NULL) {
        return true;  // before CUDA 12.3 there were no other edges than full ones
    }
    struct edges all = {0}, edges = {0};
    bool ok = read_edges(&all, driver, graph, failure);
    if (ok && !copy_edges(&edges, &all)) {
        *failure =
            (struct cuda_failure) {"reading the captured graph's edges", CUDA_ERROR_OUT_OF_MEMORY};
        ok = false;
    }
    if (ok && keep_programmatic(&edges) > 0) {
        keep_between_streams(&edges, &all, captured, driver, graph);
        ok = edges.n == 0 || make_full(&edges, driver, graph, failure);
    }
    edges_free(&all);
    edges_free(&edges);
    return ok;
}
