"""Graphs that change, copies that do not block, captures of others (tests/cuda/run_changes.py)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from tools import ROOT, need_built, run

PROGRAM = ROOT / "tests" / "cuda" / "run_changes.py"
CASES = [
    "back-and-forth",
    "changes",
    "closing-meanwhile",
    "failing-transfers",
    "foreign-capture",
    "memory",
    "one-wait-a-step",
    "refusals",
    "refused-updates",
    "together",
    "transfers",
]


def test_cases_are_all_here() -> None:
    names = re.findall(r"^def run_(\w+)", PROGRAM.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name.replace("_", "-") for name in names) == CASES


@pytest.mark.parametrize("case", CASES)
def test_case(case: str) -> None:
    folder: Path = need_built("tests", "cuda", "libggc-ggml-cuda-sim.so").parent
    result = run(sys.executable, PROGRAM, folder, case, timeout=240.0)
    assert result.returncode == 0, result.stdout
