"""ggml's tensor types: names, sizes, and conversion from and to NumPy arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._native import ffi, ggml
from .errors import GraphError

__all__ = ["DType", "DTypeLike", "dtype_of", "from_bytes", "shape_of", "to_bytes"]

# A ggml name ("f32", "q4_K"), ggml's number, or a NumPy dtype that maps.
DTypeLike = str | int | np.dtype | type


class DType(NamedTuple):
    """One of ggml's tensor types."""

    name: str
    id: int
    block: int  # elements that are stored together
    nbytes: int  # bytes of one block
    numpy: np.dtype | None  # the NumPy type with the same bytes, if there is one
    quantized: bool

    def row_bytes(self, n: int) -> int:
        """Bytes of n values in a row."""
        return n // self.block * self.nbytes


_NUMPY: dict[str, np.dtype] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "f64": np.dtype(np.float64),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
}


def _read_types() -> dict[int, DType]:
    """The table of the ggml that we were built with. Numbers of removed types have no entry."""
    types = {}
    for constant, number in ffi.typeof("enum ggml_type").relements.items():
        if constant == "GGML_TYPE_COUNT":
            continue
        name = ffi.string(ggml.ggml_type_name(number)).decode()
        types[number] = DType(
            name,
            number,
            ggml.ggml_blck_size(number),
            ggml.ggml_type_size(number),
            _NUMPY.get(name),
            bool(ggml.ggml_is_quantized(number)),
        )
    return types


BY_ID = _read_types()
BY_NAME = {t.name.lower(): t for t in BY_ID.values()}
_BY_NUMPY = {t.numpy: t for t in BY_ID.values() if t.numpy is not None}


def dtype_of(value: DTypeLike) -> DType:
    """The type that a name, a number or a NumPy dtype stands for. GraphError if there is none."""
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value.lower() in BY_NAME:
        return BY_NAME[value.lower()]
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value in BY_ID:
        return BY_ID[int(value)]
    if isinstance(value, (str, int)):
        known = " ".join(sorted(BY_NAME))
        raise GraphError(f"no tensor type {value!r}; known: {known}")
    try:
        wanted = np.dtype(value).newbyteorder("=")
    except (TypeError, ValueError):
        raise TypeError(f"expected a tensor type such as 'f32', got {value!r}") from None
    if wanted not in _BY_NUMPY:
        usable = ", ".join(str(t) for t in _BY_NUMPY)
        raise GraphError(f"ggml has no type for NumPy's {wanted}; convert the array to {usable}")
    return _BY_NUMPY[wanted]


#
# Shapes
#


def shape_of(ne: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's shape of a tensor: ne reversed, without its trailing ones (at least 1-D)."""
    n = len(ne)
    while n > 1 and ne[n - 1] == 1:
        n -= 1
    return tuple(reversed(ne[:n]))


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    n = 0
    while n < len(shape) - 1 and shape[n] == 1:
        n += 1
    return shape[n:] or (1,)


def check_shape(array: np.ndarray, ne: tuple[int, ...], what: str) -> None:
    """Raises GraphError unless the array has the tensor's shape, leading ones apart."""
    expected = shape_of(ne)
    if _without_leading_ones(array.shape) != expected:
        hint = ""
        if array.shape == tuple(reversed(expected)):
            hint = "; it looks transposed: ne counts from the fastest dimension on"
        raise GraphError(
            f"{what}: expected an array of shape {expected} (ne {tuple(ne)}), "
            f"got shape {array.shape}{hint}"
        )


#
# Arrays to bytes and back
#


def as_array(value: Any, what: str) -> np.ndarray:
    """A numeric NumPy array. TypeError for anything else."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what}: expected an array of numbers, got dtype {array.dtype}")
    if array.size == 0:
        raise GraphError(f"{what}: an array of shape {array.shape} holds nothing")
    return array


def _to_integers(array: np.ndarray, target: np.dtype, what: str) -> np.ndarray:
    if array.dtype.kind == "f":
        raise GraphError(
            f"{what}: expected integers ({target}), got {array.dtype}; round and convert first"
        )
    limits = np.iinfo(target)
    if array.dtype != target and array.dtype.kind != "b":
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise GraphError(f"{what}: values {low} .. {high} do not fit into {target}")
    return array.astype(target)


def to_bytes(value: Any, dtype: DType, ne: tuple[int, ...], what: str) -> np.ndarray:
    """The bytes of a contiguous tensor with these values, as an array that NumPy owns.

    Quantised types are quantised with ggml's own reference code.
    """
    array = as_array(value, what)
    check_shape(array, ne, what)
    if dtype.numpy is not None:
        if dtype.numpy.kind == "i":
            array = _to_integers(array, dtype.numpy, what)
        return np.ascontiguousarray(array, dtype=dtype.numpy)
    return _quantize(np.ascontiguousarray(array, dtype=np.float32), dtype, ne[0], what)


def _quantize(array: np.ndarray, dtype: DType, row: int, what: str) -> np.ndarray:
    if row % dtype.block:
        raise GraphError(
            f"{what}: rows of {dtype.name} hold a multiple of {dtype.block} values, got {row}"
        )
    if ggml.ggml_quantize_requires_imatrix(dtype.id):
        raise GraphError(f"{what}: {dtype.name} can only be made with an importance matrix")
    if dtype.quantized and not np.isfinite(array).all():
        raise GraphError(f"{what}: values that are not finite cannot be quantised to {dtype.name}")
    rows = array.size // row
    out = np.empty(rows * dtype.row_bytes(row), dtype=np.uint8)
    source = ffi.from_buffer("float *", array)
    target = ffi.from_buffer("uint8_t *", out, require_writable=True)
    ggml.ggml_quantize_chunk(dtype.id, source, target, 0, rows, row, ffi.NULL)
    return out


def from_bytes(
    data: np.ndarray, dtype: DType, ne: tuple[int, ...], nb: tuple[int, ...]
) -> np.ndarray:
    """A copy of a tensor's values; those of bf16 and quantised types as float32.

    `data` holds the tensor's bytes from its first on, laid out with the strides nb.
    """
    strides = tuple(reversed(nb))
    if dtype.numpy is not None:
        values = np.ndarray(tuple(reversed(ne)), dtype.numpy, data, strides=strides)
        return np.array(values.reshape(shape_of(ne)), copy=True)
    row_bytes = dtype.row_bytes(ne[0])
    rows = np.ndarray((ne[3], ne[2], ne[1], row_bytes), np.uint8, data, strides=(*strides[:3], 1))
    return _dequantize(np.ascontiguousarray(rows), dtype, ne)


def _dequantize(rows: np.ndarray, dtype: DType, ne: tuple[int, ...]) -> np.ndarray:
    to_float = ggml.ggml_get_type_traits(dtype.id).to_float
    if to_float == ffi.NULL:
        raise GraphError(f"ggml cannot convert {dtype.name} to float")
    out = np.empty(shape_of(ne), dtype=np.float32)
    to_float(
        ffi.from_buffer("uint8_t *", rows),
        ffi.from_buffer("float *", out, require_writable=True),
        out.size,
    )
    return out
