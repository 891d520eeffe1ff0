// Streams as threads. Stream 0 is the thread that calls compute; every other stream has a worker.
// Each has its own CPU backend instance, so that no two share a work buffer.
//
// A stream counts its finished segments in `done`. Who waits for a segment of another stream spins
// on that count for a moment, then sleeps on the condition variable that everyone shares; who
// finishes a segment wakes the sleepers if there are any. A stream that fails says so and goes on
// counting without computing, so that nobody waits for it for ever.
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ggml/backends.h"
#include "segments.h"

#if defined(__x86_64__) || defined(__i386__)
#    define relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#    define relax() __asm__ __volatile__("yield")
#else
#    define relax() ((void) 0)
#endif

// How often a stream looks whether what it waits for is there before it sleeps. Waking up takes
// tens of microseconds, in a virtual machine more, so where every stream has a core of its own it
// looks for about 2 milliseconds, as OpenMP's threads do; where cores are shared, about 20
// microseconds.
#define SPINS_ALONE 40000
#define SPINS_CROWDED 400

// Value of `run` that ends the workers; they start at 1.
#define STOP 0

#define MESSAGE_SIZE 512

struct cpu;

struct stream {
    struct cpu * cpu;
    const struct segment_list * segments;
    ggml_backend_t backend;
    uint32_t index;
    uint32_t n_threads;  // that the backend is set to
    uint64_t random;     // for delays
    pthread_t thread;
    bool has_thread;
    _Alignas(128) atomic_uint done;  // segments of this run; on a cache line of its own
};

struct cpu {
    struct segments segments;
    struct dispatch_places places;
    struct stream * streams;
    uint32_t n_streams;
    uint32_t stress_seed;
    int spins;
    struct timespec begin;  // of the run
    double * unit_times;    // start and end of each unit in it, microseconds; NULL: not traced

    atomic_uint run;         // counts computes; workers start when it changes
    atomic_int caller_core;  // where the caller was when the run started
    atomic_uint n_sleepers;  // streams asleep in wait_for
    atomic_bool failed;

    pthread_mutex_t mutex;
    pthread_cond_t changed;  // `run` or some stream's `done`
    enum ggc_status status;  // the earliest failure of the run, under the mutex while it runs
    char message[MESSAGE_SIZE];
};

static void fail(struct cpu * cpu, enum ggc_status status, const char * message) {
    pthread_mutex_lock(&cpu->mutex);
    if (cpu->status == GGC_OK) {
        cpu->status = status;
        snprintf(cpu->message, sizeof(cpu->message), "%s", message);
    }
    pthread_mutex_unlock(&cpu->mutex);
    atomic_store(&cpu->failed, true);
}

// Sequentially consistent on both sides: either the finisher sees the sleeper, or the sleeper sees
// the new count before it sleeps.
static void finish_segment(struct stream * stream) {
    struct cpu * cpu = stream->cpu;
    atomic_fetch_add(&stream->done, 1);
    if (atomic_load(&cpu->n_sleepers) > 0) {
        pthread_mutex_lock(&cpu->mutex);
        pthread_cond_broadcast(&cpu->changed);
        pthread_mutex_unlock(&cpu->mutex);
    }
}

static void wait_for(struct cpu * cpu, const struct segment_wait * wait) {
    atomic_uint * done = &cpu->streams[wait->stream].done;
    for (int i = 0; i < cpu->spins; i++) {
        if (atomic_load_explicit(done, memory_order_acquire) >= wait->count) {
            return;
        }
        relax();
    }
    pthread_mutex_lock(&cpu->mutex);
    atomic_fetch_add(&cpu->n_sleepers, 1);
    while (atomic_load(done) < wait->count) {
        pthread_cond_wait(&cpu->changed, &cpu->mutex);
    }
    atomic_fetch_sub(&cpu->n_sleepers, 1);
    pthread_mutex_unlock(&cpu->mutex);
}

// For tests: sometimes nothing, sometimes other threads first, sometimes a while (xorshift64*).
static void random_delay(struct stream * stream) {
    stream->random ^= stream->random >> 12;
    stream->random ^= stream->random << 25;
    stream->random ^= stream->random >> 27;
    const uint64_t dice = (stream->random * UINT64_C(0x2545F4914F6CDD1D)) >> 32;
    if (dice % 4 == 1) {
        sched_yield();
    } else if (dice % 4 == 2) {
        for (uint64_t i = (dice >> 8) % 4096; i > 0; i--) {
            relax();
        }
    }
}

static double microseconds_since(const struct timespec * begin) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e6 * (double) (now.tv_sec - begin->tv_sec) +
           1e-3 * (double) (now.tv_nsec - begin->tv_nsec);
}

static void compute_segment(struct stream * stream, struct segment * segment) {
    char text[MESSAGE_SIZE] = "";
    const struct message message = {text, sizeof(text)};
    if (stream->n_threads != segment->n_threads) {
        set_n_threads(stream->backend, segment->n_threads);
        stream->n_threads = segment->n_threads;
    }
    double * times = stream->cpu->unit_times;
    if (times != NULL) {
        times[2 * segment->unit] = microseconds_since(&stream->cpu->begin);
    }
    const enum ggc_status status =
        compute_guarded(stream->backend, &segment->graph, segment->n_threads, &message);
    if (times != NULL) {
        times[2 * segment->unit + 1] = microseconds_since(&stream->cpu->begin);
    }
    if (status != GGC_OK) {
        fail(stream->cpu, status, text);
    }
}

static void run_stream(struct stream * stream) {
    struct cpu * cpu = stream->cpu;
    for (uint32_t i = 0; i < stream->segments->n; i++) {
        struct segment * segment = &stream->segments->items[i];
        for (uint32_t k = 0; k < segment->n_waits; k++) {
            wait_for(cpu, &segment->waits[k]);
        }
        if (cpu->stress_seed != 0) {
            random_delay(stream);
        }
        if (!atomic_load_explicit(&cpu->failed, memory_order_relaxed)) {
            compute_segment(stream, segment);
        }
        finish_segment(stream);
    }
}

// The next run after `run`; 0: there will be none. A run often follows the last one at once (token
// after token), so spin a little before sleeping.
static unsigned next_run(struct cpu * cpu, unsigned run) {
    for (int i = 0; i < cpu->spins; i++) {
        if (atomic_load_explicit(&cpu->run, memory_order_acquire) != run) {
            return atomic_load(&cpu->run);
        }
        relax();
    }
    pthread_mutex_lock(&cpu->mutex);
    while (atomic_load(&cpu->run) == run) {
        pthread_cond_wait(&cpu->changed, &cpu->mutex);
    }
    pthread_mutex_unlock(&cpu->mutex);
    return atomic_load(&cpu->run);
}

// Linux likes to wake a thread on the core of the one that wakes it, here the caller's, who goes on
// computing; both then share that core until the scheduler balances, some 20 ms later. A worker
// that finds itself there moves to another core that it may use.
static void leave_core(int core) {
#if defined(__linux__)
    cpu_set_t allowed, others;
    if (core < 0 || sched_getcpu() != core ||
        sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
        return;
    }
    others = allowed;
    CPU_CLR((size_t) core, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof(others), &others) == 0) {
        sched_setaffinity(0, sizeof(allowed), &allowed);
    }
#else
    (void) core;
#endif
}

static void * work(void * arg) {
    struct stream * stream = arg;
    struct cpu * cpu = stream->cpu;
    for (unsigned run = next_run(cpu, 1); run != STOP; run = next_run(cpu, run)) {
        leave_core(atomic_load_explicit(&cpu->caller_core, memory_order_relaxed));
        run_stream(stream);
    }
    return NULL;
}

static void start_run(struct cpu * cpu, unsigned run) {
    pthread_mutex_lock(&cpu->mutex);
    atomic_store(&cpu->run, run);
    pthread_cond_broadcast(&cpu->changed);
    pthread_mutex_unlock(&cpu->mutex);
}

static enum ggc_status cpu_compute(void * state, const struct message * message) {
    struct cpu * cpu = state;
    for (uint32_t s = 0; s < cpu->n_streams; s++) {
        atomic_store(&cpu->streams[s].done, 0);
    }
    atomic_store(&cpu->failed, false);
    cpu->status = GGC_OK;
    clock_gettime(CLOCK_MONOTONIC, &cpu->begin);
#if defined(__linux__)
    atomic_store_explicit(&cpu->caller_core, sched_getcpu(), memory_order_relaxed);
#endif
    const unsigned run = atomic_load(&cpu->run) + 1;
    places_enter(&cpu->places);
    start_run(cpu, run != STOP ? run : run + 1);
    run_stream(&cpu->streams[0]);
    for (uint32_t s = 1; s < cpu->n_streams; s++) {
        wait_for(cpu, &(struct segment_wait) {s, cpu->streams[s].segments->n});
    }
    places_leave(&cpu->places);
    if (cpu->status != GGC_OK) {
        message_set(message, "%s", cpu->message);
    }
    return cpu->status;
}

static void cpu_close(void * state) {
    struct cpu * cpu = state;
    start_run(cpu, STOP);
    for (uint32_t s = 0; cpu->streams != NULL && s < cpu->n_streams; s++) {
        if (cpu->streams[s].has_thread) {
            pthread_join(cpu->streams[s].thread, NULL);
        }
        if (cpu->streams[s].backend != NULL) {
            ggml_backend_free(cpu->streams[s].backend);
        }
    }
    segments_free(&cpu->segments);
    pthread_cond_destroy(&cpu->changed);
    pthread_mutex_destroy(&cpu->mutex);
    free(cpu->streams);
    free(cpu->unit_times);
    free(cpu);
}

static enum ggc_status open_stream(struct cpu * cpu, uint32_t index, ggml_backend_dev_t device,
                                   const struct message * message) {
    struct stream * stream = &cpu->streams[index];
    stream->cpu = cpu;
    stream->index = index;
    stream->segments = &cpu->segments.streams[index];
    stream->random = ((uint64_t) cpu->stress_seed << 8 | index) + 1;
    stream->backend = new_backend(device, message);
    if (stream->backend == NULL) {
        return GGC_E_DEVICE;
    }
    if (index > 0) {
        if (pthread_create(&stream->thread, NULL, work, stream) != 0) {
            message_set(message, "cannot start a thread for stream %u", index);
            return GGC_E_DEVICE;
        }
        stream->has_thread = true;
    }
    return GGC_OK;
}

// Processors that this process may use.
static uint32_t n_cores(void) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
        return (uint32_t) CPU_COUNT(&allowed);
    }
#endif
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t) n : 1;
}

static enum ggc_status cpu_open(const struct dispatch_args * args, void ** state,
                                const struct message * message) {
    struct cpu * cpu = calloc(1, sizeof(*cpu));
    if (cpu == NULL) {
        return GGC_E_NOMEM;
    }
    pthread_mutex_init(&cpu->mutex, NULL);
    pthread_cond_init(&cpu->changed, NULL);
    atomic_init(&cpu->run, 1);
    cpu->places = args->places;
    cpu->stress_seed = args->params->stress_seed;
    const bool trace = args->params->trace;
    enum ggc_status status = segments_init(
        &cpu->segments, args, (struct segment_cuts) {.every_unit = cpu->stress_seed != 0 || trace});
    if (trace) {
        const size_t n_units = ggc_plan_get_stats(ggc_graph_plan_core(args->plan)).n_units;
        cpu->unit_times = calloc(2 * n_units + 1, sizeof(double));
        status = cpu->unit_times != NULL ? status : GGC_E_NOMEM;
    }
    if (status == GGC_OK) {
        cpu->n_streams = cpu->segments.n_streams;
        const bool crowded = cpu->n_streams > n_cores();
        cpu->spins = crowded ? SPINS_CROWDED : SPINS_ALONE;
        // aligned, since `done` asks for it
        cpu->streams = aligned_alloc(128, cpu->n_streams * sizeof(struct stream));
        status = cpu->streams != NULL ? GGC_OK : GGC_E_NOMEM;
    }
    if (status == GGC_OK) {
        memset(cpu->streams, 0, cpu->n_streams * sizeof(struct stream));
    }
    for (uint32_t s = 0; status == GGC_OK && s < cpu->n_streams; s++) {
        status = open_stream(cpu, s, args->device, message);
    }
    if (status != GGC_OK) {
        cpu_close(cpu);
        return status;
    }
    *state = cpu;
    return GGC_OK;
}

static uint32_t cpu_unit_threads(const void * state, uint32_t unit) {
    return ((const struct cpu *) state)->segments.unit_threads[unit];
}

static const double * cpu_unit_times(const void * state) {
    return ((const struct cpu *) state)->unit_times;
}

// Large operations are as fast on all threads one after another, and the estimate is rough: a gain
// of a tenth must be in sight.
bool cpu_streams_pay(const struct dispatch_args * args) {
    struct segments segments;
    if (segments_init(&segments, args, (struct segment_cuts) {0}) != GGC_OK) {
        return false;
    }
    const struct segments_estimate estimate = segments_estimate(&segments, args);
    segments_free(&segments);
    return estimate.streams < 0.9 * estimate.serial;
}

const struct dispatch_i dispatch_cpu = {
    "cpu", cpu_open, cpu_compute, cpu_unit_threads, cpu_unit_times, cpu_close, NULL,
};
