"""Which rules an operation is checked against, and what all results must fulfil."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arguments import describe
from .._native import ffi
from .._ops import SPECS
from ..dtypes import BY_ID, DType
from ..errors import GraphError
from ..tensor import Tensor

__all__ = [
    "Rule",
    "Values",
    "check_operation",
    "check_result",
    "nb_of",
    "ne_of",
    "rule",
    "type_of",
]

Values = dict[str, Any]
"""Arguments by name, each of its kind."""

Rule = Callable[[Values], str | None]
"""Looks at the arguments and returns what is wrong with them, or None."""

_RULES: dict[str, list[Rule]] = {op: [] for op in SPECS}


def rule(*ops: str, inplace: bool = True) -> Callable[[Rule], Rule]:
    """Registers a rule for operations and, unless told otherwise, for their in-place forms."""

    def register(check: Rule) -> Rule:
        for op in ops:
            _RULES[op].append(check)
            if inplace and op + "_inplace" in SPECS:
                _RULES[op + "_inplace"].append(check)
        return check

    return register


def check_operation(op: str, values: Values) -> None:
    """Raises GraphError if a rule for this operation is broken."""
    for check in _RULES[op]:
        problem = check(values)
        if problem:
            raise GraphError(f"{describe(op, values)}: {problem}")


# Bytes that no machine has: sizes that are multiplied beyond this would wrap in C.
_MAX_BYTES = 1 << 60


def check_result(op: str, values: Values, result: Any) -> None:
    """Raises GraphError if ggml built a tensor that cannot exist."""
    ne, dtype = tuple(result.ne), BY_ID[result.type]
    if min(ne) < 1:
        raise GraphError(f"{describe(op, values)}: the result would hold nothing: ne {ne}")
    if ne[0] % dtype.block and result.view_src == ffi.NULL:
        raise GraphError(
            f"{describe(op, values)}: rows of {dtype.name} are a multiple of {dtype.block} long, "
            f"the result's would have {ne[0]}"
        )
    if dtype.row_bytes(ne[0]) * ne[1] * ne[2] * ne[3] > _MAX_BYTES:
        raise GraphError(f"{describe(op, values)}: the result is larger than any memory: ne {ne}")


def ne_of(t: Tensor) -> tuple[int, int, int, int]:
    return tuple(t._ptr.ne)


def nb_of(t: Tensor) -> tuple[int, int, int, int]:
    return tuple(t._ptr.nb)


def type_of(t: Tensor) -> DType:
    return BY_ID[t._ptr.type]
