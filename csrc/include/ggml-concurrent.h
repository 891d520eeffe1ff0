// ggml-concurrent: runs the independent operations of a ggml graph at the same time.
//
//     graph  ->  accesses  ->  dependences  ->  plan  ->  dispatch
//     (ggml)     (adapter)     (core: ggc-core.h)         (serial, CPU streams, ...)
//
// Read ggc-core.h first: terms, statuses and ownership rules are told there and hold here.
// A graph given to us must stay alive, and its nodes array and tensors unchanged, as long as any
// object made from it lives, unless said otherwise.
#pragma once

#include "ggc-core.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_backend;
struct ggml_backend_device;
struct ggml_backend_buffer_type;
struct ggml_cgraph;
struct ggml_context;
struct ggml_tensor;

//
// The seed's function, in both forms
//

// Sorts the nodes of `graph` so that independent ones stand together, and puts a barrier node
// (GGML_OP_NONE, no data, named "barrier": every backend skips it) between two groups. Nodes of one
// group may be computed in any order or at once; a backend that ignores the barriers and computes
// the nodes one after another gets the same result. Barrier nodes are made in `ctx`.
// GGC_E_CAPACITY: graph->size or the free memory of ctx is too small for n_nodes + groups - 1
// nodes. The graph is changed only on success. Use before allocation, or on a graph each of whose
// tensors has its final address; never between the two.
GGC_API enum ggc_status ggml_graph_find_concurrency(struct ggml_context * ctx,
                                                    struct ggml_cgraph * graph);

// The same as integers, the graph unchanged: node indices in the new order, GGC_BARRIER (-1)
// between two groups. *n is the number of entries, always less than 2 * n_nodes; GGC_E_CAPACITY
// (and *n set) when `capacity` is smaller. Nodes without work (views and the like) stand in the
// group of what they view and never cost a group.
GGC_API enum ggc_status ggml_graph_find_concurrency_list(const struct ggml_cgraph * graph,
                                                         int32_t * list, int32_t capacity,
                                                         int32_t * n);

// Whether `graph` can be read as a ggml_cgraph of the layout that we were built with: memory that
// can be read, counts in range, every node a tensor with a known operation and type. For graphs
// that come from elsewhere. GGC_E_INVALID with a reason in `message` (may be NULL).
GGC_API enum ggc_status ggc_graph_check(const struct ggml_cgraph * graph, char * message,
                                        size_t message_size);

//
// Plans of graphs
//

// Which nodes a backend computes in one kernel, and which therefore stay together as one unit.
// A unit is a superset: the run of adjacent nodes that the backend *may* fuse.
enum ggc_fuse {
    GGC_FUSE_NONE = 0,  // every node its own unit
    GGC_FUSE_CPU = 1,
    GGC_FUSE_CUDA = 2,
    GGC_FUSE_METAL = 3,
};

struct ggc_graph_params {
    struct ggc_plan_params plan;
    enum ggc_fuse fuse;
    const double * cost;  // n_nodes, microseconds per node; or NULL: estimated from bytes moved
    bool watch;           // keep what ggc_graph_plan_update compares graphs without a uid with
    // Plan as ggml-metal's encoder goes about it, for device METAL: units of exactly the nodes that
    // it fuses (with fuse METAL), and conflicts between whole tensors, since its range tracker
    // knows no parts. Orders more than there is need to, and nothing that the encoder would not
    // order.
    bool tracked;
};
GGC_API void ggc_graph_params_init(struct ggc_graph_params * params);

// A plan of a graph: the core's plan of its units, and which nodes they are. Holds no pointer into
// the graph, except for the calls that take it again.
struct ggc_graph_plan;

// Plans `graph`. Tensors with data are told apart by address, those without by identity, so a plan
// found before allocation is right only for memory laid out for it (ggc_graph_alloc) or without
// reuse; after allocation, plan again: that costs little. Nodes without GGML_TENSOR_FLAG_COMPUTE
// and operations that compute nothing belong to no unit.
GGC_API enum ggc_status ggc_graph_plan_new(const struct ggml_cgraph * graph,
                                           const struct ggc_graph_params * params,
                                           struct ggc_graph_plan ** plan);
GGC_API void ggc_graph_plan_free(struct ggc_graph_plan * plan);

enum ggc_change {
    GGC_UNCHANGED = 0,  // the graph that the plan was made from
    GGC_MOVED = 1,      // other addresses, sizes or parameters, but the same dependences
    GGC_CHANGED = 2,    // a new plan is due
};

// Compares `graph` with the one that the plan was made from (or was last found right for): by
// ggml's graph uid where both have one, else field by field, never by pointers alone. UNCHANGED and
// MOVED: the plan is right for the graph; after MOVED its units have the new accesses. CHANGED: the
// plan is as it was. `params` as the plan was made with. GGC_E_INVALID, GGC_E_NOMEM.
GGC_API enum ggc_status ggc_graph_plan_update(struct ggc_graph_plan * plan,
                                              const struct ggml_cgraph * graph,
                                              const struct ggc_graph_params * params,
                                              enum ggc_change * change);

GGC_API const struct ggc_plan * ggc_graph_plan_core(const struct ggc_graph_plan * plan);
GGC_API struct ggc_units ggc_graph_plan_units(const struct ggc_graph_plan * plan);
GGC_API uint32_t ggc_graph_plan_n_nodes(const struct ggc_graph_plan * plan);
// unit of each node, GGC_NONE for a node that computes nothing and stands inside of no unit
GGC_API const uint32_t * ggc_graph_plan_unit_of_node(const struct ggc_graph_plan * plan);
// nodes of a unit: adjacent ones; views that stand inside of what may be fused are among them
GGC_API const uint32_t * ggc_graph_plan_nodes(const struct ggc_graph_plan * plan, uint32_t unit,
                                              uint32_t * n);
// phase of each node, those that compute nothing included (they take part in no barrier)
GGC_API const uint32_t * ggc_graph_plan_node_phases(const struct ggc_graph_plan * plan);
// seconds that making this plan took: accesses and units; dependences, phases and streams
GGC_API void ggc_graph_plan_times(const struct ggc_graph_plan * plan, double * adapter,
                                  double * core);

//
// Running
//

enum ggc_device_kind {
    GGC_DEVICE_CPU = 0,
    // A device of ggml's CUDA backend: streams are instances of it, and the whole plan is captured
    // into one CUDA graph, which is then replayed. n_threads counts for nothing, fuse is CUDA.
    // Where the driver refuses a capture the streams are used without, and where there are no
    // further streams, serial: with a warning. Not run on a GPU yet, on a simulated one only.
    GGC_DEVICE_CUDA = 1,
    // The first device of ggml's Metal backend, in barrier form: one instance of it computes the
    // nodes by phase, and sets barriers by itself. n_streams 1: in the order of the graph;
    // strategy, n_threads, wait_cost and fuse count for nothing. Not on Apple silicon its encoder
    // must not be concurrent (llama.cpp#19567, #25866): then serial, with a warning.
    GGC_DEVICE_METAL = 2,
};

// How a runner chooses between streams and computing serially.
enum ggc_tune {
    GGC_TUNE_OFF = 0,    // by a rough estimate
    GGC_TUNE_QUICK = 1,  // by timing a few ways, serial ones among them, on the first computations
};

struct ggc_runner_params {
    enum ggc_device_kind device;
    uint32_t device_index;  // of several of the kind: CUDA
    uint32_t n_streams;     // 1: serial
    uint32_t n_threads;     // in all, shared out among the streams; at least 1
    enum ggc_strategy strategy;
    double wait_cost;  // microseconds that a wait for another stream costs, hand-over included
    enum ggc_fuse fuse;
    enum ggc_tune tune;
    const char * tuning_dir;  // what tuning found is kept in files there; NULL: not kept. Copied.
    bool always;              // use the streams whether they pay or not
    bool verify;              // refuse to run a plan that ggc_verify_schedule does not accept
    size_t budget;            // bytes of compute tensors up to which none share memory
    uint32_t stress_seed;     // nonzero: random delays between units (METAL: units of a phase in
                              // random order), for tests
    bool trace;               // note when each unit starts and ends; each is then issued by itself
};
// CPU, 2 streams, 2 threads, LIST, 5 microseconds, fused as the CPU does, tuned and not kept,
// verified, 32 MiB, not traced.
GGC_API void ggc_runner_params_init(struct ggc_runner_params * params);

struct ggc_runner;

// Lays out the unallocated tensors of `graph` on the device, plans it on the addresses, and makes
// ready to compute it. Weights, caches and whatever else has memory already keep it. Where tensors
// share memory (params->budget), the nodes of the graph stand sorted by phase until the runner is
// freed: that is the order in which the memory may be used. (METAL sorts a copy: the graph's own
// nodes then stand in an order in which nobody else may compute them.)
// On failure *runner is NULL and `message` (may be NULL) says why.
GGC_API enum ggc_status ggc_runner_new(struct ggml_cgraph * graph,
                                       const struct ggc_runner_params * params,
                                       struct ggc_runner ** runner, char * message,
                                       size_t message_size);
// Computes the graph once. Blocks until done. After a failure the runner may be used again.
// While a runner is tuned, its computations take different ways to the same result: some tens of
// them, until the fastest is known.
GGC_API enum ggc_status ggc_runner_compute(struct ggc_runner * runner);
// What the last failed call met; "" if none. Valid until the next call.
GGC_API const char * ggc_runner_message(const struct ggc_runner * runner);
// Of the next computation.
GGC_API const struct ggc_graph_plan * ggc_runner_plan(const struct ggc_runner * runner);

// A way of computing the graph that the runner has considered.
struct ggc_way {
    enum ggc_strategy strategy;
    uint32_t n_streams, n_threads;
    double microseconds;  // median; 0: not timed
    bool in_use;          // the next computation's; once the runner has settled, the fastest
};
// Writes the first `capacity` ways and returns how many there are.
GGC_API uint32_t ggc_runner_ways(const struct ggc_runner * runner, struct ggc_way * ways,
                                 uint32_t capacity);
// Whether the way of computing is found and will not change any more.
GGC_API bool ggc_runner_settled(const struct ggc_runner * runner);
// What went wrong and did no harm: results of tuning that could not be read or kept. "" if nothing.
GGC_API const char * ggc_runner_warning(const struct ggc_runner * runner);

// What ggml-metal makes of a graph, predicted (ggml 0.25.3 on an Apple GPU of 2020 or later).
struct ggc_metal_figures {
    uint32_t n_kernels;          // nodes, those that it fuses counted once
    uint32_t n_barriers;         // between them, by its range tracker
    uint32_t n_inner_barriers;   // inside of operations that are several kernels
    uint32_t n_command_buffers;  // that have work
    // what all this costs beside the work of the kernels: 2.05 for a kernel that waits, 4 % of that
    // for one that does not, 40 for a switch of command buffers
    double microseconds;
};
// Of an allocated graph, computed in the order of its nodes by ggml_backend_graph_compute.
// GGC_E_INVALID (NULL), GGC_E_NOMEM.
GGC_API enum ggc_status ggc_metal_predict(const struct ggml_cgraph * graph,
                                          struct ggc_metal_figures * figures);
// Of the way of a METAL runner that computes next. GGC_E_INVALID: no such runner, or NULL.
GGC_API enum ggc_status ggc_runner_metal_figures(const struct ggc_runner * runner,
                                                 struct ggc_metal_figures * figures);

// Bytes of the compute buffer that the runner allocated.
GGC_API size_t ggc_runner_buffer_size(const struct ggc_runner * runner);
// Threads with which the unit is computed.
GGC_API uint32_t ggc_runner_unit_threads(const struct ggc_runner * runner, uint32_t unit);
// When each unit of the plan started and ended in the last computation: microseconds from its
// beginning, 2 * n_units numbers, start and end in turns. NULL unless params->trace was set.
GGC_API const double * ggc_runner_unit_times(const struct ggc_runner * runner);
GGC_API void ggc_runner_free(struct ggc_runner * runner);

// Computes `graph` (allocated) with plain ggml_backend_graph_compute on a fresh CPU backend with
// n_threads threads: what a runner's result is compared with.
GGC_API enum ggc_status ggc_compute_serial(struct ggml_cgraph * graph, uint32_t n_threads,
                                           char * message, size_t message_size);

//
// ggml's backends and its assertions
//

// Loads the ggml CPU backend module that suits this machine best from `directory` (NULL: that of
// this library), once per process; later calls return GGC_OK at once.
GGC_API enum ggc_status ggc_load_backends(const char * directory, char * message,
                                          size_t message_size);

// The device that runners of this kind compute on, for those who make tensors for it: ggml's, not
// to be freed. CUDA and METAL load ggml's backend, if none is loaded and it lies beside this
// library. GGC_E_INVALID, GGC_E_DEVICE (there is none).
GGC_API enum ggc_status ggc_find_device(enum ggc_device_kind kind, uint32_t index,
                                        struct ggml_backend_device ** device, char * message,
                                        size_t message_size);

// ggml aborts the process where an assertion of its fails. Between ggc_guard_push and
// ggc_guard_pop on the same thread it jumps instead: see guard.h, for the generated wrappers.
// Text of the assertion that the last guarded call of this thread met, "" if it met none.
GGC_API const char * ggc_guard_message(void);

#ifdef __cplusplus
}
#endif
