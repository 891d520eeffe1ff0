"""Failing calls, graphs that change and several runners, on a GPU (tests/cuda/gpu.py).

The same on the simulated CUDA, so that what these tests do is tried without a GPU as well. What a
simulation alone can tell is in test_cuda_runner.py and test_cuda_changes.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tools import ROOT, need_built, run

from ggml_concurrent._native import _LIBRARIES

CASES = [
    ("run_changes.py", "back-and-forth"),
    ("run_changes.py", "changes"),
    ("run_changes.py", "closing-meanwhile"),
    ("run_changes.py", "failing-transfers"),
    ("run_changes.py", "foreign-capture"),
    ("run_changes.py", "refusals"),
    ("run_changes.py", "refused-updates"),
    ("run_changes.py", "together"),
    ("run_changes.py", "transfers"),
    ("run_zoo.py", "faults"),
    ("run_zoo.py", "together"),
]


def need_simulation() -> Path:
    """The folder of the simulated CUDA, which is not packed for other machines."""
    need_built("tests", "cuda", "libggc-ggml-cuda-sim.so")
    return need_built("tests", "cuda", "libfailing-calls.so").parent


def need_gpu() -> Path:
    """Where there is one, and a CUDA backend for it, whatever else goes wrong is a failure."""
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        pytest.skip("an NVIDIA GPU is missing: scripts/cuda check runs this on one")
    if not any(_LIBRARIES.glob("libggc-ggml-cuda.*")):
        pytest.skip(f"ggml's CUDA backend is missing in {_LIBRARIES}: scripts/cuda builds it")
    return need_built("tests", "cuda", "libfailing-calls.so").parent


@pytest.mark.parametrize("place", ["as-gpu", "gpu"])
@pytest.mark.parametrize(("program", "case"), CASES)
def test_case(place: str, program: str, case: str) -> None:
    folder = need_gpu() if place == "gpu" else need_simulation()
    path = ROOT / "tests" / "cuda" / program
    result = run(sys.executable, path, f"{place}:{folder}", case, timeout=240.0)
    assert result.returncode == 0, result.stdout


def test_simulated_cases_are_refused() -> None:
    folder = need_simulation()
    path = ROOT / "tests" / "cuda" / "run_changes.py"
    result = run(sys.executable, path, f"as-gpu:{folder}", "memory", timeout=240.0)
    assert result.returncode == 1
    assert "is for the simulated CUDA" in result.stdout
