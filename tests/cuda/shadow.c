#include "shadow.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_SIZE 600

// Bytes from `begin` to the next segment's begin.
struct segment {
    size_t begin;
    struct epoch write;  // who is NULL: never written
    struct epoch * reads;
    uint32_t n_reads;
};

struct block {
    char * address;
    size_t size;
    int device;
    struct segment * segments;  // the first begins at 0
    size_t n, capacity;
    struct block * next;
};

static struct block * blocks;
static struct {
    uint64_t races, errors;
    char first_race[TEXT_SIZE], first_error[TEXT_SIZE];
} seen;

void report_error(const char * format, ...) {
    if (seen.errors++ == 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(seen.first_error, sizeof seen.first_error, format, args);
        va_end(args);
    }
}

//
// Memory
//

size_t shadow_used(int device) {
    size_t used = 0;
    for (const struct block * b = blocks; b != NULL; b = b->next) {
        used += b->device == device ? b->size : 0;
    }
    return used;
}

void * shadow_allocate(int device, size_t size, size_t total) {
    const size_t used = shadow_used(device), rounded = (size + 255) / 256 * 256;
    if (size == 0 || rounded < size || used > total || rounded > total - used) {
        return NULL;
    }
    struct block * b = allocate(sizeof *b);
    b->address = aligned_alloc(256, rounded);
    if (b->address == NULL) {
        free(b);
        return NULL;
    }
    memset(b->address, 0xff, rounded);  // not zeros: NaN for whoever reads before it writes
    b->size = rounded;
    b->device = device;
    b->segments = allocate(sizeof *b->segments);
    b->n = b->capacity = 1;
    b->next = blocks;
    blocks = b;
    return b->address;
}

bool shadow_free(void * address) {
    struct block ** at = &blocks;
    while (*at != NULL && (*at)->address != address) {
        at = &(*at)->next;
    }
    struct block * b = *at;
    if (b == NULL) {
        return false;
    }
    *at = b->next;
    for (size_t i = 0; i < b->n; i++) {
        free(b->segments[i].reads);
    }
    free(b->segments);
    free(b->address);
    free(b);
    return true;
}

static struct block * find_block(const char * address, size_t size) {
    for (struct block * b = blocks; b != NULL; b = b->next) {
        if (address >= b->address && address < b->address + b->size &&
            size <= (size_t) (b->address + b->size - address)) {
            return b;
        }
    }
    return NULL;
}

//
// Segments
//

static size_t segment_at(const struct block * b, size_t offset) {
    size_t low = 0, high = b->n;  // segments[low].begin <= offset < segments[high].begin
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        *(b->segments[middle].begin <= offset ? &low : &high) = middle;
    }
    return low;
}

// The index of the segment that begins at `offset`, which may be the end of the block.
static size_t split_at(struct block * b, size_t offset) {
    if (offset >= b->size) {
        return b->n;
    }
    const size_t i = segment_at(b, offset);
    if (b->segments[i].begin == offset) {
        return i;
    }
    if (b->n == b->capacity) {
        b->capacity *= 2;
        b->segments = reallocate(b->segments, b->capacity * sizeof *b->segments);
    }
    memmove(&b->segments[i + 2], &b->segments[i + 1], (b->n - i - 1) * sizeof *b->segments);
    b->n++;
    struct segment *left = &b->segments[i], *right = &b->segments[i + 1];
    *right = *left;
    right->begin = offset;
    right->reads = allocate(left->n_reads * sizeof *right->reads);
    for (uint32_t k = 0; k < left->n_reads; k++) {
        right->reads[k] = left->reads[k];
    }
    return i + 1;
}

static bool same_epoch(struct epoch a, struct epoch b) {
    return a.who == b.who && a.chain == b.chain && a.tick == b.tick;
}

static bool same_history(const struct segment * a, const struct segment * b) {
    bool same = same_epoch(a->write, b->write) && a->n_reads == b->n_reads;
    for (uint32_t i = 0; same && i < a->n_reads; i++) {
        same = same_epoch(a->reads[i], b->reads[i]);
    }
    return same;
}

// Joins equal neighbours among segments [first, last].
static void join(struct block * b, size_t first, size_t last) {
    last = last < b->n ? last : b->n - 1;
    size_t to = first;
    for (size_t from = first + 1; from <= last; from++) {
        if (same_history(&b->segments[to], &b->segments[from])) {
            free(b->segments[from].reads);
        } else {
            b->segments[++to] = b->segments[from];
        }
    }
    memmove(&b->segments[to + 1], &b->segments[last + 1], (b->n - last - 1) * sizeof *b->segments);
    b->n -= last - to;
}

//
// Checks
//

struct check {
    const struct work * work;
    struct epoch self;
    bool raced, astray;
};

static void report_race(struct check * check, const struct block * b, const struct segment * s,
                        struct epoch other, const char * what) {
    if (check->raced) {
        return;  // one report for each piece of work
    }
    check->raced = true;
    if (seen.races++ == 0) {
        snprintf(seen.first_race, sizeof seen.first_race,
                 "%s: %s and %s are not ordered; at byte %zu of %zu allocated at %p", what,
                 other.who, check->self.who, s->begin, b->size, (void *) b->address);
    }
}

static void note_write(struct check * check, const struct block * b, struct segment * s) {
    if (s->write.who != NULL && !work_follows(check->work, s->write)) {
        report_race(check, b, s, s->write, "two writes");
    }
    for (uint32_t i = 0; i < s->n_reads; i++) {
        if (!work_follows(check->work, s->reads[i])) {
            report_race(check, b, s, s->reads[i], "read and later write");
        }
    }
    s->write = check->self;
    s->n_reads = 0;
}

// Reads that come before this one need not be remembered: what follows this one follows them.
static void note_read(struct check * check, const struct block * b, struct segment * s) {
    if (s->write.who != NULL && !work_follows(check->work, s->write)) {
        report_race(check, b, s, s->write, "write and later read");
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->n_reads; i++) {
        if (!work_follows(check->work, s->reads[i])) {
            s->reads[kept++] = s->reads[i];
        }
    }
    s->reads = reallocate(s->reads, (kept + 1) * sizeof *s->reads);
    s->reads[kept] = check->self;
    s->n_reads = kept + 1;
}

static bool visit(void * visitor, const void * address, size_t size, bool write) {
    struct check * check = visitor;
    struct block * b = find_block(address, size);
    if (size == 0 || check->astray) {
        return !check->astray;
    }
    if (b == NULL) {
        check->astray = true;
        report_error("%s touches %zu bytes at %p, which are not allocated", check->self.who, size,
                     address);
        return false;
    }
    const size_t begin = (size_t) ((const char *) address - b->address);
    const size_t first = split_at(b, begin), end = split_at(b, begin + size);
    for (size_t i = first; i < end; i++) {
        (write ? note_write : note_read)(check, b, &b->segments[i]);
    }
    join(b, first > 0 ? first - 1 : 0, end);
    return true;
}

bool shadow_check(struct work * work) {
    const struct fake_kernel * kernel = &work_payload(work)->kernel;
    if (kernel->accesses == NULL) {
        return true;
    }
    struct check check = {.work = work, .self = work_epoch(work)};
    kernel->accesses(kernel->argument, visit, &check);
    return !check.astray;
}

void shadow_reset(void) {
    memset(&seen, 0, sizeof seen);
}

uint64_t fake_races(void) {
    driver_lock();
    const uint64_t n = seen.races;
    driver_unlock();
    return n;
}

const char * fake_first_race(void) {
    return seen.first_race;
}

uint64_t fake_errors(void) {
    driver_lock();
    const uint64_t n = seen.errors;
    driver_unlock();
    return n;
}

const char * fake_first_error(void) {
    return seen.first_error;
}
