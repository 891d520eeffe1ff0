// Buffers for what is private to graphs that are computed one after another: nothing in there is of
// use once a computation is over, so graphs share one as long as it is large enough.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ggml-backend.h"

struct scratch {
    ggml_backend_buffer_t buffer;
    uintptr_t start;  // aligned as was asked for
    size_t size;
    uint32_t n_users;
};

// Zeroed memory is a valid empty one.
struct scratches {
    struct scratch * last;  // the one to share; NULL: none
    size_t bytes;           // of all that are in use
};

// Bytes of this type that a graph can have, where all buffers together may take `budget`.
size_t scratch_room(const struct scratches * scratches, ggml_backend_buffer_type_t buft,
                    size_t budget);
// Whether there would be more room if of all buffers in use only `kept` bytes were left.
bool scratch_room_can_grow(const struct scratches * scratches, ggml_backend_buffer_type_t buft,
                           size_t budget, size_t kept);
// One of at least `size` bytes, which must not exceed scratch_room. A new one begins at a multiple
// of `alignment`, the same each time, and is zeroed. NULL: no memory.
struct scratch * scratch_use(struct scratches * scratches, ggml_backend_buffer_type_t buft,
                             size_t size, size_t alignment, size_t budget);
// Frees it where nobody else uses it; NULL: nothing to do.
void scratch_leave(struct scratches * scratches, struct scratch * scratch);
