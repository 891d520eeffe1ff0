#include "host.h"

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include "ggml-impl.h"
#pragma GCC diagnostic pop

#define ANCHOR "ggml_backend_dev_get"
#define OUR_GGML "libggc-ggml"  // begins the names of this project's own copies
#define OBJECT_SIZE 32          // struct ggml_object, before each tensor

static struct host * hosts;

bool is_code(const void * pointer) {
    Dl_info info;
    return pointer != NULL && dladdr(pointer, &info) != 0;
}

static bool refuse(struct host * host, const char * reason) {
    snprintf(host->reason, sizeof(host->reason), "%s", reason);
    return false;
}

//
// Its functions and operations
//

static bool load_functions(struct host * host) {
    const char * missing = NULL;
#define F(result, name, parameters, arguments)                     \
    *(void **) &host->functions.name = dlsym(host->handle, #name); \
    missing = host->functions.name == NULL && missing == NULL ? #name : missing;
#define V(name, parameters, arguments) F(void, name, parameters, arguments)
#include "host_functions.def"
#undef F
#undef V
    if (missing != NULL) {
        snprintf(host->reason, sizeof(host->reason), "it has no %s: too old, or cut down", missing);
    }
    return missing == NULL;
}

// Names as ggml gives them; GLU has been the last one in every version.
static bool map_operations(struct host * host) {
    static const char * const names[] = {
#define OP(name, reads, writes) [GGML_OP_##name] = #name,
#define FLAT(name, reads, writes, taken) OP(name, reads, writes)
#define ROWS(name, reads, writes, taken) OP(name, reads, writes)
#define FENCE(name) OP(name, 0, 0)
#include "ggml/ops.def"
#undef FENCE
#undef ROWS
#undef FLAT
#undef OP
    };
    const unsigned most = sizeof(host->ops) / sizeof(*host->ops);
    for (unsigned i = 0; i < most; i++) {
        const char * name = host->functions.ggml_op_name((enum ggml_op) i);
        enum ggml_op found = GGML_OP_COUNT;
        for (int k = 0; k < GGML_OP_COUNT && found == GGML_OP_COUNT; k++) {
            found = names[k] != NULL && strcmp(names[k], name) == 0 ? (enum ggml_op) k : found;
        }
        host->ops[i] = found;
        host->n_ops = i + 1;
        if (strcmp(name, "GLU") == 0) {
            return true;
        }
    }
    return refuse(host, "its operations do not end with GLU");
}

//
// Its structures
//

#define PROBE_BYTES (1 << 16)

static bool lies_in(const void * pointer, const char * memory) {
    return (const char *) pointer >= memory && (const char *) pointer < memory + PROBE_BYTES;
}

static bool tensors_fit(struct host * host, struct ggml_tensor * a, struct ggml_tensor * sum,
                        struct ggml_tensor * view, struct ggml_tensor * scaled) {
    float factor;
    memcpy(&factor, scaled->op_params, sizeof(factor));
    return a->type == GGML_TYPE_F32 && a->ne[0] == 4 && a->ne[1] == 3 && a->ne[3] == 1 &&
           a->nb[0] == 4 && a->nb[1] == 16 && a->nb[3] == 48 && strcmp(a->name, "probe") == 0 &&
           a->data == NULL && a->buffer == NULL && host->ops[sum->op & 0xff] == GGML_OP_ADD &&
           sum->src[0] == a && sum->src[1] != NULL && sum->src[2] == NULL &&
           view->view_src == sum && view->view_offs == 16 && view->src[0] == sum &&
           view->flags == GGML_TENSOR_FLAG_OUTPUT && factor == 2.5F && scaled->src[0] == view;
}

static bool graph_fits(struct host * host, struct ggml_cgraph * graph, const char * memory,
                       const struct ggml_tensor * sum, const struct ggml_tensor * scaled) {
    if (graph->size < 16 || graph->size > 64 || graph->n_nodes != 3 || graph->n_leafs != 2 ||
        host->functions.ggml_graph_n_nodes(graph) != 3 ||
        host->functions.ggml_graph_nodes(graph) != graph->nodes || graph->grads != NULL ||
        graph->nodes[0] != sum || graph->nodes[2] != scaled ||
        !(scaled->flags & GGML_TENSOR_FLAG_COMPUTE) || graph->uid != 0) {
        return false;
    }
    const struct ggml_hash_set * set = &graph->visited_hash_set;
    if (set->size < 5 || set->size > 4096 || !lies_in(set->used, memory) ||
        !lies_in(set->keys, memory) || !lies_in(graph->use_counts, memory)) {
        return false;
    }
    const size_t slot = ggml_hash_find(set, sum);
    return slot < set->size && ggml_bitset_get(set->used, slot) && set->keys[slot] == sum &&
           graph->use_counts[slot] == 1;
}

static bool memory_fits(struct host * host) {
    if (host->functions.ggml_tensor_overhead() != sizeof(struct ggml_tensor) + OBJECT_SIZE) {
        return refuse(host, "its tensors have another size");
    }
    if (host->functions.ggml_graph_overhead_custom(16, false) > PROBE_BYTES / 2) {
        return refuse(host, "its graphs have another size");
    }
    static _Alignas(64) char memory[PROBE_BYTES];
    struct ggml_context * ctx =
        host->functions.ggml_init((struct ggml_init_params) {PROBE_BYTES, memory, true});
    if (ctx == NULL) {
        return refuse(host, "it gave no context");
    }
    struct ggml_tensor * a = host->functions.ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3);
    struct ggml_tensor * b = host->functions.ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3);
    host->functions.ggml_set_name(a, "probe");
    struct ggml_tensor * sum = host->functions.ggml_add(ctx, a, b);
    struct ggml_tensor * view = host->functions.ggml_view_1d(ctx, sum, 4, 16);
    host->functions.ggml_set_output(view);
    struct ggml_tensor * scaled = host->functions.ggml_scale(ctx, view, 2.5F);
    bool fits = tensors_fit(host, a, sum, view, scaled);
    if (!fits) {
        refuse(host, "its tensors are laid out otherwise");
    } else {
        struct ggml_cgraph * graph = host->functions.ggml_new_graph_custom(ctx, 16, false);
        host->functions.ggml_build_forward_expand(graph, scaled);
        fits = graph_fits(host, graph, memory, sum, scaled) ||
               refuse(host, "its graphs are laid out otherwise");
    }
    host->functions.ggml_free(ctx);
    return fits;
}

// A device's functions stand where its name is found by calling it, and its registry's so, too
// (which may count no devices: those of RPC servers name one that does not list them).
static bool device_fits(struct host * host, ggml_backend_dev_t device) {
    ggml_backend_reg_t reg = host->functions.ggml_backend_dev_backend_reg(device);
    return is_code(device->iface.get_name) && is_code(device->iface.init_backend) &&
           is_code(device->iface.supports_op) &&
           device->iface.get_name(device) == host->functions.ggml_backend_dev_name(device) &&
           device->iface.get_type(device) == host->functions.ggml_backend_dev_type(device) &&
           device->reg == reg && is_code(reg->iface.get_name) &&
           reg->iface.get_name(reg) == host->functions.ggml_backend_reg_name(reg) &&
           reg->iface.get_device_count(reg) == host->functions.ggml_backend_reg_dev_count(reg) &&
           (reg->iface.get_proc_address == NULL || is_code(reg->iface.get_proc_address));
}

static bool devices_fit(struct host * host) {
    for (size_t i = 0; i < host->functions.ggml_backend_dev_count(); i++) {
        if (!device_fits(host, host->functions.ggml_backend_dev_get(i))) {
            return refuse(host, "its devices are laid out otherwise");
        }
    }
    return true;
}

static void look_at(struct host * host) {
    int major = 0, minor = 0;
    if (!load_functions(host)) {
        return;
    }
    snprintf(host->version, sizeof(host->version), "%s", host->functions.ggml_version());
    host->knows_fusions =
        sscanf(host->version, "%d.%d", &major, &minor) == 2 && major == 0 && minor == 25;
    host->fits = map_operations(host) && memory_fits(host) && devices_fit(host);
}

//
// Finding them
//

static bool is_ours(const char * path) {
    const char * slash = strrchr(path, '/');
    return strncmp(slash != NULL ? slash + 1 : path, OUR_GGML, strlen(OUR_GGML)) == 0;
}

static struct host * known(const void * anchor) {
    struct host * host = hosts;
    while (host != NULL && host->anchor != anchor) {
        host = host->next;
    }
    return host;
}

// What is loaded, in the order of loading. Names are taken down first: nothing may be opened while
// the loader's list is walked.
struct names {
    char (*items)[PATH_SIZE];
    size_t n, capacity;
};

static int note_name(struct dl_phdr_info * object, size_t size, void * data) {
    struct names * names = data;
    (void) size;
    if (names->n == names->capacity) {
        const size_t capacity = 2 * names->capacity + 64;
        void * grown = realloc(names->items, capacity * sizeof(*names->items));
        if (grown == NULL) {
            return 1;
        }
        names->items = grown;
        names->capacity = capacity;
    }
    snprintf(names->items[names->n++], PATH_SIZE, "%s", object->dlpi_name);
    return 0;
}

// Whoever was linked against a ggml finds its functions as well: the object that has them counts,
// and counts once.
static void look_into(const char * name) {
    Dl_info where;
    void * handle = dlopen(name[0] == '\0' ? NULL : name, RTLD_LAZY | RTLD_NOLOAD);
    const void * anchor = handle != NULL ? dlsym(handle, ANCHOR) : NULL;
    if (anchor == NULL || known(anchor) != NULL || dladdr(anchor, &where) == 0) {
        if (handle != NULL) {
            dlclose(handle);
        }
        return;
    }
    struct host * host = calloc(1, sizeof(*host));
    if (host == NULL) {
        return;
    }
    void * itself = dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    host->handle = itself != NULL ? itself : handle;
    host->anchor = anchor;
    host->is_ours = is_ours(where.dli_fname);
    snprintf(host->path, sizeof(host->path), "%s", where.dli_fname);
    look_at(host);
    host->next = hosts;
    hosts = host;
}

struct host * hosts_find(void) {
    struct names names = {0};
    dl_iterate_phdr(note_name, &names);
    for (size_t i = 0; i < names.n; i++) {
        look_into(names.items[i]);
    }
    free(names.items);
    return hosts;
}

struct host * host_of_device(ggml_backend_dev_t device) {
    for (struct host * host = hosts; host != NULL; host = host->next) {
        for (size_t i = 0; host->fits && i < host->functions.ggml_backend_dev_count(); i++) {
            if (host->functions.ggml_backend_dev_get(i) == device) {
                return host;
            }
        }
    }
    return NULL;
}
