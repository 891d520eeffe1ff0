#include "threads.h"

bool depends_on_threads(const struct ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_FLASH_ATTN_EXT:       // one query, long cache: each thread takes a part of it
        case GGML_OP_CROSS_ENTROPY_LOSS:   // one partial sum a thread
            return true;
        default: return false;
    }
}
