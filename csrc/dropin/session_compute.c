#include <stdio.h>
#include <string.h>

#include "ggml/access_rules.h"
#include "session_state.h"
#include "settings.h"

#define LEAST_NODES 16

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

void drop_players(struct entry * entry, uint32_t but) {
    for (uint32_t w = 0; w < MAX_WAYS; w++) {
        if (w != but) {
            player_close(&entry->players[w]);
            entry->failed[w] = false;
        }
    }
}

static size_t scratch_bytes(const struct entry * entry) {
    size_t bytes = 0;
    for (uint32_t w = 0; w < MAX_WAYS; w++) {
        const struct scratch * scratch = entry->players[w].own.scratch;
        bool counted = scratch == NULL;
        for (uint32_t v = 0; v < w; v++) {
            counted = counted || entry->players[v].own.scratch == scratch;
        }
        bytes += counted ? 0 : scratch->size;
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

// The CUDA graph of a graph that was replaced, most likely: a scheduler gives its graph another uid
// whenever that is built anew.
static const struct player * oldest_alike(const struct session * session,
                                          const struct entry * entry, uint32_t way) {
    const struct entry * oldest = NULL;
    for (uint32_t i = 0; i < session->n_entries; i++) {
        const struct entry * other = &session->entries[i];
        if (other != entry && other->family == entry->family &&
            player_is_replayed(&other->players[way]) &&
            (oldest == NULL || other->last_used < oldest->last_used)) {
            oldest = other;
        }
    }
    return oldest != NULL ? &oldest->players[way] : NULL;
}

static enum ggc_status open_player(struct session * session, struct entry * entry, uint32_t way,
                                   const struct message * message) {
    struct room room = {session, entry};
    const struct player_args args = {
        .graph = &entry->graph,
        .backend = session->backend,
        .is_cuda = session->is_cuda,
        .n_streams = entry->family->n_streams[way],
        .n_threads = entry->family->n_threads,
        .more_than = entry->family->tuner.settled ? 1 : entry->family->n_streams[way - 1],
        .alike = oldest_alike(session, entry, way),
        .instances = session->is_cuda ? &session->instances : NULL,
        .scratches = &session->scratches,
        .budget = player_budget(&entry->graph),
        .used_by_graph = scratch_bytes(entry),
        .make_room = make_room,
        .user = &room,
    };
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

static bool any_player(const struct session * session) {
    for (uint32_t i = 0; i < session->n_entries; i++) {
        for (uint32_t w = 1; w < MAX_WAYS; w++) {
            if (session->entries[i].players[w].dispatch != NULL) {
                return true;
            }
        }
    }
    return false;
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
    if (!any_player(session)) {
        cuda_instances_close(&session->instances);
    }
}

// The time of the graph before, if it is known by now.
static void note_time(struct session * session) {
    struct family * family = session->timed;
    session->timed = NULL;
    if (family == NULL || family->tuner.settled) {
        return;
    }
    family_note(family, stopwatch_read(&session->watch));
    note_settled(session, family);
}

//
// Computing
//

// Microseconds since `start`.
static double note_own_time(struct session * session, double start) {
    const double took = stopwatch_now() - start;
    session->counts.own_nanoseconds += (uint64_t) (1e3 * took);
    return took;
}

static bool adopt(struct session * session, struct entry * entry, struct ggml_cgraph * graph,
                  bool if_known) {
    const uint32_t n_threads = session->is_cuda ? 0 : (uint32_t) atomic_load(&session->n_threads);
    if (entry->family != NULL && entry->family->n_threads == n_threads) {
        return true;
    }
    const double start = stopwatch_now();
    drop_players(entry, MAX_WAYS);
    entry->graph = *graph;
    entry->hopeless = !suits(session, graph);
    entry->family = entry->hopeless ? NULL : family_for(session, graph, n_threads, if_known);
    note_own_time(session, start);
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
        entry->is_early = family_new_graph(entry->family, 0, &entry->expected);
    }
    const bool came_again = always || n_seen >= PATIENCE;
    if (came_again) {
        newcomers_came_again(&session->newcomers);
    }
    if ((came_again || entry->is_early) && !adopt(session, entry, graph, !came_again)) {
        return false;
    }
    struct family * family = entry->family;
    if (family == NULL) {
        return false;
    }
    if (!entry->is_announced) {
        entry->is_announced = true;
        family_new_graph(family, n_seen, &entry->expected);
    }
    family_seen(family);
    family->last_used = session->clock;
    if (!came_again && !entry->is_early) {
        return false;
    }
    const uint32_t way = family->tuner.current;
    const bool is_made = way == 0 || entry->players[way].dispatch != NULL;
    return always || entry->is_early || is_made ||
           family_is_worth_it(family, n_seen, entry->expected);
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
// issued here, the one that captures it counts; before that the host may wait for the device.
static enum ggml_status play_entry(struct session * session, struct entry * entry, uint32_t way) {
    struct player * player = &entry->players[way];
    if (player_is_ready(player)) {
        return play(session, player);
    }
    const double start = stopwatch_now();
    const enum ggml_status status = play(session, player);
    const double took = note_own_time(session, start);
    if (player_is_ready(player)) {
        entry->opening += player_is_replayed(player) ? took : 0;
        family_made_ready(entry->family, entry->opening);
        entry->opening = 0;
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
        entry->opening = note_own_time(session, start);
        family_opened(family, entry->opening);
        note_settled(session, family);  // where there is none left to try, perhaps on another way
        if (!has_it || entry->players[way].dispatch == NULL) {
            return session->compute(session->backend, graph);
        }
    }
    const bool timed = is_trial && session->can_time;
    if (timed) {
        stopwatch_start(&session->watch, session->backend);
        session->timed = family;
    } else if (!family->tuner.settled) {
        family_rested(family);
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
           graph->n_nodes >= LEAST_NODES && session->generation == session_generation() &&
           (session->is_cuda ||
            (atomic_load(&session->n_threads) >= (settings_get()->mode == MODE_ALWAYS ? 1 : 2) &&
             !atomic_load(&session->has_threadpool) && !atomic_load(&session->has_abort)));
}

enum ggml_status compute_locked(struct session * session, struct ggml_cgraph * graph) {
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
