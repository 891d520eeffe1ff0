// What trials may cost. Ways of computing are timed on the runner's own computations, and to make
// one ready takes as long as many of them. So a trial waits until it is paid for: by a small share
// of the time that was computed without one, and by what a way that was found faster has saved.
// Until everything is tried no more than that share is lost, and one trial that was dearer than
// expected. All times are in microseconds. Knows nothing of graphs, and of ways only which is the
// runner's.
#pragma once

#include <stdbool.h>

struct allowance {
    double left;      // less than 0 after a trial that was dearer than expected
    double base;      // a computation in the runner's own way, set by the user; 0: not known yet
    double opening;   // what the dearest way has cost until it was ready; 0: none was tried
    double at_start;  // what was left when the turn began
    bool has_begun;   // a turn
};

// `left`: of an earlier process.
void allowance_init(struct allowance * allowance, double left);

// Whether a turn in a way may begin; `is_ready`: there is nothing to open.
bool allowance_covers(const struct allowance * allowance, bool is_ready);

// A turn begins, in a way that is to be tried.
void allowance_begin(struct allowance * allowance);
// Of the turn: a computation, or something else that it took.
void allowance_spend_computation(struct allowance * allowance, double microseconds);
void allowance_spend(struct allowance * allowance, double microseconds);
void allowance_end(struct allowance * allowance);

// A computation that is no trial: in the runner's own way, or in the fastest so far, whose
// difference to it is spent, or saved, as well.
void allowance_earn(struct allowance * allowance, double microseconds);
