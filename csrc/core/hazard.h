// The dependences between units: what must come before what, and why.
#pragma once

#include "arena.h"

// Dependences as rows: those of unit u are dep[begin[u]] .. dep[begin[u + 1] - 1], ascending, each
// an earlier unit in direct conflict with u. Pairs that follow from others through a common byte
// are left out (a write hides what came before it on that byte), so the order that they span is
// complete but they are not always all conflicting pairs.
struct hazards {
    uint32_t * begin;  // n_units + 1
    uint32_t * dep;
    uint64_t count[GGC_HAZARD_COUNT];
};

// `out` keeps the result, `scratch` may be freed afterwards. GGC_E_INVALID or GGC_E_NOMEM.
enum ggc_status hazards_find(struct hazards * hazards, const struct ggc_units * units,
                             struct arena * out, struct arena * scratch);
