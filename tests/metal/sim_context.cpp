// Stands in for ggml-metal-context.m, and for the encoder of ggml-metal-device.m: cuts a graph into
// command buffers as that does, lets ggml-metal encode them, and queues what was encoded.

#include "ggml-metal-context.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml-metal-common.h"
#include "ggml-metal-fusion.h"
#include "ggml-metal-ops.h"
#include "sim_commands.h"
#include "sim_device.h"

//
// The encoder
//

// Where in the graph it is; ggml-metal encodes on several threads, this on one.
static struct {
    int n_barriers;                   // of this graph, so far
    std::vector<int> groups;          // in which the kernel that is being encoded has dispatches
    std::vector<const char *> given;  // memory that it is given
} encoding;

struct ggml_metal_encoder {
    CommandBuffer * commands;
    bool concurrent;
};

extern "C" {

ggml_metal_encoder_t ggml_metal_encoder_init(ggml_metal_cmd_buf_t commands, bool concurrent) {
    return new ggml_metal_encoder {(CommandBuffer *) commands, concurrent};
}

void ggml_metal_encoder_free(ggml_metal_encoder_t encoder) {
    delete encoder;
}

void ggml_metal_encoder_end_encoding(ggml_metal_encoder_t) {}
void ggml_metal_encoder_debug_group_push(ggml_metal_encoder_t, const char *) {}
void ggml_metal_encoder_debug_group_pop(ggml_metal_encoder_t) {}
void ggml_metal_encoder_set_pipeline(ggml_metal_encoder_t, ggml_metal_pipeline_with_params) {}
void ggml_metal_encoder_set_bytes(ggml_metal_encoder_t, void *, size_t, int) {}
void ggml_metal_encoder_set_threadgroup_memory_size(ggml_metal_encoder_t, size_t, int) {}

void ggml_metal_encoder_set_buffer(ggml_metal_encoder_t, ggml_metal_buffer_id buffer, int) {
    if (buffer.metal) {
        encoding.given.push_back((const char *) buffer.metal + buffer.offs);
    }
}

void ggml_metal_encoder_dispatch_threadgroups(ggml_metal_encoder_t encoder, int, int, int, int, int,
                                              int) {
    CommandBuffer & commands = *encoder->commands;
    if (!encoder->concurrent && commands.n_dispatches > 0) {
        commands.groups.emplace_back();
    }
    const int group = (int) commands.groups.size() - 1;
    if (encoding.groups.empty() || encoding.groups.back() != group) {
        encoding.groups.push_back(group);
    }
    commands.n_dispatches++;
    sim().report.dispatches++;
}

void ggml_metal_encoder_memory_barrier(ggml_metal_encoder_t encoder) {
    sim().report.barriers++;
    sim().report.inner_barriers += !encoding.groups.empty();
    if (encoding.n_barriers++ != sim().leave_out) {
        encoder->commands->groups.emplace_back();
    }
}

}  // extern "C"

//
// One command buffer
//

// What is given to a dispatch is a tensor of the kernel's or scratch behind its result; additions
// that are fused get the whole buffer of their second source, and offsets.
static bool is_given(const char * address, const std::vector<const ggml_tensor *> & nodes) {
    const auto holds = [&](const ggml_tensor * tensor) {
        const ggml_tensor * root = tensor->view_src ? tensor->view_src : tensor;
        const char * data = (const char *) root->data;
        const size_t size = ggml_backend_buft_get_alloc_size(root->buffer->buft, root);
        return address == ggml_backend_buffer_get_base(root->buffer) ||
               (address >= data && address < data + size) || address == tensor->data;
    };
    return std::any_of(nodes.begin(), nodes.end(), [&](const ggml_tensor * node) {
        return holds(node) || std::any_of(node->src, node->src + GGML_MAX_SRC,
                                          [&](auto * source) { return source && holds(source); });
    });
}

static void add_kernel(CommandBuffer & commands, const std::vector<const ggml_tensor *> & nodes,
                       ggml_metal_fusion_id fusion) {
    commands.kernels.push_back(std::make_unique<Kernel>(nodes, fusion));
    const Kernel * kernel = commands.kernels.back().get();
    for (const int group : encoding.groups) {
        commands.groups[group].touching.push_back(kernel);
    }
    commands.groups[encoding.groups.back()].running.push_back(kernel);
    for (const char * address : encoding.given) {
        if (!is_given(address, nodes)) {
            sim().tell(sim().report.strays,
                       kernel->name + " is given memory of none of its tensors");
        }
    }
    sim().report.kernels++;
}

struct ggml_metal {
    ggml_metal_device_t device;
    ggml_metal_event_t ev_cpy;
    bool concurrent, optimize;
    int n_cb;
};

// The graph's nodes that ggml-metal looks at, of begin .. end-1.
static std::vector<int> nodes_to_encode(const ggml_cgraph * graph, int begin, int end) {
    std::vector<int> indices;
    for (int i = begin; i < end; i++) {
        if (!ggml_op_is_empty(graph->nodes[i]->op) && !ggml_is_empty(graph->nodes[i])) {
            indices.push_back(i);
        }
    }
    return indices;
}

static ggml_metal_fusion_id fusion_at(ggml_metal_t ctx, const ggml_cgraph * graph,
                                      const std::vector<int> & indices, int at) {
    int n = 1;
    const ggml_metal_fusion * fusion =
        ggml_metal_fusion_info_enabled(ctx->device->finfo)
            ? ggml_metal_fusion_next(graph, indices.data(), (int) indices.size(), at,
                                     GGML_METAL_FUSION_FULL, &n)
            : nullptr;
    return fusion ? ggml_metal_fusion_get_id(fusion) : GGML_METAL_FUSION_NONE;
}

static void encode(ggml_metal_t ctx, ggml_cgraph * graph, int begin, int end,
                   CommandBuffer & commands) {
    const std::vector<int> indices = nodes_to_encode(graph, begin, end);
    ggml_metal_op_t op = ggml_metal_op_init(ctx->device, &commands, graph, ctx->device->finfo,
                                            begin, end, ctx->concurrent, false, 0);
    GGML_ASSERT(ggml_metal_op_n_nodes(op) == (int) indices.size());
    for (int at = 0, n; at < (int) indices.size(); at += n) {
        encoding.groups.clear();
        encoding.given.clear();
        n = ggml_metal_op_encode(op, at);
        GGML_ASSERT(n > 0);
        if (!encoding.groups.empty()) {
            std::vector<const ggml_tensor *> nodes;
            for (int i = at; i < at + n; i++) {
                nodes.push_back(graph->nodes[indices[i]]);
            }
            add_kernel(commands, nodes,
                       n > 1 ? fusion_at(ctx, graph, indices, at) : GGML_METAL_FUSION_NONE);
        }
    }
    encoding.groups.clear();
    ggml_metal_op_free(op);
}

//
// Graphs
//

static void run_commands(const CommandBuffer & commands, uint64_t seed) {
    for (const Group & group : commands.groups) {
        run_group(group, seed);
        seed = seed ? seed * 6364136223846793005u + 1442695040888963407u : 0;
    }
}

static void commit(ggml_metal_t ctx, ggml_cgraph * graph, int begin, int end) {
    auto commands = std::make_shared<CommandBuffer>();
    encode(ctx, graph, begin, end, *commands);
    sim().report.command_buffers += commands->n_dispatches > 0;
    for (const Group & group : commands->groups) {
        check_group(group);
    }
    if (sim().dry) {
        return;
    }
    const uint64_t seed = sim().seed ? sim().seed + (uint64_t) begin : 0;
    ctx->device->queue->pending.push_back([commands, seed] { run_commands(*commands, seed); });
}

extern "C" {

// The cut is that of ggml-metal-context.m, of the same name there.
ggml_status ggml_metal_graph_compute(ggml_metal_t ctx, ggml_cgraph * graph) {
    const int n = graph->n_nodes;
    const int n_main = std::max(64, (int) (0.1 * n));
    const int n_nodes_0 = ctx->n_cb == 0 ? n : std::min(n_main, n);
    const int n_nodes_1 = n - n_nodes_0;
    const int n_nodes_per_cb = ctx->n_cb > 0 ? (n_nodes_1 + ctx->n_cb - 1) / ctx->n_cb : 0;
    if (n == 0) {
        return GGML_STATUS_SUCCESS;
    }
    sim().report.graphs++;
    encoding.n_barriers = 0;
    commit(ctx, graph, 0, n_nodes_0);
    for (int i = 0; i < ctx->n_cb; i++) {
        const int end = i == ctx->n_cb - 1 ? n_nodes_1 : (i + 1) * n_nodes_per_cb;
        commit(ctx, graph, n_nodes_0 + i * n_nodes_per_cb, n_nodes_0 + std::min(end, n_nodes_1));
    }
    return GGML_STATUS_SUCCESS;
}

void ggml_metal_graph_optimize(ggml_metal_t ctx, ggml_cgraph * graph) {
    if (ctx->optimize) {
        ggml_graph_optimize(graph);
    }
}

//
// The context, and what else can be queued
//

ggml_metal_t ggml_metal_init(ggml_metal_device_t device) {
    return new ggml_metal {device, ggml_metal_device_event_init(device),
                           getenv("GGML_METAL_CONCURRENCY_DISABLE") == nullptr,
                           getenv("GGML_METAL_GRAPH_OPTIMIZE_DISABLE") == nullptr, 1};
}

void ggml_metal_free(ggml_metal_t ctx) {
    ggml_metal_device_event_free(ctx->device, ctx->ev_cpy);
    delete ctx;
}

const char * ggml_metal_get_name(ggml_metal_t ctx) {
    return ctx->device->props.name;
}

void ggml_metal_synchronize(ggml_metal_t ctx) {
    ctx->device->queue->finish();
}

void ggml_metal_set_tensor_async(ggml_metal_t ctx, ggml_tensor * tensor, const void * data,
                                 size_t offset, size_t size) {
    char * to = (char *) tensor->data + offset;
    const std::vector<char> bytes((const char *) data, (const char *) data + size);
    ctx->device->queue->pending.push_back([to, bytes] { memcpy(to, bytes.data(), bytes.size()); });
}

void ggml_metal_get_tensor_async(ggml_metal_t ctx, const ggml_tensor * tensor, void * data,
                                 size_t offset, size_t size) {
    const char * from = (const char *) tensor->data + offset;
    ctx->device->queue->pending.push_back([from, data, size] { memcpy(data, from, size); });
}

bool ggml_metal_cpy_tensor_async(ggml_metal_t ctx_src, ggml_metal_t ctx_dst,
                                 const ggml_tensor * src, ggml_tensor * dst) {
    if (ctx_src->device != ctx_dst->device) {
        return false;
    }
    void * to = dst->data;
    const void * from = src->data;
    const size_t size = ggml_nbytes(src);
    ctx_src->device->queue->pending.push_back([to, from, size] { memcpy(to, from, size); });
    return true;
}

void ggml_metal_event_record(ggml_metal_t, ggml_metal_event_t) {}
void ggml_metal_event_wait(ggml_metal_t, ggml_metal_event_t) {}

ggml_metal_event_t ggml_metal_get_ev_cpy(ggml_metal_t ctx) {
    return ctx->ev_cpy;
}

void ggml_metal_set_n_cb(ggml_metal_t ctx, int n_cb) {
    ctx->n_cb = std::min(n_cb, 8);
}

void ggml_metal_set_abort_callback(ggml_metal_t, ggml_abort_callback, void *) {}

bool ggml_metal_supports_family(ggml_metal_t ctx, int family) {
    return family <= ctx->device->props.gpu_family;
}

void ggml_metal_capture_next_compute(ggml_metal_t) {}

}  // extern "C"
