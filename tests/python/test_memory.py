"""Memory that tensors share: reports, budgets, the pool, pictures."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import ggml_concurrent as ggc
from ggml_concurrent import _native, zoo

TINY = sorted(name for name in zoo.GRAPHS if name.endswith("-tiny"))
WIDTH = 1024


@pytest.fixture
def branches(graph: ggc.Graph) -> ggc.Graph:
    """Two chains of four, and their sum; (8 + 1) results of 4 KiB, one of them an output."""
    x = graph.input("x", "f32", ne=(WIDTH,))
    ends = []
    for factor in (2.0, 3.0):
        y = x
        for _ in range(4):
            y = graph.soft_max(graph.scale(y, factor))
        ends.append(y)
    graph.output(graph.add(*ends), name="y")
    return graph


def compute(runner: ggc.Runner) -> np.ndarray:
    runner.set("x", np.linspace(-1, 1, WIDTH, dtype=np.float32))
    runner.compute()
    return runner.get("y")


def test_report(branches: ggc.Graph) -> None:
    with ggc.Runner(branches, streams=2) as runner:
        memory = runner.memory
    assert memory.sharing == "none"
    assert memory.tensors == len(memory.blocks) == 18
    assert memory.size == memory.no_reuse == 18 * WIDTH * 4
    assert memory.buffers == 1
    assert memory.serial_peak <= memory.bound <= memory.no_reuse
    assert memory.budget == memory.serial_peak + 32 * 2**20  # no weights to speak of
    assert memory.seconds > 0


def test_blocks(branches: ggc.Graph) -> None:
    with ggc.Runner(branches, streams=2, always=True, strategy="levels", budget=0) as runner:
        memory, plan = runner.memory, runner.plan
    inputs = [block for block in memory.blocks if block.stream < 0]
    assert [block.name for block in inputs] == ["x"]
    end = max(block.finish for block in memory.blocks)
    assert (inputs[0].start, inputs[0].finish) == (0, end)
    for block in memory.blocks:
        assert 0 <= block.offset < block.offset + block.size <= memory.size + 128
        assert block.size == WIDTH * 4
        assert block.units == tuple(sorted(set(block.units)))
        assert all(unit < plan.stats.n_units for unit in block.units)
        assert 0 <= block.start < block.finish <= end
        assert block.stream < plan.stats.n_streams


def together(a: ggc.memory.Block, b: ggc.memory.Block) -> bool:
    in_bytes = a.offset < b.offset + b.size and b.offset < a.offset + a.size
    return in_bytes and a.buffer == b.buffer


@pytest.mark.parametrize("budget", [0, 5 * 4096, 6 * 4096, 7 * 4096, 8 * 4096, 12 * 4096])
@pytest.mark.parametrize("strategy", ["list", "levels"])
def test_results_are_the_same_at_any_budget(
    branches: ggc.Graph, budget: int, strategy: str
) -> None:
    with ggc.Runner(branches, streams=1, budget=0) as runner:
        expected, least = compute(runner), runner.memory.size
    with ggc.Runner(
        branches, streams=2, always=True, strategy=strategy, budget=budget, stress_seed=7
    ) as runner:
        memory = runner.memory
        assert compute(runner).tobytes() == expected.tobytes()
        ggc.compute_serial(branches)  # the graph's own order is right, too
        assert runner.get("y").tobytes() == expected.tobytes()
    assert memory.size <= max(budget, least)
    shared = sum(together(a, b) for a in memory.blocks for b in memory.blocks if a is not b)
    assert shared > 0
    for a in memory.blocks:  # in use at the same time, so apart; or computed in place
        for b in memory.blocks:
            if a.name < b.name and together(a, b):
                assert max(a.units) <= min(b.units) or max(b.units) <= min(a.units)


@pytest.mark.parametrize("name", TINY)
def test_tiny_graphs_of_the_zoo(name: str) -> None:
    with zoo.build(name) as workload, workload.runner(streams=1, tune="off", budget=0) as runner:
        peak, least = runner.memory.serial_peak, runner.memory.size
        expected = {k: v.tobytes() for k, v in workload.run(runner).items()}
    for budget in (0, int(1.1 * peak), 2 * peak):
        with (
            zoo.build(name) as workload,
            workload.runner(streams=3, always=True, budget=budget, stress_seed=3) as runner,
        ):
            memory = runner.memory
            assert memory.size <= max(budget, least)
            values = {k: v.tobytes() for k, v in workload.run(runner).items()}
            assert values == expected, (budget, memory)


@pytest.mark.parametrize("name", ["llama-tiny", "towers-tiny"])
def test_sketch_is_what_a_runner_does(name: str) -> None:
    for budget in (None, 0, 20000):
        with zoo.build(name) as workload:
            sketch = ggc.sketch_memory(workload.graph, streams=3, budget=budget)
            with workload.runner(streams=3, budget=budget) as runner:
                memory = runner.memory
        assert sketch.memory.size == memory.size
        assert sketch.memory.sharing == memory.sharing
        assert sketch.memory.bound == memory.bound
        assert sketch.memory.serial_peak == memory.serial_peak
        assert 0 < sketch.no_reuse <= sketch.planned <= 1.01 * sketch.serial
        assert 0 < sketch.kept <= 1
        assert sketch.plan_seconds > 0


def test_sketch_without_weights_is_the_same() -> None:
    sketches = []
    for weights in (True, False):
        with zoo.build("llama-tiny", weights=weights) as workload:
            sketches.append(ggc.sketch_memory(workload.graph, streams=3, budget=20000))
            again = ggc.sketch_memory(workload.graph, streams=3, budget=20000)
        assert again.memory.size == sketches[-1].memory.size  # the graph is as it was
    assert sketches[0].memory.size == sketches[1].memory.size
    assert sketches[0].memory.serial_peak == sketches[1].memory.serial_peak


def test_sketch_refuses(branches: ggc.Graph) -> None:
    with pytest.raises(ggc.GraphError, match="budget is -1"):
        ggc.sketch_memory(branches, budget=-1)
    with pytest.raises(TypeError, match="expected a Graph"):
        ggc.sketch_memory(None)  # type: ignore[arg-type]


def test_default_budget_grows_with_the_weights(store: ggc.Store, graph: ggc.Graph) -> None:
    w = store.placeholder("w", "f32", (4096, 8192, 16))  # 2 GiB
    graph.output(graph.mul_mat(w, graph.input("x", "f32", ne=(4096, 1, 16))), name="y")
    memory = ggc.sketch_memory(graph).memory
    assert memory.budget == memory.serial_peak + w.nbytes // 50


def test_pool_keeps_the_memory(branches: ggc.Graph, no_leak: None) -> None:
    with ggc.Pool() as pool:
        with ggc.Runner(branches, pool=pool) as runner:
            expected = compute(runner)
        with ggc.Runner(branches, pool=pool) as runner:
            assert compute(runner).tobytes() == expected.tobytes()
        runner = ggc.Runner(branches, pool=pool)
    assert pool.closed  # the runner keeps what it needs of it
    assert compute(runner).tobytes() == expected.tobytes()
    runner.close()
    assert "pool" not in _native.live_handles()
    with pytest.raises(ggc.ClosedError):
        ggc.Runner(branches, pool=pool)
    with pytest.raises(TypeError, match="pool: expected a Pool, got str"):
        ggc.Runner(branches, pool="a pool")  # type: ignore[arg-type]


def test_picture(branches: ggc.Graph) -> None:
    for budget in (None, 0):
        with ggc.Runner(branches, streams=2, always=True, budget=budget) as runner:
            memory = runner.memory
        root = ET.fromstring(memory.to_svg(width=400, height=300))  # noqa: S314  our own
        space = "{http://www.w3.org/2000/svg}"
        blocks = [r for r in root.iter(f"{space}rect") if r.find(f"{space}title") is not None]
        assert len(blocks) == len(memory.blocks)
        for rect in blocks:
            assert 0 <= float(rect.get("x", "")) <= 400
            assert 0 <= float(rect.get("y", "")) <= 300
            assert float(rect.get("x", "")) + float(rect.get("width", "")) <= 400
            assert float(rect.get("y", "")) + float(rect.get("height", "")) <= 300


def test_picture_of_nothing() -> None:
    memory = ggc.Memory("none", 0, 0, 0, 0, 0, 0, 0, 0.0)
    ET.fromstring(memory.to_svg())  # noqa: S314  our own


def test_names_are_escaped(graph: ggc.Graph) -> None:
    x = graph.input("<&>", "f32", ne=(8,))
    graph.output(graph.sqr(x), name="y")
    with ggc.Runner(graph) as runner:
        assert "&lt;&amp;&gt;" in runner.memory.to_svg()
