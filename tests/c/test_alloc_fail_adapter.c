// Every allocation of the adapter, the verifiers and the runners fails once, and all that follow: a
// clean status, nothing leaked. ggml itself ends the process where an allocation of its own fails,
// so of runners only the calls count that come from our library.
#define _GNU_SOURCE  // dl_iterate_phdr
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "support_ggml.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)

int main(void) {
    test_skip("needs the C library's malloc to itself: not under sanitizers, and glibc only");
}

#else

#    include <link.h>

#    include "dispatch/metal_order.h"
#    include "dispatch/metal_trace.h"
#    include "ggml/layout.h"

extern void * __libc_malloc(size_t size);
extern void * __libc_calloc(size_t n, size_t size);
extern void * __libc_realloc(void * ptr, size_t size);
extern void * __libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void * ptr);

static atomic_bool counting;
static atomic_long n_calls;
static long fail_from = -1, fail_to = -1;

// Where our library's code is; calls from elsewhere are let through.
static uintptr_t ours_begin, ours_end;

static int find_ours(struct dl_phdr_info * info, size_t size, void * arg) {
    (void) size;
    (void) arg;
    if (strstr(info->dlpi_name, "libggml-concurrent") == NULL) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) * part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X)) {
            ours_begin = info->dlpi_addr + part->p_vaddr;
            ours_end = ours_begin + part->p_memsz;
        }
    }
    return 1;
}

static bool counts(const void * caller) {
    return atomic_load(&counting) && (uintptr_t) caller - ours_begin < ours_end - ours_begin;
}

static bool fails(const void * caller) {
    if (!counts(caller)) {
        return false;
    }
    const long call = atomic_fetch_add(&n_calls, 1);
    return call >= fail_from && call < fail_to;
}

// What was given to our library and not freed yet. By pointer: the compiler turns a last call of
// free into a jump, and then it comes from our caller.
#    define MAX_LIVE 4096
static void * live_pointers[MAX_LIVE];
static long n_live;
static atomic_flag live_lock = ATOMIC_FLAG_INIT;

static void * live(void * ptr, const void * caller) {
    if (ptr == NULL || !counts(caller)) {
        return ptr;
    }
    while (atomic_flag_test_and_set(&live_lock)) {
    }
    if (n_live < MAX_LIVE) {
        live_pointers[n_live] = ptr;
    }
    n_live++;
    atomic_flag_clear(&live_lock);
    return ptr;
}

static void dead(void * ptr) {
    if (ptr == NULL || !atomic_load(&counting)) {
        return;
    }
    while (atomic_flag_test_and_set(&live_lock)) {
    }
    for (long i = n_live < MAX_LIVE ? n_live : MAX_LIVE; i-- > 0;) {
        if (live_pointers[i] == ptr) {
            live_pointers[i] = live_pointers[--n_live];
            break;
        }
    }
    atomic_flag_clear(&live_lock);
}

#    define CALLER __builtin_return_address(0)

void * malloc(size_t size) {
    return fails(CALLER) ? NULL : live(__libc_malloc(size), CALLER);
}

void * calloc(size_t n, size_t size) {
    return fails(CALLER) ? NULL : live(__libc_calloc(n, size), CALLER);
}

void * aligned_alloc(size_t alignment, size_t size) {
    return fails(CALLER) ? NULL : live(__libc_memalign(alignment, size), CALLER);
}

void * realloc(void * ptr, size_t size) {
    if (fails(CALLER)) {
        return NULL;
    }
    dead(ptr);
    return live(__libc_realloc(ptr, size), CALLER);
}

void free(void * ptr) {
    dead(ptr);
    __libc_free(ptr);
}

static struct scene s;
static struct ggc_graph_params params;
static struct ggc_graph_plan * watched;

static enum ggc_status plan_graph(void) {
    struct ggc_graph_plan * plan = NULL;
    const enum ggc_status status = ggc_graph_plan_new(s.graph, &params, &plan);
    CHECK((plan != NULL) == (status == GGC_OK));
    ggc_graph_plan_free(plan);
    return status;
}

static enum ggc_status list_graph(void) {
    int32_t list[1024], n = -7;
    const enum ggc_status status = ggml_graph_find_concurrency_list(s.graph, list, 1024, &n);
    CHECK(status == GGC_OK ? n > 0 : n == -7);
    return status;
}

static enum ggc_status update_plan(void) {
    enum ggc_change change = (enum ggc_change) - 1;
    s.graph->nodes[0]->flags ^= GGML_TENSOR_FLAG_PARAM;  // looks changed, plans the same
    const enum ggc_status status = ggc_graph_plan_update(watched, s.graph, &params, &change);
    if (status != GGC_OK) {
        s.graph->nodes[0]->flags ^= GGML_TENSOR_FLAG_PARAM;
    }
    CHECK(status == GGC_OK ? change != GGC_CHANGED : change == (enum ggc_change) - 1);
    return status;
}

static enum ggc_status verify_plan(void) {
    const struct ggc_units units = ggc_graph_plan_units(watched);
    const struct ggc_schedule schedule = ggc_plan_schedule(ggc_graph_plan_core(watched));
    const enum ggc_status status = ggc_verify_schedule(&units, &schedule, NULL);
    if (status != GGC_OK) {
        return status;
    }
    return ggc_verify_phases(&units, ggc_plan_phases(ggc_graph_plan_core(watched)), NULL);
}

// A runner made, used and freed: two streams of one thread each, so that there is no team of
// OpenMP's. Where memory fails while it is made, that is told; computing takes none.
static enum ggc_status run_graph(void) {
    struct ggc_runner_params runner_params;
    struct ggc_runner * runner = NULL;
    char message[200];
    ggc_runner_params_init(&runner_params);
    runner_params.always = true;
    runner_params.strategy = GGC_STRATEGY_LEVELS;
    runner_params.trace = true;
    runner_params.budget = 0;
    enum ggc_status status = ggc_runner_new(s.graph, &runner_params, &runner, message, 200);
    CHECK((runner != NULL) == (status == GGC_OK));
    if (status == GGC_OK) {
        const long before = atomic_load(&n_calls);
        CHECK_STATUS(ggc_runner_compute(runner), GGC_OK);
        CHECK_EQ(atomic_load(&n_calls), before);
    }
    ggc_runner_free(runner);
    return status;
}

static enum ggc_status prove_order(const struct ggml_cgraph * graph) {
    struct metal_trace trace;
    struct ggc_conflict race;
    enum ggc_status status = metal_trace_init(&trace, graph);
    if (status == GGC_OK) {
        status = metal_trace_verify(&trace, graph, &race);
        metal_trace_free(&trace);
    }
    return status;
}

// What a runner does for Metal: memory with gaps, shared, and an order that is proven.
static enum ggc_status sort_for_metal(void) {
    const struct message message = {NULL, 0};
    const struct layout_params layout_params = {.buft = ggml_backend_cpu_buffer_type(),
                                                .gaps = true};
    struct ggc_graph_params metal = params;
    struct ggc_graph_plan * plan;
    struct layout layout = {0};
    struct metal_order order = {0};
    metal.fuse = GGC_FUSE_METAL;
    metal.tracked = true;
    enum ggc_status status = ggc_graph_plan_new(s.graph, &metal, &plan);
    if (status != GGC_OK) {
        return status;
    }
    status = layout_init(&layout, s.graph, plan, &layout_params, &message);
    if (status == GGC_OK) {
        status = metal_order_init(&order, s.graph, plan, 1);
    }
    if (status == GGC_OK) {
        struct ggml_cgraph graph = *s.graph;
        graph.nodes = order.nodes;
        graph.n_nodes = order.n_nodes;
        status = prove_order(&graph);
    }
    metal_order_free(&order);
    layout_free(&layout);
    ggc_graph_plan_free(plan);
    return status;
}

static long run(enum ggc_status (*call)(void), long from, long to, enum ggc_status expected) {
    atomic_store(&n_calls, 0);
    n_live = 0;
    fail_from = from;
    fail_to = to;
    atomic_store(&counting, true);
    const enum ggc_status status = call();
    atomic_store(&counting, false);
    CHECK_STATUS(status, expected);
    CHECK(n_live <= MAX_LIVE);
    return n_live;
}

static long fail_everywhere(const char * name, enum ggc_status (*call)(void), bool keeps) {
    CHECK(run(call, -1, -1, GGC_OK) == 0 || keeps);
    const long n = atomic_load(&n_calls);
    CHECK(n > 0);
    for (long k = 0; k < n; k++) {
        for (int rest = 0; rest < 2; rest++) {
            test_case("%s: allocation %ld of %ld fails%s", name, k, n,
                      rest ? ", and the rest" : "");
            CHECK_EQ(run(call, k, rest ? n : k + 1, GGC_E_NOMEM), 0);
        }
    }
    run(call, -1, -1, GGC_OK);
    return 2 * n;
}

// A layer of projections, a cache in between, and enough nodes for arrays to grow.
static void make_graph(void) {
    struct ggml_tensor *x = vector(&s, 16), *cache = vector(&s, 64), *sum = NULL;
    for (int i = 0; i < 40; i++) {
        struct ggml_tensor * y = ggml_sqr(s.ctx, x);
        struct ggml_tensor * at = ggml_view_1d(s.ctx, cache, 16, (size_t) (i % 4) * 64);
        expand(&s, ggml_cpy(s.ctx, y, at));
        struct ggml_tensor * read = ggml_sqr(s.ctx, ggml_view_1d(s.ctx, cache, 16, 96));
        sum = sum == NULL ? read : ggml_add(s.ctx, sum, read);
        expand(&s, sum);
    }
}

int main(int argc, char ** argv) {
    test_begin(argc, argv, 1, 1);
    CHECK(dl_iterate_phdr(find_ours, NULL) == 1 && ours_begin < ours_end);
    scene_init(&s);
    make_graph();
    ggc_graph_params_init(&params);
    params.watch = true;
    CHECK_STATUS(ggc_graph_plan_new(s.graph, &params, &watched), GGC_OK);
    long n = fail_everywhere("a plan", plan_graph, false);
    n += fail_everywhere("a list", list_graph, false);
    n += fail_everywhere("an update", update_plan, true);  // takes over what the new units hold
    n += fail_everywhere("the verifiers", verify_plan, false);
    n += fail_everywhere("an order for Metal", sort_for_metal, false);
    ggc_graph_plan_free(watched);
    char message[300];
    if (ggc_load_backends(getenv("GGC_LIB_DIR"), message, sizeof message) == GGC_OK) {
        n += fail_everywhere("a runner", run_graph, false);
    } else {
        test_skip("a runner: no CPU backend module (%s); set GGC_LIB_DIR to its folder", message);
    }
    scene_free(&s);
    return test_passed("%ld allocation failures", n);
}

#endif
