// The drop-in inside a ggml that computes random graphs through its scheduler, bit for bit; taken
// hold of and let go while others compute; forked. That ggml is our own, which it holds for tests
// alone. Needs the CPU backend module, as test_runner does.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner_support.h"

#include "ggml-backend-impl.h"
#include "ggml-concurrent-dropin.h"

static void attach(void) {
    char message[1000] = "";
    uint32_t n = 0;
    const enum ggc_status status = ggc_dropin_attach(&n, message, sizeof message);
    CHECK_MSG(status == GGC_OK && n == 1, "%s (%u): %s", ggc_status_string(status), n, message);
    CHECK_MSG(strstr(message, "is run concurrently on CPU"), "%s", message);
}

// The number after `"name": ` in what the drop-in tells of its only device.
static unsigned long long told(const char * name) {
    char text[4000], key[40];
    CHECK(ggc_dropin_report(text, sizeof text) < sizeof text);
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char * at = strstr(text, key);
    CHECK_MSG(at != NULL, "no %s in %s", name, text);
    return strtoull(at + strlen(key), NULL, 10);
}

static void computes(struct random_graph * g, const struct random_graph * reference,
                     uint32_t n_threads, int times) {
    const struct ggc_runner_params params = scheduled_params(n_threads);
    struct ggc_runner * runner = NULL;
    new_runner(g->graph, &params, &runner);
    for (int i = 0; i < times; i++) {
        random_graph_restore(g);
        compute(runner);
        same_results(reference, g);
    }
    ggc_runner_free(runner);
}

static void random_run(uint64_t seed, uint64_t index, uint32_t most_threads) {
    struct test_rng rng = test_rng(seed, index);
    struct random_graph reference, g;
    const uint64_t graph_seed = test_rand(&rng);
    const uint32_t n_steps = test_range(&rng, 8, 40);
    reference_init(&reference, graph_seed, n_steps);
    random_graph_init(&g, graph_seed, n_steps);
    computes(&g, &reference, test_range(&rng, 1, most_threads), 3);
    random_graph_free(&g);
    random_graph_free(&reference);
    atomic_fetch_add(&n_graphs, 1);
}

//
// Several at once, and held and let go meanwhile
//

struct crowd {
    uint64_t seed, first, n;
};

static void * crowd_member(void * arg) {
    const struct crowd * crowd = arg;
    for (uint64_t i = 0; i < crowd->n; i++) {
        random_run(crowd->seed, crowd->first + i, 1);  // teams of ggml's would spin for each other
    }
    return NULL;
}

static void held_and_let_go_meanwhile(uint64_t seed, uint64_t n) {
    enum { MEMBERS = 3 };
    pthread_t threads[MEMBERS];
    struct crowd crowds[MEMBERS];
    for (uint64_t i = 0; i < MEMBERS; i++) {
        crowds[i] = (struct crowd) {seed, 1000000 + i * 10000, n};
        CHECK(pthread_create(&threads[i], NULL, crowd_member, &crowds[i]) == 0);
    }
    for (uint64_t i = 0; i < 10 * n; i++) {
#if !defined(__SANITIZE_THREAD__)  // ggml reads the pointers that change without any lock
        ggc_dropin_detach();
        attach();
#endif
        char text[100];
        CHECK(ggc_dropin_report(text, sizeof text) > sizeof text);
        CHECK(strlen(text) == sizeof text - 1);
    }
    for (int i = 0; i < MEMBERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

//
// Named cases
//

static void lets_go(uint64_t seed) {
    struct random_graph reference, g;
    struct ggc_runner * runner = NULL;
    const struct ggc_runner_params params = scheduled_params(2);
    reference_init(&reference, seed, 30);
    random_graph_init(&g, seed, 30);
    new_runner(g.graph, &params, &runner);
    for (int round = 0; round < 3; round++) {
        const unsigned long long before = told("on_streams");
        random_graph_restore(&g);
        compute(runner);
        same_results(&reference, &g);
        CHECK_EQ(told("on_streams") - before, round == 0);  // held again: only what comes then
        ggc_dropin_detach();
        CHECK_EQ(told("live"), 0);
        if (round == 1) {
            attach();
        }
    }
    ggc_runner_free(runner);
    attach();
    random_graph_free(&g);
    random_graph_free(&reference);
}

// One backend computes graphs of more shapes than can be known at once: the oldest are forgotten.
static void many_shapes(uint64_t seed) {
    enum { SHAPES = 40, LAST = 20 };
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_t backend = ggml_backend_dev_init(device, NULL);
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device);
    ggml_backend_set_n_threads_t set_n_threads;
    *(void **) &set_n_threads =
        ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    set_n_threads(backend, 2);
    unsigned long long before_last = 0;
    for (uint64_t i = 0; i < SHAPES; i++) {
        struct random_graph reference, g;
        reference_init(&reference, seed + i, 30);
        random_graph_init(&g, seed + i, 30);
        random_graph_place(&g);
        random_graph_restore(&g);
        g.graph->uid = UINT32_MAX + i;  // as a scheduler gives them, which none has given yet
        before_last = i == SHAPES - LAST ? told("on_streams") : before_last;
        CHECK_EQ(ggml_backend_graph_compute(backend, g.graph), GGML_STATUS_SUCCESS);
        same_results(&reference, &g);
        random_graph_free(&g);
        random_graph_free(&reference);
    }
    CHECK(told("on_streams") - before_last > LAST / 2);
    ggml_backend_free(backend);
}

// The child's threads are gone: what it computes goes through as it is, and does not hang.
static void forks(uint64_t seed) {
    struct random_graph reference, g;
    struct ggc_runner * runner = NULL;
    const struct ggc_runner_params params = scheduled_params(1);
    reference_init(&reference, seed, 30);
    random_graph_init(&g, seed, 30);
    new_runner(g.graph, &params, &runner);
    random_graph_restore(&g);
    compute(runner);
    const unsigned long long before = told("on_streams");
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        random_graph_restore(&g);
        compute(runner);
        same_results(&reference, &g);
        CHECK_EQ(told("on_streams"), before);
        ggc_runner_free(runner);
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child: %d", status);
    random_graph_restore(&g);
    compute(runner);
    same_results(&reference, &g);
    CHECK_EQ(told("on_streams"), before + 1);
    ggc_runner_free(runner);
    random_graph_free(&g);
    random_graph_free(&reference);
}

static const char * (*name_of_reg)(ggml_backend_reg_t);
static int n_forks;

static const char * name_and_fork(ggml_backend_reg_t reg) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    n_forks++;
    return name_of_reg(reg);
}

// As ggml does where it aborts, for a debugger: at any time, on the thread that asks it something.
static void forks_inside(void) {
    ggml_backend_reg_t reg =
        ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    ggc_dropin_detach();
    name_of_reg = reg->iface.get_name;
    reg->iface.get_name = name_and_fork;
    alarm(60);  // ends the test where it would wait for ever
    attach();
    alarm(0);
    reg->iface.get_name = name_of_reg;
    CHECK(n_forks > 0);
}

static void what_is_refused(void) {
    char message[200] = "";
    CHECK_STATUS(ggc_dropin_attach_backend(NULL, message, sizeof message), GGC_E_INVALID);
    CHECK_MSG(strstr(message, "NULL"), "%s", message);
    void * nobodys[32] = {0};
    CHECK_STATUS(
        ggc_dropin_attach_backend((struct ggml_backend *) nobodys, message, sizeof message),
        GGC_E_INVALID);
    CHECK_MSG(strstr(message, "no ggml of this process"), "%s", message);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 200);
    setenv("GGML_CONCURRENT", "always", 1);
    setenv("GGML_CONCURRENT_OWN", "1", 1);
    setenv("GGML_CONCURRENT_CACHE", "", 1);
    setenv("GGML_CONCURRENT_STRESS", "3", 1);
    need_cpu_backend();
    attach();
    if (options.first == 0) {
        test_case("%s", "named cases");
        what_is_refused();
        lets_go(options.seed);
        many_shapes(options.seed);
#if !defined(__SANITIZE_THREAD__)  // which does not follow a process into its child
        forks(options.seed);
        forks_inside();
#endif
    }
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        test_case("random graph %llu", (unsigned long long) i);
        random_run(options.seed, i, 2);
    }
    if (options.first == 0) {
        test_case("%s", "held and let go meanwhile");
        held_and_let_go_meanwhile(options.seed, options.iterations / 10 + 1);
    }
    CHECK_EQ(told("failures"), 0);
    CHECK(told("on_streams") > options.iterations);
    return test_passed("%llu graphs, %llu computations, %llu on streams", atomic_load(&n_graphs),
                       atomic_load(&n_computes), told("on_streams"));
}
