// Exact arithmetic on the byte sets of accesses, for the planner. (The verifier has its own.)
#pragma once

#include "ggc-core.h"

// Start and end (half-open) of everything that the access touches. False if it is malformed: an
// unknown mode, runs that overlap one another, or an end beyond 2^64 - 1. An access of nothing has
// *begin == *end.
bool access_extent(const struct ggc_access * access, uint64_t * begin, uint64_t * end);

// Whether the runs of `a` touch a byte of [begin, end).
bool access_touches(const struct ggc_access * a, uint64_t begin, uint64_t end);

// Whether a and b, of the same buffer, share a byte. O(log stride).
bool access_overlap(const struct ggc_access * a, const struct ggc_access * b);

// Whether every byte of b is a byte of a (of the same buffer); may say no where the answer is yes.
bool access_covers(const struct ggc_access * a, const struct ggc_access * b);
