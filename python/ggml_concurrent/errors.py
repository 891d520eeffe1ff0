"""Exceptions. Each message says what was expected, what came, and the remedy."""

from __future__ import annotations

__all__ = [
    "ClosedError",
    "DeviceError",
    "Error",
    "FormatError",
    "GraphError",
    "PlanError",
    "RaceError",
]


class Error(Exception):
    """Base of all exceptions that ggml-concurrent raises on its own account."""


class GraphError(Error, ValueError):
    """Shapes, types or arguments that do not fit, met while a graph is being built."""


class PlanError(Error):
    """A graph cannot be planned."""


class RaceError(Error):
    """A plan leaves two conflicting accesses unordered."""


class DeviceError(Error):
    """A device is missing, cannot do what was asked, or failed while computing."""


class FormatError(Error, ValueError):
    """A GGUF file is damaged, or is none."""


class ClosedError(Error):
    """Something is used after it was closed."""
