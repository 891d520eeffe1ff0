#include "allowance.h"

// Of the time that passes without trials.
#define SHARE (1.0 / 32)
// What a way is taken to cost until it is ready, in computations, as long as none was tried: seven
// to nine in most models on an H100.
#define OPENING 8.0

void allowance_init(struct allowance * allowance, double left) {
    *allowance = (struct allowance) {.left = left};
}

bool allowance_covers(const struct allowance * allowance, bool is_ready) {
    const double opening = allowance->opening > 0 ? allowance->opening : OPENING * allowance->base;
    return allowance->left >= (is_ready ? 0 : opening);
}

void allowance_begin(struct allowance * allowance) {
    allowance->at_start = allowance->left;
    allowance->has_begun = true;
}

void allowance_spend(struct allowance * allowance, double microseconds) {
    allowance->left -= microseconds;
}

void allowance_spend_computation(struct allowance * allowance, double microseconds) {
    allowance_spend(allowance, microseconds - allowance->base);
}

void allowance_end(struct allowance * allowance) {
    const double cost = allowance->at_start - allowance->left;
    allowance->opening = cost > allowance->opening ? cost : allowance->opening;
    allowance->has_begun = false;
}

void allowance_earn(struct allowance * allowance, double microseconds) {
    allowance->left += SHARE * microseconds;
}
