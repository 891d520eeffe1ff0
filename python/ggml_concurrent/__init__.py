"""Runs the independent operations of a ggml graph at the same time."""

from __future__ import annotations

from .dropin import Attachment, attach, attachment, detach, plugin_path
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
from .info import version as _version
from .memory import Memory, Pool, sketch_memory
from .plan import BARRIER, Conflict, Plan, PlanStats, Step, find_concurrency
from .runner import Runner, compute_serial
from .store import Store
from .tensor import Tensor

__all__ = [
    "BARRIER",
    "GGUF",
    "Attachment",
    "ClosedError",
    "Conflict",
    "DTypeLike",
    "DeviceError",
    "Error",
    "FormatError",
    "Graph",
    "GraphError",
    "Memory",
    "Plan",
    "PlanError",
    "PlanStats",
    "Pool",
    "RaceError",
    "Runner",
    "Step",
    "Store",
    "Tensor",
    "TensorInfo",
    "__version__",
    "attach",
    "attachment",
    "compute_serial",
    "detach",
    "find_concurrency",
    "plugin_path",
    "sketch_memory",
]

__version__ = _version()
