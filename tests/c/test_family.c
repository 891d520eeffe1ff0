// How the drop-in chooses for graphs that are alike, with made-up times: what trials may cost, and
// what a later process knows.
#include <stdio.h>
#include <unistd.h>

#include "dropin/family.h"
#include "support.h"

#define BASE 1000.0  // microseconds of a computation in the runner's own way

// A runner that computes one graph again and again.
struct world {
    struct family family;
    double time[MAX_WAYS];  // of a computation
    double opening;         // what it takes to make a way ready
    bool is_ready[MAX_WAYS];
    double spent, plain;  // all in all, with and without us
    uint32_t n, n_timed;
};

static struct graph_key next_key(void) {
    static uint64_t last = 0;
    return (struct graph_key) {++last, 7};
}

static void world_init(struct world * w, struct graph_key key, const double * relative,
                       double opening) {
    *w = (struct world) {.is_ready = {true}, .opening = opening};
    family_init(&w->family, key, 0);
    CHECK_EQ(w->family.tuner.n_ways, MAX_WAYS);
    for (int i = 0; i < MAX_WAYS; i++) {
        w->time[i] = BASE * relative[i];
    }
}

static uint32_t compute(struct world * w) {
    bool is_trial;
    const uint32_t way = family_way(&w->family, w->is_ready, &is_trial);
    family_has_just_settled(&w->family);
    if (!w->is_ready[way]) {
        w->is_ready[way] = true;
        w->spent += w->opening;
        family_opened(&w->family, w->opening);
    }
    w->spent += w->time[way];
    w->plain += BASE;
    w->n++;
    if (is_trial) {
        w->n_timed++;
        family_note(&w->family, w->time[way]);
    } else {
        family_rested(&w->family);
    }
    return way;
}

static void until_settled(struct world * w) {
    while (!w->family.tuner.settled) {
        CHECK_MSG(w->n < 20000, "never settles");
        compute(w);
        // a share of what has passed, and a trial that is dearer than the one before
        CHECK_MSG(w->spent <= w->plain * (1 + 1.0 / 32) + w->opening, "%.0f instead of %.0f",
                  w->spent, w->plain);
    }
    family_has_just_settled(&w->family);
}

static void little_is_lost_where_there_is_nothing_to_gain(void) {
    for (double opening = 100; opening < 1e5; opening *= 3) {
        struct world w;
        world_init(&w, next_key(), (const double[]) {1, 1, 1, 1}, opening);
        until_settled(&w);
        CHECK_EQ(w.family.tuner.current, 0);
        CHECK(w.is_ready[1] && w.is_ready[2] && w.is_ready[3]);
    }
}

static void slow_ways_are_paid_for_too(void) {
    struct world w;
    world_init(&w, next_key(), (const double[]) {1, 5, 3, 1.1}, 4000);
    while (!w.family.tuner.settled) {
        compute(&w);
        // ways are seen to be slow only when they were tried: five computations of each
        CHECK(w.spent <= w.plain * (1 + 1.0 / 32) + w.opening + 5 * 4 * BASE);
    }
    CHECK_EQ(w.family.tuner.current, 0);
}

static void what_is_saved_pays_for_more(void) {
    struct world w, slow;
    world_init(&w, next_key(), (const double[]) {1, 0.9, 0.8, 0.85}, 8000);
    until_settled(&w);
    CHECK_EQ(w.family.tuner.current, 2);
    CHECK(w.spent < w.plain * (1 + 1.0 / 32));
    world_init(&slow, next_key(), (const double[]) {1, 1, 1, 1}, 8000);
    until_settled(&slow);
    CHECK_MSG(2 * w.n < slow.n, "%u and %u", w.n, slow.n);
}

static void nothing_is_tried_before_it_is_paid_for(void) {
    struct world w;
    world_init(&w, next_key(), (const double[]) {1, 0.5, 0.5, 0.5}, 8000);
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(compute(&w), 0);
    }
    CHECK_MSG(w.n_timed < 10, "%u are timed, which takes time", w.n_timed);
    until_settled(&w);
    CHECK(w.n < 500);
}

// Short runs add up.
static void an_allowance_is_kept(void) {
    const struct graph_key key = next_key();
    struct world w;
    uint32_t tried = 0, runs = 0;
    for (; tried == 0; runs++) {
        CHECK_MSG(runs < 20, "never tries");
        world_init(&w, key, (const double[]) {1, 0.9, 0.8, 0.7}, 8000);
        for (int i = 0; i < 60; i++) {
            tried += compute(&w) > 0;
        }
        family_end(&w.family);
    }
    CHECK_MSG(runs > 2 && runs < 10, "%u runs", runs);
}

static void a_choice_is_known_at_once(void) {
    const struct graph_key key = next_key();
    struct world w;
    struct family family;
    uint32_t expected;
    CHECK(!family_known(&family, key, 0));
    world_init(&w, key, (const double[]) {1, 0.9, 0.8, 0.85}, 8000);
    CHECK(!family_new_graph(&w.family, 0, &expected));
    CHECK_EQ(expected, 0);
    until_settled(&w);
    family_end(&w.family);
    CHECK(family_known(&family, key, 0));
    CHECK_EQ(family.tuner.current, 2);
    const struct graph_key another = next_key();
    world_init(&w, another, (const double[]) {1, 1, 1, 1}, 8000);
    until_settled(&w);
    CHECK(!family_known(&family, another, 0));  // that there is nothing to be had
    CHECK(family.tuner.settled);
}

// As the session asks for a new graph that is computed `repeats` times. Returns whether it was made
// ready at once; `ready` tells after how many computations, 0: never.
static bool new_graph(struct family * family, uint32_t repeats, uint32_t * ready) {
    uint32_t expected;
    const bool at_once = family_new_graph(family, 0, &expected);
    *ready = 0;
    for (uint32_t i = 0; i < repeats; i++) {
        family_seen(family);
        if (*ready == 0 && i >= PATIENCE && family_is_worth_it(family, i, expected)) {
            *ready = i;
        }
        family->last_used++;
    }
    return at_once;
}

// Graphs that do not come again would be made ready for nothing: 200 microseconds are saved each
// time, and to make one ready takes 4000.
static void graphs_that_do_not_come_again(void) {
    const struct graph_key key = next_key();
    struct world w;
    struct family family;
    uint32_t ready;
    world_init(&w, key, (const double[]) {1, 0.9, 0.8, 0.85}, 8000);
    CHECK(family_is_worth_it(&w.family, 2, 0));  // to be tried
    until_settled(&w);
    CHECK(family_known(&family, key, 0));
    family_made_ready(&family, 4000);
    CHECK(!new_graph(&family, 15, &ready));  // whether they come again is not known
    CHECK_EQ(ready, 0);
    CHECK(!new_graph(&family, 30, &ready));
    CHECK_EQ(ready, 21);
    CHECK(new_graph(&family, 20, &ready));
    CHECK(!new_graph(&family, 21, &ready));
    CHECK(new_graph(&family, 1, &ready));
    CHECK(!new_graph(&family, 1, &ready));
    family_made_ready(&family, 400);  // it was quicker this time
    CHECK(!new_graph(&family, 2, &ready));
    CHECK_EQ(ready, 0);
    CHECK(!new_graph(&family, 4, &ready));
    CHECK_EQ(ready, 3);
    uint32_t expected;
    CHECK(family_new_graph(&family, 1, &expected));  // one that is noticed late
    CHECK_EQ(expected, 4);
    family_seen(&family);
    CHECK(!family_new_graph(&family, 2, &expected));
    CHECK_EQ(expected, 2);
    family_seen(&family);
    CHECK(family_new_graph(&family, 0, &expected));  // after three times, which would have paid
}

// The first graph of a later process, of a family whose graphs came again often enough.
static void that_graphs_come_again_is_remembered(void) {
    for (uint32_t repeats = 40; repeats <= 60; repeats += 20) {
        const struct graph_key key = next_key();
        struct world w;
        struct family family;
        uint32_t ready;
        world_init(&w, key, (const double[]) {1, 0.9, 0.8, 0.85}, 8000);
        new_graph(&w.family, repeats, &ready);
        until_settled(&w);
        CHECK(family_known(&family, key, 0));
        CHECK_EQ(family.repeats, repeats);
        CHECK(!new_graph(&family, 4, &ready));         // somebody may be waiting for it
        CHECK_EQ(ready, repeats > 50 ? PATIENCE : 0);  // 10 ms are guessed for the first
        CHECK(!new_graph(&family, 4, &ready));         // as it was before, in this process
        CHECK_EQ(ready, 0);
        // a process that sees more of them tells the next one, and nothing else changes
        struct family later, last;
        CHECK(family_known(&later, key, 0));
        new_graph(&later, 70, &ready);
        family_end(&later);
        CHECK(family_known(&last, key, 0));
        CHECK_EQ(last.repeats, 70);
        CHECK_EQ(last.tuner.current, family.tuner.current);
        CHECK(last.gain == family.gain && last.gain > 0);
        new_graph(&last, 10, &ready);
        family_end(&last);
        CHECK(family_known(&last, key, 0));
        CHECK_EQ(last.repeats, 70);
        new_graph(&last, 300, &ready);  // and ends without being told to
        CHECK(family_known(&last, key, 0));
        CHECK(last.repeats > 150 && last.repeats <= 300);
    }
}

// Of two contexts the one that closes last may know less.
static void a_choice_is_not_overwritten(void) {
    const struct graph_key key = next_key();
    struct world w, other, late;
    struct family family;
    uint32_t ready;
    world_init(&w, key, (const double[]) {1, 0.9, 0.8, 0.85}, 8000);
    world_init(&late, key, (const double[]) {1, 0.9, 0.8, 0.85}, 8000);
    world_init(&other, key, (const double[]) {1, 0.9, 0.8, 0.85}, 8000);
    compute(&other);
    until_settled(&w);
    new_graph(&w.family, 500, &ready);
    family_end(&w.family);
    family_end(&other.family);
    CHECK(family_known(&family, key, 0));
    until_settled(&late);  // which has seen fewer
    CHECK(family_known(&family, key, 0));
    CHECK_EQ(family.repeats, 500);
}

// Times scatter: that pays for nothing.
static void noise_is_no_gain(void) {
    struct world w;
    struct test_rng rng = test_rng(1, 1);
    world_init(&w, next_key(), (const double[]) {1, 1, 1, 1}, 8000);
    for (int i = 0; i < 200; i++) {
        w.time[0] = BASE * (0.8 + 0.4 * test_range(&rng, 0, 1000) / 1000);
        CHECK_EQ(compute(&w), 0);
    }
}

static void newcomers_that_never_come_again_are_not_looked_up(void) {
    struct newcomers newcomers = {0};
    uint32_t n = 0;
    for (; newcomers_are_looked_up(&newcomers); n++) {
        CHECK(n < 1000);
    }
    CHECK(n >= 8);  // prompts and what they are cut into
    CHECK(!newcomers_are_looked_up(&newcomers));
    newcomers_came_again(&newcomers);
    CHECK(newcomers_are_looked_up(&newcomers));
}

int main(int argc, char ** argv) {
    test_begin(argc, argv, 0, 0);
    char folder[] = "/tmp/ggc-family-XXXXXX", command[100];
    CHECK(mkdtemp(folder) != NULL);
    setenv("GGML_CONCURRENT", "auto", 1);
    setenv("GGML_CONCURRENT_CACHE", folder, 1);
    unsetenv("GGML_CONCURRENT_STREAMS");
    little_is_lost_where_there_is_nothing_to_gain();
    slow_ways_are_paid_for_too();
    what_is_saved_pays_for_more();
    nothing_is_tried_before_it_is_paid_for();
    an_allowance_is_kept();
    a_choice_is_known_at_once();
    graphs_that_do_not_come_again();
    that_graphs_come_again_is_remembered();
    a_choice_is_not_overwritten();
    noise_is_no_gain();
    newcomers_that_never_come_again_are_not_looked_up();
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_EQ(system(command), 0);
    return test_passed("%d cases", 11);
}
