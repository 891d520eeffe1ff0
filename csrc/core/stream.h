// Places units on streams and finds the waits between them.
#pragma once

#include "arena.h"
#include "hazard.h"

// A schedule whose arrays we own; see struct ggc_schedule.
struct streams {
    uint32_t n_streams;
    uint32_t * order;
    uint32_t * stream;
    uint32_t * wait_begin;
    uint32_t * waits;
};

// phase: of each unit, for the strategies that go by phases. The waits are irredundant: leave out
// any one, and a pair of conflicting accesses is unordered. GGC_E_NOMEM, GGC_E_CAPACITY.
enum ggc_status streams_place(struct streams * streams, const struct ggc_units * units,
                              const struct hazards * hazards, const uint32_t * phase,
                              uint32_t n_phases, const struct ggc_plan_params * params,
                              struct arena * out, struct arena * scratch);
