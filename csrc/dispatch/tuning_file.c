#include "tuning_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE 4096
#define LINE_SIZE 200
#define FIRST_LINE "ggml-concurrent tuning 1"

static const char * const names[] = {"list", "serial", "levels", "cover"};
#define N_NAMES (sizeof names / sizeof *names)

const char * strategy_name(enum ggc_strategy strategy) {
    return (size_t) strategy < N_NAMES ? names[strategy] : "unknown";
}

static bool path_of(char * path, const char * directory, const struct graph_key * key) {
    const int n = snprintf(path, PATH_SIZE, "%s/%016" PRIx64 "%016" PRIx64 ".tuning", directory,
                           key->a, key->b);
    return n > 0 && n < PATH_SIZE;
}

//
// Reading
//

// A line without its end; false where there is none or it is too long.
static bool read_line(FILE * file, char line[LINE_SIZE]) {
    if (fgets(line, LINE_SIZE, file) == NULL) {
        return false;
    }
    const size_t n = strlen(line);
    if (n == 0 || line[n - 1] != '\n') {
        return false;
    }
    line[n - 1] = '\0';
    return true;
}

static bool parse_way(const char * line, struct tuning_way * way) {
    char name[16];
    int end = 0;
    if (sscanf(line,
               "way %15[a-z] streams %" SCNu32 " threads %" SCNu32 " nanoseconds %" SCNu64 "%n",
               name, &way->n_streams, &way->n_threads, &way->nanoseconds, &end) != 4 ||
        line[end] != '\0') {
        return false;
    }
    for (size_t i = 0; i < N_NAMES; i++) {
        if (strcmp(name, names[i]) == 0) {
            way->strategy = (enum ggc_strategy) i;
            return way->n_streams >= 1 && way->n_streams <= GGC_MAX_STREAMS &&
                   way->n_threads >= 1 && way->nanoseconds > 0;
        }
    }
    return false;
}

static bool parse(FILE * file, const struct graph_key * key, struct tuning_way * way) {
    char line[LINE_SIZE], expected[LINE_SIZE];
    snprintf(expected, sizeof(expected), "key %016" PRIx64 "%016" PRIx64, key->a, key->b);
    if (!read_line(file, line) || strcmp(line, FIRST_LINE) != 0 || !read_line(file, line) ||
        strcmp(line, expected) != 0 || !read_line(file, line) || !parse_way(line, way)) {
        return false;
    }
    struct tuning_way other;
    while (read_line(file, line)) {
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
    char path[PATH_SIZE];
    if (!path_of(path, directory, key)) {
        return TUNING_NONE;
    }
    FILE * file = fopen(path, "re");
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

static bool write_ways(FILE * file, const struct graph_key * key, const struct tuning_way * ways,
                       uint32_t n) {
    fprintf(file, FIRST_LINE "\nkey %016" PRIx64 "%016" PRIx64 "\n", key->a, key->b);
    for (uint32_t i = 0; i < n; i++) {
        fprintf(file, "way %s streams %" PRIu32 " threads %" PRIu32 " nanoseconds %" PRIu64 "\n",
                strategy_name(ways[i].strategy), ways[i].n_streams, ways[i].n_threads,
                ways[i].nanoseconds);
    }
    fprintf(file, "end\n");
    const bool ok = !ferror(file);
    return fclose(file) == 0 && ok;
}

bool tuning_write(const char * directory, const struct graph_key * key,
                  const struct tuning_way * ways, uint32_t n, const struct message * message) {
    char path[PATH_SIZE], temporary[PATH_SIZE + 16];
    if (!path_of(path, directory, key)) {
        message_set(message, "the path of the tuning folder is too long: %s", directory);
        return false;
    }
    mkdir(directory, 0777);  // where that fails, so does what follows
    snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    const int fd = mkstemp(temporary);
    FILE * file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file == NULL && fd >= 0) {
        close(fd);
    }
    if (file == NULL || !write_ways(file, key, ways, n) || rename(temporary, path) != 0) {
        message_set(message, "tuning results cannot be kept in %s: %s", directory, strerror(errno));
        if (fd >= 0) {
            unlink(temporary);
        }
        return false;
    }
    return true;
}
