// What the C tests of the core share: checks, a seeded generator, lists of units, an allocator that
// fails on demand, and an oracle that decides races byte by byte.
//
// A test is a program: exit 0 it passed, 77 it was skipped (and says why), 1 it failed (and says
// where, in which case, and the seed). Usage of each: test_NAME [seed [iterations]], or the
// environment: GGC_TEST_SEED, GGC_TEST_ITER, and GGC_TEST_SCALE, a factor on the default number of
// iterations (0.1 for a sanitizer build). A random test gives each case a generator of its own and
// takes a third argument, the case to begin with: `test_NAME SEED 1 CASE` runs that one alone.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "ggc-core.h"

#if defined(__GNUC__)
#    define TEST_PRINTF(f, a) __attribute__((format(printf, f, a)))
#    define TEST_NORETURN __attribute__((noreturn))
#else
#    define TEST_PRINTF(f, a)
#    define TEST_NORETURN
#endif

//
// Running and failing
//

#define TEST_SKIPPED 77

struct test_options {
    uint64_t seed;
    uint64_t iterations;
    uint64_t first;
};

// Reads seed and iterations from the arguments, else the environment, else the defaults.
struct test_options test_begin(int argc, char ** argv, uint64_t default_seed,
                               uint64_t default_iterations);

// Names what runs now; a failure prints it. Kept per thread.
void test_case(const char * format, ...) TEST_PRINTF(1, 2);

// Units that a failure prints when they are few; NULL: none. Borrowed.
void test_subject(const struct ggc_units * units);

// Prints the summary line and returns the exit status 0.
int test_passed(const char * format, ...) TEST_PRINTF(1, 2);
TEST_NORETURN void test_skip(const char * format, ...) TEST_PRINTF(1, 2);
TEST_NORETURN void test_fail(const char * file, int line, const char * format, ...)
    TEST_PRINTF(3, 4);

#define CHECK(condition)                                     \
    do {                                                     \
        if (!(condition)) {                                  \
            test_fail(__FILE__, __LINE__, "%s", #condition); \
        }                                                    \
    } while (0)

#define CHECK_MSG(condition, ...)                       \
    do {                                                \
        if (!(condition)) {                             \
            test_fail(__FILE__, __LINE__, __VA_ARGS__); \
        }                                               \
    } while (0)

#define CHECK_EQ(a, b)                                                                         \
    do {                                                                                       \
        const long long test_a_ = (long long) (a), test_b_ = (long long) (b);                  \
        if (test_a_ != test_b_) {                                                              \
            test_fail(__FILE__, __LINE__, "%s is %lld, %s is %lld", #a, test_a_, #b, test_b_); \
        }                                                                                      \
    } while (0)

#define CHECK_STATUS(call, expected)                                            \
    do {                                                                        \
        const enum ggc_status test_s_ = (call);                                 \
        if (test_s_ != (expected)) {                                            \
            test_fail(__FILE__, __LINE__, "%s: %s, expected %s", #call,         \
                      ggc_status_string(test_s_), ggc_status_string(expected)); \
        }                                                                       \
    } while (0)

void * test_alloc(size_t size);  // zeroed; fails the test when out of memory

//
// Random numbers: splitmix64, the same sequence everywhere
//

struct test_rng {
    uint64_t state;
};

struct test_rng test_rng(uint64_t seed, uint64_t index);  // of one case of a random test
uint64_t test_rand(struct test_rng * rng);
uint32_t test_below(struct test_rng * rng, uint32_t n);                   // 0 .. n-1, n > 0
uint32_t test_range(struct test_rng * rng, uint32_t low, uint32_t high);  // both included
bool test_chance(struct test_rng * rng, double probability);
void test_shuffle(struct test_rng * rng, uint32_t * values, uint32_t n);

//
// Lists of units
//

struct test_units {
    uint32_t n_units, n_accesses, unit_capacity, access_capacity;
    uint32_t * begin;
    struct ggc_access * accesses;
    uint8_t * fence;
    double * cost;
    bool has_cost;  // without it the view has cost == NULL
};

void test_units_init(struct test_units * units);
void test_units_free(struct test_units * units);
void test_units_clear(struct test_units * units);

// Appends a unit that touches nothing; returns its index. The next calls add to the last unit.
uint32_t test_unit(struct test_units * units);
uint32_t test_fence(struct test_units * units);
void test_cost(struct test_units * units, double cost);
void test_access(struct test_units * units, struct ggc_access access);

// Bytes [begin, end) of `buffer`.
void test_read(struct test_units * units, uint32_t buffer, uint64_t begin, uint64_t end);
void test_write(struct test_units * units, uint32_t buffer, uint64_t begin, uint64_t end);

// What the functions of the core take; valid until `units` changes.
struct ggc_units test_view(const struct test_units * units);

// Random units: 1 .. max_units of them on a few small buffers, in one of several styles (dataflow
// on reused memory, stripes, fans, caches, anything at all). Every byte lies below TEST_UNIVERSE.
#define TEST_UNIVERSE 256
#define TEST_BUFFERS 4
void test_random_units(struct test_rng * rng, uint32_t max_units, struct test_units * units);

void test_print_units(const struct ggc_units * units);

//
// An allocator that counts, fills what it gives and takes with garbage, and fails on demand
//

struct test_heap {
    struct ggc_allocator allocator;
    uint64_t n_calls;  // allocations asked for
    uint64_t fail_at;  // the call that fails, counted from 1; 0: none
    bool fail_after;   // and all that follow it
    uint64_t n_failed;
    uint64_t live_blocks;
    uint64_t live_bytes;
};

void test_heap_init(struct test_heap * heap);

//
// Conflicts, and rows of bits
//

// Rows of bits.
static inline bool test_bit(const uint64_t * row, uint32_t i) {
    return row[i / 64] >> (i % 64) & 1;
}
static inline void test_set_bit(uint64_t * row, uint32_t i) {
    row[i / 64] |= UINT64_C(1) << (i % 64);
}

// Fails the test unless `conflict` is a true conflict of `units`, byte for byte.
void test_check_conflict(const struct ggc_units * units, const struct ggc_conflict * conflict);
