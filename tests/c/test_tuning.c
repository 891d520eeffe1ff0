// Tuning of real runners, and what is kept of it: keys of graphs, files, several processes.
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner_support.h"
// after the above, which includes ggml-impl.h with its warnings off
#include "dispatch/tuning_file.h"

static char folder[] = "/tmp/ggc-tuning-XXXXXX";

static void for_each_file(void (*call)(const char * path)) {
    DIR * directory = opendir(folder);
    CHECK(directory != NULL);
    for (struct dirent * entry; (entry = readdir(directory)) != NULL;) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.') {
            call(path);
        }
    }
    closedir(directory);
}

static void remove_file(const char * path) {
    CHECK(unlink(path) == 0);
}

static int n_files;

static void count_file(const char * path) {
    CHECK_MSG(strstr(path, ".tuning") == path + strlen(path) - 7, "%s was left behind", path);
    n_files++;
}

static int count_files(void) {
    n_files = 0;
    for_each_file(count_file);
    return n_files;
}

//
// Keys
//

static struct graph_key key_of(const struct ggml_cgraph * graph, const char * extra) {
    struct graph_key key;
    CHECK(graph_key_of(&key, graph, extra));
    return key;
}

static bool same_key(struct graph_key a, struct graph_key b) {
    CHECK((a.a == b.a) == (a.b == b.b));
    return a.a == b.a;
}

static void equal_graphs_have_equal_keys(uint64_t seed) {
    struct random_graph a, b;
    random_graph_init(&a, seed, 40);
    random_graph_init(&b, seed, 40);
    const struct graph_key key = key_of(a.graph, "x");
    random_graph_place(&b);
    CHECK(same_key(key, key_of(b.graph, "x")));  // at other addresses
    CHECK(!same_key(key, key_of(b.graph, "y")));
    CHECK(!same_key(key, key_of(b.graph, "")));
    struct ggml_tensor * node = b.graph->nodes[0];
    node->op_params[3] ^= 1;
    CHECK(!same_key(key, key_of(b.graph, "x")));
    node->op_params[3] ^= 1;
    node->ne[3]++;
    CHECK(!same_key(key, key_of(b.graph, "x")));
    node->ne[3]--;
    b.graph->n_nodes--;
    CHECK(!same_key(key, key_of(b.graph, "x")));
    b.graph->n_nodes++;
    CHECK(same_key(key, key_of(b.graph, "x")));
    random_graph_free(&a);
    random_graph_free(&b);
}

static void who_reads_whom_is_part_of_it(void) {
    struct graph_key keys[3];
    for (int i = 0; i < 3; i++) {
        struct scene s;
        scene_init(&s);
        struct ggml_tensor *x = vector(&s, 8), *y = vector(&s, 8);
        struct ggml_tensor * z = ggml_sub(s.ctx, x, y);
        expand(&s, i == 0 ? ggml_sub(s.ctx, z, x) : ggml_sub(s.ctx, i == 1 ? x : y, z));
        keys[i] = key_of(s.graph, "");
        scene_free(&s);
    }
    CHECK(!same_key(keys[0], keys[1]) && !same_key(keys[1], keys[2]));
    CHECK(!same_key(keys[0], keys[2]));
}

//
// Files
//

static const struct graph_key some_key = {0x0123456789abcdef, 0xfedcba9876543210};
static const struct tuning_way some_ways[] = {{GGC_STRATEGY_LEVELS, 3, 5, true, 123456789},
                                              {GGC_STRATEGY_SERIAL, 1, 2, false, 234567890}};

static void some_path(char path[600]) {
    snprintf(path, 600, "%s/0123456789abcdeffedcba9876543210.tuning", folder);
}

static enum tuning_found read_some(struct tuning * tuning) {
    char text[700] = "";
    const struct message message = {text, sizeof text};
    const enum tuning_found found = tuning_read(folder, &some_key, tuning, &message);
    CHECK((found == TUNING_DAMAGED) == (strstr(text, "damaged") != NULL));
    return found;
}

static void what_is_written_is_read(void) {
    struct tuning tuning;
    CHECK_EQ(read_some(&tuning), TUNING_NONE);
    for (uint32_t repeats = 0; repeats < 3; repeats++) {  // each over the one before
        CHECK(tuning_write(folder, &some_key, some_ways, 2, repeats, &(struct message) {0}));
        CHECK_EQ(read_some(&tuning), TUNING_FOUND);
        const struct tuning_way best = tuning.best;
        CHECK(best.strategy == GGC_STRATEGY_LEVELS && best.n_streams == 3 && best.n_threads == 5);
        CHECK(best.urgency && best.nanoseconds == 123456789);
        CHECK(tuning.serial_nanoseconds == 234567890 && tuning.repeats == repeats);
    }
    CHECK_EQ(count_files(), 1);
}

static void write_bytes(const char * path, const char * bytes, size_t n) {
    FILE * file = fopen(path, "w");
    CHECK(file != NULL && fwrite(bytes, 1, n, file) == n && fclose(file) == 0);
}

static void choices_that_are_not_made_yet(void) {
    const double allowances[] = {12345, -678, 0};
    char path[600];
    some_path(path);
    for (int i = 0; i < 3; i++) {
        struct tuning tuning;
        CHECK(tuning_write_begun(folder, &some_key, allowances[i], &(struct message) {0}));
        CHECK_EQ(read_some(&tuning), TUNING_BEGUN);
        CHECK(tuning.allowance == allowances[i]);
    }
    CHECK(truncate(path, 70) == 0);  // within its line
    struct tuning tuning;
    CHECK_EQ(read_some(&tuning), TUNING_DAMAGED);
    remove_file(path);
}

// Cut anywhere, or with any byte changed, it is damaged, or says something else that is possible.
static void damaged_files(void) {
    char path[600], bytes[1000];
    some_path(path);
    CHECK(tuning_write(folder, &some_key, some_ways, 2, 7, &(struct message) {0}));
    FILE * file = fopen(path, "r");
    CHECK(file != NULL);
    const size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    struct tuning tuning;
    for (size_t cut = 0; cut < n; cut++) {
        write_bytes(path, bytes, cut);
        CHECK_EQ(read_some(&tuning), TUNING_DAMAGED);
    }
    uint32_t n_damaged = 0;
    for (size_t i = 0; i < n; i++) {
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] ^= (char) (1 << bit);
            write_bytes(path, bytes, n);
            n_damaged += read_some(&tuning) == TUNING_DAMAGED;
            CHECK(tuning.best.n_streams >= 1 || read_some(&tuning) == TUNING_DAMAGED);
            bytes[i] ^= (char) (1 << bit);
        }
    }
    CHECK_MSG(n_damaged > 6 * n, "%u of %zu changes were noticed", n_damaged, 8 * n);
    memset(bytes, 'x', sizeof bytes);
    write_bytes(path, bytes, sizeof bytes);
    CHECK_EQ(read_some(&tuning), TUNING_DAMAGED);
    // another version, another graph
    CHECK(tuning_write(folder, &some_key, some_ways, 2, 0, &(struct message) {0}));
    char other[600];
    const struct graph_key other_key = {some_key.a ^ 1, some_key.b};
    snprintf(other, sizeof other, "%s/0123456789abcdeefedcba9876543210.tuning", folder);
    CHECK(rename(path, other) == 0);
    char text[700];
    CHECK_EQ(tuning_read(folder, &other_key, &tuning, &(struct message) {text, sizeof text}),
             TUNING_DAMAGED);
    remove_file(other);
}

static void folders_that_cannot_be_used(void) {
    char text[700] = "";
    const struct message message = {text, sizeof text};
    struct tuning tuning;
    char * deep = malloc(5000);
    memset(deep, 'd', 4999);
    deep[4999] = '\0';
    CHECK(!tuning_write("/nowhere/at/all", &some_key, some_ways, 2, 0, &message));
    CHECK(strstr(text, "/nowhere/at/all") != NULL);
    CHECK(!tuning_write(deep, &some_key, some_ways, 2, 0, &message));
    CHECK(strstr(text, "too long") != NULL);
    CHECK_EQ(tuning_read("/nowhere/at/all", &some_key, &tuning, &message), TUNING_NONE);
    CHECK_EQ(tuning_read(deep, &some_key, &tuning, &message), TUNING_NONE);
    free(deep);
    char missing[600];  // one that is missing is made
    snprintf(missing, sizeof missing, "%s/made", folder);
    CHECK(tuning_write(missing, &some_key, some_ways, 2, 0, &message));
    CHECK_EQ(tuning_read(missing, &some_key, &tuning, &message), TUNING_FOUND);
    snprintf(missing, sizeof missing, "%s/made/0123456789abcdeffedcba9876543210.tuning", folder);
    remove_file(missing);
    snprintf(missing, sizeof missing, "%s/made", folder);
    CHECK(rmdir(missing) == 0);
}

// While two processes write, a third never sees half a file.
static void several_processes(void) {
    pid_t writers[2];
    struct tuning tuning;
    CHECK(tuning_write(folder, &some_key, some_ways, 2, 0, &(struct message) {0}));
    for (int w = 0; w < 2; w++) {
        writers[w] = fork();
        CHECK(writers[w] >= 0);
        for (int i = 0; writers[w] == 0 && i < 500; i++) {
            if (!tuning_write(folder, &some_key, some_ways, 1 + (uint32_t) w, 0,
                              &(struct message) {0})) {
                _exit(1);
            }
        }
        if (writers[w] == 0) {
            _exit(0);
        }
    }
    for (int i = 0; i < 2000; i++) {
        CHECK_EQ(read_some(&tuning), TUNING_FOUND);
    }
    for (int w = 0; w < 2; w++) {
        int status;
        CHECK(waitpid(writers[w], &status, 0) == writers[w] && status == 0);
    }
    CHECK_EQ(count_files(), 1);
    for_each_file(remove_file);
}

//
// Runners
//

static struct ggc_way way_in_use(const struct ggc_runner * runner) {
    struct ggc_way ways[8], found = {0};
    const uint32_t n = ggc_runner_ways(runner, ways, 8);
    int n_found = 0;
    CHECK(n >= 1 && n <= 8);
    for (uint32_t w = 0; w < n; w++) {
        n_found += ways[w].in_use;
        found = ways[w].in_use ? ways[w] : found;
    }
    CHECK_EQ(n_found, 1);
    return found;
}

static struct ggc_runner_params tuned(void) {
    struct ggc_runner_params params;
    ggc_runner_params_init(&params);
    params.wait_cost = 0;  // such small graphs get streams only where these cost nothing
    params.tuning_dir = folder;
    return params;
}

// Every computation gives the right result, whichever way it takes; what is found is remembered.
static void random_graph_tuned(uint64_t seed, uint32_t * n_tuned) {
    struct random_graph reference, g;
    struct ggc_runner * runner = NULL;
    const struct ggc_runner_params params = tuned();
    reference_init(&reference, seed, 60);
    random_graph_init(&g, seed, 60);
    new_runner(g.graph, &params, &runner);
    const uint32_t n_ways = ggc_runner_ways(runner, NULL, 0);
    for (int i = 0; !ggc_runner_settled(runner); i++) {
        CHECK_MSG(i < 500, "never settles");
        random_graph_restore(&g);
        compute(runner);
        same_results(&reference, &g);
    }
    CHECK_EQ(ggc_runner_ways(runner, NULL, 0), n_ways);
    const struct ggc_way best = way_in_use(runner);
    CHECK((best.microseconds > 0) == (n_ways > 1));
    for (int i = 0; i < 3; i++) {
        random_graph_restore(&g);
        compute(runner);
        same_results(&reference, &g);
        CHECK(ggc_runner_unit_threads(runner, 0) >= 1);
    }
    ggc_runner_free(runner);
    CHECK_EQ(count_files(), n_ways > 1);
    new_runner(g.graph, &params, &runner);
    const struct ggc_way again = way_in_use(runner);
    CHECK(ggc_runner_settled(runner) && ggc_runner_ways(runner, NULL, 0) == 1);
    CHECK(again.strategy == best.strategy && again.n_streams == best.n_streams &&
          again.n_threads == best.n_threads);
    random_graph_restore(&g);
    compute(runner);
    same_results(&reference, &g);
    ggc_runner_free(runner);
    random_graph_free(&g);
    random_graph_free(&reference);
    for_each_file(remove_file);
    *n_tuned += n_ways > 2;
}

static void damage(const char * path) {
    write_bytes(path, "rubbish", 7);
}

static void tune(struct ggc_runner * runner) {
    for (int i = 0; i < 500 && !ggc_runner_settled(runner); i++) {
        compute(runner);
    }
    CHECK(ggc_runner_settled(runner));
}

static void wide(struct scene * s) {
    scene_init(s);
    struct ggml_tensor * x = vector(s, 512);
    place(s, x);
    for (int t = 0; t < 8; t++) {
        struct ggml_tensor * y = ggml_scale(s->ctx, x, (float) t);
        for (int i = 0; i < 5; i++) {
            y = ggml_sqr(s->ctx, y);
        }
        ggml_set_output(y);
        expand(s, y);
    }
}

static void damaged_memory_is_told_and_mended(void) {
    struct scene s;
    struct ggc_runner * runner = NULL;
    const struct ggc_runner_params params = tuned();
    wide(&s);
    for (int i = 0; i < 3; i++) {
        new_runner(s.graph, &params, &runner);
        CHECK_EQ(ggc_runner_settled(runner), i == 2);
        CHECK((strstr(ggc_runner_warning(runner), "damaged") != NULL) == (i == 1));
        tune(runner);
        ggc_runner_free(runner);
        if (i == 0) {
            for_each_file(damage);
        }
    }
    for_each_file(remove_file);
    scene_free(&s);
}

static void unwritable_folder_is_told(void) {
    struct scene s;
    struct ggc_runner * runner = NULL;
    struct ggc_runner_params params = tuned();
    params.tuning_dir = "/nowhere/at/all";
    wide(&s);
    new_runner(s.graph, &params, &runner);
    CHECK(strcmp(ggc_runner_warning(runner), "") == 0);
    tune(runner);
    CHECK(strstr(ggc_runner_warning(runner), "/nowhere/at/all") != NULL);
    compute(runner);
    ggc_runner_free(runner);
    scene_free(&s);
}

// Where nothing is to be chosen nothing is tuned.
static void nothing_to_tune(void) {
    struct scene s;
    struct ggc_runner * runner = NULL;
    wide(&s);
    for (int i = 0; i < 4; i++) {
        struct ggc_runner_params params = tuned();
        params.n_streams = i == 0 ? 1 : 2;
        params.tune = i == 1 ? GGC_TUNE_OFF : GGC_TUNE_QUICK;
        params.always = i == 2;
        params.trace = i == 3;
        new_runner(s.graph, &params, &runner);
        CHECK(ggc_runner_settled(runner) && ggc_runner_ways(runner, NULL, 0) == 1);
        compute(runner);
        ggc_runner_free(runner);
        CHECK_EQ(count_files(), 0);
    }
    scene_free(&s);
}

int main(int argc, char ** argv) {
    const struct test_options options = test_begin(argc, argv, 1, 25);
    CHECK(mkdtemp(folder) != NULL);
    what_is_written_is_read();
    choices_that_are_not_made_yet();
    damaged_files();
    folders_that_cannot_be_used();
    several_processes();
    who_reads_whom_is_part_of_it();
    for (uint64_t i = 0; i < 20; i++) {
        equal_graphs_have_equal_keys(options.seed + i);
    }
    need_cpu_backend();
    damaged_memory_is_told_and_mended();
    unwritable_folder_is_told();
    nothing_to_tune();
    uint32_t n_tuned = 0;
    for (uint64_t i = options.first; i < options.first + options.iterations; i++) {
        test_case("tuned graph %llu", (unsigned long long) i);
        random_graph_tuned(options.seed + i, &n_tuned);
    }
    CHECK(rmdir(folder) == 0);
    CHECK(n_tuned > 0 || options.iterations < 20);
    return test_passed("%u graphs were tuned", n_tuned);
}
