// What a simulated encoder records, and how it is run and checked.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ggml-metal-fusion.h"
#include "ggml.h"
#include "sim.h"

// A range of memory that a kernel reads or writes.
struct Access {
    const char *begin, *end;
    bool write;
};

// A node or several fused, as they were when they were encoded: whoever encoded them may change
// them before they run. What a fused kernel keeps to itself lies in memory of its own.
struct Kernel {
    Kernel(const std::vector<const ggml_tensor *> & nodes, ggml_metal_fusion_id fusion);
    Kernel(const Kernel &) = delete;
    Kernel & operator=(const Kernel &) = delete;

    std::string name;
    std::vector<Access> accesses;
    std::vector<ggml_tensor *> nodes;  // to be computed in this order

  private:
    ggml_tensor * copy(const ggml_tensor * tensor);
    void copy_nodes(const std::vector<const ggml_tensor *> & originals,
                    const std::vector<bool> & written);
    void note(const ggml_tensor * tensor, bool write);

    std::vector<std::unique_ptr<ggml_tensor>> tensors;
    std::vector<std::vector<char>> scratch;
};

// The kernels between two barriers: those that run here, and those that touch memory here. They
// differ where a kernel has barriers inside; it is computed at its last dispatch.
struct Group {
    std::vector<const Kernel *> running, touching;
};

struct CommandBuffer {
    std::vector<std::unique_ptr<Kernel>> kernels;
    std::vector<Group> groups = std::vector<Group>(1);
    int n_dispatches = 0;
};

// What the commands of a queue are: they run in order, when somebody waits.
struct metal_queue {
    std::vector<std::function<void()>> pending;

    void finish();
};

// Counters, the seed, and the barrier to be left out.
struct Sim {
    metal_sim_report report = {};
    uint64_t seed = 0;
    int32_t leave_out = -1;
    bool dry = false;

    void tell(int32_t & counter, const std::string & what);
};

Sim & sim();

// Reports pairs of kernels of one group that conflict.
void check_group(const Group & group);
void run_group(const Group & group, uint64_t seed);
