#include "access_rules.h"

#include "ggml-backend-impl.h"

#define S0 (1 << 0)
#define S1 (1 << 1)
#define S2 (1 << 2)
#define S3 (1 << 3)
#define ALL TOUCH_ALL
#define DST TOUCH_DST
#define OP(name, reads, writes) [GGML_OP_##name] = {true, false, reads, writes, 0, 0},
#define FLAT(name, reads, writes, taken) [GGML_OP_##name] = {true, false, reads, writes, taken, 0},
#define ROWS(name, reads, writes, taken) [GGML_OP_##name] = {true, false, reads, writes, 0, taken},
#define FENCE(name) [GGML_OP_##name] = {true, true, 0, 0, 0, 0},
static const struct access_rule rules[GGML_OP_COUNT] = {
#include "ops.def"
};
#undef FENCE
#undef ROWS
#undef FLAT
#undef OP
#undef DST
#undef ALL
#undef S3
#undef S2
#undef S1
#undef S0

struct access_rule access_rule_of(enum ggml_op op) {
    if ((unsigned) op >= GGML_OP_COUNT || !rules[op].known) {
        return (struct access_rule) {false, true, 0, 0, 0, 0};
    }
    return rules[op];
}

// Weights that the CPU backend keeps in an order of its own.
static bool is_repacked(const struct ggml_tensor * weight) {
    struct ggml_backend_buffer * buffer = weight != NULL ? weight->buffer : NULL;
    if (buffer == NULL || ggml_backend_buffer_is_host(buffer)) {
        return false;
    }
    ggml_backend_dev_t device = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(buffer));
    return device != NULL && ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
}

// The sources of a node that its kernel takes for contiguous.
static uint32_t flat_sources(const struct ggml_tensor * node) {
    if (op_of(node) == GGML_OP_MUL_MAT) {
        return is_repacked(node->src[0]) ? 1 << 1 : 0;  // quantises four rows at a time
    }
    if (op_of(node) == GGML_OP_CONV_2D_DW && node->src[1] != NULL &&
        ggml_is_contiguous_channels(node->src[1])) {
        return 0;  // another kernel, which refuses what it cannot read
    }
    return access_rule_of(op_of(node)).flat;
}

bool is_fence(const struct ggml_tensor * node) {
    const struct access_rule rule = access_rule_of(op_of(node));
    const uint32_t flat = flat_sources(node);
    bool fence = rule.fence;
    for (int s = 0; (flat | rule.rows) >> s != 0; s++) {
        const struct ggml_tensor * source = node->src[s];
        if (source != NULL) {
            fence |= (flat >> s & 1) && !ggml_is_contiguous(source);
            fence |= (rule.rows >> s & 1) && !ggml_is_contiguous_1(source);
        }
    }
    return fence;
}

static bool is_zero_size(const struct ggml_tensor * tensor) {
    return tensor->ne[0] == 0 || tensor->ne[1] == 0 || tensor->ne[2] == 0 || tensor->ne[3] == 0;
}

bool node_computes(const struct ggml_tensor * node) {
    const struct access_rule rule = access_rule_of(op_of(node));
    return (node->flags & GGML_TENSOR_FLAG_COMPUTE) != 0 && !is_zero_size(node) &&
           (rule.fence || rule.writes != 0);
}

const struct ggml_tensor * root_of(const struct ggml_tensor * tensor) {
    while (tensor->view_src != NULL) {
        tensor = tensor->view_src;
    }
    return tensor;
}

// A dimension of more than one element: n steps of `stride` bytes.
struct dim {
    uint64_t n, stride;
};

static int dims_by_stride(const struct ggml_tensor * tensor, struct dim * dims) {
    int n_dims = 0;
    for (int k = 0; k < GGML_MAX_DIMS; k++) {
        const uint64_t n = k == 0 ? (uint64_t) (tensor->ne[0] / ggml_blck_size(tensor->type))
                                  : (uint64_t) tensor->ne[k];
        if (n <= 1) {
            continue;
        }
        int at = n_dims++;
        for (; at > 0 && dims[at - 1].stride > tensor->nb[k]; at--) {
            dims[at] = dims[at - 1];
        }
        dims[at] = (struct dim) {n, tensor->nb[k]};
    }
    return n_dims;
}

// Joins neighbouring dimensions until runs at one stride remain:
//   stride == run          the run gets longer
//   stride == n' * stride' of the next inner one: they are one dimension
//   otherwise              the gaps of the inner dimension are counted in
static struct ggc_access join_dims(const struct dim * dims, int n_dims, uint64_t run) {
    uint64_t stride = run, count = 1;
    for (int k = 0; k < n_dims; k++) {
        if (count == 1) {
            if (dims[k].stride <= run) {  // adjacent or overlapping runs
                run = dims[k].stride * (dims[k].n - 1) + run;
            } else {
                stride = dims[k].stride;
                count = dims[k].n;
            }
        } else if (dims[k].stride == stride * count) {
            count *= dims[k].n;
        } else {
            run = stride * (count - 1) + run;
            count = 1;
            k--;  // look at this dimension again, with the longer run
        }
    }
    if (count > UINT32_MAX) {
        run = stride * (count - 1) + run;
        count = 1;
    }
    return (struct ggc_access) {.run = run, .stride = stride, .count = (uint32_t) count};
}

struct ggc_access access_of_tensor(const struct ggml_tensor * tensor, size_t alloc_size) {
    if (is_zero_size(tensor)) {
        return (struct ggc_access) {.count = 1};
    }
    struct dim dims[GGML_MAX_DIMS];
    const int n_dims = dims_by_stride(tensor, dims);
    struct ggc_access access = join_dims(dims, n_dims, ggml_type_size(tensor->type));
    if (tensor->view_src != NULL) {
        access.offset =
            tensor->view_offs;  // from the root: ggml adds up the offsets of views of views
    } else if (alloc_size > access.stride * (access.count - 1) + access.run) {
        access = (struct ggc_access) {.run = alloc_size, .stride = alloc_size, .count = 1};
    }
    return access;
}
