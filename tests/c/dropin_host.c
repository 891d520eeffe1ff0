// A program that is linked with somebody else's ggml, as llama.cpp's tools are: several branches,
// computed through ggml's scheduler a few times. tests/python/test_dropin_ways.py compiles it
// against the package libggml-python and runs it plain and with the drop-in.
//
//     dropin_host [load] SEED     load: ggml_backend_load_all() first
//
// Prints a hash of all results, then the drop-in's report, if it is loaded.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

enum { N = 48, BRANCHES = 5, DEPTH = 4, TIMES = 5, MOST = 64 };

static struct ggml_tensor * inputs[MOST];
static int n_inputs;

static struct ggml_tensor * input(struct ggml_context * ctx, int64_t rows) {
    struct ggml_tensor * t = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, N, rows);
    ggml_set_input(t);
    inputs[n_inputs++] = t;
    return t;
}

static struct ggml_tensor * build(struct ggml_context * ctx, struct ggml_cgraph * graph) {
    struct ggml_tensor *x = input(ctx, 3), *total = NULL;
    for (int i = 0; i < BRANCHES; i++) {
        struct ggml_tensor * y = x;
        for (int k = 0; k < DEPTH; k++) {
            y = ggml_silu(ctx, ggml_mul_mat(ctx, input(ctx, N), y));
        }
        total = total == NULL ? y : ggml_add(ctx, total, y);
    }
    ggml_set_output(total);
    ggml_build_forward_expand(graph, total);
    return total;
}

static void fill(uint32_t seed) {
    static float values[N * N];
    for (int i = 0; i < n_inputs; i++) {
        for (int k = 0; k < N * N; k++) {
            seed = seed * 1664525U + 1013904223U;
            values[k] = (float) (int32_t) seed / 1e10F;
        }
        ggml_backend_tensor_set(inputs[i], values, 0, ggml_nbytes(inputs[i]));
    }
}

static uint64_t hash(uint64_t so_far, const struct ggml_tensor * t) {
    static unsigned char bytes[N * 3 * sizeof(float)];
    ggml_backend_tensor_get(t, bytes, 0, ggml_nbytes(t));
    for (size_t i = 0; i < ggml_nbytes(t); i++) {
        so_far = (so_far ^ bytes[i]) * 1099511628211U;
    }
    return so_far;
}

static void set_threads(ggml_backend_t backend, int n) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    ggml_backend_set_n_threads_t set;
    *(void **) &set = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    set(backend, n);
}

static void print_report(void) {
    static char text[1 << 16];
    const char * path = getenv("GGML_BACKEND_PATH");
    size_t (*report)(char *, size_t);
    *(void **) &report = dlsym(RTLD_DEFAULT, "ggc_dropin_report");
    void * handle = report == NULL && path != NULL ? dlopen(path, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    if (handle != NULL) {
        *(void **) &report = dlsym(handle, "ggc_dropin_report");
    }
    if (report != NULL) {
        report(text, sizeof(text));
        puts(text);
    }
}

int main(int argc, char ** argv) {
    if (argc > 1 && strcmp(argv[1], "load") == 0) {
        ggml_backend_load_all();
    }
    ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, NULL);
    set_threads(backend, 2);
    ggml_backend_sched_t sched = ggml_backend_sched_new(&backend, NULL, 1, 256, false, true);
    struct ggml_context * ctx = ggml_init((struct ggml_init_params) {1 << 20, NULL, true});
    struct ggml_cgraph * graph = ggml_new_graph(ctx);
    struct ggml_tensor * result = build(ctx, graph);
    if (!ggml_backend_sched_alloc_graph(sched, graph)) {
        return 1;
    }
    uint64_t all = 14695981039346656037U;
    for (uint32_t i = 0; i < TIMES; i++) {
        fill(i + (uint32_t) atoi(argv[argc - 1]));
        if (ggml_backend_sched_graph_compute(sched, graph) != GGML_STATUS_SUCCESS) {
            return 1;
        }
        all = hash(all, result);
    }
    printf("%016llx\n", (unsigned long long) all);
    print_report();
    ggml_backend_sched_free(sched);
    ggml_backend_free(backend);
    ggml_free(ctx);
    return 0;
}
