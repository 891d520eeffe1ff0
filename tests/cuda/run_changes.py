"""Graphs that change, copies that do not block and captures of others, on the simulated CUDA.

    python tests/cuda/run_changes.py FOLDER CASE

FOLDER has the libraries (tests/cuda in a build); with `gpu:FOLDER` it is a real GPU (gpu.py).  Run
as a program by test_cuda_changes.py: the libraries take CUDA's place in the process.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from run_zoo import Sim, at_once
from run_zoo import opened as opened_device

import ggml_concurrent as ggc
from ggml_concurrent._native import ffi, lib, message_of

GLOBAL = 0
N = 64
STREAMS: dict[str, Any] = {"streams": 3, "always": True}

Results = dict[str, np.ndarray]
Change = Callable[["Net"], None]


class Net:
    """Three branches of matrices, rows of a cache, and a sum of all."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self.store = ggc.Store(device="cuda0")
        self.graph = graph = ggc.Graph()
        x = graph.input("x", "f32", N)
        parts = []
        for i in range(3):
            a = self.weight(f"a{i}", random)
            self.weight(f"b{i}", random)
            part = graph.scale(graph.mul_mat(a, graph.sqr(x)), 0.5 + i)
            parts.append(graph.mul_mat(self.weight(f"c{i}", random), part))
        cache = self.weight("cache", random)
        rows = graph.view_2d(cache, N, 48, cache.nb[1], 0)
        parts.append(graph.repeat(graph.sum(graph.mul_mat(rows, x)), parts[0]))
        z = graph.input("z", "f32", N)
        parts.append(graph.sqrt(z))
        y = parts[0]
        for part in parts[1:]:
            y = graph.add(y, part)
        graph.output(y, "y")
        for i, part in enumerate(parts[:3]):
            graph.output(part, f"part{i}")

    def weight(self, name: str, random: np.random.Generator) -> Any:
        values = random.standard_normal((N, N)).astype(np.float32) / 8
        return self.store.array(name, values)

    def node(self, op: str, index: int = 0) -> Any:
        return [node._ptr for node in self.graph.nodes if node.op == op][index]

    def tensor(self, name: str) -> Any:
        return self.store[name]._ptr

    def feed(self, runner: ggc.Runner, step: int) -> None:
        runner.set("x", np.sin(np.arange(N, dtype=np.float32) + step))
        runner.set("z", np.arange(N, dtype=np.float32) + step)

    def compute(self, runner: ggc.Runner, steps: range) -> list[Results]:
        results = []
        for step in steps:
            self.feed(runner, step)
            runner.compute()
            results.append({name: runner.get(name) for name in self.graph.outputs})
        return results

    def break_promise(self) -> None:
        """Graphs of Python's cannot change, and have a uid that says so; those of C's may."""
        ffi.cast("uint64_t *", self.graph._graph)[11] = 0  # ggml_cgraph::uid

    def close(self) -> None:
        self.graph.close()
        self.store.close()


@contextmanager
def opened(**arguments: Any) -> Iterator[tuple[Net, ggc.Runner]]:
    net = Net()
    try:
        with ggc.Runner(net.graph, device="cuda0", **arguments) as runner:
            net.break_promise()
            yield net, runner
    finally:
        net.close()


def pointer_of(runner: ggc.Runner) -> Any:
    assert runner._handle is not None
    return runner._handle.pointer


def expected(change: Change | None, steps: range) -> list[Results]:
    """Serially, changed from the beginning."""
    with opened(streams=1) as (net, runner):
        if change is not None:
            change(net)
        return net.compute(runner, steps)


def same(got: list[Results], wanted: list[Results]) -> None:
    assert len(got) == len(wanted)
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        for name, array in b.items():
            assert a[name].tobytes() == array.tobytes(), f"{name} of computation {i}"


@contextmanager
def told(n: int, what: str = "") -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == n, texts
    assert all(what in text for text in texts), texts


#
# Changes
#


def other_contents(net: Net) -> None:
    net.store["a0"].set(net.store["b0"].numpy())


def other_parameters(net: Net) -> None:
    params = ffi.cast("float *", net.node("SCALE", 1).op_params)
    params[0] = 3.25


def other_addresses(net: Net) -> None:
    for i in range(2):
        a, b = net.tensor(f"a{i}"), net.tensor(f"b{i}")
        a.data, b.data = b.data, a.data
        a.buffer, b.buffer = b.buffer, a.buffer


def show_rows(net: Net, n: int, first: int) -> None:
    view = net.node("VIEW")
    product = next(
        node._ptr for node in net.graph.nodes if node.op == "MUL_MAT" and node._ptr.src[0] == view
    )
    view.ne[1] = n
    view.nb[2] = view.nb[3] = view.nb[1] * n
    view.view_offs = view.nb[1] * first
    view.data = ffi.cast("char *", net.tensor("cache").data) + view.nb[1] * first
    product.ne[0] = n
    product.nb[1] = product.nb[2] = product.nb[3] = 4 * n


def fewer_rows(net: Net) -> None:
    show_rows(net, 32, 16)


def more_rows(net: Net) -> None:
    show_rows(net, 64, 0)


def as_many_rows(net: Net) -> None:
    show_rows(net, 48, 0)


def other_dependences(net: Net) -> None:
    """What was an input of its own is now what a branch computes."""
    net.node("SQRT").src[0].data = net.node("SQR").data


def other_sources(net: Net) -> None:
    net.node("SCALE", 2).src[0] = net.node("SCALE", 1).src[0]


#: change; times captured, updated in place, made anew, launched (of 8 computations).  The first one
#: is issued, and so is the first of other sizes or of another plan: it fills the pools.
FOLLOWED: list[tuple[Change, tuple[int, int, int, int]]] = [
    (other_contents, (1, 0, 1, 7)),
    (other_parameters, (2, 1, 1, 7)),
    (other_addresses, (2, 1, 1, 7)),
    (fewer_rows, (2, 1, 1, 6)),
    (other_sources, (1, 0, 1, 6)),  # another plan, which was captured once
    (other_dependences, (1, 0, 1, 6)),
]


def run_changes(sim: Sim) -> None:
    before, after = range(4), range(4, 8)
    for change, counts in FOLLOWED:
        wanted = expected(None, before) + expected(change, after)
        sim.reset(3)
        with opened(**STREAMS) as (net, runner):
            got = net.compute(runner, before)
            change(net)
            got += net.compute(runner, after)
            sim.check_clean()
            figures = runner.cuda
            assert figures is not None
            assert figures.captured, figures
            counted = (figures.captures, figures.updates, figures.instantiations)
            assert (*counted, sim.calls("cuGraphLaunch")) == counts, (change.__name__, figures)
            print(f"{change.__name__}: {figures}")
        same(got, wanted)
        assert not any(sim.live().values()), (change.__name__, sim.live())


def run_back_and_forth(sim: Sim) -> None:
    """Changes in turn, several between two computations, and while ways are tried."""
    changes = [other_parameters, other_addresses, fewer_rows, as_many_rows, other_addresses]
    for arguments in (STREAMS, {"streams": 4}, {"streams": 1}):
        sim.reset(5)
        got = []
        with opened(**arguments) as (net, runner):
            for i, change in enumerate(changes):
                got += net.compute(runner, range(i, i + 2))
                change(net)
            got += net.compute(runner, range(3))
            sim.check_clean()
        wanted = []
        for i in range(len(changes) + 1):

            def all_of_them(net: Net, n: int = i) -> None:
                for change in changes[:n]:
                    change(net)

            wanted += expected(all_of_them, range(i, i + 2) if i < len(changes) else range(3))
        same(got, wanted)


def refused(runner: ggc.Runner, text: str) -> None:
    told_of = "nothing"
    try:
        runner.compute()
    except ggc.Error as error:
        told_of = str(error)
    assert text in told_of, told_of


def sharing_budget() -> int:
    """Bytes with which tensors share memory, and streams are used all the same."""
    for budget in range(512, 8192, 256):
        with opened(**STREAMS, budget=budget) as (_, runner):
            sharing = lib.ggc_runner_memory(pointer_of(runner)).sharing
            if sharing != lib.GGC_SHARING_NONE and runner.plan.stats.n_streams > 1:
                return budget
    raise AssertionError("no budget with which tensors share memory on streams")


def run_refusals(sim: Sim) -> None:
    """What cannot be followed is told, computes nothing, and is forgotten once it is put right."""
    wanted = expected(None, range(6))
    for budget in (None, sharing_budget()):
        sim.reset(6)
        with opened(**STREAMS, budget=budget) as (net, runner):
            got = net.compute(runner, range(3))
            counts = ffi.cast("int *", net.graph._graph)  # of ggml_cgraph: size, n_nodes
            counts[1] -= 1
            try:
                refused(runner, "other nodes")
            finally:
                counts[1] += 1
            more_rows(net)
            refused(runner, "bytes now, and memory for")
            show_rows(net, 48, 48)
            refused(runner, "reaches out of its buffer")
            as_many_rows(net)
            source = net.node("SCALE", 2).src[0]
            if budget is not None:
                other_sources(net)
                refused(runner, "other sources")
                net.node("SCALE", 2).src[0] = source
            net.node("SQRT").src[0].buffer = ffi.NULL
            refused(runner, "whose memory CUDA0 cannot use")
            net.node("SQRT").src[0].buffer = net.node("SQR").src[0].buffer
            launches = sim.calls("cuGraphLaunch")
            got += net.compute(runner, range(3, 6))
            assert sim.calls("cuGraphLaunch") == launches + 3
            assert runner.cuda is not None
            assert runner.cuda.instantiations == 1
            sim.check_clean()
        same(got, wanted)


def run_refused_updates(sim: Sim) -> None:
    """A CUDA graph that cannot be updated is made anew, whatever the reason."""
    wanted = expected(None, range(3)) + expected(other_parameters, range(3, 6))
    for function, error, warned in (
        ("cuGraphExecUpdate_v2", 910, 0),
        ("cuGraphExecUpdate_v2", 999, 0),
        ("cuStreamBeginCapture_v2", 999, 1),
        ("cuStreamEndCapture", 901, 1),
        ("cuGraphGetNodes", 999, 0),  # whose nodes are whose is not known then: other edges
        ("cuGraphGetEdges_v2", 999, 0),  # to count them
        ("cuGraphGetEdges_v2 2", 999, 1),
        ("cuGraphGetEdges_v2 3", 999, 1),
        ("cuGraphRemoveDependencies_v2", 999, 1),
        ("cuGraphAddDependencies_v2", 999, 1),
    ):
        sim.reset(7)
        with told(warned, "without a CUDA graph"), opened(**STREAMS) as (net, runner):
            got = net.compute(runner, range(3))
            other_parameters(net)
            name, _, number = function.partition(" ")
            sim.fail(name, int(number or 1), error)
            got += net.compute(runner, range(3, 6))
            figures = runner.cuda
            assert figures is not None
            assert figures.captured == (not warned)
            anew = function in ("cuGraphExecUpdate_v2", "cuGraphGetNodes")
            # on GPUs whose kernels have no programmatic edges they are the same
            fits = figures.instantiations in (1 + anew, 1 + (anew and sim.is_simulated))
            assert fits, (function, figures)
            sim.check_clean()
        same(got, wanted)
        assert not any(sim.live().values()), (function, sim.live())


#
# Copies
#


def in_order(net: Net, runner: ggc.Runner, steps: range, every: int) -> list[Results]:
    """Many steps with one wait for `every` of them."""
    c = pointer_of(runner)
    results: list[Results] = []
    host: list[np.ndarray] = []
    for step in steps:
        for name, values in (
            ("x", np.sin(np.arange(N, dtype=np.float32) + step)),
            ("z", np.arange(N, dtype=np.float32) + step),
        ):
            source = values.astype(np.float32)
            host.append(source)
            data = ffi.from_buffer("char *", source)
            assert lib.ggc_runner_set_async(c, net.graph.inputs[name]._ptr, data, 0, 4 * N) == 0
        assert lib.ggc_runner_compute_async(c) == 0
        results.append({})
        for name, tensor in net.graph.outputs.items():
            target = results[-1][name] = np.full(N, np.nan, np.float32)
            data = ffi.from_buffer("char *", target, require_writable=True)
            assert lib.ggc_runner_get_async(c, tensor._ptr, data, 0, 4 * N) == 0
        if step % every == every - 1:
            assert lib.ggc_runner_synchronize(c) == 0, message_of(lib.ggc_runner_message(c))
            host.clear()
    assert lib.ggc_runner_synchronize(c) == 0
    return results


def run_transfers(sim: Sim) -> None:
    steps = range(9)
    wanted = expected(None, steps)
    fewer = expected(fewer_rows, range(5, 6))[0]
    for i, arguments in enumerate((STREAMS, {"streams": 1}, {"streams": 4}, STREAMS)):
        sim.reset(i)
        if i == 3:
            sim.fail("cuStreamBeginCapture_v2", -1, 999)
        with told(i == 3), opened(**arguments) as (net, runner):
            same(in_order(net, runner, steps, 4), wanted)
            runner._warn()
            sim.check_clean()
            # what blocks comes after what does not
            c = pointer_of(runner)
            source = np.sin(np.arange(N, dtype=np.float32) + 5)
            data = ffi.from_buffer("char *", source)
            net.feed(runner, 5)
            runner.set("x", np.zeros(N, np.float32))
            lib.ggc_runner_set_async(c, net.graph.inputs["x"]._ptr, data, 0, 4 * N)
            runner.compute()
            assert runner.get("y").tobytes() == wanted[5]["y"].tobytes()
            sim.check_clean()
            # a launch that nobody has waited for, and after it what is issued once
            assert lib.ggc_runner_compute_async(c) == 0
            fewer_rows(net)
            runner.compute()
            assert runner.get("y").tobytes() == fewer["y"].tobytes()
            sim.check_clean()
        assert not any(sim.live().values()), sim.live()


def run_one_wait_a_step(sim: Sim) -> None:
    sim.reset()
    wanted = expected(None, range(6))
    with opened(**STREAMS) as (_net, runner):
        for step in range(6):
            x = np.sin(np.arange(N, dtype=np.float32) + step)
            z = np.arange(N, dtype=np.float32) + step
            waits, driver_waits = sim.waits(), sim.calls("cuStreamSynchronize")
            assert runner.run(x=x, z=z)["y"].tobytes() == wanted[step]["y"].tobytes()
            assert sim.waits() == waits + 1  # ggml's: for the copies
            launched = step >= 1  # over by the time that it is waited for, too
            assert sim.calls("cuStreamSynchronize") == driver_waits + launched
        sim.check_clean()


def run_failing_transfers(sim: Sim) -> None:
    """Each call of the driver's that orders a launch and copies, failing."""
    steps = range(6)
    wanted = expected(None, steps)
    for function, text in (
        ("cuStreamWaitEvent", "the host waits instead"),
        ("cuEventRecord", "the host waits instead"),
        ("cuGraphLaunch", "without a CUDA graph"),
        ("cuCtxPushCurrent_v2", "without a CUDA graph"),
    ):
        sim.reset(8)
        with told(1, text), opened(**STREAMS) as (net, runner):
            got = in_order(net, runner, range(3), 1)
            sim.fail(function, 1, 999)
            got += in_order(net, runner, range(3, 6), 2)
            runner._warn()
            sim.check_clean()
        same(got, wanted)
        assert not any(sim.live().values()), (function, sim.live())
    failing_computations(sim)


def failing_computations(sim: Sim) -> None:
    sim.reset(9)
    with opened(**STREAMS) as (net, runner):
        c = pointer_of(runner)
        in_order(net, runner, range(3), 1)
        sim.fail("cuStreamSynchronize", 1, 700)  # a kernel went astray
        assert lib.ggc_runner_compute_async(c) == 0
        assert lib.ggc_runner_synchronize(c) == lib.GGC_E_DEVICE
        text = message_of(lib.ggc_runner_message(c))
        assert "waiting for the captured graph failed: an illegal" in text, text
        assert lib.ggc_runner_synchronize(c) == 0
        sim.fail("cuGraphLaunch", 1, 700)
        sim.fail("cuStreamSynchronize", 1, 700)
        assert lib.ggc_runner_compute_async(c) == lib.GGC_E_DEVICE  # known at once
        assert lib.ggc_runner_compute_async(c) == 0
        assert lib.ggc_runner_synchronize(c) == lib.GGC_E_DEVICE
        assert "launching" in message_of(lib.ggc_runner_message(c))
        same(in_order(net, runner, range(3, 6), 1), expected(None, range(3, 6)))
        sim.check_clean()
    if not sim.is_simulated:
        return
    with opened(**STREAMS) as (net, runner):
        net.feed(runner, 0)
        sim.sim.sim_fail(b"compute", 2)
        try:
            runner.run()
        except ggc.DeviceError:
            pass
        else:
            raise AssertionError("expected DeviceError")
        sim.sim.sim_fail(b"compute", 0)
        same(net.compute(runner, range(4)), expected(None, range(4)))


#
# Others in the process
#


@contextmanager
def foreign_capture(sim: Sim) -> Iterator[None]:
    """As other libraries capture, in mode GLOBAL, on a stream of their own."""
    context, stream, graph = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    assert sim.driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert sim.driver.cuCtxPushCurrent_v2(context) == 0
    assert sim.driver.cuStreamCreate(ctypes.byref(stream), 1) == 0
    assert sim.driver.cuStreamBeginCapture_v2(stream, GLOBAL) == 0
    yield
    result = sim.driver.cuStreamEndCapture(stream, ctypes.byref(graph))
    assert result == 0, f"the foreign capture was spoilt: {result}"
    assert sim.driver.cuGraphDestroy(graph) == 0
    assert sim.driver.cuStreamDestroy_v2(stream) == 0
    assert sim.driver.cuCtxPopCurrent_v2(ctypes.byref(context)) == 0
    assert sim.driver.cuDevicePrimaryCtxRelease_v2(0) == 0


@contextmanager
def on_another_thread(context: Any) -> Iterator[None]:
    began, over = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def hold() -> None:
        try:
            with context:
                began.set()
                over.wait()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
            began.set()

    thread = threading.Thread(target=hold)
    thread.start()
    began.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failures, failures


def run_foreign_capture(sim: Sim) -> None:
    """While a runner is opened, issued and captured, on this thread or another; and while memory is
    copied and given back. A runner is closed later: CUDA refuses to destroy its streams meanwhile.
    """
    wanted = expected(None, range(5))
    for where in (lambda capture: capture, on_another_thread):
        sim.reset(10)
        net, other, pool = Net(), Net(), ggc.Pool()
        ggc.Runner(other.graph, device="cuda0", pool=pool, **STREAMS).close()
        with where(foreign_capture(sim)):
            other.store["a0"].set(other.store["b0"].numpy())
            other.close()
            pool.close()
            runner = ggc.Runner(net.graph, device="cuda0", **STREAMS)
            same(net.compute(runner, range(5)), wanted)
            assert runner.cuda is not None
            assert runner.cuda.captured
        runner.close()
        net.close()
        sim.check_clean()
        assert not any(sim.live().values()), sim.live()


def run_closing_meanwhile(sim: Sim) -> None:
    """Runners are opened and closed on some threads while others capture, all on one device."""
    wanted = expected(None, range(2))
    sim.reset(11)
    sim.driver.fake_delay(0)

    def run(number: int) -> None:
        for _ in range(6):
            with opened(**(STREAMS if number % 2 else {"streams": 1})) as (net, runner):
                for _ in range(3 if number % 2 else 1):
                    same(net.compute(runner, range(2)), wanted)
                    other_addresses(net)
                    other_addresses(net)
                    other_parameters(net)
                    runner.compute()
                    ffi.cast("float *", net.node("SCALE", 1).op_params)[0] = 1.5

    at_once(6, run)
    sim.check_clean()
    assert not any(sim.live().values()), sim.live()


def run_together(sim: Sim) -> None:
    """Steps without waiting, on several threads and two devices."""
    wanted = expected(None, range(8))
    sim.reset(12)

    def run(number: int) -> None:
        with opened(**(STREAMS if number % 4 else {"streams": 1})) as (net, runner):
            same(in_order(net, runner, range(8), 1 + number % 3), wanted)

    at_once(8, run)
    sim.check_clean()
    assert not any(sim.live().values()), sim.live()


def run_memory(sim: Sim) -> None:
    """What streams take is counted, and there are none where it is not to be had."""
    wanted = expected(None, range(3))
    sim.reset(13)
    with opened(**STREAMS) as (net, runner):
        assert runner.stream_bytes == 0  # not known yet
        same(net.compute(runner, range(3)), wanted)
        assert runner.stream_bytes == 3 * 4096, runner.stream_bytes  # an instance's scratch memory
    with opened(streams=1) as (net, runner):
        same(net.compute(runner, range(3)), wanted)
        assert runner.stream_bytes == 0
        assert runner.cuda is None
    for capability, megabytes in ((90, 40), (80, 12)):
        for spare, serial in ((-1, True), (1, False)):
            sim.reset(13)
            sim.driver.fake_set_capability(capability)
            sim.driver.fake_set_memory(ctypes.c_size_t((3 * (megabytes + 2) + spare) << 20))
            with told(serial, "MiB beside the graph"), opened(**STREAMS) as (net, runner):
                same(net.compute(runner, range(3)), wanted)
                assert (runner.cuda is None) == serial


#: What is seen, or set, in a simulation alone.
SIMULATED = ("memory", "one-wait-a-step")
CASES = {name[4:].replace("_", "-"): run for name, run in globals().items() if name[:4] == "run_"}


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[2] not in CASES:
        print(__doc__, *CASES)
        return 2
    sim = opened_device(sys.argv[1])
    if sys.argv[2] in SIMULATED and not sim.is_simulated:
        sys.exit(f"{sys.argv[2]} is for the simulated CUDA")
    CASES[sys.argv[2]](sim)
    return 0


if __name__ == "__main__":
    sys.exit(main())
