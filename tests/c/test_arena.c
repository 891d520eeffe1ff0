// Memory of the planner: what is asked for is there, apart from everything else, and given back.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "support.h"

#define N 200

struct counted {
    size_t n_live, n_calls, fail_at;
};

static void * counted_alloc(void * ctx, size_t size) {
    struct counted * counted = ctx;
    if (++counted->n_calls == counted->fail_at) {
        return NULL;
    }
    counted->n_live++;
    return malloc(size);
}

static void counted_free(void * ctx, void * ptr) {
    ((struct counted *) ctx)->n_live--;
    free(ptr);
}

struct place {
    unsigned char * at;
    size_t n;
    unsigned char mark;
};

static void fill(struct place * place, unsigned char mark) {
    place->mark = mark;
    memset(place->at, mark, place->n);
}

static void check(const struct place * place) {
    for (size_t i = 0; i < place->n; i++) {
        CHECK(place->at[i] == place->mark);
    }
}

// Random sizes, growth and releases; every place keeps what was written to it.
static void keeps_contents(const struct ggc_allocator * allocator, struct test_rng * rng) {
    struct arena arena;
    struct place places[N];
    arena_init(&arena, allocator);
    if (test_chance(rng, 0.5)) {
        arena_expect(&arena, test_below(rng, 1 << 23));
    }
    for (uint32_t i = 0; i < N; i++) {
        const size_t n = test_chance(rng, 0.02) ? test_below(rng, 5 << 20) : test_below(rng, 3000);
        places[i] = (struct place) {arena_alloc(&arena, n, 1), n, 0};
        CHECK(places[i].at != NULL && (uintptr_t) places[i].at % _Alignof(max_align_t) == 0);
        fill(&places[i], (unsigned char) i);
        if (test_chance(rng, 0.3)) {
            struct place * grown = &places[test_chance(rng, 0.5) ? i : test_below(rng, i + 1)];
            const size_t more = grown->n + test_below(rng, 2000);
            grown->at = arena_grow(&arena, grown->at, grown->n, more, 1);
            CHECK(grown->at != NULL);
            check(grown);
            grown->n = more;
            fill(grown, grown->mark);
        }
        if (test_chance(rng, 0.1)) {
            const struct arena_mark mark = arena_mark(&arena);
            for (uint32_t k = test_below(rng, 20); k-- > 0;) {
                struct place passing = {NULL, test_below(rng, 20000), 0};
                passing.at = arena_zalloc(&arena, passing.n, 1);
                CHECK(passing.at != NULL);
                check(&passing);
                fill(&passing, 0xee);
            }
            arena_release(&arena, mark);
        }
    }
    for (uint32_t i = 0; i < N; i++) {
        check(&places[i]);
    }
    struct arena moved;
    arena_move(&moved, &arena);
    arena_free(&arena);  // has nothing any more
    check(&places[0]);
    arena_free(&moved);
}

static void gives_back_what_it_took(struct test_rng * rng) {
    struct counted counted = {0};
    const struct ggc_allocator allocator = {counted_alloc, counted_free, &counted};
    keeps_contents(&allocator, rng);
    CHECK(counted.n_calls >= N && counted.n_live == 0);
}

static void sizes_that_cannot_be(void) {
    struct arena arena;
    arena_init(&arena, NULL);
    CHECK(arena_alloc(&arena, SIZE_MAX, 1) == NULL);
    CHECK(arena_alloc(&arena, SIZE_MAX / 2, 4) == NULL);
    CHECK(arena_alloc(&arena, (size_t) 1 << 60, 16) == NULL);
    CHECK(arena_alloc(&arena, 0, 16) != NULL);
    uint32_t * kept = arena_alloc(&arena, 4, sizeof(uint32_t));
    CHECK(arena_grow(&arena, kept, 4, SIZE_MAX / 2, sizeof(uint32_t)) == NULL);
    memset(kept, 1, 4 * sizeof(uint32_t));  // still ours
    arena_free(&arena);
}

// An allocator of the caller's is asked for each allocation, and may refuse any.
static void refusals(void) {
    struct counted counted = {.fail_at = 2};
    const struct ggc_allocator allocator = {counted_alloc, counted_free, &counted};
    struct arena arena;
    arena_init(&arena, &allocator);
    void * first = arena_alloc(&arena, 1, 8);
    CHECK(first != NULL && arena_alloc(&arena, 1, 8) == NULL);
    CHECK(arena_grow(&arena, first, 1, 2, 8) != NULL && counted.n_live == 1);
    arena_free(&arena);
    CHECK(counted.n_live == 0);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 200);
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        struct test_rng rng = test_rng(options.seed, i);
        test_case("contents %llu", (unsigned long long) i);
        keeps_contents(NULL, &rng);
        gives_back_what_it_took(&rng);
    }
    test_case("sizes that cannot be");
    sizes_that_cannot_be();
    test_case("refusals");
    refusals();
    return test_passed("%llu arenas", (unsigned long long) options.iterations);
}
