// The device's memory, and beside it who wrote each byte last and who has read it since.
//
//     write        races with the last write and with every read since, unless it follows them
//     read         races with the last write, unless it follows it
//
// Pieces of work are checked when they run, which is always in an order that the edges allow: in
// any such order the first of two unordered accesses is still remembered when the second one comes.
// Neighbouring bytes with the same history are one segment. Called with the driver's lock held.
#pragma once

#include "work.h"

// NULL when `total` bytes of the device would be exceeded.
void * shadow_allocate(int device, size_t size, size_t total);
bool shadow_free(void * address);  // false: nothing was allocated there
size_t shadow_used(int device);

// Whether the work touches only memory that is allocated; if not, it is not to run.
bool shadow_check(struct work * work);

void report_error(const char * format, ...) __attribute__((format(printf, 1, 2)));
void shadow_reset(void);  // forgets what was reported
