#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "dispatch/cuda_figures.h"
#include "dispatch/dispatch.h"
#include "dispatch/tuner.h"
#include "dispatch/tuning_file.h"
#include "ggml/access_rules.h"
#include "ggml/pointer_map.h"
#include "own_memory.h"
#include "settings.h"
#include "stopwatch.h"

// A graph that comes for the third time will come again: prompts do not, and are not held up.
#define PATIENCE 2
#define LEAST_NODES 16
#define MAX_ENTRIES 8
#define MAX_FAMILIES 16
#define MAX_WAYS 4
#define MAX_UNTIMED 200  // graphs that were never over when the next one came

// Of the runner's time a later way must save at least a fiftieth.
#define WORTH_IT 0.98
#define HOPELESS_MICROSECONDS 1e9

#define CPU_WAIT_COST 5.0  // microseconds, as for runners
#define CUDA_WAIT_COST 0.5

#define LEAST_BUDGET ((size_t) 32 << 20)
#define BUDGET_SHARE 50  // of the weights that the graph reads

struct player {
    struct ggc_graph_plan * plan;
    struct own_memory own;
    struct ggc_runner_params params;
    const struct dispatch_i * dispatch;  // NULL: not open
    void * state;
    bool failed;
};

// Graphs that are alike but for the sizes of caches: what is fastest for one is so for all.
struct family {
    struct graph_key key;
    struct tuner tuner;
    uint32_t n_streams[MAX_WAYS];  // of each way; the first one is the runner's own
    uint32_t n_untimed;
    bool stored;
};

struct entry {
    uint64_t uid, last_used;
    uint32_t n_seen;
    bool hopeless;
    struct ggml_cgraph graph;  // the runner's struct as it was; the nodes are the runner's
    struct family * family;
    uint32_t n_threads;
    struct player players[MAX_WAYS];
};

struct session {
    pthread_mutex_t mutex;
    struct host * host;
    ggml_backend_t backend;
    enum ggml_status (*compute)(ggml_backend_t, struct ggml_cgraph *);
    ggml_backend_dev_t device;
    bool is_cuda, is_closed;
    unsigned generation;
    char reason[HOST_TEXT], warning[512];
    bool has_warned;
    atomic_int n_threads;
    atomic_bool has_threadpool, has_abort;

    uint64_t clock;
    struct entry entries[MAX_ENTRIES];
    uint32_t n_entries;
    struct family families[MAX_FAMILIES];
    uint32_t n_families;

    pthread_mutex_t plan_mutex;
    struct session_plan last_plan;  // under its own lock: it is asked for while graphs are computed
    bool can_time;
    struct stopwatch watch;
    struct family * timed;  // whose time the stopwatch holds
    struct {
        _Atomic uint64_t graphs, on_streams, plans, failures;
    } counts;
};

static atomic_uint generation;  // counts forks

void session_forked(void) {
    atomic_fetch_add(&generation, 1);
}

void session_child(struct session * session) {
    pthread_mutex_init(&session->mutex, NULL);
    pthread_mutex_init(&session->plan_mutex, NULL);
}

static void warn(struct session * session, const char * text) {
    session->counts.failures++;
    if (text[0] != '\0') {
        snprintf(session->warning, sizeof(session->warning), "%s", text);
    }
    if (!session->has_warned) {
        session->has_warned = true;
        say("%s: %s; computed as without us", ggml_backend_name(session->backend),
            text[0] != '\0' ? text : "out of memory");
    }
}

static void settle(struct family * family, uint32_t way) {
    family->tuner.settled = true;
    family->tuner.current = way;
    family->stored = true;
}

//
// Players: a plan, its memory, and what plays it
//

static void close_player(struct player * player) {
    if (player->dispatch != NULL) {
        player->dispatch->close(player->state);
    }
    own_memory_free(&player->own);
    ggc_graph_plan_free(player->plan);
    *player = (struct player) {.failed = player->failed};
}

static void drop_players(struct entry * entry, uint32_t but) {
    for (uint32_t w = 0; w < MAX_WAYS; w++) {
        if (w != but) {
            close_player(&entry->players[w]);
            entry->players[w].failed = false;
        }
    }
}

static size_t weight_bytes(const struct ggml_cgraph * graph) {
    struct pointer_map seen;
    size_t bytes = 0;
    bool ok = pointer_map_init(&seen, (size_t) graph->n_nodes);
    for (int i = 0; ok && i < graph->n_nodes; i++) {
        for (int s = 0; ok && s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * source = graph->nodes[i]->src[s];
            if (source == NULL || source->buffer == NULL ||
                ggml_backend_buffer_get_usage(source->buffer) !=
                    GGML_BACKEND_BUFFER_USAGE_WEIGHTS ||
                pointer_map_get(&seen, source, 0) != 0) {
                continue;
            }
            bytes += ggml_nbytes(source);
            ok = pointer_map_put(&seen, source, 1);
        }
    }
    pointer_map_free(&seen);
    return bytes;
}

static size_t budget_of(const struct ggml_cgraph * graph) {
    const size_t share = weight_bytes(graph) / BUDGET_SHARE;
    return share > LEAST_BUDGET ? share : LEAST_BUDGET;
}

static struct ggc_graph_params plan_params(const struct session * session, uint32_t n_streams) {
    struct ggc_graph_params params;
    ggc_graph_params_init(&params);
    params.plan.n_streams = n_streams;
    params.plan.wait_cost = session->is_cuda ? CUDA_WAIT_COST : CPU_WAIT_COST;
    params.fuse = session->is_cuda ? GGC_FUSE_CUDA : GGC_FUSE_CPU;
    return params;
}

static size_t own_bytes(const struct entry * entry) {
    size_t bytes = 0;
    for (uint32_t w = 0; w < MAX_WAYS; w++) {
        bytes += entry->players[w].own.size;
    }
    return bytes;
}

// All memory of ours together keeps to the budget: other graphs give theirs up first.
static enum ggc_status lay_out(struct session * session, struct entry * entry,
                               struct own_memory * own, const struct ggc_graph_plan * plan) {
    const size_t budget = budget_of(&entry->graph);
    size_t used = 0;
    for (uint32_t i = 0; i < session->n_entries; i++) {
        used += own_bytes(&session->entries[i]);
    }
    enum ggc_status status = GGC_E_CAPACITY;
    if (used < budget) {
        status = own_memory_lay_out(own, &entry->graph, plan, budget - used);
    }
    if (status != GGC_E_CAPACITY || used == own_bytes(entry) || own_bytes(entry) >= budget) {
        return status;
    }
    for (uint32_t i = 0; i < session->n_entries; i++) {
        if (&session->entries[i] != entry) {
            drop_players(&session->entries[i], MAX_WAYS);
        }
    }
    return own_memory_lay_out(own, &entry->graph, plan, budget - own_bytes(entry));
}

// 1. A plan of the graph as if no two tensors of its own shared memory. 2. Memory for that plan, or
// the runner's where it does not fit. 3. The plan for the addresses, in the same order if possible.
static enum ggc_status make_plan(struct session * session, struct entry * entry,
                                 struct player * player, uint32_t n_streams) {
    const struct ggml_cgraph * graph = &entry->graph;
    struct own_memory * own = &player->own;
    struct ggc_graph_params params = plan_params(session, n_streams);
    struct ggc_graph_plan * wish = NULL;
    enum ggc_status status = own_memory_find(own, graph, session->device);
    if (status != GGC_OK) {
        return status;
    }
    own_memory_hide(own);
    status = ggc_graph_plan_new(graph, &params, &wish);
    own_memory_leave(own);
    if (status == GGC_OK) {
        status = lay_out(session, entry, own, wish);
    }
    if (status == GGC_E_CAPACITY || (status == GGC_E_NOMEM && wish != NULL)) {
        own_memory_free(own);
        status = GGC_OK;
    }
    if (status == GGC_OK) {
        const struct ggc_schedule keep = ggc_plan_schedule(wish->core);
        params.plan.keep = &keep;
        own_memory_enter(own);
        status = ggc_graph_plan_new(graph, &params, &player->plan);
        if (status == GGC_E_INVALID) {
            params.plan.keep = NULL;
            status = ggc_graph_plan_new(graph, &params, &player->plan);
        }
        own_memory_leave(own);
    }
    ggc_graph_plan_free(wish);
    return status;
}

static enum ggc_status prove(const struct ggc_graph_plan * plan, const struct message * message) {
    const struct ggc_units units = ggc_graph_plan_units(plan);
    const struct ggc_schedule schedule = ggc_plan_schedule(ggc_graph_plan_core(plan));
    const enum ggc_status status = ggc_verify_schedule(&units, &schedule, NULL);
    if (status != GGC_OK) {
        message_set(message, "the plan is not proven (%s)", ggc_status_string(status));
    }
    return status;
}

static void note_plan(struct session * session, const struct entry * entry,
                      const struct player * player) {
    const struct ggc_plan_stats stats = ggc_plan_get_stats(player->plan->core);
    struct ggc_graph_params params = plan_params(session, stats.n_streams);
    struct ggc_graph_plan * theirs = NULL;
    session->counts.plans++;
    struct session_plan last = {
        .n_nodes = (uint32_t) entry->graph.n_nodes,
        .n_units = stats.n_units,
        .n_phases = stats.n_phases,
        .n_streams = stats.n_streams,
        .own_bytes = player->own.size,
    };
    if (settings_get()->mode == MODE_ALWAYS &&
        ggc_graph_plan_new(&entry->graph, &params, &theirs) == GGC_OK) {
        last.n_phases_theirs = ggc_plan_get_stats(theirs->core).n_phases;
        ggc_graph_plan_free(theirs);
    }
    pthread_mutex_lock(&session->plan_mutex);
    session->last_plan = last;
    pthread_mutex_unlock(&session->plan_mutex);
}

static enum ggc_status open_player(struct session * session, struct entry * entry, uint32_t way,
                                   const struct message * message) {
    static const struct message nowhere = {NULL, 0};
    struct player * player = &entry->players[way];
    const uint32_t n_streams = entry->family->n_streams[way];
    enum ggc_status status = make_plan(session, entry, player, n_streams);
    if (status == GGC_OK) {
        status = prove(player->plan, message);
    }
    if (status == GGC_OK && ggc_plan_get_stats(player->plan->core).n_streams < 2) {
        return GGC_E_UNSUPPORTED;  // nothing to be had at the same time: no failure
    }
    if (status != GGC_OK) {
        return status;
    }
    note_plan(session, entry, player);
    const uint32_t n_threads = entry->n_threads;
    player->params = (struct ggc_runner_params) {
        .device = session->is_cuda ? GGC_DEVICE_CUDA : GGC_DEVICE_CPU,
        .n_streams = n_streams,
        .n_threads = n_threads > 0 ? n_threads : 1,
        .fuse = session->is_cuda ? GGC_FUSE_CUDA : GGC_FUSE_CPU,
        .stress_seed = settings_get()->stress_seed,
    };
    const struct dispatch_args args = {
        .graph = &entry->graph,
        .plan = player->plan,
        .params = &player->params,
        .device = session->device,
        .main = session->is_cuda ? session->backend : NULL,
        .warning = &nowhere,
    };
    if (!session->is_cuda && settings_get()->mode == MODE_AUTO && !cpu_streams_pay(&args)) {
        return GGC_E_UNSUPPORTED;  // not worth a trial, which is a slow token if it fails
    }
    const struct dispatch_i * dispatch = session->is_cuda ? &dispatch_cuda : &dispatch_cpu;
    status = dispatch->open(&args, &player->state, message);
    player->dispatch = status == GGC_OK ? dispatch : NULL;
    return status;
}

// False: this way is not to be had for the graph.
static bool has_player(struct session * session, struct entry * entry, uint32_t way) {
    struct player * player = &entry->players[way];
    char text[HOST_TEXT] = "";
    const struct message message = {text, sizeof(text)};
    if (player->dispatch != NULL || player->failed) {
        return !player->failed;
    }
    const enum ggc_status status = open_player(session, entry, way, &message);
    if (status == GGC_OK) {
        return true;
    }
    if (status != GGC_E_UNSUPPORTED) {
        warn(session, text);
    } else if (!entry->family->tuner.settled) {
        settle(entry->family, 0);
    }
    player->failed = true;
    close_player(player);
    return false;
}

//
// Entries: graphs, by their uid
//

static struct entry * entry_for(struct session * session, const struct ggml_cgraph * graph) {
    struct entry * oldest = &session->entries[0];
    for (uint32_t i = 0; i < session->n_entries; i++) {
        struct entry * entry = &session->entries[i];
        if (entry->uid == graph->uid) {
            return entry;
        }
        oldest = entry->last_used < oldest->last_used ? entry : oldest;
    }
    struct entry * entry =
        session->n_entries < MAX_ENTRIES ? &session->entries[session->n_entries++] : oldest;
    drop_players(entry, MAX_WAYS);
    *entry = (struct entry) {.uid = graph->uid};
    return entry;
}

// What a graph works on must be the device's, all of it: not split over several.
static bool lies_on_device(const struct session * session, const struct ggml_tensor * tensor) {
    const struct ggml_tensor * root = tensor != NULL ? root_of(tensor) : NULL;
    if (root == NULL || root->buffer == NULL) {
        return true;
    }
    ggml_backend_buffer_type_t buft = ggml_backend_buffer_get_type(root->buffer);
    if (!session->is_cuda) {
        return true;
    }
    return ggml_backend_buft_get_device(buft) == session->device &&
           strstr(ggml_backend_buft_name(buft), "Split") == NULL;
}

static bool suits(const struct session * session, const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        bool fine = lies_on_device(session, graph->nodes[i]) && graph->nodes[i]->data != NULL;
        for (int s = 0; fine && s < GGML_MAX_SRC; s++) {
            fine = lies_on_device(session, graph->nodes[i]->src[s]);
        }
        if (!fine && node_computes(graph->nodes[i])) {
            return false;
        }
    }
    return true;
}

//
// Families: which way is fastest
//

// As graph_key_of, but of sizes only those of results of weights, which tell the batch.
static struct graph_key family_key(const struct session * session, const struct ggml_cgraph * graph,
                                   uint32_t n_threads) {
    char extra[400];
    snprintf(extra, sizeof(extra), "drop-in %s, ggml %s, %s, %u %u", GGC_VERSION,
             session->host->version, ggml_backend_dev_description(session->device), n_threads,
             settings_get()->n_streams);
    return graph_family_key(graph, extra);
}

static void find_ways(const struct session * session, struct family * family, uint32_t n_threads) {
    const uint32_t most = settings_get()->n_streams;
    const uint32_t wanted[] = {2, session->is_cuda ? 4 : n_threads, session->is_cuda ? 8 : 0};
    uint32_t n = 0;
    family->n_streams[n++] = 1;
    for (uint32_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        const uint32_t streams = wanted[i] < most ? wanted[i] : most;
        if (streams > family->n_streams[n - 1]) {
            family->n_streams[n++] = streams;
        }
    }
    tuner_init(&family->tuner, n, WORTH_IT);
}

static void recall(struct family * family) {
    struct tuning_way way;
    char text[HOST_TEXT] = "";
    const struct message message = {text, sizeof(text)};
    const char * directory = settings_get()->tuning_dir;
    if (directory[0] == '\0') {
        return;
    }
    const enum tuning_found found = tuning_read(directory, &family->key, &way, &message);
    if (found == TUNING_DAMAGED) {
        say("%s", text);
    }
    for (uint32_t w = 0; found == TUNING_FOUND && w < family->tuner.n_ways; w++) {
        if (family->n_streams[w] == way.n_streams) {
            settle(family, w);
        }
    }
}

static void remember(struct family * family, uint32_t n_threads) {
    struct tuning_way ways[MAX_WAYS];
    const struct message nobody = {NULL, 0};
    const uint32_t best = family->tuner.current;
    uint32_t n = 0;
    for (uint32_t k = 0; k < family->tuner.n_ways; k++) {
        const uint32_t w = k == 0 ? best : k <= best ? k - 1 : k;
        const double time = tuner_median(&family->tuner, w);
        if (time >= 1e-3 && time < HOPELESS_MICROSECONDS) {
            ways[n++] = (struct tuning_way) {
                .strategy = w == 0 ? GGC_STRATEGY_SERIAL : GGC_STRATEGY_LIST,
                .n_streams = family->n_streams[w],
                .n_threads = n_threads > 0 ? n_threads : 1,
                .nanoseconds = (uint64_t) (1e3 * time),
            };
        }
    }
    family->stored = true;
    if (settings_get()->tuning_dir[0] != '\0' && n > 0) {
        tuning_write(settings_get()->tuning_dir, &family->key, ways, n, &nobody);
    }
}

static struct family * family_for(struct session * session, const struct ggml_cgraph * graph,
                                  uint32_t n_threads) {
    const struct graph_key key = family_key(session, graph, n_threads);
    for (uint32_t i = 0; i < session->n_families; i++) {
        if (session->families[i].key.a == key.a && session->families[i].key.b == key.b) {
            return &session->families[i];
        }
    }
    if (session->n_families == MAX_FAMILIES) {
        return NULL;
    }
    struct family * family = &session->families[session->n_families++];
    *family = (struct family) {.key = key};
    find_ways(session, family, n_threads);
    if (settings_get()->mode == MODE_ALWAYS) {
        settle(family, family->tuner.n_ways - 1);
    } else if (family->tuner.n_ways > 1) {
        recall(family);
    }
    return family;
}

// The time of the graph before, if it is known by now.
static void note_time(struct session * session) {
    struct family * family = session->timed;
    session->timed = NULL;
    if (family == NULL || family->tuner.settled) {
        return;
    }
    const double time = stopwatch_read(&session->watch);
    if (time >= 0) {
        tuner_note(&family->tuner, time);
    } else if (++family->n_untimed == MAX_UNTIMED) {
        settle(family, 0);
    }
}

//
// Computing
//

static bool adopt(struct session * session, struct entry * entry, struct ggml_cgraph * graph) {
    const uint32_t n_threads = session->is_cuda ? 0 : (uint32_t) atomic_load(&session->n_threads);
    if (entry->family != NULL && entry->n_threads == n_threads) {
        return true;
    }
    drop_players(entry, MAX_WAYS);
    entry->graph = *graph;
    entry->n_threads = n_threads;
    entry->family = suits(session, graph) ? family_for(session, graph, n_threads) : NULL;
    entry->hopeless = entry->family == NULL;
    return !entry->hopeless;
}

static enum ggml_status play(struct session * session, struct player * player) {
    char text[HOST_TEXT] = "";
    const struct message message = {text, sizeof(text)};
    const struct dispatch_async * async = player->dispatch->async;
    const bool is_replayed = session->is_cuda && cuda_figures(player->state).captured;
    session->counts.on_streams++;
    if (!is_replayed) {
        own_memory_enter(&player->own);
    }
    const enum ggc_status status = async != NULL
                                       ? async->compute(player->state, &message)
                                       : player->dispatch->compute(player->state, &message);
    if (!is_replayed) {
        own_memory_leave(&player->own);
    }
    switch (status) {
        case GGC_OK: return GGML_STATUS_SUCCESS;
        case GGC_E_ABORTED: return GGML_STATUS_ABORTED;
        case GGC_E_NOMEM: return GGML_STATUS_ALLOC_FAILED;
        default: warn(session, text); return GGML_STATUS_FAILED;
    }
}

static enum ggml_status compute_entry(struct session * session, struct entry * entry,
                                      struct ggml_cgraph * graph) {
    struct family * family = entry->family;
    const uint32_t way = family->tuner.current;
    const bool settled = family->tuner.settled;
    if (settled && !family->stored) {
        remember(family, entry->n_threads);
        drop_players(entry, way);
    }
    if (way > 0 && !has_player(session, entry, way)) {
        if (!settled) {
            tuner_note(&family->tuner, HOPELESS_MICROSECONDS);
        }
        return session->compute(session->backend, graph);
    }
    const bool timed = !settled && session->can_time;
    if (timed) {
        stopwatch_start(&session->watch, session->backend);
        session->timed = family;
    }
    const enum ggml_status status =
        way > 0 ? play(session, &entry->players[way]) : session->compute(session->backend, graph);
    if (timed) {
        stopwatch_stop(&session->watch, session->backend);
    }
    return status;
}

static bool may_plan(const struct session * session, const struct ggml_cgraph * graph) {
    return !session->is_closed && session->reason[0] == '\0' && graph->uid != 0 &&
           graph->n_nodes >= LEAST_NODES && session->generation == atomic_load(&generation) &&
           (session->is_cuda ||
            (atomic_load(&session->n_threads) >= (settings_get()->mode == MODE_ALWAYS ? 1 : 2) &&
             !atomic_load(&session->has_threadpool) && !atomic_load(&session->has_abort)));
}

static enum ggml_status compute_locked(struct session * session, struct ggml_cgraph * graph) {
    const uint32_t patience = settings_get()->mode == MODE_ALWAYS ? 0 : PATIENCE;
    session->counts.graphs++;
    if (!may_plan(session, graph)) {
        return session->compute(session->backend, graph);
    }
    struct entry * entry = entry_for(session, graph);
    entry->last_used = ++session->clock;
    note_time(session);
    if (entry->hopeless || entry->n_seen++ < patience || !adopt(session, entry, graph)) {
        return session->compute(session->backend, graph);
    }
    return compute_entry(session, entry, graph);
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
    session->generation = atomic_load(&generation);
    find_reason(session);
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
    const bool forked = session->generation != atomic_load(&generation);
    for (uint32_t i = 0; !session->is_closed && !forked && i < session->n_entries; i++) {
        drop_players(&session->entries[i], MAX_WAYS);
    }
    if (!session->is_closed && !forked) {
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
                                    session->counts.plans, session->counts.failures};
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
