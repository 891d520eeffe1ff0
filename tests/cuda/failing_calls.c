// Preloaded (LD_PRELOAD): calls of ours to a CUDA driver, whichever it is, are counted, and fail
// where a test says so. The dispatcher finds the driver's functions by dlsym, and gets these
// instead; what the CUDA runtime and ggml-cuda call is not touched.
//
// A dlsym in front of the C library's changes what RTLD_NEXT means to others: nothing that asks for
// that may be in the process.
//
// A call that fails does nothing else, except that cuStreamEndCapture ends the capture. The same
// names as in fake_driver.h, so that the same tests can use either.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "dispatch/cuda_driver.h"

#define API __attribute__((visibility("default")))

// Every parameter is an integer or a pointer, of which all calling conventions in question pass six
// in registers.
typedef CUresult (*any_function)(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t);

struct call {
    const char * function;
    any_function real, ours;
    uint64_t calls;
    int n;  // as of failing_fail; counted down, or up
    CUresult error;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static CUresult fault_of(struct call * call) {
    pthread_mutex_lock(&mutex);
    CUresult error = 0;
    call->calls++;
    if (call->n > 0 && --call->n == 0) {
        error = call->error;
    } else if (call->n == -1) {
        error = call->error;
    } else if (call->n < -1) {
        call->n++;
    }
    pthread_mutex_unlock(&mutex);
    return error;
}

#define X(symbol, name, parameters)                                                                \
    static CUresult ours_##symbol(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,           \
                                  uintptr_t);                                                      \
    static struct call call_##symbol = {.function = #symbol, .ours = ours_##symbol};               \
    static CUresult ours_##symbol(uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e, \
                                  uintptr_t f) {                                                   \
        const CUresult error = fault_of(&call_##symbol);                                           \
        if (error != 0 && strcmp(#symbol, "cuStreamEndCapture") != 0) {                            \
            return error;                                                                          \
        }                                                                                          \
        const CUresult result = call_##symbol.real(a, b, c, d, e, f);                              \
        if (error != 0) {                                                                          \
            *(CUgraph *) b = NULL; /* lost */                                                      \
            return error;                                                                          \
        }                                                                                          \
        return result;                                                                             \
    }
CUDA_DRIVER_FUNCTIONS(X)
CUDA_DRIVER_EXTRAS(X)
#undef X

static struct call * const calls[] = {
#define X(symbol, name, parameters) &call_##symbol,
    CUDA_DRIVER_FUNCTIONS(X) CUDA_DRIVER_EXTRAS(X)
#undef X
};
enum { N_CALLS = sizeof(calls) / sizeof(*calls) };

static struct call * find(const char * name) {
    for (int i = 0; i < N_CALLS; i++) {
        if (strcmp(calls[i]->function, name) == 0) {
            return calls[i];
        }
    }
    return NULL;
}

typedef void * (*dlsym_function)(void *, const char *);

static dlsym_function real_dlsym(void) {
    static dlsym_function found;
    if (found == NULL) {
        // the versions of x86-64 and of arm64, and the one since the libraries were merged
        const char * versions[] = {"GLIBC_2.2.5", "GLIBC_2.17", "GLIBC_2.34"};
        for (size_t i = 0; i < sizeof(versions) / sizeof(*versions) && found == NULL; i++) {
            *(void **) &found = dlvsym(RTLD_NEXT, "dlsym", versions[i]);
        }
    }
    return found;
}

// Whether the caller is our library or our drop-in.
static bool is_ours(const void * caller) {
    Dl_info info;
    if (dladdr(caller, &info) == 0 || info.dli_fname == NULL) {
        return false;
    }
    const char * slash = strrchr(info.dli_fname, '/');
    const char * file = slash == NULL ? info.dli_fname : slash + 1;
    return strncmp(file, "libggml-concurrent", strlen("libggml-concurrent")) == 0;
}

API void * dlsym(void * library, const char * name) {
    void * symbol = real_dlsym()(library, name);
    struct call * call = symbol == NULL ? NULL : find(name);
    if (call == NULL || !is_ours(__builtin_return_address(0))) {
        return symbol;
    }
    *(void **) &call->real = symbol;
    void * ours;
    memcpy(&ours, &call->ours, sizeof(ours));
    return ours;
}

API uint64_t failing_calls(const char * function) {
    struct call * call = find(function);
    return call == NULL ? 0 : call->calls;
}

// False: there is no such function.
API bool failing_fail(const char * function, int n, CUresult error) {
    struct call * call = find(function);
    if (call == NULL) {
        return false;
    }
    pthread_mutex_lock(&mutex);
    call->n = n;
    call->error = error;
    pthread_mutex_unlock(&mutex);
    return true;
}

API void failing_reset(void) {
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < N_CALLS; i++) {
        calls[i]->n = 0;
        calls[i]->calls = 0;
    }
    pthread_mutex_unlock(&mutex);
}
