#include "scratch.h"

#include <stdlib.h>

// Rounded up to what devices give out anyway, so that the next graph, which is often a little
// larger, fits too.
#define STEP ((size_t) 2 << 20)

static size_t shared_size(const struct scratches * scratches, ggml_backend_buffer_type_t buft) {
    const struct scratch * last = scratches->last;
    return last != NULL && ggml_backend_buffer_get_type(last->buffer) == buft ? last->size : 0;
}

static size_t size_left(const struct scratches * scratches, size_t budget) {
    return budget > scratches->bytes ? budget - scratches->bytes : 0;
}

size_t scratch_room(const struct scratches * scratches, ggml_backend_buffer_type_t buft,
                    size_t budget) {
    const size_t shared = shared_size(scratches, buft), left = size_left(scratches, budget);
    return shared > left ? shared : left;
}

bool scratch_room_can_grow(const struct scratches * scratches, ggml_backend_buffer_type_t buft,
                           size_t budget, size_t kept) {
    return budget > kept && budget - kept > scratch_room(scratches, buft, budget);
}

static struct scratch * new_scratch(ggml_backend_buffer_type_t buft, size_t size,
                                    size_t alignment) {
    struct scratch * scratch = calloc(1, sizeof(*scratch));
    if (scratch == NULL) {
        return NULL;
    }
    scratch->buffer = ggml_backend_buft_alloc_buffer(buft, size + alignment);
    if (scratch->buffer == NULL) {
        free(scratch);
        return NULL;
    }
    ggml_backend_buffer_clear(scratch->buffer, 0);
    const uintptr_t base = (uintptr_t) ggml_backend_buffer_get_base(scratch->buffer);
    scratch->start = (base + alignment - 1) / alignment * alignment;
    scratch->size = size;
    return scratch;
}

struct scratch * scratch_use(struct scratches * scratches, ggml_backend_buffer_type_t buft,
                             size_t size, size_t alignment, size_t budget) {
    struct scratch * scratch = scratches->last;
    if (scratch == NULL || size > shared_size(scratches, buft)) {
        const size_t rounded = (size + STEP - 1) / STEP * STEP;
        const bool fits = rounded <= size_left(scratches, budget);
        scratch = new_scratch(buft, fits ? rounded : size, alignment);
        if (scratch == NULL) {
            return NULL;
        }
        scratches->last = scratch;
        scratches->bytes += scratch->size;
    }
    scratch->n_users++;
    return scratch;
}

void scratch_leave(struct scratches * scratches, struct scratch * scratch) {
    if (scratch == NULL || --scratch->n_users > 0) {
        return;
    }
    scratches->last = scratches->last == scratch ? NULL : scratches->last;
    scratches->bytes -= scratch->size;
    ggml_backend_buffer_free(scratch->buffer);
    free(scratch);
}
