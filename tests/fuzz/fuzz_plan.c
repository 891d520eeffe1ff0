// Any bytes at all as units and as a schedule. The planner must accept or refuse them, what it
// accepts must pass the verifier, and the verifier must survive any schedule.
//
// With clang: -fsanitize=fuzzer,address,undefined (scripts/fuzz does it). Other compilers: the main
// below runs the files and folders that it is given.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggc-core.h"

#define MAX_UNITS 64
#define MAX_ACCESSES 256

struct input {
    const uint8_t * at;
    size_t left;
};

static uint64_t take(struct input * input, size_t n_bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < n_bytes && input->left > 0; i++, input->left--) {
        value = value << 8 | *input->at++;
    }
    return value;
}

// Mostly small numbers that overlap, sometimes the largest that there are.
static uint64_t take_size(struct input * input) {
    const uint64_t kind = take(input, 1);
    return kind == 0xff ? take(input, 8) : kind == 0xfe ? UINT64_MAX - take(input, 1) : kind % 64;
}

struct units_of_input {
    uint32_t begin[MAX_UNITS + 1];
    struct ggc_access accesses[MAX_ACCESSES];
    uint8_t fence[MAX_UNITS];
    double cost[MAX_UNITS];
    struct ggc_units units;
};

static void take_units(struct input * input, struct units_of_input * u) {
    const uint32_t n = (uint32_t) take(input, 1) % (MAX_UNITS + 1);
    uint32_t n_accesses = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t head = (uint32_t) take(input, 1);
        u->begin[i] = n_accesses;
        u->fence[i] = head % 32 == 31;
        u->cost[i] = (double) (head / 8);
        for (uint32_t k = head % 5; k > 0 && n_accesses < MAX_ACCESSES; k--) {
            const uint32_t kind = (uint32_t) take(input, 1);
            struct ggc_access * access = &u->accesses[n_accesses++];
            access->mode = kind % 64 == 63 ? kind : 1 + kind % 2;
            access->buffer = kind % 64 == 62 ? UINT32_MAX - kind : kind / 2 % 3;
            access->offset = take_size(input);
            access->run = take_size(input);
            access->stride = kind & 128 ? take_size(input) : 0;
            access->count = kind & 128 ? (uint32_t) take_size(input) : 1;
        }
    }
    u->begin[n] = n_accesses;
    u->units = (struct ggc_units) {n, u->begin, u->accesses, u->fence, u->cost};
}

static void expect(bool condition, const char * what) {
    if (!condition) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void check_plan(const struct ggc_units * units, const struct ggc_plan_params * params) {
    struct ggc_plan * plan = NULL;
    struct ggc_conflict race;
    const enum ggc_status status = ggc_plan_new(units, params, &plan);
    expect(status == GGC_OK || status == GGC_E_INVALID, "an unexpected status of the planner");
    expect((status == GGC_OK) == (plan != NULL), "a plan without success, or success without one");
    if (plan == NULL) {
        return;
    }
    const struct ggc_schedule schedule = ggc_plan_schedule(plan);
    expect(ggc_verify_schedule(units, &schedule, &race) == GGC_OK, "the schedule races");
    expect(ggc_verify_phases(units, ggc_plan_phases(plan), &race) == GGC_OK, "the phases race");
    bool kept = false;
    expect(ggc_plan_still_right(plan, units, &kept) == GGC_OK && kept, "equal units, other plan");
    for (uint32_t u = 0; u < units->n_units; u++) {
        uint32_t n;
        const uint32_t * deps = ggc_plan_deps(plan, u, &n);
        for (uint32_t i = 0; i < n; i++) {
            expect(ggc_explain(units, deps[i], u, &race) == GGC_OK, "a dependence without reason");
        }
    }
    ggc_plan_free(plan);
}

static void check_schedule(struct input * input, const struct ggc_units * units) {
    uint32_t order[MAX_UNITS], stream[MAX_UNITS], begin[MAX_UNITS + 1], waits[4 * MAX_UNITS];
    uint32_t phase[MAX_UNITS], n_waits = 0;
    for (uint32_t u = 0; u < units->n_units; u++) {
        const uint32_t dice = (uint32_t) take(input, 1);
        order[u] = dice % 8 == 7 ? (uint32_t) take(input, 4) : u;
        stream[u] = dice / 8 % 5;
        phase[u] = dice / 4 % 16;
        begin[u] = n_waits;
        for (uint32_t k = dice / 64; k > 0; k--) {
            waits[n_waits++] = (uint32_t) take(input, 1);
        }
    }
    begin[units->n_units] = n_waits;
    const struct ggc_schedule schedule = {
        units->n_units, 1 + (uint32_t) take(input, 1) % 5, order, stream, begin, waits};
    struct ggc_conflict race;
    ggc_verify_schedule(units, &schedule, &race);
    ggc_verify_phases(units, phase, &race);
}

int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    struct input input = {data, size};
    struct units_of_input units;
    struct ggc_plan_params params;
    ggc_plan_params_init(&params);
    const uint32_t head = (uint32_t) take(&input, 1);
    params.strategy = (enum ggc_strategy)(head % 4);
    params.n_streams = 1 + head / 4 % 8;
    params.look_ahead = head / 32;
    take_units(&input, &units);
    check_plan(&units.units, &params);
    check_schedule(&input, &units.units);
    return 0;
}

#ifdef FUZZ_STANDALONE
int main(int argc, char ** argv) {
    for (int i = 1; i < argc; i++) {
        static uint8_t data[1 << 16];
        FILE * file = fopen(argv[i], "rb");
        if (file == NULL) {
            fprintf(stderr, "cannot read %s\n", argv[i]);
            return 1;
        }
        LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, file));
        fclose(file);
    }
    printf("passed: %d inputs\n", argc - 1);
    return 0;
}
#endif
