"""Running graphs: the bits are ggml's, and whatever goes wrong is an exception."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from recipes import RECIPES, right_arguments

import ggml_concurrent as ggc


@pytest.fixture
def sum_graph(graph: ggc.Graph) -> ggc.Graph:
    x, y = graph.input("x", "f32", 4), graph.input("y", "f32", 4)
    graph.output(graph.add(x, y), "sum")
    return graph


def values_for(tensor: ggc.Tensor, rng: np.random.Generator) -> np.ndarray:
    """Row numbers that are in range everywhere, or numbers between 0.1 and 1.1."""
    if tensor.dtype.startswith("i"):
        return np.zeros(tensor.shape, np.int32)
    return rng.uniform(0.1, 1.1, tensor.shape).astype("f4")


def set_all(runner: ggc.Runner, rng: np.random.Generator) -> None:
    for name, tensor in runner.graph.inputs.items():
        if name not in runner._unused:
            runner.set(name, values_for(tensor, rng))


# --- results -------------------------------------------------------------------------------------


def test_run(sum_graph: ggc.Graph) -> None:
    with ggc.Runner(sum_graph) as runner:
        out = runner.run(x=[1, 2, 3, 4], y=np.ones(4))
        assert list(out) == ["sum"]
        assert out["sum"].tolist() == [2, 3, 4, 5]
        assert runner.run(x=np.zeros(4))["sum"].tolist() == [1, 1, 1, 1]  # y is as before


def test_steps(sum_graph: ggc.Graph) -> None:
    with ggc.Runner(sum_graph) as runner:
        runner.set("x", [1, 2, 3, 4])
        runner.set_raw("y", np.full(4, 2, "f4"))
        runner.compute()
        assert runner.get("sum").tolist() == [3, 4, 5, 6]
        assert sum_graph.outputs["sum"].numpy().tolist() == [3, 4, 5, 6]


def test_names_that_are_no_identifiers(graph: ggc.Graph) -> None:
    graph.output(graph.silu(graph.input("a.b", "f32", 4)), "c.d")
    with ggc.Runner(graph) as runner:
        out = runner.run({"a.b": np.zeros(4)})
        assert out["c.d"].tolist() == [0, 0, 0, 0]
        out["c.d"][:] = 9  # a copy
        assert runner.get("c.d").tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("op", RECIPES)
def test_every_operation_gives_ggmls_bits(op: str, rng: np.random.Generator) -> None:
    """On two streams, and with plain ggml on the same memory."""
    with ggc.Graph() as graph:
        tensor = getattr(graph, op)(*right_arguments(graph, op))
        graph.output(graph.cont(tensor) if tensor.op in ("VIEW", "PERMUTE") else tensor, "out")
        with ggc.Runner(graph, streams=2, threads=2, always=True) as runner:
            values = {n: values_for(t, rng) for n, t in graph.inputs.items()}
            results = []
            for compute in (runner.compute, lambda: ggc.compute_serial(graph, threads=2)):
                for name, array in values.items():  # again: some operations write their inputs
                    if name not in runner._unused:
                        runner.set(name, array)
                compute()
                results.append(runner.get("out"))
        assert results[0].tobytes() == results[1].tobytes()
        assert results[0].any() or op in ("argmax", "diag_mask_zero") or not values


def towers(graph: ggc.Graph, store: ggc.Store, rng: np.random.Generator) -> ggc.Tensor:
    """Four chains of products that meet."""
    x = graph.input("x", "f32", (64, 3))
    ends = []
    for i in range(4):
        y = x
        for j in range(4):
            w = store.array(f"w{i}{j}", rng.standard_normal((64, 64)).astype("f4") / 8)
            y = graph.silu(graph.mul_mat(w, y))
        ends.append(y)
    return graph.output(graph.add(graph.add(ends[0], ends[1]), graph.add(ends[2], ends[3])), "out")


def streams_of(graph: ggc.Graph, *, always: bool) -> int:
    with ggc.Runner(graph, streams=2, threads=2, tune="off", always=always) as runner:
        return runner.plan.stats.n_streams


def test_streams_are_used_where_they_pay(store: ggc.Store, rng: np.random.Generator) -> None:
    """Many small operations side by side gain; large ones are as fast on all threads in turn."""
    small = rng.standard_normal((256, 256)).astype("f4")
    large = rng.standard_normal((2048, 2048)).astype("f4")
    with ggc.Graph() as graph:
        x = graph.input("x", "f32", ne=(256,))
        for t in range(8):
            y = x
            for i in range(8):
                y = graph.mul_mat(store.array(f"s{t}.{i}", small), y)
            graph.output(y, name=f"y{t}")
        assert streams_of(graph, always=False) == 2
    with ggc.Graph() as graph:
        x = graph.input("x", "f32", ne=(2048,))
        for t in range(2):
            graph.output(graph.mul_mat(store.array(f"l{t}", large), x), name=f"y{t}")
        assert streams_of(graph, always=False) == 1
        assert streams_of(graph, always=True) == 2


@pytest.mark.parametrize("streams", [1, 2, 3, 4])
@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("strategy", ["list", "levels", "serial"])
def test_towers(
    graph: ggc.Graph, store: ggc.Store, rng: np.random.Generator,
    streams: int, budget: int | None, strategy: str,
) -> None:  # fmt: skip
    towers(graph, store, rng)
    x = rng.standard_normal((3, 64)).astype("f4")
    with ggc.Runner(
        graph, streams=streams, threads=streams, strategy=strategy, budget=budget, stress_seed=915
    ) as runner:
        runner.plan.verify()
        first = runner.run(x=x)["out"]
        for _ in range(20):
            assert runner.run(x=x)["out"].tobytes() == first.tobytes()
        ggc.compute_serial(graph, threads=1)
        assert runner.get("out").tobytes() == first.tobytes()


def test_sharing_memory_needs_less(
    graph: ggc.Graph, store: ggc.Store, rng: np.random.Generator
) -> None:
    towers(graph, store, rng)
    with ggc.Runner(graph, budget=0) as runner:
        shared = runner.buffer_size
    with ggc.Runner(graph) as runner:
        assert 0 < shared < runner.buffer_size


@pytest.mark.parametrize("streams", [1, 2])
def test_trace(graph: ggc.Graph, store: ggc.Store, rng: np.random.Generator, streams: int) -> None:
    towers(graph, store, rng)
    x = rng.standard_normal((3, 64)).astype("f4")
    with ggc.Runner(graph, streams=streams, always=True, trace=True) as runner:
        runner.run(x=x)
        start, end = runner.unit_times()
        assert start.shape == end.shape == (runner.plan.stats.n_units,)
        assert (end >= start).all()
        assert len(runner.plan.streams) == streams
        for steps in runner.plan.streams:
            for step, after in itertools.pairwise(steps):
                assert 0 < end[step.unit] <= start[after.unit]
            for step in steps:
                assert all(end[other] <= start[step.unit] for other in step.waits)
    with (
        ggc.Runner(graph, streams=streams) as runner,
        pytest.raises(ggc.Error, match="trace=True"),
    ):
        runner.unit_times()


def test_numpy_agrees(graph: ggc.Graph, store: ggc.Store, rng: np.random.Generator) -> None:
    w = rng.standard_normal((8, 16)).astype("f4")
    x = rng.standard_normal((3, 16)).astype("f4")
    y = graph.mul_mat(store.array("w", w), graph.input("x", "f32", (16, 3)))
    graph.output(graph.soft_max(y), "p")
    with ggc.Runner(graph) as runner:
        out = runner.run(x=x)["p"]
    e = np.exp(x @ w.T)
    np.testing.assert_allclose(out, e / e.sum(-1, keepdims=True), rtol=1e-4)


def test_caches_keep_their_values(graph: ggc.Graph, store: ggc.Store) -> None:
    cache = store.zeros("cache", "f32", (2, 4))
    row, new = graph.input("row", "i64", 1), graph.input("new", "f32", 2)
    graph.expand(graph.set_rows(cache, new, row))
    graph.output(graph.sum_rows(cache), "sums")
    with ggc.Runner(graph) as runner:
        for i in range(4):
            out = runner.run(row=[i], new=[i + 1, i + 1])["sums"]
    assert out.ravel().tolist() == [2, 4, 6, 8]
    assert cache.numpy().tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"streams": 0}, ggc.GraphError, "streams is 0, expected 1 to 64"),
        ({"streams": 65}, ggc.GraphError, "streams is 65"),
        ({"streams": "2"}, TypeError, "expected an int"),
        ({"threads": 0}, ggc.GraphError, "threads is 0"),
        ({"threads": 10**6}, ggc.GraphError, "threads is 1000000"),
        ({"device": "cuda"}, ggc.DeviceError, "no device 'cuda'"),
        ({"fuse": "all"}, ggc.GraphError, "fuse is 'all'"),
        ({"strategy": "fast"}, ggc.GraphError, "strategy is 'fast'"),
        ({"budget": -1}, ggc.GraphError, "budget is -1"),
    ],
)
def test_wrong_arguments(
    sum_graph: ggc.Graph, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ggc.Runner(sum_graph, **arguments)  # type: ignore[arg-type]
    with ggc.Runner(sum_graph) as runner:  # nothing is left behind
        runner.run(x=np.zeros(4), y=np.zeros(4))


def test_graphs_that_cannot_run(graph: ggc.Graph) -> None:
    with pytest.raises(ggc.GraphError, match=r"no nodes: mark a result with graph\.output"):
        ggc.Runner(graph)
    with pytest.raises(TypeError, match="expected a Graph"):
        ggc.Runner("graph")  # type: ignore[arg-type]
    graph.close()
    with pytest.raises(ggc.ClosedError):
        ggc.Runner(graph)


def test_graph_larger_than_memory(graph: ggc.Graph) -> None:
    graph.output(graph.silu(graph.input("x", "f32", (2**30, 2**20))), "y")
    with pytest.raises(MemoryError, match="cannot allocate"):
        ggc.Runner(graph)


def test_unsupported_operation_is_told(graph: ggc.Graph, store: ggc.Store) -> None:
    """What the CPU says it cannot do: a product with a type that the weight is not made for."""
    weight = store.zeros("w", "q4_0", (256, 4))
    x = graph.cast(graph.input("x", "f32", (256, 2)), "q4_0")
    tensor = graph._build("mul_mat", weight, graph.input("z", "f32", (256, 2)))
    tensor._ptr.src[1] = x._ptr
    graph.expand(x)
    graph.output(tensor, "y")
    with pytest.raises(ggc.DeviceError, match=r"cannot compute node \d+, 'y' \(MUL_MAT"):
        ggc.Runner(graph)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.set("z", 1), ggc.GraphError, "no input 'z'; it has 'x', 'y'"),
        (lambda r: r.run(z=1), ggc.GraphError, "no input 'z'"),
        (lambda r: r.get("x"), ggc.GraphError, "no output 'x'; it has 'sum'"),
        (lambda r: r.set("x", np.zeros(5)), ggc.GraphError, r"expected .* shape \(4,\)"),
        (lambda r: r.set("x", "abcd"), TypeError, "array of numbers"),
        (lambda r: r.set("x", None), TypeError, "array of numbers"),
        (lambda r: r.set_raw("x", bytes(15)), ggc.GraphError, "expected 16 contiguous bytes"),
        (lambda r: r.set_raw("x", "abcd"), TypeError, "bytes-like"),
        (lambda r: r.run(x=np.zeros(4)), ggc.Error, "never set: y"),
        (lambda r: r.unit_threads(7), ggc.GraphError, "unit is 7, expected 0 to 0"),
    ],
)
def test_wrong_use(
    sum_graph: ggc.Graph, call: Callable[[ggc.Runner], object], error: type[Exception], message: str
) -> None:
    with ggc.Runner(sum_graph) as runner:
        with pytest.raises(error, match=message):
            call(runner)
        assert runner.run(x=np.ones(4), y=np.ones(4))["sum"].tolist() == [2, 2, 2, 2]


def test_inputs_that_no_output_uses(graph: ggc.Graph) -> None:
    graph.input("idle", "f32", 4)
    graph.output(graph.silu(graph.input("x", "f32", 4)), "y")
    with ggc.Runner(graph) as runner:
        runner.run(x=np.zeros(4))
        with pytest.raises(ggc.GraphError, match="'idle' is not used by any output"):
            runner.set("idle", np.zeros(4))


@pytest.mark.parametrize("rows", [[0, 6], [-1, 0], [2**31 - 1, 0]])
def test_row_numbers_out_of_range(graph: ggc.Graph, store: ggc.Store, rows: list[int]) -> None:
    """ggml would end the process, on a thread of its own."""
    table = store.zeros("table", "f32", (4, 6))
    graph.output(graph.get_rows(table, graph.input("rows", "i32", 2)), "out")
    with ggc.Runner(graph, threads=2, always=True) as runner:
        with pytest.raises(ggc.GraphError, match="'rows' holds row numbers: expected 0 to 5"):
            runner.run(rows=rows)
        with pytest.raises(ggc.GraphError, match="expected 0 to 5"):
            runner.set_raw("rows", np.array(rows, np.int32))
        assert runner.run(rows=[5, 0])["out"].shape == (2, 4)


def test_expert_numbers_out_of_range(graph: ggc.Graph, store: ggc.Store) -> None:
    experts = store.zeros("experts", "f32", (8, 6, 5))
    ids, x = graph.input("ids", "i32", (2, 3)), graph.input("x", "f32", (8, 1, 3))
    graph.output(graph.mul_mat_id(experts, x, ids), "out")
    with ggc.Runner(graph) as runner:
        with pytest.raises(ggc.GraphError, match="expected 0 to 4, got 0 to 5"):
            runner.run(x=np.zeros((3, 1, 8)), ids=[[0, 1], [2, 3], [4, 5]])
        runner.run(x=np.zeros((3, 1, 8)), ids=[[0, 1], [2, 3], [4, 4]])


# --- life ----------------------------------------------------------------------------------------


def test_open_runner_holds_its_graph(sum_graph: ggc.Graph) -> None:
    total = sum_graph.node(0)
    with ggc.Runner(sum_graph) as runner:
        for change in (
            lambda: sum_graph.silu(total),
            lambda: sum_graph.input("z", "f32", 4),
            lambda: sum_graph.output(total, "again"),
            lambda: sum_graph.expand(total),
            lambda: ggc.Runner(sum_graph),
        ):
            with pytest.raises(ggc.GraphError, match="a Runner of this graph is open; close it"):
                change()
        runner.run(x=np.ones(4), y=np.ones(4))
    sum_graph.output(sum_graph.silu(total), "silu")
    with ggc.Runner(sum_graph) as runner:
        assert set(runner.run(x=np.ones(4), y=np.ones(4))) == {"sum", "silu"}


def test_memory_goes_with_the_runner(sum_graph: ggc.Graph) -> None:
    total = sum_graph.node(0)
    with pytest.raises(ggc.Error, match="has no memory"):
        total.numpy()
    with ggc.Runner(sum_graph) as runner:
        runner.run(x=np.ones(4), y=np.ones(4))
        assert total.numpy().tolist() == [2, 2, 2, 2]
    with pytest.raises(ggc.Error, match="has no memory"):
        total.numpy()
    with pytest.raises(ggc.GraphError, match="open a Runner"):
        ggc.compute_serial(sum_graph)


def test_closed_runner(sum_graph: ggc.Graph) -> None:
    runner = ggc.Runner(sum_graph)
    runner.close()
    runner.close()
    for use in (
        runner.compute,
        lambda: runner.run(x=[0] * 4, y=[0] * 4),
        lambda: runner.get("sum"),
        lambda: runner.set("x", [0] * 4),
        lambda: runner.set_raw("x", bytes(16)),
        lambda: runner.buffer_size,
        lambda: runner.unit_threads(0),
        runner.__enter__,
    ):
        with pytest.raises(ggc.ClosedError, match="this Runner is closed"):
            use()
    runner.plan.verify()
    assert repr(runner) == "<Runner closed>"


def test_runner_goes_on_when_graph_and_store_are_closed(rng: np.random.Generator) -> None:
    store, graph = ggc.Store(), ggc.Graph()
    towers(graph, store, rng)
    runner = ggc.Runner(graph)
    x = rng.standard_normal((3, 64)).astype("f4")
    before = runner.run(x=x)["out"]
    graph.close()
    store.close()
    assert runner.run(x=x)["out"].tobytes() == before.tobytes()
    runner.close()


# --- threads -------------------------------------------------------------------------------------


@pytest.fixture
def slow(store: ggc.Store) -> Iterator[ggc.Runner]:
    """Takes some hundredths of a second."""
    with ggc.Graph() as graph:
        x = graph.input("x", "f32", (512, 512))
        w = store.zeros("w", "f32", (512, 512))
        for _ in range(8):
            x = graph.mul_mat(w, x)
        graph.output(x, "y")
        with ggc.Runner(graph, streams=1) as runner:
            yield runner


def test_other_threads_run_meanwhile(slow: ggc.Runner) -> None:
    slow.set("x", np.zeros((512, 512)))
    stop, ticks = threading.Event(), []

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    begin = time.perf_counter()
    for _ in range(5):
        slow.compute()
    end = time.perf_counter()
    stop.set()
    thread.join()
    assert sum(begin < t < end for t in ticks) >= 5


def test_threads_take_turns(sum_graph: ggc.Graph) -> None:
    wrong: list[object] = []
    with ggc.Runner(sum_graph, streams=2) as runner:

        def work(value: int) -> None:
            for _ in range(200):
                out = runner.run(x=[value] * 4, y=[value] * 4)["sum"].tolist()
                if out != [2 * value] * 4:
                    wrong.append(out)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_close_waits_for_a_running_compute(slow: ggc.Runner) -> None:
    slow.set("x", np.zeros((512, 512)))
    failed: list[Exception] = []

    def work() -> None:
        try:
            while True:
                slow.compute()
        except ggc.ClosedError:
            pass
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    slow.close()
    for thread in threads:
        thread.join()
    assert failed == []


def test_runners_of_different_graphs_run_at_once(
    store: ggc.Store, rng: np.random.Generator
) -> None:
    w = store.array("w", rng.standard_normal((64, 64)).astype("f4"))
    x = rng.standard_normal((8, 64)).astype("f4")
    results: list[bytes] = []

    def work() -> None:
        with ggc.Graph() as graph:
            graph.output(graph.silu(graph.mul_mat(w, graph.input("x", "f32", (64, 8)))), "y")
            with ggc.Runner(graph, streams=2) as runner:
                results.extend(runner.run(x=x)["y"].tobytes() for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 200
    assert len(set(results)) == 1
