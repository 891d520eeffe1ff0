#include "pool.h"

#include <pthread.h>
#include <stdlib.h>

// Enough for a prompt's runner and a token's, each of a buffer or two.
#define MAX_BUFFERS 4

struct ggc_pool {
    pthread_mutex_t mutex;
    ggml_backend_buffer_t buffers[MAX_BUFFERS];  // of runners that were freed
    uint32_t n;
};

enum ggc_status ggc_pool_new(struct ggc_pool ** pool) {
    if (pool == NULL) {
        return GGC_E_INVALID;
    }
    struct ggc_pool * made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return GGC_E_NOMEM;
    }
    pthread_mutex_init(&made->mutex, NULL);
    *pool = made;
    return GGC_OK;
}

void ggc_pool_free(struct ggc_pool * pool) {
    if (pool == NULL) {
        return;
    }
    for (uint32_t i = 0; i < pool->n; i++) {
        ggml_backend_buffer_free(pool->buffers[i]);
    }
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

// The smallest that is large enough, and not so large that others would miss it.
static ggml_backend_buffer_t take_fitting(struct ggc_pool * pool, ggml_backend_buffer_type_t buft,
                                          size_t size) {
    const size_t most = size + size + ((size_t) 1 << 20);
    uint32_t best = pool->n;
    for (uint32_t i = 0; i < pool->n; i++) {
        const size_t has = ggml_backend_buffer_get_size(pool->buffers[i]);
        if (ggml_backend_buffer_get_type(pool->buffers[i]) == buft && has >= size && has <= most &&
            (best == pool->n || has < ggml_backend_buffer_get_size(pool->buffers[best]))) {
            best = i;
        }
    }
    if (best == pool->n) {
        return NULL;
    }
    ggml_backend_buffer_t buffer = pool->buffers[best];
    pool->buffers[best] = pool->buffers[--pool->n];
    return buffer;
}

ggml_backend_buffer_t pool_take(struct ggc_pool * pool, ggml_backend_buffer_type_t buft,
                                size_t size) {
    ggml_backend_buffer_t buffer = NULL;
    size_t asked = size;
    if (pool != NULL) {
        pthread_mutex_lock(&pool->mutex);
        buffer = take_fitting(pool, buft, size);
        pthread_mutex_unlock(&pool->mutex);
        const size_t most = ggml_backend_buft_get_max_size(buft);
        asked = most - size > size / 8 ? size + size / 8 : size;  // the next may need a little more
    }
    if (buffer == NULL) {
        buffer = ggml_backend_buft_alloc_buffer(buft, asked);
    }
    if (buffer == NULL && asked > size) {
        buffer = ggml_backend_buft_alloc_buffer(buft, size);
    }
    if (buffer != NULL) {
        ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_COMPUTE);
    }
    return buffer;
}

// Where there is no room the smallest goes, this one or another.
void pool_give(struct ggc_pool * pool, ggml_backend_buffer_t buffer) {
    if (pool != NULL && buffer != NULL) {
        ggml_backend_buffer_reset(buffer);
        pthread_mutex_lock(&pool->mutex);
        if (pool->n < MAX_BUFFERS) {
            pool->buffers[pool->n++] = buffer;
            buffer = NULL;
        }
        for (uint32_t i = 0; buffer != NULL && i < pool->n; i++) {
            ggml_backend_buffer_t other = pool->buffers[i];
            if (ggml_backend_buffer_get_size(other) < ggml_backend_buffer_get_size(buffer)) {
                pool->buffers[i] = buffer;
                buffer = other;
            }
        }
        pthread_mutex_unlock(&pool->mutex);
    }
    ggml_backend_buffer_free(buffer);
}
