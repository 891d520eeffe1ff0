"""Reading GGUF files, with ggml's own reader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._native import Closable, Handle, ffi, ggml, lib, log_of
from .dtypes import BY_ID, shape_of
from .errors import ClosedError, Error, FormatError

__all__ = ["GGUF", "TensorInfo"]


class TensorInfo(NamedTuple):
    """Where a tensor stands in a GGUF file, and what it is."""

    dtype: str
    ne: tuple[int, int, int, int]
    offset: int  # bytes from the start of the file
    nbytes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """NumPy's shape: ne reversed, without leading ones."""
        return shape_of(self.ne)


# Value types of metadata: NumPy's view of their bytes.
_SCALARS: dict[int, np.dtype] = {
    lib.GGUF_TYPE_UINT8: np.dtype("u1"),
    lib.GGUF_TYPE_INT8: np.dtype("i1"),
    lib.GGUF_TYPE_UINT16: np.dtype("u2"),
    lib.GGUF_TYPE_INT16: np.dtype("i2"),
    lib.GGUF_TYPE_UINT32: np.dtype("u4"),
    lib.GGUF_TYPE_INT32: np.dtype("i4"),
    lib.GGUF_TYPE_FLOAT32: np.dtype("f4"),
    lib.GGUF_TYPE_BOOL: np.dtype("?"),
    lib.GGUF_TYPE_UINT64: np.dtype("u8"),
    lib.GGUF_TYPE_INT64: np.dtype("i8"),
    lib.GGUF_TYPE_FLOAT64: np.dtype("f8"),
}


def _text(pointer: Any) -> str:
    return str(ffi.string(pointer).decode("utf-8", "surrogateescape"))


def _open(path: Path) -> Any:
    """The reader's context for a file. FormatError if ggml refuses the file."""
    params = ffi.new("struct gguf_init_params *", {"no_alloc": True, "ctx": ffi.NULL})[0]
    try:
        context, log = log_of(lambda: ggml.gguf_init_from_file(os.fsencode(path), params))
    except Error as error:
        raise FormatError(f"{path}: {error}") from None
    if context == ffi.NULL:
        raise FormatError(f"{path}: {log or 'not a GGUF file'}")
    return context


class GGUF(Closable):
    """A GGUF file's metadata and the list of its tensors; a context manager.

    Opening checks that the file holds the bytes of all its tensors.  Raises FormatError for a
    damaged file and OSError for one that cannot be read.

    Attributes:
        path: the file.
        size: bytes of the file.
        version: of the format.
        alignment: of the tensors in the file, bytes.
        tensors: name -> TensorInfo, in the order of the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_file():
            raise FormatError(f"{self.path}: not a regular file")
        with self.path.open("rb") as file:  # a missing file is an OSError, not a FormatError
            self.size = os.fstat(file.fileno()).st_size
        self._handle: Handle | None = Handle("gguf", _open(self.path), ggml.gguf_free)
        self._metadata: dict[str, Any] | None = None
        context = self._context
        self.version = int(ggml.gguf_get_version(context))
        self.alignment = int(ggml.gguf_get_alignment(context))
        self.tensors = self._read_tensors()

    @property
    def _context(self) -> Any:
        if self._handle is None:
            raise ClosedError(f"{self.path} is closed")
        return self._handle.pointer

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._handle is None

    def close(self) -> None:
        """Frees the reader. What was read stays; metadata never asked for is gone."""
        self._handle = None

    def __repr__(self) -> str:
        return f"<GGUF {str(self.path)!r} {len(self.tensors)} tensors>"

    def _read_tensors(self) -> dict[str, TensorInfo]:
        context = self._context
        start = int(ggml.gguf_get_data_offset(context))
        tensors = {}
        for i in range(ggml.gguf_get_n_tensors(context)):
            name = _text(ggml.gguf_get_tensor_name(context, i))
            ne = tuple(ggml.gguf_get_tensor_ne(context, i)[0:4])
            info = TensorInfo(
                BY_ID[ggml.gguf_get_tensor_type(context, i)].name,
                ne,
                start + int(ggml.gguf_get_tensor_offset(context, i)),
                int(ggml.gguf_get_tensor_size(context, i)),
            )
            if info.offset + info.nbytes > self.size:
                raise FormatError(
                    f"{self.path}: tensor {name!r} ends at byte {info.offset + info.nbytes}, the "
                    f"file at {self.size}: it is truncated; fetch it again"
                )
            tensors[name] = info
        return tensors

    @property
    def metadata(self) -> dict[str, Any]:
        """Key -> value: int, float, bool, str, or a list of these. Read at the first use."""
        if self._metadata is None:
            n = ggml.gguf_get_n_kv(self._context)
            self._metadata = dict(self._read_pair(i) for i in range(n))
        return self._metadata

    def _read_pair(self, i: int) -> tuple[str, Any]:
        context = self._context
        key = _text(ggml.gguf_get_key(context, i))
        kind = ggml.gguf_get_kv_type(context, i)
        if kind == lib.GGUF_TYPE_STRING:
            return key, _text(ggml.gguf_get_val_str(context, i))
        if kind == lib.GGUF_TYPE_ARRAY:
            return key, self._read_array(i)
        return key, self._numbers(kind, ggml.gguf_get_val_data(context, i), 1)[0]

    def _read_array(self, i: int) -> list[Any]:
        context = self._context
        kind = ggml.gguf_get_arr_type(context, i)
        n = int(ggml.gguf_get_arr_n(context, i))
        if n == 0:
            return []
        if kind == lib.GGUF_TYPE_STRING:
            get = ggml.gguf_get_arr_str
            return [_text(get(context, i, j)) for j in range(n)]
        return self._numbers(kind, ggml.gguf_get_arr_data(context, i), n)

    def _numbers(self, kind: int, data: Any, n: int) -> list[Any]:
        dtype = _SCALARS[kind]
        raw = bytes(ffi.buffer(ffi.cast("char *", data), n * dtype.itemsize))
        if dtype.kind == "b":
            return [byte != 0 for byte in raw]
        return list(np.frombuffer(raw, dtype).tolist())
