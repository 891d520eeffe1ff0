#include "line.h"

#include <string.h>

#include "overlap.h"
#include "radix.h"

struct extent {
    uint64_t begin, end;
    bool written;
};

// Buffer id -> slot, open addressing. Small ids, as adapters give them, are their own hash: no two
// collide and neighbours lie together. Others are spread by Fibonacci hashing.
struct slots {
    uint32_t * slot;  // GGC_NONE: empty
    uint32_t * id;    // of each slot
    struct extent * extent;
    uint32_t n;
    uint32_t mask;
    uint32_t factor;
    int shift;
};

// A distinct interval; many accesses share one (each tensor is written once, read often).
struct region {
    uint64_t begin, end;   // on the line
    uint32_t first, last;  // as points
};

struct regions {
    struct region * items;
    uint32_t * of_access;  // GGC_NONE: left out
    uint32_t n;
};

static enum ggc_status slots_init(struct slots * slots, const struct ggc_units * units,
                                  size_t n_accesses, struct arena * arena) {
    uint32_t max_id = 0;
    for (size_t i = 0; i < n_accesses; i++) {
        max_id = units->accesses[i].buffer > max_id ? units->accesses[i].buffer : max_id;
    }
    int bits = 4;
    while (bits < 31 && ((size_t) 1 << bits) < 2 * n_accesses && max_id >> bits != 0) {
        bits++;
    }
    slots->mask = (UINT32_C(1) << bits) - 1;
    const bool small = max_id <= slots->mask;
    slots->factor = small ? 1 : UINT32_C(2654435769);
    slots->shift = small ? 0 : 32 - bits;
    slots->n = 0;
    slots->slot = arena_alloc(arena, (size_t) 1 << bits, sizeof(uint32_t));
    slots->id = arena_alloc(arena, n_accesses, sizeof(uint32_t));
    slots->extent = arena_alloc(arena, n_accesses, sizeof(struct extent));
    if (slots->slot == NULL || slots->id == NULL || slots->extent == NULL) {
        return GGC_E_NOMEM;
    }
    memset(slots->slot, 0xff, sizeof(uint32_t) << bits);
    return GGC_OK;
}

static uint32_t slot_of(struct slots * slots, uint32_t id) {
    uint32_t i = (id * slots->factor) >> slots->shift;
    while (slots->slot[i] != GGC_NONE) {
        if (slots->id[slots->slot[i]] == id) {
            return slots->slot[i];
        }
        i = (i + 1) & slots->mask;
    }
    slots->slot[i] = slots->n;
    slots->id[slots->n] = id;
    slots->extent[slots->n] = (struct extent) {UINT64_MAX, 0, false};
    return slots->n++;
}

// 1. How far each buffer reaches, and whether anyone writes it.
static enum ggc_status measure_buffers(struct slots * slots, uint32_t * slot_of_access,
                                       const struct ggc_units * units, size_t n_accesses) {
    for (size_t i = 0; i < n_accesses; i++) {
        const struct ggc_access * access = &units->accesses[i];
        uint64_t begin, end;
        if (!access_extent(access, &begin, &end)) {
            return GGC_E_INVALID;
        }
        slot_of_access[i] = GGC_NONE;
        if (begin == end) {
            continue;
        }
        slot_of_access[i] = slot_of(slots, access->buffer);
        struct extent * extent = &slots->extent[slot_of_access[i]];
        extent->begin = begin < extent->begin ? begin : extent->begin;
        extent->end = end > extent->end ? end : extent->end;
        extent->written |= access->mode == GGC_WRITE;
    }
    return GGC_OK;
}

// 2. Where each written buffer starts on the line; kept in extent->end, which is not needed again.
static enum ggc_status place_buffers(struct slots * slots, uint64_t * length) {
    *length = 0;
    for (uint32_t i = 0; i < slots->n; i++) {
        struct extent * extent = &slots->extent[i];
        const uint64_t size = extent->end - extent->begin;
        extent->end = *length;
        if (!extent->written) {
            continue;
        }
        if (size > UINT64_MAX - *length) {
            return GGC_E_INVALID;
        }
        *length += size;
    }
    return GGC_OK;
}

// 3. The distinct intervals. A small direct-mapped cache finds most repetitions; one that it
// misses costs a duplicate, no more.
static enum ggc_status collect_regions(struct regions * regions, const struct slots * slots,
                                       const uint32_t * slot_of_access,
                                       const struct ggc_units * units, size_t n_accesses,
                                       struct arena * arena) {
    enum { CACHE = 4096 };
    regions->items = arena_alloc(arena, n_accesses, sizeof(struct region));
    uint32_t * cache = arena_zalloc(arena, CACHE, sizeof(uint32_t));
    if (regions->items == NULL || cache == NULL) {
        return GGC_E_NOMEM;
    }
    regions->n = 0;
    for (size_t i = 0; i < n_accesses; i++) {
        regions->of_access[i] = GGC_NONE;
        if (slot_of_access[i] == GGC_NONE || !slots->extent[slot_of_access[i]].written) {
            continue;
        }
        const struct extent * extent = &slots->extent[slot_of_access[i]];
        uint64_t begin, end;
        access_extent(&units->accesses[i], &begin, &end);
        const struct region region = {extent->end + (begin - extent->begin),
                                      extent->end + (end - extent->begin), 0, 0};
        const uint64_t hash = (region.begin * 31 + region.end) * UINT64_C(0x9E3779B97F4A7C15);
        uint32_t * cached = &cache[hash >> 52];
        const struct region * same = *cached < regions->n ? &regions->items[*cached] : NULL;
        if (same == NULL || same->begin != region.begin || same->end != region.end) {
            *cached = regions->n;
            regions->items[regions->n++] = region;
        }
        regions->of_access[i] = *cached;
    }
    return GGC_OK;
}

// 4. Number the ends of the regions in order.
static enum ggc_status number_points(struct line * line, struct regions * regions, uint64_t length,
                                     struct arena * arena) {
    const size_t n = (size_t) regions->n * 2;
    struct keyed * ends = arena_alloc(arena, n, sizeof(struct keyed));
    struct keyed * spare = arena_alloc(arena, n, sizeof(struct keyed));
    if (ends == NULL || spare == NULL) {
        return GGC_E_NOMEM;
    }
    for (uint32_t i = 0; i < regions->n; i++) {
        ends[2 * i] = (struct keyed) {regions->items[i].begin, 2 * i};
        ends[2 * i + 1] = (struct keyed) {regions->items[i].end, 2 * i + 1};
    }
    ends = radix_sort(ends, spare, n, length);
    line->n_points = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || ends[i].key != ends[i - 1].key) {
            line->at[line->n_points++] = ends[i].key;
        }
        struct region * region = &regions->items[ends[i].value / 2];
        *(ends[i].value & 1 ? &region->last : &region->first) = line->n_points - 1;
    }
    return GGC_OK;
}

static enum ggc_status build(struct line * line, const struct ggc_units * units,
                             struct arena * arena) {
    const size_t n_accesses = units->access_begin[units->n_units];
    struct slots slots;
    struct regions regions;
    uint64_t length;
    uint32_t * slot_of_access = arena_alloc(arena, n_accesses, sizeof(uint32_t));
    regions.of_access = arena_alloc(arena, n_accesses, sizeof(uint32_t));
    if (slot_of_access == NULL || regions.of_access == NULL) {
        return GGC_E_NOMEM;
    }
    enum ggc_status status = slots_init(&slots, units, n_accesses, arena);
    if (status == GGC_OK) {
        status = measure_buffers(&slots, slot_of_access, units, n_accesses);
    }
    if (status == GGC_OK) {
        status = place_buffers(&slots, &length);
    }
    if (status == GGC_OK) {
        status = collect_regions(&regions, &slots, slot_of_access, units, n_accesses, arena);
    }
    if (status == GGC_OK) {
        status = number_points(line, &regions, length, arena);
    }
    if (status != GGC_OK) {
        return status;
    }
    for (size_t i = 0; i < n_accesses; i++) {
        const uint32_t r = regions.of_access[i];
        line->interval[i] =
            r == GGC_NONE ? (struct line_interval) {0, 0}
                          : (struct line_interval) {regions.items[r].first, regions.items[r].last};
    }
    return GGC_OK;
}

enum ggc_status line_init(struct line * line, const struct ggc_units * units,
                          struct arena * arena) {
    const size_t n_accesses = units->access_begin[units->n_units];
    line->interval = arena_alloc(arena, n_accesses, sizeof(struct line_interval));
    line->at = arena_alloc(arena, 2 * n_accesses, sizeof(uint64_t));
    if (line->interval == NULL || line->at == NULL) {
        return GGC_E_NOMEM;
    }
    const struct arena_mark mark = arena_mark(arena);
    const enum ggc_status status = build(line, units, arena);
    arena_release(arena, mark);
    return status;
}
