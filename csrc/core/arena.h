// Memory that is freed together. Every block is a separate allocation, so that sanitizers see it.
#pragma once

#include "ggc-core.h"

struct arena_block;

struct arena {
    const struct ggc_allocator * allocator;
    struct arena_block * blocks;
};

// allocator NULL: malloc and free
void arena_init(struct arena * arena, const struct ggc_allocator * allocator);
void arena_free(struct arena * arena);
// Empties `from` into `to`, which must be uninitialised or empty.
void arena_move(struct arena * to, struct arena * from);

// Uninitialised memory for n elements, never NULL for n == 0. NULL when out of memory or when
// n * size overflows.
void * arena_alloc(struct arena * arena, size_t n, size_t size);
void * arena_zalloc(struct arena * arena, size_t n, size_t size);

// The block at `ptr` (NULL: none yet) moved into one of n elements; the old one is freed. NULL and
// the old block kept when out of memory.
void * arena_grow(struct arena * arena, void * ptr, size_t n_old, size_t n, size_t size);
