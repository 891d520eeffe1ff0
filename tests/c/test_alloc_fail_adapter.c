// Every allocation of the adapter and the verifier fails once, and all that follow: a clean status,
// nothing leaked. ggml itself ends the process where an allocation of its own fails, so what calls
// it for memory (layouts, runners) cannot be tried like this.
#include <stdatomic.h>
#include <stdlib.h>

#include "support_ggml.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)

int main(void) {
    test_skip("needs the C library's malloc to itself: not under sanitizers, and glibc only");
}

#else

extern void * __libc_malloc(size_t size);
extern void * __libc_calloc(size_t n, size_t size);
extern void * __libc_realloc(void * ptr, size_t size);
extern void __libc_free(void * ptr);

static bool counting;
static long n_calls, fail_from = -1, fail_to = -1, n_live;

static bool fails(void) {
    if (!counting) {
        return false;
    }
    const long call = n_calls++;
    return call >= fail_from && call < fail_to;
}

static void * live(void * ptr) {
    n_live += counting && ptr != NULL;
    return ptr;
}

void * malloc(size_t size) {
    return fails() ? NULL : live(__libc_malloc(size));
}

void * calloc(size_t n, size_t size) {
    return fails() ? NULL : live(__libc_calloc(n, size));
}

void * realloc(void * ptr, size_t size) {
    if (fails()) {
        return NULL;
    }
    n_live -= counting && ptr != NULL;
    return live(__libc_realloc(ptr, size));
}

void free(void * ptr) {
    n_live -= counting && ptr != NULL;
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

static long run(enum ggc_status (*call)(void), long from, long to, enum ggc_status expected) {
    n_calls = n_live = 0;
    fail_from = from;
    fail_to = to;
    counting = true;
    const enum ggc_status status = call();
    counting = false;
    CHECK_STATUS(status, expected);
    return n_live;
}

static long fail_everywhere(const char * name, enum ggc_status (*call)(void), bool keeps) {
    CHECK(run(call, -1, -1, GGC_OK) == 0 || keeps);
    const long n = n_calls;
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
    scene_init(&s);
    make_graph();
    ggc_graph_params_init(&params);
    params.watch = true;
    CHECK_STATUS(ggc_graph_plan_new(s.graph, &params, &watched), GGC_OK);
    long n = fail_everywhere("a plan", plan_graph, false);
    n += fail_everywhere("a list", list_graph, false);
    n += fail_everywhere("an update", update_plan, true);  // takes over what the new units hold
    n += fail_everywhere("the verifiers", verify_plan, false);
    ggc_graph_plan_free(watched);
    scene_free(&s);
    return test_passed("%ld allocation failures", n);
}

#endif
