#include "arena.h"

#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#    include <sys/mman.h>
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define SANITIZED 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
        __has_feature(memory_sanitizer)
#        define SANITIZED 1
#    endif
#endif
#ifndef SANITIZED
#    define SANITIZED 0
#endif

// Shared blocks start small and double. From HUGE on they are aligned for huge pages, each of which
// costs one page fault instead of 512. None is larger than glibc keeps for the next plan once it
// is freed.
#define SMALLEST ((size_t) 4 << 10)
#define HUGE ((size_t) 2 << 20)
#define LARGEST ((size_t) 16 << 20)

struct arena_block {
    struct arena_block * next;
    size_t size, used;  // of data
    _Alignas(max_align_t) unsigned char data[];
};

void arena_init(struct arena * arena, const struct ggc_allocator * allocator) {
    *arena = (struct arena) {.allocator = allocator, .next_size = SMALLEST};
}

static bool is_shared(const struct arena * arena) {
    return arena->allocator == NULL && !SANITIZED;
}

void arena_expect(struct arena * arena, size_t size) {
    arena->next_size = size < SMALLEST ? SMALLEST : size > LARGEST ? LARGEST : size;
}

static void free_block(const struct arena * arena, struct arena_block * block) {
    if (arena->allocator != NULL) {
        arena->allocator->free(arena->allocator->ctx, block);
    } else {
        free(block);
    }
}

static void free_list(const struct arena * arena, struct arena_block * block) {
    while (block != NULL) {
        struct arena_block * next = block->next;
        free_block(arena, block);
        block = next;
    }
}

void arena_free(struct arena * arena) {
    free_list(arena, arena->blocks);
    free_list(arena, arena->spare);
    arena->blocks = arena->spare = NULL;
}

void arena_move(struct arena * to, struct arena * from) {
    *to = *from;
    from->blocks = from->spare = NULL;
}

static void * allocate(const struct arena * arena, size_t size) {
    if (arena->allocator != NULL) {
        return arena->allocator->alloc(arena->allocator->ctx, size);
    }
    if (size < HUGE || !is_shared(arena)) {
        return malloc(size);
    }
    void * ptr = aligned_alloc(HUGE, size);
#if defined(MADV_HUGEPAGE)  // not in strict C11
    if (ptr != NULL) {
        madvise(ptr, size, MADV_HUGEPAGE);  // advice: nothing is lost where it is not taken
    }
#endif
    return ptr;
}

// A released block of at least `size` bytes, or NULL.
static struct arena_block * take_spare(struct arena * arena, size_t size) {
    for (struct arena_block ** link = &arena->spare; *link != NULL; link = &(*link)->next) {
        struct arena_block * block = *link;
        if (block->size >= size) {
            *link = block->next;
            block->used = 0;
            return block;
        }
    }
    return NULL;
}

static struct arena_block * new_block(struct arena * arena, size_t size) {
    size_t whole = sizeof(struct arena_block) + size;
    if (is_shared(arena)) {
        whole = whole > arena->next_size ? whole : arena->next_size;
        whole = whole >= HUGE ? (whole + HUGE - 1) / HUGE * HUGE : whole;
        arena->next_size = whole < LARGEST / 2 ? 2 * whole : LARGEST;
    }
    struct arena_block * block = allocate(arena, whole);
    if (block != NULL) {
        block->size = whole - sizeof(struct arena_block);
        block->used = 0;
    }
    return block;
}

// Whole units of alignment. 0: more than there can be.
static size_t padded(size_t n, size_t size) {
    const size_t unit = _Alignof(max_align_t);
    if (size != 0 && n > SIZE_MAX / 4 / size) {
        return 0;
    }
    const size_t bytes = n * size;
    return bytes < unit ? unit : (bytes + unit - 1) / unit * unit;
}

void * arena_alloc(struct arena * arena, size_t n, size_t size) {
    const size_t bytes = padded(n, size);
    if (bytes == 0) {
        return NULL;
    }
    struct arena_block * block = arena->blocks;
    if (block == NULL || !is_shared(arena) || block->size - block->used < bytes) {
        block = take_spare(arena, bytes);
        // exactly what was asked for, where an overrun is to be seen
        block = block != NULL ? block : new_block(arena, is_shared(arena) ? bytes : n * size);
        if (block == NULL) {
            return NULL;
        }
        block->next = arena->blocks;
        arena->blocks = block;
    }
    void * ptr = block->data + block->used;
    block->used += bytes;
    return ptr;
}

void * arena_zalloc(struct arena * arena, size_t n, size_t size) {
    void * ptr = arena_alloc(arena, n, size);
    if (ptr != NULL) {
        memset(ptr, 0, n * size);
    }
    return ptr;
}

// Frees the block that starts with `ptr`.
static void free_one(struct arena * arena, const void * ptr) {
    for (struct arena_block ** link = &arena->blocks; *link != NULL; link = &(*link)->next) {
        struct arena_block * block = *link;
        if (block->data == ptr) {
            *link = block->next;
            free_block(arena, block);
            return;
        }
    }
}

// What was allocated last grows where it is, if its block has room. Where blocks are shared, an old
// place is lost until the arena is freed: not more than was asked for, since callers double.
void * arena_grow(struct arena * arena, void * ptr, size_t n_old, size_t n, size_t size) {
    const size_t old = padded(n_old, size), bytes = padded(n, size);
    struct arena_block * block = arena->blocks;
    if (ptr != NULL && bytes != 0 && is_shared(arena) && block->used >= old &&
        ptr == block->data + block->used - old && block->size - block->used >= bytes - old) {
        block->used += bytes - old;
        return ptr;
    }
    void * grown = arena_alloc(arena, n, size);
    if (grown != NULL && ptr != NULL) {
        memcpy(grown, ptr, n_old * size);
        if (!is_shared(arena)) {
            free_one(arena, ptr);
        }
    }
    return grown;
}

struct arena_mark arena_mark(const struct arena * arena) {
    return (struct arena_mark) {arena->blocks, arena->blocks != NULL ? arena->blocks->used : 0};
}

void arena_release(struct arena * arena, struct arena_mark mark) {
    while (arena->blocks != mark.block) {
        struct arena_block * block = arena->blocks;
        arena->blocks = block->next;
        if (is_shared(arena)) {
            block->next = arena->spare;
            arena->spare = block;
        } else {
            free_block(arena, block);
        }
    }
    if (mark.block != NULL) {
        mark.block->used = mark.used;
    }
}
