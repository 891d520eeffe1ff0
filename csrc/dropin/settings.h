// What the environment says, read once.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum mode {
    MODE_OFF,     // graphs go through as they are
    MODE_AUTO,    // the fastest way, as timed on the runner's own computations
    MODE_EAGER,   // the same, and ways are tried at once, whatever that costs
    MODE_ALWAYS,  // on streams whether that pays or not, for tests
};

struct settings {
    enum mode mode;         // GGML_CONCURRENT=off|auto|eager|always
    uint32_t n_streams;     // GGML_CONCURRENT_STREAMS: at most so many
    uint32_t stress_seed;   // GGML_CONCURRENT_STRESS: random delays between units, for tests
    bool own;               // GGML_CONCURRENT_OWN=1: this project's own ggml is held too, for tests
    bool quiet;             // GGML_CONCURRENT_QUIET=1: says nothing on standard error
    char tuning_dir[1024];  // GGML_CONCURRENT_CACHE, else below the user's cache folder; "": none
};

const struct settings * settings_get(void);

// One line on standard error, unless that is not wanted.
__attribute__((format(printf, 1, 2))) void say(const char * format, ...);
