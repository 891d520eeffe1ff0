// What captures and graphs are made of: objects that handles point to, and lists of nodes. Called
// with the driver's lock held.
#pragma once

#include "work.h"

enum object_kind { STREAM, EVENT, GRAPH, EXEC, OBJECT_KINDS };

// Begins every object that a handle points to. Destroyed objects stay in memory, so that whoever
// uses them is told.
struct object {
    uint32_t magic, id;
    enum object_kind kind;
    int device;
    bool dead, of_runtime;
    struct object * next;
};

bool is_alive(const void * handle, enum object_kind kind);
unsigned id_of(const void * handle);  // 0 for NULL
uint64_t count_alive(enum object_kind kind);

void * object_new(size_t size, enum object_kind kind, int device, bool of_runtime);

// Nodes of a graph, as positions in its list.
struct set {
    uint32_t * items;
    uint32_t n;
};

struct node {
    struct payload * payload;
    struct set deps;          // earlier ones
    struct set programmatic;  // those of them whose edges are
    unsigned stream;          // that it was captured from, by number
};

struct nodes {
    struct node * items;
    uint32_t n, capacity;
};

void set_clear(struct set * set);
void set_add(struct set * set, uint32_t item);
void set_add_all(struct set * set, const struct set * other);
void set_assign(struct set * set, const struct set * other);
bool set_equal(const struct set * a, const struct set * b);
bool set_has(const struct set * set, uint32_t item);
void set_remove(struct set * set, uint32_t item);

// The position of the new node; all arguments are borrowed.
uint32_t nodes_add(struct nodes * nodes, struct payload * payload, const struct set * deps,
                   unsigned stream);
void nodes_copy(struct nodes * to, const struct nodes * from);
void nodes_clear(struct nodes * nodes);
