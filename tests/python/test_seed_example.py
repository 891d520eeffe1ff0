"""The layer of llama.cpp issue #915, as docs/example-seed.md builds it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggml_concurrent as ggc

PAGE = Path(__file__).parents[2] / "docs" / "example-seed.md"
PROJECTIONS = {4: "k", 7: "v", 18: None}  # number -> the cache that it ends up in


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page's code defines; its last block, which prints, is left to its own test."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(blocks[0], namespace)  # noqa: S102  the page is ours
    namespace["show"] = blocks[1]
    return namespace


@pytest.fixture
def seed(page: dict[str, Any]) -> Any:
    """The graph, not allocated, and the weights by name."""
    with ggc.Store() as store, ggc.Graph() as graph:
        weights = page["weights"](store, np.random.default_rng(915))
        page["layer"](graph, weights)
        yield graph, weights


def group_of(plan: Any, node: int) -> tuple[list[int], int, int]:
    """The nodes between the two barriers around `node`, and where in the list those stand."""
    where = plan.list.index(node)
    begin = max(i for i in range(where) if plan.list[i] == ggc.BARRIER)
    end = plan.list.index(ggc.BARRIER, where)
    return plan.list[begin + 1 : end], begin, end


def test_operations_have_the_numbers_of_the_issue(seed: Any) -> None:
    graph, weights = seed
    for number, name in zip(PROJECTIONS, ("wk", "wv", "wq"), strict=True):
        assert graph.node(number).op == "MUL_MAT"
        assert graph.node(number).src[0] == weights[name]


def test_projections_come_out_between_two_barriers(seed: Any) -> None:
    graph, _ = seed
    plan = ggc.find_concurrency(graph, streams=3)
    group, begin, end = group_of(plan, 4)
    working = {n for n in group if graph.node(n).op not in ("VIEW", "RESHAPE", "PERMUTE", "NONE")}
    assert working == {4, 7, 18}
    assert plan.list[begin] == plan.list[end] == ggc.BARRIER


def test_projections_stand_together_in_the_order(seed: Any) -> None:
    graph, _ = seed
    plan = ggc.find_concurrency(graph, streams=3)
    assert sorted(plan.order) == list(range(len(graph)))
    (phase,) = [set(p) for p in plan.phases if 4 in p]
    assert {4, 7, 18} <= phase
    places = sorted(plan.order.index(n) for n in phase)
    assert places == list(range(places[0], places[0] + len(phase)))


def test_plan_is_proven(seed: Any) -> None:
    graph, _ = seed
    ggc.find_concurrency(graph, streams=3).verify()  # raises RaceError if not


def test_cache_write_waits_for_its_projection_only(seed: Any) -> None:
    graph, weights = seed
    plan = ggc.find_concurrency(graph, streams=3)
    for number, name in PROJECTIONS.items():
        if name is None:
            continue
        (write,) = [
            i
            for i in range(len(graph))
            if graph.node(i).op == "CPY" and graph.node(i).view_src == weights[name]
        ]
        (phase,) = [i for i, p in enumerate(plan.phases) if write in p]
        (before,) = [i for i, p in enumerate(plan.phases) if number in p]
        assert phase == before + 1


def test_runs_concurrently_with_the_serial_bits(page: dict[str, Any], seed: Any) -> None:
    graph, weights = seed
    past, tokens = page["PAST"], page["TOKENS"]
    rng = np.random.default_rng(3)
    caches = {name: rng.normal(0, 1, weights[name].ne[0]).astype("f4") for name in ("k", "v")}
    inputs = {
        "tokens": np.array([7, 42], dtype=np.int32),
        "q_positions": np.arange(past, past + tokens, dtype=np.int32),
        "k_positions": np.arange(past + tokens, dtype=np.int32),
    }
    with ggc.Runner(graph, streams=3, threads=3, always=True) as runner:
        results = []
        for compute in (runner.compute, lambda: ggc.compute_serial(graph, threads=1)):
            for name, values in caches.items():
                weights[name].set(values)
            for name, values in inputs.items():
                runner.set(name, values)
            compute()
            results.append(
                [runner.get("out").tobytes(), *(weights[n].numpy().tobytes() for n in caches)]
            )
    assert results[0] == results[1]


def test_the_page_prints_what_it_says(page: dict[str, Any], capsys: Any) -> None:
    exec(page["show"], dict(page))  # noqa: S102  the page is ours
    printed = capsys.readouterr().out.strip().splitlines()
    shown = re.search(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert shown[1].strip().splitlines() == printed
