// Which bytes the operations of ggml touch.
#pragma once

#include "ggml-concurrent.h"
#include "ggml-impl.h"
#include "op_of.h"

// Masks over the sources and the result of an operation.
enum {
    TOUCH_DST = 1 << GGML_MAX_SRC,
    TOUCH_ALL = (1 << GGML_MAX_SRC) - 1,
};

struct access_rule {
    bool known;  // false: not in the table, to be treated as a fence
    bool fence;
    uint32_t reads, writes;
    uint32_t flat, rows;  // sources that the kernel takes for contiguous; for rows at one stride
};

// For any value of op, also outside the enum.
struct access_rule access_rule_of(enum ggml_op op);

// Whether `node` may touch anything: user code, an unknown operation, or a view that its kernel
// takes for contiguous, though it is not.
bool is_fence(const struct ggml_tensor * node);

// Whether a backend does anything for this node.
bool node_computes(const struct ggml_tensor * node);

// The tensor that owns the memory of `tensor`: the end of its chain of views.
const struct ggml_tensor * root_of(const struct ggml_tensor * tensor);

// What `tensor` touches, offset and runs, relative to the start of its root: exact where its
// elements form equally spaced runs, else a range that contains them. mode and buffer are not set.
// `alloc_size`: bytes that the root occupies in its buffer, 0 if not known; a tensor that owns its
// memory touches that many (kernels may keep scratch behind the result).
struct ggc_access access_of_tensor(const struct ggml_tensor * tensor, size_t alloc_size);
