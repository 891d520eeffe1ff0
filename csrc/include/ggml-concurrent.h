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
    // n_nodes, true for nodes that are not fused with what stands before them, though the backend
    // may be able to: it is not given the chance. Or NULL: for none that is known.
    const bool * apart;
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

// Promises that `graph` stays as it is, but for contents, until this is called again: it gets a
// ggml uid that no other graph of the process has, by which runners, plans and ggml's backends know
// it again without comparing. NULL is fine.
GGC_API void ggc_graph_promise(struct ggml_cgraph * graph);

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
    // further streams, serial: with a warning. What was measured: docs/cuda.md.
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
    GGC_TUNE_FULL = 2,   // the same with more ways, where a device has them: CUDA
};

// What ggml's allocator would take, and 2 % of the bytes of the weights that the graph reads, at
// least 32 MiB.
#define GGC_BUDGET_DEFAULT SIZE_MAX

// Keeps the memory of runners that were freed for those that come after them: of a graph that is
// built anew with other shapes, for example. Several threads may use one.
struct ggc_pool;
// *pool is the caller's. GGC_E_NOMEM.
GGC_API enum ggc_status ggc_pool_new(struct ggc_pool ** pool);
// Once all runners that use it are freed. NULL is fine.
GGC_API void ggc_pool_free(struct ggc_pool * pool);

struct ggc_runner_params {
    enum ggc_device_kind device;
    uint32_t device_index;  // of several of the kind: CUDA
    uint32_t n_streams;     // 1: serial
    uint32_t n_threads;     // in all, shared out among the streams; at least 1
    enum ggc_strategy strategy;
    double wait_cost;      // microseconds that a wait for another stream costs, hand-over included;
                           // less than 0: what is usual on the device
    const double * costs;  // microseconds of each node of the graph, borrowed until ggc_runner_new
                           // returns; NULL: guessed, or measured where tuning does that
    enum ggc_fuse fuse;
    enum ggc_tune tune;
    const char * tuning_dir;  // what tuning found is kept in files there; NULL: not kept. Copied.
    bool urgency;             // CUDA: kernels on which the end waits get a higher priority; where
                              // ways are timed, both are
    bool always;              // use the streams whether they pay or not
    bool verify;              // refuse to run a plan that ggc_verify_schedule does not accept
    // bytes that compute tensors may take, or GGC_BUDGET_DEFAULT; 0: as few as possible. Where they
    // do not fit without sharing memory, they share what costs the least time: see struct
    // ggc_memory
    size_t budget;
    struct ggc_pool *
        pool;  // where their memory comes from and goes to, or NULL. Outlives the runner.
    uint32_t stress_seed;  // nonzero: random delays between units (METAL: units of a phase in
                           // random order), for tests
    bool trace;            // note when each unit starts and ends; each is then issued by itself
    // Plain ggml through its own scheduler (ggml_backend_sched), as llama.cpp computes: to compare
    // with. It lays out the tensors without memory, on the device; the graph's nodes stand as they
    // do. CPU and CUDA, with n_streams 1 and without trace.
    bool scheduled;
};
// CPU, 2 streams, 2 threads, LIST, usual and guessed costs, fused as the CPU does, tuned and not
// kept, verified, 32 MiB, not traced.
GGC_API void ggc_runner_params_init(struct ggc_runner_params * params);

struct ggc_runner;

// Lays out the unallocated tensors of `graph` on the device, plans it on the addresses, and makes
// ready to compute it. Weights, caches and whatever else has memory already keep it. The order of
// the graph's nodes stays as it is, and right. (METAL: where tensors share memory that is for the
// order by phase alone; the graph's own nodes then stand in an order in which nobody else may
// compute them.)
// On failure *runner is NULL and `message` (may be NULL) says why.
GGC_API enum ggc_status ggc_runner_new(struct ggml_cgraph * graph,
                                       const struct ggc_runner_params * params,
                                       struct ggc_runner ** runner, char * message,
                                       size_t message_size);
// Computes the graph once. Blocks until done. After a failure the runner may be used again.
//
// A CUDA runner (but with `scheduled` or `trace`) lets the graph change between computations:
// contents, which cost nothing; operation parameters and addresses, for which the CUDA graph is
// captured again and updated in place where its shape allows; types, sizes and strides, for which
// everything is issued once and then captured; and where dependences are no longer what they were,
// another plan is made. What memory the runner gave to a tensor stays as large as it was. Other
// sources (`src`) of a node are allowed where no tensors share memory; other nodes never. What is
// not allowed gives GGC_E_INVALID with a message, and computes nothing. A graph that has a uid and
// keeps it is taken to be unchanged (ggc_graph_promise, and ggml_backend_sched, give one); others
// are compared before each computation, 10 ns a node. A runner that computes serially does not
// look: it is ggml that does. Graphs of other runners must not change, but for contents.
//
// While a runner is tuned, its computations take different ways to the same result: some tens of
// them, until the fastest is known.
GGC_API enum ggc_status ggc_runner_compute(struct ggc_runner * runner);
// What the last failed call met; "" if none. Valid until the next call.
GGC_API const char * ggc_runner_message(const struct ggc_runner * runner);

// The same without blocking, on devices that work by themselves: copies between the host and a
// tensor in a buffer of the runner's device, and computations, happen in the order in which they
// are asked for. Elsewhere, and while a runner is tuned, they happen at once, with the same
// results. `data` is the caller's, and must neither change (set) nor be read or freed (get) before
// ggc_runner_synchronize returns. Bytes [offset, offset + size) of the tensor. GGC_E_INVALID with a
// message: NULL, a tensor in no buffer, bytes that it does not have; nothing is copied then.
//
// A computation that fails is told by ggc_runner_synchronize, the first one if several do; what is
// known at once is returned, too. What else uses the tensors (ggml_backend_tensor_set, another
// runner) comes after ggc_runner_synchronize; ggc_runner_compute and ggc_runner_free fit in
// anywhere.
GGC_API enum ggc_status ggc_runner_set_async(struct ggc_runner * runner,
                                             struct ggml_tensor * tensor, const void * data,
                                             size_t offset, size_t size);
GGC_API enum ggc_status ggc_runner_get_async(struct ggc_runner * runner,
                                             const struct ggml_tensor * tensor, void * data,
                                             size_t offset, size_t size);
GGC_API enum ggc_status ggc_runner_compute_async(struct ggc_runner * runner);
// Blocks until all of that is done; then failures are forgotten.
GGC_API enum ggc_status ggc_runner_synchronize(struct ggc_runner * runner);

// Of the next computation; it belongs to the runner, and what it holds may change with the graph.
GGC_API const struct ggc_graph_plan * ggc_runner_plan(const struct ggc_runner * runner);

// A way of computing the graph that the runner has considered.
struct ggc_way {
    enum ggc_strategy strategy;
    uint32_t n_streams, n_threads;
    bool urgency;
    double microseconds;  // median; 0: not timed
    bool dropped;         // clearly slower after a round of trials, and not timed again
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

// What became of the plan of a CUDA runner that uses streams, so far. Microseconds are of the host,
// of the last time; 0: never.
struct ggc_cuda_figures {
    bool captured;              // the next computation is a launch of the captured graph
    uint32_t n_nodes, n_edges;  // of that graph; edges: 0 before CUDA 12.3
    uint32_t n_captures;
    uint32_t n_updates, n_instantiations;  // in place, anew
    double capture, update, instantiate;
};
// Of the way that computes next. GGC_E_INVALID: it uses no streams of a CUDA device, or NULL.
GGC_API enum ggc_status ggc_runner_cuda_figures(const struct ggc_runner * runner,
                                                struct ggc_cuda_figures * figures);
// Bytes that the streams of a CUDA runner took of the device beside the tensors, for memory pools
// and cuBLAS: by how much less was free after the first computation than before there were streams,
// whoever took it. 0 before that, and for other ways of computing.
GGC_API size_t ggc_runner_stream_bytes(const struct ggc_runner * runner);

// Bytes of the compute buffer that the runner allocated.
GGC_API size_t ggc_runner_buffer_size(const struct ggc_runner * runner);

// Which tensors share memory: those of which all accesses to the one come before all accesses to
// the other. The kinds of order, from the one that costs no concurrency to the one that costs most:
enum ggc_sharing {
    GGC_SHARING_NONE = 0,
    GGC_SHARING_BY_PLAN = 1,   // the graph's and the plan's, found before memory was laid out
    GGC_SHARING_BY_TIME = 2,   // the graph's; and the one is expected to be over in time, in a plan
                               // that is made for the budget
    GGC_SHARING_SERIAL = 3,    // the graph's
    GGC_SHARING_BY_PHASE = 4,  // METAL: that of the plan's phases
};
// How the tensors of a graph that had no memory were laid out. Sizes are bytes.
struct ggc_memory {
    enum ggc_sharing sharing;
    uint32_t n_tensors, n_buffers;  // views not counted
    size_t budget;                  // that held, GGC_BUDGET_DEFAULT resolved
    size_t serial;                  // what ggml's allocator would take for the graph as it stands
    size_t apart;                   // without sharing
    size_t bound;                   // no layout that costs the plan nothing is smaller; 0 for METAL
    size_t size;                    // of this layout
    double seconds;                 // that it took to find it
};
// Belongs to the runner.
GGC_API const struct ggc_memory * ggc_runner_memory(const struct ggc_runner * runner);

// Where a tensor lies: bytes [offset, offset + size) of the runner's buffer of that number. `uses`
// are the units that access it, ascending, none for METAL; they belong to the runner.
struct ggc_tensor_place {
    const struct ggml_tensor * tensor;
    uint32_t buffer;
    size_t offset, size;
    const uint32_t * uses;
    uint32_t n_uses;
};
// Writes the first `capacity` places of tensors that the runner laid out, views left out, and
// returns how many there are.
GGC_API uint32_t ggc_runner_places(const struct ggc_runner * runner,
                                   struct ggc_tensor_place * places, uint32_t capacity);

// What the runner would do, without memory: leafs that are no inputs are taken to have theirs
// elsewhere. `memory` as above, and the times that the plans are expected to take, in
// microseconds: of all units one after another, of the plan without any sharing, and of the plan on
// this layout. params: device CPU; the units are those of params->fuse. The graph is unchanged
// afterwards. GGC_E_INVALID, GGC_E_NOMEM, GGC_E_DEVICE, with a message (may be NULL).
struct ggc_memory_sketch {
    struct ggc_memory memory;
    double serial_time, apart_time, time;
    double plan_seconds;  // that it took to plan the graph once
};
GGC_API enum ggc_status ggc_memory_sketch(struct ggml_cgraph * graph,
                                          const struct ggc_runner_params * params,
                                          struct ggc_memory_sketch * sketch, char * message,
                                          size_t message_size);
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

// Another library's CUDA capture, in the usual mode (GLOBAL), forbids every thread of the process
// to allocate and to wait, as ggml does also for a copy: ggml ends the process where CUDA refuses,
// and the capture is spoilt. Unless the thread has said that it does not mind (relaxed mode);
// runners say so in each call of theirs. Between these two this thread has said so for what it asks
// of ggml itself: ggml_backend_tensor_set, ggml_backend_buffer_free, ggc_pool_free, ... What begin
// returns is for end. Nothing happens where there is no CUDA driver; where there
// is one it is loaded and initialised: they are for programs that use CUDA.
GGC_API int ggc_unbound_begin(void);
GGC_API void ggc_unbound_end(int mode);

// ggml aborts the process where an assertion of its fails. Between ggc_guard_push and
// ggc_guard_pop on the same thread it jumps instead: see guard.h, for the generated wrappers.
// Text of the assertion that the last guarded call of this thread met, "" if it met none.
GGC_API const char * ggc_guard_message(void);

#ifdef __cplusplus
}
#endif
