#include "backends.h"

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ggml-backend-impl.h"
#include "guard.h"

#define MODULE_PREFIX "libggc-ggml-cpu"

#if defined(RTLD_DEEPBIND) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Another package may have put its own ggml in the global scope: ours comes first.
#    define OPEN_FLAGS (RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND)
#else
#    define OPEN_FLAGS (RTLD_NOW | RTLD_LOCAL)
#endif

struct module {
    char path[4096];
    void * handle;  // kept open: ggml then finds the module loaded, with our flags
    int score;
};

static bool has_suffix(const char * name, const char * suffix) {
    const size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

// A module says how well it suits this machine; 0: it cannot run here. One without that function
// is a plain build.
static void try_module(struct module * best, const char * path, const struct message * message) {
    void * handle = dlopen(path, OPEN_FLAGS);
    if (handle == NULL) {
        message_set(message, "%s", dlerror());
        return;
    }
    ggml_backend_score_t score = NULL;
    *(void **) &score = dlsym(handle, "ggml_backend_score");
    const int points = score != NULL ? score() : 1;
    if (points <= best->score) {
        if (points == 0 && best->score == 0) {
            message_set(message,
                        "%s uses instructions that this processor does not have: build "
                        "on this machine, or with GGC_CPU_VARIANTS=all",
                        path);
        }
        dlclose(handle);
        return;
    }
    if (best->handle != NULL) {
        dlclose(best->handle);
    }
    best->score = points;
    best->handle = handle;
    snprintf(best->path, sizeof(best->path), "%s", path);
}

// ggml reports every module it loads; only what goes wrong is worth a line on stderr.
static void log_problems(enum ggml_log_level level, const char * text, void * ctx) {
    (void) ctx;
    if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static enum ggc_status load_best(const char * directory, const struct message * message) {
    struct module best = {.score = 0};
    DIR * dir = opendir(directory);
    if (dir == NULL) {
        message_set(message, "cannot read the folder %s of ggml's backends", directory);
        return GGC_E_DEVICE;
    }
    message_set(message, "no %s*.so in %s", MODULE_PREFIX, directory);
    for (const struct dirent * entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        char path[4096];
        if (strncmp(entry->d_name, MODULE_PREFIX, strlen(MODULE_PREFIX)) == 0 &&
            has_suffix(entry->d_name, ".so") &&
            (size_t) snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name) <
                sizeof(path)) {
            try_module(&best, path, message);
        }
    }
    closedir(dir);
    if (best.score == 0) {
        return GGC_E_DEVICE;
    }
    ggml_log_set(log_problems, NULL);
    if (ggml_backend_load(best.path) == NULL) {
        message_set(message, "ggml refused the backend module %s", best.path);
        return GGC_E_DEVICE;
    }
    message_set(message, "%s", "");
    return GGC_OK;
}

// Modules lie beside the library that this code is in.
static bool own_directory(char * path, size_t size) {
    Dl_info info;
    if (dladdr((const void *) (uintptr_t) &ggc_load_backends, &info) == 0 ||
        info.dli_fname == NULL) {
        return false;
    }
    snprintf(path, size, "%s", info.dli_fname);
    char * slash = strrchr(path, '/');
    if (slash == NULL) {
        snprintf(path, size, ".");
    } else {
        *slash = '\0';
    }
    return true;
}

enum ggc_status ggc_load_backends(const char * directory, char * text, size_t text_size) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    const struct message message = {text, text_size};
    char own[4096];
    if (directory == NULL) {
        if (!own_directory(own, sizeof(own))) {
            message_set(&message, "cannot find the folder of this library");
            return GGC_E_DEVICE;
        }
        directory = own;
    }
    pthread_mutex_lock(&mutex);
    enum ggc_status status = GGC_OK;
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == NULL) {
        status = load_best(directory, &message);
    }
    pthread_mutex_unlock(&mutex);
    return status;
}

ggml_backend_dev_t cpu_device(const struct message * message) {
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (device == NULL) {
        message_set(message, "no CPU backend is loaded: call ggc_load_backends first");
    }
    return device;
}

ggml_backend_t new_backend(ggml_backend_dev_t device, const struct message * message) {
    ggml_backend_t backend = ggml_backend_dev_init(device, NULL);
    if (backend == NULL) {
        message_set(message, "ggml could not start another backend on %s",
                    ggml_backend_dev_name(device));
    }
    return backend;
}

ggml_backend_t new_cpu_backend(const struct message * message) {
    ggml_backend_dev_t device = cpu_device(message);
    return device != NULL ? new_backend(device, message) : NULL;
}

//
// Other devices
//

#define CUDA_REGISTRY "CUDA"
#define CUDA_MODULE "libggc-ggml-cuda.so"
#define METAL_REGISTRY "MTL"
#define METAL_MODULE "libggc-ggml-metal.so"
#define METAL_SERIAL "GGML_METAL_CONCURRENCY_DISABLE"

static ggml_backend_reg_t load_module(const char * name) {
    char directory[4096], path[4096 + 64];
    if (!own_directory(directory, sizeof(directory))) {
        return NULL;
    }
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return access(path, R_OK) == 0 ? ggml_backend_load(path) : NULL;
}

// The registry of that name; the module is loaded if there is none.
static ggml_backend_reg_t find_registry(const char * name, const char * module) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    ggml_backend_reg_t reg = ggml_backend_reg_by_name(name);
    if (reg == NULL) {
        reg = load_module(module);
    }
    pthread_mutex_unlock(&mutex);
    return reg;
}

ggml_backend_dev_t metal_device(const struct message * message) {
    ggml_backend_reg_t reg = find_registry(METAL_REGISTRY, METAL_MODULE);
    if (reg == NULL || ggml_backend_reg_dev_count(reg) == 0) {
        message_set(message, "there is no Metal device: ggml's Metal backend is built on macOS, "
                             "with GGC_METAL=ON");
        return NULL;
    }
    return ggml_backend_reg_dev_get(reg, 0);
}

ggml_backend_dev_t cuda_device(uint32_t index, const struct message * message) {
    ggml_backend_reg_t reg = find_registry(CUDA_REGISTRY, CUDA_MODULE);
    const size_t n = reg != NULL ? ggml_backend_reg_dev_count(reg) : 0;
    if (reg == NULL) {
        message_set(message,
                    "there is no CUDA: build with GGC_CUDA=ON, on a machine with a driver");
    } else if (index >= n) {
        message_set(message, "there is no CUDA device %u: this machine has %zu", index, n);
    }
    return index < n ? ggml_backend_reg_dev_get(reg, index) : NULL;
}

enum ggc_status ggc_find_device(enum ggc_device_kind kind, uint32_t index,
                                struct ggml_backend_device ** device, char * text,
                                size_t text_size) {
    const struct message message = {text, text_size};
    if (device == NULL) {
        return GGC_E_INVALID;
    }
    switch (kind) {
        case GGC_DEVICE_CPU: *device = cpu_device(&message); break;
        case GGC_DEVICE_CUDA: *device = cuda_device(index, &message); break;
        case GGC_DEVICE_METAL: *device = metal_device(&message); break;
        default: message_set(&message, "unknown device %d", (int) kind); return GGC_E_INVALID;
    }
    return *device != NULL ? GGC_OK : GGC_E_DEVICE;
}

bool metal_is_apple(ggml_backend_dev_t device) {
    return strncmp(ggml_backend_dev_description(device), "Apple", 5) == 0;
}

// The backend looks into the environment when an instance is made; nothing else says it so.
static ggml_backend_t new_serial_backend(ggml_backend_dev_t device) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    const bool was_set = getenv(METAL_SERIAL) != NULL;
    setenv(METAL_SERIAL, "1", 0);
    ggml_backend_t backend = ggml_backend_dev_init(device, NULL);
    if (!was_set) {
        unsetenv(METAL_SERIAL);
    }
    pthread_mutex_unlock(&mutex);
    return backend;
}

ggml_backend_t new_metal_backend(ggml_backend_dev_t device, const struct message * message) {
    ggml_backend_t backend =
        metal_is_apple(device) ? ggml_backend_dev_init(device, NULL) : new_serial_backend(device);
    if (backend == NULL) {
        message_set(message, "ggml could not start its backend on %s (%s)",
                    ggml_backend_dev_name(device), ggml_backend_dev_description(device));
    }
    return backend;
}

void set_n_threads(ggml_backend_t backend, uint32_t n_threads) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    ggml_backend_set_n_threads_t set = NULL;
    *(void **) &set = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    if (set != NULL) {
        set(backend, (int) n_threads);
    }
}

static enum ggc_status status_of(enum ggml_status status, const struct message * message) {
    switch (status) {
        case GGML_STATUS_SUCCESS: return GGC_OK;
        case GGML_STATUS_ABORTED: return GGC_E_ABORTED;
        case GGML_STATUS_ALLOC_FAILED: return GGC_E_NOMEM;
        case GGML_STATUS_FAILED: break;
    }
    message_set(message, "ggml: %s", ggml_status_to_string(status));
    return GGC_E_DEVICE;
}

// By the scheduler if there is one, else by the backend.
static enum ggc_status compute(ggml_backend_t backend, ggml_backend_sched_t sched,
                               struct ggml_cgraph * graph, const struct message * message) {
    return status_of(sched != NULL ? ggml_backend_sched_graph_compute(sched, graph)
                                   : ggml_backend_graph_compute(backend, graph),
                     message);
}

static enum ggc_status guarded(ggml_backend_t backend, ggml_backend_sched_t sched,
                               struct ggml_cgraph * graph, uint32_t n_threads,
                               const struct message * message) {
    if (n_threads != 1) {
        return compute(backend, sched, graph, message);
    }
    volatile enum ggc_status status = GGC_E_ASSERT;
    jmp_buf * jump = ggc_guard_push();
    if (setjmp(*jump) == 0) {
        status = compute(backend, sched, graph, message);
    } else {
        message_set(message, "%s", ggc_guard_message());
    }
    ggc_guard_pop();
    return status;
}

enum ggc_status compute_guarded(ggml_backend_t backend, struct ggml_cgraph * graph,
                                uint32_t n_threads, const struct message * message) {
    return guarded(backend, NULL, graph, n_threads, message);
}

enum ggc_status sched_compute_guarded(ggml_backend_sched_t sched, struct ggml_cgraph * graph,
                                      uint32_t n_threads, const struct message * message) {
    return guarded(NULL, sched, graph, n_threads, message);
}
