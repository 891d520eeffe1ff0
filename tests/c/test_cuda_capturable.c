// Which operations of ggml-cuda a capture can hold, and what memory streams of it may take.
#include "support_ggml.h"

#include "dispatch/cuda_capturable.h"
#include "dispatch/cuda_instance.h"

static const struct cuda_build h100 = {.capability = 900, .compiled = 900};

struct experts {
    enum ggml_type type;
    int64_t columns, rows, tokens;
    int capability, compiled;
    bool waits;
};

// Experts that are quantised; that are floats, which need whole tiles; and devices without tensor
// cores, or a ggml-cuda that was not built for them.
static const struct experts cases[] = {
    {GGML_TYPE_Q4_0, 64, 64, 1, 900, 900, false},    {GGML_TYPE_Q4_0, 64, 64, 512, 900, 900, false},
    {GGML_TYPE_Q3_K, 256, 64, 6, 800, 800, false},   {GGML_TYPE_Q4_0, 64, 64, 512, 900, 610, true},
    {GGML_TYPE_Q4_0, 64, 64, 63, 900, 610, false},   {GGML_TYPE_Q4_0, 64, 64, 8, 900, 0, false},
    {GGML_TYPE_Q4_0, 64, 64, 9, 900, 0, false},      {GGML_TYPE_Q4_0, 64, 64, 512, 610, 610, false},
    {GGML_TYPE_Q4_0, 64, 64, 9, 520, 520, true},     {GGML_TYPE_IQ1_M, 256, 64, 8, 900, 900, false},
    {GGML_TYPE_IQ1_M, 256, 64, 9, 900, 900, true},   {GGML_TYPE_IQ1_M, 256, 64, 7, 610, 610, true},
    {GGML_TYPE_TQ2_0, 256, 64, 9, 900, 900, true},   {GGML_TYPE_F16, 64, 64, 1, 900, 900, false},
    {GGML_TYPE_F16, 64, 64, 512, 900, 900, false},   {GGML_TYPE_F16, 64, 64, 513, 900, 900, true},
    {GGML_TYPE_F16, 64, 2048, 128, 900, 900, false}, {GGML_TYPE_F16, 64, 2048, 129, 900, 900, true},
    {GGML_TYPE_F16, 32, 64, 1, 900, 900, true},      {GGML_TYPE_F16, 64, 48, 1, 900, 900, true},
    {GGML_TYPE_F16, 64, 64, 1, 700, 700, false},     {GGML_TYPE_F16, 64, 64, 1, 610, 610, true},
    {GGML_TYPE_F32, 32, 32, 1, 800, 800, false},     {GGML_TYPE_F32, 32, 32, 1, 750, 750, true},
    {GGML_TYPE_F32, 16, 32, 1, 800, 800, true},      {GGML_TYPE_BF16, 64, 32, 1, 800, 800, false},
    {GGML_TYPE_BF16, 64, 32, 1, 750, 750, true},
};

static void experts(void) {
    struct scene s;
    scene_init(&s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct experts * c = &cases[i];
        test_case("%zu: %s, %lld rows of %lld, %lld tokens, %d built for %d", i,
                  ggml_type_name(c->type), (long long) c->rows, (long long) c->columns,
                  (long long) c->tokens, c->capability, c->compiled);
        const struct cuda_build build = {.capability = c->capability, .compiled = c->compiled};
        struct ggml_tensor * node =
            ggml_mul_mat_id(s.ctx, ggml_new_tensor_3d(s.ctx, c->type, c->columns, c->rows, 8),
                            ggml_new_tensor_3d(s.ctx, GGML_TYPE_F32, c->columns, 2, c->tokens),
                            ggml_new_tensor_2d(s.ctx, GGML_TYPE_I32, 2, c->tokens));
        CHECK_EQ(cuda_not_capturable(node, &build) != NULL, c->waits);
        if (ggml_is_quantized(c->type) && c->tokens > 8) {
            const struct cuda_build blas = {
                .capability = c->capability, .compiled = c->compiled, .blas_only = true};
            CHECK(cuda_not_capturable(node, &blas) != NULL);
        }
    }
    scene_free(&s);
}

static bool sorts(struct scene * s, int64_t columns, int64_t rows, bool top) {
    struct ggml_tensor * x = matrix(s, columns, rows);
    struct ggml_tensor * node =
        top ? ggml_top_k(s->ctx, x, 4) : ggml_argsort(s->ctx, x, GGML_SORT_ORDER_ASC);
    return cuda_not_capturable(node, &h100) == NULL;
}

static void others(void) {
    struct scene s;
    scene_init(&s);
    test_case("others");
    for (int top = 0; top < 2; top++) {
        CHECK(sorts(&s, 1024, 8, top));
        CHECK(sorts(&s, 100000, 1, top));
        CHECK(!sorts(&s, 1025, 2, top));
    }
    const struct cuda_build without = {.capability = 900, .compiled = 900, .no_graphs = true};
    struct ggml_tensor * mean = ggml_mean(s.ctx, vector(&s, 65536));
    CHECK(cuda_not_capturable(mean, &h100) == NULL);
    CHECK(cuda_not_capturable(mean, &without) != NULL);
    CHECK(cuda_not_capturable(ggml_mean(s.ctx, vector(&s, 65537)), &without) == NULL);
    CHECK(cuda_not_capturable(ggml_mean(s.ctx, vector(&s, 32768)), &without) == NULL);
    CHECK(cuda_not_capturable(ggml_mean(s.ctx, matrix(&s, 65536, 2)), &without) == NULL);
    CHECK(cuda_not_capturable(ggml_sqr(s.ctx, vector(&s, 8)), &without) == NULL);
    scene_free(&s);
}

//
// Memory
//

#define MIB ((size_t) 1 << 20)

// One stream with one node.
static size_t need(struct ggml_tensor * node, int capability) {
    struct segment segment = {.graph = {.n_nodes = 1, .nodes = &node}};
    const struct segment_list stream = {.items = &segment, .n = 1};
    const struct cuda_need bytes = cuda_stream_need(&stream, capability);
    return bytes.pool + bytes.blas;
}

static struct ggml_tensor * product(struct scene * s, enum ggml_type type, int64_t tokens) {
    return ggml_mul_mat(s->ctx, ggml_new_tensor_2d(s->ctx, type, 4096, 4096),
                        matrix(s, 4096, tokens));
}

static void memory(void) {
    struct scene s;
    scene_init(&s);
    test_case("memory");
    CHECK_EQ(need(ggml_sqr(s.ctx, matrix(&s, 4096, 4096)), 900), 0);
    CHECK_EQ(need(product(&s, GGML_TYPE_Q4_0, 1), 900), 2 * MIB);
    CHECK_EQ(need(product(&s, GGML_TYPE_F16, 1), 900), (2 + 40) * MIB);
    CHECK_EQ(need(product(&s, GGML_TYPE_F16, 1), 890), (2 + 12) * MIB);
    // quantised, 512 columns: they, the result, tiles; and the whole matrix where there is no MMQ
    const size_t copies = 4 * 4096 * 512 + 512 * 512 + 4 * 4096 * 512 + 16 * MIB;
    CHECK(need(product(&s, GGML_TYPE_Q4_0, 512), 900) >= copies + 40 * MIB);
    CHECK(need(product(&s, GGML_TYPE_Q4_0, 512), 900) <= copies + 42 * MIB);
    CHECK(need(product(&s, GGML_TYPE_Q4_0, 512), 700) >= copies + 2 * 4096 * 4096 + 12 * MIB);
    CHECK(need(ggml_argsort(s.ctx, matrix(&s, 4096, 512), GGML_SORT_ORDER_ASC), 900) >=
          4 * 4096 * 512 * 4);
    scene_free(&s);
}

//
// Streams that plans share
//

static ggml_backend_dev_t cpu(void) {
    CHECK_STATUS(ggc_load_backends(NULL, NULL, 0), GGC_OK);
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

static void shared(void) {
    char text[200] = "";
    const struct message message = {text, sizeof text};
    const size_t huge = SIZE_MAX / 4;
    size_t free_before = 7;
    test_case("what was granted is not asked for again");
    struct cuda_instances instances = {.n = 2, .granted = {{huge, 0}, {2 * MIB, 42 * MIB}}};
    const struct cuda_need less[] = {{huge, 0}, {0, 42 * MIB}};
    CHECK_STATUS(cuda_instances_need(&instances, NULL, 2, less, &free_before, &message), GGC_OK);
    CHECK_EQ(free_before, 7);
    test_case("memory of a pool is none for cuBLAS");
    const struct cuda_need other = {2 * MIB, huge};
    CHECK_STATUS(cuda_instances_need(&instances, cpu(), 1, &other, &free_before, &message),
                 GGC_E_DEVICE);
    CHECK(strstr(text, "MiB beside the graph") != NULL);
    CHECK_EQ(instances.granted[0].blas, 0);

    test_case("handles are there where products were issued");
    const struct cuda_need first[] = {{0, MIB}, {MIB, 0}}, second[] = {{MIB, 0}, {0, MIB}};
    CHECK(!cuda_instances_have_handles(&instances, 2, first));
    cuda_instances_issued(&instances, 2, first);
    CHECK(cuda_instances_have_handles(&instances, 2, first));
    CHECK(cuda_instances_have_handles(&instances, 1, second));
    CHECK(!cuda_instances_have_handles(&instances, 2, second));
    cuda_instances_issued(&instances, 2, second);
    CHECK(cuda_instances_have_handles(&instances, 2, second));
}

int main(int argc, char ** argv) {
    test_begin(argc, argv, 1, 1);
    experts();
    others();
    memory();
    shared();
    return test_passed("%zu experts, others, memory, shared streams", sizeof cases / sizeof *cases);
}
