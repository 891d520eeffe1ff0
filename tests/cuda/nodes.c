#include "nodes.h"

#include <stdlib.h>
#include <string.h>

#include "shadow.h"

#define MAGIC 0x66616b65

static struct object * objects;
static uint32_t n_objects;

//
// Objects
//

void * object_new(size_t size, enum object_kind kind, int device, bool of_runtime) {
    struct object * object = allocate(size);
    *object = (struct object) {MAGIC, ++n_objects, kind, device, false, of_runtime, objects};
    objects = object;
    return object;
}

// Small numbers are CUDA's names for the legacy and the per-thread stream.
bool is_alive(const void * handle, enum object_kind kind) {
    static const char * const names[] = {"stream", "event", "graph", "executable graph"};
    const struct object * object = handle;
    if ((uintptr_t) handle < 4096 || object->magic != MAGIC || object->kind != kind) {
        return false;
    }
    if (object->dead) {
        report_error("%s %u is used after its destruction", names[kind], object->id);
    }
    return !object->dead;
}

unsigned id_of(const void * handle) {
    return (uintptr_t) handle < 4096 ? 0 : ((const struct object *) handle)->id;
}

uint64_t count_alive(enum object_kind kind) {
    uint64_t n = 0;
    for (const struct object * o = objects; o != NULL; o = o->next) {
        n += o->kind == kind && !o->dead && !o->of_runtime;
    }
    return n;
}

//
// Sets and nodes
//

void set_clear(struct set * set) {
    free(set->items);
    *set = (struct set) {NULL, 0};
}

void set_add(struct set * set, uint32_t item) {
    for (uint32_t i = 0; i < set->n; i++) {
        if (set->items[i] == item) {
            return;
        }
    }
    set->items = reallocate(set->items, (set->n + 1) * sizeof *set->items);
    set->items[set->n++] = item;
}

void set_add_all(struct set * set, const struct set * other) {
    for (uint32_t i = 0; i < other->n; i++) {
        set_add(set, other->items[i]);
    }
}

void set_assign(struct set * set, const struct set * other) {
    set_clear(set);
    set_add_all(set, other);
}

bool set_equal(const struct set * a, const struct set * b) {
    return a->n == b->n && (a->n == 0 || memcmp(a->items, b->items, a->n * sizeof *a->items) == 0);
}

bool set_has(const struct set * set, uint32_t item) {
    for (uint32_t i = 0; i < set->n; i++) {
        if (set->items[i] == item) {
            return true;
        }
    }
    return false;
}

void set_remove(struct set * set, uint32_t item) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < set->n; i++) {
        if (set->items[i] != item) {
            set->items[n++] = set->items[i];
        }
    }
    set->n = n;
}

uint32_t nodes_add(struct nodes * nodes, struct payload * payload, const struct set * deps,
                   unsigned stream) {
    if (nodes->n == nodes->capacity) {
        nodes->capacity = 2 * nodes->capacity + 8;
        nodes->items = reallocate(nodes->items, nodes->capacity * sizeof *nodes->items);
    }
    nodes->items[nodes->n] = (struct node) {.payload = payload_ref(payload), .stream = stream};
    set_assign(&nodes->items[nodes->n].deps, deps);
    return nodes->n++;
}

void nodes_copy(struct nodes * to, const struct nodes * from) {
    for (uint32_t i = 0; i < from->n; i++) {
        const struct node * node = &from->items[i];
        const uint32_t copy = nodes_add(to, node->payload, &node->deps, node->stream);
        set_assign(&to->items[copy].programmatic, &node->programmatic);
    }
}

void nodes_clear(struct nodes * nodes) {
    for (uint32_t i = 0; i < nodes->n; i++) {
        payload_unref(nodes->items[i].payload);
        set_clear(&nodes->items[i].deps);
        set_clear(&nodes->items[i].programmatic);
    }
    free(nodes->items);
    *nodes = (struct nodes) {NULL, 0, 0};
}
