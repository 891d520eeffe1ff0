#include "sim_touch.h"

#include "ggml.h"

// Runs of a view that are told one by one; of more, the innermost gaps are counted in.
#define MAX_RUNS (1 << 16)

bool sim_is_empty(const struct ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE: return true;
        default: return ggml_nelements(node) == 0;
    }
}

struct dim {
    size_t n, stride;
};

static int dims_by_stride(const struct ggml_tensor * t, struct dim * dims) {
    int n_dims = 0;
    for (int i = 0; i < GGML_MAX_DIMS; i++) {
        const size_t block = i == 0 ? (size_t) ggml_blck_size(t->type) : 1;
        const struct dim dim = {(size_t) t->ne[i] / block, t->nb[i]};
        if (dim.n < 2) {
            continue;
        }
        int at = n_dims++;
        for (; at > 0 && dims[at - 1].stride > dim.stride; at--) {
            dims[at] = dims[at - 1];
        }
        dims[at] = dim;
    }
    return n_dims;
}

static bool visit_runs(const char * data, const struct dim * dims, int n_dims, size_t run,
                       bool write, fake_visit visit, void * visitor) {
    if (n_dims == 0) {
        return visit(visitor, data, run, write);
    }
    const struct dim outer = dims[n_dims - 1];
    bool fine = true;
    for (size_t i = 0; fine && i < outer.n; i++) {
        fine = visit_runs(data + i * outer.stride, dims, n_dims - 1, run, write, visit, visitor);
    }
    return fine;
}

// Dimensions whose steps leave no gap make the run longer; for each step of the others there is
// one.
static bool visit_view(const struct ggml_tensor * t, bool write, fake_visit visit, void * visitor) {
    struct dim dims[GGML_MAX_DIMS];
    const int n_dims = dims_by_stride(t, dims);
    size_t run = ggml_type_size(t->type), n_runs = 1;
    for (int i = 0; i < n_dims; i++) {
        n_runs *= dims[i].n;
    }
    int first = 0;
    for (; first < n_dims && (dims[first].stride <= run || n_runs > MAX_RUNS); first++) {
        run += dims[first].stride * (dims[first].n - 1);
        n_runs /= dims[first].n;
    }
    return ggml_nelements(t) == 0 ||
           visit_runs(t->data, dims + first, n_dims - first, run, write, visit, visitor);
}

void sim_touch_view(const struct ggml_tensor * t, fake_visit visit, void * visitor) {
    visit_view(t, false, visit, visitor);
}

// Sources of which an operation takes only the shape, or the place of the result.
static bool is_read(const struct ggml_tensor * node, int source) {
    switch (node->op) {
        case GGML_OP_CPY: return source != 1;
        case GGML_OP_SET_ROWS: return source != 2;
        case GGML_OP_IM2COL:
        case GGML_OP_IM2COL_3D: return source != 0;
        case GGML_OP_IM2COL_BACK: return source != 1;
        case GGML_OP_FILL: return false;
        default: return true;
    }
}

static int64_t index_at(const struct ggml_tensor * ids, int64_t i0, int64_t i1, int64_t i2) {
    const char * at = (const char *) ids->data + (size_t) i0 * ids->nb[0] +
                      (size_t) i1 * ids->nb[1] + (size_t) i2 * ids->nb[2];
    return ids->type == GGML_TYPE_I64 ? *(const int64_t *) at : *(const int32_t *) at;
}

int sim_index_source(const struct ggml_tensor * node, int64_t * below) {
    switch (node->op) {
        case GGML_OP_GET_ROWS: *below = node->src[0]->ne[1]; return 1;
        case GGML_OP_GET_ROWS_BACK:
        case GGML_OP_SET_ROWS: *below = node->ne[1]; return 1;
        case GGML_OP_MUL_MAT_ID: *below = node->src[0]->ne[2]; return 2;
        case GGML_OP_ADD_ID: *below = node->src[1]->ne[1]; return 2;
        case GGML_OP_SSM_SCAN: *below = node->src[0]->ne[3]; return 6;
        default: return -1;
    }
}

bool sim_indices_fit(const struct ggml_tensor * ids, int64_t below) {
    for (int64_t i2 = 0; i2 < ids->ne[2]; i2++) {
        for (int64_t i1 = 0; i1 < ids->ne[1]; i1++) {
            for (int64_t i0 = 0; i0 < ids->ne[0]; i0++) {
                const int64_t index = index_at(ids, i0, i1, i2);
                if (index < 0 || index >= below) {
                    return false;
                }
            }
        }
    }
    return true;
}

static void visit_set_rows(const struct ggml_tensor * node, fake_visit visit, void * visitor) {
    const struct ggml_tensor *rows = node->src[0], *ids = node->src[1];
    const size_t row_size = ggml_row_size(node->type, node->ne[0]);
    bool fine = true;
    for (int64_t i3 = 0; fine && i3 < rows->ne[3]; i3++) {
        for (int64_t i2 = 0; fine && i2 < rows->ne[2]; i2++) {
            for (int64_t i1 = 0; fine && i1 < rows->ne[1]; i1++) {
                const int64_t row = index_at(ids, i1, i2 % ids->ne[1], i3 % ids->ne[2]);
                const bool inside = row >= 0 && row < node->ne[1];
                char * at = (char *) node->data + (size_t) row * node->nb[1] +
                            (size_t) i2 * node->nb[2] + (size_t) i3 * node->nb[3];
                fine = visit(visitor, inside ? at : NULL, row_size, true);
            }
        }
    }
}

void sim_touch(const struct ggml_tensor * node, fake_visit visit, void * visitor) {
    bool fine = true;
    for (int s = 0; fine && s < GGML_MAX_SRC; s++) {
        if (node->src[s] != NULL && is_read(node, s)) {
            fine = visit_view(node->src[s], false, visit, visitor);
        }
    }
    if (!fine) {
        return;
    }
    if (node->op == GGML_OP_SET_ROWS) {
        visit_set_rows(node, visit, visitor);
        return;
    }
    fine = visit_view(node, true, visit, visitor);
    if (fine && node->op == GGML_OP_OPT_STEP_ADAMW) {  // both moments
        fine = visit_view(node->src[2], true, visit, visitor) &&
               visit_view(node->src[3], true, visit, visitor);
    }
}
