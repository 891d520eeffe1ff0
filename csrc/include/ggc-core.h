// ggml-concurrent, core: finds what may run at the same time, and proves it.
//
// The core knows neither ggml nor any device. It takes *units* (operations that stay together) in
// their serial order, each with the byte ranges that it reads and writes, and gives
//   dependences  which unit must come before which, and through which bytes;
//   a plan       units placed on streams, with the waits between them, and the same plan as
//                phases (groups between two barriers);
//   a verdict    on any plan, its own or another's: race-free, or the pair that races.
//
// Conventions. Sizes and offsets are bytes, costs microseconds. Every function that can fail
// returns a ggc_status and changes nothing visible when it fails. Pointers returned by accessors
// belong to the object asked and live as long as it. No function keeps global state; distinct
// objects may be used from distinct threads at the same time, one object from one thread at a time
// (reading a finished plan from many threads is fine).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef GGC_API
#    define GGC_API __attribute__((visibility("default")))
#endif

enum ggc_status {
    GGC_OK = 0,
    GGC_E_INVALID = 1,      // an argument is out of its range; nothing was done
    GGC_E_NOMEM = 2,        // an allocation failed; nothing was done, nothing is leaked
    GGC_E_CAPACITY = 3,     // the caller's array or graph is too small for the result
    GGC_E_RACE = 4,         // the plan leaves two conflicting accesses unordered
    GGC_E_UNSUPPORTED = 5,  // the device cannot do what was asked
    GGC_E_DEVICE = 6,       // the device or a stream failed while computing
    GGC_E_ABORTED = 7,      // the computation was stopped by the caller's abort callback
    GGC_E_ASSERT = 8,       // ggml refused the arguments (its assertion failed); see the message
};

// A constant English name, for messages; never NULL, also for values outside the enum.
GGC_API const char * ggc_status_string(enum ggc_status status);

// Stands between two groups in the integer form of a plan.
#define GGC_BARRIER (-1)

// "no unit", "no phase", "no stream": views and other nodes that compute nothing.
#define GGC_NONE UINT32_MAX

// All memory of planning comes from here; the verifiers, which share nothing with the planner, use
// malloc. NULL where an allocator is asked for: malloc and free.
struct ggc_allocator {
    void * (*alloc)(void * ctx, size_t size);  // NULL when out of memory
    void (*free)(void * ctx, void * ptr);      // ptr is never NULL
    void * ctx;
};

//
// Accesses and units
//

enum ggc_mode {
    GGC_READ = 1,
    GGC_WRITE = 2,  // may write: an access that writes only some of its bytes is a write too
};

// Bytes of one buffer: `count` runs of `run` bytes, `stride` bytes from start to start.
//
//     offset        offset+stride       offset+2*stride
//     |==run==|     |==run==|           |==run==|            count = 3
//
// A contiguous range has count 1 (stride is then ignored). run == 0 or count == 0 touches nothing.
// Anything more irregular is described by a range that contains it. Ranges are half-open: two that
// only touch do not conflict. Buffers never alias one another; an equal offset in another buffer
// is another byte.
struct ggc_access {
    uint64_t offset;
    uint64_t run;
    uint64_t stride;  // at least `run` where count > 1
    uint32_t count;
    uint32_t buffer;  // any number: buffers are told apart by it
    uint32_t mode;    // GGC_READ or GGC_WRITE
};

// What is planned: n units in their serial order. Borrowed for the duration of a call.
struct ggc_units {
    uint32_t n_units;
    const uint32_t * access_begin;       // n_units + 1, from 0; unit u has [begin[u], begin[u+1])
    const struct ggc_access * accesses;  // of one unit in the order in which it makes them
    const uint8_t * fence;               // n_units, nonzero: conflicts with every unit; or NULL
    const double * cost;                 // n_units, microseconds; or NULL: 1 each
};

//
// Plans
//

enum ggc_strategy {
    GGC_STRATEGY_LIST = 0,    // critical-path list scheduling with costs (HEFT-like), the default
    GGC_STRATEGY_SERIAL = 1,  // one stream, the reference
    GGC_STRATEGY_LEVELS = 2,  // phase by phase, the longest first, to the least busy
    // minimum path cover (Nimble): the units of a phase on streams of their own, as far as there
    // are any; up to 32768 units, else GGC_E_CAPACITY
    GGC_STRATEGY_COVER = 3,
};

#define GGC_MAX_STREAMS 64

struct ggc_schedule;

struct ggc_plan_params {
    uint32_t n_streams;  // at most this many, 1 .. GGC_MAX_STREAMS
    enum ggc_strategy strategy;
    double wait_cost;     // microseconds that a wait for another stream costs
    uint32_t look_ahead;  // phases: how many units may be overtaken; 0: any number
    // A schedule of as many units whose order and streams are kept, for their dependences have
    // changed and only the waits are to be found; or NULL. n_streams and strategy then count for
    // nothing. GGC_E_INVALID: it issues a unit before one that this depends on now.
    const struct ggc_schedule * keep;
    const struct ggc_allocator * allocator;  // borrowed until the plan is freed, or NULL
};

// Fills in the defaults: 2 streams, LIST, 2 microseconds, no bound, malloc.
GGC_API void ggc_plan_params_init(struct ggc_plan_params * params);

// A schedule as plain arrays, so that any schedule can be checked, run, saved or compared.
// Unit order[i] is issued i-th, on stream[order[i]], after everything issued before it on that
// stream and after the units waits[wait_begin[u] .. wait_begin[u+1]) have finished. A wait always
// names a unit that is issued earlier.
struct ggc_schedule {
    uint32_t n_units;
    uint32_t n_streams;
    const uint32_t * order;       // n_units, a permutation
    const uint32_t * stream;      // n_units, each < n_streams
    const uint32_t * wait_begin;  // n_units + 1
    const uint32_t * waits;
};

enum ggc_hazard {
    GGC_RAW = 0,    // read after write
    GGC_WAR = 1,    // write after read
    GGC_WAW = 2,    // write after write
    GGC_FENCE = 3,  // one of the two is a fence
    GGC_HAZARD_COUNT = 4,
};
GGC_API const char * ggc_hazard_string(enum ggc_hazard hazard);

struct ggc_plan_stats {
    uint32_t n_units;
    uint32_t n_phases;   // the longest dependence chain, in units; more only with look_ahead
    uint32_t width;      // most units in one phase
    uint32_t n_streams;  // streams that got at least one unit
    uint64_t n_deps;     // pairs (earlier, later) in direct conflict that the tracker reports
    uint64_t n_waits;
    uint64_t hazards[GGC_HAZARD_COUNT];  // of n_deps, by the kind that was met first
    double cost;                         // microseconds, all units one after another
    double critical;                     // microseconds, the longest chain
};

struct ggc_plan;  // immutable once made

// Finds the dependences of `units` and places them on at most params->n_streams streams.
// params NULL: the defaults. On success *plan is the caller's, to be freed with ggc_plan_free.
// The plan does not refer to `units` afterwards. Equal input gives an equal plan, everywhere.
// GGC_E_INVALID: a malformed access or parameter; GGC_E_CAPACITY: too many units for the strategy;
// GGC_E_NOMEM.
GGC_API enum ggc_status ggc_plan_new(const struct ggc_units * units,
                                     const struct ggc_plan_params * params,
                                     struct ggc_plan ** plan);
GGC_API void ggc_plan_free(struct ggc_plan * plan);  // NULL is fine

// For units whose accesses have changed (other addresses, other sizes): finds the dependences anew,
// and if they are those of `plan`, the plan is right as it is: *kept is true and nothing changes.
// Otherwise *kept is false, nothing changes, and a new plan is due. Costs a part of planning.
// GGC_E_INVALID: malformed units; GGC_E_NOMEM.
GGC_API enum ggc_status ggc_plan_still_right(const struct ggc_plan * plan,
                                             const struct ggc_units * units, bool * kept);

GGC_API struct ggc_schedule ggc_plan_schedule(const struct ggc_plan * plan);
GGC_API struct ggc_plan_stats ggc_plan_get_stats(const struct ggc_plan * plan);

// The phase of each unit, 0 .. n_phases-1: inside a phase any order is right, and between two
// phases everything of the first comes before everything of the second.
GGC_API const uint32_t * ggc_plan_phases(const struct ggc_plan * plan);

// Units that `unit` directly depends on (an earlier conflicting access that no other hides),
// ascending; *n gets their number. NULL and 0 for a unit outside the plan.
GGC_API const uint32_t * ggc_plan_deps(const struct ggc_plan * plan, uint32_t unit, uint32_t * n);

// Writes for each unit by how many microseconds it may start late, or take longer, without the end
// coming later, on any number of streams; 0 on the longest chain. `units`: those that the plan was
// made from, whose costs count; `slack` has n_units entries. GGC_E_INVALID: other units;
// GGC_E_NOMEM.
GGC_API enum ggc_status ggc_plan_slack(const struct ggc_plan * plan, const struct ggc_units * units,
                                       double * slack);

//
// Proof
//

// Two accesses that conflict: that of unit `a` comes first in the serial order.
struct ggc_conflict {
    uint32_t a, b;                // units
    uint32_t access_a, access_b;  // indices into units->accesses, or GGC_NONE for a fence
    enum ggc_hazard hazard;
    uint32_t buffer;
    uint64_t begin, end;  // some of the bytes that both touch, half-open; 0, 0 for a fence
};

// Decides whether `schedule` orders every conflicting pair of `units` as the serial order does.
// Shares no code with the planner: vector clocks over streams and waits, then every overlapping
// pair of accesses. GGC_OK: race-free. GGC_E_RACE: *race (if not NULL) is the first pair found.
// GGC_E_INVALID: the arrays are no schedule (not a permutation, a stream out of range, a wait for
// a later unit). GGC_E_NOMEM.
GGC_API enum ggc_status ggc_verify_schedule(const struct ggc_units * units,
                                            const struct ggc_schedule * schedule,
                                            struct ggc_conflict * race);

// The same for the phase form: phase[u] for each unit.
GGC_API enum ggc_status ggc_verify_phases(const struct ggc_units * units, const uint32_t * phase,
                                          struct ggc_conflict * race);

// The first pair of conflicting accesses of units a and b (a < b), with the bytes. GGC_OK and
// *conflict, or GGC_E_INVALID when the two do not conflict directly or do not exist.
GGC_API enum ggc_status ggc_explain(const struct ggc_units * units, uint32_t a, uint32_t b,
                                    struct ggc_conflict * conflict);

#ifdef __cplusplus
}
#endif
