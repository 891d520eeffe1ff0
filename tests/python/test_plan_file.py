"""Plans as data: files that are written, read, refused; DOT; the critical path."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ggml_concurrent as ggc


def layer(store: ggc.Store, graph: ggc.Graph, padding: int = 0) -> None:
    """Projections, a cache written through one view and read through another, a join."""
    rng = np.random.default_rng(5)
    if padding:
        store.zeros("padding", "f32", ne=(padding,))
    x = graph.rms_norm(graph.input("x", "f32", ne=(32, 2)), eps=1e-6)
    w = [store.array(f"w{i}", rng.standard_normal((32, 32), np.float32)) for i in range(3)]
    q, k, v = (graph.mul_mat(weight, x) for weight in w)
    cache = store.zeros("cache", "f32", ne=(32, 8))
    graph.expand(graph.cpy(k, graph.view_2d(cache, 32, 2, nb1=128, offset=256)))
    scores = graph.mul_mat(graph.view_2d(cache, 32, 4, nb1=128, offset=0), q)
    graph.output(graph.sum(scores), name="scores")
    graph.output(graph.add(v, q), name="sum")


def plan_of(padding: int = 0, **options: Any) -> ggc.Plan:
    with ggc.Store() as store, ggc.Graph() as graph:
        layer(store, graph, padding)
        return ggc.find_concurrency(graph, **options)


@pytest.mark.parametrize("strategy", ["list", "levels", "cover", "serial"])
def test_what_is_written_is_read(strategy: str) -> None:
    plan = plan_of(streams=3, strategy=strategy)
    read = ggc.Plan.from_json(plan.to_json())
    read.verify()
    assert read.to_json() == plan.to_json()
    assert (read.phases, read.streams, read.units) == (plan.phases, plan.streams, plan.units)
    assert (read.deps, read.labels) == (plan.deps, plan.labels)
    assert read.critical_path() == plan.critical_path()
    assert str(read) == str(plan)


def test_equal_graphs_give_equal_files_wherever_their_tensors_lie() -> None:
    assert plan_of().to_json() == plan_of(padding=12345).to_json()


def test_a_plan_of_nothing() -> None:
    with ggc.Graph() as graph:
        plan = ggc.find_concurrency(graph)
    assert ggc.Plan.from_json(plan.to_json()).to_json() == plan.to_json()
    assert plan.critical_path() == []


def test_a_read_plan_can_still_be_found_to_race() -> None:
    data = json.loads(plan_of(streams=3, strategy="levels").to_json())
    waits = [step["waits"] for steps in data["streams"] for step in steps if step["waits"]]
    waits[0].clear()
    with pytest.raises(ggc.RaceError):
        ggc.Plan.from_json(json.dumps(data)).verify()


def test_critical_path() -> None:
    plan = plan_of()
    path = plan.critical_path()
    assert all(a in plan.deps[b] for a, b in itertools.pairwise(path))
    cost = sum(plan.proof.cost(unit) for unit in path)
    assert cost == pytest.approx(plan.stats.critical)


def test_dot_names_every_unit_and_dependence() -> None:
    plan = plan_of()
    text = plan.to_dot()
    assert text.startswith("digraph")
    assert text.count("{") == text.count("}")
    assert all(f"u{u} [label=" in text for u in range(len(plan.units)))
    assert text.count(" -> ") == sum(map(len, plan.deps))


def test_dot_quotes_names() -> None:
    with ggc.Graph() as graph:
        x = graph.input("x", "f32", ne=(4,))
        graph.output(graph.relu(x), name='a "quoted\\ name')
        text = ggc.find_concurrency(graph).to_dot()
    assert 'a \\\\"quoted' not in text
    assert '\\"quoted' in text
    assert "\\\\ name" in text


#
# Refusals: each damage, and the field that the message names
#


def first_step(data: dict[str, Any]) -> dict[str, Any]:
    return data["streams"][0][0]


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (lambda d: d.update(format="x"), "format"),
    "a later version": (lambda d: d.update(version=2), "version"),
    "a version that is true": (lambda d: d.update(version=True), "version"),
    "a missing part": (lambda d: d.pop("streams"), "plan"),
    "a part too many": (lambda d: d.update(more=1), "plan"),
    "labels of another kind": (lambda d: d["nodes"].__setitem__(0, 7), r"nodes\[0\]"),
    "a node outside": (lambda d: d["units"][0].update(nodes=[99]), r"units\[0\].nodes\[0\]"),
    "a node twice": (lambda d: d["units"][0].update(nodes=[1, 1]), r"units\[0\].nodes"),
    "no nodes": (lambda d: d["units"][0].update(nodes=[]), r"units\[0\].nodes"),
    "a negative cost": (lambda d: d["units"][1].update(cost=-1), r"units\[1\].cost"),
    "a fence that is 1": (lambda d: d["units"][0].update(fence=1), r"units\[0\].fence"),
    "an unknown mode": (
        lambda d: d["units"][0]["accesses"].append(["x", 0, 0, 1, 0, 1]),
        "accesses",
    ),
    "a short access": (lambda d: d["units"][0]["accesses"].append(["r", 0]), "accesses"),
    "a huge offset": (
        lambda d: d["units"][0]["accesses"].append(["w", 0, 2**64, 1, 0, 1]),
        "offset",
    ),
    "an access past the end": (
        lambda d: d["units"][0]["accesses"].append(["w", 0, 2**64 - 1, 9, 0, 1]),
        "units",
    ),
    "a fraction": (lambda d: d["units"][0]["accesses"].append(["w", 0, 0.5, 9, 0, 1]), "offset"),
    "a node in no phase": (lambda d: d["phases"].pop(), "phases"),
    "a phase that is no list": (lambda d: d["phases"].__setitem__(0, 3), r"phases\[0\]"),
    "a unit on no stream": (lambda d: d["streams"][0].pop(), "streams"),
    "a unit twice": (lambda d: d["streams"].append(d["streams"][0]), "streams"),
    "a wait for nobody": (lambda d: first_step(d).update(waits=[-1]), r"streams\[0\]\[0\].waits"),
    "a step of another kind": (lambda d: d["streams"].insert(0, [5]), r"streams\[0\]\[0\]"),
    "too many streams": (lambda d: d["streams"].extend([[]] * 65), "streams"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused(name: str) -> None:
    damage, field = DAMAGE[name]
    data = json.loads(plan_of(streams=2, strategy="levels").to_json())
    damage(data)
    with pytest.raises(ggc.FormatError, match=field):
        ggc.Plan.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "NaN", "[" * 100_000, '{"a":' * 10_000, b"\xff\xfe", "1e999"]
)
def test_texts_that_are_no_plan_are_refused(text: str | bytes) -> None:
    with pytest.raises(ggc.FormatError):
        ggc.Plan.from_json(text)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in children:
            yield from places(child, (*path, key))


def test_any_value_anywhere_is_survived() -> None:
    """Whatever stands in a field, the plan is refused by name or is one that can be verified."""
    data = json.loads(plan_of(streams=3, strategy="levels").to_json())
    rng = random.Random(11)
    values = [None, True, -1, 0, 1, 3, 2**32, 2**64, 1.5, 1e308, "", "r", [], [0], {}, [[[]]]]
    refused = read = 0
    for path in list(places(data))[1:]:
        for value in rng.sample(values, 5):
            spoiled = copy.deepcopy(data)
            at = spoiled
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            try:
                plan = ggc.Plan.from_json(json.dumps(spoiled))
            except ggc.FormatError:
                refused += 1
                continue
            read += 1
            with contextlib.suppress(ggc.RaceError, ggc.PlanError):
                plan.verify()
            str(plan), plan.to_dot(), plan.critical_path()
            if len(plan.units) > 1:
                plan.explain(plan.units[0][0], plan.units[1][0])
    assert refused > 500
    assert read > 20
