#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "family.h"
#include "ggml/access_rules.h"
#include "player.h"
#include "settings.h"
#include "stopwatch.h"

// A graph that comes for the third time will come again: prompts do not, and are not held up.
#define PATIENCE 2
#define LEAST_NODES 16
#define MAX_ENTRIES 8
#define MAX_FAMILIES 16

struct entry {
    uint64_t uid, last_used;
    uint32_t n_seen;
    bool hopeless, is_early, is_announced;  // to its family, as a new one
    struct ggml_cgraph graph;  // the runner's struct as it was; the nodes are the runner's
    struct family * family;
    struct player players[MAX_WAYS];
    double opening;         // microseconds that it took to make one ready, so far
    bool failed[MAX_WAYS];  // those that are not to be had
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
    struct newcomers newcomers;

    pthread_mutex_t plan_mutex;
    struct session_plan last_plan;  // under its own lock: it is asked for while graphs are computed
    bool can_time;
    struct stopwatch watch;
    struct family * timed;  // whose time the stopwatch holds
    bool timed_is_trial;
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

static void warn(struct session * session, const char * text, const char * remedy) {
    session->counts.failures++;
    if (text[0] != '\0') {
        snprintf(session->warning, sizeof(session->warning), "%s", text);
    }
    if (!session->has_warned) {
        session->has_warned = true;
        say("%s: %s%s", ggml_backend_name(session->backend),
            text[0] != '\0' ? text : "out of memory", remedy);
    }
}

//
// Players of a graph
//

static void drop_players(struct entry * entry, uint32_t but) {
    for (uint32_t w = 0; w < MAX_WAYS; w++) {
        if (w != but) {
            player_close(&entry->players[w]);
            entry->failed[w] = false;
        }
    }
}

static size_t own_bytes(const struct entry * entry) {
    size_t bytes = 0;
    for (uint32_t w = 0; w < MAX_WAYS; w++) {
        bytes += entry->players[w].own.size;
    }
    return bytes;
}

struct room {
    struct session * session;
    struct entry * entry;
};

// Other graphs give up their memory first.
static void make_room(void * user) {
    const struct room * room = user;
    for (uint32_t i = 0; i < room->session->n_entries; i++) {
        if (&room->session->entries[i] != room->entry) {
            drop_players(&room->session->entries[i], MAX_WAYS);
        }
    }
}

static void note_plan(struct session * session, const struct entry * entry,
                      const struct player * player) {
    const struct ggc_plan_stats stats = ggc_plan_get_stats(ggc_graph_plan_core(player->plan));
    struct ggc_graph_params params = player_plan_params(session->is_cuda, stats.n_streams);
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
        last.n_phases_theirs = ggc_plan_get_stats(ggc_graph_plan_core(theirs)).n_phases;
        ggc_graph_plan_free(theirs);
    }
    pthread_mutex_lock(&session->plan_mutex);
    session->last_plan = last;
    pthread_mutex_unlock(&session->plan_mutex);
}

static enum ggc_status open_player(struct session * session, struct entry * entry, uint32_t way,
                                   const struct message * message) {
    struct room room = {session, entry};
    struct player_args args = {
        .graph = &entry->graph,
        .backend = session->backend,
        .is_cuda = session->is_cuda,
        .n_streams = entry->family->n_streams[way],
        .n_threads = entry->family->n_threads,
        .more_than = entry->family->tuner.settled ? 1 : entry->family->n_streams[way - 1],
        .budget = player_budget(&entry->graph),
        .used_by_graph = own_bytes(entry),
        .make_room = make_room,
        .user = &room,
    };
    for (uint32_t i = 0; i < session->n_entries; i++) {
        args.used += own_bytes(&session->entries[i]);
    }
    return player_open(&entry->players[way], &args, message);
}

// False: this way is not to be had for the graph.
static bool has_player(struct session * session, struct entry * entry, uint32_t way) {
    char text[HOST_TEXT] = "";
    const struct message message = {text, sizeof(text)};
    if (entry->players[way].dispatch != NULL || entry->failed[way]) {
        return !entry->failed[way];
    }
    struct family * family = entry->family;
    struct player * player = &entry->players[way];
    const enum ggc_status status = open_player(session, entry, way, &message);
    if (player->plan != NULL) {
        note_plan(session, entry, player);
        if (ggc_plan_get_stats(ggc_graph_plan_core(player->plan)).n_streams <
            family->n_streams[way]) {
            for (uint32_t w = way + 1; w < family->tuner.n_ways; w++) {
                family_drop(family, w, false);  // it would be the same
            }
        }
    }
    if (status == GGC_OK) {
        return true;
    }
    if (status != GGC_E_UNSUPPORTED) {
        warn(session, text, "; computed as without us");
    }
    player_close(player);
    entry->failed[way] = true;
    family_drop(family, way, status != GGC_E_UNSUPPORTED);
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

// The one that nobody has asked for the longest, without the graphs that belong to it.
static struct family * oldest_family(struct session * session) {
    struct family * oldest = NULL;
    for (uint32_t i = 0; i < session->n_families; i++) {
        struct family * family = &session->families[i];
        if (family != session->timed && (oldest == NULL || family->last_used < oldest->last_used)) {
            oldest = family;
        }
    }
    family_end(oldest);
    for (uint32_t i = 0; i < session->n_entries; i++) {
        if (session->entries[i].family == oldest) {
            drop_players(&session->entries[i], MAX_WAYS);
            session->entries[i].family = NULL;
        }
    }
    return oldest;
}

// Of a graph that may never come again, only one of which something is known: else NULL.
static struct family * family_for(struct session * session, const struct ggml_cgraph * graph,
                                  uint32_t n_threads, bool if_known) {
    const struct graph_key key =
        family_key(graph, session->host->version, session->device, n_threads);
    struct family known;
    for (uint32_t i = 0; i < session->n_families; i++) {
        if (session->families[i].key.a == key.a && session->families[i].key.b == key.b) {
            return &session->families[i];
        }
    }
    if (if_known && !family_known(&known, key, n_threads)) {
        return NULL;
    }
    struct family * family = session->n_families < MAX_FAMILIES
                                 ? &session->families[session->n_families++]
                                 : oldest_family(session);
    if (if_known) {
        *family = known;
    } else {
        family_init(family, key, n_threads);
    }
    return family;
}

static void note_settled(struct session * session, struct family * family) {
    if (!family_has_just_settled(family)) {
        return;
    }
    for (uint32_t i = 0; i < session->n_entries; i++) {
        if (session->entries[i].family == family) {
            drop_players(&session->entries[i], family->tuner.current);
        }
    }
}

// The time of the graph before, if it is known by now.
static void note_time(struct session * session) {
    struct family * family = session->timed;
    session->timed = NULL;
    if (family == NULL || family->tuner.settled) {
        return;
    }
    family_note(family, session->timed_is_trial, stopwatch_read(&session->watch));
    note_settled(session, family);
}

//
// Computing
//

static bool adopt(struct session * session, struct entry * entry, struct ggml_cgraph * graph,
                  bool if_known) {
    const uint32_t n_threads = session->is_cuda ? 0 : (uint32_t) atomic_load(&session->n_threads);
    if (entry->family != NULL && entry->family->n_threads == n_threads) {
        return true;
    }
    drop_players(entry, MAX_WAYS);
    entry->graph = *graph;
    entry->hopeless = !suits(session, graph);
    entry->family = entry->hopeless ? NULL : family_for(session, graph, n_threads, if_known);
    return entry->family != NULL;
}

// Whether the graph may be planned already. One of a family that is known to be faster on streams,
// and whose graphs come again, may from the first time on: it is made ready instead of what ggml
// would make ready for it.
static bool is_due(struct session * session, struct entry * entry, struct ggml_cgraph * graph) {
    const bool always = settings_get()->mode == MODE_ALWAYS;
    const uint32_t n_seen = entry->n_seen++;
    if (n_seen == 0 && !always && newcomers_are_looked_up(&session->newcomers) &&
        adopt(session, entry, graph, true)) {
        entry->is_announced = true;
        entry->is_early = family_new_graph(entry->family);
    }
    const bool came_again = always || n_seen >= PATIENCE;
    if (came_again) {
        newcomers_came_again(&session->newcomers);
    }
    if ((!came_again && !entry->is_early) || !adopt(session, entry, graph, !came_again)) {
        return false;
    }
    struct family * family = entry->family;
    if (!entry->is_announced) {
        entry->is_announced = true;
        family_new_graph(family);
    }
    family_seen(family);
    family->last_used = session->clock;
    const uint32_t way = family->tuner.current;
    const bool is_made = way == 0 || entry->players[way].dispatch != NULL;
    return always || entry->is_early || is_made || family_is_worth_it(family, n_seen);
}

static enum ggml_status play(struct session * session, struct player * player) {
    char text[HOST_TEXT] = "";
    const struct message message = {text, sizeof(text)};
    session->counts.on_streams++;
    const enum ggc_status status = player_compute(player, &message);
    if (player->warning[0] != '\0') {
        warn(session, player->warning, "");
        player->warning[0] = '\0';
    }
    switch (status) {
        case GGC_OK: return GGML_STATUS_SUCCESS;
        case GGC_E_ABORTED: return GGML_STATUS_ABORTED;
        case GGC_E_NOMEM: return GGML_STATUS_ALLOC_FAILED;
        default: warn(session, text, ""); return GGML_STATUS_FAILED;
    }
}

// Tells the family what it took to make the graph ready: on CUDA, where a computation is only
// issued here, the second one captures it; in the first one the host may wait for the device.
static enum ggml_status play_entry(struct session * session, struct entry * entry, uint32_t way) {
    struct player * player = &entry->players[way];
    if (player_is_ready(player)) {
        return play(session, player);
    }
    const bool captures = session->is_cuda && player->n_computed > 0;
    const double start = stopwatch_now();
    const enum ggml_status status = play(session, player);
    entry->opening += captures ? stopwatch_now() - start : 0;
    if (player_is_ready(player)) {
        family_made_ready(entry->family, entry->opening);
    }
    return status;
}

static enum ggml_status compute_entry(struct session * session, struct entry * entry,
                                      struct ggml_cgraph * graph) {
    struct family * family = entry->family;
    bool is_ready[MAX_WAYS], is_trial;
    for (uint32_t w = 0; w < MAX_WAYS; w++) {
        is_ready[w] = w == 0 || entry->players[w].dispatch != NULL;
    }
    const uint32_t way = family_way(family, is_ready, &is_trial);
    note_settled(session, family);
    if (way > 0 && !is_ready[way]) {
        const double start = stopwatch_now();
        const bool has_it = has_player(session, entry, way);
        entry->opening = stopwatch_now() - start;
        family_opened(family, entry->opening);
        note_settled(session, family);  // where there is none left to try, perhaps on another way
        if (!has_it || entry->players[way].dispatch == NULL) {
            return session->compute(session->backend, graph);
        }
    }
    const bool timed = !family->tuner.settled && session->can_time;
    if (timed) {
        stopwatch_start(&session->watch, session->backend);
        session->timed = family;
        session->timed_is_trial = is_trial;
    }
    const enum ggml_status status =
        way > 0 ? play_entry(session, entry, way) : session->compute(session->backend, graph);
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
    session->counts.graphs++;
    if (!may_plan(session, graph)) {
        return session->compute(session->backend, graph);
    }
    struct entry * entry = entry_for(session, graph);
    entry->last_used = ++session->clock;
    note_time(session);
    if (entry->hopeless || !is_due(session, entry, graph)) {
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
    for (uint32_t i = 0; !session->is_closed && !forked && i < session->n_families; i++) {
        family_end(&session->families[i]);
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
