// Random graphs of ggml operations, planned before allocation, on memory of their own and on memory
// that ggml-alloc has reused; and a look at every byte that every node touches: two nodes that
// share a byte which one of them writes must be ordered by the plan, directly or through others.
#include "random_graph.h"

static struct {
    uint64_t graphs, nodes, plans, pairs, deps, needless;
} total;

// Two ranges of addresses, the leafs' and the computed tensors', mapped onto one row of bits.
struct memory {
    const char * begin[2];
    size_t size[2];
    size_t words;
};

static void include(struct memory * m, int range, const struct ggml_tensor * t) {
    const char *begin = t->data, *end = begin + ggml_nbytes(t);
    const char * old_end = m->begin[range] + m->size[range];
    if (!m->begin[range] || begin < m->begin[range]) {
        m->begin[range] = begin;
    }
    if (end < old_end) {
        end = old_end;
    }
    m->size[range] = (size_t) (end - m->begin[range]);
}

static void include_all(struct memory * m, int range, struct ggml_context * ctx) {
    for (struct ggml_tensor * t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t)) {
        if (!t->view_src && t->data) {
            include(m, range, t);
        }
    }
}

static void memory_init(struct memory * m, const struct random_graph * g) {
    memset(m, 0, sizeof *m);
    include_all(m, 0, g->leaf_ctx);
    include_all(m, 1, g->ctx);
    m->words = (m->size[0] + m->size[1] + 63) / 64;
}

static void mark_bytes(const struct memory * m, uint64_t * row, const char * at, size_t n) {
    const int range = at < m->begin[0] || at >= m->begin[0] + m->size[0];
    size_t bit = (size_t) (at - m->begin[range]) + (range ? m->size[0] : 0);
    CHECK((size_t) (at - m->begin[range]) + n <= m->size[range]);
    for (; n > 0; n--) {
        test_set_bit(row, (uint32_t) bit++);
    }
}

static void mark_tensor(const struct memory * m, uint64_t * row, const struct ggml_tensor * t) {
    const size_t block = ggml_type_size(t->type);
    const int64_t n = t->ne[0] / ggml_blck_size(t->type);
    for (int64_t i3 = 0; i3 < t->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < t->ne[2]; i2++) {
            for (int64_t i1 = 0; i1 < t->ne[1]; i1++) {
                for (int64_t i0 = 0; i0 < n; i0++) {
                    const size_t offset = (size_t) i0 * t->nb[0] + (size_t) i1 * t->nb[1] +
                                          (size_t) i2 * t->nb[2] + (size_t) i3 * t->nb[3];
                    mark_bytes(m, row, (const char *) t->data + offset, block);
                }
            }
        }
    }
}

// What a node surely touches. The second source of CPY only says where the result goes; SET_ROWS
// keeps what its result is a view of as a source.
static void mark_node(const struct memory * m, uint64_t * reads, uint64_t * writes,
                      const struct ggml_tensor * node) {
    mark_tensor(m, writes, node);
    const int n_src = node->op == GGML_OP_CPY ? 1 : node->op == GGML_OP_SET_ROWS ? 2 : GGML_MAX_SRC;
    for (int i = 0; i < n_src; i++) {
        if (node->src[i]) {
            mark_tensor(m, reads, node->src[i]);
        }
    }
}

static bool share(const uint64_t * a, const uint64_t * b, size_t words) {
    uint64_t both = 0;
    for (size_t i = 0; i < words; i++) {
        both |= a[i] & b[i];
    }
    return both != 0;
}

struct touched {
    struct memory memory;
    uint64_t *reads, *writes;
};

static void touched_init(struct touched * t, const struct random_graph * g) {
    const size_t n = (size_t) g->graph->n_nodes;
    memory_init(&t->memory, g);
    t->reads = test_alloc(n * t->memory.words * sizeof *t->reads);
    t->writes = test_alloc(n * t->memory.words * sizeof *t->writes);
    for (size_t i = 0; i < n; i++) {
        const struct ggml_tensor * node = g->graph->nodes[i];
        if (!ggml_op_is_empty(node->op) && ggml_nelements(node) > 0) {
            mark_node(&t->memory, t->reads + i * t->memory.words, t->writes + i * t->memory.words,
                      node);
        }
    }
}

static void touched_free(struct touched * t) {
    free(t->reads);
    free(t->writes);
}

static bool must_be_ordered(const struct touched * t, size_t i, size_t j) {
    const size_t words = t->memory.words;
    const uint64_t *ri = t->reads + i * words, *wi = t->writes + i * words;
    const uint64_t *rj = t->reads + j * words, *wj = t->writes + j * words;
    return share(wi, rj, words) || share(wi, wj, words) || share(ri, wj, words);
}

static bool is_dep(const struct ggc_plan * core, uint32_t u, uint32_t v) {
    uint32_t n;
    const uint32_t * deps = ggc_plan_deps(core, v, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (deps[i] == u) {
            return true;
        }
    }
    return false;
}

static void check_order(const struct ggc_graph_plan * plan, const struct touched * t) {
    const struct ggc_plan * core = ggc_graph_plan_core(plan);
    const uint32_t n_units = ggc_graph_plan_units(plan).n_units, words = (n_units + 63) / 64;
    const uint32_t n = ggc_graph_plan_n_nodes(plan), *unit = ggc_graph_plan_unit_of_node(plan);
    uint64_t * before = dep_closure(core, n_units, words);
    for (uint32_t j = 0; j < n; j++) {
        for (uint32_t i = 0; i < j && unit[j] != GGC_NONE; i++) {
            if (unit[i] == GGC_NONE || unit[i] == unit[j]) {
                continue;
            }
            const bool needed = must_be_ordered(t, i, j), dep = is_dep(core, unit[i], unit[j]);
            CHECK_MSG(!needed || test_bit(before + (size_t) unit[j] * words, unit[i]),
                      "nodes %u and %u touch the same bytes and are not ordered", i, j);
            total.pairs += needed;
            total.deps += dep;
            total.needless += dep && !needed;
        }
    }
    free(before);
}

static struct ggc_graph_plan * make_plan(const struct random_graph * g, enum ggc_fuse fuse) {
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.fuse = fuse;
    params.plan.n_streams = 3;
    struct ggc_graph_plan * plan = NULL;
    CHECK_STATUS(ggc_graph_plan_new(g->graph, &params, &plan), GGC_OK);
    const struct ggc_units units = ggc_graph_plan_units(plan);
    const struct ggc_schedule schedule = ggc_plan_schedule(ggc_graph_plan_core(plan));
    CHECK_STATUS(ggc_verify_schedule(&units, &schedule, NULL), GGC_OK);
    CHECK_STATUS(ggc_verify_phases(&units, ggc_plan_phases(ggc_graph_plan_core(plan)), NULL),
                 GGC_OK);
    total.plans++;
    return plan;
}

// Memory is given before the plan is made, or (each tensor its own) after it.
enum memory_kind { BEFORE, AFTER, REUSED };

static void one_graph(uint64_t seed, uint32_t n_steps, enum memory_kind kind, enum ggc_fuse fuse) {
    struct random_graph g;
    struct touched touched;
    ggml_gallocr_t alloc = NULL;
    random_graph_init(&g, seed, n_steps);
    if (kind == BEFORE) {
        random_graph_place(&g);
    } else if (kind == REUSED) {
        alloc = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
        CHECK(ggml_gallocr_alloc_graph(alloc, g.graph));
    }
    struct ggc_graph_plan * plan = make_plan(&g, fuse);
    if (kind == AFTER) {
        random_graph_place(&g);
    }
    touched_init(&touched, &g);
    check_order(plan, &touched);
    touched_free(&touched);
    total.graphs++;
    total.nodes += (uint64_t) g.graph->n_nodes;
    ggc_graph_plan_free(plan);
    ggml_gallocr_free(alloc);
    random_graph_free(&g);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 1000);
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        test_case("random graph %llu", (unsigned long long) i);
        struct test_rng rng = test_rng(options.seed, i);
        one_graph(test_rand(&rng), test_range(&rng, 1, i % 10 ? 12 : 40), (enum memory_kind)(i % 3),
                  (enum ggc_fuse) test_below(&rng, GGC_FUSE_METAL + 1));
    }
    printf("%llu pairs of nodes share bytes; %llu of %llu dependences share none (conservative)\n",
           (unsigned long long) total.pairs, (unsigned long long) total.needless,
           (unsigned long long) total.deps);
    return test_passed("%llu graphs, %llu nodes, %llu plans", (unsigned long long) total.graphs,
                       (unsigned long long) total.nodes, (unsigned long long) total.plans);
}
