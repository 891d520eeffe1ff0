// Looks at a graph that comes from elsewhere before anybody trusts its pointers.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "access_rules.h"

#define MAX_GRAPH_SIZE (1 << 24)
#define MAX_VIEW_DEPTH 64  // ggml itself makes every view one of the root

struct checker {
    int pipe[2];
    char * message;
    size_t message_size;
};

__attribute__((format(printf, 2, 3))) static bool fail(const struct checker * checker,
                                                       const char * format, ...) {
    if (checker->message != NULL && checker->message_size > 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(checker->message, checker->message_size, format, args);
        va_end(args);
    }
    return false;
}

// Whether all of [ptr, ptr + size) can be read: the kernel says so without a fault when asked to
// write it into a pipe.
static bool readable(const struct checker * checker, const void * ptr, size_t size) {
    const char * at = ptr;
    char sink[512];
    if (ptr == NULL || (uintptr_t) ptr % sizeof(void *) != 0) {
        return false;
    }
    while (size > 0) {
        const size_t chunk = size < sizeof(sink) ? size : sizeof(sink);
        const ssize_t n = write(checker->pipe[1], at, chunk);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0 || read(checker->pipe[0], sink, (size_t) n) != n) {
            return false;
        }
        at += n;
        size -= (size_t) n;
    }
    return true;
}

static bool check_tensor(const struct checker * checker, const struct ggml_tensor * tensor,
                         const char * what, int index) {
    if (!readable(checker, tensor, sizeof(*tensor))) {
        return fail(checker, "%s %d is no readable tensor", what, index);
    }
    if ((unsigned) tensor->type >= GGML_TYPE_COUNT || ggml_blck_size(tensor->type) == 0) {
        return fail(checker, "%s %d has the unknown type %d", what, index, (int) tensor->type);
    }
    if ((unsigned) tensor->op >= GGML_OP_COUNT) {
        return fail(checker, "%s %d has the unknown operation %d", what, index, (int) tensor->op);
    }
    for (int k = 0; k < GGML_MAX_DIMS; k++) {
        if (tensor->ne[k] < 0) {
            return fail(checker, "%s %d has a negative size", what, index);
        }
    }
    return true;
}

static bool check_node(const struct checker * checker, const struct ggml_tensor * node, int index) {
    if (!check_tensor(checker, node, "node", index)) {
        return false;
    }
    for (int s = 0; s < GGML_MAX_SRC; s++) {
        if (node->src[s] != NULL &&
            !check_tensor(checker, node->src[s], "a source of node", index)) {
            return false;
        }
    }
    int depth = 0;
    for (const struct ggml_tensor * view = node->view_src; view != NULL; view = view->view_src) {
        if (++depth > MAX_VIEW_DEPTH) {
            return fail(checker, "the views of node %d do not end", index);
        }
        if (!check_tensor(checker, view, "the view source of node", index)) {
            return false;
        }
    }
    return true;
}

static bool check_graph(const struct checker * checker, const struct ggml_cgraph * graph) {
    if (!readable(checker, graph, sizeof(*graph))) {
        return fail(checker, "no readable ggml_cgraph at that address");
    }
    if (graph->size < 0 || graph->size > MAX_GRAPH_SIZE || graph->n_nodes < 0 ||
        graph->n_nodes > graph->size || graph->n_leafs < 0 || graph->n_leafs > graph->size) {
        // a graph view has size 0 and its nodes elsewhere
        if (graph->size != 0 || graph->n_nodes < 0 || graph->n_nodes > MAX_GRAPH_SIZE) {
            return fail(checker,
                        "counts out of range (size %d, %d nodes, %d leafs): not a "
                        "ggml_cgraph of this layout",
                        graph->size, graph->n_nodes, graph->n_leafs);
        }
    }
    if (graph->n_nodes > 0 &&
        !readable(checker, graph->nodes, (size_t) graph->n_nodes * sizeof(*graph->nodes))) {
        return fail(checker, "the nodes array cannot be read");
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        if (!check_node(checker, graph->nodes[i], i)) {
            return false;
        }
    }
    return true;
}

enum ggc_status ggc_graph_check(const struct ggml_cgraph * graph, char * message,
                                size_t message_size) {
    struct checker checker = {.message = message, .message_size = message_size};
    if (message != NULL && message_size > 0) {
        message[0] = '\0';
    }
    if (pipe(checker.pipe) != 0) {
        fail(&checker, "no pipe: too many open files");
        return GGC_E_UNSUPPORTED;
    }
    const bool good = check_graph(&checker, graph);
    close(checker.pipe[0]);
    close(checker.pipe[1]);
    return good ? GGC_OK : GGC_E_INVALID;
}
