#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "session_state.h"
#include "settings.h"

static atomic_uint generation;  // counts forks

void session_forked(void) {
    atomic_fetch_add(&generation, 1);
}

unsigned session_generation(void) {
    return atomic_load(&generation);
}

void session_child(struct session * session) {
    pthread_mutex_init(&session->mutex, NULL);
    pthread_mutex_init(&session->plan_mutex, NULL);
}

enum ggml_status session_compute(struct session * session, struct ggml_cgraph * graph) {
    pthread_mutex_lock(&session->mutex);
    struct host * before = host_enter(session->host);
    const enum ggml_status status = compute_locked(session, graph);
    host_leave(before);
    pthread_mutex_unlock(&session->mutex);
    return status;
}

//
// Opening and closing
//

static void find_reason(struct session * session) {
    const char * graph_opt = getenv("GGML_CUDA_GRAPH_OPT");
    const char * reg = ggml_backend_reg_name(ggml_backend_dev_backend_reg(session->device));
    const bool is_cpu = strcmp(reg, "CPU") == 0;
    session->is_cuda = strcmp(reg, "CUDA") == 0;
    const char * reason = "";
    if (settings_get()->mode == MODE_OFF) {
        reason = "GGML_CONCURRENT is off";
    } else if (!is_cpu && !session->is_cuda) {
        reason = "only CPU and CUDA backends have streams";
    } else if (session->is_cuda && !session->host->knows_fusions) {
        reason = "what this version's CUDA backend fuses is not known";
    } else if (session->is_cuda && graph_opt != NULL && atoi(graph_opt) != 0) {
        reason = "GGML_CUDA_GRAPH_OPT is set: streams are left to ggml";
    }
    snprintf(session->reason, sizeof(session->reason), "%s", reason);
}

struct session * session_new(struct host * host, ggml_backend_t backend,
                             enum ggml_status (*compute)(ggml_backend_t, struct ggml_cgraph *)) {
    struct session * session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return NULL;
    }
    struct host * before = host_enter(host);
    pthread_mutex_init(&session->mutex, NULL);
    pthread_mutex_init(&session->plan_mutex, NULL);
    session->host = host;
    session->backend = backend;
    session->compute = compute;
    session->device = backend->device;
    session->generation = session_generation();
    find_reason(session);
    session->instances = (struct cuda_instances) {.items = {backend}, .n = 1, .has_guest = true};
    if (session->reason[0] == '\0') {
        const struct message message = {session->warning, sizeof(session->warning)};
        session->can_time = stopwatch_open(&session->watch, backend, session->is_cuda, &message);
        if (!session->can_time && settings_get()->mode != MODE_ALWAYS) {
            snprintf(session->reason, sizeof(session->reason), "%.200s", session->warning);
        }
    }
    host_leave(before);
    return session;
}

void session_close(struct session * session) {
    pthread_mutex_lock(&session->mutex);
    struct host * before = host_enter(session->host);
    if (!session->is_closed && session->generation == session_generation()) {
        for (uint32_t i = 0; i < session->n_entries; i++) {
            drop_players(&session->entries[i], MAX_WAYS);
        }
        cuda_instances_close(&session->instances);
        for (uint32_t i = 0; i < session->n_families; i++) {
            family_end(&session->families[i]);
        }
        stopwatch_close(&session->watch);
    }
    session->is_closed = true;
    host_leave(before);
    pthread_mutex_unlock(&session->mutex);
}

void session_free(struct session * session) {
    pthread_mutex_destroy(&session->mutex);
    pthread_mutex_destroy(&session->plan_mutex);
    free(session);
}

void session_set_threads(struct session * session, int n_threads) {
    atomic_store(&session->n_threads, n_threads > 0 ? n_threads : 0);
}

void session_set_threadpool(struct session * session, bool has_one) {
    atomic_store(&session->has_threadpool, has_one);
}

void session_set_abort(struct session * session, bool has_one) {
    atomic_store(&session->has_abort, has_one);
}

struct session_counts session_counts(const struct session * session) {
    return (struct session_counts) {session->counts.graphs, session->counts.on_streams,
                                    session->counts.plans, session->counts.failures,
                                    session->counts.own_nanoseconds};
}

struct session_plan session_last_plan(struct session * session) {
    pthread_mutex_lock(&session->plan_mutex);
    const struct session_plan plan = session->last_plan;
    pthread_mutex_unlock(&session->plan_mutex);
    return plan;
}

const char * session_reason(const struct session * session) {
    return session->reason;
}

const char * session_warning(const struct session * session) {
    return session->warning;
}
