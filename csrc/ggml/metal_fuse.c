#include "metal_fuse.h"

#include "access_rules.h"
#include "ggml-backend-impl.h"

enum { MAX_FUSED = 16, MAX_EXPERTS = 1024, MAX_REDUCED = 8, MAX_ADDED = 7 };

// Nodes that may become one kernel.
struct candidate {
    const struct ggml_cgraph * graph;
    const int * indices;                    // of the nodes
    struct ggml_tensor * nodes[MAX_FUSED];  // what is encoded, without views
    int n;
};

bool metal_encodes(const struct ggml_tensor * node) {
    return !ggml_op_is_empty(node->op) && !ggml_is_empty(node);
}

static bool ops_are(const struct candidate * c, int n, const enum ggml_op * ops) {
    if (n > c->n) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        if (c->nodes[i]->op != ops[i]) {
            return false;
        }
    }
    return true;
}

#define OPS_ARE(c, ...)                                                               \
    ops_are(c, (int) (sizeof((enum ggml_op[]) {__VA_ARGS__}) / sizeof(enum ggml_op)), \
            (enum ggml_op[]) {__VA_ARGS__})

//
// Memory
//

static bool is_on_chain(const struct ggml_tensor * tensor, const struct ggml_tensor * wanted) {
    while (tensor != NULL && tensor != wanted) {
        tensor = tensor->view_src;
    }
    return tensor != NULL;
}

static bool is_same_memory(const struct ggml_tensor * a, const struct ggml_tensor * b) {
    return (a->data != NULL && a->data == b->data) || is_on_chain(a, b) || is_on_chain(b, a);
}

static bool is_overlapping(const struct ggml_tensor * a, const struct ggml_tensor * b) {
    if (a->data == NULL || b->data == NULL || a->buffer == NULL || a->buffer != b->buffer) {
        return false;
    }
    const char *x = a->data, *y = b->data;
    return x < y + ggml_backend_buft_get_alloc_size(b->buffer->buft, b) &&
           y < x + ggml_backend_buft_get_alloc_size(a->buffer->buft, a);
}

// Whether the fused kernel, which writes `dst` while it reads, would spoil what it reads.
static bool spoils(const struct candidate * c, int n, const struct ggml_tensor * dst) {
    for (int i = 0; i < n; i++) {
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * source = c->nodes[i]->src[s];
            if (source == NULL || source->op == GGML_OP_NONE || is_same_memory(source, dst) ||
                !is_overlapping(dst, source)) {
                continue;
            }
            bool inside = false;
            for (int k = 0; k < i; k++) {
                inside = inside || is_on_chain(source, c->nodes[k]);
            }
            if (!inside) {
                return true;
            }
        }
    }
    return false;
}

//
// Chains: each node reads the one before, all of one shape, only the last is read elsewhere
//

static bool is_chain(const struct candidate * c, int n) {
    enum ggml_op ops[MAX_FUSED];
    for (int i = 0; i < n; i++) {
        const struct ggml_tensor * node = c->nodes[i];
        ops[i] = node->op;
        if (i > 0 && ((node->src[0] != c->nodes[i - 1] && node->src[1] != c->nodes[i - 1]) ||
                      !ggml_are_same_shape(node, c->nodes[i - 1]))) {
            return false;
        }
    }
    return ggml_can_fuse_subgraph_ext(c->graph, c->indices, n, ops, &c->indices[n - 1], 1) &&
           !spoils(c, n, c->nodes[n - 1]);
}

static bool is_norm_step(const struct candidate * c, int i) {
    const struct ggml_tensor * node = c->nodes[i];
    return node->src[0] == c->nodes[i - 1] && node->src[1]->ne[0] == c->nodes[0]->ne[0] &&
           ggml_is_contiguous_rows(node->src[1]) && node->type == GGML_TYPE_F32;
}

static int fused_norm(const struct candidate * c) {
    const enum ggml_op op = c->nodes[0]->op;
    if (OPS_ARE(c, op, GGML_OP_MUL, GGML_OP_ADD) && is_chain(c, 3) && is_norm_step(c, 1) &&
        is_norm_step(c, 2)) {
        return 3;
    }
    if (OPS_ARE(c, op, GGML_OP_MUL) && is_chain(c, 2) && is_norm_step(c, 1)) {
        return 2;
    }
    if (OPS_ARE(c, op, GGML_OP_SCALE) && is_chain(c, 2)) {
        const struct ggml_tensor * scale = c->nodes[1];
        return scale->src[0] == c->nodes[0] && scale->type == GGML_TYPE_F32 ? 2 : 1;
    }
    return 1;
}

// ggml-metal compares Metal's buffers; one buffer of ggml's is one of these, unless it is larger
// than they can be. What has no memory yet will lie with the other results.
static bool is_same_buffer(const struct ggml_tensor * a, const struct ggml_tensor * b) {
    a = root_of(a);
    b = root_of(b);
    return (a->data == NULL) == (b->data == NULL) && a->buffer == b->buffer;
}

static bool is_added_step(const struct candidate * c, int i) {
    const struct ggml_tensor * node = c->nodes[i];
    return node->op == GGML_OP_ADD && node->src[0] == c->nodes[i - 1] &&
           ggml_are_same_layout(node->src[1], c->nodes[i - 1]->src[1]) &&
           is_same_buffer(node->src[1], c->nodes[0]->src[1]);
}

static int fused_additions(const struct candidate * c) {
    int n = 1;
    while (n < c->n && n < MAX_ADDED && is_added_step(c, n)) {
        n++;
    }
    while (n > 1 && !is_chain(c, n)) {
        n--;
    }
    return n;
}

static bool is_snake(const struct candidate * c) {
    if (!OPS_ARE(c, GGML_OP_MUL, GGML_OP_SIN, GGML_OP_SQR, GGML_OP_MUL, GGML_OP_ADD) ||
        !is_chain(c, 5)) {
        return false;
    }
    struct ggml_tensor * const * nodes = c->nodes;
    const bool first = ggml_are_same_shape(nodes[0], nodes[0]->src[0]);
    const struct ggml_tensor *x = nodes[0]->src[!first], *a = nodes[0]->src[first];
    const struct ggml_tensor * b = nodes[3]->src[nodes[3]->src[0] == nodes[2]];
    const struct ggml_tensor * last = nodes[4];
    bool ok = x->type == GGML_TYPE_F32 || x->type == GGML_TYPE_F16 || x->type == GGML_TYPE_BF16;
    for (int i = 0; i < 5; i++) {
        ok = ok && nodes[i]->type == x->type;
    }
    return ok && a->type == GGML_TYPE_F32 && b->type == GGML_TYPE_F32 &&
           ggml_are_same_shape(a, b) && a->ne[0] == 1 && a->ne[1] == x->ne[1] && x->ne[2] == 1 &&
           x->ne[3] == 1 && last->ne[2] == 1 && last->ne[3] == 1 && a->ne[2] == 1 &&
           a->ne[3] == 1 && ggml_is_contiguous(x) && ggml_is_contiguous(last) &&
           ggml_is_contiguous(a) && ggml_is_contiguous(b) &&
           last->src[last->src[0] == nodes[3]] == x;
}

static bool is_silu_convolution(const struct candidate * c) {
    const struct ggml_tensor *convolution = c->nodes[0], *unary = c->nodes[1];
    return OPS_ARE(c, GGML_OP_SSM_CONV, GGML_OP_UNARY) && is_chain(c, 2) &&
           unary->src[0] == convolution && unary->src[1] == NULL &&
           ggml_get_unary_op(unary) == GGML_UNARY_OP_SILU && convolution->type == GGML_TYPE_F32 &&
           unary->type == GGML_TYPE_F32 && ggml_is_contiguous_rows(unary);
}

//
// A delta net whose states go straight to the cache
//

static bool is_cached_delta_net(const struct candidate * c) {
    if (!OPS_ARE(c, GGML_OP_GATED_DELTA_NET, GGML_OP_CPY)) {
        return false;
    }
    const struct ggml_tensor *net = c->nodes[0], *copy = c->nodes[1];
    if (net->type != GGML_TYPE_F32 || ((net->flags | copy->flags) & GGML_TENSOR_FLAG_OUTPUT)) {
        return false;
    }
    const struct ggml_tensor *values = net->src[2], *from = copy->src[0], *to = copy->src[1];
    const int64_t size = values->ne[0] * values->ne[0] * values->ne[1];
    const int64_t n_tokens = values->ne[2], n_kept = ggml_get_op_params_i32(net, 0);
    const size_t offset =
        ggml_row_size(GGML_TYPE_F32, values->ne[0] * values->ne[1] * values->ne[2] * values->ne[3]);
    return from->op == GGML_OP_VIEW && from->view_src == net && from->view_offs == offset &&
           ggml_is_contiguous(from) && to->type == GGML_TYPE_F32 && to->ne[0] == size &&
           to->ne[1] == values->ne[3] && to->ne[2] == (n_tokens < n_kept ? n_tokens : n_kept) &&
           to->ne[3] == 1 && to->nb[0] == ggml_type_size(GGML_TYPE_F32) &&
           to->nb[1] == ggml_row_size(GGML_TYPE_F32, size) && !spoils(c, 2, copy);
}

//
// Runs of nodes in which views have their places
//

// The nodes from that at `begin` on; NULL where there are fewer than n.
static struct ggml_tensor * const * run_of(const struct candidate * c, int begin, int n) {
    return begin + n <= c->graph->n_nodes ? c->graph->nodes + begin : NULL;
}

static bool run_can_fuse(const struct candidate * c, int begin, int n, const enum ggml_op * ops,
                         const int * outputs, int n_outputs) {
    int indices[MAX_FUSED];
    for (int i = 0; i < n; i++) {
        indices[i] = begin + i;
        if (c->graph->nodes[begin + i]->op != ops[i]) {
            return false;
        }
    }
    return ggml_can_fuse_subgraph_ext(c->graph, indices, n, ops, outputs, n_outputs);
}

static const enum ggml_op router_ops[] = {
    GGML_OP_SOFT_MAX, GGML_OP_RESHAPE, GGML_OP_ARGSORT,  GGML_OP_VIEW,
    GGML_OP_GET_ROWS, GGML_OP_RESHAPE, GGML_OP_SUM_ROWS, GGML_OP_CLAMP,
    GGML_OP_DIV,      GGML_OP_RESHAPE, GGML_OP_SCALE,
};
static const enum ggml_op scaled_router_ops[] = {
    GGML_OP_SOFT_MAX, GGML_OP_RESHAPE,  GGML_OP_ARGSORT,
    GGML_OP_VIEW,     GGML_OP_GET_ROWS, GGML_OP_SCALE,
};

static bool router_shapes_fit(struct ggml_tensor * const * run, int n) {
    const struct ggml_tensor *probabilities = run[0], *logits = run[0]->src[0];
    const struct ggml_tensor *ids = run[3], *out = run[n - 1];
    const int64_t n_experts = logits->ne[0], n_tokens = logits->ne[1], n_used = ids->ne[0];
    return ggml_get_op_params_f32(probabilities, 0) == 1.0f &&
           ggml_get_op_params_f32(probabilities, 1) == 0.0f && probabilities->src[1] == NULL &&
           probabilities->src[2] == NULL && logits->type == GGML_TYPE_F32 &&
           probabilities->type == GGML_TYPE_F32 && out->type == GGML_TYPE_F32 &&
           ids->type == GGML_TYPE_I32 && n_experts > 0 && n_used > 0 && n_used <= n_experts &&
           n_experts <= MAX_EXPERTS && logits->ne[2] == 1 && logits->ne[3] == 1 &&
           ids->ne[1] == n_tokens && ids->ne[2] == 1 && ids->ne[3] == 1 && out->ne[0] == 1 &&
           out->ne[1] == n_used && out->ne[2] == n_tokens && out->ne[3] == 1 &&
           ggml_is_contiguous(logits) && ggml_is_contiguous(out) && ids->nb[0] == sizeof(int32_t) &&
           ids->nb[1] == sizeof(int32_t) * (size_t) n_experts;
}

static bool router_edges_fit(struct ggml_tensor * const * run, int n) {
    bool ok = run[1]->src[0] == run[0] && run[2]->src[0] == run[0] && run[3]->src[0] == run[2] &&
              run[4]->src[0] == run[1] && run[4]->src[1] == run[3];
    if (n >= 10) {
        ok = ok && run[5]->src[0] == run[4] && run[6]->src[0] == run[5] &&
             run[7]->src[0] == run[6] && run[8]->src[0] == run[5] && run[8]->src[1] == run[7] &&
             run[9]->src[0] == run[8];
    }
    return ok && (n == 5 || n == 10 || run[n - 1]->src[0] == run[n - 2]);
}

// n nodes, of which the encoder sees `n_kernels`: the last is then the one that it sees last, or
// the view of it.
static bool is_router(const struct candidate * c, int n, int n_seen) {
    const int begin = c->indices[0], end = begin + n;
    struct ggml_tensor * const * run = run_of(c, begin, n);
    if (run == NULL || n_seen > c->n || c->indices[n_seen - 1] != end - 1 - (n == 10)) {
        return false;
    }
    const int outputs[2] = {begin + 3, end - 1};
    return run_can_fuse(c, begin, n, n == 6 ? scaled_router_ops : router_ops, outputs, 2) &&
           router_edges_fit(run, n) && router_shapes_fit(run, n) &&
           !spoils(c, n_seen, c->nodes[n_seen - 1]) && !spoils(c, n_seen, c->nodes[1]);
}

static int fused_router(const struct candidate * c) {
    return is_router(c, 11, 7)   ? 7
           : is_router(c, 10, 6) ? 6
           : is_router(c, 6, 4)  ? 4
           : is_router(c, 5, 3)  ? 3
                                 : 1;
}

static bool experts_shapes_fit(struct ggml_tensor * const * run, int n_experts) {
    const struct ggml_tensor *product = run[0], *out = run[2 * n_experts - 1];
    const struct ggml_tensor *experts = product->src[0], *weights = product->src[1];
    return product->type == GGML_TYPE_F32 && experts->type == GGML_TYPE_F32 &&
           weights->type == GGML_TYPE_F32 && out->type == GGML_TYPE_F32 && experts->ne[0] > 0 &&
           experts->ne[1] == n_experts && experts->ne[3] == 1 && weights->ne[0] == 1 &&
           weights->ne[1] == n_experts && weights->ne[2] == experts->ne[2] && weights->ne[3] == 1 &&
           out->ne[0] == experts->ne[0] && out->ne[1] == experts->ne[2] && out->ne[2] == 1 &&
           out->ne[3] == 1 && ggml_is_contiguous(experts) && ggml_is_contiguous(weights) &&
           ggml_is_contiguous(out);
}

static bool experts_edges_fit(struct ggml_tensor * const * run, int n_experts) {
    const struct ggml_tensor *product = run[0], *experts = product->src[0];
    for (int i = 1; i <= n_experts; i++) {
        const struct ggml_tensor * view = run[i];
        if (view->view_src != product || view->src[0] != product ||
            view->view_offs != (size_t) (i - 1) * product->nb[1] || view->ne[0] != experts->ne[0] ||
            view->ne[1] != experts->ne[2] || view->nb[1] != product->nb[2]) {
            return false;
        }
    }
    for (int i = 1; i < n_experts; i++) {
        const struct ggml_tensor * sum = run[n_experts + i];
        if (sum->src[0] != (i == 1 ? run[1] : run[n_experts + i - 1]) ||
            sum->src[1] != run[i + 1]) {
            return false;
        }
    }
    return true;
}

// The weighted sum over experts: the product, a view for each, and the sum of these.
static int fused_experts(const struct candidate * c) {
    const int begin = c->indices[0];
    int n = 0;
    while (begin + 1 + n < c->graph->n_nodes &&
           c->graph->nodes[begin + 1 + n]->op == GGML_OP_VIEW) {
        n++;
    }
    struct ggml_tensor * const * run = run_of(c, begin, 2 * n);
    if (n < 2 || n > MAX_REDUCED || n > c->n || run == NULL ||
        c->indices[n - 1] != begin + 2 * n - 1) {
        return 1;
    }
    enum ggml_op ops[2 * MAX_REDUCED];
    for (int i = 0; i < 2 * n; i++) {
        ops[i] = i == 0 ? GGML_OP_MUL : i <= n ? GGML_OP_VIEW : GGML_OP_ADD;
    }
    const int output = begin + 2 * n - 1;
    return run_can_fuse(c, begin, 2 * n, ops, &output, 1) && experts_shapes_fit(run, n) &&
                   experts_edges_fit(run, n) && !spoils(c, n, c->nodes[n - 1])
               ? n
               : 1;
}

//
// All of them
//

static int fused(const struct candidate * c) {
    switch (c->nodes[0]->op) {
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM: return fused_norm(c);
        case GGML_OP_ADD: return fused_additions(c);
        case GGML_OP_MUL: return is_snake(c) ? 5 : fused_experts(c);
        case GGML_OP_SOFT_MAX: return fused_router(c);
        case GGML_OP_GATED_DELTA_NET: return is_cached_delta_net(c) ? 2 : 1;
        case GGML_OP_SSM_CONV: return is_silu_convolution(c) ? 2 : 1;
        default: return 1;
    }
}

int metal_fused(const struct ggml_cgraph * graph, const int * indices, int n, int at) {
    struct candidate c = {.graph = graph, .indices = indices + at};
    while (c.n < MAX_FUSED && at + c.n < n) {
        c.nodes[c.n] = graph->nodes[c.indices[c.n]];
        c.n++;
    }
    return fused(&c);
}

int metal_fused_end(const struct ggml_cgraph * graph, int index) {
    int indices[MAX_FUSED], n = 0;
    if (!metal_encodes(graph->nodes[index])) {
        return index + 1;
    }
    for (int i = index; i < graph->n_nodes && n < MAX_FUSED; i++) {
        if (metal_encodes(graph->nodes[i])) {
            indices[n++] = i;
        }
    }
    const int n_fused = metal_fused(graph, indices, n, 0);
    const bool is_normalised_router =
        graph->nodes[index]->op == GGML_OP_SOFT_MAX && n_fused == 6;  // a view ends it
    return indices[n_fused - 1] + 1 + is_normalised_router;
}
