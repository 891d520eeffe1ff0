// Chains that cover all units with the fewest waits.
#pragma once

#include "arena.h"
#include "hazard.h"

// Above this many units the reachability bits (n * n / 8 bytes) would take more than 128 MiB.
#define COVER_MAX_UNITS 32768

// Nimble's assignment (Kwon, Yu, Jeong, Chun, "Nimble: Lightweight and Parallel GPU Task Scheduling
// for Deep Learning", NeurIPS 2020): the transitive reduction of the dependences, then a maximum
// matching of units to successors in it. The matched pairs form chains; units that can run at the
// same time never share one, and the edges between chains are as few as they can be.
// next[u]: the unit after u on its chain, or GGC_NONE.
// O(n * e / 64) time for the reduction of e dependences, O(e * sqrt(n)) for the matching (Hopcroft
// and Karp, 1973). GGC_E_CAPACITY: more than COVER_MAX_UNITS; GGC_E_NOMEM.
enum ggc_status cover_chains(uint32_t * next, const struct ggc_units * units,
                             const struct hazards * hazards, struct arena * scratch);
