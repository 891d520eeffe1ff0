#include "settings.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ggc-core.h"

static struct settings settings;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint32_t number(const char * name, uint32_t otherwise, uint32_t most) {
    const char * text = getenv(name);
    char * end;
    if (text == NULL || text[0] == '\0') {
        return otherwise;
    }
    const unsigned long value = strtoul(text, &end, 10);
    if (*end != '\0' || value == 0 || value > most) {
        fprintf(stderr, "ggml-concurrent: %s is '%s', expected a number from 1 to %u; left out\n",
                name, text, most);
        return otherwise;
    }
    return (uint32_t) value;
}

static enum mode read_mode(void) {
    const char * text = getenv("GGML_CONCURRENT");
    if (text == NULL || text[0] == '\0' || strcmp(text, "auto") == 0) {
        return MODE_AUTO;
    }
    if (strcmp(text, "off") == 0 || strcmp(text, "0") == 0) {
        return MODE_OFF;
    }
    if (strcmp(text, "eager") == 0) {
        return MODE_EAGER;
    }
    if (strcmp(text, "always") != 0) {
        fprintf(stderr,
                "ggml-concurrent: GGML_CONCURRENT is '%s', expected off, auto, eager or always; "
                "taken for auto\n",
                text);
        return MODE_AUTO;
    }
    return MODE_ALWAYS;
}

// The folder that runners use, too; its parent is made here.
static void find_tuning_dir(void) {
    const char *chosen = getenv("GGML_CONCURRENT_CACHE"), *base = getenv("XDG_CACHE_HOME");
    const char * home = getenv("HOME");
    char parent[900] = "";
    if (chosen != NULL) {
        snprintf(settings.tuning_dir, sizeof(settings.tuning_dir), "%s", chosen);
        return;
    }
    if (base != NULL && base[0] == '/') {
        snprintf(parent, sizeof(parent), "%s", base);
    } else if (home != NULL && home[0] == '/') {
        snprintf(parent, sizeof(parent), "%s/.cache", home);
    }
    if (parent[0] != '\0') {
        mkdir(parent, 0777);
        snprintf(settings.tuning_dir, sizeof(settings.tuning_dir), "%s/ggml-concurrent", parent);
    }
}

static bool is_on(const char * name) {
    const char * text = getenv(name);
    return text != NULL && text[0] != '\0' && strcmp(text, "0") != 0;
}

static void read_all(void) {
    settings.mode = read_mode();
    settings.n_streams = number("GGML_CONCURRENT_STREAMS", 8, GGC_MAX_STREAMS);
    settings.stress_seed = number("GGML_CONCURRENT_STRESS", 0, UINT32_MAX);
    settings.own = is_on("GGML_CONCURRENT_OWN");
    settings.quiet = is_on("GGML_CONCURRENT_QUIET");
    find_tuning_dir();
}

const struct settings * settings_get(void) {
    pthread_once(&once, read_all);
    return &settings;
}

void say(const char * format, ...) {
    char text[1200];
    va_list args;
    if (settings_get()->quiet) {
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(stderr, "ggml-concurrent: %s\n", text);
}
