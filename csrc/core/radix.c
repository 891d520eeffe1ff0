#include "radix.h"

#include <stdbool.h>

enum { BITS = 11, BUCKETS = 1 << BITS };

static bool is_sorted(const struct keyed * items, size_t n) {
    for (size_t i = 1; i < n; i++) {
        if (items[i].key < items[i - 1].key) {
            return false;
        }
    }
    return true;
}

static size_t digit(const struct keyed * item, int shift) {
    return (size_t) (item->key >> shift) & (BUCKETS - 1);
}

struct keyed * radix_sort(struct keyed * items, struct keyed * spare, size_t n, uint64_t max) {
    if (is_sorted(items, n)) {  // often: adapters number buffers as they meet them
        return items;
    }
    for (int shift = 0; shift < 64 && (max >> shift) != 0; shift += BITS) {
        size_t start[BUCKETS + 1] = {0};
        for (size_t i = 0; i < n; i++) {
            start[digit(&items[i], shift) + 1]++;
        }
        for (int b = 0; b < BUCKETS; b++) {
            start[b + 1] += start[b];
        }
        for (size_t i = 0; i < n; i++) {
            spare[start[digit(&items[i], shift)]++] = items[i];
        }
        struct keyed * const sorted = spare;
        spare = items;
        items = sorted;
    }
    return items;
}
