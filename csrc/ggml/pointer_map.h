// Pointer -> number, open addressing. Grows; numbers are what the caller says.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pointer_map {
    const void ** key;  // NULL: empty
    uint32_t * value;
    size_t n, capacity;  // capacity a power of two
};

// False when out of memory.
bool pointer_map_init(struct pointer_map * map, size_t n_expected);
void pointer_map_free(struct pointer_map * map);

// The number of `key` (not NULL); `missing` if it is not there.
uint32_t pointer_map_get(const struct pointer_map * map, const void * key, uint32_t missing);

// Adds or replaces. False when out of memory.
bool pointer_map_put(struct pointer_map * map, const void * key, uint32_t value);
