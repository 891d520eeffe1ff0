// Copies and computations that do not block, where they happen at once: on the CPU. Needs the CPU
// backend module, as test_runner does. On a device: tests/cuda/run_changes.py.
#include "runner_support.h"

#define N 16

static struct ggml_tensor * scene_of(struct scene * s, struct ggml_tensor ** x) {
    scene_init(s);
    *x = matrix(s, N, 1);
    ggml_set_input(*x);
    struct ggml_tensor * y = ggml_add(s->ctx, ggml_sqr(s->ctx, *x), ggml_scale(s->ctx, *x, 2));
    ggml_set_output(y);
    expand(s, y);
    return y;
}

static void steps_in_order(void) {
    struct scene s;
    struct ggml_tensor *x, *y = scene_of(&s, &x);
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.always = true;
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    float in[4][N], out[4][N] = {{0}};
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < N; i++) {
            in[k][i] = (float) (k * N + i);
        }
        CHECK_EQ(ggc_runner_set_async(runner, x, in[k], 0, sizeof in[k]), GGC_OK);
        CHECK_EQ(ggc_runner_compute_async(runner), GGC_OK);
        CHECK_EQ(ggc_runner_get_async(runner, y, out[k] + 1, 4, sizeof in[k] - 4), GGC_OK);
    }
    CHECK_EQ(ggc_runner_synchronize(runner), GGC_OK);
    for (int k = 0; k < 4; k++) {
        for (int i = 1; i < N; i++) {
            CHECK(out[k][i] == in[k][i] * in[k][i] + 2 * in[k][i]);
        }
        CHECK(out[k][0] == 0);
    }
    ggc_runner_free(runner);
    scene_free(&s);
}

static void refused(struct ggc_runner * runner, enum ggc_status status, const char * text) {
    CHECK_EQ(status, GGC_E_INVALID);
    CHECK_MSG(strstr(ggc_runner_message(runner), text) != NULL, "%s", ggc_runner_message(runner));
}

static void wrong_arguments(void) {
    struct scene s;
    struct ggml_tensor *x, *y = scene_of(&s, &x), *nowhere = matrix(&s, 4, 4);
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, NULL, &runner);
    float data[N] = {0};
    refused(runner, ggc_runner_set_async(runner, NULL, data, 0, 4), "no tensor");
    refused(runner, ggc_runner_get_async(runner, y, NULL, 0, 4), "no data");
    refused(runner, ggc_runner_set_async(runner, nowhere, data, 0, 4), "in no buffer");
    refused(runner, ggc_runner_set_async(runner, x, data, 8, sizeof data), "not 64 from byte 8");
    refused(runner, ggc_runner_get_async(runner, y, data, SIZE_MAX, 8), "from byte");
    CHECK_EQ(ggc_runner_set_async(runner, x, data, sizeof data, 0), GGC_OK);
    CHECK_EQ(ggc_runner_synchronize(runner), GGC_OK);
    CHECK_EQ(ggc_runner_message(runner)[0], '\0');
    struct ggc_cuda_figures figures;
    CHECK_EQ(ggc_runner_cuda_figures(runner, &figures), GGC_E_INVALID);
    CHECK_EQ(ggc_runner_cuda_figures(NULL, &figures), GGC_E_INVALID);
    CHECK_EQ(ggc_runner_stream_bytes(runner), 0);
    ggc_runner_free(runner);
    scene_free(&s);
}

static bool fails;

static void may_fail(struct ggml_tensor * to, const struct ggml_tensor * from, int ith, int nth,
                     void * data) {
    (void) nth;
    (void) data;
    GGML_ASSERT(!fails && "meant to be");
    if (ith == 0) {
        memcpy(to->data, from->data, ggml_nbytes(from));
    }
}

// The first failure is told by the next wait, and only by that.
static void failures_are_kept(void) {
    struct scene s;
    scene_init(&s);
    struct ggml_tensor * x = matrix(&s, N, 1);
    ggml_set_input(x);
    struct ggml_tensor * y = ggml_map_custom1(s.ctx, x, may_fail, 1, NULL);
    ggml_set_output(y);
    expand(&s, y);
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.n_streams = params.n_threads = 1;
    struct ggc_runner * runner = NULL;
    new_runner(s.graph, &params, &runner);
    float in[N] = {3}, out[N];
    CHECK_EQ(ggc_runner_set_async(runner, x, in, 0, sizeof in), GGC_OK);
    fails = true;
    CHECK_EQ(ggc_runner_compute_async(runner), GGC_E_ASSERT);
    fails = false;
    CHECK_EQ(ggc_runner_compute_async(runner), GGC_OK);
    CHECK_EQ(ggc_runner_get_async(runner, y, out, 0, sizeof out), GGC_OK);
    CHECK_EQ(ggc_runner_synchronize(runner), GGC_E_ASSERT);
    CHECK_MSG(strstr(ggc_runner_message(runner), "meant to be") != NULL, "%s",
              ggc_runner_message(runner));
    CHECK_EQ(ggc_runner_synchronize(runner), GGC_OK);
    CHECK(memcmp(in, out, sizeof in) == 0);
    ggc_runner_free(runner);
    scene_free(&s);
}

int main(int argc, char ** argv) {
    test_begin(argc, argv, 1, 1);
    need_cpu_backend();
    steps_in_order();
    wrong_arguments();
    failures_are_kept();
    return test_passed("3 cases");
}
