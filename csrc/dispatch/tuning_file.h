// What was found fastest, on disk, one small text file for a graph.
//
//     ggml-concurrent tuning 2
//     key 0123456789abcdef0123456789abcdef
//     way list streams 2 threads 2 urgency 0 nanoseconds 345600
//     way serial streams 1 threads 2 urgency 0 nanoseconds 400100
//     repeats 256
//     end
//
// The first way is the one to use. `repeats` may be left out: how often one graph was computed, of
// those that are alike. Instead of all that there may be a line
//
//     allowance 12345
//
// where the choice is not made yet: microseconds that trials may cost (dropin/allowance.h). Files
// are written under another name and then renamed, so that several processes can do so at once and
// none ever reads half of one.
#pragma once

#include "ggc-core.h"
#include "ggml/graph_key.h"
#include "ggml/message.h"

struct tuning_way {
    enum ggc_strategy strategy;
    uint32_t n_streams, n_threads;
    bool urgency;
    uint64_t nanoseconds;  // 0: not timed, for there was no other way
};

struct tuning {
    struct tuning_way best;
    uint64_t serial_nanoseconds;  // of the one that is called serial; 0: not told
    uint32_t repeats;             // 0: not told
    double allowance;             // BEGUN alone
};

enum tuning_found {
    TUNING_NONE,   // nothing is known of this graph
    TUNING_BEGUN,  // no way is chosen yet
    TUNING_FOUND,
    TUNING_DAMAGED,  // there is a file, and it cannot be used; `message` says why
};

enum tuning_found tuning_read(const char * directory, const struct graph_key * key,
                              struct tuning * tuning, const struct message * message);

// Writes n ways, the best first; `repeats` unless it is 0. The directory is made where it is
// missing, its parent is not. False, with a reason, when the file could not be written.
bool tuning_write(const char * directory, const struct graph_key * key,
                  const struct tuning_way * ways, uint32_t n, uint32_t repeats,
                  const struct message * message);

// The same where nothing is chosen yet.
bool tuning_write_begun(const char * directory, const struct graph_key * key, double allowance,
                        const struct message * message);

const char * strategy_name(enum ggc_strategy strategy);
