"""C objects: freed once, not before they are needed last, and none left behind."""

from __future__ import annotations

import gc
import resource
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf_writer import write_gguf
from tools import run

import ggml_concurrent as ggc
from ggml_concurrent import _native


def product(graph: ggc.Graph, weight: ggc.Tensor) -> ggc.Tensor:
    return graph.output(graph.mul_mat(weight, graph.input("x", "f32", weight.ne[0])), "y")


def use_everything(path: Path) -> None:
    """One of each: stores, a mapped file, a plan, a runner."""
    with ggc.Store() as store, ggc.Graph(size=64) as graph:
        store.zeros("k", "f16", (64, 64))
        store.array("q", np.ones((4, 64), "f4"), "q8_0")
        weight = store.gguf(path)["w"]
        product(graph, weight)
        ggc.find_concurrency(graph).verify()
        with ggc.Runner(graph) as runner:
            assert runner.run(x=np.ones(64))["y"].sum() == 64 * 16
        with pytest.raises(ggc.GraphError):
            graph.mul_mat(weight, store["k"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "w.gguf", {}, {"w": np.ones((16, 64), "f4")})


# --- leaks ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leak")
def test_context_managers_free_everything(path: Path) -> None:
    use_everything(path)


@pytest.mark.usefixtures("no_leak")
def test_references_free_everything(path: Path) -> None:
    """Without close(), and without waiting for the collector of cycles."""
    gc.disable()
    try:
        before = _native.live_handles()
        store, graph = ggc.Store(), ggc.Graph(size=64)
        tensor = product(graph, store.gguf(path)["w"])
        runner = ggc.Runner(graph)
        assert tensor.src[0] == store["w"]
        assert _native.live_handles() != before
        del store, graph, tensor, runner
        assert _native.live_handles() == before
    finally:
        gc.enable()


@pytest.mark.usefixtures("no_leak")
def test_failures_free_everything(tmp_path: Path) -> None:
    with ggc.Store() as store, ggc.Graph() as graph:
        for attempt in (
            lambda: store.zeros("x", "f32", (2**30, 2**20)),
            lambda: store.array("x", np.full(32, np.nan), "q4_0"),
            lambda: ggc.Runner(graph),
            lambda: ggc.find_concurrency(12345),
            lambda: graph.mul_mat(graph.input("a", "f32", 3), graph.input("b", "f32", 4)),
            lambda: ggc.GGUF(tmp_path / "none"),
            lambda: ggc.Graph(-1),
        ):
            with pytest.raises((ggc.Error, OSError)):
                attempt()


def test_many_rounds_take_no_more_memory(path: Path) -> None:
    for _ in range(30):
        use_everything(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(150):
        use_everything(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (4 << 10) * (1024 if sys.platform == "darwin" else 1)  # KiB; bytes on macOS


# --- lifetimes -----------------------------------------------------------------------------------


def test_tensor_keeps_its_owner() -> None:
    tensor = ggc.Store().zeros("x", "f32", 4)
    gc.collect()
    assert tensor.numpy().tolist() == [0, 0, 0, 0]
    node = ggc.Graph().input("y", "f32", 4)
    gc.collect()
    assert node.ne == (4, 1, 1, 1)


def test_graph_keeps_the_memory_of_a_closed_store(path: Path) -> None:
    before = _native.live_handles()
    graph, store = ggc.Graph(), ggc.Store()
    product(graph, store.gguf(path)["w"])
    store.close()
    del store
    gc.collect()
    with ggc.Runner(graph) as runner:
        assert runner.run(x=np.ones(64))["y"].tolist() == [64.0] * 16
    del runner
    graph.close()
    assert _native.live_handles() == before


def test_runner_keeps_everything(path: Path) -> None:
    def make() -> ggc.Runner:
        with ggc.Store() as store, ggc.Graph() as graph:
            product(graph, store.gguf(path)["w"])
            return ggc.Runner(graph)

    runner = make()
    gc.collect()
    assert runner.run(x=np.ones(64))["y"].tolist() == [64.0] * 16
    before = _native.live_handles()
    runner.close()
    after = _native.live_handles()
    assert before["runner"] - after.get("runner", 0) == 1
    assert before["graph"] - after.get("graph", 0) == 1
    assert before["buffer"] > after.get("buffer", 0)


def test_plan_keeps_nothing(path: Path) -> None:
    with ggc.Store() as store, ggc.Graph() as graph:
        product(graph, store.gguf(path)["w"])
        runner = ggc.Runner(graph)
        plan, gone = runner.plan, weakref.ref(runner)
        del runner
        assert gone() is None
        plan.verify()


def test_dropped_runner_frees_its_graph_for_change() -> None:
    with ggc.Graph() as graph:
        y = graph.output(graph.silu(graph.input("x", "f32", 4)), "y")
        runner = ggc.Runner(graph)
        del runner
        graph.output(graph.relu(y), "z")
        ggc.Runner(graph).run(x=np.zeros(4))


def test_closed_graph_cannot_be_used() -> None:
    graph = ggc.Graph()
    x = graph.input("x", "f32", 4)
    y = graph.output(graph.silu(x), "y")
    graph.close()
    graph.close()
    uses: list[Callable[[], object]] = [
        lambda: x.ne, lambda: x.nb, lambda: x.dtype, lambda: x.shape, lambda: x.nbytes,
        lambda: x.name, lambda: x.op, lambda: y.src, lambda: x.is_view, lambda: x.view_src,
        x.numpy, lambda: x.set([0] * 4), lambda: x.set_raw(bytes(16)),
        lambda: graph.silu(x), lambda: graph.input("z", "f32", 4), lambda: graph.output(y),
        lambda: graph.expand(y), lambda: graph.select([y], 0), lambda: graph.set_name(y, "z"),
        lambda: graph.nodes, lambda: graph.node(0), lambda: len(graph), lambda: graph.inputs,
        lambda: graph.outputs, lambda: graph.address, graph.__enter__,
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(ggc.ClosedError, match="closed"):
            use()
    assert x == x  # noqa: PLR0124  comparing needs no memory
    assert "closed" in repr(x)
    assert repr(graph) == "<Graph closed>"


@pytest.mark.parametrize("names", ["store graph runner", "runner graph store", ""])
def test_exit_without_closing(path: Path, names: str) -> None:
    """At the end of the interpreter, in whatever order the last references go."""
    program = f"""
import sys, threading
import numpy as np
import ggml_concurrent as ggc
graph = ggc.Graph()
store = ggc.Store()
graph.output(graph.mul_mat(store.gguf({str(path)!r})["w"], graph.input("x", "f32", 64)), "y")
runner = ggc.Runner(graph, streams=2)
runner.run(x=np.ones(64))
class Late:
    def __del__(self):
        self.kept = None
late = Late(); late.kept = (runner, store); late.itself = late
for name in {names.split()!r}:
    del globals()[name]
print("end")
"""
    result = run(sys.executable, "-c", program, timeout=60)
    assert (result.returncode, result.stdout) == (0, "end\n")
