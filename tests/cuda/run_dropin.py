"""The drop-in inside a ggml that has the simulated CUDA.

    python tests/cuda/run_dropin.py FOLDER zoo GRAPH...
    python tests/cuda/run_dropin.py FOLDER cpu GRAPH...
    python tests/cuda/run_dropin.py FOLDER faults
    python tests/cuda/run_dropin.py FOLDER together
    python tests/cuda/run_dropin.py FOLDER tuning
    python tests/cuda/run_dropin.py FOLDER not-tried

FOLDER has the libraries (tests/cuda in a build).  Plain ggml computes graphs of the zoo through its
scheduler, as llama.cpp does, and the drop-in has hold of its backends: streams begin and end on the
runner's own instance.  `zoo`: every computation gives the CPU's bits without a race, the first ones
issued, the others replayed; and the runner's tensors point where its allocator put them.  `cpu`:
the same on threads, under random delays.  `faults`: each call of ours fails once.  `together`:
several threads and two devices.  `tuning`: ways are timed on the runner's computations and the
choice is remembered.  `not-tried`: ways that cannot pay are not, and that
is remembered.  Run as a program by test_dropin_zoo.py.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ.update(GGML_CONCURRENT_OWN="1", GGML_CONCURRENT_QUIET="1")
os.environ["GGML_CONCURRENT"] = "eager" if sys.argv[2] in ("tuning", "not-tried") else "always"
if sys.argv[2:3] == ["cpu"]:
    os.environ["GGML_CONCURRENT_STRESS"] = "5"
CACHE = tempfile.TemporaryDirectory()
os.environ["GGML_CONCURRENT_CACHE"] = CACHE.name

import numpy as np  # noqa: E402
from run_zoo import FAULTS, N_COMPUTES, Sim, at_once, build, check, results, step  # noqa: E402  the drop-in reads these once

import ggml_concurrent as ggc  # noqa: E402
from ggml_concurrent import zoo  # noqa: E402
from ggml_concurrent._native import ffi  # noqa: E402

SCHEDULED = {"streams": 1, "scheduled": True}


def device(name: str = "CUDA0") -> ggc.dropin.Device:
    """What the drop-in says of it."""
    for host in ggc.attachment().hosts:
        for one in host.devices:
            if one.name == name:
                return one
    raise AssertionError(name)


def places(workload: zoo.Workload) -> list[int]:
    return [int(ffi.cast("uintptr_t", node._struct.data)) for node in workload.graph.nodes]


def place(tensor: ggc.Tensor) -> range:
    start = int(ffi.cast("uintptr_t", tensor._struct.data))
    return range(start, start + tensor.nbytes)


def count_refused(workload: zoo.Workload) -> int:
    """How many GLUs ggml-cuda does not fuse with the products before them, since their result lies
    on what these read.
    """
    n = 0
    nodes = workload.graph.nodes
    for gate, up, glu in zip(nodes, nodes[1:], nodes[2:], strict=False):
        if gate.op == up.op == "MUL_MAT" and glu.op in ("SWIGLU", "GEGLU"):
            result = place(glu)
            read = [place(source) for node in (gate, up) for source in node.src[1:2]]
            n += any(max(result.start, r.start) < min(result.stop, r.stop) for r in read)
    return n


def run_zoo(sim: Sim, name: str) -> str:
    expected = results(name)
    sim.reset(len(name))
    before = device()
    with build(name, "cuda0") as workload, workload.runner(**SCHEDULED) as runner:
        start = places(workload)
        units = ggc.find_concurrency(workload.graph, fuse="cuda").stats.n_units
        refused = count_refused(workload)
        check(workload, runner, expected)
        sim.check_clean()
        assert places(workload) == start, "tensors point where ggml's allocator put them"
        launches, captures = sim.calls("cuGraphLaunch"), sim.calls("cuGraphInstantiateWithFlags")
    after = device()
    on_streams = after.on_streams - before.on_streams
    assert after.failures == 0, after
    assert on_streams in (0, N_COMPUTES), after
    if on_streams:
        assert captures == 1
        assert launches == N_COMPUTES - 1
        assert after.plans - before.plans == 1
        assert after.last_plan.units == units + 2 * refused, "fused is what ggml would fuse"
    assert not any(sim.live().values()), sim.live()
    return f"{name}: {on_streams} on streams, {captures} captured, {refused} refused"


def run_cpu(name: str) -> str:
    expected = results(name, threads=2)
    before = device("CPU")
    with zoo.build(name) as workload, workload.runner(threads=2, **SCHEDULED) as runner:
        start = places(workload)
        check(workload, runner, expected)
        assert places(workload) == start
    after = device("CPU")
    assert after.failures == 0, after
    assert after.on_streams - before.on_streams == N_COMPUTES, after
    return f"{name}: {after.plans - before.plans} plans"


def run_together(sim: Sim) -> None:
    """Runners on two devices, on several threads, one after another on each: held all the time."""
    names = ["towers-tiny", "llama-tiny", "whisper-tiny", "mmdit-tiny"]
    expected = {name: results(name) for name in names}
    sim.reset(3)

    def run(number: int) -> None:
        for turn in range(3):
            name = names[(number + turn) % len(names)]
            with (
                zoo.build(name, device=f"cuda{number % 2}") as workload,
                workload.runner(**SCHEDULED) as runner,
            ):
                check(workload, runner, expected[name])

    at_once(6, run)
    sim.check_clean()
    assert not any(sim.live().values()), sim.live()
    for name in ("CUDA0", "CUDA1"):
        assert device(name).on_streams == 9 * N_COMPUTES, device(name)
        assert device(name).live == device(name).failures == 0, device(name)


def run_faults(sim: Sim) -> None:
    expected = results("towers-tiny")
    failures = 0
    for function in FAULTS:
        sim.reset()
        sim.driver.fake_fail(function.encode(), 1, 999)
        with (
            zoo.build("towers-tiny", device="cuda0") as workload,
            workload.runner(**SCHEDULED) as runner,
        ):
            check(workload, runner, expected)
            sim.check_clean()
        assert not any(sim.live().values()), (function, sim.live())
        told = device()
        # some calls the stopwatch makes first; without it ways are not timed
        assert told.failures == failures + ("timing" not in told.warning), (function, told)
        failures = told.failures
        print(f"{function}: {told.warning}", flush=True)
    for function in ("cuCtxPushCurrent_v2", "cuGraphLaunch"):
        failures = fail_late(sim, function, expected)
    for what in ("init", "event", "buffer"):
        sim.reset()
        with (
            zoo.build("towers-tiny", device="cuda0") as workload,
            workload.runner(**SCHEDULED) as runner,
        ):
            failures = device().failures
            sim.sim.sim_fail(what.encode(), 1)
            check(workload, runner, expected)
            sim.check_clean()
        told = device()
        if what == "buffer":  # then the runner's own memory will do
            assert told.failures == failures, told
        else:
            assert told.failures == failures + 1, (what, told)
            print(f"{what}: {told.warning}", flush=True)
        assert not any(sim.live().values()), (what, sim.live())


def fail_late(sim: Sim, function: str, expected: list[dict[str, np.ndarray]]) -> int:
    """Once the graph is launched: it is issued then, in memory of our own all the same."""
    sim.reset()
    before = device().failures
    with (
        zoo.build("towers-tiny", device="cuda0") as workload,
        workload.runner(**SCHEDULED) as runner,
    ):
        for i, arrays in enumerate(expected):
            if i == 4:
                sim.driver.fake_fail(function.encode(), 1, 999)
            for key, array in step(workload, runner, i).items():
                assert array.tobytes() == arrays[key].tobytes(), (function, i, key)
            sim.check_clean()
    told = device()
    assert told.failures == before + 1, (function, told)
    print(f"late {function}: {told.warning}", flush=True)
    return told.failures


def chosen() -> set[Path]:
    """Files with a choice; others tell how far one is."""
    return {path for path in Path(CACHE.name).glob("*.tuning") if "\nway " in path.read_text()}


def run_tuning(sim: Sim) -> None:
    expected = results("towers-tiny")  # it has no caches
    for again in (False, True):
        sim.reset()
        before = device()
        with (
            zoo.build("towers-tiny", device="cuda0") as workload,
            workload.runner(**SCHEDULED) as runner,
        ):
            for i in range(8 if again else 1000):
                if not again and chosen():
                    break
                for key, array in step(workload, runner, i % N_COMPUTES).items():
                    assert array.tobytes() == expected[i % N_COMPUTES][key].tobytes(), key
            sim.check_clean()
        assert not any(sim.live().values()), sim.live()
        timed = sim.calls("cuEventElapsedTime")
        on_streams = device().on_streams - before.on_streams
        assert (timed == 0) == again, timed
        assert again or on_streams > 0, "streams were tried"
        files = list(chosen())
        assert len(files) == 1, files
        print(f"{timed} timed, {on_streams} on streams", flush=True)
    run_recalled(sim, files[0], expected)


def run_recalled(sim: Sim, path: Path, expected: list[dict[str, np.ndarray]]) -> None:
    """Two streams are what is known: that graphs come again; that five of them pay, by the 10 ms
    that making one ready is believed to take; that nothing is saved. The first two computations
    are the runner's own in any case.
    """
    assert len(expected) == 8
    head = path.read_text().splitlines()[:2]
    way = "way {} streams {} threads 1 urgency 0 nanoseconds {}"
    for serial, repeats, wanted in ((10**9, 1000, 6), (2_500_001, 0, 3), (1, 1000, 0)):
        lines = [*head, way.format("list", 2, 1), way.format("serial", 1, serial)]
        lines += [f"repeats {repeats}"] * (repeats > 0) + ["end"]
        path.write_text("".join(f"{line}\n" for line in lines))
        before = device()
        with (
            zoo.build("towers-tiny", device="cuda0") as workload,
            workload.runner(**SCHEDULED) as runner,
        ):
            check(workload, runner, expected)
            sim.check_clean()
        assert device().on_streams - before.on_streams == wanted, (serial, repeats)
        kept = max(repeats, len(expected) if wanted else 0)
        assert f"repeats {kept}\n" in path.read_text(), "every computation counts"


def run_not_tried(sim: Sim) -> None:
    # streams do not pay there; four streams are three there; eight are four, which are tried
    for name, place, plans, kept in (
        ("llama-tiny", "cpu", 1, ["serial 1"]),
        ("whisper-tiny", "cuda0", 2, ["list 2", "list 4", "serial 1"]),
        ("llama-tiny", "cuda0", 3, ["list 2", "list 4", "serial 1"]),
    ):
        ggc.detach()  # nothing is to be known of these graphs before
        expected = results(name, threads=2)
        assert ggc.attach(quiet=True).held
        known = chosen()
        for again in (False, True):
            sim.reset()
            before = device(place.upper())
            with (
                zoo.build(name, device=place) as workload,
                workload.runner(threads=2, **SCHEDULED) as runner,
            ):
                check(workload, runner, expected)
                for _ in range(1000):
                    if again or chosen() - known:
                        break
                    workload.run(runner)
                sim.check_clean()
            after = device(place.upper())
            assert after.failures == 0, after
            (path,) = chosen() - known
            text = path.read_text()
            lines = [line.split() for line in text.splitlines() if line.startswith("way ")]
            ways = [f"{line[1]} {line[3]}" for line in lines]
            assert sorted(ways) == kept, text
            on_streams = int(ways[0] != "serial 1")
            planned = after.plans - before.plans
            if again:  # what is known to be faster is planned once, as soon as that pays
                assert planned <= on_streams, (before, after)
            else:
                assert planned == plans, (before, after)
            print(f"{name} on {place}: {planned} plans", flush=True)


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__)
        return 2
    sim = Sim(Path(sys.argv[1]).resolve())  # its device is registered beside the CPU
    assert ggc.attach(quiet=True).held
    if sys.argv[2] == "faults":
        run_faults(sim)
    elif sys.argv[2] == "together":
        run_together(sim)
    elif sys.argv[2] == "tuning":
        run_tuning(sim)
    elif sys.argv[2] == "not-tried":
        run_not_tried(sim)
    for name in sys.argv[3:]:
        print(run_cpu(name) if sys.argv[2] == "cpu" else run_zoo(sim, name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
