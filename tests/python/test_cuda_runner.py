"""Runner and Store with device="cuda0" on the simulated CUDA (tests/cuda/run_zoo.py).

No GPU is involved; what one gave is in docs/cuda.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tools import ROOT, need_built, run

import ggml_concurrent as ggc
from ggml_concurrent import zoo

GRAPHS = sorted(name for name in zoo.GRAPHS if name.endswith("-tiny"))
FLASH = ["bert-tiny", "falcon-h1-tiny", "falcon-tiny", "gemma3-tiny", "llama-tiny", "whisper-tiny"]


@pytest.fixture(scope="module")
def folder() -> Path:
    return need_built("tests", "cuda", "libggc-ggml-cuda-sim.so").parent


def check(folder: Path, *arguments: str) -> str:
    program = ROOT / "tests" / "cuda" / "run_zoo.py"
    result = run(sys.executable, program, folder, *arguments, timeout=240.0)
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_what_reads_before_it_waits_is_not_early(folder: Path) -> None:
    check(folder, "early")


@pytest.mark.parametrize("name", [*GRAPHS, *(f"{name}+flash" for name in FLASH)])
def test_graphs_give_the_cpus_bits(folder: Path, name: str) -> None:
    assert "captured" in check(folder, "zoo", name)


def test_every_failing_call_leaves_the_result_right(folder: Path) -> None:
    told = check(folder, "faults")
    assert told.count("without a CUDA graph") == 10
    assert told.count("computed serially") == 2


def test_runners_do_not_disturb_each_other(folder: Path) -> None:
    check(folder, "together")


def test_units_and_ways_are_timed_and_remembered(folder: Path) -> None:
    check(folder, "tuning")


def test_old_driver_is_told(folder: Path) -> None:
    check(folder, "old-driver")


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda-1", "cpu0", "metal1", "cuda0000", "", 5])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(ggc.DeviceError, match="no device"):
        ggc.Store(device=name)
    with ggc.Graph() as graph:
        x = graph.input("x", "f32", 4)
        graph.output(graph.sqr(x), "y")
        with pytest.raises(ggc.DeviceError, match="there are: 'cpu', 'metal', 'cuda0'"):
            ggc.Runner(graph, device=name)


def test_without_cuda_it_is_told() -> None:
    with pytest.raises(ggc.DeviceError, match="there is no CUDA"):
        ggc.Store(device="cuda0")
