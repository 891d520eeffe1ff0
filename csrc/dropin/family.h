// Graphs that are alike but for the sizes of caches: what is fastest for one is so for all. Which
// way that is, is found by timing them on the runner's own computations, and kept on disk.
#pragma once

#include "dispatch/tuner.h"
#include "ggml-backend.h"
#include "ggml/graph_key.h"

#define MAX_WAYS 4

struct family {
    struct graph_key key;
    struct tuner tuner;
    uint32_t n_streams[MAX_WAYS];  // of each way; the first one is the runner's own
    uint32_t n_threads;            // of the CPU, for all streams; 0: not the CPU
    uint32_t n_untimed;
    uint64_t last_used;
    bool is_of_today;  // what is found need not be so in another process
    bool is_told;      // that it has settled
};

struct graph_key family_key(const struct ggml_cgraph * graph, const char * ggml_version,
                            ggml_backend_dev_t device, uint32_t n_threads);

// Settled already where one way alone is wanted, or where the choice is on disk.
void family_init(struct family * family, struct graph_key key, uint32_t n_threads);

// The time of a computation in the way whose turn it is; less than 0: it could not be read.
void family_note(struct family * family, double microseconds);
// A way, not the first, that offers nothing; or that has failed, for a reason that may be gone
// tomorrow: then nothing is kept on disk.
void family_drop(struct family * family, uint32_t way, bool has_failed);
// True once, when the choice is made: it is kept on disk by then, if it is to be.
bool family_has_just_settled(struct family * family);
