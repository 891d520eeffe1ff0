// What units were measured to cost on a device, on disk, one text file for a device.
//
//     ggml-concurrent costs 1
//     device NVIDIA H100 80GB HBM3, driver 13000, ggml 0.25.3
//     unit 0123456789abcdef0123456789abcdef nanoseconds 3420
//     end
//
// What stands there stays: a plan made from the costs comes out the same the next time. Files are
// written under another name and then renamed, so that several processes can do so at once and none
// ever reads half of one; of what two write at once, one may get lost.
#pragma once

#include "ggml/graph_key.h"
#include "ggml/message.h"

struct unit_cost {
    struct graph_key key;
    double microseconds;
};

struct cost_table {
    struct unit_cost * items;  // sorted by key
    uint32_t n, capacity;
};

// The cost of a unit; less than 0 where it is not known.
double costs_find(const struct cost_table * table, const struct graph_key * key);

// Notes the cost of a unit that is not known yet; of one that is, nothing changes. False when out
// of memory.
bool costs_add(struct cost_table * table, const struct graph_key * key, double microseconds);

// Adds to the cost of a unit, which is 0 as long as it is not known. False when out of memory.
bool costs_sum(struct cost_table * table, const struct graph_key * key, double microseconds);

// Adds what the file for `device` (a line of text) holds; what cannot be read is not used, and
// `message` says so. False when out of memory.
bool costs_read(struct cost_table * table, const char * directory, const char * device,
                const struct message * message);

// Writes all. The directory is made where it is missing, its parent is not. False, with a reason,
// when the file could not be written.
bool costs_write(const struct cost_table * table, const char * directory, const char * device,
                 const struct message * message);

void costs_free(struct cost_table * table);
