"""The drop-in inside plain ggml that computes the zoo through its scheduler, on the CPU and on the
simulated CUDA (tests/cuda/run_dropin.py).

ggml is this project's own copy here, which the drop-in holds for tests only; other people's are in
test_dropin_llama.py and test_dropin_ways.py.  No GPU is involved.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tools import ROOT, need_built, run

from ggml_concurrent import zoo

GRAPHS = sorted(name for name in zoo.GRAPHS if name.endswith("-tiny"))


@pytest.fixture(scope="module")
def folder() -> Path:
    return need_built("tests", "cuda", "libggc-ggml-cuda-sim.so").parent


def check(folder: Path, *arguments: str) -> str:
    program = ROOT / "tests" / "cuda" / "run_dropin.py"
    result = run(sys.executable, program, folder, *arguments, timeout=240.0)
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_graphs_on_cuda_give_the_cpus_bits(folder: Path) -> None:
    graphs = [*GRAPHS, "gemma3-tiny+flash", "llama-tiny+flash", "whisper-tiny+flash"]
    told = check(folder, "zoo", *graphs)
    assert told.count("8 on streams, 1 captured") == len(graphs), told
    assert "llama-tiny+flash: 8 on streams, 1 captured, 2 refused" in told, told


def test_graphs_on_the_cpu_give_the_same_bits(folder: Path) -> None:
    told = check(folder, "cpu", *GRAPHS)
    assert told.count("1 plans") == len(GRAPHS), told


def test_every_failing_call_leaves_the_result_right(folder: Path) -> None:
    told = check(folder, "faults")
    assert "init: ggml could not start" in told
    assert "event: CUDA0 has no events" in told


def test_backends_do_not_disturb_each_other(folder: Path) -> None:
    check(folder, "together")


def test_ways_are_timed_on_the_runners_computations(folder: Path) -> None:
    timed, remembered = check(folder, "tuning").splitlines()
    assert not timed.startswith("0 timed")
    assert remembered.startswith("0 timed")


def test_ways_that_cannot_pay_are_not_tried(folder: Path) -> None:
    told = check(folder, "not-tried")
    assert told.count("plans") == 6, told
