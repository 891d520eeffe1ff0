// A set of integers below a fixed bound, as a tree of 64-bit words: level 0 has a bit for each
// integer, level k+1 a bit for each word of level k that is not zero. Predecessor and successor
// take one step a level, that is 3 for 262144 integers.
#pragma once

#include "arena.h"

#define BITSET_MAX_LEVELS 6  // 64^6 > 2^32

struct bitset {
    uint64_t * level[BITSET_MAX_LEVELS];
    int n_levels;
};

// An empty set for integers < bound. False when out of memory.
static inline bool bitset_init(struct bitset * set, struct arena * arena, uint32_t bound) {
    size_t n = bound == 0 ? 1 : bound;
    set->n_levels = 0;
    do {
        n = (n + 63) / 64;
        uint64_t * words = arena_zalloc(arena, n, sizeof(uint64_t));
        if (words == NULL) {
            return false;
        }
        set->level[set->n_levels++] = words;
    } while (n > 1);
    return true;
}

static inline bool bitset_has(const struct bitset * set, uint32_t i) {
    return (set->level[0][i / 64] >> (i % 64)) & 1;
}

static inline void bitset_add(struct bitset * set, uint32_t i) {
    for (int k = 0; k < set->n_levels; k++, i /= 64) {
        set->level[k][i / 64] |= UINT64_C(1) << (i % 64);
    }
}

static inline void bitset_remove(struct bitset * set, uint32_t i) {
    for (int k = 0; k < set->n_levels; k++, i /= 64) {
        set->level[k][i / 64] &= ~(UINT64_C(1) << (i % 64));
        if (set->level[k][i / 64] != 0) {
            break;
        }
    }
}

// Largest member <= i. There must be one.
static inline uint32_t bitset_floor(const struct bitset * set, uint32_t i) {
    int k = 0;
    uint64_t word = set->level[0][i / 64] << (63 - i % 64);
    while (word == 0) {  // climb until something lies to the left
        i /= 64;
        k++;
        word = i % 64 == 0 ? 0 : set->level[k][i / 64] << (64 - i % 64);
        if (word != 0) {
            i--;
        }
    }
    i -= (uint32_t) __builtin_clzll(word);
    while (k-- > 0) {  // descend along the right edge
        i = i * 64 + 63 - (uint32_t) __builtin_clzll(set->level[k][i]);
    }
    return i;
}

// Smallest member > i, or `none` if there is none.
static inline uint32_t bitset_next(const struct bitset * set, uint32_t i, uint32_t none) {
    for (int k = 0; k < set->n_levels; k++, i /= 64) {
        uint64_t word = i % 64 == 63 ? 0 : set->level[k][i / 64] >> (i % 64 + 1);
        if (word != 0) {
            i += 1 + (uint32_t) __builtin_ctzll(word);
            while (k-- > 0) {  // descend along the left edge
                i = i * 64 + (uint32_t) __builtin_ctzll(set->level[k][i]);
            }
            return i;
        }
    }
    return none;
}
