// Memory that is freed together.
//
// With malloc, blocks are large and shared by many allocations: planning then touches few pages,
// and the same ones again. With an allocator of the caller's, or under a sanitizer, every
// allocation is a block of its own, so that each can fail and each overrun is seen.
#pragma once

#include "ggc-core.h"

struct arena_block;

struct arena {
    const struct ggc_allocator * allocator;  // NULL: malloc
    struct arena_block * blocks;             // in use, the newest first
    struct arena_block * spare;              // released, to be used again
    size_t next_size;                        // of the next shared block
};

// allocator NULL: malloc and free
void arena_init(struct arena * arena, const struct ggc_allocator * allocator);
void arena_free(struct arena * arena);
// Says that about `size` bytes will be asked for, all in all.
void arena_expect(struct arena * arena, size_t size);
// Empties `from` into `to`, which must be uninitialised or empty.
void arena_move(struct arena * to, struct arena * from);

// Uninitialised memory for n elements, never NULL for n == 0. NULL when out of memory or when
// n * size overflows.
void * arena_alloc(struct arena * arena, size_t n, size_t size);
void * arena_zalloc(struct arena * arena, size_t n, size_t size);

// The n_old elements at `ptr` (NULL: none yet) moved to a place for n. NULL and the old place kept
// when out of memory.
void * arena_grow(struct arena * arena, void * ptr, size_t n_old, size_t n, size_t size);

// What is allocated after arena_mark is given back by arena_release, for the arena to use again.
// Between the two nothing older may be grown.
struct arena_mark {
    struct arena_block * block;
    size_t used;
};
struct arena_mark arena_mark(const struct arena * arena);
void arena_release(struct arena * arena, struct arena_mark mark);
