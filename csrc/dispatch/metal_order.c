#include "metal_order.h"

#include <stdlib.h>
#include <string.h>

#include "ggml/barrier.h"
#include "ggml/fuse.h"
#include "ggml/metal_fuse.h"
#include "metal_trace.h"

struct writer {
    struct metal_order * order;
    const struct ggml_cgraph * graph;
    const struct ggc_graph_plan * plan;
    uint32_t * units;  // by phase
    bool * fuses_anew;
    uint32_t n_units;
    int * starts;            // where each unit begins in order->nodes
    bool * starts_phase;     // whether it is the first of its phase
    int *indices, *unit_at;  // see list_encoded
};

static uint32_t phase_of(const struct writer * w, uint32_t unit) {
    return w->plan->node_phase[w->plan->units.nodes[w->plan->units.node_begin[unit]]];
}

static void collect_units(struct writer * w) {
    for (uint32_t i = 0; i < w->plan->units.n_nodes; i++) {
        const uint32_t node = w->plan->node_order[i], unit = w->plan->units.unit_of_node[node];
        if (unit != GGC_NONE && w->plan->units.nodes[w->plan->units.node_begin[unit]] == node) {
            w->units[w->n_units++] = unit;
        }
    }
}

static uint32_t next_random(uint32_t * state) {  // xorshift: any numbers will do
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void shuffle_phases(struct writer * w, uint32_t seed) {
    for (uint32_t begin = 0, end; begin < w->n_units; begin = end) {
        end = begin + 1;
        while (end < w->n_units && phase_of(w, w->units[end]) == phase_of(w, w->units[begin])) {
            end++;
        }
        for (uint32_t i = end - 1; i > begin; i--) {
            const uint32_t j = begin + next_random(&seed) % (i - begin + 1), unit = w->units[i];
            w->units[i] = w->units[j];
            w->units[j] = unit;
        }
    }
}

static bool stood_together(const struct writer * w, uint32_t i) {
    return i == 0 || w->units[i] == w->units[i - 1] + 1;
}

static void append_unit(struct writer * w, uint32_t i) {
    const struct graph_units * units = &w->plan->units;
    const uint32_t unit = w->units[i];
    w->starts[i] = w->order->n_nodes;
    w->starts_phase[i] = i > 0 && phase_of(w, unit) != phase_of(w, w->units[i - 1]);
    for (uint32_t k = units->node_begin[unit]; k < units->node_begin[unit + 1]; k++) {
        w->order->nodes[w->order->n_nodes++] = w->graph->nodes[units->nodes[k]];
    }
}

// The encoded nodes of the order, and where in them each unit begins.
static int list_encoded(const struct writer * w) {
    int n = 0;
    for (uint32_t i = 0; i < w->n_units; i++) {
        const int end = i + 1 < w->n_units ? w->starts[i + 1] : w->order->n_nodes;
        w->unit_at[i] = n;
        for (int k = w->starts[i]; k < end; k++) {
            if (metal_encodes(w->order->nodes[k])) {
                w->indices[n++] = k;
            }
        }
    }
    w->unit_at[w->n_units] = n;
    return n;
}

// Units that would be fused with the one before, which they did not follow in the graph.
static void find_new_fusions(struct writer * w) {
    struct ggml_cgraph graph = *w->graph;
    graph.nodes = w->order->nodes;
    graph.n_nodes = w->order->n_nodes;
    const int n = list_encoded(w);
    for (uint32_t i = 0; i + 1 < w->n_units; i++) {
        const int next = w->unit_at[i + 1];
        for (int at = w->unit_at[i]; at < next && !stood_together(w, i + 1);) {
            if (at + metal_fused(&graph, w->indices, n, at) > next) {
                w->fuses_anew[i + 1] = true;
            }
            at += metal_fused(&graph, w->indices, next, at);
        }
    }
}

// A separator before each of them, from the last to the first.
static void separate(struct writer * w) {
    struct metal_order * order = w->order;
    int n = 0, end = order->n_nodes;
    for (uint32_t i = 0; i < w->n_units; i++) {
        n += w->fuses_anew[i];
    }
    order->n_nodes += n;
    for (uint32_t i = w->n_units; i-- > 0 && n > 0;) {
        const int start = w->starts[i];
        memmove(order->nodes + start + n, order->nodes + start,
                (size_t) (end - start) * sizeof(*order->nodes));
        end = start;
        w->starts[i] += n;
        if (w->fuses_anew[i]) {
            order->nodes[start + --n] = new_separator(order->extra);
        }
    }
}

// As much work as the first command buffer has in the order of the graph: the GPU starts with it
// while the rest is encoded.
static int usual_work(const struct ggml_cgraph * graph) {
    int n = 0;
    for (int i = 0; i < metal_first_nodes(graph->n_nodes); i++) {
        n += metal_encodes(graph->nodes[i]);
    }
    return n;
}

// The start, of a phase if it must be, that is nearest to `wanted`; 0 if there is none between half
// of that and `most`.
static int nearest_start(const struct writer * w, bool of_phase, int wanted, int most) {
    int best = 0;
    for (uint32_t i = 0; i < w->n_units; i++) {
        const int start = w->starts[i];
        if ((w->starts_phase[i] || !of_phase) && start <= most && 2 * start >= wanted &&
            abs(start - wanted) < abs(best - wanted)) {
            best = start;
        }
    }
    return best;
}

// Nodes without work in front bring the cut forward.
static int nodes_in_front(const struct writer * w) {
    const int n = w->order->n_nodes, most = metal_first_nodes(n);
    if (most == n) {
        return 0;
    }
    const int wanted = usual_work(w->graph);
    int start = nearest_start(w, true, wanted, most);
    if (start == 0) {
        start = nearest_start(w, false, wanted, most);
    }
    int front = 0;
    while (start > 0 && metal_first_nodes(n + front) - front > start) {
        front++;
    }
    return front;
}

static void move_cut(struct writer * w) {
    struct metal_order * order = w->order;
    const int n = nodes_in_front(w);
    memmove(order->nodes + n, order->nodes, (size_t) order->n_nodes * sizeof(*order->nodes));
    struct ggml_tensor * empty = new_barrier(order->extra);
    for (int i = 0; i < n; i++) {
        order->nodes[i] = empty;
    }
    order->n_nodes += n;
}

static bool allocate(struct writer * w) {
    const size_t n = (size_t) w->graph->n_nodes + 2;
    const struct ggml_init_params params = {.mem_size = n * ggml_tensor_overhead(),
                                            .no_alloc = true};
    w->units = malloc(n * sizeof(uint32_t));
    w->starts = malloc(n * sizeof(int));
    w->starts_phase = malloc(n * sizeof(bool));
    w->fuses_anew = calloc(n, sizeof(bool));
    w->indices = malloc(n * sizeof(int));
    w->unit_at = malloc(n * sizeof(int));
    // a separator for each unit, and in front no more than the first command buffer takes
    w->order->nodes = malloc((3 * n + 64) * sizeof(*w->order->nodes));
    w->order->extra = ggml_init(params);
    return w->units != NULL && w->starts != NULL && w->starts_phase != NULL &&
           w->fuses_anew != NULL && w->indices != NULL && w->unit_at != NULL &&
           w->order->nodes != NULL && w->order->extra != NULL;
}

enum ggc_status metal_order_init(struct metal_order * order, const struct ggml_cgraph * graph,
                                 const struct ggc_graph_plan * plan, uint32_t seed) {
    struct writer w = {.order = order, .graph = graph, .plan = plan};
    *order = (struct metal_order) {0};
    const bool ok = allocate(&w);
    if (ok) {
        collect_units(&w);
        if (seed != 0) {
            shuffle_phases(&w, seed);
        }
        for (uint32_t i = 0; i < w.n_units; i++) {
            append_unit(&w, i);
        }
        find_new_fusions(&w);
        separate(&w);
        move_cut(&w);
    } else {
        metal_order_free(order);
    }
    free(w.units);
    free(w.starts);
    free(w.starts_phase);
    free(w.fuses_anew);
    free(w.indices);
    free(w.unit_at);
    return ok ? GGC_OK : GGC_E_NOMEM;
}

void metal_order_free(struct metal_order * order) {
    free(order->nodes);
    ggml_free(order->extra);
    *order = (struct metal_order) {0};
}
