// All buffers laid end to end on one line, and the ends of all accesses on it numbered in order.
//
// Every access becomes the half-open interval [first, last) of *points*, so that whoever works on
// intervals needs neither buffers nor byte offsets, and no interval reaches into another buffer.
#pragma once

#include "arena.h"

struct line_interval {
    uint32_t first, last;  // equal for an access that touches nothing or that can be left out
};

struct line {
    uint32_t n_points;
    uint64_t * at;                    // n_points: bytes from the start of the line
    struct line_interval * interval;  // of each access
};

// Accesses to buffers that no unit writes are left out: they conflict with nothing.
// Memory comes from `arena`. GGC_E_INVALID: a malformed access, or buffers that do not fit into
// 2^64 - 1 bytes together; GGC_E_NOMEM.
enum ggc_status line_init(struct line * line, const struct ggc_units * units, struct arena * arena);
