// The ways in: called by a program, loaded by a runner's ggml as a backend, or preloaded.
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ggml-concurrent-dropin.h"
#include "hooks.h"
#include "json.h"
#include "settings.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;  // of finding and attaching
static struct host * hosts;
static bool has_held;  // any of them, at any time

//
// Called
//

static const char * version_of(const struct host * host) {
    return host->version[0] != '\0' ? host->version : "of an unknown version";
}

static const char * reason_of(const struct host * host) {
    return host->reason[0] != '\0' ? host->reason : "it has no devices yet";
}

static void add_devices(struct json * line, const struct host * host) {
    const size_t n = host->functions.ggml_backend_dev_count();
    for (size_t i = 0; i < n; i++) {
        json_add(line, "%s%s", i > 0 ? ", " : "",
                 host->functions.ggml_backend_dev_name(host->functions.ggml_backend_dev_get(i)));
    }
}

// With the lock held. Of ours nothing is said, nor held.
static uint32_t attach_all(struct json * line) {
    uint32_t n = 0;
    hosts = hosts_find();
    for (struct host * host = hosts; host != NULL; host = host->next) {
        if (host->is_ours && !settings_get()->own) {
            continue;
        }
        json_add(line, "%sggml %s (%s) ", line->length > 0 ? "; " : "", version_of(host),
                 host->path);
        if (host->fits && hooks_attach_host(host)) {
            json_add(line, "is run concurrently on ");
            add_devices(line, host);
            host->is_held = has_held = true;
            n++;
        } else {
            json_add(line, "is left alone: %s", reason_of(host));
        }
    }
    if (line->length == 0) {
        json_add(line, "no ggml with exported functions is loaded: nothing to run concurrently (a "
                       "runner that is linked statically cannot be reached)");
    }
    return n;
}

enum ggc_status ggc_dropin_attach(uint32_t * n, char * message, size_t message_size) {
    char text[2048] = "";
    struct json line = {text, sizeof(text), 0};
    pthread_mutex_lock(&mutex);
    const uint32_t n_held = attach_all(&line);
    pthread_mutex_unlock(&mutex);
    if (n != NULL) {
        *n = n_held;
    }
    message_set(&(struct message) {message, message_size}, "%s", text);
    return n_held > 0 ? GGC_OK : GGC_E_UNSUPPORTED;
}

enum ggc_status ggc_dropin_attach_backend(struct ggml_backend * backend, char * text,
                                          size_t text_size) {
    const struct message message = {text, text_size};
    if (backend == NULL) {
        message_set(&message, "backend is NULL");
        return GGC_E_INVALID;
    }
    pthread_mutex_lock(&mutex);
    hosts = hosts_find();
    struct host * host = host_of_device(backend->device);
    enum ggc_status status = GGC_E_INVALID;
    if (host == NULL) {
        message_set(&message, "no ggml of this process that fits has the backend's device");
    } else {
        status = hooks_attach_backend(host, backend, &message) ? GGC_OK : GGC_E_UNSUPPORTED;
    }
    pthread_mutex_unlock(&mutex);
    return status;
}

void ggc_dropin_detach(void) {
    pthread_mutex_lock(&mutex);
    hooks_detach();
    for (struct host * host = hosts; host != NULL; host = host->next) {
        host->is_held = false;
    }
    pthread_mutex_unlock(&mutex);
}

static void report_host(struct json * json, const struct host * host) {
    json_add(json, "{\"path\": ");
    json_string(json, host->path);
    json_add(json, ", \"version\": ");
    json_string(json, host->version);
    json_add(json, ", \"ours\": %s, \"held\": %s, \"reason\": ", host->is_ours ? "true" : "false",
             host->is_held ? "true" : "false");
    json_string(json, host->reason);
    json_add(json, ", \"devices\": [");
    const size_t room = json->length < json->size ? json->size - json->length : 0;
    json->length += hooks_report(host, room > 0 ? json->text + json->length : NULL, room);
    json_add(json, "]}");
}

size_t ggc_dropin_report(char * text, size_t size) {
    struct json json = {text, size, 0};
    const char * comma = "";
    pthread_mutex_lock(&mutex);
    json_add(&json, "{\"hosts\": [");
    for (struct host * host = hosts; host != NULL; host = host->next) {
        json_add(&json, "%s", comma);
        report_host(&json, host);
        comma = ", ";
    }
    json_add(&json, "]}");
    pthread_mutex_unlock(&mutex);
    return json.length;
}

//
// Taking hold by itself
//

static void attach_and_say(void) {
    static bool has_said;
    char text[2048] = "";
    struct json line = {text, sizeof(text), 0};
    pthread_mutex_lock(&mutex);
    const uint32_t n = attach_all(&line);
    const bool says = n > 0 && !has_said;
    has_said |= says;
    pthread_mutex_unlock(&mutex);
    if (says) {
        say("%s", text);
    }
}

// As a backend that has no devices: GGML_BACKEND_PATH. Several loads in one process are one.
static const char * reg_name(ggml_backend_reg_t reg) {
    (void) reg;
    return "ggml-concurrent";
}

static size_t reg_device_count(ggml_backend_reg_t reg) {
    (void) reg;
    return 0;
}

static ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t index) {
    (void) reg;
    (void) index;
    return NULL;
}

static struct host * host_of_caller(const void * address) {
    Dl_info caller, anchor;
    for (struct host * host = hosts; host != NULL; host = host->next) {
        if (dladdr(address, &caller) != 0 && dladdr(host->anchor, &anchor) != 0 &&
            caller.dli_fbase == anchor.dli_fbase) {
            return host;
        }
    }
    return NULL;
}

// Who has named us in GGML_BACKEND_PATH wants to know. At the end of `exec` it is said anyhow.
static void say_why_not(const struct host * host) {
    static bool has_said;
    if (!host->is_ours && !host->is_held && !has_said) {
        has_said = true;
        say("ggml %s (%s) is left alone: %s", version_of(host), host->path, reason_of(host));
    }
}

GGC_DROPIN_API ggml_backend_reg_t ggml_backend_init(void);

// ggml asks for its own API version, which the backends that it loaded before ours have.
ggml_backend_reg_t ggml_backend_init(void) {
    static struct ggml_backend_reg reg = {
        .iface = {reg_name, reg_device_count, reg_device, NULL},
    };
    attach_and_say();
    const struct host * host = host_of_caller(__builtin_return_address(0));
    if (host != NULL) {
        say_why_not(host);
    }
    reg.api_version = GGML_BACKEND_API_VERSION;
    if (host != NULL && host->fits && host->functions.ggml_backend_reg_count() > 0) {
        reg.api_version = host->functions.ggml_backend_reg_get(0)->api_version;
    }
    return &reg;
}

//
// Preloaded: what the runner calls in place of its ggml's. A CPU backend is made, and its threads
// are set, before there is a scheduler.
//

GGC_DROPIN_API ggml_backend_t ggml_backend_init_by_type(enum ggml_backend_dev_type type,
                                                        const char * params);
GGC_DROPIN_API void ggml_backend_cpu_set_n_threads(ggml_backend_t backend, int n_threads);
GGC_DROPIN_API ggml_backend_sched_t ggml_backend_sched_new(ggml_backend_t * backends,
                                                           ggml_backend_buffer_type_t * bufts,
                                                           int n_backends, size_t graph_size,
                                                           bool parallel, bool op_offload);

static bool is_ours(void * function) {
    Dl_info here, there;
    return dladdr((void *) ggml_backend_init, &here) != 0 && dladdr(function, &there) != 0 &&
           here.dli_fbase == there.dli_fbase;
}

// The function of the library that the code belongs to, or of one that this is linked with; NULL:
// there is none but ours.
static void * function_beside(const void * code, const char * name) {
    Dl_info where;
    void * found = NULL;
    void * handle =
        dladdr(code, &where) != 0 ? dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    if (handle != NULL) {
        found = dlsym(handle, name);
        dlclose(handle);
    }
    return found != NULL && !is_ours(found) ? found : NULL;
}

// What the caller would have called without us: the function of a library that it is linked with,
// or of one that was loaded before it for all. NULL, and said so: there is none.
static void * next_of(const char * name, const void * caller) {
    void * next = function_beside(caller, name);
    next = next != NULL ? next : dlsym(RTLD_NEXT, name);
    if (next == NULL) {
        say("the runner's ggml has no %s", name);
    }
    return next;
}

ggml_backend_t ggml_backend_init_by_type(enum ggml_backend_dev_type type, const char * params) {
    ggml_backend_t (*next)(enum ggml_backend_dev_type, const char *);
    attach_and_say();
    *(void **) &next = next_of("ggml_backend_init_by_type", __builtin_return_address(0));
    return next != NULL ? next(type, params) : NULL;
}

void ggml_backend_cpu_set_n_threads(ggml_backend_t backend, int n_threads) {
    void (*next)(ggml_backend_t, int);
    const char * name = "ggml_backend_cpu_set_n_threads";
    hooks_note_threads(backend, n_threads);
    // A CPU backend that was loaded at run time is linked with by nobody, and asks for its own
    // function by this name, too: the one beside the backend's code is meant.
    *(void **) &next =
        backend != NULL ? function_beside(*(void **) &backend->iface.get_name, name) : NULL;
    if (next == NULL) {
        *(void **) &next = next_of(name, __builtin_return_address(0));
    }
    if (next != NULL) {
        next(backend, n_threads);
    }
}

static void attach_each(ggml_backend_t * backends, int n_backends) {
    char text[HOST_TEXT] = "";
    const struct message message = {text, sizeof(text)};
    pthread_mutex_lock(&mutex);
    struct host * host = n_backends > 0 ? host_of_device(backends[0]->device) : NULL;
    for (int i = 0; host != NULL && host->is_held && i < n_backends; i++) {
        if (host_of_device(backends[i]->device) == host &&
            !hooks_attach_backend(host, backends[i], &message)) {
            say("%s; left alone", text);
        }
    }
    pthread_mutex_unlock(&mutex);
}

ggml_backend_sched_t ggml_backend_sched_new(ggml_backend_t * backends,
                                            ggml_backend_buffer_type_t * bufts, int n_backends,
                                            size_t graph_size, bool parallel, bool op_offload) {
    ggml_backend_sched_t (*next)(ggml_backend_t *, ggml_backend_buffer_type_t *, int, size_t, bool,
                                 bool);
    attach_and_say();
    attach_each(backends, n_backends);
    *(void **) &next = next_of("ggml_backend_sched_new", __builtin_return_address(0));
    return next != NULL ? next(backends, bufts, n_backends, graph_size, parallel, op_offload)
                        : NULL;
}

// `ggml-concurrent exec` names the process that is to be told when nothing took hold; what it
// starts is not. Nothing of a ggml is called any more here.
__attribute__((destructor)) static void say_at_the_end(void) {
    const char * process = getenv("GGML_CONCURRENT_EXEC");
    if (process == NULL || atol(process) != (long) getpid()) {
        return;
    }
    if (hosts == NULL) {
        say("did not take hold: no scheduler was made by a ggml with exported functions (linked "
            "statically it cannot be reached)");
    }
    for (const struct host * host = hosts; host != NULL && !has_held; host = host->next) {
        say("did not take hold of ggml %s (%s): %s", version_of(host), host->path,
            host->is_ours ? "it is ggml-concurrent's own" : reason_of(host));
    }
}
