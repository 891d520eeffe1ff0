"""Runs the independent operations of a ggml graph at the same time."""

from __future__ import annotations

from .dtypes import DTypeLike
from .errors import (
    ClosedError,
    DeviceError,
    Error,
    FormatError,
    GraphError,
    PlanError,
    RaceError,
)
from .gguf import GGUF, TensorInfo
from .graph import Graph
from .store import Store
from .tensor import Tensor

__all__ = [
    "GGUF",
    "ClosedError",
    "DTypeLike",
    "DeviceError",
    "Error",
    "FormatError",
    "Graph",
    "GraphError",
    "PlanError",
    "RaceError",
    "Store",
    "Tensor",
    "TensorInfo",
]
