#include "layout.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "layout_parts.h"

size_t layout_alignment(const struct layouter * l) {
    const size_t alignment = ggml_backend_buft_get_alignment(l->buft);
    return alignment > MIN_ALIGNMENT ? alignment : MIN_ALIGNMENT;
}

size_t layout_size_of(const struct layouter * l, const struct ggml_tensor * tensor) {
    return ggml_backend_buft_get_alloc_size(l->buft, tensor) + (l->params->gaps ? 1 : 0);
}

enum ggc_status layout_no_memory(const struct layouter * l, size_t size) {
    message_set(l->message, "cannot allocate %zu bytes of %s memory for the tensors of the graph",
                size, ggml_backend_buft_name(l->buft));
    return GGC_E_NOMEM;
}

//
// 1. Which tensors need memory
//

static bool has_memory(const struct layouter * l, const struct ggml_tensor * tensor) {
    const struct ggml_tensor * root = root_of(tensor);
    return tensor->data != NULL || (l->params->leafs_have_memory && root->op == GGML_OP_NONE &&
                                    (root->flags & GGML_TENSOR_FLAG_INPUT) == 0);
}

static bool grow(struct layouter * l) {
    const size_t larger = l->capacity * 2 + 64;
    struct ggml_tensor ** tensors = realloc(l->layout->tensors, larger * sizeof(*tensors));
    if (tensors == NULL) {
        return false;
    }
    l->layout->tensors = tensors;
    bool * is_source = realloc(l->is_source, larger * sizeof(*is_source));
    if (is_source == NULL) {
        return false;
    }
    l->is_source = is_source;
    l->capacity = larger;
    return true;
}

static bool collect(struct layouter * l, struct ggml_tensor * tensor, bool is_source) {
    struct layout * layout = l->layout;
    if (tensor == NULL || has_memory(l, tensor)) {
        return true;
    }
    const uint32_t index = pointer_map_get(&l->seen, tensor, GGC_NONE);
    if (index != GGC_NONE) {
        l->is_source[index] |= is_source;
        return true;
    }
    if (tensor->view_src != NULL && !collect(l, tensor->view_src, false)) {
        return false;  // what is viewed stands before the view
    }
    if (layout->n_tensors == l->capacity && !grow(l)) {
        return false;
    }
    layout->tensors[layout->n_tensors] = tensor;
    l->is_source[layout->n_tensors] = is_source;
    return pointer_map_put(&l->seen, tensor, (uint32_t) layout->n_tensors++);
}

static bool collect_all(struct layouter * l) {
    bool ok = true;
    for (int i = 0; ok && i < l->graph->n_leafs; i++) {
        ok = collect(l, l->graph->leafs[i], false);
    }
    for (int i = 0; ok && i < l->graph->n_nodes; i++) {
        struct ggml_tensor * node = l->graph->nodes[i];
        for (int s = 0; ok && s < GGML_MAX_SRC; s++) {
            ok = collect(l, node->src[s], true);
        }
        ok = ok && collect(l, node, false);
    }
    return ok;
}

//
// 2. The budget
//

// Bytes of what the graph reads and does not write: weights, not caches and not inputs.
static bool find_weights(const struct layouter * l, size_t * bytes) {
    struct pointer_map roots;
    bool ok = pointer_map_init(&roots, (size_t) l->graph->n_nodes);
    *bytes = 0;
    for (int i = 0; ok && i < l->graph->n_nodes; i++) {
        ok = pointer_map_put(&roots, root_of(l->graph->nodes[i]), 1);
    }
    for (int i = 0; ok && i < l->graph->n_nodes; i++) {
        for (int s = 0; ok && s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor * source = l->graph->nodes[i]->src[s];
            const struct ggml_tensor * root = source != NULL ? root_of(source) : NULL;
            if (root != NULL && has_memory(l, root) &&
                pointer_map_get(&roots, root, GGC_NONE) == GGC_NONE) {
                *bytes += ggml_nbytes(root);
                ok = pointer_map_put(&roots, root, 1);
            }
        }
    }
    pointer_map_free(&roots);
    return ok;
}

// Far from any memory that there is.
#define NOWHERE ((char *) 4096)

// Tensors that are taken to have memory get an address, or none again.
static void pretend(const struct layouter * l, bool has) {
    for (int i = 0; l->params->leafs_have_memory && i < l->graph->n_nodes; i++) {
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            struct ggml_tensor * source = l->graph->nodes[i]->src[s];
            while (source != NULL && source->view_src != NULL) {
                source = source->view_src;
            }
            if (source != NULL && source->data == (has ? NULL : NOWHERE) && has_memory(l, source)) {
                source->data = has ? NOWHERE : NULL;
            }
        }
    }
}

// What ggml's allocator would take for the graph as it stands.
static enum ggc_status find_serial_peak(struct layouter * l, size_t * bytes) {
    *bytes = 0;
    if (l->graph->n_nodes + l->graph->n_leafs == 0) {
        return GGC_OK;  // of nothing it has no table
    }
    ggml_gallocr_t galloc = ggml_gallocr_new(l->buft);
    if (galloc == NULL) {
        return GGC_E_NOMEM;
    }
    pretend(l, true);
    ggml_gallocr_reserve_n_size(galloc, l->graph, NULL, NULL, bytes);
    pretend(l, false);
    ggml_gallocr_free(galloc);
    return GGC_OK;
}

#define LEAST_MORE ((size_t) 32 << 20)

static enum ggc_status find_budget(struct layouter * l) {
    struct ggc_memory * figures = &l->layout->figures;
    size_t weights = 0;
    figures->budget = l->params->budget;
    enum ggc_status status = find_serial_peak(l, &figures->serial);
    if (status == GGC_OK && figures->budget == GGC_BUDGET_DEFAULT) {
        status = find_weights(l, &weights) ? GGC_OK : GGC_E_NOMEM;
        const size_t part = weights / 50;
        figures->budget = figures->serial + (part > LEAST_MORE ? part : LEAST_MORE);
    }
    return status;
}

//
// 3. Offsets
//

static size_t size_apart(const struct layouter * l) {
    const size_t alignment = layout_alignment(l);
    size_t size = 0;
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = l->layout->tensors[i];
        if (!layout_is_view(tensor)) {
            size += (layout_size_of(l, tensor) + alignment - 1) / alignment * alignment;
        }
    }
    return size;
}

static void take_figures(struct layouter * l, const struct memory_layout * made) {
    static const enum ggc_sharing sharing[] = {
        [MEMORY_APART] = GGC_SHARING_NONE,
        [MEMORY_BY_PLAN] = GGC_SHARING_BY_PLAN,
        [MEMORY_BY_TIME] = GGC_SHARING_BY_TIME,
        [MEMORY_SERIAL] = GGC_SHARING_SERIAL,
    };
    struct ggc_memory * figures = &l->layout->figures;
    figures->sharing = sharing[made->sharing];
    if (made->sharing == MEMORY_APART && made->size < figures->apart) {
        figures->sharing = GGC_SHARING_BY_PLAN;  // within units
    }
    figures->size = (size_t) made->size;
    figures->bound = (size_t) made->bound;
    l->max_buffer = made->max_buffer;
}

static bool schedule_init(struct layout * layout, const struct memory_problem * problem) {
    layout->n_units = problem->n_units;
    layout->n_streams = problem->schedule.n_streams;
    layout->order = malloc((layout->n_units + 1) * sizeof(uint32_t));
    layout->stream = malloc((layout->n_units + 1) * sizeof(uint32_t));
    return layout->order != NULL && layout->stream != NULL;
}

// For the plan as it is, with an order that layouts by time ask for.
static enum ggc_status lay_out_as_planned(struct layouter * l,
                                          const struct memory_problem * problem, uint64_t budget,
                                          struct memory_layout * made) {
    struct layout * layout = l->layout;
    const size_t size = problem->n_units * sizeof(uint32_t);
    const enum ggc_status status = memory_lay_out(problem, budget, NULL, l->offset, made);
    if (status != GGC_OK || size == 0) {
        return status;
    }
    memcpy(layout->stream, problem->schedule.stream, size);
    memcpy(layout->order, problem->schedule.order, size);
    return made->sharing == MEMORY_BY_TIME ? memory_order(problem, NULL, layout->order) : GGC_OK;
}

static enum ggc_status lay_out_anew(struct layouter * l, struct memory_problem * problem,
                                    const struct ggc_plan * plan, uint64_t budget,
                                    struct memory_layout * made) {
    const struct ggc_plan_stats stats = ggc_plan_get_stats(plan);
    uint32_t * begin = malloc(((size_t) stats.n_units + 1) * sizeof(uint32_t));
    uint32_t * dep = malloc(((size_t) stats.n_deps + 1) * sizeof(uint32_t));
    double * start = malloc(((size_t) stats.n_units + 1) * sizeof(double));
    enum ggc_status status = GGC_E_NOMEM;
    if (begin != NULL && dep != NULL && start != NULL) {
        begin[0] = 0;
        for (uint32_t u = 0; u < stats.n_units; u++) {
            uint32_t n;
            const uint32_t * deps = ggc_plan_deps(plan, u, &n);
            memcpy(dep + begin[u], deps, n * sizeof(uint32_t));
            begin[u + 1] = begin[u] + n;
        }
        problem->dep_begin = begin;
        problem->dep = dep;
        const struct memory_schedule schedule = {l->layout->order, l->layout->stream, start};
        status = memory_fit(problem, budget, NULL, l->offset, &schedule, made);
    }
    free(begin);
    free(dep);
    free(start);
    return status;
}

static void forget_schedule(struct layout * layout) {
    free(layout->order);
    free(layout->stream);
    layout->order = layout->stream = NULL;
}

// Without a plan, or where tensors stay apart anyway, nobody need know who uses what.
static enum ggc_status lay_out_for(struct layouter * l, const struct ggc_plan * plan,
                                   const struct memory_tensor * tensors, uint64_t budget) {
    static const uint32_t none = 0;
    const size_t max_size = ggml_backend_buft_get_max_size(l->buft);
    const struct ggc_schedule nothing = {.n_streams = 1, .wait_begin = &none};
    struct memory_problem problem = {
        .n_units = plan != NULL ? ggc_plan_get_stats(plan).n_units : 0,
        .cost = plan != NULL ? l->plan->units.core.cost : NULL,
        .schedule = plan != NULL ? ggc_plan_schedule(plan) : nothing,
        .wait_cost = plan != NULL ? l->plan->wait_cost : 0,
        .tensors = tensors,
        .n_tensors = (uint32_t) l->layout->n_tensors,
        .uses = l->layout->uses,
        .alignment = layout_alignment(l),
        .max_buffer = max_size > 2 * MIN_ALIGNMENT ? max_size - MIN_ALIGNMENT : max_size,
    };
    struct memory_layout made;
    forget_schedule(l->layout);
    enum ggc_status status = GGC_E_NOMEM;
    if (schedule_init(l->layout, &problem)) {
        status = plan != NULL && l->params->may_plan_anew
                     ? lay_out_anew(l, &problem, plan, budget, &made)
                     : lay_out_as_planned(l, &problem, budget, &made);
    }
    if (status == GGC_OK) {
        take_figures(l, &made);
        if (made.sharing != MEMORY_BY_PLAN && made.sharing != MEMORY_BY_TIME) {
            forget_schedule(l->layout);
        }
    }
    return status == GGC_E_INVALID ? layout_no_memory(l, SIZE_MAX) : status;  // sizes overflow
}

// No two tensors share memory.
static enum ggc_status lay_out_apart(struct layouter * l, struct memory_tensor * tensors) {
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        const struct ggml_tensor * tensor = l->layout->tensors[i];
        tensors[i] = (struct memory_tensor) {.in_place = GGC_NONE};
        tensors[i].size = layout_is_view(tensor) ? 0 : layout_size_of(l, tensor);
    }
    return lay_out_for(l, NULL, tensors, UINT64_MAX);
}

static enum ggc_status lay_out_shared(struct layouter * l, struct memory_tensor * tensors) {
    enum ggc_status status = layout_find_uses(l);
    if (status == GGC_OK) {
        layout_describe(l, tensors);
        status = lay_out_for(l, l->plan->core, tensors, l->layout->figures.budget);
    }
    for (size_t i = l->layout->n_tensors; status == GGC_OK && i-- > 0;) {
        l->offset[i] = l->offset[l->same_as[i] != GGC_NONE ? l->same_as[i] : i];
    }
    return status;
}

static enum ggc_status find_offsets(struct layouter * l) {
    struct ggc_memory * figures = &l->layout->figures;
    struct memory_tensor * tensors = calloc(l->layout->n_tensors + 1, sizeof(*tensors));
    enum ggc_status status = tensors != NULL ? GGC_OK : GGC_E_NOMEM;
    figures->apart = size_apart(l);
    const bool apart = figures->apart <= figures->budget;
    if (status == GGC_OK && !l->params->gaps) {
        status = lay_out_shared(l, tensors);  // for the bound, where they stay apart
    }
    if (status == GGC_OK && apart) {
        const size_t bound = figures->bound;
        status = lay_out_apart(l, tensors);
        figures->bound = l->params->gaps ? 0 : bound;
    } else if (status == GGC_OK && l->params->gaps) {
        status = layout_by_phases(l);
    }
    free(tensors);
    return status;
}

//
// 4. Memory
//

static enum ggc_status init_views(struct layouter * l) {
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        struct ggml_tensor * tensor = l->layout->tensors[i];
        if (!layout_is_view(tensor) || tensor->buffer != NULL) {
            continue;
        }
        if (tensor->view_src->buffer == NULL) {  // memory from ggml_init, outside any buffer
            tensor->data = (char *) tensor->view_src->data + tensor->view_offs;
        } else if (ggml_backend_view_init(tensor) != GGML_STATUS_SUCCESS) {
            return layout_no_memory(l, 0);
        }
    }
    return GGC_OK;
}

static uint64_t last_byte(const struct layouter * l, size_t i) {
    return layout_is_view(l->layout->tensors[i])
               ? 0
               : l->offset[i] + layout_size_of(l, l->layout->tensors[i]);
}

static enum ggc_status allocate(struct layouter * l) {
    struct layout * layout = l->layout;
    uint64_t end = 0;
    for (size_t i = 0; i < layout->n_tensors; i++) {
        end = last_byte(l, i) > end ? last_byte(l, i) : end;
    }
    const size_t n = (size_t) ((end + l->max_buffer - 1) / l->max_buffer);
    layout->buffers = calloc(n + 1, sizeof(*layout->buffers));
    size_t * sizes = calloc(n + 1, sizeof(*sizes));
    enum ggc_status status = layout->buffers != NULL && sizes != NULL ? GGC_OK : GGC_E_NOMEM;
    for (size_t i = 0; status == GGC_OK && i < layout->n_tensors; i++) {
        if (last_byte(l, i) > 0) {
            const size_t b = (size_t) (l->offset[i] / l->max_buffer);
            const size_t size = (size_t) (last_byte(l, i) - b * l->max_buffer);
            sizes[b] = size > sizes[b] ? size : sizes[b];
        }
    }
    for (size_t b = 0; status == GGC_OK && b < n; b++) {
        layout->buffers[b] = pool_take(layout->pool, l->buft, sizes[b] + MIN_ALIGNMENT);
        layout->n_buffers++;
        status = layout->buffers[b] != NULL ? GGC_OK : layout_no_memory(l, sizes[b]);
    }
    free(sizes);
    return status;
}

static enum ggc_status place(struct layouter * l) {
    struct layout * layout = l->layout;
    enum ggc_status status = allocate(l);
    for (size_t i = 0; status == GGC_OK && i < layout->n_tensors; i++) {
        struct ggml_tensor * tensor = layout->tensors[i];
        if (layout_is_view(tensor)) {
            continue;
        }
        ggml_backend_buffer_t buffer = layout->buffers[l->offset[i] / l->max_buffer];
        uintptr_t at = (uintptr_t) ggml_backend_buffer_get_base(buffer);
        at = (at + MIN_ALIGNMENT - 1) / MIN_ALIGNMENT * MIN_ALIGNMENT;
        at += l->offset[i] % l->max_buffer;
        if (ggml_backend_tensor_alloc(buffer, tensor, (void *) at) != GGML_STATUS_SUCCESS) {
            status = layout_no_memory(l, layout->figures.size);
        }
    }
    return status == GGC_OK ? init_views(l) : status;
}

static enum ggc_status place_nowhere(struct layouter * l) {
    for (size_t i = 0; i < l->layout->n_tensors; i++) {
        struct ggml_tensor * tensor = l->layout->tensors[i];
        tensor->data = layout_is_view(tensor) ? (char *) tensor->view_src->data + tensor->view_offs
                                              : NOWHERE + l->offset[i];
    }
    return GGC_OK;
}

// A view of memory that was there before it has an address, and no buffer: backends ask it for one.
static void adopt(struct ggml_tensor * tensor) {
    if (tensor != NULL && tensor->data != NULL && tensor->buffer == NULL &&
        tensor->view_src != NULL) {
        tensor->buffer = tensor->view_src->buffer;
    }
}

static void adopt_views(const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            adopt(graph->nodes[i]->src[s]);
        }
        adopt(graph->nodes[i]);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + 1e-9 * (double) time.tv_nsec;
}

static enum ggc_status lay_out(struct layouter * l) {
    struct layout * layout = l->layout;
    const double start = now();
    if (!pointer_map_init(&l->seen, (size_t) l->graph->n_nodes + (size_t) l->graph->n_leafs) ||
        !collect_all(l)) {
        return GGC_E_NOMEM;
    }
    l->offset = calloc(layout->n_tensors + 1, sizeof(uint64_t));
    enum ggc_status status = l->offset != NULL ? find_budget(l) : GGC_E_NOMEM;
    if (status == GGC_OK) {
        status = find_offsets(l);
    }
    for (size_t i = 0; i < layout->n_tensors; i++) {
        layout->figures.n_tensors += !layout_is_view(layout->tensors[i]);
    }
    layout->figures.seconds = now() - start;
    return status;
}

static enum ggc_status init(struct layout * layout, struct ggml_cgraph * graph,
                            const struct ggc_graph_plan * plan, const struct layout_params * params,
                            enum ggc_status (*place_tensors)(struct layouter *),
                            const struct message * message) {
    struct layouter l = {.layout = layout,
                         .graph = graph,
                         .plan = plan,
                         .params = params,
                         .buft = params->buft,
                         .message = message};
    *layout = (struct layout) {.pool = params->pool};
    enum ggc_status status = lay_out(&l);
    if (status == GGC_OK) {
        adopt_views(graph);
        status = place_tensors(&l);
    }
    layout->figures.n_buffers = (uint32_t) layout->n_buffers;
    pointer_map_free(&l.seen);
    free(l.is_source);
    free(l.n_reads);
    free(l.same_as);
    free(l.offset);
    if (status != GGC_OK) {
        layout_free(layout);
    }
    return status;
}

enum ggc_status layout_init(struct layout * layout, struct ggml_cgraph * graph,
                            const struct ggc_graph_plan * plan, const struct layout_params * params,
                            const struct message * message) {
    return init(layout, graph, plan, params, place, message);
}

enum ggc_status layout_sketch(struct layout * layout, struct ggml_cgraph * graph,
                              const struct ggc_graph_plan * plan,
                              const struct layout_params * params, const struct message * message) {
    return init(layout, graph, plan, params, place_nowhere, message);
}

bool layout_is_for_phases(const struct layout * layout) {
    return layout->figures.sharing == GGC_SHARING_BY_PHASE;
}

void layout_free(struct layout * layout) {
    for (size_t i = 0; i < layout->n_tensors; i++) {
        layout->tensors[i]->data = NULL;
        layout->tensors[i]->buffer = NULL;
    }
    for (size_t i = 0; i < layout->n_buffers; i++) {
        pool_give(layout->pool, layout->buffers[i]);
    }
    free(layout->buffers);
    free(layout->tensors);
    free(layout->order);
    free(layout->stream);
    free(layout->use_begin);
    free(layout->uses);
    *layout = (struct layout) {0};
}
