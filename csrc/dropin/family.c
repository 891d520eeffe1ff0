#include "family.h"

#include <stdio.h>

#include "dispatch/tuning_file.h"
#include "host.h"
#include "settings.h"

// Of the runner's time a later way must save at least a fiftieth.
#define WORTH_IT 0.98
#define MAX_UNTIMED 200  // graphs in a row that were not over when the next one came
#define MOST_IN_VAIN 32
// Microseconds that it is believed to take to make a graph ready, until one was.
#define OPENING_GUESS 10e3
#define MOST_REPEATS 100000
#define FEW_REPEATS 16

// As graph_key_of, but of sizes only those of results of weights, which tell the batch.
struct graph_key family_key(const struct ggml_cgraph * graph, const char * ggml_version,
                            ggml_backend_dev_t device, uint32_t n_threads) {
    char extra[400];
    snprintf(extra, sizeof(extra), "drop-in %s, ggml %s, %s, %u %u", GGC_VERSION, ggml_version,
             ggml_backend_dev_description(device), n_threads, settings_get()->n_streams);
    return graph_family_key(graph, extra);
}

static void find_ways(struct family * family) {
    const uint32_t most = settings_get()->n_streams;
    const bool is_cpu = family->n_threads > 0;
    const uint32_t wanted[] = {2, is_cpu ? family->n_threads : 4, is_cpu ? 0 : 8};
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

static void settle(struct family * family, uint32_t way) {
    family->tuner.settled = true;
    family->tuner.current = way;
}

static void recall(struct family * family, bool tells) {
    struct tuning tuning;
    char text[HOST_TEXT] = "";
    const struct message message = {text, sizeof(text)};
    const char * directory = settings_get()->tuning_dir;
    if (directory[0] == '\0') {
        return;
    }
    const enum tuning_found found = tuning_read(directory, &family->key, &tuning, &message);
    if (found == TUNING_DAMAGED && tells) {
        say("%s", text);
    }
    allowance_init(&family->allowance, found == TUNING_BEGUN ? tuning.allowance : 0);
    for (uint32_t w = 0; found == TUNING_FOUND && w < family->tuner.n_ways; w++) {
        if (family->n_streams[w] == tuning.best.n_streams) {
            settle(family, w);
            family->repeats = family->repeats_kept = tuning.repeats;
            family->gain =
                1e-3 * ((double) tuning.serial_nanoseconds - (double) tuning.best.nanoseconds);
        }
    }
}

static void init(struct family * family, struct graph_key key, uint32_t n_threads, bool tells) {
    *family = (struct family) {.key = key, .n_threads = n_threads};
    find_ways(family);
    if (settings_get()->mode == MODE_ALWAYS) {
        settle(family, family->tuner.n_ways - 1);
    } else if (family->tuner.n_ways > 1) {
        recall(family, tells);
    }
    family->is_told = family->tuner.settled;
}

void family_init(struct family * family, struct graph_key key, uint32_t n_threads) {
    init(family, key, n_threads, true);
}

bool newcomers_are_looked_up(struct newcomers * newcomers) {
    if (newcomers->n_in_vain == MOST_IN_VAIN) {
        return false;
    }
    newcomers->n_in_vain++;
    return true;
}

void newcomers_came_again(struct newcomers * newcomers) {
    newcomers->n_in_vain = 0;
}

bool family_known(struct family * family, struct graph_key key, uint32_t n_threads) {
    init(family, key, n_threads, false);
    return family->tuner.settled && family->tuner.current > 0;
}

static uint32_t repeats_that_pay(const struct family * family) {
    const double opening = family->opening > 0 ? family->opening : OPENING_GUESS;
    const double repeats = family->gain > 0 ? opening / family->gain + 1 : MOST_REPEATS;
    return repeats < MOST_REPEATS ? (uint32_t) repeats : MOST_REPEATS;
}

//
// What is kept on disk
//

static struct tuning_way way_of(const struct family * family, uint32_t way, uint64_t nanoseconds) {
    return (struct tuning_way) {
        .strategy = way == 0 ? GGC_STRATEGY_SERIAL : GGC_STRATEGY_LIST,
        .n_streams = family->n_streams[way],
        .n_threads = family->n_threads > 0 ? family->n_threads : 1,
        .nanoseconds = nanoseconds,
    };
}

// The first way is kept without a time where no other was to be had before its turn was over.
static void keep(struct family * family) {
    struct tuning_way ways[MAX_WAYS];
    const struct message nobody = {NULL, 0};
    const char * directory = settings_get()->tuning_dir;
    const uint32_t best = family->tuner.current;
    struct tuning before;
    uint32_t n = 0;
    if (tuning_read(directory, &family->key, &before, &nobody) == TUNING_FOUND) {
        family->repeats = before.repeats > family->repeats ? before.repeats : family->repeats;
    }
    for (uint32_t k = 0; k < family->tuner.n_ways; k++) {
        const uint32_t w = k == 0 ? best : k <= best ? k - 1 : k;
        const double time = tuner_median(&family->tuner, w);
        if (time > 0 || w == best) {
            ways[n++] = way_of(family, w, (uint64_t) (1e3 * time));
        }
    }
    tuning_write(directory, &family->key, ways, n, family->repeats, &nobody);
    family->repeats_kept = family->repeats;
}

// Of a choice that was found on disk: graphs came again more often. The best way and the runner's
// own stay.
static void keep_repeats(const struct family * family) {
    const struct message nobody = {NULL, 0};
    const char * directory = settings_get()->tuning_dir;
    struct tuning tuning;
    if (tuning_read(directory, &family->key, &tuning, &nobody) != TUNING_FOUND ||
        tuning.repeats >= family->repeats) {
        return;
    }
    const bool has_both = tuning.best.strategy != GGC_STRATEGY_SERIAL;
    const struct tuning_way ways[] = {tuning.best, way_of(family, 0, tuning.serial_nanoseconds)};
    tuning_write(directory, &family->key, ways, has_both ? 2 : 1, family->repeats, &nobody);
}

static void keep_what_came_again(struct family * family) {
    if (settings_get()->tuning_dir[0] == '\0' || family->is_of_today || !family->tuner.settled ||
        family->tuner.current == 0 || family->repeats <= family->repeats_kept) {
        return;
    }
    if (tuner_median(&family->tuner, 0) > 0) {
        keep(family);
    } else {
        keep_repeats(family);
    }
    family->repeats_kept = family->repeats;
}

//
// Graphs that come again
//

void family_seen(struct family * family) {
    family->n_since_new++;
    family->repeats = family->n_since_new > family->repeats ? family->n_since_new : family->repeats;
    // many a runner ends without freeing its contexts
    if (family->repeats > FEW_REPEATS && family->repeats > 2 * family->repeats_kept) {
        keep_what_came_again(family);
    }
}

bool family_is_worth_it(const struct family * family, uint32_t n_seen, uint32_t expected) {
    const uint32_t pays = repeats_that_pay(family);
    return !family->tuner.settled || n_seen >= pays || expected >= pays;
}

bool family_new_graph(struct family * family, uint32_t n_seen, uint32_t * expected) {
    const bool is_first = !family->has_graph;
    *expected = is_first ? family->repeats : family->n_since_new;
    family->n_since_new = n_seen;
    family->has_graph = true;
    return !is_first && family->tuner.settled && family->tuner.current > 0 &&
           *expected >= repeats_that_pay(family);
}

//
// Trials
//

static uint32_t fastest_so_far(const struct family * family) {
    uint32_t best = 0;
    for (uint32_t w = 1; w < family->tuner.n_ways; w++) {
        const double time = tuner_median(&family->tuner, w);
        if (!family->tuner.ways[w].dropped && time > 0 &&
            time < WORTH_IT * tuner_median(&family->tuner, best)) {
            best = w;
        }
    }
    return best;
}

uint32_t family_way(struct family * family, const bool is_ready[MAX_WAYS], bool * is_trial) {
    struct tuner * tuner = &family->tuner;
    *is_trial = !tuner->settled;
    family->resting = 0;
    if (tuner->settled || tuner->current == 0 || family->allowance.has_begun) {
        return tuner->current;
    }
    family->allowance.base = tuner_median(tuner, 0);
    if (settings_get()->mode != MODE_EAGER &&
        !allowance_covers(&family->allowance, is_ready[tuner->current])) {
        *is_trial = false;
        return family->resting = fastest_so_far(family);
    }
    allowance_begin(&family->allowance);
    return tuner->current;
}

void family_opened(struct family * family, double microseconds) {
    allowance_spend(&family->allowance, microseconds);
}

void family_made_ready(struct family * family, double microseconds) {
    family->opening = microseconds;
}

static void end_turn(struct family * family, uint32_t way) {
    if (family->allowance.has_begun && (family->tuner.settled || family->tuner.current != way)) {
        allowance_end(&family->allowance);
    }
}

void family_rested(struct family * family) {
    const double microseconds = tuner_median(&family->tuner, family->resting);
    if (family->resting > 0) {
        allowance_spend_computation(&family->allowance, microseconds);
    }
    allowance_earn(&family->allowance, microseconds);
}

void family_note(struct family * family, double microseconds) {
    const uint32_t way = family->tuner.current;
    if (family->tuner.settled) {
        return;
    }
    if (microseconds < 0) {
        if (++family->n_untimed == MAX_UNTIMED) {
            family->is_of_today = true;
            settle(family, 0);
        }
        return;
    }
    family->n_untimed = 0;
    if (family->allowance.has_begun) {
        allowance_spend_computation(&family->allowance, microseconds);
    } else {
        allowance_earn(&family->allowance, microseconds);
    }
    tuner_note(&family->tuner, microseconds);
    end_turn(family, way);
}

void family_drop(struct family * family, uint32_t way, bool has_failed) {
    const uint32_t current = family->tuner.current;
    family->is_of_today |= has_failed;
    tuner_drop(&family->tuner, way);
    end_turn(family, current);
}

void family_end(struct family * family) {
    const struct message nobody = {NULL, 0};
    const char * directory = settings_get()->tuning_dir;
    struct tuning tuning;
    if (directory[0] == '\0' || family->is_of_today) {
        return;
    }
    keep_what_came_again(family);
    if (!family->tuner.settled && family->allowance.left != 0 &&
        tuning_read(directory, &family->key, &tuning, &nobody) != TUNING_FOUND) {
        tuning_write_begun(directory, &family->key, family->allowance.left, &nobody);
    }
}

bool family_has_just_settled(struct family * family) {
    if (!family->tuner.settled || family->is_told) {
        return false;
    }
    family->is_told = true;
    family->gain =
        tuner_median(&family->tuner, 0) - tuner_median(&family->tuner, family->tuner.current);
    if (settings_get()->tuning_dir[0] != '\0' && !family->is_of_today) {
        keep(family);
    }
    return true;
}
