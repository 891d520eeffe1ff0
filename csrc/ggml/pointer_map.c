#include "pointer_map.h"

#include <stdlib.h>

static size_t place_of(const struct pointer_map * map, const void * key) {
    const uint64_t hash = (uint64_t) (uintptr_t) key * UINT64_C(0x9E3779B97F4A7C15);
    size_t i = (size_t) (hash >> 20) & (map->capacity - 1);
    while (map->key[i] != NULL && map->key[i] != key) {
        i = (i + 1) & (map->capacity - 1);
    }
    return i;
}

static bool allocate(struct pointer_map * map, size_t capacity) {
    map->capacity = capacity;
    map->n = 0;
    map->key = calloc(capacity, sizeof(*map->key));
    map->value = malloc(capacity * sizeof(*map->value));
    if (map->key == NULL || map->value == NULL) {
        pointer_map_free(map);
        return false;
    }
    return true;
}

bool pointer_map_init(struct pointer_map * map, size_t n_expected) {
    size_t capacity = 16;
    while (capacity < 2 * n_expected) {
        capacity *= 2;
    }
    return allocate(map, capacity);
}

void pointer_map_free(struct pointer_map * map) {
    free((void *) map->key);
    free(map->value);
    *map = (struct pointer_map) {0};
}

uint32_t pointer_map_get(const struct pointer_map * map, const void * key, uint32_t missing) {
    const size_t i = place_of(map, key);
    return map->key[i] != NULL ? map->value[i] : missing;
}

static bool grow(struct pointer_map * map) {
    struct pointer_map larger;
    if (!allocate(&larger, map->capacity * 2)) {
        return false;
    }
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->key[i] != NULL) {
            const size_t at = place_of(&larger, map->key[i]);
            larger.key[at] = map->key[i];
            larger.value[at] = map->value[i];
        }
    }
    larger.n = map->n;
    pointer_map_free(map);
    *map = larger;
    return true;
}

bool pointer_map_put(struct pointer_map * map, const void * key, uint32_t value) {
    if (map->n * 2 >= map->capacity && !grow(map)) {
        return false;
    }
    const size_t i = place_of(map, key);
    map->n += map->key[i] == NULL;
    map->key[i] = key;
    map->value[i] = value;
    return true;
}
