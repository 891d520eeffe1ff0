#include "sim_kernel.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-backend.h"
#include "sim_touch.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#include "ggml-impl.h"
#pragma GCC diagnostic pop

//
// CPU backends: as many as there are kernels at a time
//

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static ggml_backend_t idle[64];
static unsigned n_idle;

static ggml_backend_t take_backend(void) {
    pthread_mutex_lock(&mutex);
    ggml_backend_t backend = n_idle > 0 ? idle[--n_idle] : NULL;
    pthread_mutex_unlock(&mutex);
    if (backend != NULL) {
        return backend;
    }
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    backend = device != NULL ? ggml_backend_dev_init(device, NULL) : NULL;
    if (backend == NULL) {
        return NULL;
    }
    ggml_backend_set_n_threads_t set = NULL;
    *(void **) (void *) &set = ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(device), "ggml_backend_set_n_threads");
    if (set != NULL) {
        set(backend, 1);
    }
    return backend;
}

static void give_backend(ggml_backend_t backend) {
    pthread_mutex_lock(&mutex);
    const bool full = n_idle == sizeof idle / sizeof *idle;
    if (!full) {
        idle[n_idle++] = backend;
    }
    pthread_mutex_unlock(&mutex);
    if (full) {
        ggml_backend_free(backend);
    }
}

//
// Nodes
//

struct node_kernel {
    struct ggml_tensor node, src[GGML_MAX_SRC];
    struct sim_scratch scratch;
    char * early;  // what the first source was before the kernel waited; NULL: it reads it later
};

// Of what it points to, only the memory may outlive the call.
static void copy_tensor(struct ggml_tensor * to, const struct ggml_tensor * from) {
    *to = *from;
    to->buffer = NULL;
    to->view_src = NULL;
    to->extra = NULL;
    memset(to->src, 0, sizeof to->src);
}

static void compute_on_cpu(struct ggml_tensor * node) {
    struct ggml_cgraph graph = {.size = 1, .n_nodes = 1, .nodes = &node};
    ggml_backend_t backend = take_backend();
    if (backend == NULL || ggml_backend_graph_compute(backend, &graph) != GGML_STATUS_SUCCESS) {
        sim_error("the CPU backend did not compute %s", ggml_op_desc(node));
    }
    if (backend != NULL) {
        give_backend(backend);
    }
}

// Indices are checked and then used as they were: the CPU backend ends the process for one that is
// too large, and a kernel that races may be writing them.
static void compute(void * argument) {
    const struct node_kernel * k = argument;
    struct ggml_tensor node = k->node, first = k->src[0], ids;
    int64_t below = 0;
    if (k->early != NULL) {
        first.data = k->early;
        node.src[0] = &first;
    }
    const int source = sim_index_source(&node, &below);
    if (source < 0) {
        compute_on_cpu(&node);
        return;
    }
    ids = *node.src[source];
    const size_t size = ggml_nbytes(&ids);
    ids.data = memcpy(malloc(size + 1), ids.data, size);
    node.src[source] = &ids;
    if (sim_indices_fit(&ids, below)) {
        compute_on_cpu(&node);
    } else {
        sim_error("%s '%s' has indices that are too large", ggml_op_desc(&node), node.name);
    }
    free(ids.data);
}

static void touch_node(void * argument, fake_visit visit, void * visitor) {
    const struct node_kernel * k = argument;
    if (visit(visitor, k->scratch.address, k->scratch.size, true)) {
        sim_touch(&k->node, visit, visitor);
    }
}

// ggml-cuda's flash attention, as it is compiled for an H100, loads the queries before it waits.
static void read_early(void * argument) {
    struct node_kernel * k = argument;
    const struct ggml_tensor * t = &k->src[0];
    const size_t row = ggml_row_size(t->type, t->ne[0]);
    for (int64_t i = 0; i < ggml_nrows(t); i++) {
        const size_t i1 = (size_t) (i % t->ne[1]), i2 = (size_t) (i / t->ne[1] % t->ne[2]),
                     i3 = (size_t) (i / t->ne[1] / t->ne[2]);
        const size_t at = i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3];
        memcpy(k->early + at, (const char *) t->data + at, row);
    }
}

static void touch_early(void * argument, fake_visit visit, void * visitor) {
    const struct node_kernel * k = argument;
    sim_touch_view(&k->src[0], visit, visitor);
}

static void release_node(void * argument) {
    struct node_kernel * k = argument;
    free(k->early);
    free(k);
}

static bool is_late(const struct ggml_tensor * node) {
    return node->op == GGML_OP_SET_ROWS || node->op == GGML_OP_MUL_MAT ||
           node->op == GGML_OP_MUL_MAT_ID;
}

CUresult sim_launch_node(CUstream stream, const struct ggml_tensor * node,
                         struct sim_scratch scratch) {
    struct node_kernel * k = malloc(sizeof *k);
    if (k == NULL) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    k->scratch = scratch;
    copy_tensor(&k->node, node);
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        if (node->src[s] != NULL) {
            copy_tensor(&k->src[s], node->src[s]);
            k->node.src[s] = &k->src[s];
        }
    }
    k->early = NULL;
    if (node->op == GGML_OP_FLASH_ATTN_EXT) {
        k->early = malloc(ggml_nbytes(node->src[0]));
        if (k->early == NULL) {
            free(k);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    char name[128];
    snprintf(name, sizeof name, "%s '%s'", ggml_op_desc(node), node->name);
    return fake_launch_kernel(stream, &(struct fake_kernel) {
                                          .name = name,
                                          .programmatic = true,
                                          .late = is_late(node),
                                          .function = compute,
                                          .argument = k,
                                          .accesses = touch_node,
                                          .early = k->early != NULL ? read_early : NULL,
                                          .early_accesses = touch_early,
                                          .release = release_node,
                                      });
}

//
// Copies
//

struct copy_kernel {
    enum sim_direction direction;
    void * to;
    const void * from;  // NULL: filled with `value`
    size_t size;
    unsigned char value;
};

static void copy(void * argument) {
    const struct copy_kernel * k = argument;
    if (k->from != NULL) {
        memmove(k->to, k->from, k->size);
    } else {
        memset(k->to, k->value, k->size);
    }
}

static void touch_copy(void * argument, fake_visit visit, void * visitor) {
    const struct copy_kernel * k = argument;
    if (k->from != NULL && k->direction != SIM_TO_DEVICE) {
        visit(visitor, k->from, k->size, false);
    }
    if (k->direction != SIM_TO_HOST) {
        visit(visitor, k->to, k->size, true);
    }
}

static CUresult launch_copy(CUstream stream, const char * name, enum fake_kind kind,
                            struct copy_kernel value) {
    struct copy_kernel * k = malloc(sizeof *k);
    if (k == NULL) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *k = value;
    return fake_launch_kernel(stream, &(struct fake_kernel) {.name = name,
                                                             .kind = kind,
                                                             .function = copy,
                                                             .argument = k,
                                                             .accesses = touch_copy,
                                                             .release = free});
}

CUresult sim_launch_copy(CUstream stream, enum sim_direction direction, void * to,
                         const void * from, size_t size) {
    static const char * const names[] = {"copy to the device", "copy to the host",
                                         "copy on the device"};
    return launch_copy(
        stream, names[direction], FAKE_MEMCPY,
        (struct copy_kernel) {.direction = direction, .to = to, .from = from, .size = size});
}

CUresult sim_launch_fill(CUstream stream, void * to, unsigned char value, size_t size) {
    return launch_copy(
        stream, "memset", FAKE_MEMSET,
        (struct copy_kernel) {.direction = SIM_ON_DEVICE, .to = to, .size = size, .value = value});
}
