#include "cuda_instance.h"

#include <pthread.h>
#include <stdatomic.h>

static pthread_rwlock_t captures = PTHREAD_RWLOCK_INITIALIZER;  // read: capturing

uint64_t cuda_next_mark(void) {
    static atomic_uint_fast64_t last;
    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

void cuda_capture_enter(void) {
    pthread_rwlock_rdlock(&captures);
}

void cuda_capture_leave(void) {
    pthread_rwlock_unlock(&captures);
}

void cuda_instance_free(ggml_backend_t backend) {
    if (backend != NULL) {
        pthread_rwlock_wrlock(&captures);
        ggml_backend_free(backend);
        pthread_rwlock_unlock(&captures);
    }
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

// Asking the device takes longer than all the rest where there is nothing new.
static bool has_memory(const struct cuda_instances * instances, ggml_backend_dev_t device,
                       uint32_t n, const struct cuda_need * need, size_t * free_before,
                       const struct message * message) {
    size_t more = 0, total;
    for (uint32_t s = 0; s < n; s++) {
        const struct cuda_need * granted = &instances->granted[s];
        more += larger(need[s].pool, granted->pool) - granted->pool;
        more += larger(need[s].blas, granted->blas) - granted->blas;
    }
    if (n > instances->n || more > 0) {
        ggml_backend_dev_memory(device, free_before, &total);
        if (*free_before < more) {
            message_set(message, "%u streams may need %zu MiB beside the graph, %zu are free", n,
                        more >> 20, *free_before >> 20);
            return false;
        }
    }
    return true;
}

enum ggc_status cuda_instances_need(struct cuda_instances * instances, ggml_backend_dev_t device,
                                    uint32_t n, const struct cuda_need * need, size_t * free_before,
                                    const struct message * message) {
    if (!has_memory(instances, device, n, need, free_before, message)) {
        return GGC_E_DEVICE;
    }
    for (; instances->n < n; instances->n++) {
        instances->items[instances->n] = ggml_backend_dev_init(device, NULL);
        if (instances->items[instances->n] == NULL) {
            message_set(message, "ggml could not start instance %u of %s", instances->n,
                        ggml_backend_dev_name(device));
            return GGC_E_DEVICE;
        }
    }
    for (uint32_t s = 0; s < n; s++) {
        struct cuda_need * granted = &instances->granted[s];
        granted->pool = larger(need[s].pool, granted->pool);
        granted->blas = larger(need[s].blas, granted->blas);
    }
    return GGC_OK;
}

void cuda_instances_issued(struct cuda_instances * instances, uint32_t n,
                           const struct cuda_need * need) {
    for (uint32_t s = 0; s < n; s++) {
        instances->has_blas[s] |= need[s].blas > 0;
    }
}

bool cuda_instances_have_handles(const struct cuda_instances * instances, uint32_t n,
                                 const struct cuda_need * need) {
    for (uint32_t s = 0; s < n; s++) {
        if (need[s].blas > 0 && !instances->has_blas[s]) {
            return false;
        }
    }
    return true;
}

void cuda_instances_close(struct cuda_instances * instances) {
    for (; instances->n > instances->has_guest; instances->n--) {
        const uint32_t last = instances->n - 1;
        cuda_instance_free(instances->items[last]);
        instances->granted[last] = (struct cuda_need) {0, 0};
        instances->has_blas[last] = false;
    }
}
