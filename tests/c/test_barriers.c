// The two forms that issue #2309 asked for: the graph with barrier nodes, and the list of integers.
// Also ggc_graph_check, on graphs that are damaged in every way that we can think of.
#include "random_graph.h"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define GUARD 0x5eadbeef

static struct {
    uint64_t graphs, nodes, barriers;
} total;

//
// The list
//

// Every node once, and barriers only between groups.
static uint32_t check_list(const struct ggml_cgraph * graph, const int32_t * list, int32_t n,
                           uint32_t * phase) {
    const int n_nodes = graph->n_nodes;
    bool * seen = test_alloc((size_t) n_nodes * sizeof *seen);
    uint32_t group = 0;
    int found = 0;
    CHECK(n_nodes == 0 ? n == 0 : n < 2 * n_nodes);
    for (int32_t i = 0; i < n; i++) {
        if (list[i] == GGC_BARRIER) {
            CHECK_MSG(i > 0 && i < n - 1 && list[i - 1] != GGC_BARRIER, "barrier at %d of %d", i,
                      n);
            group++;
            continue;
        }
        CHECK_MSG(list[i] >= 0 && list[i] < n_nodes && !seen[list[i]], "entry %d is %d", i,
                  list[i]);
        seen[list[i]] = true;
        phase[list[i]] = group;
        found++;
    }
    CHECK_EQ(found, n_nodes);
    free(seen);
    return group;
}

// Each node comes after the nodes that it is made from, views and all.
static void check_topology(const struct ggml_cgraph * graph, const int32_t * list, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = i + 1; list[i] >= 0 && j < n; j++) {
            const struct ggml_tensor * node = graph->nodes[list[i]];
            for (int k = 0; k < GGML_MAX_SRC && list[j] >= 0; k++) {
                CHECK_MSG(node->src[k] != graph->nodes[list[j]],
                          "node %d stands before its source %d", list[i], list[j]);
            }
            CHECK(list[j] < 0 || node->view_src != graph->nodes[list[j]]);
        }
    }
}

// The groups of the list order all that must be ordered, and are as few as can be.
static void check_groups(const struct ggml_cgraph * graph, const uint32_t * node_phase,
                         uint32_t n_groups) {
    struct ggc_graph_plan * plan = NULL;
    CHECK_STATUS(ggc_graph_plan_new(graph, NULL, &plan), GGC_OK);
    const struct ggc_units units = ggc_graph_plan_units(plan);
    uint32_t * phase = test_alloc(units.n_units * sizeof *phase);
    for (uint32_t i = 0; i < ggc_graph_plan_n_nodes(plan); i++) {
        const uint32_t unit = ggc_graph_plan_unit_of_node(plan)[i];
        if (unit != GGC_NONE) {
            phase[unit] = node_phase[i];
        }
    }
    CHECK_STATUS(ggc_verify_phases(&units, phase, NULL), GGC_OK);
    const uint32_t least = ggc_plan_get_stats(ggc_graph_plan_core(plan)).n_phases;
    CHECK_EQ(n_groups, least ? least : graph->n_nodes > 0);
    free(phase);
    ggc_graph_plan_free(plan);
}

static void check_capacities(const struct ggml_cgraph * graph, int32_t n) {
    int32_t * list = test_alloc(((size_t) n + 2) * sizeof *list);
    for (int32_t capacity = n > 3 ? n - 3 : 0; capacity < n; capacity++) {
        int32_t needed = -7;
        for (int32_t i = 0; i <= n; i++) {
            list[i] = GUARD;
        }
        CHECK_STATUS(ggml_graph_find_concurrency_list(graph, list, capacity, &needed),
                     GGC_E_CAPACITY);
        CHECK_EQ(needed, n);
        for (int32_t i = capacity; i <= n; i++) {
            CHECK_MSG(list[i] == GUARD, "entry %d was written with room for %d", i, capacity);
        }
    }
    free(list);
}

static void check_list_form(const struct ggml_cgraph * graph) {
    const int32_t room = 2 * graph->n_nodes;
    int32_t *list = test_alloc(((size_t) room + 1) * sizeof *list), n = -7;
    uint32_t * phase = test_alloc((size_t) graph->n_nodes * sizeof *phase);
    list[room] = GUARD;
    CHECK_STATUS(ggml_graph_find_concurrency_list(graph, list, room, &n), GGC_OK);
    CHECK_EQ(list[room], GUARD);
    const uint32_t barriers = check_list(graph, list, n, phase);
    check_topology(graph, list, n);
    check_groups(graph, phase, graph->n_nodes ? barriers + 1 : 0);
    check_capacities(graph, n);
    total.graphs++;
    total.nodes += (uint64_t) graph->n_nodes;
    total.barriers += barriers;
    free(phase);
    free(list);
}

static void list_of_an_empty_graph(struct scene * s) {
    int32_t n = -7;
    CHECK_STATUS(ggml_graph_find_concurrency_list(s->graph, NULL, 0, &n), GGC_OK);
    CHECK_EQ(n, 0);
    check_list_form(s->graph);
}

// #2416: the longest list that there can be; the old bound was too small for 65B.
static void list_of_a_chain(struct scene * s) {
    struct ggml_tensor * x = vector(s, 8);
    for (int i = 0; i < 2964; i++) {
        x = ggml_scale(s->ctx, x, 2);
        expand(s, x);
    }
    int32_t n = 0;
    CHECK_STATUS(ggml_graph_find_concurrency_list(s->graph, NULL, 0, &n), GGC_E_CAPACITY);
    CHECK_EQ(n, 2 * 2964 - 1);
    int32_t * list = test_alloc(sizeof *list * 2 * 2964);
    CHECK_STATUS(ggml_graph_find_concurrency_list(s->graph, list, n, &n), GGC_OK);
    for (int32_t i = 0; i < n; i++) {
        CHECK_EQ(list[i], i % 2 ? GGC_BARRIER : i / 2);
    }
    free(list);
}

static void towers(struct scene * s) {
    struct ggml_tensor * x = vector(s, 16);
    for (int t = 0; t < 8; t++) {
        struct ggml_tensor * y = x;
        for (int l = 0; l < 10; l++) {
            y = ggml_silu(s->ctx, ggml_reshape_2d(s->ctx, y, 4, 4));
            expand(s, y);
        }
    }
}

static void list_of_towers(struct scene * s) {
    towers(s);
    int32_t list[400], n;
    CHECK_STATUS(ggml_graph_find_concurrency_list(s->graph, list, 400, &n), GGC_OK);
    CHECK_EQ(n, s->graph->n_nodes + 9);
    check_list_form(s->graph);
}

// Views cost no group, not even a graph of nothing else.
static void list_of_views(struct scene * s) {
    struct ggml_tensor * x = matrix(s, 8, 8);
    for (int i = 0; i < 10; i++) {
        x = i % 2 ? ggml_transpose(s->ctx, x) : ggml_view_2d(s->ctx, x, 8, 8, 32, 0);
        expand(s, x);
    }
    int32_t list[20], n;
    CHECK_STATUS(ggml_graph_find_concurrency_list(s->graph, list, 20, &n), GGC_OK);
    CHECK_EQ(n, 10);
    check_list_form(s->graph);
}

static void bad_arguments(struct scene * s) {
    towers(s);
    int32_t list[400], n = -7;
    CHECK_STATUS(ggml_graph_find_concurrency_list(NULL, list, 400, &n), GGC_E_INVALID);
    CHECK_STATUS(ggml_graph_find_concurrency_list(s->graph, list, 400, NULL), GGC_E_INVALID);
    const enum ggc_status status = ggml_graph_find_concurrency_list(s->graph, list, -1, &n);
    CHECK(status == GGC_E_INVALID || status == GGC_E_CAPACITY);
    CHECK(ggml_graph_find_concurrency_list(s->graph, NULL, 400, &n) != GGC_OK);
    CHECK_STATUS(ggml_graph_find_concurrency(NULL, s->graph), GGC_E_INVALID);
    CHECK_STATUS(ggml_graph_find_concurrency(s->ctx, NULL), GGC_E_INVALID);
}

//
// The graph with barrier nodes
//

// A copy of a graph's nodes and of the graph itself, to see that nothing was touched.
struct snapshot {
    struct ggml_cgraph graph;
    struct ggml_tensor ** nodes;
    size_t used;
};

static void snapshot_take(struct snapshot * shot, struct ggml_context * ctx,
                          const struct ggml_cgraph * graph) {
    shot->graph = *graph;
    shot->used = ggml_used_mem(ctx);
    shot->nodes = test_alloc((size_t) graph->size * sizeof *shot->nodes);
    memcpy(shot->nodes, graph->nodes, (size_t) graph->n_nodes * sizeof *shot->nodes);
}

static void snapshot_check(const struct snapshot * shot, struct ggml_context * ctx,
                           const struct ggml_cgraph * graph) {
    CHECK_MSG(memcmp(&shot->graph, graph, sizeof *graph) == 0, "the graph was changed");
    CHECK(memcmp(shot->nodes, graph->nodes, (size_t) graph->n_nodes * sizeof *shot->nodes) == 0);
    CHECK_EQ(shot->used, ggml_used_mem(ctx));
}

static void check_barrier(const struct ggml_tensor * t) {
    CHECK_EQ(t->op, GGML_OP_NONE);
    CHECK(strcmp(t->name, "barrier") == 0);
    CHECK(t->data == NULL && t->view_src == NULL && ggml_nbytes(t) == 0);
    for (int k = 0; k < GGML_MAX_SRC; k++) {
        CHECK(t->src[k] == NULL);
    }
}

// The graph must now be what the list said before.
static void check_sorted_graph(const struct ggml_cgraph * graph, const struct snapshot * shot,
                               const int32_t * list, int32_t n) {
    CHECK_EQ(graph->n_nodes, n);
    for (int32_t i = 0; i < n; i++) {
        if (list[i] == GGC_BARRIER) {
            check_barrier(graph->nodes[i]);
        } else {
            CHECK(graph->nodes[i] == shot->nodes[list[i]]);
        }
    }
    CHECK(graph->size == shot->graph.size && graph->nodes == shot->graph.nodes);
    CHECK(graph->n_leafs == shot->graph.n_leafs && graph->leafs == shot->graph.leafs);
    CHECK(graph->use_counts == shot->graph.use_counts);
    CHECK_MSG(graph->uid == 0 || graph->uid != shot->graph.uid, "the changed graph kept its uid");
}

// In a context with memory for exactly as many barriers as are needed, or one less; in a graph with
// exactly as much room, or one less. `graph` must have room to spare.
static void check_graph_form(struct ggml_cgraph * graph) {
    int32_t *list = test_alloc(2 * ((size_t) graph->n_nodes + 1) * sizeof *list), n;
    CHECK_STATUS(ggml_graph_find_concurrency_list(graph, list, 2 * graph->n_nodes, &n), GGC_OK);
    const int n_barriers = n - graph->n_nodes, size = graph->size;
    CHECK(size >= n);
    for (int attempt = 0; attempt < 3; attempt++) {
        if (attempt < 2 && n_barriers == 0) {
            continue;
        }
        const size_t n_tensors = (size_t) n_barriers - (attempt == 0);
        struct ggml_context * ctx = ggml_init((struct ggml_init_params) {
            .mem_size = n_tensors * ggml_tensor_overhead() + 16, .no_alloc = attempt != 2});
        graph->size = attempt == 1 ? n - 1 : n;
        graph->uid = 77;
        struct snapshot shot;
        snapshot_take(&shot, ctx, graph);
        if (attempt < 2) {
            CHECK_STATUS(ggml_graph_find_concurrency(ctx, graph), GGC_E_CAPACITY);
            snapshot_check(&shot, ctx, graph);
        } else {
            CHECK_STATUS(ggml_graph_find_concurrency(ctx, graph), GGC_OK);
            check_sorted_graph(graph, &shot, list, n);
            graph->size = size;
            CHECK_STATUS(ggc_graph_check(graph, NULL, 0), GGC_OK);
            graph->n_nodes = shot.graph.n_nodes;  // back to what it was
            memcpy(graph->nodes, shot.nodes, (size_t) graph->n_nodes * sizeof *graph->nodes);
        }
        graph->size = size;
        free(shot.nodes);
        ggml_free(ctx);
    }
    free(list);
}

static void graph_with_barriers(struct scene * s) {
    towers(s);
    check_graph_form(s->graph);
}

static void graph_without_need_of_barriers(struct scene * s) {
    struct ggml_tensor * x = vector(s, 8);
    for (int i = 0; i < 10; i++) {
        expand(s, ggml_scale(s->ctx, x, 2));
    }
    check_graph_form(s->graph);
    CHECK_EQ(s->graph->n_nodes, 10);
}

static void empty_graph_gets_no_barrier(struct scene * s) {
    CHECK_STATUS(ggml_graph_find_concurrency(s->ctx, s->graph), GGC_OK);
    CHECK_EQ(s->graph->n_nodes, 0);
}

// Sorting a sorted graph keeps it right, and its groups as few.
static void sorted_twice(struct scene * s) {
    towers(s);
    const int n = s->graph->n_nodes;
    CHECK_STATUS(ggml_graph_find_concurrency(s->ctx, s->graph), GGC_OK);
    CHECK_EQ(s->graph->n_nodes, n + 9);
    check_list_form(s->graph);
    CHECK_STATUS(ggml_graph_find_concurrency(s->ctx, s->graph), GGC_OK);
    CHECK_EQ(s->graph->n_nodes, n + 18);
    check_list_form(s->graph);
}

//
// ggc_graph_check
//

static void check_bad(const struct ggml_cgraph * graph, const char * what) {
    char message[200] = "";
    test_case("graph check: %s", what);
    const clock_t start = clock();
    CHECK_STATUS(ggc_graph_check(graph, message, sizeof message), GGC_E_INVALID);
    CHECK_MSG(message[0] && strlen(message) < sizeof message, "no reason is given");
    CHECK_STATUS(ggc_graph_check(graph, NULL, 0), GGC_E_INVALID);
    char small[5] = "abcd";
    CHECK_STATUS(ggc_graph_check(graph, small, 4), GGC_E_INVALID);
    CHECK_MSG(strlen(small) < 4, "the message overflows");
    CHECK_MSG((double) (clock() - start) / CLOCKS_PER_SEC < 5, "it takes far too long");
}

// Memory that is mapped, and followed by memory that is not.
static char * page_before_a_hole(size_t * size) {
    *size = (size_t) sysconf(_SC_PAGESIZE);
    char * base = mmap(NULL, 2 * *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(base != MAP_FAILED);
    CHECK(munmap(base + *size, *size) == 0);
    return base;
}

static void bad_graph_pointers(void) {
    size_t size;
    char * page = page_before_a_hole(&size);
    check_bad(NULL, "NULL");
    check_bad((const struct ggml_cgraph *) (void *) 16, "address 16");
    check_bad((const struct ggml_cgraph *) (void *) (page + size), "unmapped");
    check_bad((const struct ggml_cgraph *) (void *) (page + size - 16), "cut off");
    check_bad((const struct ggml_cgraph *) (void *) UINTPTR_MAX, "the last address");
    munmap(page, size);
}

static void bad_counts(struct scene * s) {
    const int counts[] = {-1, INT32_MIN, INT32_MAX, SCENE_NODES + 1};
    struct ggml_cgraph graph;
    for (int i = 0; i < 4; i++) {
        graph = *s->graph;
        graph.n_nodes = counts[i];
        check_bad(&graph, "absurd n_nodes");
    }
    graph = *s->graph;
    graph.size = -5;
    check_bad(&graph, "negative size");
    memset(&graph, 0x5a, sizeof graph);
    check_bad(&graph, "garbage");
    memset(&graph, 0xff, sizeof graph);
    check_bad(&graph, "garbage of ones");
}

static void bad_arrays(struct scene * s) {
    size_t size;
    char * page = page_before_a_hole(&size);
    struct ggml_cgraph graph = *s->graph;
    graph.nodes = NULL;
    check_bad(&graph, "no nodes array");
    graph.nodes = (struct ggml_tensor **) (void *) (page + size);
    check_bad(&graph, "unmapped nodes array");
    graph.nodes = (struct ggml_tensor **) (void *) (page + size - 3 * sizeof(void *));
    memcpy(graph.nodes, s->graph->nodes, 3 * sizeof(void *));
    check_bad(&graph, "nodes array cut off");
    graph.n_nodes = 3;
    CHECK_STATUS(ggc_graph_check(&graph, NULL, 0), GGC_OK);
    munmap(page, size);
}

static void bad_node_pointers(struct scene * s) {
    size_t size;
    char * page = page_before_a_hole(&size);
    void * const pointers[] = {NULL,
                               (void *) 8,
                               page + size,
                               page + size - 24,
                               (char *) s->graph->nodes[0] + 4,
                               (void *) UINTPTR_MAX};
    struct ggml_tensor * const node = s->graph->nodes[7];
    struct ggml_tensor *const source = node->src[0], *const view = node->view_src;
    for (int i = 0; i < 6; i++) {
        s->graph->nodes[7] = pointers[i];
        check_bad(s->graph, "bad node");
        s->graph->nodes[7] = node;
        if (pointers[i]) {
            node->src[0] = pointers[i];
            check_bad(s->graph, "bad source");
            node->src[0] = source;
            node->view_src = pointers[i];
            check_bad(s->graph, "bad view source");
            node->view_src = view;
        }
    }
    node->view_src = node;
    check_bad(s->graph, "a view of itself");
    node->view_src = view;
    munmap(page, size);
}

static void bad_tensors(struct scene * s) {
    struct ggml_tensor * node = s->graph->nodes[5];
    const struct ggml_tensor good = *node;
    const int types[] = {-1, 4, 5, GGML_TYPE_COUNT, 1000, INT32_MAX, INT32_MIN};
    const int ops[] = {-1, GGML_OP_COUNT, 1000, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 7; i++) {
        node->type = (enum ggml_type) types[i];
        check_bad(s->graph, "unknown type");
        *node = good;
    }
    for (int i = 0; i < 5; i++) {
        node->op = (enum ggml_op) ops[i];
        check_bad(s->graph, "unknown operation");
        *node = good;
    }
    node->ne[1] = -3;
    check_bad(s->graph, "negative size");
    *node = good;
}

static void graph_check(struct scene * s) {
    towers(s);
    char message[100] = "something old";
    CHECK_STATUS(ggc_graph_check(s->graph, message, sizeof message), GGC_OK);
    bad_graph_pointers();
    bad_counts(s);
    bad_arrays(s);
    bad_node_pointers(s);
    bad_tensors(s);
    test_case("graph check: repaired");
    CHECK_STATUS(ggc_graph_check(s->graph, message, sizeof message), GGC_OK);
    struct ggml_cgraph view = ggml_graph_view(s->graph, 5, 20);
    CHECK_STATUS(ggc_graph_check(&view, message, sizeof message), GGC_OK);
}

//
// Random graphs
//

static void random_graphs(const struct test_options * options) {
    for (uint64_t i = options->first; i < options->first + options->iterations; i++) {
        test_case("random graph %llu", (unsigned long long) i);
        struct test_rng rng = test_rng(options->seed, i);
        struct random_graph g;
        random_graph_init(&g, test_rand(&rng), test_range(&rng, 1, i % 10 ? 12 : 60));
        if (i % 3 == 0) {
            random_graph_place(&g);
        }
        check_list_form(g.graph);
        check_graph_form(g.graph);
        random_graph_free(&g);
    }
}

#define CASE(name) {#name, name}
static const struct {
    const char * name;
    void (*run)(struct scene *);
} cases[] = {
    CASE(list_of_an_empty_graph),
    CASE(list_of_a_chain),
    CASE(list_of_towers),
    CASE(list_of_views),
    CASE(bad_arguments),
    CASE(graph_with_barriers),
    CASE(graph_without_need_of_barriers),
    CASE(empty_graph_gets_no_barrier),
    CASE(sorted_twice),
    CASE(graph_check),
};

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 600);
    const size_t n = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < n; i++) {
        struct scene scene;
        test_case("%s", cases[i].name);
        scene_init(&scene);
        cases[i].run(&scene);
        scene_free(&scene);
    }
    random_graphs(&options);
    return test_passed("%zu cases; %llu graphs with %llu nodes and %llu barriers", n,
                       (unsigned long long) total.graphs, (unsigned long long) total.nodes,
                       (unsigned long long) total.barriers);
}
