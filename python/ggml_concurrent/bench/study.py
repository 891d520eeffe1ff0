"""What is found out about a graph beside the race: facts, operation times, the streams' timeline.

Runs in a worker. Times come from runners that trace: each unit of the plan is then issued by
itself, and says when it started and ended.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from .. import _native
from .._native import ffi
from ..errors import DeviceError
from ..plan import Plan
from ..runner import Runner
from ..zoo import Workload
from .burst import burst_for, mean_ms, warm_up
from .traffic import bytes_read

_PLAIN_BURSTS = 3

# Tracing costs no more than units of the smallest size themselves take; where the sum is larger
# still, other processes have disturbed some of the units, and the rest must not suffer for it.
_LEAST_SCALE = 0.5


def facts(workload: Workload, threads: int, computes: int) -> dict[str, Any]:
    """Numbers about a graph, as `results.Facts`; opens and closes runners of it.

    Times are None where the device does not tell what its operations take.
    """
    buffer = serial_buffer_size(workload)
    durations = unit_durations(workload, threads, computes)
    with workload.runner(streams=1, threads=1) as runner:
        plan = runner.plan
    return {
        "nodes": plan.stats.n_nodes,
        "units": plan.stats.n_units,
        "phases": plan.stats.n_phases,
        "width": plan.stats.width,
        "store_bytes": workload.store.nbytes,
        "bytes_read": bytes_read(workload),
        "serial_buffer_bytes": buffer,
        "work_ms": None if durations is None else float(durations.sum()) / 1e3,
        "critical_ms": None if durations is None else critical_us(plan.deps, durations) / 1e3,
    }


def unit_durations(workload: Workload, threads: int, computes: int) -> np.ndarray | None:
    """Microseconds of each unit, computed one after another; None where that is not told.

    On the CPU the smaller of what it takes with one thread and with all of them; on every device
    the median of a few computes.
    """
    if workload.store.device == "cpu":
        times = [_operation_us(workload, n, computes) for n in sorted({1, threads})]
        return np.asarray(np.minimum.reduce(times))
    try:
        return _operation_us(workload, 1, computes)
    except DeviceError:
        return None


def _operation_us(workload: Workload, threads: int, computes: int) -> np.ndarray:
    """What each unit takes, one after another: the median of a few computes.

    Issuing units by themselves costs time that is not theirs: where together they take longer than
    the whole graph untraced, their times are scaled down to that, but at most halved.
    """
    with workload.runner(streams=1, threads=threads, trace=True) as runner:
        starts, ends = trace(runner, computes)
    durations: np.ndarray = np.median(ends - starts, axis=0)
    with workload.runner(streams=1, threads=threads) as runner:
        burst = burst_for(runner.compute)
        plain = min(mean_ms(runner.compute, burst) for _ in range(_PLAIN_BURSTS)) * 1e3
    return scaled(durations, plain)


def scaled(durations: np.ndarray, total: float) -> np.ndarray:
    """Durations whose sum is at most `total`, as far as halving them can do it."""
    ratio = total / max(float(durations.sum()), 1e-9)
    return durations * min(1.0, max(_LEAST_SCALE, ratio))


def critical_us(deps: Sequence[Sequence[int]], durations: Sequence[float] | np.ndarray) -> float:
    """The time of the longest chain of units; deps are those of each unit, all earlier ones."""
    finish: list[float] = []
    for unit, before in enumerate(deps):
        start = max((finish[dep] for dep in before), default=0.0)
        finish.append(start + float(durations[unit]))
    return max(finish, default=0.0)


def trace(runner: Runner, computes: int) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds at which units started and ended, one row for each compute."""
    warm_up(runner.compute)
    starts, ends = [], []
    for _ in range(computes):
        runner.compute()
        start, end = runner.unit_times()
        starts.append(start)
        ends.append(end)
    return np.array(starts), np.array(ends)


def timeline(workload: Workload, arguments: Mapping[str, Any], computes: int) -> dict[str, Any]:
    """When each unit ran, and on which stream, in that of a few computes whose time is the median.

    As `results.Timeline`, without the candidate's name.
    """
    with workload.runner(**arguments, trace=True) as runner:
        starts, ends = trace(runner, computes)
        plan = runner.plan
    totals = ends.max(axis=1)
    chosen = int(np.argsort(totals)[len(totals) // 2])
    spans = [
        {
            "stream": stream,
            "start_us": float(starts[chosen, step.unit]),
            "end_us": float(ends[chosen, step.unit]),
            "op": _op(plan, step.nodes),
            "label": ", ".join(plan.labels[node] for node in step.nodes),
        }
        for stream, steps in enumerate(plan.streams)
        for step in steps
    ]
    return {"streams": len(plan.streams), "total_us": float(median(totals)), "spans": spans}


def _op(plan: Plan, nodes: Sequence[int]) -> str:
    """The operation that a reader takes a unit for: its first one that computes something."""
    return plan.labels[nodes[0]].split(" ", 1)[0]


#
# Memory
#


def serial_buffer_size(workload: Workload) -> int | None:
    """Bytes that ggml's own graph allocator needs for the nodes in their order, one at a time.

    The graph must have no runner yet: tensors with memory need none. None where the library that
    holds the allocator is not found by name.
    """
    library = next(iter(sorted(_native._LIBRARIES.glob("libggc-ggml-base.*"))), None)
    if library is None:
        return None
    new, measure, free = _allocator(ctypes.CDLL(str(library)))
    allocator = new(_address(workload.store._device.buffer_type))
    if not allocator:
        raise MemoryError("no memory for a graph allocator")
    size = ctypes.c_size_t(0)
    try:
        measure(allocator, workload.graph.address, None, None, ctypes.byref(size))
    finally:
        free(allocator)
    return size.value


def _allocator(library: ctypes.CDLL) -> tuple[Callable[..., Any], ...]:
    """ggml_gallocr_new, _reserve_n_size and _free."""
    pointer = ctypes.c_void_p
    new = library.ggml_gallocr_new
    new.argtypes, new.restype = [pointer], pointer
    measure = library.ggml_gallocr_reserve_n_size
    measure.argtypes, measure.restype = [pointer] * 5, None
    free = library.ggml_gallocr_free
    free.argtypes, free.restype = [pointer], None
    return new, measure, free


def _address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))
