"""Another package's ggml in the same process: neither captures the other, in either order."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from tools import run

# Computes 2 + 3 with the ggml of the package libggml-python, through its C API.
_THEIRS = """
import ctypes, importlib.util, os
from pathlib import Path

folder = Path(importlib.util.find_spec("libggml").submodule_search_locations[0])
folder = next(p for p in (folder / "lib64", folder / "lib") if p.is_dir())

def load(name):
    return ctypes.CDLL(str(folder / f"lib{name}.so.0"), mode=MODE)

class Params(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]

theirs_base, theirs_cpu = load("ggml-base"), load("ggml-cpu")
load("ggml")

def call(library, name, result, *arguments):
    function = getattr(library, name)
    function.restype = result
    return function(*arguments)

def compute_theirs():
    pointer = ctypes.c_void_p
    base = theirs_base
    context = pointer(call(base, "ggml_init", pointer, Params(1 << 20, None, False)))
    a, b = (pointer(call(base, "ggml_new_tensor_1d", pointer, context, 0, ctypes.c_int64(1)))
            for _ in range(2))
    for tensor, value in ((a, 2), (b, 3)):
        data = call(base, "ggml_get_data_f32", ctypes.POINTER(ctypes.c_float), tensor)
        data[0] = value
    total = pointer(call(base, "ggml_add", pointer, context, a, b))
    graph = pointer(call(base, "ggml_new_graph", pointer, context))
    call(base, "ggml_build_forward_expand", None, graph, total)
    call(theirs_cpu, "ggml_graph_compute_with_ctx", ctypes.c_int, context, graph, 1)
    result = call(base, "ggml_get_data_f32", ctypes.POINTER(ctypes.c_float), total)[0]
    call(base, "ggml_free", None, context)
    assert result == 5, result
    return call(base, "ggml_version", ctypes.c_char_p).decode()
"""

_OURS = """
import numpy as np
import ggml_concurrent as ggc
from ggml_concurrent import _native

def compute_ours():
    with ggc.Store() as store, ggc.Graph() as graph:
        y = graph.mul_mat(store.array("w", np.eye(4, dtype="f4") * 2), graph.input("x", "f32", 4))
        graph.output(graph.silu(graph.add(y, y)), "y")
        try:
            graph.mul_mat(y, store["w"])  # an assertion of our ggml, caught in ours
        except ggc.GraphError:
            pass
        try:
            graph.concat(y, y, 9)
        except ggc.GraphError as error:
            assert "GGML_ASSERT" in str(error)
        with ggc.Runner(graph, streams=2) as runner:
            out = runner.run(x=[-100, 0, 50, 100])["y"]
    assert out.tolist() == [0, 0, 200, 400], out
    return _native.message_of(_native.ggml.ggml_version())
"""

_BOTH = """
first, second = {order}
print(first(), second(), first(), second())
maps = Path("/proc/self/maps").read_text()
assert maps.count("libggml-base.so") and maps.count("libggc-ggml-base.so")
"""


@pytest.mark.parametrize("mode", ["RTLD_LOCAL", "RTLD_GLOBAL"])
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_two_ggmls(first: str, mode: str) -> None:
    if importlib.util.find_spec("libggml") is None:
        pytest.skip("libggml-python is not installed: pip install libggml-python==0.20.2.post1")
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not tell which libraries are loaded: no /proc/self/maps")
    theirs = f"import os\nMODE = os.{mode}\n{_THEIRS}"
    if first == "ours":
        program = _OURS + theirs + _BOTH.format(order="compute_ours, compute_theirs")
        versions = ["0.25.3", "0.20.2"]
    else:
        program = theirs + _OURS + _BOTH.format(order="compute_theirs, compute_ours")
        versions = ["0.20.2", "0.25.3"]
    result = run(sys.executable, "-c", program, timeout=60)
    assert result.returncode == 0, result.stdout
    assert result.stdout.split() == versions * 2
