// Layouts in named cases: chains in place, buffers of a size, what is refused, every allocation
// that fails, 100,000 tensors; and the plans that memory asks for.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/memory.h"
#include "core/memory_window.h"
#include "support.h"

static struct test_units units;
static struct memory_tensor * tensors;
static uint32_t *uses, n_tensors, n_uses;
static uint32_t *dep_begin, *dep, n_deps;
static struct memory_schedule made;

static void scene_clear(void) {
    test_units_clear(&units);
    n_tensors = n_uses = 0;
}

// A tensor that unit `unit` (the last one added) writes.
static uint32_t tensor(uint64_t size, uint32_t in_place) {
    test_write(&units, n_tensors, 0, size);
    tensors[n_tensors] = (struct memory_tensor) {.size = size, .in_place = in_place};
    return n_tensors++;
}

static void reads(uint32_t index) {
    test_read(&units, index, 0, tensors[index].size);
}

// The uses, from the units' accesses.
static void find_uses(void) {
    const struct ggc_units view = test_view(&units);
    uint32_t * next = test_alloc((n_tensors + 1) * sizeof *next);
    for (uint32_t i = 0; i < view.access_begin[view.n_units]; i++) {
        tensors[view.accesses[i].buffer].end++;
    }
    for (uint32_t i = 0; i < n_tensors; i++) {
        tensors[i].begin = n_uses;
        next[i] = n_uses;
        n_uses += tensors[i].end;
        tensors[i].end = n_uses;
    }
    for (uint32_t u = 0; u < view.n_units; u++) {
        for (uint32_t k = view.access_begin[u]; k < view.access_begin[u + 1]; k++) {
            uses[next[view.accesses[k].buffer]++] = u;
        }
    }
    free(next);
}

static struct ggc_plan * plan_on(uint32_t n_streams) {
    const struct ggc_units view = test_view(&units);
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.n_streams = n_streams;
    struct ggc_plan * plan = NULL;
    CHECK_STATUS(ggc_plan_new(&view, &params, &plan), GGC_OK);
    return plan;
}

static void find_deps(const struct ggc_plan * plan) {
    n_deps = 0;
    dep_begin[0] = 0;
    for (uint32_t u = 0; u < units.n_units; u++) {
        uint32_t n;
        const uint32_t * deps = ggc_plan_deps(plan, u, &n);
        for (uint32_t k = 0; k < n; k++) {
            dep[n_deps++] = deps[k];
        }
        dep_begin[u + 1] = n_deps;
    }
}

static struct memory_problem problem_of(const struct ggc_plan * plan) {
    find_deps(plan);
    return (struct memory_problem) {.n_units = units.n_units,
                                    .cost = units.has_cost ? units.cost : NULL,
                                    .schedule = ggc_plan_schedule(plan),
                                    .tensors = tensors,
                                    .n_tensors = n_tensors,
                                    .uses = uses,
                                    .dep_begin = dep_begin,
                                    .dep = dep,
                                    .alignment = 1,
                                    .max_buffer = UINT64_MAX};
}

//
// Named cases
//

// One buffer's worth is enough, however long the chain.
static void chain_in_place(void) {
    scene_clear();
    uint64_t offset[20];
    for (uint32_t i = 0; i < 20; i++) {
        test_unit(&units);
        if (i > 0) {
            reads(i - 1);
        }
        tensor(100, i > 0 ? i - 1 : GGC_NONE);
    }
    find_uses();
    struct ggc_plan * plan = plan_on(4);
    const struct memory_problem problem = problem_of(plan);
    struct memory_layout layout;
    CHECK_STATUS(memory_lay_out(&problem, 0, NULL, offset, &layout), GGC_OK);
    CHECK(layout.size == 100 && layout.bound == 100 && layout.apart == 2000);
    tensors[5].in_place = GGC_NONE;  // two halves
    CHECK_STATUS(memory_lay_out(&problem, 0, NULL, offset, &layout), GGC_OK);
    CHECK(layout.size == 200 && layout.bound == 200);
    tensors[19].result = true;
    tensors[0].kept = true;
    CHECK_STATUS(memory_lay_out(&problem, 0, NULL, offset, &layout), GGC_OK);
    CHECK_EQ(layout.size, 300);
    ggc_plan_free(plan);
}

// Two chains side by side: 4 tensors at once by the plan, 3 serially: when one chain is through,
// its end is kept beside two links of the other.
static void two_chains(void) {
    scene_clear();
    uint64_t offset[20];
    for (uint32_t i = 0; i < 20; i++) {
        test_unit(&units);
        if (i % 10 > 0) {
            reads(i - 1);
        }
        tensor(100, GGC_NONE);
        tensors[i].result = i % 10 == 9;
    }
    find_uses();
    struct ggc_plan * plan = plan_on(2);
    const struct memory_problem problem = problem_of(plan);
    struct memory_layout layout;
    CHECK_EQ(ggc_plan_get_stats(plan).n_streams, 2);
    CHECK_STATUS(memory_lay_out(&problem, 500, NULL, offset, &layout), GGC_OK);
    CHECK(layout.sharing == MEMORY_BY_PLAN && layout.size == 400 && layout.bound == 400);
    CHECK_STATUS(memory_lay_out(&problem, 399, NULL, offset, &layout), GGC_OK);
    CHECK(layout.sharing >= MEMORY_BY_TIME && layout.size == 300);
    ggc_plan_free(plan);
}

static double end_of(const struct memory_schedule * s) {
    double end = 0;
    for (uint32_t u = 0; u < units.n_units; u++) {
        end = fmax(end, s->start[u] + units.cost[u]);
    }
    return end;
}

// Pairs of a unit that makes something and one that uses it: as many at a time as there is memory.
static void as_many_as_fit(void) {
    enum { N = 24 };
    scene_clear();
    uint64_t offset[N];
    for (uint32_t i = 0; i < N; i++) {
        test_unit(&units);
        test_cost(&units, 10);
        tensor(1000, GGC_NONE);
        test_unit(&units);
        test_cost(&units, 2);
        reads(i);
    }
    find_uses();
    struct ggc_plan * plan = plan_on(4);
    const struct memory_problem problem = problem_of(plan);
    for (uint32_t k = 0; k <= 4; k++) {
        struct memory_layout layout;
        CHECK_STATUS(memory_fit(&problem, 1000 * k + 999, NULL, offset, &made, &layout), GGC_OK);
        const uint32_t at_once = k < 1 ? 1 : k;
        CHECK_EQ(layout.size, 1000 * at_once);
        CHECK(layout.sharing == MEMORY_BY_TIME && layout.bound > 4000);
        const double expected = 12.0 * units.n_units / 2 / at_once;
        CHECK_MSG(end_of(&made) == expected, "%g us for %u at once", end_of(&made), at_once);
    }
    ggc_plan_free(plan);
}

// What ends before it is needed holds memory that the chain needs: it runs beside the chain, and
// not ahead of it. Each link of the chain reads what a unit of its own has made for it.
static void not_too_far_ahead(void) {
    enum { N = 50 };
    scene_clear();
    uint64_t offset[2 * N];
    for (uint32_t i = 0; i < N; i++) {
        test_unit(&units);
        test_cost(&units, 1);
        tensor(1000, GGC_NONE);
        test_unit(&units);
        test_cost(&units, 10);
        reads(2 * i);
        if (i > 0) {
            reads(2 * i - 1);
        }
        tensor(1000, GGC_NONE);
    }
    find_uses();
    struct ggc_plan * plan = plan_on(2);
    const struct memory_problem problem = problem_of(plan);
    struct memory_layout layout;
    for (uint64_t budget = 4000; budget <= 20000; budget += 8000) {  // whatever there is
        CHECK_STATUS(memory_fit(&problem, budget, NULL, offset, &made, &layout), GGC_OK);
        CHECK(layout.sharing == MEMORY_BY_TIME && layout.size <= 4000);
        CHECK_MSG(end_of(&made) <= 1 + 10 * N, "%g us", end_of(&made));
    }
    ggc_plan_free(plan);
}

// Nothing fits: it takes what a serial layout takes, and with as much of the plan as that allows.
static void least_and_no_less(void) {
    scene_clear();
    uint64_t offset[20];
    for (uint32_t i = 0; i < 20; i++) {
        test_unit(&units);
        test_cost(&units, 1);
        if (i > 1) {
            reads(i - 2);
        }
        tensor(100, GGC_NONE);  // two chains, link by link
    }
    find_uses();
    struct ggc_plan * plan = plan_on(2);
    const struct memory_problem problem = problem_of(plan);
    struct memory_layout layout;
    CHECK_STATUS(memory_lay_out(&problem, 0, NULL, offset, &layout), GGC_OK);
    CHECK(layout.sharing == MEMORY_SERIAL);
    const uint64_t least = layout.size;
    CHECK_STATUS(memory_fit(&problem, 0, NULL, offset, &made, &layout), GGC_OK);
    CHECK(layout.sharing == MEMORY_BY_TIME && layout.size <= least);
    CHECK(end_of(&made) < 20);
    ggc_plan_free(plan);
}

static void buffers_of_a_size(void) {
    scene_clear();
    uint64_t offset[10];
    test_unit(&units);
    for (uint32_t i = 0; i < 10; i++) {
        tensor(i == 5 ? 250 : 60, GGC_NONE);
    }
    find_uses();
    struct ggc_plan * plan = plan_on(1);
    struct memory_problem problem = problem_of(plan);
    struct memory_layout layout;
    problem.max_buffer = 130;  // two tensors each; but the largest needs a buffer of its own
    for (uint64_t budget = 0; budget <= 10000; budget += 10000) {
        CHECK_STATUS(memory_lay_out(&problem, budget, NULL, offset, &layout), GGC_OK);
        CHECK(layout.size == 790 && layout.max_buffer == 250);
        for (uint32_t i = 0; i < 10; i++) {
            CHECK_EQ(offset[i] / 250, (offset[i] + tensors[i].size - 1) / 250);
        }
    }
    ggc_plan_free(plan);
}

static void nothing_at_all(void) {
    scene_clear();
    struct ggc_plan * plan = plan_on(2);
    const struct memory_problem problem = problem_of(plan);
    struct memory_layout layout = {.size = 7};
    CHECK_STATUS(memory_lay_out(&problem, 0, NULL, NULL, &layout), GGC_OK);
    CHECK(layout.size == 0 && layout.bound == 0 && layout.sharing == MEMORY_APART);
    ggc_plan_free(plan);
}

static void refused(const struct memory_problem * problem) {
    struct memory_layout layout;
    uint64_t offset[2];
    CHECK_STATUS(memory_lay_out(problem, 0, NULL, offset, &layout), GGC_E_INVALID);
    CHECK_STATUS(memory_fit(problem, 0, NULL, offset, &made, &layout), GGC_E_INVALID);
}

static void what_is_refused(void) {
    scene_clear();
    test_unit(&units);
    tensor(8, GGC_NONE);
    test_unit(&units);
    reads(0);
    tensor(8, 0);
    find_uses();
    struct ggc_plan * plan = plan_on(2);
    const struct memory_problem good = problem_of(plan);
    struct memory_problem bad = good;
    bad.alignment = 3;
    refused(&bad);
    bad.alignment = 0;
    refused(&bad);
    bad = good;
    bad.max_buffer = 0;
    refused(&bad);
    bad = good;
    bad.n_units = 1;
    refused(&bad);
    tensors[1].in_place = 1;  // itself
    refused(&good);
    tensors[1].in_place = 0;
    tensors[1].size = UINT64_MAX;
    refused(&good);
    tensors[0].size = tensors[1].size = UINT64_MAX / 6;  // fits alone, not both
    refused(&good);
    tensors[0].size = tensors[1].size = 8;
    uses[tensors[1].begin] = 2;  // no such unit
    refused(&good);
    uses[tensors[1].begin] = 1;
    struct memory_layout layout;
    uint64_t offset[2];
    CHECK_STATUS(memory_lay_out(&good, 0, NULL, offset, &layout), GGC_OK);
    CHECK_EQ(layout.size, 8);
    ggc_plan_free(plan);
}

//
// Graphs of some size: a few chains side by side, which meet now and then; at times a unit reads
// what was made up to `reach` units ago.
//

static void make_graph(struct test_rng * rng, uint32_t n, uint32_t reach) {
    enum { WIDTH = 6 };
    uint32_t ends[WIDTH];
    scene_clear();
    for (uint32_t i = 0; i < n; i++) {
        test_unit(&units);
        test_cost(&units, 1 + test_below(rng, 30));
        const uint32_t chain = test_below(rng, WIDTH);
        uint32_t in_place = GGC_NONE;
        if (i >= WIDTH) {
            reads(ends[chain]);
            in_place = test_chance(rng, 0.3) ? ends[chain] : GGC_NONE;
            if (test_chance(rng, 0.2)) {
                reads(ends[test_below(rng, WIDTH)]);
            }
            if (test_chance(rng, 0.02)) {
                reads(i - 1 - test_below(rng, i < reach ? i : reach));
            }
        }
        ends[i < WIDTH ? i : chain] = tensor(128 * (1 + test_below(rng, 64)), in_place);
    }
    find_uses();
}

static enum ggc_status lay_out(bool anew, const struct memory_problem * problem, uint64_t budget,
                               const struct ggc_allocator * allocator, uint64_t * offset,
                               struct memory_layout * layout) {
    return anew ? memory_fit(problem, budget, allocator, offset, &made, layout)
                : memory_lay_out(problem, budget, allocator, offset, layout);
}

static void every_allocation_fails(bool anew, uint64_t more) {
    struct test_rng rng = test_rng(3, 0);
    make_graph(&rng, 120, 120);
    struct ggc_plan * plan = plan_on(3);
    const struct memory_problem problem = problem_of(plan);
    uint64_t offset[120];
    struct test_heap heap;
    struct memory_layout layout, least;
    CHECK_STATUS(memory_lay_out(&problem, 0, NULL, offset, &least), GGC_OK);
    const uint64_t budget = more > 0 ? least.size + more : 0;
    test_heap_init(&heap);
    CHECK_STATUS(lay_out(anew, &problem, budget, &heap.allocator, offset, &layout), GGC_OK);
    CHECK(layout.sharing == MEMORY_BY_TIME && heap.live_blocks == 0);
    CHECK(layout.size <= least.size + more);
    const uint64_t calls = heap.n_calls;
    CHECK(calls > 20);
    for (uint64_t at = 1; at <= calls; at++) {
        for (int after = 0; after < 2; after++) {
            test_heap_init(&heap);
            heap.fail_at = at;
            heap.fail_after = after;
            layout.size = 77;
            CHECK_STATUS(lay_out(anew, &problem, budget, &heap.allocator, offset, &layout),
                         GGC_E_NOMEM);
            CHECK(heap.live_blocks == 0 && layout.size == 77);
        }
    }
    ggc_plan_free(plan);
}

// Where the first rule of placing takes more than there is, another one often does not.
static void several_rules(void) {
    uint64_t offset[200];
    uint32_t smaller = 0;
    for (uint64_t i = 0; i < 50; i++) {
        struct test_rng rng = test_rng(5, i);
        make_graph(&rng, 200, 200);
        struct ggc_plan * plan = plan_on(4);
        const struct memory_problem problem = problem_of(plan);
        struct memory_layout first, other;
        CHECK_STATUS(memory_lay_out(&problem, UINT64_MAX, NULL, offset, &first), GGC_OK);
        CHECK_STATUS(memory_lay_out(&problem, first.apart - 1, NULL, offset, &first), GGC_OK);
        CHECK(first.sharing == MEMORY_BY_PLAN);
        CHECK_STATUS(memory_lay_out(&problem, first.size - 1, NULL, offset, &other), GGC_OK);
        smaller += other.sharing == MEMORY_BY_PLAN;
        ggc_plan_free(plan);
    }
    CHECK_MSG(smaller >= 10, "%u of 50", smaller);
}

// By definition: serially, and as the plan knows or, with some slack, by the times.
static bool is_before(const struct memory * m, double slack, uint32_t a, uint32_t b) {
    const struct slot *x = &m->slots[a], *y = &m->slots[b];
    const uint32_t n = m->n_streams;
    const bool serially = !x->kept && !x->result && !y->kept && x->last < y->first;
    const bool known = row_within(m->last + (size_t) a * n, m->known + (size_t) b * n, n);
    double end = 0, begin = INFINITY;
    for (uint32_t i = 0; i < n_tensors; i++) {
        for (uint32_t k = tensors[i].begin; k < tensors[i].end; k++) {
            end = m->slot_of[i] == a ? fmax(end, m->finish[uses[k]]) : end;
            begin = m->slot_of[i] == b ? fmin(begin, m->start[uses[k]]) : begin;
        }
    }
    return serially && (known || end + slack <= begin);
}

// Each pair of slots, looked at by itself, in windows that begin with what is not over yet.
static void check_windows(struct memory * m, double slack, uint32_t size) {
    struct slot_order order;
    uint32_t before[200], n_conflicts = 0;
    CHECK(slot_order_init(&order, m, slack, size));
    struct window w = {.order = &order, .before = before};
    for (; w.begin < order.n; w.begin += w.n) {
        w.n = order.n - w.begin < size ? order.n - w.begin : size;
        w.n_before = 0;
        for (uint32_t k = 0; k < w.begin; k++) {
            if (!is_over(&order, k, w.begin)) {
                before[w.n_before++] = k;
            }
            for (uint32_t i = w.begin; i < order.n && is_over(&order, k, w.begin); i++) {
                CHECK(is_before(m, slack, order.slot[k], order.slot[i]));
            }
        }
        CHECK(window_init(&w, m->arena));
        for (uint32_t i = 0; i < w.n; i++) {
            uint32_t degree = 0;
            for (uint32_t c = 0; c < window_columns(&w); c++) {
                const bool own = c < w.n, is_one = own || c >= w.first_before;
                const uint32_t k = own ? w.begin + c : is_one ? before[c - w.first_before] : 0;
                const uint32_t one = order.slot[k], other = order.slot[w.begin + i];
                const bool expected = is_one && k != w.begin + i &&
                                      !is_before(m, slack, one, other) &&
                                      !is_before(m, slack, other, one);
                CHECK((window_row(&w, i)[c / 64] >> (c % 64) & 1) == expected);
                degree += expected;
            }
            CHECK_EQ(w.degree[i], degree);
            n_conflicts += degree;
        }
    }
    CHECK(n_conflicts > 0);
}

static void conflicts_by_windows(void) {
    const double slacks[] = {INFINITY, 50, 0, -50, -INFINITY};
    for (uint64_t i = 0; i < 10; i++) {
        struct test_rng rng = test_rng(6, i);
        make_graph(&rng, 200, 200);
        tensors[0].kept = tensors[7].kept = tensors[190].result = true;
        struct ggc_plan * plan = plan_on(3);
        const struct memory_problem problem = problem_of(plan);
        struct arena arena;
        arena_init(&arena, NULL);
        struct memory m = memory_for(&problem, &arena);
        uint32_t order[200];
        CHECK(memory_init(&m) && memory_walk(&m));
        for (uint32_t k = 0; k < 5; k++) {
            CHECK_STATUS(memory_rank_times(&m, isfinite(slacks[k]) ? slacks[k] : 0, order), GGC_OK);
            memory_find_slots(&m, slacks[k]);
            check_windows(&m, slacks[k], k % 2 == 0 ? 70 : 64);
        }
        arena_free(&arena);
        ggc_plan_free(plan);
    }
}

// What is in use at once serially is more than there is: no schedule is made for that, and none is
// laid out twice.
static void nothing_in_vain(void) {
    struct test_rng rng = test_rng(7, 0);
    make_graph(&rng, 120, 120);
    struct ggc_plan * plan = plan_on(3);
    const struct memory_problem problem = problem_of(plan);
    uint64_t offset[120];
    struct test_heap heap;
    struct memory_layout layout;
    uint64_t calls[2];
    CHECK_STATUS(memory_lay_out(&problem, 0, NULL, offset, &layout), GGC_OK);
    const uint64_t least = layout.size;
    for (int k = 0; k < 2; k++) {
        test_heap_init(&heap);
        CHECK_STATUS(
            memory_fit(&problem, k == 0 ? 0 : least, &heap.allocator, offset, &made, &layout),
            GGC_OK);
        CHECK_EQ(heap.live_blocks, 0);
        calls[k] = heap.n_calls;
    }
    CHECK_MSG(calls[0] < calls[1] + 40, "%llu calls for nothing, %llu for the least",
              (unsigned long long) calls[0], (unsigned long long) calls[1]);
    ggc_plan_free(plan);
}

static void same_again(void) {
    struct test_rng rng = test_rng(4, 0);
    make_graph(&rng, 300, 300);
    struct ggc_plan * plan = plan_on(4);
    const struct memory_problem problem = problem_of(plan);
    uint64_t offset[300], offset_again[300];
    uint32_t order[300], stream[300];
    double start[300];
    const struct memory_schedule again = {order, stream, start};
    struct memory_layout least, layout, layout_again;
    CHECK_STATUS(memory_lay_out(&problem, 0, NULL, offset, &least), GGC_OK);
    const uint64_t budget = least.size + least.size / 4;
    CHECK_STATUS(memory_fit(&problem, budget, NULL, offset, &made, &layout), GGC_OK);
    CHECK_STATUS(memory_fit(&problem, budget, NULL, offset_again, &again, &layout_again), GGC_OK);
    CHECK(layout.sharing == MEMORY_BY_TIME && layout.size == layout_again.size);
    CHECK(memcmp(offset, offset_again, sizeof offset) == 0);
    CHECK(memcmp(made.order, order, sizeof order) == 0);
    CHECK(memcmp(made.stream, stream, sizeof stream) == 0);
    CHECK(memcmp(made.start, start, sizeof start) == 0);
    ggc_plan_free(plan);
}

//
// Plans that memory asks for
//

static void kept_schedules(void) {
    struct test_rng rng = test_rng(8, 0);
    make_graph(&rng, 60, 60);
    const struct ggc_units view = test_view(&units);
    struct ggc_plan *plan = plan_on(3), *again = NULL;
    const struct ggc_schedule keep = ggc_plan_schedule(plan);
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    params.keep = &keep;
    params.n_streams = 1;  // counts for nothing
    CHECK_STATUS(ggc_plan_new(&view, &params, &again), GGC_OK);
    const struct ggc_schedule kept = ggc_plan_schedule(again);
    CHECK(kept.n_streams == keep.n_streams && kept.wait_begin[60] == keep.wait_begin[60]);
    CHECK(memcmp(kept.order, keep.order, 60 * sizeof(uint32_t)) == 0);
    CHECK(memcmp(kept.stream, keep.stream, 60 * sizeof(uint32_t)) == 0);
    ggc_plan_free(again);
    uint32_t order[60];
    for (uint32_t i = 0; i < 60; i++) {
        order[i] = 59 - i;
    }
    struct ggc_schedule wrong = keep;
    again = NULL;
    params.keep = &wrong;
    wrong.order = order;  // backwards
    CHECK_STATUS(ggc_plan_new(&view, &params, &again), GGC_E_INVALID);
    memcpy(order, keep.order, sizeof order);
    order[59] = order[0];  // one of them twice
    CHECK_STATUS(ggc_plan_new(&view, &params, &again), GGC_E_INVALID);
    order[59] = 60;  // one that there is not
    CHECK_STATUS(ggc_plan_new(&view, &params, &again), GGC_E_INVALID);
    wrong = keep;
    wrong.n_streams = 1;  // units on streams that there are not
    CHECK_STATUS(ggc_plan_new(&view, &params, &again), GGC_E_INVALID);
    wrong = keep;
    wrong.n_units = 59;
    CHECK_STATUS(ggc_plan_new(&view, &params, &again), GGC_E_INVALID);
    CHECK(again == NULL);
    ggc_plan_free(plan);
}

//
// Time
//

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);  // whatever else the machine does
    return (double) time.tv_sec + 1e-9 * (double) time.tv_nsec;
}

// The plan is right on the addresses.
static void verify(const struct ggc_plan * plan, const uint64_t * offset) {
    struct ggc_units view = test_view(&units);
    const struct ggc_schedule schedule = ggc_plan_schedule(plan);
    struct ggc_access * accesses = test_alloc(units.n_accesses * sizeof *accesses);
    for (uint32_t i = 0; i < units.n_accesses; i++) {
        accesses[i] = units.accesses[i];
        accesses[i].offset = offset[accesses[i].buffer];
        accesses[i].buffer = 0;
    }
    view.accesses = accesses;
    CHECK_STATUS(ggc_verify_schedule(&view, &schedule, NULL), GGC_OK);
    free(accesses);
}

// Time beside that of planning; tenfold tensors must not take much more than tenfold time.
static void many_tensors(uint32_t most, uint32_t reach) {
    uint64_t * offset = test_alloc(most * sizeof *offset);
    double small = 0, small_anew = 0;
    for (uint32_t n = most / 100; n <= most; n *= 10) {
        struct test_rng rng = test_rng(9, n);
        make_graph(&rng, n, reach);
        double start = now();
        struct ggc_plan * plan = plan_on(4);
        const double planning = now() - start;
        const struct memory_problem problem = problem_of(plan);
        struct memory_layout by_plan, least;
        start = now();
        CHECK_STATUS(memory_lay_out(&problem, UINT64_MAX, NULL, offset, &by_plan), GGC_OK);
        const double apart = now() - start;
        start = now();
        CHECK_STATUS(memory_lay_out(&problem, by_plan.apart - 1, NULL, offset, &by_plan), GGC_OK);
        const double time = now() - start;
        if (n < most) {  // the verifier takes its time
            verify(plan, offset);
            struct memory_problem in_parts = problem;
            struct memory_layout parts;
            in_parts.max_buffer = 12000;
            CHECK_STATUS(memory_lay_out(&in_parts, by_plan.apart - 1, NULL, offset, &parts),
                         GGC_OK);
            verify(plan, offset);
        }
        start = now();
        CHECK_STATUS(memory_lay_out(&problem, 0, NULL, offset, &least), GGC_OK);
        CHECK(by_plan.sharing == MEMORY_BY_PLAN && least.size <= by_plan.size);
        const double at_least = now() - start;
        struct memory_layout anew;
        start = now();
        CHECK_STATUS(memory_fit(&problem, least.size + least.size / 10, NULL, offset, &made, &anew),
                     GGC_OK);
        const double planned_anew = now() - start;
        CHECK(anew.size <= least.size + least.size / 10);
        printf("%u tensors, reach %u: planned in %.3f ms, laid out in %.3f apart, %.3f by plan, "
               "%.3f at least, %.3f anew (%d); %.3f of the bound\n",
               n, reach, 1e3 * planning, 1e3 * apart, 1e3 * time, 1e3 * at_least,
               1e3 * planned_anew, anew.sharing, (double) by_plan.size / (double) by_plan.bound);
        CHECK_MSG(n < most || small == 0 || time < 100 * small + 1, "%u tensors take %g s", n,
                  time);
        CHECK_MSG(n < most || small_anew == 0 || planned_anew < 100 * small_anew + 1,
                  "%u tensors planned anew take %g s", n, planned_anew);
        small = n == most / 10 ? time : 0;
        small_anew = n == most / 10 ? planned_anew : 0;
        ggc_plan_free(plan);
    }
    free(offset);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 100000);
    const uint32_t most = options.iterations < 1000 ? 1000 : (uint32_t) options.iterations;
    test_units_init(&units);
    tensors = test_alloc(most * sizeof *tensors);
    uses = test_alloc(8 * (size_t) most * sizeof *uses);
    dep_begin = test_alloc(((size_t) most + 1) * sizeof *dep_begin);
    dep = test_alloc(8 * (size_t) most * sizeof *dep);
    made = (struct memory_schedule) {test_alloc(most * sizeof(uint32_t)),
                                     test_alloc(most * sizeof(uint32_t)),
                                     test_alloc(most * sizeof(double))};
    test_case("chain in place");
    chain_in_place();
    test_case("two chains");
    two_chains();
    test_case("buffers of a size");
    buffers_of_a_size();
    test_case("nothing at all");
    nothing_at_all();
    test_case("what is refused");
    what_is_refused();
    test_case("as many as fit");
    as_many_as_fit();
    test_case("not too far ahead");
    not_too_far_ahead();
    test_case("least and no less");
    least_and_no_less();
    test_case("every allocation fails");
    every_allocation_fails(false, 200);
    test_case("every allocation fails, planned anew");
    every_allocation_fails(true, 200);
    test_case("every allocation fails, planned anew for the least");
    every_allocation_fails(true, 0);
    test_case("several rules");
    several_rules();
    test_case("conflicts by windows");
    conflicts_by_windows();
    test_case("nothing in vain");
    nothing_in_vain();
    test_case("the same again");
    same_again();
    test_case("kept schedules");
    kept_schedules();
    test_case("many tensors");
    many_tensors(most, 500);
    many_tensors(most, most);
    test_units_free(&units);
    free(tensors);
    free(uses);
    free(dep_begin);
    free(dep);
    free(made.order);
    free(made.stream);
    free(made.start);
    return test_passed("and %u tensors", most);
}
