// The simulated CUDA backend (sim_backend.h) in named cases: `sim_cases CASE [seed [iterations]]`,
// or all of them. tests/python/test_cuda_sim.py runs each in a process of its own.
#include <dlfcn.h>
#include <unistd.h>

#include "ggml-backend-impl.h"
#include "harness.h"
#include "runner_support.h"
#include "sim_backend.h"

static struct {
    void (*get_counters)(struct sim_counters * counters);
    uint64_t (*races)(void);
    const char * (*first_race)(void);
    uint64_t (*errors)(void);
    const char * (*first_error)(void);
    void (*reset)(void);
    void (*seed)(uint64_t seed);
    void (*fail)(const char * what, int n);
    void (*refuse_op)(const char * name);
    void (*waiting_op)(const char * name);
} sim;

static ggml_backend_dev_t cpu, cuda0, cuda1;
static struct test_options options;

static void load_sim(void) {
    char path[4096];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 40);
    path[n > 0 ? n : 0] = '\0';
    snprintf(strrchr(path, '/'), 40, "/libggc-ggml-cuda-sim.so");
    CHECK_MSG(ggml_backend_load(path) != NULL, "ggml cannot load %s", path);
    void * library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
#define LOAD(name)                                                \
    *(void **) (void *) &sim.name = dlsym(library, "sim_" #name); \
    CHECK(sim.name != NULL)
    LOAD(get_counters);
    LOAD(races);
    LOAD(first_race);
    LOAD(errors);
    LOAD(first_error);
    LOAD(reset);
    LOAD(seed);
    LOAD(fail);
    LOAD(refuse_op);
    LOAD(waiting_op);
#undef LOAD
    cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    cuda0 = ggml_backend_dev_by_name("CUDA0");
    cuda1 = ggml_backend_dev_by_name("CUDA1");
    CHECK(cpu != NULL && cuda0 != NULL && cuda1 != NULL);
}

static void clean(void) {
    CHECK_MSG(sim.races() == 0, "%s", sim.first_race());
    CHECK_MSG(sim.errors() == 0, "%s", sim.first_error());
}

static struct sim_counters counters(void) {
    struct sim_counters c;
    sim.get_counters(&c);
    return c;
}

static void * read_all(const struct harness * h) {
    void * bytes = test_alloc(harness_read(h, NULL) + 1);
    harness_read(h, bytes);
    return bytes;
}

// What harness_read gives after the CPU has computed the graph.
static void * expected_of(struct ggml_cgraph * graph) {
    struct harness * h = harness_new(graph, cpu, false);
    harness_restore(h);
    CHECK(harness_serial(h));
    void * bytes = read_all(h);
    harness_free(h);
    return bytes;
}

static void expect_bytes(const struct harness * h, const void * expected, const char * how) {
    void * found = read_all(h);
    CHECK_MSG(memcmp(found, expected, harness_read(h, NULL)) == 0, "%s: other bits than the CPU's",
              how);
    free(found);
}

//
// Random graphs and their plans
//

struct subject {
    struct random_graph random;
    void * expected;
    struct harness * harness;
    struct ggc_graph_plan * plan;
    uint32_t *node_begin, *nodes;
};

static void subject_init(struct subject * s, uint64_t number) {
    memset(s, 0, sizeof *s);
    test_case("random graph %llu", (unsigned long long) number);
    sim.reset();
    sim.seed(options.seed + number);
    random_graph_init(&s->random, options.seed * 1000003 + number, (uint32_t) (3 + number % 30));
    random_graph_restore(&s->random);
    s->expected = expected_of(s->random.graph);
    s->harness = harness_new(s->random.graph, cuda0, number % 2 == 1);
    harness_restore(s->harness);
}

static void subject_free(struct subject * s) {
    free(s->node_begin);
    free(s->nodes);
    ggc_graph_plan_free(s->plan);
    harness_free(s->harness);
    free(s->expected);
    random_graph_free(&s->random);
}

static struct harness_plan subject_plan(struct subject * s, uint32_t n_streams) {
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.plan.n_streams = n_streams;
    params.plan.strategy = GGC_STRATEGY_LEVELS;
    params.fuse = GGC_FUSE_NONE;
    CHECK_STATUS(ggc_graph_plan_new(s->random.graph, &params, &s->plan), GGC_OK);
    const struct ggc_schedule schedule = ggc_plan_schedule(ggc_graph_plan_core(s->plan));
    s->node_begin = test_alloc((schedule.n_units + 1) * sizeof(uint32_t));
    s->nodes = test_alloc((size_t) ggml_graph_n_nodes(s->random.graph) * sizeof(uint32_t) + 1);
    for (uint32_t u = 0; u < schedule.n_units; u++) {
        uint32_t n;
        const uint32_t * nodes = ggc_graph_plan_nodes(s->plan, u, &n);
        memcpy(s->nodes + s->node_begin[u], nodes, n * sizeof *nodes);
        s->node_begin[u + 1] = s->node_begin[u] + n;
    }
    return (struct harness_plan) {
        .n_units = schedule.n_units,
        .n_streams = schedule.n_streams,
        .order = schedule.order,
        .stream = schedule.stream,
        .wait_begin = schedule.wait_begin,
        .waits = schedule.waits,
        .node_begin = s->node_begin,
        .nodes = s->nodes,
        .left_out = UINT32_MAX,
    };
}

static void bits(void) {
    for (uint64_t i = 0; i < options.iterations; i++) {
        struct subject s;
        subject_init(&s, options.first + i);
        CHECK(harness_serial(s.harness));
        expect_bytes(s.harness, s.expected, "one stream");
        clean();
        CHECK(counters().kernels > 0 && counters().graphs == 1);
        subject_free(&s);
    }
}

static void plans(void) {
    for (uint64_t i = 0; i < options.iterations; i++) {
        struct subject s;
        subject_init(&s, options.first + i);
        const struct harness_plan plan = subject_plan(&s, (uint32_t) (2 + i % 3));
        harness_plan(s.harness, &plan);
        CHECK(harness_eager(s.harness));
        expect_bytes(s.harness, s.expected, "eager");
        CHECK(harness_capture(s.harness));
        for (int k = 0; k < 20; k++) {
            harness_restore(s.harness);
            CHECK(harness_replay(s.harness, true));
            expect_bytes(s.harness, s.expected, "replay");
        }
        clean();
        CHECK_EQ(counters().own_captures + counters().captures_inside, 0);
        subject_free(&s);
    }
}

// Whether the schedule without one of its waits is refuted, by the library's own verifier.
static bool is_needed(const struct subject * s, const struct harness_plan * plan, uint32_t wait) {
    struct ggc_schedule schedule = ggc_plan_schedule(ggc_graph_plan_core(s->plan));
    const struct ggc_units units = ggc_graph_plan_units(s->plan);
    const uint32_t n = plan->wait_begin[plan->n_units];
    uint32_t * begin = test_alloc((plan->n_units + 1) * sizeof *begin);
    uint32_t * waits = test_alloc((n + 1) * sizeof *waits);
    for (uint32_t u = 0; u <= plan->n_units; u++) {
        begin[u] = plan->wait_begin[u] - (plan->wait_begin[u] > wait);
    }
    for (uint32_t k = 0, to = 0; k < n; k++) {
        waits[to] = plan->waits[k];
        to += k != wait;
    }
    schedule.wait_begin = begin;
    schedule.waits = waits;
    const enum ggc_status status = ggc_verify_schedule(&units, &schedule, NULL);
    free(begin);
    free(waits);
    return status == GGC_E_RACE;
}

// A wait that is left out is a race where the verifier says so, eagerly and captured. The library's
// table of accesses may be the coarser one, so not quite all of them; and none that is none.
static void left_out(void) {
    unsigned n_needed = 0, n_seen = 0;
    for (uint64_t i = 0; i < options.iterations; i++) {
        struct subject s;
        subject_init(&s, options.first + i);
        struct harness_plan plan = subject_plan(&s, (uint32_t) (2 + i % 3));
        const uint32_t n = plan.wait_begin[plan.n_units];
        for (uint32_t wait = 0; wait < n && wait < 8; wait++) {
            const bool needed = is_needed(&s, &plan, wait);
            plan.left_out = wait;
            harness_plan(s.harness, &plan);
            sim.reset();
            harness_restore(s.harness);
            CHECK(harness_eager(s.harness));
            const bool eager = sim.races() > 0;
            CHECK(harness_capture(s.harness));
            sim.reset();
            harness_restore(s.harness);
            CHECK(harness_replay(s.harness, true));
            CHECK_EQ(sim.races() > 0, eager);
            CHECK_MSG(needed || !eager, "%s", sim.first_race());
            n_needed += needed;
            n_seen += eager;
        }
        subject_free(&s);
    }
    CHECK_MSG(n_needed > 0 && n_seen > n_needed * 9 / 10, "%u of %u races seen", n_seen, n_needed);
}

//
// Two instances by hand: y = a + b on one, z = y * b on the other
//

struct pair {
    struct ggml_context * ctx;
    struct ggml_cgraph *first, *second;
    struct ggml_tensor *a, *b, *y, *z;
    ggml_backend_buffer_t buffer;
    ggml_backend_t x[2];
    ggml_backend_event_t event;
};

#define N 256

static struct ggml_cgraph * one_node(struct ggml_context * ctx, struct ggml_tensor * t) {
    struct ggml_cgraph * graph = ggml_new_graph_custom(ctx, 4, false);
    t->flags |= GGML_TENSOR_FLAG_COMPUTE;
    ggml_graph_add_node(graph, t);
    return graph;
}

static void fill_tensor(struct ggml_tensor * t, float value) {
    float values[N];
    for (int i = 0; i < N; i++) {
        values[i] = value + (float) i;
    }
    ggml_backend_tensor_set(t, values, 0, sizeof values);
}

static void pair_init(struct pair * p) {
    memset(p, 0, sizeof *p);
    sim.reset();
    p->ctx = ggml_init((struct ggml_init_params) {.mem_size = 1 << 20, .no_alloc = true});
    p->a = ggml_new_tensor_1d(p->ctx, GGML_TYPE_F32, N);
    p->b = ggml_new_tensor_1d(p->ctx, GGML_TYPE_F32, N);
    p->y = ggml_add(p->ctx, p->a, p->b);
    p->z = ggml_mul(p->ctx, p->y, p->b);
    p->first = one_node(p->ctx, p->y);
    p->second = one_node(p->ctx, p->z);
    p->buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(p->ctx, ggml_backend_dev_buffer_type(cuda0));
    CHECK(p->buffer != NULL);
    CHECK(!ggml_backend_buffer_is_host(p->buffer));
    fill_tensor(p->a, 1);
    fill_tensor(p->b, 2);
    p->x[0] = ggml_backend_dev_init(cuda0, NULL);
    p->x[1] = ggml_backend_dev_init(cuda0, NULL);
    p->event = ggml_backend_event_new(cuda0);
    CHECK(p->x[0] != NULL && p->x[1] != NULL && p->event != NULL);
}

static void pair_free(struct pair * p) {
    ggml_backend_event_free(p->event);
    ggml_backend_free(p->x[0]);
    ggml_backend_free(p->x[1]);
    ggml_backend_buffer_free(p->buffer);
    ggml_free(p->ctx);
}

static void compute_async(struct pair * p, int instance, struct ggml_cgraph * graph) {
    CHECK_EQ(ggml_backend_graph_compute_async(p->x[instance], graph), GGML_STATUS_SUCCESS);
}

static void pass_on(struct pair * p) {
    ggml_backend_event_record(p->event, p->x[0]);
    ggml_backend_event_wait(p->x[1], p->event);
}

static void synchronise(struct pair * p) {
    ggml_backend_synchronize(p->x[0]);
    ggml_backend_synchronize(p->x[1]);
}

static void expect_result(const struct pair * p, float a) {
    float values[N];
    ggml_backend_tensor_get(p->z, values, 0, sizeof values);
    for (int i = 0; i < N; i++) {
        const float expected = (a + (float) i + 2 + (float) i) * (2 + (float) i);
        CHECK_MSG(values[i] == expected, "z[%d] is %g, not %g", i, (double) values[i],
                  (double) expected);
    }
}

static void events(void) {
    struct pair p;
    pair_init(&p);
    compute_async(&p, 0, p.first);
    pass_on(&p);
    compute_async(&p, 1, p.second);
    synchronise(&p);
    expect_result(&p, 1);
    clean();
    compute_async(&p, 0, p.first);  // while nothing keeps it from z, which reads y
    compute_async(&p, 1, p.second);
    synchronise(&p);
    CHECK_EQ(sim.races(), 1);
    CHECK(strstr(sim.first_race(), "ADD") != NULL && strstr(sim.first_race(), "MUL") != NULL);
    CHECK_EQ(sim.errors(), 0);
    pair_free(&p);
}

static void transfers(void) {
    struct pair p;
    float in[N], out[N];
    pair_init(&p);
    for (int i = 0; i < N; i++) {
        in[i] = 10 + (float) i;
    }
    ggml_backend_tensor_set_async(p.x[0], p.a, in, 0, sizeof in);
    compute_async(&p, 0, p.first);
    compute_async(&p, 0, p.second);
    ggml_backend_tensor_get_async(p.x[0], p.z, out, 0, sizeof out);
    ggml_backend_synchronize(p.x[0]);
    expect_result(&p, 10);
    for (int i = 0; i < N; i++) {
        CHECK(out[i] == (12 + 2 * (float) i) * (2 + (float) i));
    }
    clean();
    compute_async(&p, 0, p.first);
    ggml_backend_tensor_get(p.y, out, 0, sizeof out);  // without waiting for x[0]
    ggml_backend_synchronize(p.x[0]);
    CHECK_EQ(sim.races(), 1);
    pair_free(&p);
}

static void copies_between_instances(void) {
    struct pair p;
    pair_init(&p);
    compute_async(&p, 0, p.first);
    ggml_backend_tensor_copy_async(p.x[0], p.x[1], p.y, p.z);
    ggml_backend_tensor_copy_async(p.x[1], p.x[1], p.z, p.a);  // follows the copy
    synchronise(&p);
    clean();
    CHECK_EQ(counters().copies, 2);
    ggml_backend_buffer_clear(p.buffer, 0);
    ggml_backend_tensor_memset(p.a, 1, 0, 16);
    ggml_backend_tensor_copy(p.a, p.b);
    clean();
    pair_free(&p);
}

static void arguments_by_value(void) {
    struct pair p;
    pair_init(&p);
    fake_hold(true);
    compute_async(&p, 0, p.first);
    compute_async(&p, 0, p.second);
    const struct ggml_tensor y = *p.y, z = *p.z;
    p.y->data = p.z->data = p.y->src[0] = p.z->src[1] = NULL;
    p.y->op = p.z->op = GGML_OP_SUB;
    fake_hold(false);
    ggml_backend_synchronize(p.x[0]);
    *p.y = y;
    *p.z = z;
    expect_result(&p, 1);
    clean();
    pair_free(&p);
}

// Instances order their own kernels; a replay of one instance's kernels beside new ones does not.
static void scratch(void) {
    struct subject s;
    for (uint64_t number = 0;; number++) {  // whose replay takes a while
        subject_init(&s, number);
        if (ggml_graph_n_nodes(s.random.graph) > 20) {
            break;
        }
        subject_free(&s);
    }
    const struct harness_plan plan = subject_plan(&s, 2);
    harness_plan(s.harness, &plan);
    CHECK(harness_capture(s.harness));
    struct ggml_context * ctx =
        ggml_init((struct ggml_init_params) {.mem_size = 1 << 20, .no_alloc = true});
    struct ggml_tensor * a = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, N);
    struct ggml_cgraph * other = one_node(ctx, ggml_sqr(ctx, a));
    ggml_backend_buffer_t buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(ctx, ggml_backend_dev_buffer_type(cuda0));
    fill_tensor(a, 1);
    sim.reset();
    CHECK(harness_replay(s.harness, true));
    CHECK_EQ(ggml_backend_graph_compute(harness_instance(s.harness, 0), other),
             GGML_STATUS_SUCCESS);
    clean();
    CHECK(harness_replay(s.harness, false));
    CHECK_EQ(ggml_backend_graph_compute(harness_instance(s.harness, 0), other),
             GGML_STATUS_SUCCESS);
    fake_idle();
    CHECK(sim.races() > 0);
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    subject_free(&s);
}

static void own_graphs(void) {
    struct pair p;
    pair_init(&p);
    for (int i = 0; i < 4; i++) {
        fill_tensor(p.a, (float) i);  // contents do not count as a change
        compute_async(&p, 0, p.first);
        compute_async(&p, 0, p.second);
        ggml_backend_synchronize(p.x[0]);
        expect_result(&p, (float) i);
    }
    CHECK_EQ(counters().own_captures, 2);
    CHECK_EQ(counters().own_launches, 6);
    clean();
    p.y->op_params[3]++;
    compute_async(&p, 0, p.first);
    CHECK_EQ(counters().own_launches, 6);
    ggml_backend_synchronize(p.x[0]);
    pair_free(&p);
}

static void own_graphs_by_uid(void) {
    struct pair p;
    pair_init(&p);
    p.first->uid = 77;
    compute_async(&p, 0, p.first);
    p.y->op_params[3]++;  // does not count
    compute_async(&p, 0, p.first);
    ggml_backend_synchronize(p.x[0]);
    CHECK_EQ(counters().own_captures, 1);
    clean();
    ggml_graph_add_node(p.first, p.z);
    compute_async(&p, 0, p.first);
    CHECK_EQ(sim.errors(), 1);
    ggml_backend_synchronize(p.x[0]);
    pair_free(&p);
}

static void own_graphs_inside_a_capture(void) {
    struct subject s;
    subject_init(&s, 1);
    struct harness_plan plan = subject_plan(&s, 2);
    plan.recognisable = true;
    harness_plan(s.harness, &plan);
    CHECK(harness_eager(s.harness));
    clean();
    CHECK(!harness_capture(s.harness));
    CHECK(counters().captures_inside > 0);
    CHECK(strstr(sim.first_error(), "ggml-cuda would abort") != NULL);
    plan.recognisable = false;
    harness_plan(s.harness, &plan);
    sim.reset();
    CHECK(harness_eager(s.harness) && harness_capture(s.harness) && harness_capture(s.harness));
    clean();
    subject_free(&s);
}

static void waiting_ops(void) {
    struct pair p;
    CUcontext context;
    CUstream stream;
    CUgraph graph;
    pair_init(&p);
    sim.waiting_op("ADD");
    for (int i = 0; i < 3; i++) {
        compute_async(&p, 0, p.first);
    }
    CHECK_EQ(counters().own_captures, 0);
    clean();
    CHECK(cuCtxGetCurrent(&context) == 0 && context != NULL);  // that ggml has made current
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING) == 0);
    CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED) == 0);
    CHECK(cuEventRecord(p.event->context, stream) == 0);
    ggml_backend_event_wait(p.x[0], p.event);
    CHECK_EQ(ggml_backend_graph_compute_async(p.x[0], p.first), GGML_STATUS_FAILED);
    CHECK(strstr(sim.first_error(), "cuStreamSynchronize") != NULL);
    CHECK(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    CHECK(cuStreamDestroy_v2(stream) == 0);
    pair_free(&p);
}

static void faults(void) {
    struct pair p;
    pair_init(&p);
    sim.fail("init", 2);
    ggml_backend_t backend = ggml_backend_dev_init(cuda0, NULL);
    CHECK(backend != NULL);
    ggml_backend_free(backend);
    CHECK(ggml_backend_dev_init(cuda0, NULL) == NULL);
    sim.fail("event", 1);
    CHECK(ggml_backend_event_new(cuda0) == NULL);
    sim.fail("buffer", -1);
    CHECK(ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(cuda0), 64) == NULL);
    CHECK(ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(cuda0), 64) == NULL);
    sim.fail("compute", 1);
    CHECK_EQ(ggml_backend_graph_compute(p.x[0], p.first), GGML_STATUS_FAILED);
    CHECK_EQ(ggml_backend_graph_compute(p.x[0], p.first), GGML_STATUS_SUCCESS);
    sim.refuse_op("MUL");
    CHECK(!ggml_backend_supports_op(p.x[0], p.z) && ggml_backend_supports_op(p.x[0], p.y));
    clean();
    pair_free(&p);
}

static void devices(void) {
    struct pair p;
    struct ggml_backend_dev_props props;
    CUdevice device = -1;
    size_t before, after, total;
    pair_init(&p);
    ggml_backend_dev_get_props(cuda1, &props);
    CHECK(props.type == GGML_BACKEND_DEVICE_TYPE_GPU && props.caps.async && props.caps.events);
    CHECK(cuDeviceGetByPCIBusId(&device, props.device_id) == 0 && device == 1);
    ggml_backend_dev_memory(cuda1, &before, &total);
    ggml_backend_buffer_t buffer =
        ggml_backend_buft_alloc_buffer(ggml_backend_dev_buffer_type(cuda1), 1 << 20);
    ggml_backend_dev_memory(cuda1, &after, &total);
    CHECK_EQ(before - after, 1 << 20);
    ggml_backend_buffer_free(buffer);
    CHECK(!ggml_backend_dev_supports_buft(cuda1, ggml_backend_dev_buffer_type(cuda0)));
    ggml_backend_t other = ggml_backend_dev_init(cuda1, NULL);
    clean();
    CHECK_EQ(ggml_backend_graph_compute(other, p.first), GGML_STATUS_FAILED);
    CHECK(strstr(sim.first_error(), "not in the memory of CUDA1") != NULL);
    ggml_backend_free(other);
    pair_free(&p);
}

//
// SET_ROWS into one cache, by two instances that do not know of each other
//

static uint64_t races_of_rows(const int64_t * first_rows, const int64_t * second_rows) {
    sim.reset();
    struct ggml_context * ctx =
        ggml_init((struct ggml_init_params) {.mem_size = 1 << 20, .no_alloc = true});
    struct ggml_tensor * cache = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, N, 8);
    struct ggml_cgraph * graphs[2];
    struct ggml_tensor *values[2], *ids[2];
    ggml_backend_t x[2];
    for (int i = 0; i < 2; i++) {
        values[i] = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, N, 2);
        ids[i] = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, 2);
        graphs[i] = one_node(ctx, ggml_set_rows(ctx, cache, values[i], ids[i]));
    }
    ggml_backend_buffer_t buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(ctx, ggml_backend_dev_buffer_type(cuda0));
    ggml_backend_buffer_clear(buffer, 0);
    for (int i = 0; i < 2; i++) {
        ggml_backend_tensor_set(ids[i], i == 0 ? first_rows : second_rows, 0, 2 * sizeof(int64_t));
        x[i] = ggml_backend_dev_init(cuda0, NULL);
        CHECK_EQ(ggml_backend_graph_compute_async(x[i], graphs[i]), GGML_STATUS_SUCCESS);
    }
    for (int i = 0; i < 2; i++) {
        ggml_backend_synchronize(x[i]);
        ggml_backend_free(x[i]);
    }
    const uint64_t races = sim.races();
    CHECK_MSG(sim.errors() == 0, "%s", sim.first_error());
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    return races;
}

static void rows(void) {
    CHECK_EQ(races_of_rows((int64_t[]) {0, 5}, (int64_t[]) {1, 7}), 0);
    CHECK_EQ(races_of_rows((int64_t[]) {0, 5}, (int64_t[]) {5, 7}), 1);
}

static const struct {
    const char * name;
    void (*run)(void);
    uint64_t iterations;
} cases[] = {
    {"bits", bits, 40},
    {"plans", plans, 25},
    {"left_out", left_out, 20},
    {"events", events, 0},
    {"transfers", transfers, 0},
    {"copies_between_instances", copies_between_instances, 0},
    {"arguments_by_value", arguments_by_value, 0},
    {"scratch", scratch, 0},
    {"own_graphs", own_graphs, 0},
    {"own_graphs_by_uid", own_graphs_by_uid, 0},
    {"own_graphs_inside_a_capture", own_graphs_inside_a_capture, 0},
    {"waiting_ops", waiting_ops, 0},
    {"faults", faults, 0},
    {"devices", devices, 0},
    {"rows", rows, 0},
};

static void expect_nothing_left(void) {
    const struct sim_counters left = counters();
    CHECK_EQ(left.instances + left.events + left.buffers, 0);
    static const char * const kinds[] = {"stream", "event", "graph", "exec", "context", "memory"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        CHECK_MSG(fake_live(kinds[i]) == 0, "a %s is left", kinds[i]);
    }
}

int main(int argc, char ** argv) {
    const char * wanted = argc > 1 ? argv[1] : "all";
    unsigned n_run = 0;
    need_cpu_backend();
    load_sim();
    fake_delay(10);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(wanted, "all") == 0 || strcmp(wanted, cases[i].name) == 0) {
            options = test_begin(argc > 1 ? argc - 1 : argc, argc > 1 ? argv + 1 : argv, 1,
                                 cases[i].iterations);
            test_case("%s", cases[i].name);
            cases[i].run();
            expect_nothing_left();
            n_run++;
        }
    }
    CHECK_MSG(n_run > 0, "no case %s", wanted);
    return test_passed("%u cases", n_run);
}
