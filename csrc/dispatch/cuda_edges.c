#include "cuda_edges.h"

#include <stdlib.h>
#include <string.h>

#include "ggml/pointer_map.h"

#define UNKNOWN UINT32_MAX

bool cuda_captured_init(struct cuda_captured * captured, const struct segments * segments,
                        const bool * early) {
    *captured = (struct cuda_captured) {.segments = segments, .early = early};
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

//
// Segments of nodes
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

// segment[i]: place of the segment of the i-th node.
static void find_segments(const struct cuda_captured * captured, uint32_t * segment, size_t n) {
    size_t at = 0;
    for (uint32_t i = 0; i < captured->segments->n_segments; i++) {
        for (; at < captured->nodes_end[i] && at < n; at++) {
            segment[at] = i;
        }
    }
    for (; at < n; at++) {
        segment[at] = UNKNOWN;
    }
}

// Whose the nodes are.
struct owners {
    const struct cuda_captured * captured;
    struct pointer_map places;
    uint32_t * segment;  // by place; NULL: it cannot be told
};

static uint32_t stream_of(const struct owners * owners, uint32_t segment) {
    return owners->captured->segments->order[segment]->stream;
}

// That nodes come in the order in which they were made is nowhere promised. If they do, an edge
// leads from an earlier one to a later one, and along a stream from each to its next. Two equal
// branches at a fork that have changed places look the same, and one of them keeps its programmatic
// edge, whichever: that would be wrong where only the other one reads early. No driver was seen to
// list nodes in another order than that of their making.
static bool is_in_order(const struct owners * owners, const struct edges * edges, size_t n) {
    size_t last_of[GGC_MAX_STREAMS] = {0};                 // plus one
    size_t * previous = calloc(n + 1, sizeof(*previous));  // plus one; 0 once its edge was seen
    bool ok = previous != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        ok = owners->segment[i] != UNKNOWN;
        if (ok) {
            const uint32_t stream = stream_of(owners, owners->segment[i]);
            previous[i] = last_of[stream];
            last_of[stream] = i + 1;
        }
    }
    for (size_t i = 0; ok && i < edges->n; i++) {
        const uint32_t from = pointer_map_get(&owners->places, edges->from[i], 0);
        const uint32_t to = pointer_map_get(&owners->places, edges->to[i], 0);
        ok = from > 0 && from < to;
        if (ok && previous[to - 1] == from) {
            previous[to - 1] = 0;
        }
    }
    for (size_t i = 0; ok && i < n; i++) {
        ok = previous[i] == 0;
    }
    free(previous);
    return ok;
}

static void owners_free(struct owners * owners) {
    pointer_map_free(&owners->places);
    free(owners->segment);
}

static void owners_init(struct owners * owners, const struct edges * edges,
                        const struct cuda_captured * captured, const struct cuda_driver * driver,
                        CUgraph graph) {
    size_t n = 0;
    *owners = (struct owners) {.captured = captured};
    if (!captured->is_known || driver->graph_nodes(graph, NULL, &n) != 0 ||
        !pointer_map_init(&owners->places, n) || !find_places(&owners->places, driver, graph, n)) {
        return;
    }
    owners->segment = calloc(n + 1, sizeof(uint32_t));
    if (owners->segment == NULL) {
        return;
    }
    find_segments(captured, owners->segment, n);
    if (!is_in_order(owners, edges, n)) {
        free(owners->segment);
        owners->segment = NULL;
    }
}

// Whether the edge from a to b may be programmatic.
static bool is_safe(const struct owners * owners, CUgraphNode a, CUgraphNode b) {
    if (owners->segment == NULL) {
        return false;
    }
    const uint32_t from = owners->segment[pointer_map_get(&owners->places, a, 0) - 1];
    const uint32_t to = owners->segment[pointer_map_get(&owners->places, b, 0) - 1];
    return from == to ||
           (stream_of(owners, from) == stream_of(owners, to) && !owners->captured->early[to]);
}

static bool is_programmatic(const struct edges * edges, size_t i) {
    return edges->data[i].type == CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
}

static bool any_programmatic(const struct edges * edges) {
    for (size_t i = 0; i < edges->n; i++) {
        if (is_programmatic(edges, i)) {
            return true;
        }
    }
    return false;
}

// Leaves those that are to be full, and are not.
static void keep_unsafe(struct edges * edges, const struct owners * owners) {
    size_t n = 0;
    for (size_t i = 0; i < edges->n; i++) {
        if (is_programmatic(edges, i) && !is_safe(owners, edges->from[i], edges->to[i])) {
            edges->from[n] = edges->from[i];
            edges->to[n] = edges->to[i];
            edges->data[n++] = edges->data[i];
        }
    }
    edges->n = n;
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

bool cuda_edges_secure(const struct cuda_captured * captured, const struct cuda_replay * replay,
                       CUgraph graph, struct cuda_failure * failure) {
    const struct cuda_driver * driver = replay->driver;
    if (driver->graph_edges == NULL) {
        return true;  // before CUDA 12.3 there were no other edges than full ones
    }
    struct edges edges = {0};
    bool ok = read_edges(&edges, driver, graph, failure);
    if (ok && any_programmatic(&edges)) {
        struct owners owners;
        owners_init(&owners, &edges, captured, driver, graph);
        keep_unsafe(&edges, &owners);
        owners_free(&owners);
        ok = edges.n == 0 || make_full(&edges, driver, graph, failure);
    }
    edges_free(&edges);
    return ok;
}
