"""Plays graphs of the zoo on the simulated CUDA backend: on one stream, and by their plans.

    python tests/cuda/play_zoo.py FOLDER GRAPH...

FOLDER has the libraries (tests/cuda in a build).  Each graph has to give the CPU's bits, eagerly
and as a captured graph under several seeds, without a race; without a wait that the verifier finds
necessary it has to give a race.  Prints one line a graph.  Run as a program by test_cuda_sim.py:
the libraries take CUDA's place in the process.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

import ggml_concurrent as ggc
from ggml_concurrent import zoo
from ggml_concurrent._native import ffi, load_backends

N_REPLAYS = 20
N_LEFT_OUT = 6  # waits tried for each graph
NONE = 2**32 - 1


class HarnessPlan(ctypes.Structure):
    """struct harness_plan of harness.h."""

    _fields_ = (
        ("n_units", ctypes.c_uint32),
        ("n_streams", ctypes.c_uint32),
        *((name, ctypes.c_void_p) for name in ("order", "stream", "wait_begin", "waits")),
        *((name, ctypes.c_void_p) for name in ("node_begin", "nodes")),
        ("left_out", ctypes.c_uint32),
        ("recognisable", ctypes.c_bool),
    )


class Wait(NamedTuple):
    """Of a unit for another one."""

    unit: int
    waited_for: int


def issue_order(plan: ggc.Plan) -> list[int]:
    """The units, each after those that it waits for."""
    queues = [list(steps) for steps in plan.streams]
    order: list[int] = []
    while any(queues):
        for queue in queues:
            if queue and set(queue[0].waits) <= set(order):
                order.append(queue.pop(0).unit)
    return order


def offsets(lists: list[list[int]]) -> list[int]:
    return [0, *np.cumsum([len(items) for items in lists]).tolist()]


class Schedule:
    """A plan as the harness takes it."""

    def __init__(self, plan: ggc.Plan) -> None:
        waits: list[list[int]] = [[] for _ in plan.units]
        stream = [0] * len(plan.units)
        for number, steps in enumerate(plan.streams):
            for step in steps:
                stream[step.unit], waits[step.unit] = number, list(step.waits)
        nodes = [list(unit) for unit in plan.units]
        self.waits = [Wait(u, w) for u, items in enumerate(waits) for w in items]
        self._arrays = {
            "order": issue_order(plan),
            "stream": stream,
            "wait_begin": offsets(waits),
            "waits": [w for items in waits for w in items],
            "node_begin": offsets(nodes),
            "nodes": [n for items in nodes for n in items],
        }
        self._memory = {name: np.array(a, np.uint32) for name, a in self._arrays.items()}
        self._n = len(plan.units), len(plan.streams)

    def without(self, left_out: int = NONE) -> HarnessPlan:
        pointers = {name: array.ctypes.data for name, array in self._memory.items()}
        return HarnessPlan(*self._n, **pointers, left_out=left_out)


def is_needed(plan: ggc.Plan, wait: Wait) -> bool:
    """Whether the verifier refutes the plan without this wait."""
    streams = plan.streams
    try:
        plan.streams = [
            [s._replace(waits=tuple(w for w in s.waits if (s.unit, w) != wait)) for s in steps]
            for steps in streams
        ]
        plan.verify()
    except ggc.RaceError:
        return True
    finally:
        plan.streams = streams
    return False


class Simulator:
    """The libraries, and one graph on a device."""

    def __init__(self, folder: Path) -> None:
        load_backends()
        self._lib = ctypes.CDLL(str(folder / "cuda_harness.so"))
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        for name, result, arguments in (
            ("device", pointer, (ctypes.c_char_p, ctypes.c_char_p)),
            ("new", pointer, (pointer, pointer, ctypes.c_bool)),
            ("free", None, (pointer,)),
            ("fill", None, (pointer, pointer, pointer)),
            ("restore", None, (pointer,)),
            ("read", size, (pointer, pointer)),
            ("serial", ctypes.c_bool, (pointer,)),
            ("plan", None, (pointer, ctypes.POINTER(HarnessPlan))),
            ("eager", ctypes.c_bool, (pointer,)),
            ("capture", ctypes.c_bool, (pointer,)),
            ("replay", ctypes.c_bool, (pointer, ctypes.c_bool)),
        ):
            function = getattr(self._lib, "harness_" + name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        module = folder / "libggc-ggml-cuda-sim.so"
        self.cuda = self.device(str(module).encode(), b"CUDA0")
        self.cpu = self.device(None, b"CPU")
        assert self.cuda
        assert self.cpu
        self._sim = ctypes.CDLL(str(module))
        ctypes.CDLL(str(folder / "libcuda.so.1")).fake_delay(5)  # microseconds
        for name in ("races", "errors"):
            getattr(self._sim, "sim_" + name).restype = ctypes.c_uint64
            getattr(self._sim, "sim_first_" + name[:-1]).restype = ctypes.c_char_p

    def reset(self, seed: int) -> None:
        self._sim.sim_reset()
        self._sim.sim_seed(ctypes.c_uint64(seed))

    def races(self) -> int:
        return int(self._sim.sim_races())

    def check_clean(self) -> None:
        assert not self.races(), self._sim.sim_first_race().decode()
        assert not self._sim.sim_errors(), self._sim.sim_first_error().decode()

    @contextmanager
    def placed(self, workload: zoo.Workload, device: int, reuse: bool = False) -> Iterator[int]:
        """A harness with the workload's graph and the contents of its inputs."""
        harness = self.new(int(ffi.cast("uintptr_t", workload.graph._graph)), device, reuse)
        try:
            for name, tensor in workload.graph._inputs.items():
                data = np.ascontiguousarray(workload.feeds[name])
                self.fill(harness, int(ffi.cast("uintptr_t", tensor)), data.ctypes.data)
            self.restore(harness)
            yield harness
        finally:
            self.free(harness)

    def contents(self, harness: int) -> bytes:
        buffer = ctypes.create_string_buffer(self.read(harness, None))
        self.read(harness, buffer)
        return buffer.raw


def expected_contents(sim: Simulator, workload: zoo.Workload) -> bytes:
    with sim.placed(workload, sim.cpu) as harness:
        assert sim.serial(harness)
        return sim.contents(harness)


def check_plan(sim: Simulator, harness: int, schedule: Schedule, expected: bytes) -> None:
    sim.plan(harness, ctypes.byref(schedule.without()))
    sim.restore(harness)
    assert sim.eager(harness)
    assert sim.contents(harness) == expected
    assert sim.capture(harness)
    for seed in range(N_REPLAYS):
        sim.check_clean()
        sim.reset(seed)
        sim.restore(harness)
        assert sim.replay(harness, True)
        assert sim.contents(harness) == expected
    sim.check_clean()


def races_without(sim: Simulator, harness: int, schedule: Schedule, wait: int) -> bool:
    """Whether a replay without that wait races."""
    sim.plan(harness, ctypes.byref(schedule.without(wait)))
    assert sim.capture(harness)
    sim.reset(wait)
    sim.restore(harness)
    assert sim.replay(harness, True)
    return sim.races() > 0


def count_races(sim: Simulator, harness: int, plan: ggc.Plan) -> tuple[int, int]:
    """How many of some waits are needed, and how many of these are missed where left out."""
    schedule = Schedule(plan)
    needed = seen = 0
    step = max(1, len(schedule.waits) // N_LEFT_OUT)
    for i in range(0, len(schedule.waits), step):
        raced = races_without(sim, harness, schedule, i)
        is_race = is_needed(plan, schedule.waits[i])
        assert is_race or not raced
        needed, seen = needed + is_race, seen + raced
    sim.reset(0)
    return needed, seen


def play(sim: Simulator, name: str) -> str:
    needed = seen = 0
    with zoo.build(name) as workload:
        expected = expected_contents(sim, workload)
        for reuse, fuse in ((False, "none"), (True, "none"), (False, "cuda")):
            with sim.placed(workload, sim.cuda, reuse) as harness:
                sim.reset(0)
                assert sim.serial(harness)
                assert sim.contents(harness) == expected
                sim.check_clean()
                plan = ggc.find_concurrency(workload.graph, 3, fuse, "levels")
                check_plan(sim, harness, Schedule(plan), expected)
                if fuse == "none":
                    counts = count_races(sim, harness, plan)
                    needed, seen = needed + counts[0], seen + counts[1]
    assert seen >= 0.9 * needed
    return f"{name}: {len(plan.units)} units, {seen} of {needed} races seen"


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__)
        return 2
    sim = Simulator(Path(sys.argv[1]).resolve())
    for name in sys.argv[2:]:
        print(play(sim, name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
