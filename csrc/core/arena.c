#include "arena.h"

#include <stdlib.h>
#include <string.h>

struct arena_block {
    struct arena_block * next;
    struct arena_block ** link;  // what points to this block
    _Alignas(max_align_t) unsigned char data[];
};

static void * default_alloc(void * ctx, size_t size) {
    (void) ctx;
    return malloc(size);
}

static void default_free(void * ctx, void * ptr) {
    (void) ctx;
    free(ptr);
}

static const struct ggc_allocator default_allocator = {default_alloc, default_free, NULL};

void arena_init(struct arena * arena, const struct ggc_allocator * allocator) {
    arena->allocator = allocator != NULL ? allocator : &default_allocator;
    arena->blocks = NULL;
}

static void free_block(struct arena * arena, struct arena_block * block) {
    *block->link = block->next;
    if (block->next != NULL) {
        block->next->link = block->link;
    }
    arena->allocator->free(arena->allocator->ctx, block);
}

void arena_free(struct arena * arena) {
    while (arena->blocks != NULL) {
        free_block(arena, arena->blocks);
    }
}

void arena_move(struct arena * to, struct arena * from) {
    *to = *from;
    if (to->blocks != NULL) {
        to->blocks->link = &to->blocks;
    }
    from->blocks = NULL;
}

void * arena_alloc(struct arena * arena, size_t n, size_t size) {
    if (size != 0 && n > (SIZE_MAX / 2 - sizeof(struct arena_block)) / size) {
        return NULL;
    }
    struct arena_block * block =
        arena->allocator->alloc(arena->allocator->ctx, sizeof(struct arena_block) + n * size);
    if (block == NULL) {
        return NULL;
    }
    block->next = arena->blocks;
    block->link = &arena->blocks;
    if (block->next != NULL) {
        block->next->link = &block->next;
    }
    arena->blocks = block;
    return block->data;
}

void * arena_zalloc(struct arena * arena, size_t n, size_t size) {
    void * ptr = arena_alloc(arena, n, size);
    if (ptr != NULL) {
        memset(ptr, 0, n * size);
    }
    return ptr;
}

void * arena_grow(struct arena * arena, void * ptr, size_t n_old, size_t n, size_t size) {
    void * grown = arena_alloc(arena, n, size);
    if (grown != NULL && ptr != NULL) {
        memcpy(grown, ptr, n_old * size);
        unsigned char * start = (unsigned char *) ptr - offsetof(struct arena_block, data);
        free_block(arena, (struct arena_block *) (void *) start);
    }
    return grown;
}
