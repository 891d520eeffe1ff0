"""The zoo's graphs against those that llama.cpp builds for the same tiny models.

tests/python/data/graphs was recorded by scripts/record_graphs.py.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

import numpy as np
import pytest
from graph_cases import CASES, TARGET

from ggml_concurrent import zoo


def recorded() -> list[Any]:
    return [
        pytest.param(name, i, id=f"{name}-{n_past}+{n_tokens}")
        for name, case in CASES.items()
        for i, (n_past, n_tokens) in enumerate(case.passes)
    ]


def load(name: str, index: int) -> dict[str, Any]:
    document = json.loads((TARGET / f"{name}.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = document["passes"][index]
    n_past, n_tokens = CASES[name].passes[index]
    assert (found["n_past"], found["n_tokens"]) == (n_past, n_tokens)
    return found


def lines(nodes: list[tuple[str, list[int]]]) -> list[str]:
    return [f"{op} {' x '.join(map(str, ne))}" for op, ne in nodes]


@pytest.mark.parametrize(("name", "index"), recorded())
def test_nodes_are_llama_cpps(name: str, index: int) -> None:
    theirs = load(name, index)
    case = CASES[name]
    with zoo.build(
        name,
        n_past=theirs["n_past"],
        n_tokens=theirs["n_tokens"],
        flash_attn=case.flash_attn,
    ) as workload:
        ours = [(node.op, list(node.ne)) for node in workload.graph.nodes]
    diff = list(difflib.unified_diff(lines(theirs["nodes"]), lines(ours), "llama.cpp", "zoo", n=2))
    changed = {
        line[1:].split()[0] for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")
    }
    assert changed <= set(case.differences), "\n".join(diff[:80])
    assert changed == set(case.differences), "a listed difference does not occur any more"


@pytest.mark.parametrize(("name", "index"), recorded())
def test_logits_are_llama_cpps(name: str, index: int) -> None:
    theirs = load(name, index)
    if theirs["n_past"]:
        pytest.skip("the caches of the zoo are random: only graphs without a past are comparable")
    options = {"zero_caches": True, "flash_attn": CASES[name].flash_attn}
    with (
        zoo.build(name, n_past=0, n_tokens=theirs["n_tokens"], **options) as workload,
        workload.runner(streams=2, always=True) as runner,
    ):
        output = next(iter(workload.run(runner).values())).reshape(-1)
    expected = np.array(theirs["logits"], np.float32)
    np.testing.assert_allclose(output[: expected.size], expected, rtol=1e-4, atol=1e-4)
