// Every entry of fusions.def put to the test: a graph made from the entry is one run of nodes; with
// an edge missing, a foreign node inside or its end cut off, it is not.
#include "support_ggml.h"

struct edge {
    int slot;
    int back;
    bool view;
};

#define MAX_STEPS 11
enum { ANY = -1, HEAD = 1, TAIL = 2, NVFP4 = 4, PLACED = 8, GREEDY = 16 };

struct step {
    enum ggml_op op;
    struct edge edges[2];
};

struct entry {
    const char * name;
    enum ggc_fuse fuse;
    int flags, n_steps;
    struct step steps[MAX_STEPS];
};

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
#define ENTRY(fuse, name, flags, ...) \
    {name, fuse, flags, sizeof((struct step[]) {__VA_ARGS__}) / sizeof(struct step), {__VA_ARGS__}},
#define CPU(name, flags, ...) ENTRY(GGC_FUSE_CPU, name, flags, __VA_ARGS__)
#define CUDA(name, flags, ...) ENTRY(GGC_FUSE_CUDA, name, flags, __VA_ARGS__)
#define METAL(name, flags, ...) ENTRY(GGC_FUSE_METAL, name, flags, __VA_ARGS__)

static const struct entry entries[] = {
#include "ggml/fusions.def"
};

//
// From an entry to a graph: nodes that are nothing but an operation and sources, between two others
//

struct variant {
    int without_step, without_edge;  // which edge is missing, -1: none
    bool shown;                      // or not missing, but a view of what is wanted
    int inside;                      // before which step something stands, -1: before none
    enum ggml_op what;               // GGML_OP_VIEW or a foreign operation
    bool empty;                      // without elements
    bool any_is_second;              // where any source will do, it is source 1
    bool without_tail;
};

static const struct variant whole = {.without_step = -1, .without_edge = -1, .inside = -1};

struct sketch {
    struct scene scene;
    struct ggml_tensor * steps[MAX_STEPS];
    int at[MAX_STEPS];  // index of each step's node
    int first, end;     // of the run, if it is one
};

static struct ggml_tensor * add(struct sketch * k, enum ggml_op op, struct ggml_tensor * source) {
    struct ggml_tensor * t = vector(&k->scene, 8);
    t->op = op;
    t->flags |= GGML_TENSOR_FLAG_COMPUTE;
    t->src[0] = source;
    k->scene.graph->nodes[k->scene.graph->n_nodes++] = t;
    return t;
}

static struct ggml_tensor * leaf(struct sketch * k) {
    return vector(&k->scene, 8);
}

// The sources of a step, views of others among them; those come before the step.
static void add_sources(struct sketch * k, const struct entry * e, int i, const struct variant * v,
                        struct ggml_tensor ** sources) {
    sources[0] = leaf(k);
    sources[1] = leaf(k);
    int any = v->any_is_second;
    for (int n = 0; n < 2 && e->steps[i].edges[n].back; n++) {
        const struct edge * edge = &e->steps[i].edges[n];
        const int slot = edge->slot == ANY ? any : edge->slot;
        any = edge->slot == ANY ? 1 - any : any;
        const bool changed = v->without_step == i && v->without_edge == n;
        if (changed && !v->shown) {
            continue;
        }
        struct ggml_tensor * from = k->steps[i - edge->back];
        sources[slot] = edge->view || changed ? add(k, GGML_OP_RESHAPE, from) : from;
    }
}

static void add_step(struct sketch * k, const struct entry * e, int i, const struct variant * v) {
    struct ggml_tensor * sources[2];
    add_sources(k, e, i, v, sources);
    if (v->inside == i) {
        add(k, v->what, leaf(k))->ne[2] = v->empty ? 0 : 1;
    }
    k->at[i] = k->scene.graph->n_nodes;
    k->steps[i] = add(k, e->steps[i].op, sources[0]);
    k->steps[i]->src[1] = sources[1];
}

static void sketch_init(struct sketch * k, const struct entry * e, const struct variant * v) {
    memset(k, 0, sizeof *k);
    scene_init(&k->scene);
    add(k, GGML_OP_CONT, leaf(k));
    k->first = k->scene.graph->n_nodes;
    struct ggml_tensor * head = e->flags & HEAD ? add(k, GGML_OP_RESHAPE, leaf(k)) : NULL;
    for (int i = 0; i < e->n_steps; i++) {
        add_step(k, e, i, v);
    }
    if (head && v->without_step != 0) {
        k->steps[1]->src[0] = head;
    }
    for (int i = 0; i < e->n_steps && e->flags & NVFP4; i++) {
        if (e->steps[i].op == GGML_OP_MUL_MAT || e->steps[i].op == GGML_OP_MUL_MAT_ID) {
            k->steps[i]->src[0]->type = GGML_TYPE_NVFP4;
        }
    }
    if (e->flags & TAIL && !v->without_tail) {
        add(k, GGML_OP_RESHAPE, k->steps[e->n_steps - 1]);
    }
    k->end = k->scene.graph->n_nodes;
    add(k, GGML_OP_CONT, leaf(k));
}

static uint64_t n_sketches;

// How many nodes from the first on stay together.
static int run_of(const struct entry * e, const struct variant * v, int * size) {
    struct sketch k;
    sketch_init(&k, e, v);
    const int run = run_at(k.scene.graph, k.first, e->fuse);
    CHECK(run >= 1 && k.first + run <= k.end);
    CHECK_EQ(run_at(k.scene.graph, 0, e->fuse), 1);
    CHECK_EQ(run_at(k.scene.graph, k.end, e->fuse), 1);
    CHECK_EQ(run_at(k.scene.graph, k.first, GGC_FUSE_NONE), 1);
    *size = k.end - k.first;
    scene_free(&k.scene);
    n_sketches++;
    return run;
}

//
// What is one run
//

static void together(const struct entry * e, struct variant v, const char * what) {
    for (int second = 0; second < 2; second++) {
        v.any_is_second = second;
        int size;
        const int run = run_of(e, &v, &size);
        CHECK_MSG(run == size, "'%s', %s: a run of %d nodes, not %d", e->name, what, run, size);
    }
}

static void apart(const struct entry * e, struct variant v, const char * what, int which) {
    for (int second = 0; second < 2; second++) {
        v.any_is_second = second;
        int size;
        const int run = run_of(e, &v, &size);
        CHECK_MSG(run < size, "'%s', %s %d: still one run", e->name, what, which);
    }
}

static void idle_nodes_inside(const struct entry * e) {
    for (int i = 2; i < 2 * e->n_steps; i++) {
        struct variant v = whole;
        v.inside = i / 2;
        v.empty = i % 2;
        v.what = v.empty ? GGML_OP_CONT : GGML_OP_VIEW;
        if (e->fuse == GGC_FUSE_CPU) {
            apart(e, v, "a node without work before step", i / 2);
        } else {
            together(e, v, "with a node without work inside");
        }
    }
}

static void others_inside(const struct entry * e) {
    for (int i = e->flags & HEAD ? 0 : 1; i < e->n_steps; i++) {
        struct variant v = whole;
        v.inside = i;
        v.what = GGML_OP_CONT;
        apart(e, v, "another node before step", i);
    }
}

static void edges_missing(const struct entry * e) {
    for (int i = 0; i < e->n_steps; i++) {
        for (int n = 0; n < 2 && e->steps[i].edges[n].back; n++) {
            struct variant v = whole;
            v.without_step = i;
            v.without_edge = n;
            apart(e, v, "without an edge of step", i);
            v.shown = true;
            if (!e->steps[i].edges[n].view) {
                apart(e, v, "with a view at an edge of step", i);
            }
        }
    }
    struct variant v = whole;
    v.without_step = 0;
    if (e->flags & HEAD) {
        apart(e, v, "without its head", 0);
    }
    v = whole;
    v.without_tail = true;
    if (e->flags & TAIL) {
        apart(e, v, "without its tail", 0);
    }
}

// A node that is not to be computed, or has no elements, is no step.
static void idle_steps(const struct entry * e) {
    for (int i = 0; i < e->n_steps; i++) {
        for (int empty = 0; empty < 2; empty++) {
            struct sketch k;
            sketch_init(&k, e, &whole);
            k.steps[i]->ne[1] = empty ? 0 : k.steps[i]->ne[1];
            k.steps[i]->flags &= empty ? ~0 : ~GGML_TENSOR_FLAG_COMPUTE;
            CHECK(run_at(k.scene.graph, k.first, e->fuse) < k.end - k.first);
            scene_free(&k.scene);
        }
    }
}

static void other_weights(const struct entry * e) {
    if (e->flags & NVFP4) {
        struct entry plain = *e;
        plain.flags = 0;
        apart(&plain, whole, "with weights of another type", 0);
    }
}

// A graph that ends inside of the run is not read beyond its end.
static void cut_off(const struct entry * e) {
    struct sketch k;
    sketch_init(&k, e, &whole);
    for (int n = k.first + 1; n <= k.end; n++) {
        k.scene.graph->n_nodes = n;
        const size_t size = (size_t) n * sizeof(struct ggml_tensor *);
        struct ggml_cgraph cut = *k.scene.graph;
        cut.nodes = test_alloc(size);  // so that a sanitizer sees its end
        memcpy(cut.nodes, k.scene.graph->nodes, size);
        const int run = run_at(&cut, k.first, e->fuse);
        CHECK(k.first + run <= n);
        CHECK((k.first + run == k.end) == (n == k.end));
        free(cut.nodes);
    }
    scene_free(&k.scene);
}

// Where a run was cut in two and the pieces meet, they must be told apart: also when one of them
// ends with a node without work.
static void pieces_meet(const struct entry * e) {
    struct sketch k;
    sketch_init(&k, e, &whole);
    for (int i = 1; i < e->n_steps; i++) {
        CHECK_MSG(might_fuse(k.steps[i - 1], k.steps[i], e->fuse), "'%s', before step %d", e->name,
                  i);
        CHECK(!might_fuse(k.steps[i - 1], k.steps[i], GGC_FUSE_NONE));
    }
    for (int i = k.first + 1; i < k.end && e->fuse != GGC_FUSE_CPU; i++) {
        struct ggml_tensor ** nodes = k.scene.graph->nodes;
        CHECK_MSG(might_fuse(nodes[i - 1], nodes[i], e->fuse), "'%s', node %d", e->name, i);
    }
    CHECK_EQ(might_fuse(k.scene.graph->nodes[0], k.steps[0], e->fuse), (e->flags & HEAD) != 0);
    scene_free(&k.scene);
}

// The same through a plan: one unit, whose accesses are those of the nodes that compute.
static void one_unit(const struct entry * e) {
    struct sketch k;
    sketch_init(&k, e, &whole);
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.fuse = e->fuse;
    CHECK_STATUS(ggc_graph_plan_new(k.scene.graph, &params, &k.scene.plan), GGC_OK);
    const struct ggc_units units = ggc_graph_plan_units(k.scene.plan);
    const uint32_t * unit_of_node = ggc_graph_plan_unit_of_node(k.scene.plan);
    const uint32_t unit = unit_of_node[k.first];
    uint32_t n, writes = 0;
    const uint32_t * nodes = ggc_graph_plan_nodes(k.scene.plan, unit, &n);
    CHECK_EQ(units.n_units, 3);
    CHECK_EQ(n, k.end - k.first);
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQ(nodes[i], (uint32_t) k.first + i);
        CHECK_EQ(unit_of_node[nodes[i]], unit);
        CHECK_EQ(ggc_graph_plan_node_phases(k.scene.plan)[nodes[i]],
                 ggc_graph_plan_node_phases(k.scene.plan)[k.first]);
    }
    for (uint32_t a = units.access_begin[unit]; a < units.access_begin[unit + 1]; a++) {
        writes += units.accesses[a].mode == GGC_WRITE;
    }
    CHECK_EQ(writes, e->n_steps);
    scene_free(&k.scene);
}

// For tests/python/test_fusions_vendored.py.
static int list_entries(void) {
    static const char * const backends[] = {
        [GGC_FUSE_CPU] = "cpu", [GGC_FUSE_CUDA] = "cuda", [GGC_FUSE_METAL] = "metal"};
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        printf("%s:", backends[entries[i].fuse]);
        for (int k = 0; k < entries[i].n_steps; k++) {
            printf(" %s", ggml_op_name(entries[i].steps[k].op));
        }
        printf("\n");
    }
    return 0;
}

int main(int argc, char ** argv) {
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        return list_entries();
    }
    test_begin(argc, argv, 0, 0);
    int n_entries[GGC_FUSE_METAL + 1] = {0};
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        const struct entry * e = &entries[i];
        test_case("fuse %d, '%s'", e->fuse, e->name);
        n_entries[e->fuse]++;
        together(e, whole, "as it is");
        idle_nodes_inside(e);
        others_inside(e);
        edges_missing(e);
        idle_steps(e);
        other_weights(e);
        cut_off(e);
        pieces_meet(e);
        one_unit(e);
    }
    return test_passed("entries: %d of ggml-cpu, %d of ggml-cuda, %d of ggml-metal; %llu graphs",
                       n_entries[GGC_FUSE_CPU], n_entries[GGC_FUSE_CUDA], n_entries[GGC_FUSE_METAL],
                       (unsigned long long) n_sketches);
}
