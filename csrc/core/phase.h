// Units in groups between barriers.
#pragma once

#include "arena.h"
#include "hazard.h"

// Gives each unit its phase. Without a look-ahead bound the number of phases is the length of the
// longest dependence chain, the least possible. A unit stands in the earliest phase that its
// dependences allow, unless
//   - its result is needed later only, so that it would just lie about (loads of recurrent state
//     and caches, which depend on nothing, would all gather in the first phase): then right before
//     its first use; but
//   - units that read the same result and could share a phase stay together.
// look_ahead > 0: a unit stands in no earlier phase than any unit more than `look_ahead` places
// before it in the serial order; that may cost phases. GGC_E_NOMEM.
enum ggc_status phases_find(uint32_t * phase, uint32_t * n_phases, const struct ggc_units * units,
                            const struct hazards * hazards, uint32_t look_ahead,
                            struct arena * scratch);
