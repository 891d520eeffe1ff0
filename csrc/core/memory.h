// Lays out tensors in memory for a plan.
//
// Two tensors may share bytes when all accesses to the one come before all accesses to the other:
// in the serial order of the units, so that the units can still be computed one after another, and
// in the partial order of the plan (its streams and waits), so that the plan loses nothing:
//
//     stream 0   |a: writes A|b: A -> B|c: B -> C|       C may have the bytes of A, since b has
//     stream 1                |d: A -> D|e: D -> E|      finished; of d nobody on stream 0 knows
//
// Where that takes more memory than there is, sharing by time comes next: bytes change hands where
// the one tensor's last access ends in good time before the other's first begins, as the plan is
// expected to run. That orders units which the plan left unordered, so another plan is due, found
// on the addresses; but those units are seldom at hand at the same time. How much time that must be
// at least, the slack, is the one knob between all of the plan's concurrency (infinite) and the
// memory of a serial run (minus infinite): it gives up first what costs least time.
//
// Units that may run ahead of others hold memory while they wait. Where the plan itself may change,
// one is made in which a unit does not start before there is memory for it.
#pragma once

#include "arena.h"

struct memory_tensor {
    uint64_t size;        // bytes; 0: takes no memory, and is at offset 0
    uint32_t begin, end;  // uses[begin .. end): the units that access it, ascending
    uint32_t in_place;    // an earlier tensor whose bytes it may take over in the unit that is the
                          // last to access that one and the first to access this, or GGC_NONE
    bool kept;            // holds a value before the first unit or after the last (an input, a
                          // cache), or is used by none: nobody else ever gets its bytes
    bool result;          // holds its value after the last unit: nobody gets its bytes after it
};

struct memory_problem {
    uint32_t n_units;
    const double * cost;  // n_units, microseconds; or NULL: 1 each
    struct ggc_schedule schedule;
    double wait_cost;  // microseconds that a wait for another stream costs
    const struct memory_tensor * tensors;
    uint32_t n_tensors;
    const uint32_t * uses;
    uint64_t alignment;   // of offsets, a power of two; sizes are rounded up to it
    uint64_t max_buffer;  // bytes: no tensor lies across a multiple of this, unless it is larger
    // For memory_fit: unit u depends on dep[dep_begin[u] .. dep_begin[u + 1]), earlier ones.
    const uint32_t *dep_begin, *dep;
};

enum memory_sharing {
    MEMORY_APART,    // none
    MEMORY_BY_PLAN,  // what the plan orders anyway
    MEMORY_BY_TIME,  // and what lies far enough apart in time
    MEMORY_SERIAL,   // whatever the serial order allows: the least memory
};

struct memory_layout {
    enum memory_sharing sharing;
    double slack;         // microseconds, for MEMORY_BY_TIME
    uint64_t size;        // bytes, of all buffers
    uint64_t apart;       // bytes that it would be without sharing
    uint64_t bound;       // bytes that are alive at once when units run in the order in which they
                          // are issued and each is finished once something has waited for it: no
                          // layout for the plan is smaller
    uint64_t max_buffer;  // what buffers really hold at most: `offset / max_buffer` is the number
                          // of a tensor's buffer
};

// n_units each, the caller's.
struct memory_schedule {
    uint32_t *order, *stream;
    double * start;  // microseconds, as the units are expected to run, the memory's waits included
};

// Writes the n_units units in the order in which they are expected to start: an order of the plan
// in which sharing by time, with no negative slack, asks for nothing that is not so already.
// GGC_E_INVALID, GGC_E_NOMEM.
enum ggc_status memory_order(const struct memory_problem * problem,
                             const struct ggc_allocator * allocator, uint32_t * order);

// Writes the n_tensors offsets of the fastest layout that fits into `budget` bytes, or of the
// smallest if none does. Memory comes from `allocator` (NULL: malloc) and is freed. GGC_E_INVALID:
// a unit or tensor that there is not, or sizes that add up to more than 2^62; GGC_E_NOMEM. After a
// failure `offset` holds anything.
enum ggc_status memory_lay_out(const struct memory_problem * problem, uint64_t budget,
                               const struct ggc_allocator * allocator, uint64_t * offset,
                               struct memory_layout * layout);

// The same where the plan may be made anew on the same streams: a schedule that minds what it has
// in use, and the layout for it. Where no layout that is found fits into `budget`, it is as if that
// were the bytes of a serial layout. `schedule` gets the given plan where that is kept (up to
// MEMORY_BY_PLAN), the new one with MEMORY_BY_TIME (slack 0, by schedule->start): the layout asks
// for nothing that is not so already in that order; nothing is written with MEMORY_SERIAL.
enum ggc_status memory_fit(const struct memory_problem * problem, uint64_t budget,
                           const struct ggc_allocator * allocator, uint64_t * offset,
                           const struct memory_schedule * schedule, struct memory_layout * layout);
