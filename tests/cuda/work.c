#include "work.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shadow.h"

#define NO_CHAIN UINT32_MAX

struct work {
    unsigned refs;
    unsigned n_missing;  // of those that it must follow, how many are not done
    bool done;
    double finished;
    struct payload * payload;
    const char * place;
    uint32_t chain, tick;
    uint32_t * clock;  // n_clock numbers: pieces of each chain that come before, itself included
    uint32_t n_clock;
    struct work ** after;  // that wait for it; a reference each
    size_t n_after, after_capacity;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t may_run = PTHREAD_COND_INITIALIZER;
static pthread_cond_t some_done = PTHREAD_COND_INITIALIZER;

static struct {
    uint32_t * chains;  // length of each
    uint32_t n_chains;
    uint32_t * host;  // clock of what the host has waited for
    uint32_t n_host;

    struct work ** ready;
    size_t n_ready, ready_capacity;
    uint64_t n_unfinished, n_run;

    pthread_t * threads;
    unsigned n_threads, wanted_threads, max_delay;
    bool held, stopping;
    uint64_t random;
} all = {.wanted_threads = 3, .max_delay = 30, .random = 1};

void driver_lock(void) {
    pthread_mutex_lock(&lock);
}

void driver_unlock(void) {
    pthread_mutex_unlock(&lock);
}

void * reallocate(void * memory, size_t size) {
    memory = realloc(memory, size > 0 ? size : 1);
    if (memory == NULL) {
        fputs("the fake CUDA driver is out of memory\n", stderr);
        abort();
    }
    return memory;
}

void * allocate(size_t size) {
    return memset(reallocate(NULL, size), 0, size);
}

//
// Texts
//

static struct {
    char ** texts;
    size_t n, capacity;  // capacity: a power of two, at most half of it used
} pool;

static size_t text_slot(char * const * texts, size_t capacity, const char * text) {
    uint64_t hash = UINT64_C(14695981039346656037);
    for (const char * c = text; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char) *c) * UINT64_C(1099511628211);
    }
    size_t slot = (size_t) hash & (capacity - 1);
    while (texts[slot] != NULL && strcmp(texts[slot], text) != 0) {
        slot = (slot + 1) & (capacity - 1);
    }
    return slot;
}

static void grow_pool(void) {
    const size_t capacity = pool.capacity > 0 ? 2 * pool.capacity : 256;
    char ** texts = allocate(capacity * sizeof *texts);
    for (size_t i = 0; i < pool.capacity; i++) {
        if (pool.texts[i] != NULL) {
            texts[text_slot(texts, capacity, pool.texts[i])] = pool.texts[i];
        }
    }
    free(pool.texts);
    pool.texts = texts;
    pool.capacity = capacity;
}

const char * intern(const char * text) {
    if (2 * (pool.n + 1) > pool.capacity) {
        grow_pool();
    }
    char ** slot = &pool.texts[text_slot(pool.texts, pool.capacity, text)];
    if (*slot == NULL) {
        const size_t size = strlen(text) + 1;
        *slot = memcpy(allocate(size), text, size);
        pool.n++;
    }
    return *slot;
}

//
// Payloads
//

struct payload * payload_new(const struct fake_kernel * kernel) {
    struct payload * payload = allocate(sizeof *payload);
    payload->refs = 1;
    payload->kernel = *kernel;
    payload->kernel.name = intern(kernel->name != NULL ? kernel->name : "?");
    return payload;
}

static struct payload * early_part(struct payload * payload) {
    char name[160];
    snprintf(name, sizeof name, "%s, before it waits,", payload->kernel.name);
    struct payload * part = payload_new(&(struct fake_kernel) {
        .name = name,
        .function = payload->kernel.early,
        .argument = payload->kernel.argument,
        .accesses = payload->kernel.early_accesses,
    });
    part->part_of = payload_ref(payload);
    return part;
}

struct payload * payload_ref(struct payload * payload) {
    if (payload != NULL) {
        payload->refs++;
    }
    return payload;
}

void payload_unref(struct payload * payload) {
    if (payload != NULL && --payload->refs == 0) {
        if (payload->kernel.release != NULL) {
            payload->kernel.release(payload->kernel.argument);
        }
        payload_unref(payload->part_of);
        free(payload);
    }
}

//
// Clocks
//

static void merge(uint32_t ** clock, uint32_t * n, const uint32_t * other, uint32_t n_other) {
    if (n_other > *n) {
        *clock = reallocate(*clock, n_other * sizeof **clock);
        memset(*clock + *n, 0, (n_other - *n) * sizeof **clock);
        *n = n_other;
    }
    for (uint32_t c = 0; c < n_other; c++) {
        if ((*clock)[c] < other[c]) {
            (*clock)[c] = other[c];
        }
    }
}

static bool follows_all_of(const struct work * work, uint32_t chain) {
    return chain < work->n_clock && work->clock[chain] == all.chains[chain];
}

// A chain whose last piece comes before `work`, that of `wish` if it will do; else a new one.
static uint32_t find_chain(const struct work * work, uint32_t wish) {
    if (wish != NO_CHAIN && follows_all_of(work, wish)) {
        return wish;
    }
    for (uint32_t c = 0; c < work->n_clock; c++) {
        if (follows_all_of(work, c)) {
            return c;
        }
    }
    all.chains = reallocate(all.chains, (all.n_chains + 1) * sizeof *all.chains);
    all.chains[all.n_chains] = 0;
    return all.n_chains++;
}

static void put_on_chain(struct work * work, uint32_t wish) {
    work->chain = find_chain(work, wish);
    work->tick = ++all.chains[work->chain];
    uint32_t * own = allocate((work->chain + 1) * sizeof *own);
    own[work->chain] = work->tick;
    merge(&work->clock, &work->n_clock, own, work->chain + 1);
    free(own);
}

struct epoch work_epoch(const struct work * work) {
    char who[200];
    snprintf(who, sizeof who, "%s %s", work->payload->kernel.name, work->place);
    return (struct epoch) {work->chain, work->tick, intern(who)};
}

bool work_follows(const struct work * work, struct epoch epoch) {
    return epoch.chain < work->n_clock && epoch.tick <= work->clock[epoch.chain];
}

const struct payload * work_payload(const struct work * work) {
    return work->payload;
}

//
// Running. The threads pick among what is ready, so that any order that the edges allow may happen.
//

static uint64_t next_random(void) {
    uint64_t z = all.random += UINT64_C(0x9e3779b97f4a7c15);  // splitmix64
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void make_ready(struct work * work) {
    if (all.n_ready == all.ready_capacity) {
        all.ready_capacity = 2 * all.ready_capacity + 16;
        all.ready = reallocate(all.ready, all.ready_capacity * sizeof(struct work *));
    }
    all.ready[all.n_ready++] = work;
    pthread_cond_signal(&may_run);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e3 * (double) time.tv_sec + 1e-6 * (double) time.tv_nsec;
}

double work_finished(const struct work * work) {
    return work->finished;
}

static void finish(struct work * work) {
    work->done = true;
    work->finished = now();
    for (size_t i = 0; i < work->n_after; i++) {
        struct work * next = work->after[i];
        if (--next->n_missing == 0) {
            make_ready(next);
        }
        work_unref(next);
    }
    work->n_after = 0;
    payload_unref(work->payload);
    work->payload = NULL;
    all.n_unfinished--;
    pthread_cond_broadcast(&some_done);
}

static void nap(uint64_t nanoseconds) {
    const struct timespec time = {(time_t) (nanoseconds / 1000000000),
                                  (long) (nanoseconds % 1000000000)};
    nanosleep(&time, NULL);
}

// Mostly none; sometimes others first, sometimes a while, seldom a long while.
static void delay(uint64_t dice, unsigned max_delay) {
    if (dice % 64 == 0) {
        nap((uint64_t) max_delay * 10000);
    } else if (dice % 4 == 1) {
        nap((dice >> 8) % ((uint64_t) max_delay * 1000 + 1));
    } else if (dice % 4 == 2) {
        sched_yield();
    }
}

// With the lock held, which is open while the function runs.
static void run(struct work * work) {
    const struct payload * payload = work->payload;
    if (payload != NULL) {
        const uint64_t dice = next_random();
        const unsigned max_delay = all.max_delay;
        driver_unlock();
        delay(dice, max_delay);
        driver_lock();
        if (shadow_check(work) && payload->kernel.function != NULL) {
            driver_unlock();
            payload->kernel.function(payload->kernel.argument);
            driver_lock();
        }
        all.n_run += payload->part_of == NULL;
    }
    finish(work);
    work_unref(work);
}

static void * work_on(void * arg) {
    (void) arg;
    driver_lock();
    while (!all.stopping) {
        if (all.n_ready == 0 || all.held) {
            pthread_cond_wait(&may_run, &lock);
            continue;
        }
        const size_t i = (size_t) (next_random() % all.n_ready);
        struct work * work = all.ready[i];
        all.ready[i] = all.ready[--all.n_ready];
        run(work);
    }
    driver_unlock();
    return NULL;
}

static void start_threads(void) {
    if (all.n_threads > 0) {
        return;
    }
    all.threads = allocate(all.wanted_threads * sizeof *all.threads);
    while (all.n_threads < all.wanted_threads &&
           pthread_create(&all.threads[all.n_threads], NULL, work_on, NULL) == 0) {
        all.n_threads++;
    }
    if (all.n_threads == 0) {
        fputs("the fake CUDA driver cannot start a thread\n", stderr);
        abort();
    }
}

__attribute__((destructor)) static void stop_threads(void) {
    driver_lock();
    all.stopping = true;
    pthread_cond_broadcast(&may_run);
    driver_unlock();
    for (unsigned i = 0; i < all.n_threads; i++) {
        pthread_join(all.threads[i], NULL);
    }
}

//
// Issuing and waiting
//

static void follow(struct work * work, struct work * dep) {
    merge(&work->clock, &work->n_clock, dep->clock, dep->n_clock);
    if (dep->done) {
        return;
    }
    if (dep->n_after == dep->after_capacity) {
        dep->after_capacity = 2 * dep->after_capacity + 2;
        dep->after = reallocate(dep->after, dep->after_capacity * sizeof(struct work *));
    }
    dep->after[dep->n_after++] = work_ref(work);
    work->n_missing++;
}

struct work * work_issue(struct payload * payload, struct work * const * deps, size_t n_deps,
                         const char * place) {
    start_threads();
    struct work * work = allocate(sizeof *work);
    work->refs = 2;  // the caller's, and that of running it
    work->payload = payload_ref(payload);
    work->place = place;
    work->chain = NO_CHAIN;
    merge(&work->clock, &work->n_clock, all.host, all.n_host);
    uint32_t wish = NO_CHAIN;
    for (size_t i = 0; i < n_deps; i++) {
        if (deps[i] != NULL) {
            follow(work, deps[i]);
            wish = wish == NO_CHAIN ? deps[i]->chain : wish;
        }
    }
    if (payload != NULL && payload->kernel.accesses != NULL) {
        put_on_chain(work, wish);
    } else {
        work->chain = wish;  // a hint for those that follow
    }
    all.n_unfinished++;
    if (work->n_missing == 0) {
        make_ready(work);
    }
    return work;
}

struct work * work_issue_early(struct payload * payload, struct work * begin,
                               struct work * const * deps, size_t n_deps, const char * place) {
    if (payload->kernel.early == NULL) {
        return work_issue(payload, deps, n_deps, place);
    }
    struct payload * part = early_part(payload);
    struct work ** all_deps = allocate((n_deps + 1) * sizeof *all_deps);
    memcpy(all_deps, deps, n_deps * sizeof *deps);
    all_deps[n_deps] = work_issue(part, &begin, 1, place);
    struct work * work = work_issue(payload, all_deps, n_deps + 1, place);
    work_unref(all_deps[n_deps]);
    free(all_deps);
    payload_unref(part);
    return work;
}

struct work * work_after(struct work * const * deps, size_t n_deps, const char * place) {
    return n_deps == 1   ? work_ref(deps[0])
           : n_deps == 0 ? NULL
                         : work_issue(NULL, deps, n_deps, place);
}

struct work * work_ref(struct work * work) {
    if (work != NULL) {
        work->refs++;
    }
    return work;
}

void work_unref(struct work * work) {
    if (work != NULL && --work->refs == 0) {
        free(work->after);
        free(work->clock);
        free(work);
    }
}

bool work_done(const struct work * work) {
    return work == NULL || work->done;
}

void work_seen(const struct work * work) {
    if (work != NULL) {
        merge(&all.host, &all.n_host, work->clock, work->n_clock);
    }
}

static void lift_hold(void) {
    all.held = false;
    pthread_cond_broadcast(&may_run);
}

void work_wait(struct work * work) {
    if (work == NULL) {
        return;
    }
    work_ref(work);
    while (!work->done) {
        lift_hold();
        pthread_cond_wait(&some_done, &lock);
    }
    work_seen(work);
    work_unref(work);
}

static void wait_all(void) {
    while (all.n_unfinished > 0) {
        lift_hold();
        pthread_cond_wait(&some_done, &lock);
    }
}

void work_wait_all(void) {
    wait_all();
    merge(&all.host, &all.n_host, all.chains, all.n_chains);
}

uint64_t work_count(void) {
    return all.n_run;
}

void work_reset_count(void) {
    all.n_run = 0;
}

//
// How it runs
//

void fake_seed(uint64_t seed) {
    driver_lock();
    all.random = seed;
    driver_unlock();
}

void fake_threads(unsigned n) {
    driver_lock();
    all.wanted_threads = n > 0 ? n : 1;
    driver_unlock();
}

void fake_delay(unsigned microseconds) {
    driver_lock();
    all.max_delay = microseconds;
    driver_unlock();
}

void fake_hold(bool hold) {
    driver_lock();
    all.held = hold;
    pthread_cond_broadcast(&may_run);
    driver_unlock();
}

void fake_idle(void) {
    driver_lock();
    wait_all();
    driver_unlock();
}
