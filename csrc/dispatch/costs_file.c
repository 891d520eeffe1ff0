#include "costs_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text_file.h"

#define NAME_SIZE 32
#define FIRST_LINE "ggml-concurrent costs 1"

// Nothing that is measured takes longer than a minute.
#define MOST_NANOSECONDS UINT64_C(60000000000)

//
// In memory
//

static int compare(const struct graph_key * x, const struct graph_key * y) {
    if (x->a != y->a) {
        return x->a < y->a ? -1 : 1;
    }
    return (x->b > y->b) - (x->b < y->b);
}

// Where a key stands, or would have to.
static uint32_t place_of(const struct cost_table * table, const struct graph_key * key) {
    uint32_t begin = 0, end = table->n;
    while (begin < end) {
        const uint32_t middle = begin + (end - begin) / 2;
        if (compare(&table->items[middle].key, key) < 0) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

static bool stands_at(const struct cost_table * table, uint32_t place,
                      const struct graph_key * key) {
    return place < table->n && compare(&table->items[place].key, key) == 0;
}

double costs_find(const struct cost_table * table, const struct graph_key * key) {
    const uint32_t place = place_of(table, key);
    return stands_at(table, place, key) ? table->items[place].microseconds : -1;
}

bool costs_add(struct cost_table * table, const struct graph_key * key, double microseconds) {
    const uint32_t place = place_of(table, key);
    if (stands_at(table, place, key)) {
        return true;
    }
    if (table->n == table->capacity) {
        const uint32_t capacity = 2 * table->capacity + 64;
        struct unit_cost * items = realloc(table->items, capacity * sizeof(*items));
        if (items == NULL) {
            return false;
        }
        table->items = items;
        table->capacity = capacity;
    }
    struct unit_cost * item = &table->items[place];
    memmove(item + 1, item, (table->n - place) * sizeof(*item));
    *item = (struct unit_cost) {*key, microseconds};
    table->n++;
    return true;
}

bool costs_sum(struct cost_table * table, const struct graph_key * key, double microseconds) {
    if (!costs_add(table, key, 0)) {
        return false;
    }
    table->items[place_of(table, key)].microseconds += microseconds;
    return true;
}

void costs_free(struct cost_table * table) {
    free(table->items);
    *table = (struct cost_table) {0};
}

//
// Files
//

static void name_of(char name[NAME_SIZE], const char * device) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);  // FNV-1a
    for (const char * c = device; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char) *c) * UINT64_C(0x100000001b3);
    }
    snprintf(name, NAME_SIZE, "%016" PRIx64 ".costs", hash);
}

static bool parse_unit(const char * line, struct unit_cost * cost) {
    uint64_t nanoseconds;
    int end = 0;
    if (sscanf(line, "unit %16" SCNx64 "%16" SCNx64 " nanoseconds %" SCNu64 "%n", &cost->key.a,
               &cost->key.b, &nanoseconds, &end) != 3 ||
        line[end] != '\0' || nanoseconds > MOST_NANOSECONDS) {
        return false;
    }
    cost->microseconds = 1e-3 * (double) nanoseconds;
    return true;
}

enum parsed { PARSED, DAMAGED, NO_MEMORY };

static enum parsed parse(FILE * file, const char * device, struct cost_table * table) {
    char line[TEXT_LINE_SIZE], expected[TEXT_LINE_SIZE];
    snprintf(expected, sizeof(expected), "device %s", device);
    if (!text_read_line(file, line) || strcmp(line, FIRST_LINE) != 0 ||
        !text_read_line(file, line) || strcmp(line, expected) != 0) {
        return DAMAGED;
    }
    while (text_read_line(file, line)) {
        struct unit_cost cost;
        if (strcmp(line, "end") == 0) {
            return PARSED;
        }
        if (!parse_unit(line, &cost)) {
            return DAMAGED;
        }
        if (!costs_add(table, &cost.key, cost.microseconds)) {
            return NO_MEMORY;
        }
    }
    return DAMAGED;
}

bool costs_read(struct cost_table * table, const char * directory, const char * device,
                const struct message * message) {
    char name[NAME_SIZE], path[TEXT_PATH_SIZE];
    struct cost_table found = {0};
    name_of(name, device);
    FILE * file = text_path(path, directory, name) ? fopen(path, "re") : NULL;
    if (file == NULL) {
        return true;
    }
    const enum parsed parsed = parse(file, device, &found);
    fclose(file);
    if (parsed == DAMAGED) {
        message_set(message, "%s is damaged and is not used; units are measured again", path);
    }
    bool ok = parsed != NO_MEMORY;
    for (uint32_t i = 0; parsed == PARSED && ok && i < found.n; i++) {
        ok = costs_add(table, &found.items[i].key, found.items[i].microseconds);
    }
    costs_free(&found);
    return ok;
}

struct costs_file {
    const struct cost_table * table;
    const char * device;
};

static void write_units(FILE * file, const void * data) {
    const struct costs_file * costs = data;
    fprintf(file, FIRST_LINE "\ndevice %s\n", costs->device);
    for (uint32_t i = 0; i < costs->table->n; i++) {
        const struct unit_cost * item = &costs->table->items[i];
        fprintf(file, "unit %016" PRIx64 "%016" PRIx64 " nanoseconds %" PRIu64 "\n", item->key.a,
                item->key.b, (uint64_t) (1e3 * item->microseconds + 0.5));
    }
    fprintf(file, "end\n");
}

bool costs_write(const struct cost_table * table, const char * directory, const char * device,
                 const struct message * message) {
    const struct costs_file costs = {table, device};
    char name[NAME_SIZE];
    name_of(name, device);
    return text_replace(directory, name, write_units, &costs, "measured costs", message);
}
