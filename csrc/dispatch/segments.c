#include "segments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ggml/fuse.h"
#include "ggml/threads.h"

struct cutter {
    struct segments * segments;
    const struct dispatch_args * args;
    struct ggc_schedule schedule;
    struct segment_cuts cuts;
    bool * waited_for;      // by a unit of another stream
    uint32_t * segment_of;  // of each unit, on its stream
    uint32_t n_nodes, n_waits;
};

static uint32_t share_of(const struct dispatch_args * args, uint32_t n_streams) {
    const uint32_t share = args->params->n_threads / n_streams;
    return share > 0 ? share : 1;
}

static bool unit_depends_on_threads(const struct dispatch_args * args, uint32_t unit) {
    uint32_t n;
    const uint32_t * nodes = ggc_graph_plan_nodes(args->plan, unit, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (depends_on_threads(args->graph->nodes[nodes[i]])) {
            return true;
        }
    }
    return false;
}

// An equal share for each stream. No more for a unit that runs alone: it would need a team of
// OpenMP's, whose threads then spin on the cores of the other streams.
static void find_threads(struct cutter * c) {
    const uint32_t share = share_of(c->args, c->schedule.n_streams);
    for (uint32_t u = 0; u < c->schedule.n_units; u++) {
        const bool all = unit_depends_on_threads(c->args, u);
        c->segments->unit_threads[u] = all ? c->args->params->n_threads : share;
    }
}

//
// Cutting
//

static struct segment * open_segment(struct cutter * c, uint32_t unit, uint32_t before) {
    struct segment_list * list = &c->segments->streams[c->schedule.stream[unit]];
    struct segment * segment = &list->items[list->n++];
    segment->graph = *c->args->graph;
    segment->graph.n_nodes = 0;
    segment->graph.n_leafs = 0;
    segment->graph.uid = 0;
    segment->waits = c->segments->waits + c->n_waits;
    segment->n_waits = 0;
    segment->unit = unit;
    segment->before = before;
    segment->stream = c->schedule.stream[unit];
    segment->place = c->segments->n_segments++;
    c->segments->order[segment->place] = segment;
    if (c->cuts.markers) {
        segment->marker = new_separator(c->segments->separators);
        segment->graph.n_nodes = 2;  // and what stands after the last node
    }
    segment->n_threads = c->segments->unit_threads[unit];
    for (uint32_t k = c->schedule.wait_begin[unit]; k < c->schedule.wait_begin[unit + 1]; k++) {
        const uint32_t other = c->schedule.waits[k];
        const uint32_t stream = c->schedule.stream[other];
        segment->waits[segment->n_waits++] =
            (struct segment_wait) {stream, c->segment_of[other] + 1};
        c->segments->streams[stream].items[c->segment_of[other]].is_waited_for = true;
        c->n_waits++;
    }
    return segment;
}

static bool cut_before(const struct cutter * c, uint32_t unit) {
    uint32_t n;
    const uint32_t * nodes = ggc_graph_plan_nodes(c->args->plan, unit, &n);
    for (uint32_t i = 0; c->cuts.before != NULL && i < n; i++) {
        if (c->cuts.before(c->args->graph->nodes[nodes[i]])) {
            return true;
        }
    }
    return false;
}

// Nodes of a segment must lie side by side, so they are counted first and written second; this is
// the counting, which also decides the cuts.
static void cut(struct cutter * c) {
    uint32_t last[GGC_MAX_STREAMS];
    memset(last, 0xff, sizeof(last));
    for (uint32_t i = 0; i < c->schedule.n_units; i++) {
        const uint32_t unit = c->schedule.order[i], s = c->schedule.stream[unit];
        struct segment_list * list = &c->segments->streams[s];
        const bool waits = c->schedule.wait_begin[unit] != c->schedule.wait_begin[unit + 1];
        const bool fresh = last[s] == GGC_NONE || waits || c->cuts.every_unit ||
                           cut_before(c, unit) || c->waited_for[last[s]] ||
                           c->segments->unit_threads[last[s]] != c->segments->unit_threads[unit];
        if (fresh) {
            open_segment(c, unit, last[s]);
        }
        c->segment_of[unit] = list->n - 1;
        uint32_t n;
        ggc_graph_plan_nodes(c->args->plan, unit, &n);
        list->items[list->n - 1].graph.n_nodes += (int) (2 * n);  // room for separators
        last[s] = unit;
    }
}

static void append(struct cutter * c, struct segment * segment, struct ggml_tensor * node,
                   bool same_unit) {
    struct ggml_cgraph * graph = &segment->graph;
    // neighbours here that were none in the graph must not be fused: it would be another result
    if (graph->n_nodes > 0 && !same_unit &&
        might_fuse(graph->nodes[graph->n_nodes - 1], node, c->args->params->fuse)) {
        graph->nodes[graph->n_nodes++] = new_separator(c->segments->separators);
    }
    graph->nodes[graph->n_nodes++] = node;
}

static void fill(struct cutter * c) {
    for (uint32_t s = 0; s < c->segments->n_streams; s++) {
        for (uint32_t k = 0; k < c->segments->streams[s].n; k++) {
            struct ggml_cgraph * graph = &c->segments->streams[s].items[k].graph;
            graph->nodes = c->segments->nodes + c->n_nodes;
            c->n_nodes += (uint32_t) graph->n_nodes;
            graph->n_nodes = 0;
            if (c->cuts.markers) {
                graph->nodes[graph->n_nodes++] = c->segments->streams[s].items[k].marker;
            }
        }
    }
    for (uint32_t i = 0; i < c->schedule.n_units; i++) {
        const uint32_t unit = c->schedule.order[i];
        struct segment * segment =
            &c->segments->streams[c->schedule.stream[unit]].items[c->segment_of[unit]];
        uint32_t n;
        const uint32_t * nodes = ggc_graph_plan_nodes(c->args->plan, unit, &n);
        for (uint32_t j = 0; j < n; j++) {
            append(c, segment, c->args->graph->nodes[nodes[j]], j > 0);
        }
    }
    for (uint32_t k = 0; c->cuts.markers && k < c->segments->n_segments; k++) {
        const struct ggml_cgraph * graph = &c->segments->order[k]->graph;
        graph->nodes[graph->n_nodes] = c->segments->order[k]->marker;
    }
}

static void find_waited_for(struct cutter * c) {
    for (uint32_t k = 0; k < c->schedule.wait_begin[c->schedule.n_units]; k++) {
        c->waited_for[c->schedule.waits[k]] = true;
    }
}

// Each stream's segments lie in a row of one array, at most one a unit.
static void place_lists(struct cutter * c) {
    uint32_t length[GGC_MAX_STREAMS] = {0}, at = 0;
    for (uint32_t u = 0; u < c->schedule.n_units; u++) {
        length[c->schedule.stream[u]]++;
    }
    for (uint32_t s = 0; s < c->segments->n_streams; s++) {
        c->segments->streams[s].items = c->segments->segments + at;
        at += length[s];
    }
}

static bool allocate(struct cutter * c) {
    const size_t n = c->schedule.n_units;
    const size_t n_nodes = ggc_graph_plan_n_nodes(c->args->plan);
    const size_t n_extra = n_nodes + 1 + (c->cuts.markers ? 2 * n : 0);
    const struct ggml_init_params params = {.mem_size = n_extra * ggml_tensor_overhead(),
                                            .no_alloc = true};
    struct segments * segments = c->segments;
    segments->n_streams = c->schedule.n_streams;
    segments->streams = calloc(segments->n_streams, sizeof(struct segment_list));
    segments->unit_threads = malloc((n + 1) * sizeof(uint32_t));
    segments->segments = calloc(n + 1, sizeof(struct segment));
    segments->waits = malloc((c->schedule.wait_begin[n] + 1) * sizeof(struct segment_wait));
    segments->order = malloc((n + 1) * sizeof(struct segment *));
    segments->nodes = malloc((n_nodes + n_extra) * sizeof(struct ggml_tensor *));
    segments->separators = ggml_init(params);
    c->waited_for = calloc(n + 1, sizeof(bool));
    c->segment_of = malloc((n + 1) * sizeof(uint32_t));
    return segments->streams != NULL && segments->unit_threads != NULL &&
           segments->segments != NULL && segments->waits != NULL && segments->order != NULL &&
           segments->nodes != NULL && segments->separators != NULL && c->waited_for != NULL &&
           c->segment_of != NULL;
}

enum ggc_status segments_init(struct segments * segments, const struct dispatch_args * args,
                              struct segment_cuts cuts) {
    struct cutter c = {.segments = segments, .args = args, .cuts = cuts};
    c.schedule = ggc_plan_schedule(ggc_graph_plan_core(args->plan));
    *segments = (struct segments) {0};
    enum ggc_status status = GGC_E_NOMEM;
    if (allocate(&c)) {
        find_threads(&c);
        find_waited_for(&c);
        place_lists(&c);
        cut(&c);
        fill(&c);
        status = GGC_OK;
    }
    free(c.waited_for);
    free(c.segment_of);
    if (status != GGC_OK) {
        segments_free(segments);
    }
    return status;
}

void segments_free(struct segments * segments) {
    free(segments->streams);
    free(segments->unit_threads);
    free(segments->segments);
    free(segments->order);
    free(segments->waits);
    free(segments->nodes);
    ggml_free(segments->separators);
    *segments = (struct segments) {0};
}

//
// What it costs
//

// Microseconds to start and end a team of threads, and to hand over between streams that are awake.
#define TEAM_COST 3.0
#define HAND_OVER_COST 5.0

static double time_with(double cost, uint32_t n_threads) {
    return n_threads > 1 ? cost / n_threads + TEAM_COST : cost;
}

struct segments_estimate segments_estimate(const struct segments * segments,
                                           const struct dispatch_args * args) {
    const struct ggc_schedule s = ggc_plan_schedule(ggc_graph_plan_core(args->plan));
    const double * cost = ggc_graph_plan_units(args->plan).cost;
    struct segments_estimate estimate = {0, 0};
    double free_at[GGC_MAX_STREAMS] = {0};
    double * finish = malloc(((size_t) s.n_units + 1) * sizeof(double));
    for (uint32_t i = 0; finish != NULL && i < s.n_units; i++) {
        const uint32_t u = s.order[i];
        double start = free_at[s.stream[u]];
        for (uint32_t k = s.wait_begin[u]; k < s.wait_begin[u + 1]; k++) {
            start = fmax(start, finish[s.waits[k]] + HAND_OVER_COST);
        }
        finish[u] = start + time_with(cost[u], segments->unit_threads[u]);
        free_at[s.stream[u]] = finish[u];
        estimate.streams = fmax(estimate.streams, finish[u]);
        estimate.serial += fmin(cost[u], time_with(cost[u], args->params->n_threads));
    }
    free(finish);
    return estimate;
}
