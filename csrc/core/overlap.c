#include "overlap.h"

__extension__ typedef unsigned __int128 u128;

static bool is_empty(const struct ggc_access * access) {
    return access->run == 0 || access->count == 0;
}

bool access_extent(const struct ggc_access * access, uint64_t * begin, uint64_t * end) {
    *begin = *end = access->offset;
    if (access->mode != GGC_READ && access->mode != GGC_WRITE) {
        return false;
    }
    if (is_empty(access)) {
        return true;
    }
    if (access->count > 1 && access->stride < access->run) {
        return false;
    }
    u128 last = (u128) access->offset + access->run;
    if (access->count > 1) {
        last += (u128) access->stride * (access->count - 1);
    }
    if (last > UINT64_MAX) {
        return false;
    }
    *end = (uint64_t) last;
    return true;
}

static uint64_t end_of(const struct ggc_access * a) {
    return a->offset + a->run + (a->count > 1 ? a->stride * (a->count - 1) : 0);
}

bool access_touches(const struct ggc_access * a, uint64_t begin, uint64_t end) {
    if (is_empty(a) || begin >= end || end <= a->offset || begin >= end_of(a)) {
        return false;
    }
    if (a->count == 1 || begin <= a->offset) {
        return true;  // also: the first run starts inside
    }
    const uint64_t phase = (begin - a->offset) % a->stride;
    // begin lies in a run, or the range reaches the next run, which exists since begin < end_of(a)
    return phase < a->run || end - begin > a->stride - phase;
}

// Smallest x >= 0 with lo <= a*x mod m <= hi, where lo <= hi < m; UINT64_MAX if there is none.
// The Euclidean algorithm: a*x - m*y in [lo, hi] turns into the same question modulo a.
static uint64_t first_in_range(uint64_t a, uint64_t m, uint64_t lo, uint64_t hi) {
    if (lo == 0) {
        return 0;
    }
    a %= m;
    if (a == 0) {
        return UINT64_MAX;
    }
    const uint64_t up = (lo - 1) / a + 1;
    if ((u128) up * a <= hi) {
        return up;
    }
    // no multiple of a lies in [lo, hi], so lo and hi have the same quotient by a
    const uint64_t y = first_in_range(m % a, a, (a - hi % a) % a, (a - lo % a) % a);
    if (y == UINT64_MAX) {
        return UINT64_MAX;
    }
    const u128 x = ((u128) m * y + lo + a - 1) / a;
    return x > UINT64_MAX ? UINT64_MAX : (uint64_t) x;
}

// Whether run i of a, for some i in [first, last], meets a run of b, when b's runs go on for ever
// in both directions.
static bool meets_periodic(const struct ggc_access * a, const struct ggc_access * b, uint64_t first,
                           uint64_t last) {
    const uint64_t m = b->stride;
    if ((u128) a->run + b->run > m) {
        return true;  // a run of a is longer than the gaps of b
    }
    // run i starts at phase (c + a*i) mod m of b; it meets b when that is in [m - a.run + 1, m - 1]
    // or in [0, b.run - 1], one window when shifted by a.run - 1
    const uint64_t start = a->offset + first * a->stride;
    const uint64_t at =
        start >= b->offset ? (start - b->offset) % m : (m - (b->offset - start) % m) % m;
    const uint64_t c = (uint64_t) (((u128) at + a->run - 1) % m);
    const uint64_t window = a->run + b->run - 2;  // 0 .. window, window < m
    if (c <= window) {
        return true;
    }
    const uint64_t step = a->stride % m;
    return first_in_range(step, m, m - c, m - c + window) <= last - first;
}

static bool overlap_strided(const struct ggc_access * a, const struct ggc_access * b) {
    // 1. the runs of a that reach into the extent of b
    const uint64_t b_end = end_of(b);
    uint64_t first = 0;
    if (b->offset >= a->offset + a->run) {
        first = (b->offset - (a->offset + a->run)) / a->stride + 1;
    }
    if (first >= a->count || a->offset + first * a->stride >= b_end) {
        return false;
    }
    uint64_t last = (b_end - 1 - a->offset) / a->stride;
    if (last >= a->count) {
        last = a->count - 1;
    }
    // 2. the first and the last may stick out of that extent: look at them alone
    const uint64_t start = a->offset + first * a->stride;
    const uint64_t stop = a->offset + last * a->stride;
    if (access_touches(b, start, start + a->run) || access_touches(b, stop, stop + a->run)) {
        return true;
    }
    // 3. between them b looks periodic
    return last - first >= 2 && meets_periodic(a, b, first + 1, last - 1);
}

bool access_overlap(const struct ggc_access * a, const struct ggc_access * b) {
    if (is_empty(a) || is_empty(b)) {
        return false;
    }
    if (a->count == 1) {
        return access_touches(b, a->offset, a->offset + a->run);
    }
    if (b->count == 1) {
        return access_touches(a, b->offset, b->offset + b->run);
    }
    return a->count <= b->count ? overlap_strided(a, b) : overlap_strided(b, a);
}

bool access_covers(const struct ggc_access * a, const struct ggc_access * b) {
    if (is_empty(b)) {
        return true;
    }
    if (is_empty(a) || b->offset < a->offset || end_of(b) > end_of(a)) {
        return false;
    }
    if (a->count == 1) {
        return true;
    }
    const uint64_t phase = (b->offset - a->offset) % a->stride;
    return phase + b->run <= a->run && (b->count == 1 || b->stride % a->stride == 0);
}
