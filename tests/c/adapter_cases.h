// What the tests of the adapter's named cases share: one scene, run without memory and with it.
#pragma once

#include "support_ggml.h"

static struct scene scene, *const s = &scene;

// Runs the case that follows twice: on tensors without memory, and on placed ones.
static bool placed;

static inline void plan(void) {
    if (placed) {
        place_all(s);
    }
    scene_plan(s);
}

static inline struct ggml_tensor * node(struct ggml_tensor * t) {
    expand(s, t);
    return t;
}

static inline struct ggml_tensor * scaled(struct ggml_tensor * t) {
    return node(ggml_scale(s->ctx, t, 2));
}

static inline struct ggml_tensor * scaled_in_place(struct ggml_tensor * t) {
    return node(ggml_scale_inplace(s->ctx, t, 2));
}

static inline struct ggml_tensor * part(struct ggml_tensor * t, int64_t begin, int64_t end) {
    return ggml_view_1d(s->ctx, t, end - begin, (size_t) begin * sizeof(float));
}

//
// Running the cases
//

struct adapter_case {
    const char * name;
    void (*run)(void);
    bool both;  // without memory as well as with
};

#define BOTH(name) {#name, name, true}
#define ONCE(name) {#name, name, false}

static inline int run_adapter_cases(const struct adapter_case * cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (int with = 0; with <= cases[i].both; with++) {
            placed = with;
            test_case("%s%s", cases[i].name, placed ? " (with memory)" : "");
            scene_init(s);
            cases[i].run();
            scene_free(s);
        }
    }
    return test_passed("%zu cases", n);
}
