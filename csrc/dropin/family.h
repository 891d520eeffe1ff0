// Graphs that are alike but for the sizes of caches: what is fastest for one is so for all. Which
// way that is, is found by timing them on the runner's own computations, and kept on disk.
#pragma once

#include "allowance.h"
#include "dispatch/tuner.h"
#include "ggml-backend.h"
#include "ggml/graph_key.h"

#define MAX_WAYS 4
// Computations after which a graph is taken for one that comes again. A prompt mostly does not.
#define PATIENCE 2

struct family {
    struct graph_key key;
    struct tuner tuner;
    struct allowance allowance;    // for trials
    uint32_t n_streams[MAX_WAYS];  // of each way; the first one is the runner's own
    uint32_t n_threads;            // of the CPU, for all streams; 0: not the CPU
    uint32_t n_untimed;
    uint64_t last_used;
    bool is_of_today;       // what is found need not be so in another process
    bool is_told;           // that it has settled
    uint32_t n_since_new;   // computations since there was a graph that had not been there before
    uint32_t repeats;       // the most of these, so far or in an earlier process
    uint32_t repeats_kept;  // of these, on disk: each time that it has doubled, and in the end
    bool has_graph;         // there was one, in this context
    double gain;            // microseconds that a computation is faster than the runner's own way
    double opening;         // that it took to make a graph ready, the last time; 0: none was
    uint32_t resting;       // the way of the next computation, if that is no trial
};

// Whether graphs that come for the first time are looked up at all: not any more when very many in
// a row have not come again, for a look takes some time of its own.
struct newcomers {
    uint32_t n_in_vain;
};
bool newcomers_are_looked_up(struct newcomers * newcomers);
void newcomers_came_again(struct newcomers * newcomers);

struct graph_key family_key(const struct ggml_cgraph * graph, const char * ggml_version,
                            ggml_backend_dev_t device, uint32_t n_threads);

// Settled already where one way alone is wanted, or where the choice is on disk.
void family_init(struct family * family, struct graph_key key, uint32_t n_threads);

// Whether it is known, in this process or on disk, that streams are faster; then it is initialised.
bool family_known(struct family * family, struct graph_key key, uint32_t n_threads);

// A computation of one of its graphs. How many there are of one is noted on disk now and then.
void family_seen(struct family * family);
// Whether a graph that has come again, and was computed so often in the runner's own way, is to be
// made ready: when that would have paid by now or, with as many as are expected, will; at once
// while ways are tried, which has its price elsewhere.
bool family_is_worth_it(const struct family * family, uint32_t n_seen, uint32_t expected);
// A graph that is new here, and was computed `n_seen` times before; *expected: how often the one
// before it was, or such graphs were in earlier processes. False: not to be made ready at once,
// since the one before it did not come again often enough; or since it is the first one of this
// context, for which somebody may be waiting.
bool family_new_graph(struct family * family, uint32_t n_seen, uint32_t * expected);

// The way of the next computation: the one whose turn it is, or, as long as its trial is not paid
// for, the fastest so far. `is_ready` says of each way whether it is made ready for the graph.
uint32_t family_way(struct family * family, const bool is_ready[MAX_WAYS], bool * is_trial);
// Microseconds that it took to make a way ready for its trial.
void family_opened(struct family * family, double microseconds);
// Microseconds of the host's that it took all in all until a graph could be computed in the chosen
// way with nothing left to make.
void family_made_ready(struct family * family, double microseconds);

// That computation was no trial: how long it took is known well enough.
void family_rested(struct family * family);
// How long a trial took; less than 0: it could not be read.
void family_note(struct family * family, double microseconds);
// A way, not the first, that offers nothing; or that has failed, for a reason that may be gone
// tomorrow: then nothing is kept on disk.
void family_drop(struct family * family, uint32_t way, bool has_failed);
// True once, when the choice is made: it is kept on disk by then, if it is to be.
bool family_has_just_settled(struct family * family);
// The runner has done with it: how far a choice is that was not made is kept on disk, unless
// somebody else has made it since.
void family_end(struct family * family);
