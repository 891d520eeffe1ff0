// Turns a failed ggml assertion into a status. ggml calls its abort callback before it aborts; ours
// jumps back to the innermost guard of the same thread. What the interrupted call had allocated
// stays allocated (a context's memory goes with the context); no lock of ggml's is held where its
// graph-building functions assert.
//
//     jmp_buf * jump = ggc_guard_push();
//     if (setjmp(*jump) == 0) { result = ggml_mul_mat(ctx, a, b); failed = false; }
//     else                    { failed = true; }        // ggc_guard_message() says what
//     ggc_guard_pop();
#pragma once

#include <setjmp.h>

#include "ggml-concurrent.h"

// Installs the callback (once) and opens a guard on this thread. Guards nest.
GGC_API jmp_buf * ggc_guard_push(void);
GGC_API void ggc_guard_pop(void);
