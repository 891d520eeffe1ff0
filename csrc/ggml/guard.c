// A failed ggml assertion becomes a jump to the innermost guard of the same thread: see guard.h.
#include "guard.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml.h"

// Guards nest only when a guarded call runs code that opens a guard of its own: two or three deep
// in practice. A fixed number keeps the guard free of allocations, which could fail.
#define GUARD_DEPTH 16

// ggml formats its own message into 2048 bytes; longer ones arrive cut already.
#define GUARD_MESSAGE 2048

struct guard_state {
    int depth;
    jmp_buf jump[GUARD_DEPTH];
    char message[GUARD_MESSAGE];
};

static _Thread_local struct guard_state guards;

static pthread_once_t install_once = PTHREAD_ONCE_INIT;
static ggml_abort_callback_t previous_callback;

// ggml's message starts with the path of the source file as the compiler was given it. The folder
// is that of the machine that built the library: only "ggml.c:123: ..." tells the reader something.
static const char * without_folder(const char * message) {
    const char * start = message;
    for (const char * c = message; *c != '\0'; c++) {
        if (*c == '/') {
            start = c + 1;
        }
        if (*c == ':' && isdigit((unsigned char) c[1])) {
            return start;
        }
    }
    return message;  // not of the form "path:line: text"
}

static void keep_message(const char * message) {
    snprintf(guards.message, sizeof(guards.message), "%s", without_folder(message));
    size_t n = strlen(guards.message);
    while (n > 0 && isspace((unsigned char) guards.message[n - 1])) {
        guards.message[--n] = '\0';
    }
}

// Called by ggml just before it aborts the process, on the thread whose assertion failed.
static void on_abort(const char * message) {
    if (guards.depth > 0) {
        keep_message(message);
        longjmp(guards.jump[guards.depth - 1], 1);
    }
    // Nobody on this thread is ready for it, so ggml goes on to abort, as it would without us.
    if (previous_callback != NULL) {
        previous_callback(message);
    } else {
        fprintf(stderr, "%s\n", message);
    }
}

static void install(void) {
    previous_callback = ggml_set_abort_callback(on_abort);
}

jmp_buf * ggc_guard_push(void) {
    pthread_once(&install_once, install);
    if (guards.depth == GUARD_DEPTH) {
        // Only a missing ggc_guard_pop leads here. Going on would jump into a dead stack frame.
        fprintf(stderr, "ggml-concurrent: %d guards open on one thread: a pop is missing\n",
                GUARD_DEPTH);
        abort();
    }
    guards.message[0] = '\0';
    return &guards.jump[guards.depth++];
}

void ggc_guard_pop(void) {
    if (guards.depth > 0) {
        guards.depth--;
    }
}

const char * ggc_guard_message(void) {
    return guards.message;
}
