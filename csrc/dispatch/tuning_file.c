#include "tuning_file.h"

#include <inttypes.h>
#include <string.h>

#include "text_file.h"

#define NAME_SIZE 48
#define FIRST_LINE "ggml-concurrent tuning 2"
#define MOST_ALLOWED INT64_C(1000000000000)  // microseconds

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

static bool parse_allowance(const char * line, double * allowance) {
    int64_t microseconds;
    int end = 0;
    if (sscanf(line, "allowance %" SCNd64 "%n", &microseconds, &end) != 1 || line[end] != '\0' ||
        microseconds < -MOST_ALLOWED || microseconds > MOST_ALLOWED) {
        return false;
    }
    *allowance = (double) microseconds;
    return true;
}

static bool is_end(FILE * file) {
    char line[TEXT_LINE_SIZE];
    return text_read_line(file, line) && strcmp(line, "end") == 0;
}

static bool parse_repeats(const char * line, uint32_t * repeats) {
    int end = 0;
    return sscanf(line, "repeats %" SCNu32 "%n", repeats, &end) == 1 && line[end] == '\0';
}

static enum tuning_found parse_ways(FILE * file, char line[TEXT_LINE_SIZE],
                                    struct tuning * tuning) {
    struct tuning_way way = {0};
    for (uint32_t n = 0; strcmp(line, "end") != 0; n++) {
        if (parse_repeats(line, &tuning->repeats)) {
            return n > 0 && is_end(file) ? TUNING_FOUND : TUNING_DAMAGED;
        }
        if (!parse_way(line, &way)) {
            return TUNING_DAMAGED;
        }
        tuning->best = n == 0 ? way : tuning->best;
        if (way.strategy == GGC_STRATEGY_SERIAL) {
            tuning->serial_nanoseconds = way.nanoseconds;
        }
        if (!text_read_line(file, line)) {
            return TUNING_DAMAGED;
        }
    }
    return tuning->best.n_streams > 0 ? TUNING_FOUND : TUNING_DAMAGED;
}

static enum tuning_found parse(FILE * file, const struct graph_key * key, struct tuning * tuning) {
    char line[TEXT_LINE_SIZE], expected[TEXT_LINE_SIZE];
    snprintf(expected, sizeof(expected), "key %016" PRIx64 "%016" PRIx64, key->a, key->b);
    if (!text_read_line(file, line) || strcmp(line, FIRST_LINE) != 0 ||
        !text_read_line(file, line) || strcmp(line, expected) != 0 || !text_read_line(file, line)) {
        return TUNING_DAMAGED;
    }
    if (parse_allowance(line, &tuning->allowance)) {
        return is_end(file) ? TUNING_BEGUN : TUNING_DAMAGED;
    }
    return parse_ways(file, line, tuning);
}

enum tuning_found tuning_read(const char * directory, const struct graph_key * key,
                              struct tuning * tuning, const struct message * message) {
    char name[NAME_SIZE], path[TEXT_PATH_SIZE];
    *tuning = (struct tuning) {0};
    name_of(name, key);
    FILE * file = text_path(path, directory, name) ? fopen(path, "re") : NULL;
    if (file == NULL) {
        return TUNING_NONE;
    }
    const enum tuning_found found = parse(file, key, tuning);
    fclose(file);
    if (found == TUNING_DAMAGED) {
        message_set(message, "%s is damaged and is not used; the graph is tuned again", path);
    }
    return found;
}

//
// Writing
//

struct tuning_file {
    const struct graph_key * key;
    const struct tuning_way * ways;
    uint32_t n;  // 0: nothing is chosen
    uint32_t repeats;
    double allowance;
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
    if (tuning->repeats > 0) {
        fprintf(file, "repeats %" PRIu32 "\n", tuning->repeats);
    }
    if (tuning->n == 0) {
        fprintf(file, "allowance %" PRId64 "\n", (int64_t) tuning->allowance);
    }
    fprintf(file, "end\n");
}

bool tuning_write(const char * directory, const struct graph_key * key,
                  const struct tuning_way * ways, uint32_t n, uint32_t repeats,
                  const struct message * message) {
    const struct tuning_file tuning = {key, ways, n, repeats, 0};
    char name[NAME_SIZE];
    name_of(name, key);
    return text_replace(directory, name, write_ways, &tuning, "tuning results", message);
}

bool tuning_write_begun(const char * directory, const struct graph_key * key, double allowance,
                        const struct message * message) {
    const struct tuning_file tuning = {key, NULL, 0, 0, allowance};
    char name[NAME_SIZE];
    name_of(name, key);
    return text_replace(directory, name, write_ways, &tuning, "tuning results", message);
}
