#include "support.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

//
// Running and failing
//

static uint64_t test_seed;
static _Thread_local char test_name[256];
static _Thread_local const struct ggc_units * subject;

static uint64_t setting(int argc, char ** argv, int index, const char * variable, uint64_t def) {
    const char * text = argc > index ? argv[index] : getenv(variable);
    return text && *text ? strtoull(text, NULL, 0) : def;
}

// An assertion of somebody's: say which case met it. Only what a signal handler may call.
static void aborted(int number) {
    const char * const parts[] = {"aborted in '", test_name, "'\n"};
    for (int i = 0; i < 3; i++) {
        if (write(STDOUT_FILENO, parts[i], strlen(parts[i])) < 0) {
            break;
        }
    }
    signal(number, SIG_DFL);
    raise(number);
}

struct test_options test_begin(int argc, char ** argv, uint64_t default_seed,
                               uint64_t default_iterations) {
    const char * scale = getenv("GGC_TEST_SCALE");
    if (scale && *scale) {
        default_iterations = (uint64_t) ((double) default_iterations * strtod(scale, NULL));
    }
    if (default_iterations == 0) {
        default_iterations = 1;
    }
    struct test_options options;
    options.seed = setting(argc, argv, 1, "GGC_TEST_SEED", default_seed);
    options.iterations = setting(argc, argv, 2, "GGC_TEST_ITER", default_iterations);
    options.first = setting(argc, argv, 3, "GGC_TEST_FIRST", 0);
    test_seed = options.seed;
    signal(SIGABRT, aborted);
    setvbuf(stdout, NULL, _IOLBF, 0);
    return options;
}

void test_case(const char * format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(test_name, sizeof test_name, format, args);
    va_end(args);
}

void test_subject(const struct ggc_units * units) {
    subject = units;
}

static void print_line(const char * prefix, const char * format, va_list args) {
    fputs(prefix, stdout);
    vprintf(format, args);
    fputc('\n', stdout);
    fflush(stdout);
}

int test_passed(const char * format, ...) {
    va_list args;
    va_start(args, format);
    print_line("passed: ", format, args);
    va_end(args);
    return 0;
}

void test_skip(const char * format, ...) {
    va_list args;
    va_start(args, format);
    print_line("skipped: ", format, args);
    va_end(args);
    exit(TEST_SKIPPED);
}

// _Exit: other threads may still run, and leak checkers have nothing to say about a failed test.
void test_fail(const char * file, int line, const char * format, ...) {
    printf("%s:%d: failed in '%s', seed %llu\n", file, line, test_name,
           (unsigned long long) test_seed);
    va_list args;
    va_start(args, format);
    print_line("    ", format, args);
    va_end(args);
    if (subject && subject->n_units <= 40) {
        test_print_units(subject);
    }
    fflush(stdout);
    _Exit(1);
}

void * test_alloc(size_t size) {
    void * ptr = calloc(1, size ? size : 1);
    if (!ptr) {
        test_fail(__FILE__, __LINE__, "out of memory for %zu bytes", size);
    }
    return ptr;
}

//
// Random numbers
//

struct test_rng test_rng(uint64_t seed, uint64_t index) {
    struct test_rng rng = {seed};
    rng.state = test_rand(&rng) ^ index;
    rng.state = test_rand(&rng);
    return rng;
}

uint64_t test_rand(struct test_rng * rng) {
    uint64_t z = (rng->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t test_below(struct test_rng * rng, uint32_t n) {
    return (uint32_t) (((test_rand(rng) >> 32) * n) >> 32);
}

uint32_t test_range(struct test_rng * rng, uint32_t low, uint32_t high) {
    return low + test_below(rng, high - low + 1);
}

bool test_chance(struct test_rng * rng, double probability) {
    return (double) (test_rand(rng) >> 11) * 0x1p-53 < probability;
}

void test_shuffle(struct test_rng * rng, uint32_t * values, uint32_t n) {
    for (uint32_t i = n; i > 1; i--) {
        const uint32_t j = test_below(rng, i), other = values[j];
        values[j] = values[i - 1];
        values[i - 1] = other;
    }
}

//
// Lists of units
//

void test_units_init(struct test_units * units) {
    memset(units, 0, sizeof *units);
    units->begin = test_alloc(sizeof *units->begin);
}

void test_units_free(struct test_units * units) {
    free(units->begin);
    free(units->accesses);
    free(units->fence);
    free(units->cost);
    memset(units, 0, sizeof *units);
}

void test_units_clear(struct test_units * units) {
    units->n_units = units->n_accesses = 0;
    units->has_cost = false;
}

static void * grow(void * ptr, size_t size) {
    ptr = realloc(ptr, size);
    CHECK_MSG(ptr, "out of memory");
    return ptr;
}

uint32_t test_unit(struct test_units * units) {
    if (units->n_units == units->unit_capacity) {
        const uint32_t n = units->unit_capacity = units->unit_capacity * 2 + 16;
        units->begin = grow(units->begin, (n + 1) * sizeof *units->begin);
        units->fence = grow(units->fence, n * sizeof *units->fence);
        units->cost = grow(units->cost, n * sizeof *units->cost);
    }
    const uint32_t u = units->n_units++;
    units->begin[u] = units->begin[u + 1] = units->n_accesses;
    units->fence[u] = 0;
    units->cost[u] = 1;
    return u;
}

uint32_t test_fence(struct test_units * units) {
    const uint32_t u = test_unit(units);
    units->fence[u] = 1;
    return u;
}

void test_cost(struct test_units * units, double cost) {
    units->cost[units->n_units - 1] = cost;
    units->has_cost = true;
}

void test_access(struct test_units * units, struct ggc_access access) {
    if (units->n_accesses == units->access_capacity) {
        units->access_capacity = units->access_capacity * 2 + 32;
        units->accesses = grow(units->accesses, units->access_capacity * sizeof *units->accesses);
    }
    units->accesses[units->n_accesses++] = access;
    units->begin[units->n_units] = units->n_accesses;
}

static void touch(struct test_units * units, uint32_t mode, uint32_t buffer, uint64_t begin,
                  uint64_t end) {
    test_access(
        units,
        (struct ggc_access) {
            .offset = begin, .run = end - begin, .count = 1, .buffer = buffer, .mode = mode});
}

void test_read(struct test_units * units, uint32_t buffer, uint64_t begin, uint64_t end) {
    touch(units, GGC_READ, buffer, begin, end);
}

void test_write(struct test_units * units, uint32_t buffer, uint64_t begin, uint64_t end) {
    touch(units, GGC_WRITE, buffer, begin, end);
}

struct ggc_units test_view(const struct test_units * units) {
    bool fences = false;
    for (uint32_t u = 0; u < units->n_units; u++) {
        fences = fences || units->fence[u];
    }
    return (struct ggc_units) {
        .n_units = units->n_units,
        .access_begin = units->begin,
        .accesses = units->accesses,
        .fence = fences ? units->fence : NULL,
        .cost = units->has_cost ? units->cost : NULL,
    };
}

void test_print_units(const struct ggc_units * units) {
    for (uint32_t u = 0; u < units->n_units; u++) {
        printf("    unit %u%s:", u, units->fence && units->fence[u] ? " FENCE" : "");
        for (uint32_t i = units->access_begin[u]; i < units->access_begin[u + 1]; i++) {
            const struct ggc_access * a = &units->accesses[i];
            printf(" %s%u[%llu+%llu", a->mode == GGC_READ ? "r" : "w", a->buffer,
                   (unsigned long long) a->offset, (unsigned long long) a->run);
            if (a->count != 1) {
                printf(" x%u/%llu", a->count, (unsigned long long) a->stride);
            }
            printf("]");
        }
        printf(units->cost ? " cost %g\n" : "\n", units->cost ? units->cost[u] : 1.0);
    }
}

//
// Random units. Each style below is one way in which real graphs touch memory.
//

struct style {
    struct test_units * units;
    struct test_rng * rng;
    uint32_t buffers, size;  // buffers in use, bytes of each
    uint32_t stripe;         // stride that the striped accesses share
    double fence, zero, in_place;
};

static struct ggc_access random_stripe(struct style * s, uint32_t mode) {
    struct test_rng * rng = s->rng;
    const uint32_t stride = test_chance(rng, 0.8) ? s->stripe : test_range(rng, 1, 12);
    const uint32_t run = test_range(rng, 1, stride);
    const uint32_t offset = test_below(rng, s->size - stride + 1);
    const uint32_t most = (s->size - offset - run) / stride + 1;
    return (struct ggc_access) {.offset = offset,
                                .run = run,
                                .stride = stride,
                                .count = test_range(rng, 1, most),
                                .mode = mode,
                                .buffer = test_below(rng, s->buffers)};
}

static struct ggc_access random_range(struct style * s, uint32_t mode) {
    const uint32_t begin = test_below(s->rng, s->size);
    const uint32_t most = s->size - begin < 24 ? s->size - begin : 24;
    return (struct ggc_access) {.offset = begin,
                                .run = test_range(s->rng, 1, most),
                                .stride = test_below(s->rng, 9),
                                .count = 1,
                                .mode = mode,
                                .buffer = test_below(s->rng, s->buffers)};
}

// A slot: an eighth of a buffer, as a compute tensor that ggml-alloc placed there.
static struct ggc_access slot(struct style * s, uint32_t mode, uint32_t index) {
    const uint32_t size = s->size / 8;
    return (struct ggc_access) {.offset = (uint64_t) (index % 8) * size,
                                .run = size,
                                .count = 1,
                                .buffer = index / 8 % s->buffers,
                                .mode = mode};
}

static void anything(struct style * s) {
    for (uint32_t i = test_below(s->rng, 5); i > 0; i--) {
        const uint32_t mode = test_chance(s->rng, 0.35) ? GGC_WRITE : GGC_READ;
        struct ggc_access a =
            test_chance(s->rng, 0.3) ? random_stripe(s, mode) : random_range(s, mode);
        if (test_chance(s->rng, s->zero)) {
            a.count = test_below(s->rng, 2);  // nothing, said in either way
            a.run = a.count ? 0 : a.run;
        }
        test_access(s->units, a);
    }
}

// Reads some slots, writes one, which may be one of those that it reads.
static void dataflow(struct style * s) {
    const uint32_t slots = 8 * s->buffers, n = test_range(s->rng, 0, 3);
    uint32_t source = test_below(s->rng, slots);
    for (uint32_t i = 0; i < n; i++) {
        source = test_below(s->rng, slots);
        test_access(s->units, slot(s, GGC_READ, source));
    }
    const bool in_place = n && test_chance(s->rng, s->in_place);
    test_access(s->units, slot(s, GGC_WRITE, in_place ? source : test_below(s->rng, slots)));
}

// One writes, many read and write apart, one reads it all.
static void fan(struct style * s, uint32_t width) {
    test_unit(s->units);
    test_write(s->units, 0, 0, 8);
    for (uint32_t i = 0; i < width; i++) {
        test_unit(s->units);
        test_read(s->units, 0, test_below(s->rng, 8), 8);
        test_write(s->units, 1, i, i + 1 + test_chance(s->rng, 0.1));
    }
    test_unit(s->units);
    test_read(s->units, 1, 0, width);
    test_write(s->units, 0, test_below(s->rng, 8), 8);
}

// Rows of a cache are written one at a time and read back as one range or as a column.
static void cache(struct style * s) {
    const uint32_t rows = s->size / s->stripe, row = test_below(s->rng, rows);
    test_write(s->units, 0, (uint64_t) row * s->stripe, (uint64_t) (row + 1) * s->stripe);
    test_unit(s->units);
    if (test_chance(s->rng, 0.5)) {
        test_read(s->units, 0, 0, (uint64_t) test_range(s->rng, 1, rows) * s->stripe);
    } else {
        test_access(s->units, random_stripe(s, GGC_READ));
    }
    if (s->buffers > 1) {
        test_access(s->units, slot(s, GGC_WRITE, 8 + test_below(s->rng, 8)));
    }
}

static void random_costs(struct style * s) {
    for (uint32_t u = 0; u < s->units->n_units; u++) {
        const double cost = test_below(s->rng, 1000) * 0.125;
        s->units->cost[u] = test_chance(s->rng, 0.05) ? 0 : cost;
    }
    s->units->has_cost = true;
}

void test_random_units(struct test_rng * rng, uint32_t max_units, struct test_units * units) {
    test_units_clear(units);
    struct style s = {
        .units = units,
        .rng = rng,
        .buffers = test_range(rng, 1, TEST_BUFFERS),
        .size = 8 * test_range(rng, 4, TEST_UNIVERSE / 8),
        .stripe = test_range(rng, 1, 16),
        .fence = test_chance(rng, 0.3) ? 0.05 : 0,
        .zero = 0.05,
        .in_place = 0.3,
    };
    const uint32_t n = test_range(rng, 1, max_units), kind = test_below(rng, 6);
    while (units->n_units < n) {
        const uint32_t style = kind < 4 ? kind : test_below(rng, 8);
        if (test_chance(rng, s.fence)) {
            test_fence(units);
        } else if (style == 2 && s.buffers > 1 && s.size >= 66) {
            const uint32_t room = n - units->n_units;
            fan(&s, test_range(rng, 1, room < 64 ? room : 64));
        } else {
            test_unit(units);
            (style == 0 ? anything : style == 1 ? cache : dataflow)(&s);
        }
    }
    if (test_chance(rng, 0.5)) {
        random_costs(&s);
    }
}

//
// The allocator. A block carries its size in front, so that garbage can be written over it when it
// comes back: who reads memory before writing it, or after freeing it, computes with garbage.
//

union block {
    struct {
        uint64_t magic;
        size_t size;
    } head;
    max_align_t align;
};

#define BLOCK_MAGIC UINT64_C(0x67676374626c6f63)

static void * heap_alloc(void * ctx, size_t size) {
    struct test_heap * heap = ctx;
    heap->n_calls++;
    const bool failing = heap->fail_at && (heap->fail_after ? heap->n_calls >= heap->fail_at
                                                            : heap->n_calls == heap->fail_at);
    if (failing) {
        heap->n_failed++;
        return NULL;
    }
    union block * block = malloc(sizeof *block + size);
    CHECK_MSG(block, "out of memory for %zu bytes", size);
    block->head.magic = BLOCK_MAGIC;
    block->head.size = size;
    memset(block + 1, 0xa5, size);
    heap->live_blocks++;
    heap->live_bytes += size;
    return block + 1;
}

static void heap_free(void * ctx, void * ptr) {
    struct test_heap * heap = ctx;
    CHECK_MSG(ptr, "the allocator was asked to free NULL");
    union block * block = (union block *) ptr - 1;
    CHECK_MSG(block->head.magic == BLOCK_MAGIC, "a block was freed twice or is not ours");
    heap->live_blocks--;
    heap->live_bytes -= block->head.size;
    memset(block, 0xdd, sizeof *block + block->head.size);
    free(block);
}

void test_heap_init(struct test_heap * heap) {
    memset(heap, 0, sizeof *heap);
    heap->allocator.alloc = heap_alloc;
    heap->allocator.free = heap_free;
    heap->allocator.ctx = heap;
}

//
// Conflicts
//

static bool access_has(const struct ggc_access * access, uint64_t byte) {
    if (byte < access->offset || access->run == 0 || access->count == 0) {
        return false;
    }
    const uint64_t at = byte - access->offset;
    return access->count == 1
               ? at < access->run
               : at / access->stride < access->count && at % access->stride < access->run;
}

static bool is_fence(const struct ggc_units * units, uint32_t u) {
    return units->fence && units->fence[u];
}

void test_check_conflict(const struct ggc_units * units, const struct ggc_conflict * c) {
    CHECK_MSG(c->a < c->b && c->b < units->n_units, "units %u and %u", c->a, c->b);
    if (is_fence(units, c->a) || is_fence(units, c->b)) {
        CHECK_EQ(c->hazard, GGC_FENCE);
        CHECK(c->access_a == GGC_NONE && c->access_b == GGC_NONE);
        CHECK(c->begin == 0 && c->end == 0);
        return;
    }
    const uint32_t i = c->access_a, j = c->access_b;
    CHECK(i >= units->access_begin[c->a] && i < units->access_begin[c->a + 1]);
    CHECK(j >= units->access_begin[c->b] && j < units->access_begin[c->b + 1]);
    const struct ggc_access *a = &units->accesses[i], *b = &units->accesses[j];
    CHECK(a->buffer == c->buffer && b->buffer == c->buffer);
    CHECK(a->mode == GGC_WRITE || b->mode == GGC_WRITE);
    CHECK_EQ(c->hazard, a->mode == GGC_READ ? GGC_WAR : b->mode == GGC_READ ? GGC_RAW : GGC_WAW);
    CHECK_MSG(c->begin < c->end, "bytes %llu to %llu", (unsigned long long) c->begin,
              (unsigned long long) c->end);
    const uint64_t n = c->end - c->begin < 64 ? c->end - c->begin : 64;
    for (uint64_t k = 0; k < n; k++) {
        CHECK_MSG(access_has(a, c->begin + k) && access_has(b, c->begin + k),
                  "byte %llu of %llu to %llu is not touched by both accesses",
                  (unsigned long long) (c->begin + k), (unsigned long long) c->begin,
                  (unsigned long long) c->end);
    }
    CHECK(access_has(a, c->end - 1) && access_has(b, c->end - 1));
}
