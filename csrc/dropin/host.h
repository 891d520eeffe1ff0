// A ggml of somebody else's in this process: where its functions are, and whether its structures
// are laid out as ours.
#pragma once

#include "ggml-backend-impl.h"
#include "ggml/message.h"

#define HOST_TEXT 256
#define PATH_SIZE 1024

struct host {
    void * handle;        // of the object that has its registry of devices; kept open
    const void * anchor;  // its ggml_backend_dev_get, by which hosts are told apart
    char path[PATH_SIZE];
    char version[64];
    bool is_ours;            // a copy that this project brought along: attached to when asked for
    bool fits;               // may be attached to
    bool is_held;            // is
    bool knows_fusions;      // what its CUDA backend fuses is what our table says
    char reason[HOST_TEXT];  // why it does not fit
    enum ggml_op ops[256];   // its numbers -> ours; GGML_OP_COUNT: unknown
    unsigned n_ops;
    struct {
#define F(result, name, parameters, arguments) result(*name) parameters;
#define V(name, parameters, arguments) void(*name) parameters;
#include "host_functions.def"
#undef F
#undef V
    } functions;
    struct host * next;
};

// All that are in the process by now, those found before included. Never freed: what was hooked may
// still be called. Not for two threads at once.
struct host * hosts_find(void);
// The one whose registry has the device, or NULL.
struct host * host_of_device(ggml_backend_dev_t device);

// The ggml_* functions that this library is linked with (foreign.c) are those of the host that this
// thread has entered; which one it was in before is returned, for host_leave.
struct host * host_enter(struct host * host);
void host_leave(struct host * before);

// Whether a pointer is code of some object: what a function's place in a structure must hold.
bool is_code(const void * pointer);
