// What units cost on a CUDA device: looked up among what was measured before, else measured on the
// first computations, which give their results all the same.
#include <stdlib.h>
#include <string.h>

#include "costs_file.h"
#include "cuda_driver.h"
#include "runner_state.h"

// Computations that are measured; the first one also fills pools and loads kernels, and does not
// count. The least time counts: nothing makes a unit faster than it is.
#define RUNS 4

// What is measured besides: the events and the gaps beside them, which a replay has not. On an H200
// the sums of what is left are within a few percent of ggml's own replay of the same graphs.
#define EVENTS_MICROSECONDS 2.7
#define LEAST_MICROSECONDS 0.5

#define DEVICE_SIZE 300

static void name_device(const struct ggc_runner * runner, char name[DEVICE_SIZE]) {
    const struct message nobody = {NULL, 0};
    const struct cuda_driver * driver = cuda_driver_get(&nobody);
    int version = 0;
    if (driver != NULL) {
        driver->driver_version(&version);
    }
    snprintf(name, DEVICE_SIZE, "%.200s, driver %d, ggml %s",
             ggml_backend_dev_description(runner->device), version, ggml_version());
}

static uint32_t n_units_of(const struct ggc_runner * runner) {
    return ggc_plan_get_stats(ggc_graph_plan_core(runner->players[0].plan)).n_units;
}

static struct graph_key key_of(const struct ggc_runner * runner, uint32_t unit) {
    uint32_t n;
    const uint32_t * nodes = ggc_graph_plan_nodes(runner->players[0].plan, unit, &n);
    return cost_key_of(runner->graph, nodes, n);
}

// All of a unit's cost on its first node.
static bool set_costs(struct ggc_runner * runner, const struct cost_table * table) {
    double * costs = calloc((size_t) runner->graph->n_nodes + 1, sizeof(double));
    bool complete = costs != NULL;
    for (uint32_t u = 0; complete && u < n_units_of(runner); u++) {
        const struct graph_key key = key_of(runner, u);
        uint32_t n;
        const double cost = costs_find(table, &key);
        complete = cost >= 0;
        costs[ggc_graph_plan_nodes(runner->players[0].plan, u, &n)[0]] = cost;
    }
    if (!complete) {
        free(costs);
        return false;
    }
    free(runner->costs);
    runner->costs = costs;
    runner->params.costs = costs;
    return true;
}

bool find_costs(struct ggc_runner * runner) {
    char device[DEVICE_SIZE];
    struct cost_table table = {0};
    if (runner->costs != NULL) {
        return true;
    }
    if (runner->params.tuning_dir == NULL) {
        return false;
    }
    name_device(runner, device);
    const bool found = costs_read(&table, runner->params.tuning_dir, device, &runner->warnings) &&
                       set_costs(runner, &table);
    costs_free(&table);
    return found;
}

//
// Measuring
//

bool measures(const struct ggc_runner * runner) {
    return runner->measure.player.state != NULL;
}

void measure_close(struct ggc_runner * runner) {
    close_player(&runner->measure.player);
    free(runner->measure.microseconds);
    runner->measure.microseconds = NULL;
}

enum ggc_status measure_open(struct ggc_runner * runner, const struct message * message) {
    struct measure * measure = &runner->measure;
    measure->n_runs = 0;
    measure->player = (struct player) {
        .params = runner->players[0].params,
        .plan = runner->players[0].plan,
        .dispatch = &dispatch_cuda_trace,
    };
    measure->microseconds = calloc((size_t) n_units_of(runner) + 1, sizeof(double));
    if (measure->microseconds == NULL) {
        return GGC_E_NOMEM;
    }
    const struct dispatch_args args = args_of(runner, &measure->player);
    return dispatch_cuda_trace.open(&args, &measure->player.state, message);
}

static void note_times(struct ggc_runner * runner) {
    struct measure * measure = &runner->measure;
    const double * times = dispatch_cuda_trace.unit_times(measure->player.state);
    for (uint32_t u = 0; u < n_units_of(runner); u++) {
        const double time = times[2 * (size_t) u + 1] - times[2 * (size_t) u];
        if (measure->n_runs == 2 || time < measure->microseconds[u]) {
            measure->microseconds[u] = time;
        }
    }
}

// Units of the same kind have one cost: their mean.
static bool fill_table(const struct ggc_runner * runner, struct cost_table * table) {
    struct cost_table sums = {0}, counts = {0};
    bool ok = true;
    for (uint32_t u = 0; ok && u < n_units_of(runner); u++) {
        const struct graph_key key = key_of(runner, u);
        const double time = runner->measure.microseconds[u] - EVENTS_MICROSECONDS;
        const double cost = time > LEAST_MICROSECONDS ? time : LEAST_MICROSECONDS;
        ok = costs_sum(&sums, &key, cost) && costs_sum(&counts, &key, 1);
    }
    for (uint32_t i = 0; ok && i < sums.n; i++) {
        ok = costs_add(table, &sums.items[i].key,
                       sums.items[i].microseconds / counts.items[i].microseconds);
    }
    costs_free(&sums);
    costs_free(&counts);
    return ok;
}

static bool keep_costs(struct ggc_runner * runner) {
    char device[DEVICE_SIZE];
    struct cost_table table = {0};
    const char * directory = runner->params.tuning_dir;
    name_device(runner, device);
    bool ok = (directory == NULL || costs_read(&table, directory, device, &runner->warnings)) &&
              fill_table(runner, &table) && set_costs(runner, &table);
    if (ok && directory != NULL) {
        costs_write(&table, directory, device, &runner->warnings);
    }
    costs_free(&table);
    return ok;
}

enum ggc_status measure_compute(struct ggc_runner * runner, const struct message * message) {
    struct measure * measure = &runner->measure;
    const enum ggc_status status = dispatch_cuda_trace.compute(measure->player.state, message);
    if (status != GGC_OK || ++measure->n_runs < 2) {
        return status;
    }
    note_times(runner);
    if (measure->n_runs < RUNS) {
        return GGC_OK;
    }
    const bool kept = keep_costs(runner);
    measure_close(runner);
    return kept ? GGC_OK : GGC_E_NOMEM;
}
