// A plan as what each stream does, one after another: wait, compute some nodes, say so.
#pragma once

#include "dispatch.h"

// "`count` segments of `stream` have been computed."
struct segment_wait {
    uint32_t stream, count;
};

struct segment {
    struct ggml_cgraph graph;  // the nodes, in our array; use counts of the whole graph
    struct segment_wait * waits;
    uint32_t n_waits;
    uint32_t stream, place;  // in the list `order` of all segments
    uint32_t n_threads;
    uint32_t unit;                // the first one
    uint32_t before;              // the last unit before that on the stream; GGC_NONE: none
    bool is_waited_for;           // by a segment of another stream
    struct ggml_tensor * marker;  // with `markers`: the first node, which computes nothing
};

struct segment_list {
    struct segment * items;
    uint32_t n;
};

struct segments {
    uint32_t n_streams;
    struct segment_list * streams;  // n_streams
    uint32_t * unit_threads;        // of each unit
    struct segment ** order;        // all segments in an order in which they can be issued
    uint32_t n_segments;
    // owned by the above
    struct segment * segments;
    struct segment_wait * waits;
    struct ggml_tensor ** nodes;
    struct ggml_context * separators;
};

// Where the plan's streams are cut, beside where a unit waits, is waited for, or takes another
// number of threads.
struct segment_cuts {
    bool every_unit;
    bool (*before)(const struct ggml_tensor * node);  // a unit with such a node; NULL: none
    // Each segment begins with a node of its own that computes nothing, and the place after its
    // last node holds a valid one, too.
    bool markers;
};

// Threads: an equal share of the parameters' n_threads for each stream; a unit whose result depends
// on the number always gets all. GGC_E_NOMEM.
enum ggc_status segments_init(struct segments * segments, const struct dispatch_args * args,
                              struct segment_cuts cuts);
void segments_free(struct segments * segments);

// Estimated microseconds of a run: of the segments on their streams, and of the same units one
// after another, each by all threads where that is faster. 0 and 0 when out of memory.
struct segments_estimate {
    double streams, serial;
};
struct segments_estimate segments_estimate(const struct segments * segments,
                                           const struct dispatch_args * args);
