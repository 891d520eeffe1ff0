#include "hooks.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "session.h"
#include "settings.h"

struct hooked_device {
    struct host * host;
    ggml_backend_dev_t device;
    ggml_backend_t (*init)(ggml_backend_dev_t, const char *);
    bool is_hooked;
    struct session_counts past;  // of backends that were freed
    uint32_t n_backends;         // that were ever made
    char past_warning[HOST_TEXT];
    struct session_plan past_plan;
    struct hooked_device * next;
};

// Setters that a registry gives out by name; the runner sets threads by them.
struct hooked_reg {
    ggml_backend_reg_t reg;
    void * (*get_proc_address)(ggml_backend_reg_t, const char *);
    bool is_hooked;
    struct hooked_reg * next;
};

struct hooked_backend {
    struct hooked_device * device;
    ggml_backend_t backend;
    struct ggml_backend_i iface;  // as it was
    struct session * session;
    bool is_hooked;  // false: let go of, and perhaps freed since
    bool is_closed;
    unsigned n_users;
    struct hooked_backend * next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;  // of the three lists
static pthread_cond_t unused = PTHREAD_COND_INITIALIZER;
static struct hooked_device * devices;
static struct hooked_reg * regs;
static struct hooked_backend * backends;

// This thread computes for us: what it asks of ggml is not to come through here again.
static _Thread_local bool inside;

// ggml reads a pointer whenever it likes: it must find the old one or the new one.
#define PUT(place, function) __atomic_store_n(&(place), function, __ATOMIC_RELEASE)

static _Thread_local bool is_locked;  // by this thread

static void lock(void) {
    pthread_mutex_lock(&mutex);
    is_locked = true;
}

static void unlock(void) {
    is_locked = false;
    pthread_mutex_unlock(&mutex);
}

// ggml forks where it aborts, for a debugger: also while this thread has the lock.
static _Thread_local bool was_locked;

static void before_fork(void) {
    was_locked = is_locked;
    if (!was_locked) {
        lock();
    }
}

static void after_fork(void) {
    if (!was_locked) {
        unlock();
    }
}

static void in_child(void) {
    pthread_mutex_init(&mutex, NULL);
    is_locked = false;
    pthread_cond_init(&unused, NULL);
    session_forked();
    for (struct hooked_backend * b = backends; b != NULL; b = b->next) {
        session_child(b->session);
        b->n_users = 0;
    }
}

//
// Backends
//

// With the lock held.
static struct hooked_backend * find_backend(ggml_backend_t backend) {
    struct hooked_backend * b = backends;
    while (b != NULL && b->backend != backend) {
        b = b->next;
    }
    return b;
}

static struct hooked_backend * use_backend(ggml_backend_t backend) {
    lock();
    struct hooked_backend * b = find_backend(backend);
    if (b != NULL) {
        b->n_users++;
    }
    unlock();
    return b;
}

static void leave_backend(struct hooked_backend * b) {
    lock();
    b->n_users--;
    pthread_cond_broadcast(&unused);
    unlock();
}

static enum ggml_status hook_compute(ggml_backend_t backend, struct ggml_cgraph * graph) {
    struct hooked_backend * b = use_backend(backend);
    enum ggml_status status;
    if (inside) {
        status = b->iface.graph_compute(backend, graph);
    } else {
        inside = true;
        status = session_compute(b->session, graph);
        inside = false;
    }
    leave_backend(b);
    return status;
}

static void add_counts(struct session_counts * sum, struct session_counts more) {
    sum->graphs += more.graphs;
    sum->on_streams += more.on_streams;
    sum->plans += more.plans;
    sum->failures += more.failures;
    sum->own_nanoseconds += more.own_nanoseconds;
}

// With the lock held; nobody computes on it any more.
static void forget_backend(struct hooked_backend * b) {
    struct hooked_backend ** at = &backends;
    while (*at != b) {
        at = &(*at)->next;
    }
    *at = b->next;
    add_counts(&b->device->past, session_counts(b->session));
    if (session_warning(b->session)[0] != '\0') {
        snprintf(b->device->past_warning, HOST_TEXT, "%.200s", session_warning(b->session));
    }
    const struct session_plan last = session_last_plan(b->session);
    b->device->past_plan = last.n_nodes > 0 ? last : b->device->past_plan;
    session_free(b->session);
    free(b);
}

static void hook_free(ggml_backend_t backend) {
    struct hooked_backend * b = use_backend(backend);
    void (*free_backend)(ggml_backend_t) = b->iface.free;
    const bool before = inside;
    inside = true;
    session_close(b->session);
    lock();
    while (b->n_users > 1) {  // who detaches may be closing it, too
        pthread_cond_wait(&unused, &mutex);
    }
    forget_backend(b);
    pthread_cond_broadcast(&unused);
    unlock();
    free_backend(backend);
    inside = before;
}

// A backend's functions end where its device stands.
static bool backend_fits(struct host * host, ggml_backend_t backend) {
    return is_code(backend->iface.get_name) && is_code(backend->iface.free) &&
           is_code(backend->iface.graph_compute) &&
           backend->iface.get_name(backend) == host->functions.ggml_backend_name(backend);
}

// With the lock held.
static bool hook_backend(struct hooked_device * device, ggml_backend_t backend,
                         const struct message * message) {
    struct host * host = device->host;
    struct hooked_backend * b = find_backend(backend);
    if (b != NULL && b->is_hooked && backend->iface.graph_compute == hook_compute) {
        return true;
    }
    if (b != NULL) {  // let go of, then freed: another one lies at its address now
        forget_backend(b);
    }
    if (backend->device != device->device || !backend_fits(host, backend)) {
        message_set(message, "the backend is laid out otherwise");
        return false;
    }
    b = calloc(1, sizeof(*b));
    struct session * session =
        b != NULL ? session_new(host, backend, backend->iface.graph_compute) : NULL;
    if (session == NULL) {
        free(b);
        message_set(message, "out of memory");
        return false;
    }
    *b = (struct hooked_backend) {
        .device = device,
        .backend = backend,
        .iface = backend->iface,
        .session = session,
        .is_hooked = true,
        .next = backends,
    };
    backends = b;
    device->n_backends++;
    PUT(backend->iface.graph_compute, hook_compute);
    PUT(backend->iface.free, hook_free);
    return true;
}

static void unhook_backend(struct hooked_backend * b) {
    b->is_hooked = false;
    PUT(b->backend->iface.graph_compute, b->iface.graph_compute);
    PUT(b->backend->iface.free, b->iface.free);
}

//
// What the runner sets on the CPU backend
//

static void * proc_address(ggml_backend_reg_t reg, const char * name) {
    lock();
    struct hooked_reg * r = regs;
    while (r != NULL && r->reg != reg) {
        r = r->next;
    }
    void * (*get)(ggml_backend_reg_t, const char *) = r != NULL ? r->get_proc_address : NULL;
    unlock();
    return get != NULL ? get(reg, name) : NULL;
}

void hooks_note_threads(ggml_backend_t backend, int n_threads) {
    struct hooked_backend * b = use_backend(backend);
    if (b != NULL) {
        session_set_threads(b->session, n_threads);
        leave_backend(b);
    }
}

static void hook_set_n_threads(ggml_backend_t backend, int n_threads) {
    ggml_backend_set_n_threads_t set;
    *(void **) &set = proc_address(backend->device->reg, "ggml_backend_set_n_threads");
    hooks_note_threads(backend, n_threads);
    set(backend, n_threads);
}

typedef void (*set_threadpool_t)(ggml_backend_t backend, void * threadpool);

static void hook_set_threadpool(ggml_backend_t backend, void * threadpool) {
    set_threadpool_t set;
    *(void **) &set = proc_address(backend->device->reg, "ggml_backend_cpu_set_threadpool");
    struct hooked_backend * b = use_backend(backend);
    if (b != NULL) {
        session_set_threadpool(b->session, threadpool != NULL);
        leave_backend(b);
    }
    set(backend, threadpool);
}

static void hook_set_abort(ggml_backend_t backend, ggml_abort_callback callback, void * data) {
    ggml_backend_set_abort_callback_t set;
    *(void **) &set = proc_address(backend->device->reg, "ggml_backend_set_abort_callback");
    struct hooked_backend * b = use_backend(backend);
    if (b != NULL) {
        session_set_abort(b->session, callback != NULL);
        leave_backend(b);
    }
    set(backend, callback, data);
}

static void * hook_proc_address(ggml_backend_reg_t reg, const char * name) {
    void * address = proc_address(reg, name);
    if (address == NULL || name == NULL || inside) {
        return address;
    }
    if (strcmp(name, "ggml_backend_set_n_threads") == 0) {
        return (void *) hook_set_n_threads;
    }
    if (strcmp(name, "ggml_backend_cpu_set_threadpool") == 0) {
        return (void *) hook_set_threadpool;
    }
    return strcmp(name, "ggml_backend_set_abort_callback") == 0 ? (void *) hook_set_abort : address;
}

// With the lock held.
static void hook_reg(ggml_backend_reg_t reg) {
    struct hooked_reg * r = regs;
    while (r != NULL && r->reg != reg) {
        r = r->next;
    }
    if (reg->iface.get_proc_address == NULL || strcmp(reg->iface.get_name(reg), "CPU") != 0 ||
        (r != NULL && r->is_hooked)) {
        return;
    }
    if (r == NULL) {
        r = calloc(1, sizeof(*r));
        if (r == NULL) {
            return;
        }
        r->reg = reg;
        r->next = regs;
        regs = r;
    }
    r->get_proc_address = reg->iface.get_proc_address;
    r->is_hooked = true;
    PUT(reg->iface.get_proc_address, hook_proc_address);
}

//
// Devices
//

// With the lock held.
static struct hooked_device * find_device(ggml_backend_dev_t device) {
    struct hooked_device * d = devices;
    while (d != NULL && d->device != device) {
        d = d->next;
    }
    return d;
}

static bool hook_devices(struct host * host);

// Devices that were registered since are looked for: some are only when a model asks for them.
static ggml_backend_t hook_init(ggml_backend_dev_t device, const char * params) {
    lock();
    struct hooked_device * d = find_device(device);
    unlock();
    ggml_backend_t backend = d->init(device, params);
    if (inside || backend == NULL) {
        return backend;
    }
    char text[HOST_TEXT] = "";
    const struct message message = {text, sizeof(text)};
    inside = true;
    lock();
    hook_devices(d->host);
    const bool hooked = !d->is_hooked || hook_backend(d, backend, &message);
    unlock();
    inside = false;
    if (!hooked) {
        say("%s: %s; left alone", d->host->functions.ggml_backend_dev_name(device), text);
    }
    return backend;
}

static struct hooked_device * note_device(struct host * host, ggml_backend_dev_t device) {
    struct hooked_device * d = find_device(device);
    if (d == NULL && (d = calloc(1, sizeof(*d))) != NULL) {
        *d = (struct hooked_device) {.host = host, .device = device, .next = devices};
        devices = d;
    }
    return d;
}

// With the lock held.
static bool hook_devices(struct host * host) {
    const size_t n = host->functions.ggml_backend_dev_count();
    for (size_t i = 0; i < n; i++) {
        ggml_backend_dev_t device = host->functions.ggml_backend_dev_get(i);
        struct hooked_device * d = note_device(host, device);
        if (d != NULL && !d->is_hooked) {
            d->init = device->iface.init_backend;
            d->is_hooked = true;
            PUT(device->iface.init_backend, hook_init);
            hook_reg(device->reg);
        }
    }
    return n > 0;
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork, in_child);
}

bool hooks_attach_host(struct host * host) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    lock();
    const bool any = hook_devices(host);
    unlock();
    return any;
}

bool hooks_attach_backend(struct host * host, ggml_backend_t backend,
                          const struct message * message) {
    lock();
    struct hooked_device * d = note_device(host, backend->device);
    const bool hooked = d != NULL && hook_backend(d, backend, message);
    if (hooked) {
        hook_reg(backend->device->reg);
    }
    unlock();
    return hooked;
}

void hooks_detach(void) {
    lock();
    for (struct hooked_device * d = devices; d != NULL; d = d->next) {
        if (d->is_hooked) {
            PUT(d->device->iface.init_backend, d->init);
            d->is_hooked = false;
        }
    }
    for (struct hooked_reg * r = regs; r != NULL; r = r->next) {
        if (r->is_hooked) {
            PUT(r->reg->iface.get_proc_address, r->get_proc_address);
            r->is_hooked = false;
        }
    }
    for (struct hooked_backend * b = backends; b != NULL; b = b->next) {
        if (b->is_hooked) {
            unhook_backend(b);
        }
    }
    // Those that are in use are waited for; the list may be another one afterwards.
    struct hooked_backend * b = backends;
    while (b != NULL) {
        if (b->is_closed) {
            b = b->next;
        } else if (b->n_users > 0) {
            pthread_cond_wait(&unused, &mutex);
            b = backends;
        } else {
            const bool before = inside;
            inside = b->is_closed = true;
            b->n_users++;
            unlock();  // a session's own lock comes first, always
            session_close(b->session);
            leave_backend(b);
            lock();
            inside = before;
            b = backends;
        }
    }
    unlock();
}

//
// Telling
//

static void report_device(struct json * json, const struct hooked_device * d) {
    struct session_counts counts = d->past;
    const char *reason = "", *warning = d->past_warning;
    struct session_plan plan = d->past_plan;
    uint32_t n_live = 0;
    for (struct hooked_backend * b = backends; b != NULL; b = b->next) {
        if (b->device == d) {
            add_counts(&counts, session_counts(b->session));
            const struct session_plan last = session_last_plan(b->session);
            plan = last.n_nodes > 0 ? last : plan;
            n_live += b->is_hooked;
            reason = session_reason(b->session);
            warning =
                session_warning(b->session)[0] != '\0' ? session_warning(b->session) : warning;
        }
    }
    json_add(json, "{\"name\": ");
    json_string(json, d->host->functions.ggml_backend_dev_name(d->device));
    json_add(json, ", \"description\": ");
    json_string(json, d->host->functions.ggml_backend_dev_description(d->device));
    json_add(json,
             ", \"hooked\": %s, \"backends\": %u, \"live\": %u, \"graphs\": %llu, "
             "\"on_streams\": %llu, \"plans\": %llu, \"failures\": %llu, \"own_us\": %llu, "
             "\"reason\": ",
             d->is_hooked ? "true" : "false", d->n_backends, n_live,
             (unsigned long long) counts.graphs, (unsigned long long) counts.on_streams,
             (unsigned long long) counts.plans, (unsigned long long) counts.failures,
             (unsigned long long) counts.own_nanoseconds / 1000);
    json_string(json, reason);
    json_add(json, ", \"warning\": ");
    json_string(json, warning);
    json_add(json,
             ", \"last_plan\": {\"nodes\": %u, \"units\": %u, \"phases\": %u, "
             "\"phases_theirs\": %u, \"streams\": %u, \"own_bytes\": %zu}}",
             plan.n_nodes, plan.n_units, plan.n_phases, plan.n_phases_theirs, plan.n_streams,
             plan.own_bytes);
}

size_t hooks_report(const struct host * host, char * text, size_t size) {
    struct json json = {text, size, 0};
    const char * comma = "";
    lock();
    for (struct hooked_device * d = devices; d != NULL; d = d->next) {
        if (d->host == host) {
            json_add(&json, "%s", comma);
            report_device(&json, d);
            comma = ", ";
        }
    }
    unlock();
    return json.length;
}
