"""Runs graphs of the zoo through Runner(device="cuda0") on the simulated CUDA backend.

    python tests/cuda/run_zoo.py FOLDER zoo GRAPH...
    python tests/cuda/run_zoo.py FOLDER faults
    python tests/cuda/run_zoo.py FOLDER together
    python tests/cuda/run_zoo.py FOLDER old-driver
    python tests/cuda/run_zoo.py FOLDER tuning
    python tests/cuda/run_zoo.py FOLDER early

FOLDER has the libraries (tests/cuda in a build); for `faults` and `together`, `gpu:FOLDER` is a
real GPU (gpu.py). GRAPH+flash has attention as one operation. `zoo`: every computation gives the
CPU's bits, the first ones issued, the others replayed, without a race. `faults`: each call of the
driver's that a runner makes fails once; the bits are right all the same, a warning says why, and
nothing is left over. `together`: runners on two devices, computed by several threads at once.
`old-driver`: one that is too old is told, and done without. `tuning`: units are timed on the first
computations, then ways, with and without priorities; both are remembered. `early`: kernels that
read before they wait. Run as a program by test_cuda_runner.py: the libraries take CUDA's place in
the process.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import ggml_concurrent as ggc
from ggml_concurrent import zoo
from ggml_concurrent._native import _LIBRARIES, load_backends
from ggml_concurrent.runner import CACHE_VARIABLE

N_COMPUTES = 8
KINDS = ("stream", "event", "graph", "exec", "context")

#: Functions of the driver that a runner calls while it is opened and captured.
FAULTS = [
    "cuDeviceGetByPCIBusId",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent_v2",
    "cuStreamCreate",
    "cuStreamBeginCapture_v2",
    "cuEventRecord",
    "cuStreamWaitEvent",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
]


#: The fields of struct sim_counters.
_COUNTERS = (
    "instances events buffers graphs kernels event_records event_waits synchronises copies "
    "own_captures own_launches captures_inside"
).split()


class Sim:
    """The libraries."""

    #: Whose bits are expected, and how many devices there are.
    reference, n_devices = "cpu", 2
    #: Whether memory, its use and failures of ggml's own calls are simulated as well.
    is_simulated = True

    def __init__(self, folder: Path) -> None:
        load_backends()
        module = folder / "libggc-ggml-cuda-sim.so"
        registry = ctypes.CDLL(str(_LIBRARIES / "libggc-ggml.so"))
        registry.ggml_backend_load.restype = ctypes.c_void_p
        assert registry.ggml_backend_load(str(module).encode())
        self.sim = ctypes.CDLL(str(module))
        self.driver = ctypes.CDLL(str(folder / "libcuda.so.1"))
        self.sim.sim_races.restype = self.sim.sim_errors.restype = ctypes.c_uint64
        self.sim.sim_first_race.restype = self.sim.sim_first_error.restype = ctypes.c_char_p
        self.driver.fake_live.restype = self.driver.fake_calls.restype = ctypes.c_uint64
        self.driver.fake_log_count.restype = ctypes.c_size_t
        self.driver.fake_log_line.argtypes = [ctypes.c_size_t]
        self.driver.fake_log_line.restype = ctypes.c_char_p

    def reset(self, seed: int = 0) -> None:
        self.sim.sim_reset()
        self.sim.sim_seed(ctypes.c_uint64(seed))
        self.driver.fake_delay(5)  # microseconds

    def check_clean(self) -> None:
        assert not self.sim.sim_races(), self.sim.sim_first_race().decode()
        assert not self.sim.sim_errors(), self.sim.sim_first_error().decode()

    def live(self) -> dict[str, int]:
        return {kind: self.driver.fake_live(kind.encode()) for kind in KINDS}

    def counters(self) -> dict[str, int]:
        numbers = (ctypes.c_uint64 * len(_COUNTERS))()
        self.sim.sim_get_counters(numbers)
        return dict(zip(_COUNTERS, numbers, strict=True))

    def waits(self) -> int:
        """How often the host has waited for an instance."""
        return self.counters()["synchronises"]

    def calls(self, function: str) -> int:
        return int(self.driver.fake_calls(function.encode()))

    def made_full(self) -> int:
        """How many edges of captured graphs were removed, to be put back as full ones."""
        lines = (self.driver.fake_log_line(i) for i in range(self.driver.fake_log_count()))
        pattern = re.compile(rb"cuGraphRemoveDependencies_v2\(g\d+, (\d+)\)")
        return sum(int(match[1]) for match in map(pattern.match, lines) if match)

    def fail(self, function: str, n: int, error: int) -> None:
        """As fake_fail: the n-th call from now on fails, or all from the -n-th."""
        self.driver.fake_fail(function.encode(), n, error)


def opened(where: str) -> Sim:
    """The simulated CUDA, or a GPU, as the first argument of a program here says."""
    kind, _, folder = where.rpartition(":")
    path = Path(folder).resolve()
    if kind in ("gpu", "as-gpu"):
        from gpu import Gpu

        return Gpu(path, simulated=kind == "as-gpu")
    return Sim(path)


def build(name: str, device: str = "cpu") -> zoo.Workload:
    """An entry of the zoo; NAME+flash: with attention as one operation."""
    entry, _, flash = name.partition("+")
    return zoo.build(entry, device=device, flash_attn=bool(flash))


def results(name: str, device: str = "cpu", **runner: object) -> list[dict[str, np.ndarray]]:
    """What a few computations in a row give, of other inputs each, on fresh weights."""
    with build(name, device) as workload, workload.runner(streams=1, **runner) as opened:
        return [step(workload, opened, i) for i in range(N_COMPUTES)]


def step(workload: zoo.Workload, runner: ggc.Runner, number: int) -> dict[str, np.ndarray]:
    workload.vary(runner, number)
    return workload.run(runner)


def check(
    workload: zoo.Workload, runner: ggc.Runner, expected: list[dict[str, np.ndarray]]
) -> None:
    for i, wanted in enumerate(expected):
        got = step(workload, runner, i)
        for key, array in wanted.items():
            assert got[key].tobytes() == array.tobytes(), f"{key} of computation {i}"


def waits_for_experts(name: str) -> bool:
    """Whether ggml-cuda waits for the host on the oldest devices, for experts that are floats."""
    with build(name) as workload:
        experts = [node.src[0].dtype for node in workload.graph.nodes if node.op == "MUL_MAT_ID"]
    return any(str(dtype) in ("f32", "f16") for dtype in experts)


def check_edges(sim: Sim, runner: ggc.Runner) -> None:
    """Made full are the edges between streams, and at most one more into each flash attention."""
    assert runner.cuda is not None
    between = runner.cuda.edges - (runner.cuda.nodes - runner.plan.stats.n_streams)
    n_flash = sum(node.op == "FLASH_ATTN_EXT" for node in runner.graph.nodes)
    assert between <= sim.made_full() <= between + n_flash, "those alone"


def run_zoo(sim: Sim, name: str) -> str:
    expected = results(name)
    on_old = waits_for_experts(name)
    lines = []
    for capability, arguments in (
        (52, {"streams": 1}),
        (52, {"streams": 4, "always": True}),
        (90, {"streams": 1}),
        (90, {"streams": 3, "always": True, "strategy": "levels", "budget": 0}),
        (90, {"streams": 4, "always": True}),
        (90, {"streams": 8}),
    ):
        sim.reset(len(lines))
        sim.driver.fake_set_capability(capability)
        waits = on_old and capability == 52
        if waits:
            sim.sim.sim_waiting_op(b"MUL_MAT_ID")  # an error inside a capture, as in ggml-cuda
        with build(name, "cuda0") as workload, workload.runner(**arguments) as runner:
            check(workload, runner, expected)
            sim.check_clean()
            streams = runner.plan.stats.n_streams
            captured = sim.calls("cuGraphInstantiateWithFlags")
            if arguments.get("always") and streams > 1:
                assert captured == (not waits)
                assert sim.calls("cuGraphLaunch") == (N_COMPUTES - 1) * captured
            if captured and capability == 90:
                check_edges(sim, runner)
            lines.append(f"{streams} streams, {captured} captured")
        assert not any(sim.live().values()), sim.live()
    return f"{name}: {'; '.join(lines)}"


def run_early(sim: Sim) -> None:
    """Flash attention reads its queries before it waits: in ggml's order that is too early for
    Whisper's, so one stream is captured, too; and where nothing can be captured the host waits.
    """
    for name in ("whisper-tiny+flash", "gemma3-tiny+flash"):
        expected = results(name)
        for streams, refused in itertools.product((1, 4), (False, True)):
            sim.reset(streams)
            if refused:
                sim.fail("cuStreamBeginCapture_v2", -1, 999)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is refused
                with (
                    build(name, "cuda0") as workload,
                    workload.runner(streams=streams, always=streams > 1) as runner,
                ):
                    check(workload, runner, expected)
                    sim.check_clean()
                    is_ours = streams > 1 or name.startswith("whisper")
                    assert (runner.cuda is not None) == is_ours
                    if runner.cuda is not None:
                        assert runner.cuda.captured == (not refused)
            assert not any(sim.live().values()), sim.live()


def run_faults(sim: Sim) -> None:
    expected = results("towers-tiny", sim.reference)
    for function in FAULTS:
        sim.reset()
        with zoo.build("towers-tiny", device="cuda0") as workload:
            sim.fail(function, 1, 999)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                with workload.runner(streams=4, always=True) as runner:
                    check(workload, runner, expected)
            assert len(told) == 1, (function, [str(w.message) for w in told])
            assert "without a CUDA graph" in str(told[0].message), told[0].message
            sim.check_clean()
            print(f"{function}: {told[0].message}", flush=True)
        assert not any(sim.live().values()), (function, sim.live())
    sim.reset()  # what others capture may then suffer, but not the result
    sim.fail("cuThreadExchangeStreamCaptureMode", -1, 999)
    with (
        zoo.build("towers-tiny", device="cuda0") as workload,
        workload.runner(streams=4, always=True) as runner,
    ):
        check(workload, runner, expected)
        assert runner.cuda is not None
        assert runner.cuda.captured
    for what in ("init", "event") if sim.is_simulated else ():
        sim.reset()
        with zoo.build("towers-tiny", device="cuda0") as workload:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                sim.sim.sim_fail(what.encode(), 2)
                with workload.runner(streams=4, always=True) as runner:
                    check(workload, runner, expected)
            assert len(told) == 1, (what, told)
            assert "computed serially" in str(told[0].message), told[0].message
            sim.check_clean()
            print(f"{what}: {told[0].message}", flush=True)
        assert not any(sim.live().values()), (what, sim.live())


def at_once(n: int, run: Callable[[int], None]) -> None:
    """run(0), run(1), ... on n threads; what one of them raises is raised here."""
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            run(number)
        except BaseException as error:  # noqa: BLE001  raised by the main thread
            failures.append(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def run_together(sim: Sim) -> None:
    names = ["towers-tiny", "llama-tiny", "whisper-tiny", "mmdit-tiny"]
    expected = {name: results(name, sim.reference) for name in names}
    sim.reset(3)

    def run(number: int) -> None:
        name = names[number % len(names)]
        with (
            zoo.build(name, device=f"cuda{number % sim.n_devices}") as workload,
            workload.runner(streams=3, always=True) as runner,
        ):
            check(workload, runner, expected[name])

    at_once(8, run)
    sim.check_clean()
    assert not any(sim.live().values()), sim.live()


def run_old_driver(sim: Sim) -> None:
    expected = results("towers-tiny")
    sim.driver.fake_set_version(11080)
    with zoo.build("towers-tiny", device="cuda0") as workload:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with workload.runner(streams=4, always=True) as runner:
                check(workload, runner, expected)
        assert len(told) == 1
        assert "for CUDA 11.8, 12.0 or newer is needed" in str(told[0].message), told[0].message
    sim.check_clean()


def settle(
    workload: zoo.Workload, expected: list[dict[str, np.ndarray]], **arguments: Any
) -> list[Any]:
    """The ways of a runner that has settled; every computation on the way there is right."""
    with workload.runner(**arguments) as runner:
        for i in itertools.count():
            if runner.settled:
                break
            for key, array in step(workload, runner, i % N_COMPUTES).items():
                assert array.tobytes() == expected[i % N_COMPUTES][key].tobytes(), key
        return runner.ways


def run_tuning(sim: Sim) -> None:
    expected = results("towers-tiny")  # it has no caches
    timed, urgent = "cuEventElapsedTime", "cuGraphKernelNodeSetAttribute"
    with (
        tempfile.TemporaryDirectory() as folder,
        zoo.build("towers-tiny", device="cuda0") as workload,
    ):
        os.environ[CACHE_VARIABLE] = folder
        sim.reset()
        ways = settle(workload, expected)
        assert sim.calls(timed) > 0
        assert sim.calls(urgent) > 0
        assert {(way.streams, way.urgency) for way in ways} >= {(1, False), (8, False), (8, True)}
        assert [len(list(Path(folder).glob(f"*.{kind}"))) for kind in ("costs", "tuning")] == [1, 1]
        sim.reset()
        assert len(settle(workload, expected)) == 1  # remembered
        more = settle(workload, expected, tune="full")  # not so, but what units cost is
        assert {way.streams for way in more} == {1, 2, 3, 4, 6}  # 6 are as good as 8: 5 towers
        assert sim.calls(timed) == 0
        sim.reset()
        for urgency in (False, True):
            (way,) = settle(workload, expected, tune="off", urgency=urgency)
            assert (way.streams, way.urgency) == (8, urgency)
        with workload.runner(streams=4, trace=True) as runner:
            assert runner.plan.stats.n_streams == 4
            runner.compute()
            starts, ends = runner.unit_times()
            assert (ends >= starts).all()
    sim.check_clean()
    assert not any(sim.live().values()), sim.live()


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__)
        return 2
    sim = opened(sys.argv[1])
    what = {
        "faults": run_faults,
        "together": run_together,
        "old-driver": run_old_driver,
        "tuning": run_tuning,
        "early": run_early,
    }
    if sys.argv[2] in what:
        what[sys.argv[2]](sim)
    for name in sys.argv[3:]:
        print(run_zoo(sim, name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
