#include "cuda_driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>

#include "ggml-concurrent.h"

#define LIBRARY "libcuda.so.1"
#define OLDEST 12000  // cuGraphExecUpdate_v2 and cuGraphInstantiateWithFlags as they are used here

static struct cuda_driver driver;
static bool is_loaded;
static char reason[300];

static bool load_functions(void * library, const struct message * message) {
#define X(symbol, name, parameters)                                        \
    *(void **) &driver.name = dlsym(library, #symbol);                     \
    if (driver.name == NULL) {                                             \
        message_set(message, "the CUDA driver " LIBRARY " has no " #symbol \
                             ": install a driver for CUDA 12 or newer");   \
        return false;                                                      \
    }
    CUDA_DRIVER_FUNCTIONS(X)
#undef X
#define X(symbol, name, parameters) *(void **) &driver.name = dlsym(library, #symbol);
    CUDA_DRIVER_EXTRAS(X)
#undef X
    return true;
}

static bool load(const struct message * message) {
    void * library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    int version = 0;
    if (library == NULL) {
        message_set(message, "no CUDA driver: %s", dlerror());
        return false;
    }
    if (!load_functions(library, message)) {
        return false;
    }
    const CUresult error = driver.init(0);
    if (error != 0 || driver.driver_version(&version) != 0) {
        message_set(message, "the CUDA driver does not start: %s", cuda_error(&driver, error));
        return false;
    }
    if (version < OLDEST) {
        message_set(message, "the CUDA driver is for CUDA %d.%d, 12.0 or newer is needed",
                    version / 1000, version % 1000 / 10);
        return false;
    }
    return true;
}

static void load_once(void) {
    const struct message message = {reason, sizeof(reason)};
    is_loaded = load(&message);
}

const struct cuda_driver * cuda_driver_get(const struct message * message) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load_once);
    if (!is_loaded) {
        message_set(message, "%s", reason);
        return NULL;
    }
    return &driver;
}

CUresult cuda_capability(const struct cuda_driver * loaded, CUdevice device, int * capability) {
    int major = 0, minor = 0;
    CUresult error =
        loaded->attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
    if (error == 0) {
        error = loaded->attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
    }
    *capability = 10 * major + minor;
    return error;
}

int ggc_unbound_begin(void) {
    const struct message nobody = {NULL, 0};
    int mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    if (cuda_driver_get(&nobody) == NULL || driver.exchange_mode(&mode) != 0) {
        return CU_STREAM_CAPTURE_MODE_RELAXED;
    }
    return mode;
}

void ggc_unbound_end(int mode) {
    if (mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
        driver.exchange_mode(&mode);
    }
}

const char * cuda_error(const struct cuda_driver * loaded, CUresult error) {
    const char * text = NULL;
    if (loaded->error_string(error, &text) != 0 || text == NULL) {
        return "an unknown error";
    }
    return text;
}
