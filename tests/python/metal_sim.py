"""tests/metal/sim.h from Python: a device with Metal's semantics on the CPU.

with simulated() as sim:
    sim.seed(7)
    with zoo.build("llama-tiny") as workload:
        results, report = sim.run(workload, "reorder")
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metal_run import MetalRun
from tools import need_built, normal_build

from ggml_concurrent import Error, _native, zoo
from ggml_concurrent.runner import MetalFigures


@dataclass(frozen=True)
class Report:
    """What was computed and encoded; tests/metal/sim.h says which is which."""

    graphs: int
    command_buffers: int
    barriers: int
    inner_barriers: int
    kernels: int
    dispatches: int
    widest: int
    races: int
    strays: int
    hasty: int
    first: str

    @property
    def faults(self) -> str:
        """What went wrong, if anything."""
        counts = {name: getattr(self, name) for name in ("races", "strays", "hasty")}
        told = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
        return f"{told}: {self.first}" if told else ""

    def check(self, predicted: MetalFigures | None) -> None:
        """Asserts that one graph was computed, without faults and as it was predicted."""
        assert predicted is not None
        assert self.faults == ""
        assert self.graphs == 1
        assert self.kernels == predicted.kernels
        assert self.inner_barriers == predicted.inner_barriers
        assert self.barriers == predicted.barriers + predicted.inner_barriers
        assert self.command_buffers == predicted.command_buffers


_NUMBERS = [field.name for field in fields(Report) if field.name != "first"]


class _Report(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int32) for name in _NUMBERS), ("first", ctypes.c_char * 320)]


def module() -> Path:
    """Where the build puts the device."""
    return normal_build() / "tests" / "metal_sim.so"


class Sim:
    """The loaded device; `simulated` makes and removes it."""

    def __init__(self, path: Path) -> None:
        _native.load_backends()
        self._registry = ctypes.CDLL(str(_native._LIBRARIES / "libggc-ggml.so"))
        self._registry.ggml_backend_load.argtypes = (ctypes.c_char_p,)
        self._registry.ggml_backend_load.restype = ctypes.c_void_p
        self._registry.ggml_backend_unload.argtypes = (ctypes.c_void_p,)
        self._reg = self._registry.ggml_backend_load(str(path.resolve()).encode())
        if not self._reg:
            raise Error(f"ggml refused {path}")
        self.metal = MetalRun()
        self._lib = ctypes.CDLL(str(path.resolve()))  # which stays, so that nothing dangles
        self._lib.metal_sim_seed.argtypes = (ctypes.c_uint64,)

    def remove(self) -> None:
        """No part of this process finds the device any more."""
        self._registry.ggml_backend_unload(self._reg)

    def reset(self) -> None:
        self._lib.metal_sim_reset()

    def seed(self, seed: int) -> None:
        """Of the order in which kernels run between two barriers; 0: as they were encoded."""
        self._lib.metal_sim_seed(seed)

    @contextmanager
    def dry(self) -> Iterator[None]:
        """Graphs are encoded and checked, and not computed."""
        self._lib.metal_sim_dry(1)
        try:
            yield
        finally:
            self._lib.metal_sim_dry(0)

    @contextmanager
    def without_barrier(self, barrier: int) -> Iterator[None]:
        """Graphs lack one barrier that ggml-metal believes to be there."""
        self._lib.metal_sim_leave_out(barrier)
        try:
            yield
        finally:
            self._lib.metal_sim_leave_out(-1)

    def report(self) -> Report:
        """What happened since reset()."""
        found = _Report()
        self._lib.metal_sim_read(ctypes.byref(found))
        numbers = {name: getattr(found, name) for name in _NUMBERS}
        return Report(**numbers, first=found.first.decode("utf-8", "replace"))

    def run(
        self,
        workload: zoo.Workload,
        way: str = "plain",
        order: Sequence[int] | None = None,
        *,
        wait: bool = True,
    ) -> tuple[dict[str, np.ndarray], Report]:
        """Computes a graph without us (`MetalRun.opened`): its results, and what was encoded."""
        with self.metal.opened(workload, way, order) as opened:
            self.reset()
            opened.compute(wait=wait)
            results = opened.outputs()
            report = self.report()
        return results | workload.caches(), report

    def encode(
        self, workload: zoo.Workload, way: str = "plain", order: Sequence[int] | None = None
    ) -> Report:
        """What is encoded for a graph without us; nothing is computed."""
        with self.dry(), self.metal.opened(workload, way, order) as opened:
            self.reset()
            opened.compute()
            return self.report()


def on_metal(name: str, **options: Any) -> zoo.Workload:
    """A graph of the zoo with its weights in memory of the device."""
    return zoo.build(name, device="metal", **options)


@contextmanager
def simulated() -> Iterator[Sim]:
    """The device, registered with ggml for as long as the block lasts."""
    sim = Sim(module())
    try:
        yield sim
    finally:
        sim.remove()


@contextmanager
def simulated_or_skipped() -> Iterator[Sim]:
    """The same for a test, which is skipped where there is no simulated device."""
    if sys.platform == "darwin":
        pytest.skip("there is a Metal device here")
    need_built("tests", module().name)
    with simulated() as sim:
        yield sim
