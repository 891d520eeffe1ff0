"""The simulated CUDA device (tests/cuda): what dispatch to CUDA is tested on where there is no GPU.

Each test runs a program of its own, since the fake driver takes the place of CUDA's in its process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tools import ROOT, need_built, run

from ggml_concurrent import zoo

CASES = [
    "arguments_by_value",
    "bits",
    "copies_between_instances",
    "devices",
    "events",
    "faults",
    "left_out",
    "own_graphs",
    "own_graphs_by_uid",
    "own_graphs_inside_a_capture",
    "plans",
    "rows",
    "scratch",
    "transfers",
    "waiting_ops",
]
GRAPHS = sorted(name for name in zoo.GRAPHS if name.endswith("-tiny"))
TIMEOUT = 240.0


@pytest.fixture(scope="module")
def folder() -> Path:
    return need_built("tests", "cuda", "sim_cases").parent


def check(*command: str | Path) -> None:
    result = run(*command, timeout=TIMEOUT, OMP_WAIT_POLICY="passive")
    assert result.returncode == 0, result.stdout


def test_cases_are_all_here() -> None:
    source = (ROOT / "tests" / "cuda" / "sim_cases.c").read_text(encoding="utf-8")
    table = source[source.index("} cases[] = {") :].splitlines()[1:]
    names = [line.split('"')[1] for line in table[: table.index("};")]]
    assert sorted(names) == CASES


def test_module_brings_its_driver(folder: Path) -> None:
    """A program that opens CUDA's driver by its name gets the fake one."""
    code = """
import ctypes, sys
ctypes.CDLL(sys.argv[1], mode=0)
driver = ctypes.CDLL("libcuda.so.1")
version = ctypes.c_int()
assert driver.cuDriverGetVersion(ctypes.byref(version)) == 0
driver.fake_live.restype = ctypes.c_uint64
assert driver.fake_live(b"stream") == 0
"""
    check(sys.executable, "-c", code, folder / "libggc-ggml-cuda-sim.so")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_case(folder: Path, case: str) -> None:
    check(folder / "sim_cases", case, os.environ.get("GGC_TEST_SEED", "1"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("graph", GRAPHS)
def test_zoo(folder: Path, graph: str) -> None:
    check(sys.executable, ROOT / "tests" / "cuda" / "play_zoo.py", folder, graph)
