#include "fuse.h"

#include "ggml-backend.h"

//
// The table
//

// `slot` of a node, or any of its sources where it is ANY, is the result of the node `back` steps
// before it, or where `view` is set a view of that.
struct edge {
    int8_t slot;
    uint8_t back;  // 0: there is no such edge
    bool view;
};

struct step {
    uint8_t op;
    struct edge edges[2];
};

enum { MAX_STEPS = 11, ANY = -1 };
enum { HEAD = 1, TAIL = 2, NVFP4 = 4, PLACED = 8, GREEDY = 16 };

struct fusion {
    uint8_t n_steps, flags;
    struct step steps[MAX_STEPS];
};

_Static_assert(GGML_OP_COUNT <= UINT8_MAX, "operations do not fit a step");

#define NODE(op)            \
    {                       \
        GGML_OP_##op, {     \
            {               \
                0, 0, false \
            }               \
        }                   \
    }
#define STEP(op, ...)   \
    {                   \
        GGML_OP_##op, { \
            __VA_ARGS__ \
        }               \
    }
#define FROM(n) {ANY, n, false}
#define SRC0(n) {0, n, false}
#define SRC1(n) {1, n, false}
#define VIEW0(n) {0, n, true}
#define VIEW1(n) {1, n, true}
#define FUSION(name, flags, ...) \
    {sizeof((struct step[]) {__VA_ARGS__}) / sizeof(struct step), flags, {__VA_ARGS__}},

static const struct fusion cpu_fusions[] = {
#define CPU FUSION
#include "fusions.def"
};
static const struct fusion cuda_fusions[] = {
#define CUDA FUSION
#include "fusions.def"
};
static const struct fusion metal_fusions[] = {
#define METAL FUSION
#include "fusions.def"
};

static const struct backend {
    const struct fusion * fusions;
    size_t n_fusions;
    bool skips;  // nodes without work may stand between the steps
} backends[] = {
    [GGC_FUSE_CPU] = {cpu_fusions, sizeof(cpu_fusions) / sizeof(struct fusion), false},
    [GGC_FUSE_CUDA] = {cuda_fusions, sizeof(cuda_fusions) / sizeof(struct fusion), true},
    [GGC_FUSE_METAL] = {metal_fusions, sizeof(metal_fusions) / sizeof(struct fusion), true},
};

//
// Nodes and edges
//

static bool is_without_work(const struct ggml_tensor * node) {
    return ggml_op_is_empty(op_of(node)) || ggml_is_empty(node);
}

static bool has_nvfp4_weights(const struct ggml_tensor * node) {
    return (op_of(node) != GGML_OP_MUL_MAT && op_of(node) != GGML_OP_MUL_MAT_ID) ||
           (node->src[0] != NULL && node->src[0]->type == GGML_TYPE_NVFP4);
}

// Whether the node, of operation `op`, may be step k if it computes, edges apart.
static bool fits_step(const struct ggml_tensor * node, enum ggml_op op,
                      const struct fusion * fusion, int k) {
    return op == (enum ggml_op) fusion->steps[k].op &&
           (!(fusion->flags & NVFP4) || has_nvfp4_weights(node));
}

static bool is_step(const struct ggml_tensor * node, const struct fusion * fusion, int k) {
    return fits_step(node, op_of(node), fusion, k) && node_computes(node);
}

static bool is_or_shows(const struct ggml_tensor * source, const struct ggml_tensor * node) {
    while (source != node && source != NULL && ggml_op_is_empty(op_of(source))) {
        source = source->src[0];
    }
    return source == node;
}

static bool slot_holds(const struct ggml_tensor * reader, int slot, bool view,
                       const struct ggml_tensor * node) {
    const struct ggml_tensor * source = reader->src[slot];
    return source != NULL && (view ? is_or_shows(source, node) : source == node);
}

static bool edge_holds(const struct edge * edge, const struct ggml_tensor * reader,
                       const struct ggml_tensor * node) {
    if (edge->slot != ANY) {
        return slot_holds(reader, edge->slot, edge->view, node);
    }
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        if (slot_holds(reader, s, edge->view, node)) {
            return true;
        }
    }
    return false;
}

//
// Matching
//

static int skip(const struct ggml_cgraph * graph, int index) {
    while (index < graph->n_nodes && is_without_work(graph->nodes[index])) {
        index++;
    }
    return index;
}

// Finds the nodes of the steps; returns the index after the last one, or 0 if the steps are not
// those of the fusion. The first must stand right at `index`.
static int match_steps(const struct fusion * fusion, const struct ggml_cgraph * graph, int index,
                       bool skips, const struct ggml_tensor ** nodes) {
    for (int k = 0; k < fusion->n_steps; k++) {
        const struct step * step = &fusion->steps[k];
        index = k > 0 && skips ? skip(graph, index) : index;
        if (index >= graph->n_nodes || !is_step(graph->nodes[index], fusion, k)) {
            return 0;
        }
        nodes[k] = graph->nodes[index++];
        for (int e = 0; e < 2 && step->edges[e].back != 0; e++) {
            if (!edge_holds(&step->edges[e], nodes[k], nodes[k - step->edges[e].back])) {
                return 0;
            }
        }
    }
    return index;
}

static bool overlap(const struct ggml_tensor * a, const struct ggml_tensor * b) {
    if (a->buffer == NULL || b->buffer == NULL) {
        return false;
    }
    const uintptr_t x = (uintptr_t) a->data, y = (uintptr_t) b->data;
    return x < y + ggml_backend_buffer_get_alloc_size(b->buffer, b) &&
           y < x + ggml_backend_buffer_get_alloc_size(a->buffer, a);
}

static bool is_among(const struct ggml_tensor * tensor, const struct ggml_cgraph * graph, int begin,
                     int end) {
    for (int i = begin; i < end; i++) {
        if (graph->nodes[i] == tensor) {
            return true;
        }
    }
    return false;
}

#define ROUTER_ROWS 4  // TOPK_MOE_ROWS_PER_BLOCK: up to these, scores may lie where the result does

// ggml_cuda_check_fusion_memory_ranges, for one result.
static bool overlaps_a_source(const struct ggml_tensor * result, const struct ggml_cgraph * graph,
                              int begin, int end, const struct ggml_tensor * may) {
    for (int i = begin; i < end; i++) {
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * source = graph->nodes[i]->src[s];
            if (source != NULL && op_of(source) != GGML_OP_NONE && source != may &&
                !is_among(source, graph, begin, i) && overlap(result, source)) {
                return true;
            }
        }
    }
    return false;
}

// The results of a router are its weights, which come last, and the experts: the view that comes
// right after ARGSORT.
static bool is_refused(const struct ggml_cgraph * graph, int begin, int end) {
    const struct ggml_tensor * may = NULL;
    bool refused = false;
    for (int i = begin; i + 1 < end; i++) {
        if (op_of(graph->nodes[i]) == GGML_OP_ARGSORT) {
            may =
                ggml_nrows(graph->nodes[begin]) <= ROUTER_ROWS ? graph->nodes[begin]->src[0] : NULL;
            refused = overlaps_a_source(graph->nodes[i + 1], graph, begin, end, may);
        }
    }
    return refused || overlaps_a_source(graph->nodes[end - 1], graph, begin, end, may);
}

// The index after the last node of `fusion` at `index`, or 0 if it does not apply there.
static int match(const struct fusion * fusion, const struct ggml_cgraph * graph, int index,
                 bool skips) {
    const struct ggml_tensor * nodes[MAX_STEPS];
    const bool head = (fusion->flags & HEAD) != 0;
    const int end = match_steps(fusion, graph, index + head, skips, nodes);
    if (end == 0 || (head && nodes[1]->src[0] != graph->nodes[index])) {
        return 0;
    }
    if (fusion->flags & TAIL) {
        const bool there = end < graph->n_nodes && ggml_op_is_empty(op_of(graph->nodes[end])) &&
                           graph->nodes[end]->src[0] == nodes[fusion->n_steps - 1];
        return there ? end + 1 : 0;
    }
    return end;
}

struct fuse_starts find_fuse_starts(enum ggc_fuse fuse) {
    struct fuse_starts starts = {.fuse = fuse};
    for (size_t k = 0; fuse != GGC_FUSE_NONE && k < backends[fuse].n_fusions; k++) {
        const struct fusion * fusion = &backends[fuse].fusions[k];
        bool * which = fusion->flags & HEAD ? starts.before : starts.with;
        which[fusion->steps[0].op] = true;
    }
    return starts;
}

// The index after the longest run that one fusion makes at `index`, at least index + 1. `refuses`:
// without those that the backend refuses where the tensors lie.
static int longest_match(const struct ggml_cgraph * graph, int index,
                         const struct fuse_starts * starts, bool refuses) {
    const struct backend * backend = &backends[starts->fuse];
    const enum ggml_op op = op_of(graph->nodes[index]);
    const enum ggml_op next = index + 1 < graph->n_nodes ? op_of(graph->nodes[index + 1]) : op;
    const bool any = starts->with[op] || starts->before[next];
    int longest = index + 1, greedy = 0;
    for (size_t k = 0; any && k < backend->n_fusions; k++) {
        const struct fusion * fusion = &backend->fusions[k];
        if (fusion->steps[0].op != (fusion->flags & HEAD ? next : op)) {
            continue;
        }
        const int end = match(fusion, graph, index, backend->skips);
        const int begin = index + ((fusion->flags & HEAD) != 0);
        if (refuses && (fusion->flags & GREEDY)) {
            greedy = end > greedy ? end : greedy;
        } else if (end > longest &&
                   !(refuses && (fusion->flags & PLACED) && is_refused(graph, begin, end))) {
            longest = end;
        }
    }
    return greedy > longest && !is_refused(graph, index, greedy) ? greedy : longest;
}

// What a fusion may turn out not to be, another that begins inside of it may be: matches that
// overlap are one run. Returns the index after it.
static int end_of_run(const struct ggml_cgraph * graph, int index,
                      const struct fuse_starts * starts, bool refuses) {
    int end = index + 1;
    for (int i = index; starts->fuse != GGC_FUSE_NONE && i < end; i++) {
        const int longest = longest_match(graph, i, starts, refuses);
        end = longest > end ? longest : end;
    }
    return end;
}

int fused_run(const struct ggml_cgraph * graph, int index, const struct fuse_starts * starts,
              const bool * apart) {
    const int end = end_of_run(graph, index, starts, false);
    for (int i = index + 1; apart != NULL && i < end; i++) {
        if (apart[i]) {
            return i - index;
        }
    }
    return end - index;
}

void find_apart(const struct ggml_cgraph * graph, enum ggc_fuse fuse, bool * apart) {
    const struct fuse_starts starts = find_fuse_starts(fuse);
    for (int begin = 0, end; begin < graph->n_nodes; begin = end) {
        end = end_of_run(graph, begin, &starts, true);
        apart[begin] = true;
        for (int i = begin + 1; i < end; i++) {
            apart[i] = false;
        }
    }
}

//
// New neighbours
//

// One of two neighbours, and what is asked of it again and again.
struct neighbour {
    const struct ggml_tensor * node;
    enum ggml_op op;
    bool computes, hidden;
};

static struct neighbour neighbour_of(const struct ggml_tensor * node, bool skips) {
    return (struct neighbour) {node, op_of(node), node_computes(node),
                               skips && is_without_work(node)};
}

static bool may_be_step(const struct neighbour * neighbour, const struct fusion * fusion, int k) {
    return neighbour->computes && fits_step(neighbour->node, neighbour->op, fusion, k);
}

// Whether `last` and `first` may be steps k and k + 1 of a fusion. A node without work at the end
// of a unit hides what it ends with: that may be anything then.
static bool may_be_steps(const struct fusion * fusion, int k, const struct neighbour * last,
                         const struct neighbour * first) {
    const struct step * step = &fusion->steps[k + 1];
    if ((!last->hidden && !may_be_step(last, fusion, k)) ||
        (!first->hidden && !may_be_step(first, fusion, k + 1))) {
        return false;
    }
    for (int e = 0; e < 2 && !last->hidden && !first->hidden; e++) {
        if (step->edges[e].back == 1 && !edge_holds(&step->edges[e], first->node, last->node)) {
            return false;
        }
    }
    return true;
}

static bool may_be_head_or_tail(const struct fusion * fusion, const struct neighbour * last,
                                const struct neighbour * first) {
    return ((fusion->flags & HEAD) && may_be_step(first, fusion, 0)) ||
           ((fusion->flags & TAIL) && may_be_step(last, fusion, fusion->n_steps - 1) &&
            is_without_work(first->node));
}

bool might_fuse(const struct ggml_tensor * last, const struct ggml_tensor * first,
                enum ggc_fuse fuse) {
    if (fuse == GGC_FUSE_NONE) {
        return false;
    }
    const struct backend * backend = &backends[fuse];
    const struct neighbour a = neighbour_of(last, backend->skips);
    const struct neighbour b = neighbour_of(first, backend->skips);
    for (size_t i = 0; i < backend->n_fusions; i++) {
        const struct fusion * fusion = &backend->fusions[i];
        if (may_be_head_or_tail(fusion, &a, &b)) {
            return true;
        }
        for (int k = 0; k + 1 < fusion->n_steps; k++) {
            if (may_be_steps(fusion, k, &a, &b)) {
                return true;
            }
        }
    }
    return false;
}

struct ggml_tensor * new_separator(struct ggml_context * ctx) {
    struct ggml_tensor * separator = ggml_arange(ctx, 0, 1, 1);
    ggml_set_name(separator, "separator");
    return separator;
}
