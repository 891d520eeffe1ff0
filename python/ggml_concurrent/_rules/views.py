"""Views and regions, which have to lie inside of what they show."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .._native import ffi, ggml
from ..dtypes import DType
from .registry import Values, nb_of, ne_of, rule, type_of


@rule("reshape", "reshape_1d", "reshape_2d", "reshape_3d", "reshape_4d")
def _reshape(values: Values) -> str | None:
    a = values["a"]
    if not ggml.ggml_is_contiguous(a._ptr):
        return f"a is not contiguous (nb {nb_of(a)}); use cont() first"
    return _same_number(values)


@rule("cont_1d", "cont_2d", "cont_3d", "cont_4d", "cpy")
def _same_number(values: Values) -> str | None:
    if "b" in values:
        ne = ne_of(values["b"])
    else:
        ne = tuple(values[n] for n in ("ne0", "ne1", "ne2", "ne3") if n in values)
    have, want = math.prod(ne_of(values["a"])), math.prod(ne)
    return None if have == want else f"a has {have} elements, ne {ne} has {want}"


def _span(dtype: DType, ne: tuple[int, ...], nb: tuple[int, ...]) -> int:
    """Bytes from the first to the end of the last element."""
    return dtype.row_bytes(ne[0]) + sum((n - 1) * b for n, b in zip(ne[1:], nb, strict=False))


def _misaligned(dtype: DType, values: Values, names: Iterable[str]) -> str | None:
    for name in names:
        if values.get(name, 0) % dtype.nbytes:
            return f"{name} is {values[name]}, expected a multiple of {dtype.nbytes} ({dtype.name})"
    return None


@rule("view_1d", "view_2d", "view_3d", "view_4d")
def _view(values: Values) -> str | None:
    """Inside of the memory that is viewed: a view of a view may leave that, not its root."""
    a = values["a"]
    dtype = type_of(a)
    if values["ne0"] % dtype.block:
        return f"ne0 is a multiple of {dtype.block} for {dtype.name}"
    if problem := _misaligned(dtype, values, ("nb1", "nb2", "nb3", "offset")):
        return problem
    ne = tuple(values[n] for n in ("ne0", "ne1", "ne2", "ne3") if n in values)
    nb = tuple(values[n] for n in ("nb1", "nb2", "nb3") if n in values)
    if len(nb) < len(ne) - 1:
        nb += (nb[-1] * ne[-2],)
    root = a._ptr if a._ptr.view_src == ffi.NULL else a._ptr.view_src
    end = a._ptr.view_offs + values["offset"] + _span(dtype, ne, nb)
    have = ggml.ggml_nbytes(root)
    return None if end <= have else f"the view ends at byte {end}, its tensor at {have}"


@rule("set", "set_1d", "set_2d", "acc")
def _region(values: Values) -> str | None:
    """b, laid out with the strides given, lies inside of a."""
    a, b = values["a"], values["b"]
    own = nb_of(a)
    nb = tuple(values.get(f"nb{i}", own[i]) for i in (1, 2, 3))
    dtype = type_of(a)
    if problem := _misaligned(dtype, values, ("nb1", "nb2", "nb3", "offset")):
        return problem
    if max(*nb, values["offset"]) >= 2**31:
        return "strides and offset must be below 2 GiB"
    end = values["offset"] + _span(dtype, ne_of(b), nb)
    have = ggml.ggml_nbytes(a._ptr)
    return None if end <= have else f"b would end at byte {end} of a, which has {have}"
