"""Units for CUDA hold every fusion that ggml-cuda itself finds.

Its decisions are host code: the functions are taken out of the vendored source and compiled with a
C++ compiler, kernels left out. What depends on the processor, on memory or on batch sizes is always
answered "yes, fuse": more fusions than any real run has.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from metal_compare import GRAPHS, Metal, built
from test_fusions_vendored import CUDA, SOURCE, functions_of, without_comments
from tools import find_tool, need_built

from ggml_concurrent import _ffi
from ggml_concurrent._native import ffi, ggml, lib

DECISIONS = (
    "ggml_cuda_is_view_or_noop",
    "ggml_cuda_should_fuse_mul_mat",
    "ggml_cuda_should_fuse_rope_set_rows",
    "ggml_cuda_should_fuse_rms_norm_mul_rope",
    "ggml_cuda_try_gdn_cache_fusion",
    "ggml_cuda_topk_moe_fusion",
    "ggml_cuda_match_moe_weighted_reduction",
    "ggml_cuda_can_fuse",
    "ggml_cuda_try_fuse",
)
GRANTED = (
    "ggml_cuda_check_fusion_memory_ranges",
    "ggml_cuda_should_use_topk_moe",
    "ggml_cuda_should_fuse_mul_mat_vec_f",
    "ggml_cuda_should_fuse_mul_mat_vec_q",
)
HEAD = """\
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
struct ggml_backend_cuda_context {};
struct ggml_cuda_topk_moe_args {
    bool sigmoid, sqrt_softplus, softmax, delayed_softmax, prob_bias, norm, scale = false;
};
struct ggml_cuda_gated_delta_net_fused_cache { float * data; int64_t slot_stride; };
struct ggml_cuda_mm_fusion_args_host {
    const ggml_tensor *x_bias, *gate, *gate_bias, *x_scale, *gate_scale;
    ggml_glu_op glu_op;
    float glu_limit;
};
struct ggml_cuda_moe_weighted_reduction_match {
    const ggml_tensor *experts, *expert_scale, *weights;
    ggml_tensor * dst;
    int node_count;
};
"""
# The source looks one node beyond the end of a graph that ends with a router; give it one to see.
TAIL = """
extern "C" int fused(ggml_cgraph * original, int index) {
    static ggml_tensor end;
    std::vector<ggml_tensor *> nodes(original->nodes, original->nodes + original->n_nodes);
    nodes.push_back(&end);
    ggml_cgraph graph = *original;
    graph.nodes = nodes.data();
    ggml_backend_cuda_context context;
    const ggml_tensor * node = nodes[index];
    const bool idle = ggml_cuda_is_view_or_noop(node) || !(node->flags & GGML_TENSOR_FLAG_COMPUTE);
    return idle ? 0 : ggml_cuda_try_fuse(&context, &graph, index);
}
"""


def decisions() -> str:
    """The host code as a C++ source file."""
    whole = without_comments((SOURCE / CUDA).read_text(encoding="utf-8"))
    bodies = functions_of(whole)
    constants = re.findall(r"^static constexpr int \w+ = \d+;", whole, re.MULTILINE)
    text = "\n".join(bodies[name] for name in DECISIONS)
    text = text.replace("dst->data == nullptr ||", "")  # a cache that has no memory yet will do
    kernels = sorted(set(re.findall(r"\b(ggml_cuda_(?:op_\w+|mul_mat_vec_[fq]))\(", text)))
    empty = [f"template <class... T> void {name}(T &&...) {{}}" for name in kernels]
    yes = [f"template <class... T> bool {name}(T &&...) {{ return true; }}" for name in GRANTED]
    return "\n".join([HEAD, *constants, *empty, *yes, text, TAIL])


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if not (SOURCE / CUDA).exists():
        pytest.skip(f"no {CUDA} in {SOURCE}: run vendor/fetch_ggml.py")
    folder = tmp_path_factory.mktemp("cuda")
    source, library = folder / "decisions.cpp", folder / "decisions.so"
    source.write_text(decisions(), encoding="utf-8")
    libraries = Path(_ffi.__file__).resolve().parent / "lib"  # where the loader finds them
    compiler = os.environ.get("CXX", "").split() or [find_tool("c++")]
    flags = ["-std=c++17", "-O1", "-w", "-fPIC", "-shared", f"-I{SOURCE}", f"-I{SOURCE}/../include"]
    link = [f"-L{libraries}", "-lggc-ggml-base", f"-Wl,-rpath,{libraries.resolve()}"]
    command = [*compiler, *flags, str(source), "-o", str(library), *link]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    loaded = ctypes.CDLL(str(library))
    loaded.fused.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return loaded


def units_of(graph: int) -> list[int]:
    """The unit of each node."""
    params, plan = ffi.new("struct ggc_graph_params *"), ffi.new("struct ggc_graph_plan **")
    lib.ggc_graph_params_init(params)
    params.fuse = lib.GGC_FUSE_CUDA
    assert lib.ggc_graph_plan_new(ffi.cast("struct ggml_cgraph *", graph), params, plan) == 0
    n_nodes = lib.ggc_graph_plan_n_nodes(plan[0])
    units = list(lib.ggc_graph_plan_unit_of_node(plan[0])[0:n_nodes])
    lib.ggc_graph_plan_free(plan[0])
    return units


def check_fusions(cuda: ctypes.CDLL, graph: int) -> Counter[str]:
    """Asserts what this file is for; the fusions that were found, by their operations."""
    units, found = units_of(graph), Counter[str]()
    pointer = ffi.cast("struct ggml_cgraph *", graph)
    names = [
        ffi.string(ggml.ggml_op_desc(ggml.ggml_graph_node(pointer, i))).decode()
        for i in range(len(units))
    ]
    for index in range(len(units)):
        last = index + cuda.fused(graph, index)
        text = " ".join(names[index : last + 1])
        if last > index:
            assert units[index] != lib.GGC_NONE
            assert set(units[index : last + 1]) == {units[index]}, f"node {index}: {text}"
            found[text] += 1
    return found


# Something that must be found, so that silence is no success.
ROUTER = "SOFT_MAX RESHAPE ARGSORT VIEW GET_ROWS RESHAPE SUM_ROWS CLAMP DIV RESHAPE"
EXPECTED = {
    "Gemma 3, 18 layers, decoding": "RMS_NORM MUL ROPE",
    "Llama, 16 layers with biases, decoding": "MUL_MAT ADD MUL_MAT ADD SWIGLU",
    "8 layers, attention beside feed-forward": "MUL_MAT MUL_MAT SWIGLU",
    "8 layers of experts": ROUTER,
}


@pytest.mark.parametrize("name", GRAPHS)
def test_fusions_of_known_graphs(cuda: ctypes.CDLL, name: str) -> None:
    with built(name) as graph:
        found = check_fusions(cuda, graph)
    assert EXPECTED.get(name) is None or found[EXPECTED[name]] > 0, found


def test_fusions_of_random_graphs(cuda: ctypes.CDLL) -> None:
    metal, found = Metal(need_built("tests", "metal_compare.so")), Counter[str]()
    for seed in range(100):
        with metal.random_graph(seed, 60) as graph:
            found += check_fusions(cuda, graph)
    assert found.total() > 100
