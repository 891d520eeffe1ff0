#include "sim_backend.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ggml-backend-impl.h"
#include "sim_graphs.h"
#include "sim_touch.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#include "ggml-impl.h"
#pragma GCC diagnostic pop

#define SCRATCH_SIZE 4096
#define ALIGNMENT 128
#define ROW_PADDING 512  // elements to which rows of quantised matrices are read
#define TEXT_SIZE 600

// Calls of a backend to CUDA: ggml-cuda ends the process when one fails.
#define CUDA(call) must_succeed((fake_as_runtime(true), (call)), #call, __func__)

struct device {
    struct ggml_backend_device base;
    struct ggml_backend_buffer_type buffer_type;
    int index;
    char name[16];
    const char * pci_id;
    CUcontext context;
};

struct instance {
    struct device * device;
    char name[16];
    CUstream stream;
    CUevent copied;  // for copies to other instances
    struct sim_scratch scratch;
    struct sim_graphs * graphs;
};

static struct device devices[FAKE_DEVICES];

static struct {
    atomic_ullong instances, events, buffers, graphs, kernels, event_records, event_waits,
        synchronises, copies, own_captures, own_launches, captures_inside;
} counted;
static atomic_ullong instances_made;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;  // of what follows
static struct {
    uint64_t n_errors;
    char first_error[TEXT_SIZE];
    struct {
        char what[16];
        int n;
    } faults[4];
    char refused_op[32], waiting_op[32];
} sim;

//
// Errors and faults
//

void sim_error(const char * format, ...) {
    pthread_mutex_lock(&mutex);
    if (sim.n_errors++ == 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(sim.first_error, sizeof sim.first_error, format, args);
        va_end(args);
    }
    pthread_mutex_unlock(&mutex);
}

static bool must_succeed(CUresult result, const char * call, const char * function) {
    const char * text = NULL;
    if (result != CUDA_SUCCESS) {
        cuGetErrorString(result, &text);
        sim_error("ggml-cuda would abort: %s (%d) from %s in %s", text != NULL ? text : "?", result,
                  call, function);
    }
    fake_as_runtime(false);
    return result == CUDA_SUCCESS;
}

static bool is_to_fail(const char * what) {
    bool fails = false;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < sizeof sim.faults / sizeof *sim.faults; i++) {
        int * n = &sim.faults[i].n;
        if (*n != 0 && strcmp(sim.faults[i].what, what) == 0) {
            fails = *n == 1 || *n == -1;
            *n = *n == -1 ? -1 : *n - (*n > 0 ? 1 : -1);
        }
    }
    pthread_mutex_unlock(&mutex);
    return fails;
}

void sim_fail(const char * what, int n) {
    pthread_mutex_lock(&mutex);
    size_t i = 0;
    while (i + 1 < sizeof sim.faults / sizeof *sim.faults && sim.faults[i].what[0] != '\0' &&
           strcmp(sim.faults[i].what, what) != 0) {
        i++;
    }
    snprintf(sim.faults[i].what, sizeof sim.faults[i].what, "%s", what);
    sim.faults[i].n = n;
    pthread_mutex_unlock(&mutex);
}

static void set_op(char * to, size_t size, const char * name) {
    pthread_mutex_lock(&mutex);
    snprintf(to, size, "%s", name != NULL ? name : "");
    pthread_mutex_unlock(&mutex);
}

void sim_refuse_op(const char * name) {
    set_op(sim.refused_op, sizeof sim.refused_op, name);
}

void sim_waiting_op(const char * name) {
    set_op(sim.waiting_op, sizeof sim.waiting_op, name);
}

static bool is_op(const struct ggml_tensor * node, const char * name) {
    pthread_mutex_lock(&mutex);
    const bool is = strcasecmp(ggml_op_name(node->op), name) == 0;
    pthread_mutex_unlock(&mutex);
    return is;
}

//
// Buffers. Each host thread has a stream of its own for copies that it waits for.
//

// As cudaSetDevice: the device's context is the thread's from now on.
static void set_device(const struct device * device) {
    CUDA(cuCtxSetCurrent(device->context));
}

static CUstream thread_stream(const struct device * device) {
    static _Thread_local CUstream streams[FAKE_DEVICES];
    CUstream * stream = &streams[device->index];
    set_device(device);
    if (*stream == NULL) {
        CUDA(cuStreamCreate(stream, CU_STREAM_NON_BLOCKING));
    }
    return *stream;
}

static struct device * device_of(ggml_backend_buffer_t buffer) {
    return buffer->buft->device->context;
}

static void buffer_free(ggml_backend_buffer_t buffer) {
    set_device(device_of(buffer));
    CUDA(cuMemFree_v2((CUdeviceptr) (uintptr_t) buffer->context));
    counted.buffers--;
}

static void * buffer_base(ggml_backend_buffer_t buffer) {
    return buffer->context;
}

static void buffer_memset(ggml_backend_buffer_t buffer, struct ggml_tensor * tensor, uint8_t value,
                          size_t offset, size_t size) {
    CUstream stream = thread_stream(device_of(buffer));
    CUDA(sim_launch_fill(stream, (char *) tensor->data + offset, value, size));
    CUDA(cuStreamSynchronize(stream));
}

static void buffer_set(ggml_backend_buffer_t buffer, struct ggml_tensor * tensor, const void * data,
                       size_t offset, size_t size) {
    CUstream stream = thread_stream(device_of(buffer));
    CUDA(sim_launch_copy(stream, SIM_TO_DEVICE, (char *) tensor->data + offset, data, size));
    CUDA(cuStreamSynchronize(stream));
}

static void buffer_get(ggml_backend_buffer_t buffer, const struct ggml_tensor * tensor, void * data,
                       size_t offset, size_t size) {
    CUstream stream = thread_stream(device_of(buffer));
    CUDA(sim_launch_copy(stream, SIM_TO_HOST, data, (const char *) tensor->data + offset, size));
    CUDA(cuStreamSynchronize(stream));
}

static bool is_ours(ggml_backend_buffer_t buffer) {
    return buffer != NULL && buffer->iface.free_buffer == buffer_free;
}

static bool buffer_copy(ggml_backend_buffer_t buffer, const struct ggml_tensor * src,
                        struct ggml_tensor * dst) {
    if (!is_ours(src->buffer)) {
        return false;
    }
    CUstream stream = thread_stream(device_of(buffer));
    CUDA(sim_launch_copy(stream, SIM_ON_DEVICE, dst->data, src->data, ggml_nbytes(src)));
    CUDA(cuStreamSynchronize(stream));
    return true;
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    CUstream stream = thread_stream(device_of(buffer));
    CUDA(sim_launch_fill(stream, buffer->context, value, buffer->size));
    CUDA(cuStreamSynchronize(stream));
}

static size_t type_alloc_size(ggml_backend_buffer_type_t type, const struct ggml_tensor * tensor) {
    (void) type;
    const int64_t over = tensor->ne[0] % ROW_PADDING;
    const size_t size = ggml_nbytes(tensor);
    return ggml_is_quantized(tensor->type) && over != 0
               ? size + ggml_row_size(tensor->type, ROW_PADDING - over)
               : size;
}

static enum ggml_status buffer_init_tensor(ggml_backend_buffer_t buffer,
                                           struct ggml_tensor * tensor) {
    const size_t size = ggml_nbytes(tensor);
    const size_t padded = type_alloc_size(buffer->buft, tensor);
    if (tensor->view_src == NULL && padded > size &&
        buffer->usage != GGML_BACKEND_BUFFER_USAGE_COMPUTE) {
        buffer_memset(buffer, tensor, 0, size, padded - size);
    }
    return GGML_STATUS_SUCCESS;
}

static const char * type_name(ggml_backend_buffer_type_t type) {
    return ((struct device *) type->device->context)->name;
}

static ggml_backend_buffer_t type_alloc(ggml_backend_buffer_type_t type, size_t size) {
    static const struct ggml_backend_buffer_i interface = {
        .free_buffer = buffer_free,
        .get_base = buffer_base,
        .init_tensor = buffer_init_tensor,
        .memset_tensor = buffer_memset,
        .set_tensor = buffer_set,
        .get_tensor = buffer_get,
        .cpy_tensor = buffer_copy,
        .clear = buffer_clear,
    };
    CUdeviceptr address = 0;
    if (is_to_fail("buffer")) {
        return NULL;
    }
    set_device(type->device->context);
    fake_as_runtime(true);
    const CUresult result = cuMemAlloc_v2(&address, size > 0 ? size : 1);
    fake_as_runtime(false);
    if (result != CUDA_SUCCESS) {
        return NULL;
    }
    counted.buffers++;
    return ggml_backend_buffer_init(type, interface, (void *) (uintptr_t) address, size);
}

static size_t type_alignment(ggml_backend_buffer_type_t type) {
    (void) type;
    return ALIGNMENT;
}

//
// Instances
//

static const char * instance_name(ggml_backend_t backend) {
    return ((struct instance *) backend->context)->name;
}

// ggml-cuda destroys no cuBLAS handle while it captures (its ggml_cuda_lock); read: it captures.
static pthread_rwlock_t own_captures = PTHREAD_RWLOCK_INITIALIZER;

static void instance_free(ggml_backend_t backend) {
    struct instance * instance = backend->context;
    set_device(instance->device);
    sim_graphs_free(instance->graphs);
    pthread_rwlock_wrlock(&own_captures);
    CUDA(cuCtxSynchronize());  // as destroying a cuBLAS handle does
    pthread_rwlock_unlock(&own_captures);
    if (instance->copied != NULL) {
        CUDA(cuEventDestroy_v2(instance->copied));
    }
    CUDA(cuStreamDestroy_v2(instance->stream));
    CUDA(cuMemFree_v2((CUdeviceptr) (uintptr_t) instance->scratch.address));
    free(instance);
    free(backend);
    counted.instances--;
}

static bool is_on(const struct instance * instance, const struct ggml_tensor * tensor) {
    const struct ggml_backend_buffer * buffer =
        tensor->view_src != NULL ? tensor->view_src->buffer : tensor->buffer;
    if (buffer != NULL && buffer->buft == &instance->device->buffer_type) {
        return true;
    }
    sim_error("'%s' is not in the memory of %s", tensor->name, instance->name);
    return false;
}

static void instance_set(ggml_backend_t backend, struct ggml_tensor * tensor, const void * data,
                         size_t offset, size_t size) {
    struct instance * instance = backend->context;
    if (is_on(instance, tensor)) {
        CUDA(sim_launch_copy(instance->stream, SIM_TO_DEVICE, (char *) tensor->data + offset, data,
                             size));
        counted.copies++;
    }
}

static void instance_get(ggml_backend_t backend, const struct ggml_tensor * tensor, void * data,
                         size_t offset, size_t size) {
    struct instance * instance = backend->context;
    if (is_on(instance, tensor)) {
        CUDA(sim_launch_copy(instance->stream, SIM_TO_HOST, data,
                             (const char *) tensor->data + offset, size));
        counted.copies++;
    }
}

static bool instance_copy(ggml_backend_t from, ggml_backend_t to, const struct ggml_tensor * src,
                          struct ggml_tensor * dst) {
    if (from->iface.free != instance_free || to->iface.free != instance_free) {
        return false;
    }
    struct instance *a = from->context, *b = to->context;
    if (src->buffer == NULL || dst->buffer == NULL ||
        src->buffer->buft != &a->device->buffer_type ||
        dst->buffer->buft != &b->device->buffer_type) {
        return false;
    }
    CUDA(sim_launch_copy(a->stream, SIM_ON_DEVICE, dst->data, src->data, ggml_nbytes(dst)));
    counted.copies++;
    if (a != b) {
        if (a->copied == NULL) {
            set_device(a->device);
            CUDA(cuEventCreate(&a->copied, CU_EVENT_DISABLE_TIMING));
        }
        CUDA(cuEventRecord(a->copied, a->stream));
        CUDA(cuStreamWaitEvent(b->stream, a->copied, 0));
    }
    return true;
}

static void instance_synchronize(ggml_backend_t backend) {
    CUDA(cuStreamSynchronize(((struct instance *) backend->context)->stream));
    counted.synchronises++;
}

static void instance_record(ggml_backend_t backend, ggml_backend_event_t event) {
    CUDA(cuEventRecord(event->context, ((struct instance *) backend->context)->stream));
    counted.event_records++;
}

static void instance_wait(ggml_backend_t backend, ggml_backend_event_t event) {
    CUDA(cuStreamWaitEvent(((struct instance *) backend->context)->stream, event->context, 0));
    counted.event_waits++;
}

//
// Computing
//

static bool sources_are_on(const struct instance * instance, const struct ggml_tensor * node) {
    bool on = is_on(instance, node);
    for (int s = 0; on && s < GGML_MAX_SRC; s++) {
        on = node->src[s] == NULL || is_on(instance, node->src[s]);
    }
    return on;
}

static bool issue_node(struct instance * instance, const struct ggml_tensor * node) {
    if (sim_is_empty(node) || (node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) {
        return true;
    }
    if (!sources_are_on(instance, node) ||
        !CUDA(sim_launch_node(instance->stream, node, instance->scratch))) {
        return false;
    }
    counted.kernels++;
    return !is_op(node, sim.waiting_op) || CUDA(cuStreamSynchronize(instance->stream));
}

static bool issue_nodes(struct instance * instance, const struct ggml_cgraph * graph) {
    bool fine = true;
    for (int i = 0; fine && i < graph->n_nodes; i++) {
        fine = issue_node(instance, graph->nodes[i]);
    }
    return fine;
}

static bool launch_own(struct instance * instance, CUgraphExec exec) {
    counted.own_launches++;
    return CUDA(cuGraphLaunch(exec, instance->stream));
}

static bool capture_own(struct instance * instance, const struct ggml_cgraph * graph,
                        CUgraphExec * exec) {
    CUgraph captured = NULL;
    pthread_rwlock_rdlock(&own_captures);
    bool fine = CUDA(cuStreamBeginCapture_v2(instance->stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    if (fine) {
        counted.own_captures++;
        fine = issue_nodes(instance, graph);
        fine = CUDA(cuStreamEndCapture(instance->stream, &captured)) && fine;
    }
    pthread_rwlock_unlock(&own_captures);
    if (!fine) {
        return false;
    }
    if (*exec != NULL) {
        CUDA(cuGraphExecDestroy(*exec));
        *exec = NULL;
    }
    const bool made = CUDA(cuGraphInstantiateWithFlags(exec, captured, 0));
    CUDA(cuGraphDestroy(captured));
    return made && launch_own(instance, *exec);
}

static bool is_capturing(const struct instance * instance) {
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUDA(cuStreamIsCapturing(instance->stream, &status));
    return status != CU_STREAM_CAPTURE_STATUS_NONE;
}

static bool has_waiting_op(const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (is_op(graph->nodes[i], sim.waiting_op)) {
            return true;
        }
    }
    return false;
}

static enum ggml_status instance_compute(ggml_backend_t backend, struct ggml_cgraph * graph) {
    struct instance * instance = backend->context;
    CUgraphExec * exec = NULL;
    if (is_to_fail("compute")) {
        return GGML_STATUS_FAILED;
    }
    set_device(instance->device);
    counted.graphs++;
    const enum sim_way way =
        has_waiting_op(graph) ? SIM_ISSUE : sim_graphs_next(&instance->graphs, graph, &exec);
    counted.captures_inside += way != SIM_ISSUE && is_capturing(instance);
    const bool fine = way == SIM_ISSUE     ? issue_nodes(instance, graph)
                      : way == SIM_CAPTURE ? capture_own(instance, graph, exec)
                                           : launch_own(instance, *exec);
    return fine ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
}

//
// Devices
//

static const char * device_name(ggml_backend_dev_t device) {
    return ((struct device *) device->context)->name;
}

static const char * device_description(ggml_backend_dev_t device) {
    (void) device;
    return "a simulated GPU";
}

static void device_memory(ggml_backend_dev_t device, size_t * free_bytes, size_t * total) {
    set_device(device->context);
    CUDA(cuMemGetInfo_v2(free_bytes, total));
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t device) {
    (void) device;
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void device_props(ggml_backend_dev_t device, struct ggml_backend_dev_props * props) {
    memset(props, 0, sizeof *props);
    props->name = device_name(device);
    props->description = device_description(device);
    props->type = device_type(device);
    props->device_id = ((struct device *) device->context)->pci_id;
    device_memory(device, &props->memory_free, &props->memory_total);
    props->caps.async = true;
    props->caps.events = true;
}

static ggml_guid_t guid(void) {
    static ggml_guid id = {0x73, 0x69, 0x6d, 0x75, 0x6c, 0x61, 0x74, 0x65,
                           0x64, 0x20, 0x43, 0x55, 0x44, 0x41, 0x2e, 0x00};
    return &id;
}

static ggml_backend_t device_init(ggml_backend_dev_t dev, const char * params) {
    static const struct ggml_backend_i interface = {
        .get_name = instance_name,
        .free = instance_free,
        .set_tensor_async = instance_set,
        .get_tensor_async = instance_get,
        .cpy_tensor_async = instance_copy,
        .synchronize = instance_synchronize,
        .graph_compute = instance_compute,
        .event_record = instance_record,
        .event_wait = instance_wait,
    };
    (void) params;
    if (is_to_fail("init")) {
        return NULL;
    }
    struct instance * instance = calloc(1, sizeof *instance);
    ggml_backend_t backend = calloc(1, sizeof *backend);
    CUdeviceptr scratch = 0;
    instance->device = dev->context;
    memcpy(instance->name, instance->device->name, sizeof instance->name);
    set_device(instance->device);
    CUDA(cuStreamCreate(&instance->stream, CU_STREAM_NON_BLOCKING));
    CUDA(cuMemAlloc_v2(&scratch, SCRATCH_SIZE));
    instance->scratch = (struct sim_scratch) {(void *) (uintptr_t) scratch, SCRATCH_SIZE};
    *backend = (struct ggml_backend) {guid(), interface, dev, instance};
    counted.instances++;
    instances_made++;
    return backend;
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t device) {
    return &((struct device *) device->context)->buffer_type;
}

static bool device_supports_op(ggml_backend_dev_t device, const struct ggml_tensor * op) {
    (void) device;
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    return cpu != NULL && !is_op(op, sim.refused_op) && ggml_backend_dev_supports_op(cpu, op);
}

static bool device_supports_buft(ggml_backend_dev_t device, ggml_backend_buffer_type_t type) {
    return type == device_buffer_type(device);
}

static ggml_backend_event_t event_new(ggml_backend_dev_t device) {
    if (is_to_fail("event")) {
        return NULL;
    }
    CUevent event = NULL;
    set_device(device->context);
    if (!CUDA(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING))) {
        return NULL;
    }
    ggml_backend_event_t made = malloc(sizeof *made);
    *made = (struct ggml_backend_event) {device, event};
    counted.events++;
    return made;
}

static void event_free(ggml_backend_dev_t device, ggml_backend_event_t event) {
    (void) device;
    CUDA(cuEventDestroy_v2(event->context));
    free(event);
    counted.events--;
}

static void event_synchronize(ggml_backend_dev_t device, ggml_backend_event_t event) {
    (void) device;
    CUDA(cuEventSynchronize(event->context));
    counted.synchronises++;
}

//
// The registry
//

static const char * reg_name(ggml_backend_reg_t reg) {
    (void) reg;
    return "CUDA";
}

static size_t reg_device_count(ggml_backend_reg_t reg) {
    (void) reg;
    return FAKE_DEVICES;
}

static ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t index) {
    (void) reg;
    return &devices[index].base;
}

static struct ggml_backend_feature * features(ggml_backend_reg_t reg) {
    static struct ggml_backend_feature list[] = {{"USE_GRAPHS", "1"}, {NULL, NULL}};
    (void) reg;
    return list;
}

static void * reg_address(ggml_backend_reg_t reg, const char * name) {
    struct ggml_backend_feature * (*function)(ggml_backend_reg_t) = features;
    (void) reg;
    return strcmp(name, "ggml_backend_get_features") == 0 ? *(void **) (void *) &function : NULL;
}

static void open_device(struct device * device, int index, ggml_backend_reg_t reg) {
    static const char * const pci_ids[] = FAKE_PCI_IDS;
    static const struct ggml_backend_device_i interface = {
        .get_name = device_name,
        .get_description = device_description,
        .get_memory = device_memory,
        .get_type = device_type,
        .get_props = device_props,
        .init_backend = device_init,
        .get_buffer_type = device_buffer_type,
        .supports_op = device_supports_op,
        .supports_buft = device_supports_buft,
        .event_new = event_new,
        .event_free = event_free,
        .event_synchronize = event_synchronize,
    };
    static const struct ggml_backend_buffer_type_i type_interface = {
        .get_name = type_name,
        .alloc_buffer = type_alloc,
        .get_alignment = type_alignment,
        .get_alloc_size = type_alloc_size,
    };
    device->index = index;
    device->pci_id = pci_ids[index];
    snprintf(device->name, sizeof device->name, "CUDA%d", index);
    device->base = (struct ggml_backend_device) {interface, reg, device};
    device->buffer_type = (struct ggml_backend_buffer_type) {type_interface, &device->base, NULL};
    CUDA(cuDevicePrimaryCtxRetain(&device->context, index));
}

static ggml_backend_reg_t registry(void) {
    static struct ggml_backend_reg reg = {
        .api_version = GGML_BACKEND_API_VERSION,
        .iface = {reg_name, reg_device_count, reg_device, reg_address},
    };
    static bool opened;
    pthread_mutex_lock(&mutex);
    const bool first = !opened;
    opened = true;
    pthread_mutex_unlock(&mutex);
    if (first) {
        CUDA(cuInit(0));
        for (int i = 0; i < FAKE_DEVICES; i++) {
            open_device(&devices[i], i, &reg);
        }
    }
    return &reg;
}

GGML_BACKEND_DL_IMPL(registry)

//
// For tests
//

void sim_get_counters(struct sim_counters * counters) {
    *counters = (struct sim_counters) {
#define COUNTER(name) .name = counted.name
        COUNTER(instances), COUNTER(events),        COUNTER(buffers),      COUNTER(graphs),
        COUNTER(kernels),   COUNTER(event_records), COUNTER(event_waits),  COUNTER(synchronises),
        COUNTER(copies),    COUNTER(own_captures),  COUNTER(own_launches), COUNTER(captures_inside),
#undef COUNTER
    };
}

uint64_t sim_instances_made(void) {
    return instances_made;
}

uint64_t sim_races(void) {
    return fake_races();
}

const char * sim_first_race(void) {
    return fake_first_race();
}

uint64_t sim_errors(void) {
    pthread_mutex_lock(&mutex);
    const uint64_t n = sim.n_errors;
    pthread_mutex_unlock(&mutex);
    return n + fake_errors();
}

const char * sim_first_error(void) {
    return sim.first_error[0] != '\0' ? sim.first_error : fake_first_error();
}

void sim_reset(void) {
    fake_reset();
    pthread_mutex_lock(&mutex);
    memset(&sim, 0, sizeof sim);
    pthread_mutex_unlock(&mutex);
    atomic_ullong * const counters[] = {
        &counted.graphs,       &counted.kernels,      &counted.event_records,
        &counted.event_waits,  &counted.synchronises, &counted.copies,
        &counted.own_captures, &counted.own_launches, &counted.captures_inside,
    };
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
        atomic_store(counters[i], 0);
    }
}

void sim_seed(uint64_t seed) {
    fake_seed(seed);
}
