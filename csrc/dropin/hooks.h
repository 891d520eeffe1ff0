// Takes hold of a runner's devices and backends by the function pointers that ggml keeps in them,
// and lets go of them again.
#pragma once

#include <stddef.h>

#include "host.h"

// Hooks every device of the host, and with that every backend that is made from now on; devices
// that are hooked already are left so. True where there is at least one.
bool hooks_attach_host(struct host * host);
// Hooks a backend that exists. False, with a reason.
bool hooks_attach_backend(struct host * host, ggml_backend_t backend,
                          const struct message * message);
// The runner has set a CPU backend's threads by a function that is not hooked.
void hooks_note_threads(ggml_backend_t backend, int n_threads);
// Puts every pointer back. Backends that live go on as without us.
void hooks_detach(void);

// Counts of all backends that ever were, and which live: as JSON objects, into `text`, cut off
// where it is full. Returns the length that it would have.
size_t hooks_report(const struct host * host, char * text, size_t size);
