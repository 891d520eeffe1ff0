// What layout.c and layout_phases.c share.
#pragma once

#include "core/memory.h"
#include "layout.h"
#include "pointer_map.h"

// Keeps two streams from writing the same pair of cache lines.
#define MIN_ALIGNMENT 128

struct layouter {
    struct layout * layout;
    struct ggml_cgraph * graph;
    const struct ggc_graph_plan * plan;
    const struct layout_params * params;
    ggml_backend_buffer_type_t buft;
    const struct message * message;
    struct pointer_map seen;  // tensor -> index into layout->tensors
    bool * is_source;         // of each: whether some node reads it
    size_t capacity;
    uint32_t * n_reads;  // of each tensor that is no view: how often nodes read it
    uint32_t * same_as;  // the tensor that it shares all its memory with, or GGC_NONE
    uint64_t * offset;
    uint64_t max_buffer;  // `offset / max_buffer` is the buffer
};

size_t layout_alignment(const struct layouter * l);
// Bytes that a tensor takes in a buffer, with what keeps it from its neighbours.
size_t layout_size_of(const struct layouter * l, const struct ggml_tensor * tensor);
enum ggc_status layout_no_memory(const struct layouter * l, size_t size);

static inline bool layout_is_view(const struct ggml_tensor * tensor) {
    return tensor->view_src != NULL;
}

// layout_uses.c: fills layout->use_begin, layout->uses and n_reads. GGC_E_NOMEM.
enum ggc_status layout_find_uses(struct layouter * l);
// All tensors as the core wants them; views take no memory. After layout_find_uses. Of those
// that are one within a unit (same_as) only the last takes memory.
void layout_describe(struct layouter * l, struct memory_tensor * tensors);

// layout_phases.c: offsets as ggml's allocator finds them, phase by phase, with gaps.
// GGC_E_NOMEM.
enum ggc_status layout_by_phases(struct layouter * l);
