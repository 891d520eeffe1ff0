#include "ggc-core.h"

const char * ggc_status_string(enum ggc_status status) {
    switch (status) {
        case GGC_OK: return "ok";
        case GGC_E_INVALID: return "invalid argument";
        case GGC_E_NOMEM: return "out of memory";
        case GGC_E_CAPACITY: return "too small for the result";
        case GGC_E_RACE: return "race: two conflicting accesses are not ordered";
        case GGC_E_UNSUPPORTED: return "not supported by the device";
        case GGC_E_DEVICE: return "the device failed";
        case GGC_E_ABORTED: return "aborted by the caller";
        case GGC_E_ASSERT: return "ggml refused the arguments";
    }
    return "unknown status";
}

const char * ggc_hazard_string(enum ggc_hazard hazard) {
    switch (hazard) {
        case GGC_RAW: return "read after write";
        case GGC_WAR: return "write after read";
        case GGC_WAW: return "write after write";
        case GGC_FENCE: return "fence";
        case GGC_HAZARD_COUNT: break;
    }
    return "unknown hazard";
}
