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
