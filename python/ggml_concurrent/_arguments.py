"""Arguments of operations: from Python's kinds to C's, and back into words for a message."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._native import ffi, lib
from ._ops import ENUMS, SPECS
from .dtypes import BY_ID, dtype_of
from .errors import ClosedError, GraphError
from .tensor import Tensor

if TYPE_CHECKING:
    from .graph import Graph

__all__ = ["c_value", "convert_arguments", "describe"]

_RANGES = {
    "i32": (-(2**31), 2**31 - 1),
    "u32": (0, 2**32 - 1),
    "i64": (-(2**63), 2**63 - 1),
    "size": (0, 2**63 - 1),
}


def _integer(value: Any, kind: str, what: str) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{what}: expected an int, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what}: expected an int, got {type(value).__name__}") from None
    low, high = _RANGES[kind]
    if not low <= number <= high:
        raise GraphError(f"{what}: {number} is outside of {low} .. {high}")
    return number


def _number(value: Any, what: str) -> float:
    if isinstance(value, (bool, np.bool_, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{what}: expected a float, got {type(value).__name__}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{what}: expected one float, got {type(value).__name__}") from None


def _boolean(value: Any, what: str) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{what}: expected True or False, got {value!r}")


_ENUM_VALUES = {
    enum: {name: int(getattr(lib, constant)) for name, constant in names.items()}
    for enum, names in ENUMS.items()
}


def _enum(value: Any, enum: str, what: str) -> int:
    """A value of an enum, by its short name or its number."""
    names = _ENUM_VALUES[enum]
    if isinstance(value, str):
        if value.lower() in names:
            return names[value.lower()]
        raise GraphError(f"{what}: expected one of {', '.join(names)}, got {value!r}")
    number = _integer(value, "u32" if enum == "ggml_scale_mode" else "i32", what)
    if number in names.values() or (enum == "ggml_scale_mode" and number & 0xFF in names.values()):
        return number  # a scale mode may carry flags above its low byte
    choices = ", ".join(f"{name} ({n})" for name, n in names.items())
    raise GraphError(f"{what}: expected one of {choices}, got {number}")


def _integers(value: Any, kind: str, what: str) -> Any:
    """Four integers as a C array."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(f"{what}: expected four ints, got {type(value).__name__}")
    if len(value) != 4:
        raise GraphError(f"{what}: expected four ints, got {len(value)}")
    numbers = [_integer(v, kind, what) for v in value]
    return ffi.new("int[4]" if kind == "i32" else "int64_t[4]", numbers)


def _tensor(graph: Graph, value: Any, kind: str, what: str) -> Any:
    if value is None and kind == "tensor?":
        return None
    if not isinstance(value, Tensor):
        hint = ""
        if isinstance(value, np.ndarray):
            hint = "; put the array into a Store (store.array) or make an input (graph.input)"
        raise TypeError(f"{what}: expected a Tensor, got {type(value).__name__}{hint}")
    owner = value._owner
    if owner is graph:
        return value
    if owner.closed:
        raise ClosedError(f"{what}: the tensor belongs to a closed {type(owner).__name__}")
    if not graph._may_use(value):
        raise GraphError(
            f"{what}: the tensor belongs to another Graph; graphs share tensors of a Store only"
        )
    return value


def convert_arguments(graph: Graph, op: str, args: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments by name, each of its kind. TypeError or GraphError for one that is not."""
    values = {}
    for (name, kind), value in zip(SPECS[op], args, strict=True):
        what = f"{op}: argument {name}"
        if kind.startswith("tensor"):
            values[name] = _tensor(graph, value, kind, what)
        elif kind == "f32":
            values[name] = _number(value, what)
        elif kind == "bool":
            values[name] = _boolean(value, what)
        elif kind == "dtype":
            values[name] = _dtype(value, what)
        elif kind.startswith("enum "):
            values[name] = _enum(value, kind[5:], what)
        elif kind.endswith("[4]"):
            values[name] = _integers(value, kind[:3], what)
        else:
            values[name] = _integer(value, kind, what)
    return values


def _dtype(value: Any, what: str) -> int:
    try:
        return dtype_of(value).id
    except (TypeError, GraphError) as error:
        raise type(error)(f"{what}: {error}") from None


def c_value(value: Any) -> Any:
    """An argument as cffi takes it."""
    if isinstance(value, Tensor):
        return value._ptr
    return ffi.NULL if value is None else value


def describe(op: str, values: dict[str, Any]) -> str:
    """The call as a reader would write it, each tensor with its type and ne."""
    kinds = dict(SPECS[op])
    parts = (f"{name}={_in_words(value, kinds[name])}" for name, value in values.items())
    return f"{op}({', '.join(parts)})"


def _in_words(value: Any, kind: str) -> str:
    if isinstance(value, Tensor):
        label = f" {value.name!r}" if value.name else ""
        return f"{value.dtype} {value.ne}{label}"
    if isinstance(value, ffi.CData):
        return str(list(value))
    if kind == "dtype":
        return repr(BY_ID[value].name)
    if kind.startswith("enum "):
        names = [n for n, number in _ENUM_VALUES[kind[5:]].items() if number == value]
        return repr(names[0] if names else value)
    return repr(value)
