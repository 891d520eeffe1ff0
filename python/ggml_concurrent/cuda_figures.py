"""What became of a plan on a CUDA device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._native import ffi, lib

__all__ = ["CudaFigures"]


@dataclass(frozen=True)
class CudaFigures:
    """The CUDA graph that a runner's plan was captured into, so far.

    Attributes:
        captured: whether the next computation is a launch of it.
        nodes: kernels, copies and the like in it.
        edges: dependences between them; 0 where the driver is older than CUDA 12.3.
        captures: how often the plan was captured.
        updates: how often the CUDA graph was updated in place.
        instantiations: how often it was made anew.
        capture_us, update_us, instantiate_us: microseconds that the last of each took the host;
            0.0: there was none.
        stream_bytes: memory that the streams took beside the tensors (`Runner.stream_bytes`).
    """

    captured: bool
    nodes: int
    edges: int
    captures: int
    updates: int
    instantiations: int
    capture_us: float
    update_us: float
    instantiate_us: float
    stream_bytes: int


def cuda_figures(runner: Any) -> CudaFigures | None:
    """Of the way that the C runner computes next; None where it uses no streams of a device."""
    figures = ffi.new("struct ggc_cuda_figures *")
    if lib.ggc_runner_cuda_figures(runner, figures) != lib.GGC_OK:
        return None
    return CudaFigures(
        figures.captured,
        figures.n_nodes,
        figures.n_edges,
        figures.n_captures,
        figures.n_updates,
        figures.n_instantiations,
        figures.capture,
        figures.update,
        figures.instantiate,
        lib.ggc_runner_stream_bytes(runner),
    )
