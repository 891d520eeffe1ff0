#include "cuda_urgency.h"

#include <stdlib.h>

// Slack in microseconds up to which a segment has the first, second, ... greatest priority. A
// kernel of a captured graph takes some microseconds, and so does waiting behind one.
static const double levels[] = {1, 3, 6, 12, 24};
#define N_LEVELS ((int) (sizeof(levels) / sizeof(*levels)))

static enum ggc_status find_slack(struct cuda_urgency * urgency, const struct segments * segments,
                                  const struct ggc_graph_plan * plan) {
    const struct ggc_plan * core = ggc_graph_plan_core(plan);
    const struct ggc_units units = ggc_graph_plan_units(plan);
    double * slack = malloc(((size_t) units.n_units + 1) * sizeof(double));
    if (slack == NULL) {
        return GGC_E_NOMEM;
    }
    const enum ggc_status status = ggc_plan_slack(core, &units, slack);
    for (uint32_t i = 0; status == GGC_OK && i < segments->n_segments; i++) {
        urgency->slack[i] = slack[segments->order[i]->unit];
    }
    free(slack);
    return status;
}

bool cuda_urgency_init(struct cuda_urgency * urgency, const struct segments * segments,
                       const struct dispatch_args * args) {
    const size_t n = segments->n_segments;
    *urgency = (struct cuda_urgency) {.n_segments = segments->n_segments};
    urgency->slack = malloc((n + 1) * sizeof(double));
    if (urgency->slack == NULL || find_slack(urgency, segments, args->plan) != GGC_OK) {
        cuda_urgency_free(urgency);
        return false;
    }
    return true;
}

void cuda_urgency_free(struct cuda_urgency * urgency) {
    free(urgency->slack);
    *urgency = (struct cuda_urgency) {0};
}

static int priority_of(const struct cuda_urgency * urgency, double slack) {
    int level = 0;
    while (level < N_LEVELS && slack >= levels[level]) {
        level++;
    }
    const int priority = urgency->greatest + level;
    return priority < urgency->least ? priority : urgency->least;
}

// A launch attribute's value takes 64 bytes.
union attribute_value {
    char bytes[64];
    int priority;
};

static void set_priority(const struct cuda_driver * driver, CUgraphNode node, int priority) {
    const union attribute_value value = {.priority = priority};
    int type = -1;
    if (driver->node_type(node, &type) == 0 && type == CU_GRAPH_NODE_TYPE_KERNEL) {
        driver->set_attribute(node, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value);
    }
}

void cuda_urgency_apply(struct cuda_urgency * urgency, const struct cuda_captured * captured,
                        const struct cuda_replay * replay, CUgraph graph) {
    const struct cuda_driver * driver = replay->driver;
    size_t n = 0;
    if (!captured->is_known || driver->set_attribute == NULL || driver->node_type == NULL ||
        driver->priorities == NULL ||
        driver->priorities(&urgency->least, &urgency->greatest) != 0 ||
        driver->graph_nodes(graph, NULL, &n) != 0) {
        return;
    }
    CUgraphNode * nodes = malloc((n + 1) * sizeof(*nodes));
    size_t at = 0;
    if (nodes != NULL && driver->graph_nodes(graph, nodes, &n) == 0) {
        for (uint32_t i = 0; i < urgency->n_segments; i++) {
            const int priority = priority_of(urgency, urgency->slack[i]);
            for (; at < captured->nodes_end[i] && at < n; at++) {
                set_priority(driver, nodes[at], priority);
            }
        }
    }
    free(nodes);
}
