// Stands in for ggml-metal-device.m: the device, its library of kernels, its memory.

#include "sim_device.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "sim_commands.h"

//
// Kernels: only that they are there
//

struct ggml_metal_pipeline {};
struct ggml_metal_library {
    ggml_metal_device_t device;
};

extern "C" {

ggml_metal_cv_t ggml_metal_cv_init(void) {
    return nullptr;
}
void ggml_metal_cv_free(ggml_metal_cv_t) {}
void ggml_metal_cv_set_int16(ggml_metal_cv_t, int16_t, int32_t) {}
void ggml_metal_cv_set_int32(ggml_metal_cv_t, int32_t, int32_t) {}
void ggml_metal_cv_set_bool(ggml_metal_cv_t, bool, int32_t) {}

ggml_metal_pipeline_t ggml_metal_pipeline_init(void) {
    return new ggml_metal_pipeline;
}

void ggml_metal_pipeline_free(ggml_metal_pipeline_t pipeline) {
    delete pipeline;
}

int ggml_metal_pipeline_max_theads_per_threadgroup(ggml_metal_pipeline_with_params) {
    return 1024;
}

ggml_metal_device_t ggml_metal_library_get_device(ggml_metal_library_t library) {
    return library->device;
}

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline(ggml_metal_library_t,
                                                                const char *) {
    static ggml_metal_pipeline any;
    return {&any, 0, 0, 0, 0, false, false};
}

ggml_metal_pipeline_with_params ggml_metal_library_compile_pipeline(ggml_metal_library_t library,
                                                                    const char *, const char * name,
                                                                    ggml_metal_cv_t) {
    return ggml_metal_library_get_pipeline(library, name);
}

}  // extern "C"

//
// The device
//

static void describe(ggml_metal_device_props & props, int device) {
    const char * description = getenv("GGC_METAL_SIM_DESCRIPTION");
    snprintf(props.desc, sizeof(props.desc), "%s", description ? description : "Apple Sim");
    snprintf(props.name, sizeof(props.name), "MTL%d", device);
    const bool apple = strncmp(props.desc, "Apple", 5) == 0;
    props.device = device;
    props.device_virt = device;
    props.max_buffer_size = props.max_working_set_size = (size_t) 1 << 40;
    props.max_theadgroup_memory_size = 32768;
    props.has_simdgroup_reduction = true;
    props.has_simdgroup_mm = apple;
    props.has_unified_memory = apple;
    props.has_bfloat = true;
    props.use_shared_buffers = apple;
    props.supports_gpu_family_apple7 = apple;
    props.device_id = GGML_METAL_DEVICE_GENERIC;
    props.gpu_family = apple ? 7 : 0;
    props.op_offload_min_batch_size = 32;
}

extern "C" {

const char * ggml_metal_device_id_token(ggml_metal_device_id) {
    return "generic";
}

ggml_metal_device_t ggml_metal_device_init(int device, int) {
    auto * fresh = new ggml_metal_device {};
    describe(fresh->props, device);
    fresh->finfo = ggml_metal_fusion_info_init(getenv("GGML_METAL_FUSION_DISABLE") == nullptr, 0);
    fresh->queue = new metal_queue;
    return fresh;
}

void ggml_metal_device_free(ggml_metal_device_t device) {
    ggml_metal_fusion_info_free(device->finfo);
    delete device->queue;
    delete device;
}

ggml_metal_library_t ggml_metal_device_get_library(ggml_metal_device_t device) {
    static ggml_metal_library library;
    library.device = device;
    return &library;
}

const ggml_metal_device_props * ggml_metal_device_get_props(ggml_metal_device_t device) {
    return &device->props;
}

ggml_metal_fusion_info * ggml_metal_device_get_fusion_info(ggml_metal_device_t device) {
    return device->finfo;
}

void ggml_metal_device_get_memory(ggml_metal_device_t device, size_t * free, size_t * total) {
    *free = *total = device->props.max_working_set_size;
}

}  // extern "C"

//
// Events: a queue runs in order, and there is one for a device
//

struct ggml_metal_event {};

extern "C" {

ggml_metal_event_t ggml_metal_device_event_init(ggml_metal_device_t) {
    return new ggml_metal_event;
}

void ggml_metal_device_event_free(ggml_metal_device_t, ggml_metal_event_t event) {
    delete event;
}

void ggml_metal_device_event_synchronize(ggml_metal_device_t device, ggml_metal_event_t) {
    device->queue->finish();
}

}  // extern "C"

//
// Memory: the host's. As on Apple silicon, nothing waits for the queue of itself
//

struct ggml_metal_buffer {
    ggml_metal_device_t device;
    char * data;
    size_t size;
    bool owned, shared;
};

static void expect_idle(ggml_metal_buffer_t buffer, const char * what) {
    if (!buffer->device->queue->pending.empty()) {
        sim().tell(sim().report.hasty, std::string(what) + " while commands are under way");
    }
}

extern "C" {

ggml_metal_buffer_t ggml_metal_buffer_init(ggml_metal_device_t device, size_t size, bool shared) {
    // Only what is touched is there: weights that nobody computes with may be larger than memory.
    void * data = mmap(nullptr, size + 1, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
        return nullptr;
    }
    return new ggml_metal_buffer {device, (char *) data, size, true,
                                  shared && device->props.use_shared_buffers};
}

ggml_metal_buffer_t ggml_metal_buffer_map(ggml_metal_device_t device, void * data, size_t size,
                                          size_t) {
    return new ggml_metal_buffer {device, (char *) data, size, false, true};
}

void ggml_metal_buffer_free(ggml_metal_buffer_t buffer) {
    expect_idle(buffer, "memory is freed");
    if (buffer->owned) {
        munmap(buffer->data, buffer->size + 1);
    }
    delete buffer;
}

void * ggml_metal_buffer_get_base(ggml_metal_buffer_t buffer) {
    return buffer->data;
}

bool ggml_metal_buffer_is_shared(ggml_metal_buffer_t buffer) {
    return buffer->shared;
}

void ggml_metal_buffer_memset_tensor(ggml_metal_buffer_t buffer, ggml_tensor * tensor,
                                     uint8_t value, size_t offset, size_t size) {
    expect_idle(buffer, "a tensor is filled");
    memset((char *) tensor->data + offset, value, size);
}

void ggml_metal_buffer_set_tensor(ggml_metal_buffer_t buffer, ggml_tensor * tensor,
                                  const void * data, size_t offset, size_t size) {
    expect_idle(buffer, "a tensor is set");
    memcpy((char *) tensor->data + offset, data, size);
}

void ggml_metal_buffer_get_tensor(ggml_metal_buffer_t buffer, const ggml_tensor * tensor,
                                  void * data, size_t offset, size_t size) {
    expect_idle(buffer, "a tensor is read");
    memcpy(data, (const char *) tensor->data + offset, size);
}

bool ggml_metal_buffer_cpy_tensor(ggml_metal_buffer_t buffer, const ggml_tensor * src,
                                  ggml_tensor * dst) {
    expect_idle(buffer, "a tensor is copied");
    memcpy(dst->data, src->data, ggml_nbytes(src));
    return true;
}

void ggml_metal_buffer_clear(ggml_metal_buffer_t buffer, uint8_t value) {
    expect_idle(buffer, "memory is cleared");
    memset(buffer->data, value, buffer->size);
}

ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t buffer, const ggml_tensor * t) {
    const char * data = (const char *) t->data;
    if (data < buffer->data || data + ggml_nbytes(t) > buffer->data + buffer->size) {
        sim().tell(sim().report.strays, std::string(t->name) + " is not in its buffer");
        return {nullptr, 0};
    }
    return {buffer->data, (size_t) (data - buffer->data)};
}

}  // extern "C"
