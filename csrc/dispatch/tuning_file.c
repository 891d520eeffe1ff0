#include "tuning_file.h"

#include <inttypes.h>
#include <string.h>

#include "text_file.h"

#define NAME_SIZE 48
#define FIRST_LINE "ggml-concurrent tuning 2"

static const char * const names[] = {"list", "serial", "levels", "cover"};
#define N_NAMES (sizeof names / sizeof *names)

const char * strategy_name(enum ggc_strategy strategy) {
    return (size_t) strategy < N_NAMES ? names[strategy] : "unknown";
}

static void name_of(char name[NAME_SIZE], const struct graph_key * key) {
    snprintf(name, NAME_SIZE, "%016" PRIx64 "%016" PRIx64 ".tuning", key->a, key->b);
}

//
// Reading
//

static bool parse_way(const char * line, struct tuning_way * way) {
    char name[16];
    int end = 0;
    uint32_t urgency;
    if (sscanf(line,
               "way %15[a-z] streams %" SCNu32 " threads %" SCNu32 " urgency %" SCNu32
               " nanoseconds %" SCNu64 "%n",
               name, &way->n_streams, &way->n_threads, &urgency, &way->nanoseconds, &end) != 5 ||
        line[end] != '\0' || urgency > 1) {
        return false;
    }
    way->urgency = urgency == 1;
    for (size_t i = 0; i < N_NAMES; i++) {
        if (strcmp(name, names[i]) == 0) {
            way->strategy = (enum ggc_strategy) i;
            return way->n_streams >= 1 && way->n_streams <= GGC_MAX_STREAMS && way->n_threads >= 1;
        }
    }
    return false;
}

static bool parse(FILE * file, const struct graph_key * key, struct tuning_way * way) {
    char line[TEXT_LINE_SIZE], expected[TEXT_LINE_SIZE];
    snprintf(expected, sizeof(expected), "key %016" PRIx64 "%016" PRIx64, key->a, key->b);
    if (!text_read_line(file, line) || strcmp(line, FIRST_LINE) != 0 ||
        !text_read_line(file, line) || strcmp(line, expected) != 0 || !text_read_line(file, line) ||
        !parse_way(line, way)) {
        return false;
    }
    struct tuning_way other;
    while (text_read_line(file, line)) {
        if (strcmp(line, "end") == 0) {
            return true;
        }
        if (!parse_way(line, &other)) {
            return false;
        }
    }
    return false;
}

enum tuning_found tuning_read(const char * directory, const struct graph_key * key,
                              struct tuning_way * way, const struct message * message) {
    char name[NAME_SIZE], path[TEXT_PATH_SIZE];
    name_of(name, key);
    FILE * file = text_path(path, directory, name) ? fopen(path, "re") : NULL;
    if (file == NULL) {
        return TUNING_NONE;
    }
    const bool ok = parse(file, key, way);
    fclose(file);
    if (!ok) {
        message_set(message, "%s is damaged and is not used; the graph is tuned again", path);
    }
    return ok ? TUNING_FOUND : TUNING_DAMAGED;
}

//
// Writing
//

struct tuning_file {
    const struct graph_key * key;
    const struct tuning_way * ways;
    uint32_t n;
};

static void write_ways(FILE * file, const void * data) {
    const struct tuning_file * tuning = data;
    fprintf(file, FIRST_LINE "\nkey %016" PRIx64 "%016" PRIx64 "\n", tuning->key->a,
            tuning->key->b);
    for (uint32_t i = 0; i < tuning->n; i++) {
        const struct tuning_way * way = &tuning->ways[i];
        fprintf(file,
                "way %s streams %" PRIu32 " threads %" PRIu32 " urgency %d nanoseconds %" PRIu64
                "\n",
                strategy_name(way->strategy), way->n_streams, way->n_threads, way->urgency,
                way->nanoseconds);
    }
    fprintf(file, "end\n");
}

bool tuning_write(const char * directory, const struct graph_key * key,
                  const struct tuning_way * ways, uint32_t n, const struct message * message) {
    const struct tuning_file tuning = {key, ways, n};
    char name[NAME_SIZE];
    name_of(name, key);
    return text_replace(directory, name, write_ways, &tuning, "tuning results", message);
}
