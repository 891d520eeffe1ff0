#include "sim.h"

#include "sim_commands.h"

void metal_sim_reset(void) {
    sim().report = {};
}

void metal_sim_read(metal_sim_report * report) {
    *report = sim().report;
}

void metal_sim_seed(uint64_t seed) {
    sim().seed = seed;
}

void metal_sim_leave_out(int32_t barrier) {
    sim().leave_out = barrier;
}

void metal_sim_dry(int32_t dry) {
    sim().dry = dry != 0;
}
