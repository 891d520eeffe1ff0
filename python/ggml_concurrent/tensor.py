"""Tensors: views of ggml's structs that keep their owner alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ._native import ffi, ggml, lib
from .dtypes import BY_ID, DType, from_bytes, shape_of, to_bytes
from .errors import ClosedError, Error, GraphError

if TYPE_CHECKING:
    from .graph import Graph
    from .store import Store

__all__ = ["Tensor", "begin_read", "encode_name", "read_values", "write_bytes", "write_values"]

_MAX_NAME = lib.GGML_MAX_NAME - 1  # bytes, without the closing zero


def encode_name(name: str) -> bytes:
    """A tensor's name as ggml keeps it. GraphError if ggml would cut it."""
    if not isinstance(name, str):
        raise TypeError(f"expected a name (str), got {type(name).__name__}")
    encoded = name.encode()
    if not encoded or len(encoded) > _MAX_NAME or b"\0" in encoded:
        raise GraphError(
            f"expected a name of 1 to {_MAX_NAME} bytes without zero bytes, got {name!r}"
        )
    return encoded


def _name(struct: Any) -> str:
    return str(ffi.string(struct.name).decode("utf-8", "replace"))


def _is_repacked(buffer: Any) -> bool:
    """Whether the CPU keeps what lies there in an order of its own."""
    if ggml.ggml_backend_buffer_is_host(buffer):
        return False
    buffer_type = ggml.ggml_backend_buffer_get_type(buffer)
    device = ggml.ggml_backend_buft_get_device(buffer_type)
    return bool(ggml.ggml_backend_dev_type(device) == lib.GGML_BACKEND_DEVICE_TYPE_CPU)


def _check_memory(struct: Any) -> None:
    """Raises Error unless the host can reach the tensor's bytes."""
    root = struct if struct.view_src == ffi.NULL else struct.view_src
    if ffi.NULL in (struct.data, root.buffer):
        raise Error(
            f"tensor {_name(struct)!r} has no memory: only tensors of a Store have, and those that "
            "take part in a Graph while a Runner of it is open"
        )
    if _is_repacked(root.buffer):
        raise Error(f"tensor {_name(struct)!r} is repacked for its device and cannot be accessed")


def begin_read(struct: Any, get: Any = ggml.ggml_backend_tensor_get) -> Callable[[], np.ndarray]:
    """Begins to copy a tensor's bytes with `get`; once they are there the result is called."""
    _check_memory(struct)
    dtype, nb = BY_ID[struct.type], tuple(struct.nb)
    if dtype.block > 1 and nb[0] != dtype.nbytes:
        raise Error(f"tensor {_name(struct)!r}: blocks of {dtype.name} that are not contiguous")
    data = np.empty(ggml.ggml_nbytes(struct), dtype=np.uint8)
    target = ffi.from_buffer("uint8_t *", data, require_writable=True)
    get(struct, target, 0, data.nbytes)
    ne = tuple(struct.ne)
    return lambda: from_bytes(data, dtype, ne, nb)


def read_values(struct: Any) -> np.ndarray:
    """A copy of a tensor's values; quantised ones and bf16 as float32."""
    return begin_read(struct)()


def write_values(struct: Any, values: Any, put: Any = ggml.ggml_backend_tensor_set) -> None:
    """Writes values with `put`, converted to the tensor's type."""
    what = f"tensor {_name(struct)!r}"
    write_bytes(struct, to_bytes(values, BY_ID[struct.type], tuple(struct.ne), what), put)


def write_bytes(struct: Any, data: Any, put: Any = ggml.ggml_backend_tensor_set) -> None:
    """Writes a tensor's bytes with `put`; `data` has the buffer interface."""
    _check_memory(struct)
    if not ggml.ggml_is_contiguous(struct):
        raise GraphError(f"tensor {_name(struct)!r} is not contiguous; write to the one it shows")
    view, need = memoryview(data), ggml.ggml_nbytes(struct)
    if not view.c_contiguous or view.nbytes != need:
        raise GraphError(
            f"tensor {_name(struct)!r}: expected {need} contiguous bytes, got {view.nbytes}"
        )
    put(struct, ffi.from_buffer("uint8_t *", data), 0, need)


class Tensor:
    """A tensor of a Graph or a Store.

    Sizes in ggml's order, fastest first, are called ``ne`` and always have four entries; ``shape``
    is NumPy's order, without leading ones.  A Tensor keeps its owner alive, but not open: once the
    owner is closed, every use raises ClosedError.  Two Tensors are equal when they are the same
    tensor of ggml's.
    """

    __slots__ = ("_owner", "_ptr")

    def __init__(self, ptr: Any, owner: Graph | Store) -> None:
        self._ptr = ptr
        self._owner = owner

    @property
    def _struct(self) -> Any:
        """The C struct, which is there only while the owner is open."""
        if self._owner.closed:
            raise ClosedError(f"this tensor belongs to a closed {type(self._owner).__name__}")
        return self._ptr

    @property
    def _address(self) -> int:
        return int(ffi.cast("uintptr_t", self._ptr))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and self._address == other._address

    def __hash__(self) -> int:
        return hash(self._address)

    def __repr__(self) -> str:
        if self._owner.closed:
            return f"<Tensor of a closed {type(self._owner).__name__}>"
        return f"<Tensor {self.name!r} {self.dtype} ne={self.ne} op={self.op}>"

    #
    # Shape and kind
    #

    @property
    def ne(self) -> tuple[int, int, int, int]:
        """Number of elements of each dimension, the fastest first."""
        return tuple(self._struct.ne)

    @property
    def shape(self) -> tuple[int, ...]:
        """NumPy's shape: ne reversed, without leading ones."""
        return shape_of(self.ne)

    @property
    def nb(self) -> tuple[int, int, int, int]:
        """Bytes from one element to the next in each dimension; nb[0] is the size of a block."""
        return tuple(self._struct.nb)

    @property
    def _type(self) -> DType:
        return BY_ID[self._struct.type]

    @property
    def dtype(self) -> str:
        """ggml's name of the type, such as "f32" or "q4_K"."""
        return self._type.name

    @property
    def nbytes(self) -> int:
        """Bytes from the first to the end of the last element."""
        return int(ggml.ggml_nbytes(self._struct))

    @property
    def is_contiguous(self) -> bool:
        """Whether the values lie one after another, in the order of ne."""
        return bool(ggml.ggml_is_contiguous(self._struct))

    #
    # Place in the graph
    #

    @property
    def name(self) -> str:
        """What messages call it; ggml makes up names for nodes that have none."""
        return _name(self._struct)

    @name.setter
    def name(self, name: str) -> None:
        self._owner.set_name(self, name)

    @property
    def op(self) -> str:
        """Name of the operation that computes this tensor: "MUL_MAT", "SILU"; "NONE" for data."""
        return str(ffi.string(ggml.ggml_op_desc(self._struct)).decode())

    @property
    def src(self) -> list[Tensor]:
        """The tensors that this one is computed from."""
        struct = self._struct
        return [self._owner._wrap(s) for s in struct.src if s != ffi.NULL]

    @property
    def is_view(self) -> bool:
        """Whether its memory is that of another tensor."""
        return bool(self._struct.view_src != ffi.NULL)

    @property
    def view_src(self) -> Tensor | None:
        """The tensor whose memory this one shows, never a view itself; None for no view."""
        source = self._struct.view_src
        return None if source == ffi.NULL else self._owner._wrap(source)

    #
    # Values
    #

    def numpy(self) -> np.ndarray:
        """A copy of the values; quantised ones and bf16 as float32.

        An intermediate tensor of a Graph may share its memory with a later one: after a run, only
        inputs, outputs and tensors of a Store are sure to hold what they stand for.
        """
        return read_values(self._struct)

    def set(self, values: Any) -> None:
        """Writes values, converted to the tensor's type (quantised if that is quantised)."""
        write_values(self._struct, values)

    def set_raw(self, data: Any) -> None:
        """Writes the tensor's bytes as they are; `data` is bytes or another contiguous buffer."""
        write_bytes(self._struct, data)
