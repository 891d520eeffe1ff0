"""Writes GGUF files for tests: metadata, and tensors from NumPy or of any type that ggml has."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_F32, _F16 = 0, 1


class Encoded(NamedTuple):
    """A tensor of a type that NumPy lacks: its number in ggml, its bytes when they are due."""

    kind: int
    ne: tuple[int, ...]
    nbytes: int
    read: Callable[[], bytes | np.ndarray]


def write_gguf(
    path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray | Encoded]
) -> Path:
    """A GGUF v3 file. Arrays are float32 or float16 in NumPy's order of dimensions."""
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_string(key) + _value(value))
        offset = 0
        for name, array in tensors.items():
            if isinstance(array, Encoded):
                kind, ne = array.kind, array.ne
            else:
                kind, ne = _F16 if array.dtype == np.float16 else _F32, array.shape[::-1]
            file.write(_string(name) + struct.pack(f"<I{len(ne)}Q", len(ne), *ne))
            file.write(struct.pack("<IQ", kind, offset))
            offset += _padded(array.nbytes)
        _pad(file)
        for array in tensors.values():
            encoded = isinstance(array, Encoded)
            file.write(array.read() if encoded else np.ascontiguousarray(array).data)
            _pad(file)
    return path


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind = _kind(value[0])
        kind = _INT32 if kind == _UINT32 else kind  # what GGUF's tokenizer keys use in arrays
        head = struct.pack("<IIQ", _ARRAY, kind, len(value))
        return head + b"".join(_scalar(item, kind) for item in value)
    return struct.pack("<I", _kind(value)) + _scalar(value, _kind(value))


def _kind(value: Any) -> int:
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, int):
        return _INT32 if value < 0 else _UINT32
    return _FLOAT32 if isinstance(value, float) else _STRING


def _scalar(value: Any, kind: int) -> bytes:
    formats = {_BOOL: "<?", _UINT32: "<I", _INT32: "<i", _FLOAT32: "<f"}
    return _string(value) if kind == _STRING else struct.pack(formats[kind], value)


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _pad(file: BinaryIO) -> None:
    file.write(b"\0" * (_padded(file.tell()) - file.tell()))
