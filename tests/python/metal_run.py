"""tests/metal/run.h from Python: graphs on a Metal device, real or simulated, without us.

with MetalRun() as metal, zoo.build("llama-tiny") as workload:
    results = metal.results(workload, "reorder")
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tools import normal_build

from ggml_concurrent import Error, zoo
from ggml_concurrent._native import ffi, ggml
from ggml_concurrent.dtypes import BY_ID, from_bytes, to_bytes

WAYS = ("plain", "reorder", "late")


class MetalRun:
    """The library. A device "MTL" must be registered with ggml when it is used."""

    def __init__(self, path: Path | None = None) -> None:
        path = path or normal_build() / "tests" / "metal_run.so"
        self._lib = ctypes.CDLL(str(path.resolve()))
        pointer = ctypes.c_void_p
        for name, result, arguments in (
            ("metal_run_weights_new", pointer, (pointer,)),
            ("metal_run_weights_free", None, (pointer,)),
            ("metal_run_new", pointer, (pointer, ctypes.c_int, pointer)),
            ("metal_run_compute", ctypes.c_int, (pointer, ctypes.c_int32)),
            ("metal_run_free", None, (pointer,)),
        ):
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments

    @contextmanager
    def weights(self, workload: zoo.Workload) -> Iterator[None]:
        """Memory for weights that have none, and nothing in it: not to be computed with."""
        memory = self._lib.metal_run_weights_new(_address(workload))
        try:
            yield
        finally:
            self._lib.metal_run_weights_free(memory)

    @contextmanager
    def opened(
        self, workload: zoo.Workload, way: str = "plain", order: Sequence[int] | None = None
    ) -> Iterator[Opened]:
        """A graph with memory, its inputs set.  Raises Error if ggml-metal cannot compute it.

        Args:
            workload: its graph has no Runner.
            way: "plain", "reorder", or, to be found wrong, "late" (tests/metal/run.h).
            order: of the nodes; its own by default.
        """
        with self.started(_address(workload), way, order) as run:
            opened = Opened(self, run, workload)
            opened.feed()
            yield opened

    @contextmanager
    def started(
        self, graph: int, way: str = "plain", order: Sequence[int] | None = None
    ) -> Iterator[int]:
        """The same for a graph at an address; gives what `compute` takes."""
        numbers = (ctypes.c_int32 * len(order))(*order) if order else None
        run = self._lib.metal_run_new(graph, WAYS.index(way), numbers)
        if not run:
            raise Error("ggml-metal cannot compute this graph")
        try:
            yield run
        finally:
            self._lib.metal_run_free(run)

    def compute(self, run: int, *, wait: bool = True) -> None:
        """Computes a graph once. wait: until it is done."""
        if self._lib.metal_run_compute(run, not wait) != 0:
            raise Error("ggml failed to compute this graph")


class Opened:
    """A graph with memory on the device."""

    def __init__(self, metal: MetalRun, run: int, workload: zoo.Workload) -> None:
        self._metal, self._run, self._workload = metal, run, workload

    def feed(self) -> None:
        """Sets the inputs. Each computation may use their memory for something else."""
        for name, tensor in self._workload.graph._inputs.items():
            if tensor.data != ffi.NULL:
                set_tensor(tensor, self._workload.feeds[name])

    def compute(self, *, wait: bool = True) -> None:
        """Computes it once. wait: until it is done."""
        self._metal.compute(self._run, wait=wait)

    def outputs(self) -> dict[str, np.ndarray]:
        return {n: get_tensor(t) for n, t in self._workload.graph._outputs.items()}


def _address(workload: zoo.Workload) -> int:
    return int(ffi.cast("uintptr_t", workload.graph._graph))


def set_tensor(tensor: Any, values: np.ndarray) -> None:
    data = bytes(to_bytes(values, BY_ID[tensor.type], tuple(tensor.ne), "input"))
    ggml.ggml_backend_tensor_set(tensor, ffi.from_buffer(data), 0, len(data))


def get_tensor(tensor: Any) -> np.ndarray:
    data = np.empty(ggml.ggml_nbytes(tensor), np.uint8)
    target = ffi.from_buffer("uint8_t *", data, require_writable=True)
    ggml.ggml_backend_tensor_get(tensor, target, 0, data.nbytes)
    return from_bytes(data, BY_ID[tensor.type], tuple(tensor.ne), tuple(tensor.nb))
