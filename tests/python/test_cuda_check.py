"""scripts/cuda_check.py on the CPU: what it compares, and that it notices a difference."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tools import ROOT, load_script, run

import ggml_concurrent as ggc
from ggml_concurrent import zoo

SCRIPT = ROOT / "scripts" / "cuda_check.py"


@pytest.mark.parametrize("brief", [True, False])
def test_equal_bits(tmp_path: Path, brief: bool) -> None:
    found = tmp_path / "found.json"
    more = ["--brief"] if brief else []
    result = run(sys.executable, SCRIPT, "--device", "cpu", *more, "--json", found, "towers-tiny")
    assert result.returncode == 0, result.stdout
    assert "same bits" in result.stdout
    ways = json.loads(found.read_text())["towers-tiny"]
    assert ("tuned" in ways) == (not brief)
    assert ways["8 streams"]["streams"] > 1


@pytest.fixture
def script() -> ModuleType:
    return load_script(SCRIPT)


def test_what_only_other_inputs_show(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if streams had read what the computation before had left."""
    outputs = zoo.Workload.outputs

    def late(self: zoo.Workload, runner: ggc.Runner, step: int) -> dict[str, np.ndarray]:
        is_late = runner.plan.stats.n_streams > 1 and step > 0
        return outputs(self, runner, step - is_late)

    monkeypatch.setattr(zoo.Workload, "outputs", late)
    found: dict[str, Any] = script.check("llama-tiny", "cpu", brief=True, flash=False)
    assert script.wrong(found)["8 streams"] == ["logits"]


def test_that_plain_ggml_differs_is_told(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if its kernels had begun too early, and ours had not."""
    outputs = zoo.Workload.outputs

    def early(self: zoo.Workload, runner: ggc.Runner, step: int) -> dict[str, np.ndarray]:
        is_early = runner.plan.stats.n_streams == 1 and step > 0
        return outputs(self, runner, step - is_early)

    monkeypatch.setattr(zoo.Workload, "outputs", early)
    found: dict[str, Any] = script.check("towers-tiny", "cpu", brief=True, flash=False)
    assert not script.wrong(found)
    assert "same bits (ggml's scheduler has not: y" in script.line("towers-tiny", found)


def test_a_reference_that_fails_is_told(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "__file__", "missing.py")
    with pytest.raises(ggc.Error, match=r"plain ggml: .*missing\.py"):
        script.check("towers-tiny", "cpu", brief=True, flash=False)
