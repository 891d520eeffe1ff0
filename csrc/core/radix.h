// Least-significant-digit radix sort.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct keyed {
    uint64_t key;
    uint32_t value;
};

// Sorts n items by key, at most `max`; equal keys keep their order. Returns the array that holds
// the result: `items`, or `spare` of the same size.
struct keyed * radix_sort(struct keyed * items, struct keyed * spare, size_t n, uint64_t max);
