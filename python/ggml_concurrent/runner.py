"""Runners: graphs laid out in memory, planned, and computed."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._native import (
    Closable,
    Handle,
    device_of,
    ffi,
    lib,
    load_backends,
    message_of,
    raise_status,
)
from ._transfers import Transfers
from .cuda_figures import CudaFigures, cuda_figures
from .errors import Error, GraphError
from .graph import Graph
from .memory import Memory, Pool, blocks_of, memory_of
from .plan import Plan, choice, copy_plan, count, fuse_of, strategy_name, strategy_of
from .tensor import Tensor, begin_read, read_values, write_bytes, write_values

__all__ = ["Runner", "compute_serial"]

_MAX_THREADS = 512
_MOST_MICROSECONDS = 1e9

#: Streams where none are asked for.
_STREAMS, _CUDA_STREAMS = 2, 8

_TUNE = {"off": lib.GGC_TUNE_OFF, "quick": lib.GGC_TUNE_QUICK, "full": lib.GGC_TUNE_FULL}

CACHE_VARIABLE = "GGML_CONCURRENT_CACHE"


@dataclass(frozen=True)
class Way:
    """A way of computing a graph: how units are placed, and by how many threads in all."""

    strategy: str
    streams: int
    threads: int
    urgency: bool  # CUDA: whether kernels on which the end waits had a higher priority
    microseconds: float  # median; 0.0 where it was not timed
    dropped: bool  # clearly slower after a round of trials, and not timed again
    in_use: bool  # the next computation's; once the runner has settled, the fastest

    def __str__(self) -> str:
        what = "serial" if self.streams == 1 else f"{self.streams} streams ({self.strategy})"
        what += ", urgent first" if self.urgency else ""
        time = f", {self.microseconds:.1f} us" if self.microseconds else ""
        return f"{what}, {self.threads} threads{time}"


def _way(way: Any) -> Way:
    return Way(
        strategy=strategy_name(way.strategy),
        streams=way.n_streams,
        threads=way.n_threads,
        urgency=bool(way.urgency),
        microseconds=way.microseconds,
        dropped=bool(way.dropped),
        in_use=bool(way.in_use),
    )


def tuning_folder() -> Path | None:
    """Where what tuning found is kept: one small file for each graph, safe to delete.

    The environment variable GGML_CONCURRENT_CACHE names the folder; if it is empty nothing is kept.
    Without it, that is ggml-concurrent in the user's cache folder (XDG_CACHE_HOME, ~/.cache).
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        parent = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
        parent.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None  # no home, or none that can be written to
    return parent / "ggml-concurrent"


@dataclass(frozen=True)
class MetalFigures:
    """What ggml-metal makes of a graph, predicted; not measured.

    Attributes:
        kernels: operations, those that it computes in one kernel counted once.
        barriers: between kernels.
        inner_barriers: inside of operations that are several kernels.
        command_buffers: those with work.
        microseconds: what barriers and command buffers cost beside the work of the kernels.
    """

    kernels: int
    barriers: int
    inner_barriers: int
    command_buffers: int
    microseconds: float


def _metal_figures(status: int, figures: Any) -> MetalFigures:
    raise_status(status, "", "metal")
    return MetalFigures(
        figures.n_kernels,
        figures.n_barriers,
        figures.n_inner_barriers,
        figures.n_command_buffers,
        figures.microseconds,
    )


class Runner(Closable):
    """Computes a graph, independent operations at the same time; a context manager.

    Making a runner gives memory to the tensors of the graph that have none, plans the graph on
    these addresses, and proves the plan race-free.  While it is open the graph cannot be changed
    and no other runner can have it.  A runner keeps its graph's and stores' memory, also when they
    are closed first.

    Several threads may use one runner: calls wait for one another.

    Args:
        graph: with at least one output or expanded node.
        device: "cpu", or "metal": ggml's Metal backend computes the operations by phase, with a
            barrier after each; or "cuda0", "cuda1", ...: streams are those of a CUDA device,
            captured into one CUDA graph. Weights and caches must be in a Store of the same device.
        streams: at most so many operations at the same time; 1 is serial. By default 2, on CUDA 8.
            On Metal any number above 1 means as many as there are.
        threads: in all, shared out among the streams; by default as many as streams.
        fuse: "cpu" keeps nodes together that the CPU backend may compute in one kernel; "none".
        verify: whether to refuse a plan that is not proven.
        strategy: how units are placed: "list", "levels" or "serial".
        tune: how to choose between streams and computing serially. "quick" times a few ways on the
            first computations, some tens of them, and keeps the fastest; every one of them gives
            the same result. What was found is remembered on disk (`tuning_folder`). On CUDA each
            operation is timed first, on the first four computations, and plans are made by these
            costs, which are remembered as well. "full" times more ways, on CUDA. "off" goes by a
            rough estimate.
        always: use the streams whether they pay or not.
        budget: bytes that intermediate tensors may take; 0: as few as possible. Up to it none share
            memory, and beyond, those share it which costs the least concurrency (`memory` tells
            which). By default what ggml's allocator would take, and 2 % of the weights that the
            graph reads, at least 32 MiB.
        pool: where their memory comes from and goes to when the runner is closed.
        stress_seed: not 0: random delays between operations, for tests.
        trace: note when each unit runs (`unit_times`); each is then issued by itself, which takes
            a little longer.
        wait_cost: microseconds that waiting for another stream costs; by default the device's.
        costs: microseconds of each node of the graph, in its order; by default guessed, or measured
            as told under `tune`.
        urgency: on CUDA, kernels on which the end waits get a higher priority than others; where
            ways are timed both are, whatever stands here.
        scheduled: plain ggml through its own scheduler (`ggml_backend_sched`), as llama.cpp
            computes: to compare with.  It lays out the memory; needs streams=1, and no trace.

    Raises:
        GraphError: the graph is empty, not whole, or has an open runner already.
        DeviceError: the device cannot compute an operation of the graph.
        MemoryError: there is not enough memory.
    """

    def __init__(
        self,
        graph: Graph,
        device: str = "cpu",
        streams: int | None = None,
        threads: int | None = None,
        fuse: str = "cpu",
        verify: bool = True,
        *,
        strategy: str = "list",
        tune: str = "quick",
        always: bool = False,
        budget: int | None = None,
        pool: Pool | None = None,
        stress_seed: int = 0,
        trace: bool = False,
        scheduled: bool = False,
        wait_cost: float | None = None,
        costs: Sequence[float] | None = None,
        urgency: bool = False,
    ) -> None:
        params = ffi.new("struct ggc_runner_params *")
        lib.ggc_runner_params_init(params)
        params.device, params.device_index = device_of(device)
        if streams is None:
            streams = _CUDA_STREAMS if params.device == lib.GGC_DEVICE_CUDA else _STREAMS
        params.n_streams = count(streams, 1, lib.GGC_MAX_STREAMS, "streams")
        threads = streams if threads is None else threads
        params.n_threads = count(threads, 1, _MAX_THREADS, "threads")
        params.fuse = fuse_of(fuse)
        params.strategy = strategy_of(strategy)
        params.verify = bool(verify)
        params.tune = choice(tune, _TUNE, "tune")
        folder = tuning_folder()
        directory = ffi.new("char[]", os.fsencode(folder)) if folder else ffi.NULL
        params.tuning_dir = directory
        params.always = bool(always)
        params.stress_seed = count(stress_seed, 0, 2**32 - 1, "stress_seed")
        params.trace = bool(trace)
        params.scheduled = bool(scheduled)
        params.urgency = bool(urgency)
        if wait_cost is not None:
            params.wait_cost = _microseconds(wait_cost, "wait_cost")
        node_costs = _node_costs(costs, graph)
        params.costs = node_costs
        if budget is not None:
            params.budget = count(budget, 0, 2**62, "budget")
        if pool is not None and not isinstance(pool, Pool):
            raise TypeError(f"pool: expected a Pool, got {type(pool).__name__}")
        pools = [pool.handle()] if pool is not None else []
        params.pool = pools[0].pointer if pools else ffi.NULL
        load_backends()
        self._lock = threading.RLock()
        self._handle: Handle | None = _new_runner(graph, params, *pools)
        self._device = device
        self._graph = graph
        self._inputs = {n: p for n, p in graph._inputs.items() if p.data != ffi.NULL}
        self._unused = set(graph._inputs) - set(self._inputs)
        self._outputs = dict(graph._outputs)
        self._unset = set(self._inputs)
        self._limits = _index_limits(graph, self._inputs)
        self._cgraph = graph._graph  # which outlives the graph's close()
        self._plans: dict[int, Plan] = {}  # by the address of the C plan
        self._warned = ""
        graph._runner = weakref.ref(self)
        self._warn()

    #
    # Life
    #

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._handle is None

    def _open(self) -> Any:
        self._check_open()
        assert self._handle is not None
        return self._handle.pointer

    def close(self) -> None:
        """Frees the runner and the memory it gave; waits for a running compute."""
        with self._lock:
            if not self.closed:
                _ = self.plan  # it can still be asked for
            self._handle = None

    def __repr__(self) -> str:
        return "<Runner closed>" if self.closed else f"<Runner {self.plan!r}>"

    #
    # What it does
    #

    @property
    def graph(self) -> Graph:
        """The graph that is computed."""
        return self._graph

    @property
    def plan(self) -> Plan:
        """The plan of the next computation; while the runner is tuned, plans take turns.

        After close() the last one is given.
        """
        with self._lock:
            if self.closed and self._plans:
                return next(reversed(self._plans.values()))
            pointer = lib.ggc_runner_plan(self._open())
            address = int(ffi.cast("uintptr_t", pointer))
            if address not in self._plans:
                self._plans[address] = copy_plan(pointer, self._cgraph)
            self._plans[address] = self._plans.pop(address)  # the last one
            return self._plans[address]

    @property
    def settled(self) -> bool:
        """Whether the way of computing is found and will not change any more."""
        with self._lock:
            return bool(lib.ggc_runner_settled(self._open()))

    @property
    def ways(self) -> list[Way]:
        """The ways of computing that are or were tried; one where there was nothing to choose."""
        with self._lock:
            pointer = self._open()
            n = lib.ggc_runner_ways(pointer, ffi.NULL, 0)
            ways = ffi.new("struct ggc_way[]", n)
            lib.ggc_runner_ways(pointer, ways, n)
            return [_way(way) for way in ways]

    def settle(self) -> None:
        """Computes until the way of computing is found; for measurements.

        Caches and states that the graph writes to change with each computation.
        """
        while not self.settled:
            self.compute()

    def _warn(self) -> None:
        """Passes a new warning of the C library on."""
        warning = message_of(lib.ggc_runner_warning(self._open()))
        if warning and warning != self._warned:
            self._warned = warning
            warnings.warn(warning, RuntimeWarning, stacklevel=4)

    @property
    def buffer_size(self) -> int:
        """Bytes that the runner allocated for tensors."""
        with self._lock:
            return int(lib.ggc_runner_buffer_size(self._open()))

    @property
    def memory(self) -> Memory:
        """How the tensors were laid out; times and streams are those of `plan`."""
        with self._lock:
            pointer = self._open()
            return memory_of(lib.ggc_runner_memory(pointer), blocks_of(pointer, self.plan))

    @property
    def stream_bytes(self) -> int:
        """Bytes that streams of a CUDA device took of it beside the tensors, for pools and cuBLAS.

        Known after the first computation: by how much less was free than before, whoever took it.
        """
        with self._lock:
            return int(lib.ggc_runner_stream_bytes(self._open()))

    @property
    def device(self) -> str:
        """Where the graph is computed."""
        return self._device

    @property
    def cuda(self) -> CudaFigures | None:
        """What became of the plan that is computed next; None but on streams of a CUDA device."""
        with self._lock:
            return cuda_figures(self._open())

    @property
    def metal(self) -> MetalFigures | None:
        """What ggml-metal makes of the order that is computed next; None on other devices."""
        if self._device != "metal":
            return None
        figures = ffi.new("struct ggc_metal_figures *")
        with self._lock:
            return _metal_figures(lib.ggc_runner_metal_figures(self._open(), figures), figures)

    @property
    def metal_in_order(self) -> MetalFigures | None:
        """The same of the graph's own order, in the memory of this runner.

        Memory that operations share is laid out for the order by phase: barriers of another are
        then as many as it would need there.
        """
        if self._device != "metal":
            return None
        figures = ffi.new("struct ggc_metal_figures *")
        with self._lock:
            self._open()
            return _metal_figures(lib.ggc_metal_predict(self._cgraph, figures), figures)

    def unit_threads(self, unit: int) -> int:
        """How many threads compute a unit of the plan."""
        with self._lock:
            count(unit, 0, self.plan.stats.n_units - 1, "unit")
            return int(lib.ggc_runner_unit_threads(self._open(), unit))

    def unit_times(self) -> tuple[np.ndarray, np.ndarray]:
        """When each unit of the plan started and ended in the last computation.

        Two f64 arrays of shape (n_units,): microseconds from the computation's beginning.  Raises
        Error unless the runner was made with trace=True.
        """
        with self._lock:
            times = lib.ggc_runner_unit_times(self._open())
            if times == ffi.NULL:
                raise Error("unit_times: make the Runner with trace=True")
            n = self.plan.stats.n_units
            pairs = np.frombuffer(ffi.buffer(times, 16 * n), np.float64).reshape(n, 2).copy()
        return pairs[:, 0], pairs[:, 1]

    #
    # Running
    #

    def _input(self, name: str) -> Any:
        self._open()
        if name in self._inputs:
            return self._inputs[name]
        if name in self._unused:
            raise GraphError(f"input {name!r} is not used by any output of the graph")
        known = ", ".join(map(repr, self._inputs)) or "none"
        raise GraphError(f"the graph has no input {name!r}; it has {known}")

    @property
    def input_names(self) -> list[str]:
        """The inputs that the graph reads; all of them must be set."""
        return list(self._inputs)

    @property
    def index_limits(self) -> dict[str, int]:
        """Inputs that hold row numbers, such as tokens, and how many rows there are."""
        return dict(self._limits)

    def set(self, name: str, values: Any) -> None:
        """Writes an input, converted to its type. It keeps its values until it is set again."""
        with self._lock:
            self._write(name, values)

    def _write(self, name: str, values: Any, *put: Any) -> None:
        tensor = self._input(name)
        self._check_indices(name, values)
        write_values(tensor, values, *put)
        self._unset.discard(name)

    def set_raw(self, name: str, data: Any) -> None:
        """Writes the bytes of an input as they are; `data` is bytes or another buffer."""
        with self._lock:
            tensor = self._input(name)
            if name in self._limits:
                kind = np.int32 if tensor.type == lib.GGML_TYPE_I32 else np.int64
                self._check_indices(name, np.frombuffer(data, dtype=kind))
            write_bytes(tensor, data)
            self._unset.discard(name)

    def _check_indices(self, name: str, values: Any) -> None:
        """Rows are looked up by these numbers: ggml ends the process where one is out of range."""
        limit = self._limits.get(name)
        if limit is None:
            return
        numbers = np.asarray(values)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= limit):
            raise GraphError(
                f"input {name!r} holds row numbers: expected 0 to {limit - 1}, got "
                f"{numbers.min()} to {numbers.max()}"
            )

    def compute(self) -> None:
        """Computes the graph once. Other Python threads run meanwhile.

        Raises:
            Error: an input was never set.
            DeviceError: the computation failed; the runner can be used again.
        """
        with self._lock:
            pointer = self._open()
            self._check_set()
            status = lib.ggc_runner_compute(pointer)
            raise_status(status, message_of(lib.ggc_runner_message(pointer)), "compute")
            self._warn()

    def _check_set(self) -> None:
        if self._unset:
            raise Error(f"these inputs were never set: {', '.join(sorted(self._unset))}")

    def get(self, name: str) -> np.ndarray:
        """A copy of an output's values; its shape has no leading ones."""
        with self._lock:
            self._open()
            if name not in self._outputs:
                known = ", ".join(map(repr, self._outputs)) or "none"
                raise GraphError(f"the graph has no output {name!r}; it has {known}")
            return read_values(self._outputs[name])

    def run(
        self, inputs: Mapping[str, Any] | None = None, /, **named: Any
    ) -> dict[str, np.ndarray]:
        """Sets inputs, computes, and returns all outputs by name.

        Inputs whose names are no identifiers are given in a dict: ``r.run({"a.b": array})``.  A
        device is waited for once, at the end.

        Raises:
            Error, DeviceError: as compute().
        """
        with self._lock:
            transfers = Transfers(self._open())
            try:
                for name, values in {**(inputs or {}), **named}.items():
                    self._write(name, values, transfers.put)
                self._check_set()
                transfers.compute()
                results = {n: begin_read(p, transfers.get) for n, p in self._outputs.items()}
            finally:
                transfers.wait()
            self._warn()
            return {name: result() for name, result in results.items()}


def _microseconds(value: float, what: str) -> float:
    if not 0 <= (number := float(value)) < _MOST_MICROSECONDS:
        raise ValueError(f"{what} is {value}, expected microseconds, 0 or more")
    return number


def _node_costs(costs: Sequence[float] | None, graph: Graph) -> Any:
    """A C array with a number for each node, or NULL."""
    if costs is None:
        return ffi.NULL
    if len(costs) != len(graph):
        raise ValueError(f"costs has {len(costs)} numbers, the graph {len(graph)} nodes")
    return ffi.new("double[]", [_microseconds(cost, "a cost") for cost in costs])


def _new_runner(graph: Graph, params: Any, *keep: Handle) -> Handle:
    if not isinstance(graph, Graph):
        raise TypeError(f"expected a Graph, got {type(graph).__name__}")
    graph._building()  # open, whole, and without another runner
    if len(graph) == 0:
        raise GraphError("the graph has no nodes: mark a result with graph.output(tensor)")
    for store, pointer in graph._foreign.values():
        tensor = Tensor(pointer, store)
        if pointer.data == ffi.NULL:
            raise GraphError(f"{tensor.name!r} has no memory: a placeholder is for planning only")
    out = ffi.new("struct ggc_runner **")
    message = ffi.new("char[]", 1024)
    lib.ggc_graph_promise(graph._graph)  # while a runner is open nobody can change it
    status = lib.ggc_runner_new(graph._graph, params, out, message, len(message))
    raise_status(status, message_of(message), "Runner")
    return Handle("runner", out[0], lib.ggc_runner_free, graph._handle, *graph._uses, *keep)


def compute_serial(graph: Graph, threads: int = 2) -> None:
    """Computes a graph that has an open Runner with plain ggml: one backend, one node at a time.

    Inputs are set and outputs read through the Runner.  For comparing results.
    """
    if not isinstance(graph, Graph):
        raise TypeError(f"expected a Graph, got {type(graph).__name__}")
    count(threads, 1, _MAX_THREADS, "threads")
    runner = graph._open_runner()
    if runner is None:
        raise GraphError("the graph has no memory: open a Runner of it first")
    message = ffi.new("char[]", 1024)
    with runner._lock:
        runner._open()
        status = lib.ggc_compute_serial(graph._graph, threads, message, len(message))
    raise_status(status, message_of(message), "compute_serial")


#
# Row numbers
#


def _index_limits(graph: Graph, inputs: dict[str, Any]) -> dict[str, int]:
    """Inputs whose values are row numbers -> how many rows there are."""
    names = {p: name for name, p in inputs.items()}
    limits: dict[str, int] = {}
    for node in graph.nodes:
        used = _indices_of(node._ptr)
        if used is None:
            continue
        tensor, rows = used
        name = names.get(tensor) or names.get(tensor.view_src)
        if name is not None and _shows_all(tensor, inputs[name]):
            limits[name] = min(rows, limits.get(name, rows))
    return limits


def _indices_of(node: Any) -> tuple[Any, int] | None:
    """The source that holds row numbers, and the number of rows."""
    src = node.src
    if node.op == lib.GGML_OP_GET_ROWS:
        return src[1], src[0].ne[1]
    if node.op == lib.GGML_OP_SET_ROWS:
        return src[1], node.ne[1]
    if node.op == lib.GGML_OP_MUL_MAT_ID:
        return src[2], src[0].ne[2]
    if node.op == lib.GGML_OP_ADD_ID:
        return src[2], src[1].ne[1]
    if node.op == lib.GGML_OP_SSM_SCAN:
        return src[6], src[0].ne[3]
    return None


def _shows_all(tensor: Any, root: Any) -> bool:
    return bool(np.prod(list(tensor.ne)) == np.prod(list(root.ne)))
