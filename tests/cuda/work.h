// Pieces of work, the threads that run them, and the order among them as vector clocks.
//
// Work that touches memory lies on a chain: pieces of which each follows the one before it. A clock
// tells for each chain how many of its pieces come before. Every function is called with the one
// lock of the driver held, unless it says otherwise.
#pragma once

#include <pthread.h>

#include "fake_driver.h"

void driver_lock(void);
void driver_unlock(void);

struct payload {
    unsigned refs;
    struct fake_kernel kernel;  // its name is ours
    struct payload * part_of;   // what that does before it waits; NULL: it is whole
};
// Takes over kernel->argument.
struct payload * payload_new(const struct fake_kernel * kernel);
struct payload * payload_ref(struct payload * payload);
void payload_unref(struct payload * payload);  // NULL is fine

struct work;
// Issues `payload` (borrowed; NULL: nothing to do, only order) after `deps`. `place` is a constant
// or interned text for reports. The result is to be given back with work_unref.
struct work * work_issue(struct payload * payload, struct work * const * deps, size_t n_deps,
                         const char * place);
// The same for what may do something before it waits: that comes after `begin` alone.
struct work * work_issue_early(struct payload * payload, struct work * begin,
                               struct work * const * deps, size_t n_deps, const char * place);
// Order only: after all of them. Without any NULL.
struct work * work_after(struct work * const * deps, size_t n_deps, const char * place);
struct work * work_ref(struct work * work);  // NULL is fine
void work_unref(struct work * work);
bool work_done(const struct work * work);        // NULL counts as done
double work_finished(const struct work * work);  // milliseconds, of something that is done
// Blocks the caller, the lock open meanwhile. What is issued from now on comes after `work`.
void work_wait(struct work * work);
// The same without blocking, for a query that has found it done.
void work_seen(const struct work * work);
void work_wait_all(void);  // as if every stream were synchronised

// For the shadow memory.
struct epoch {
    uint32_t chain, tick;
    const char * who;  // interned
};
struct epoch work_epoch(const struct work * work);
bool work_follows(const struct work * work, struct epoch epoch);
const struct payload * work_payload(const struct work * work);

const char * intern(const char * text);  // equal texts give equal pointers, valid until the end

uint64_t work_count(void);  // pieces with a payload that have run
void work_reset_count(void);

void * allocate(size_t size);  // zeroed; ends the process when out of memory
void * reallocate(void * memory, size_t size);
