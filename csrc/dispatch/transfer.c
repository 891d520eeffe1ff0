// Copies and computations that do not block, in the order in which they are asked for. Where
// computations block, and while ways are tried, everything happens at once, and what fails is kept
// all the same until somebody waits.
#include <string.h>

#include "cuda_driver.h"
#include "ggml/access_rules.h"
#include "runner_state.h"

static ggml_backend_t instance_of(const struct ggc_runner * runner) {
    const struct player * player = current_of(runner);
    const bool is_async =
        ggc_runner_settled(runner) && player->state != NULL && player->dispatch->async != NULL;
    return is_async ? player->dispatch->async->transfers(player->state) : NULL;
}

// The first one counts.
static void note_failure(struct ggc_runner * runner, enum ggc_status status) {
    if (status != GGC_OK && runner->failed == GGC_OK) {
        runner->failed = status;
        memcpy(runner->failed_message, runner->message, MESSAGE_SIZE);
    }
}

static void wait_for_all(struct ggc_runner * runner) {
    const struct message message = {runner->message, sizeof(runner->message)};
    if (instance_of(runner) != NULL) {
        const struct player * player = current_of(runner);
        note_failure(runner, player->dispatch->async->synchronize(player->state, &message));
    }
}

static bool is_usable(struct ggc_runner * runner, const struct ggml_tensor * tensor,
                      const void * data, size_t offset, size_t size) {
    const struct message message = {runner->message, sizeof(runner->message)};
    runner->message[0] = '\0';
    if (tensor == NULL || data == NULL) {
        message_set(&message, "no tensor, or no data");
    } else if (tensor->data == NULL || root_of(tensor)->buffer == NULL) {
        message_set(&message, "tensor '%s' is in no buffer", tensor->name);
    } else if (offset > ggml_nbytes(tensor) || size > ggml_nbytes(tensor) - offset) {
        message_set(&message, "tensor '%s' has %zu bytes, not %zu from byte %zu on", tensor->name,
                    ggml_nbytes(tensor), size, offset);
    } else {
        return true;
    }
    return false;
}

// The instance that copies are put on, or NULL: the host copies, after all that was asked for.
static ggml_backend_t copies_on(struct ggc_runner * runner, const struct ggml_tensor * tensor) {
    if (root_of(tensor)->buffer->buft == ggml_backend_dev_buffer_type(runner->device)) {
        return instance_of(runner);
    }
    wait_for_all(runner);
    return NULL;
}

enum ggc_status ggc_runner_set_async(struct ggc_runner * runner, struct ggml_tensor * tensor,
                                     const void * data, size_t offset, size_t size) {
    if (!is_usable(runner, tensor, data, offset, size)) {
        return GGC_E_INVALID;
    }
    const int mode = unbound_begin(is_cuda(runner));
    ggml_backend_t backend = copies_on(runner, tensor);
    if (backend != NULL) {
        ggml_backend_tensor_set_async(backend, tensor, data, offset, size);
    } else {
        ggml_backend_tensor_set(tensor, data, offset, size);
    }
    unbound_end(is_cuda(runner), mode);
    return GGC_OK;
}

enum ggc_status ggc_runner_get_async(struct ggc_runner * runner, const struct ggml_tensor * tensor,
                                     void * data, size_t offset, size_t size) {
    if (!is_usable(runner, tensor, data, offset, size)) {
        return GGC_E_INVALID;
    }
    const int mode = unbound_begin(is_cuda(runner));
    ggml_backend_t backend = copies_on(runner, tensor);
    if (backend != NULL) {
        ggml_backend_tensor_get_async(backend, tensor, data, offset, size);
    } else {
        ggml_backend_tensor_get(tensor, data, offset, size);
    }
    unbound_end(is_cuda(runner), mode);
    return GGC_OK;
}

enum ggc_status ggc_runner_compute_async(struct ggc_runner * runner) {
    const struct message message = {runner->message, sizeof(runner->message)};
    enum ggc_status status;
    if (instance_of(runner) == NULL) {
        status = ggc_runner_compute(runner);
    } else {
        const int mode = unbound_begin(is_cuda(runner));
        runner->message[0] = '\0';
        status = follow(runner, &message);
        if (status == GGC_OK) {
            const struct player * player = current_of(runner);
            status = player->dispatch->async->compute(player->state, &message);
        }
        unbound_end(is_cuda(runner), mode);
    }
    note_failure(runner, status);
    return status;
}

enum ggc_status ggc_runner_synchronize(struct ggc_runner * runner) {
    runner->message[0] = '\0';
    const int mode = unbound_begin(is_cuda(runner));
    wait_for_all(runner);
    unbound_end(is_cuda(runner), mode);
    const enum ggc_status status = runner->failed;
    if (status != GGC_OK) {
        memcpy(runner->message, runner->failed_message, MESSAGE_SIZE);
        runner->failed = GGC_OK;
    }
    return status;
}
