// Memory of runners that were freed, for those that come after them.
#pragma once

#include "ggml-backend-impl.h"
#include "ggml-concurrent.h"

// A buffer of at least `size` bytes: one of the pool's, or a new one. `pool` may be NULL. NULL when
// out of memory.
ggml_backend_buffer_t pool_take(struct ggc_pool * pool, ggml_backend_buffer_type_t buft,
                                size_t size);
// Gives a buffer back, or frees it where there is no pool. NULL is fine.
void pool_give(struct ggc_pool * pool, ggml_backend_buffer_t buffer);
