"""One piece of memory with all tensors of a graph, every byte of which a test fills and sees.

    gap | tensor | gap | tensor | ... | gap        gaps ("red zones") belong to no tensor

`Access` is what the table csrc/ggml/ops.def declares for a node: bytes that it reads or writes, as
the planner is given them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import ggml_concurrent as ggc
from ggml_concurrent import dtypes
from ggml_concurrent._native import (
    Closable,
    Handle,
    ffi,
    ggml,
    lib,
    load_backends,
    message_of,
    raise_status,
)

_GAP = 1024
_ALIGNMENT = 32  # the least that ggml's own allocators give


def address_of(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))


def _tensors(graph: ggc.Graph) -> Iterator[Any]:
    """All tensors of a graph once, each after those it is made from."""
    seen: set[int] = set()
    stack = [(node._ptr, False) for node in reversed(graph.nodes)]
    while stack:
        tensor, ready = stack.pop()
        if ready:
            yield tensor
        elif address_of(tensor) not in seen:
            seen.add(address_of(tensor))
            stack.append((tensor, True))
            made_from = [tensor.view_src, *tensor.src]
            stack += [(t, False) for t in made_from if t not in (ffi.NULL, tensor)]


class Arena(Closable):
    """Memory of a graph's tensors, those of a Store apart.

    Attributes:
        bytes: the memory, uint8.
        base: its address.
    """

    def __init__(self, graph: ggc.Graph) -> None:
        load_backends()
        self._graph: ggc.Graph | None = graph
        tensors = list(_tensors(graph))
        roots = [t for t in tensors if t.view_src == ffi.NULL and t.data == ffi.NULL]
        offsets, size = _lay_out(roots)
        self.bytes = np.zeros(size + _GAP, np.uint8)
        self.base = -(-self.bytes.ctypes.data // _GAP) * _GAP
        self.bytes = self.bytes[self.base - self.bytes.ctypes.data :][:size]
        self._buffer = _buffer_around(self.bytes)
        for tensor, offset in zip(roots, offsets, strict=True):
            _place(tensor, self._buffer.pointer, self.base + offset)
        for tensor in tensors:
            if tensor.view_src != ffi.NULL:
                root = tensor.view_src
                _place(tensor, root.buffer, address_of(root.data) + tensor.view_offs)

    @property
    def closed(self) -> bool:
        return self._graph is None

    def close(self) -> None:
        self._graph = None

    def holds(self, tensor: Any) -> bool:
        """Whether a tensor's bytes lie here."""
        return 0 <= address_of(tensor.data) - self.base < self.bytes.size

    def compute(self, threads: int) -> None:
        """Computes the graph with plain ggml. GraphError if ggml refuses (with one thread)."""
        self._check_open()
        assert self._graph is not None
        message = ffi.new("char[]", 1024)
        status = lib.ggc_compute_serial(self._graph._graph, threads, message, len(message))
        raise_status(status, message_of(message), "compute")


def _lay_out(tensors: Iterable[Any]) -> tuple[list[int], int]:
    """Offsets with a gap before each and at the end, and the size of it all."""
    offsets, end = [], _GAP
    for tensor in tensors:
        offsets.append(end)
        end += -(-ggml.ggml_nbytes(tensor) // _ALIGNMENT) * _ALIGNMENT + _GAP
    return offsets, end


def _buffer_around(memory: np.ndarray) -> Handle:
    device = ggml.ggml_backend_dev_by_type(lib.GGML_BACKEND_DEVICE_TYPE_CPU)
    view = ffi.from_buffer("uint8_t *", memory, require_writable=True)
    buffer = ggml.ggml_backend_dev_buffer_from_host_ptr(device, view, memory.nbytes, memory.nbytes)
    return Handle("buffer", buffer, ggml.ggml_backend_buffer_free, view)


def _place(tensor: Any, buffer: Any, address: int) -> None:
    tensor.buffer = buffer
    tensor.data = ffi.cast("void *", address)


#
# Accesses
#


@dataclass(frozen=True)
class Access:
    """`count` runs of `run` bytes, `stride` from start to start."""

    writes: bool
    address: int
    run: int
    stride: int
    count: int

    def mark(self, mask: np.ndarray, base: int) -> None:
        """Sets mask[i] for each byte base + i that is touched; all of them lie in the mask."""
        begin = self.address - base
        end = begin + self.stride * (self.count - 1) + self.run
        assert begin >= 0, "declared bytes before the memory"
        assert end <= mask.size, "declared bytes beyond the memory"
        if self.count == 1:
            mask[begin:end] = True
            return
        starts = begin + self.stride * np.arange(self.count)
        for k in range(self.run) if self.run < self.count else ():
            mask[starts + k] = True
        if self.run >= self.count:
            for start in starts:
                mask[start : start + self.run] = True


@dataclass(frozen=True)
class Declared:
    """What the planner is told about a node. One that computes nothing has no accesses."""

    fence: bool
    accesses: list[Access]  # to host memory


def declared_for(graph: ggc.Graph, node: ggc.Tensor) -> Declared:
    out = ffi.new("struct ggc_graph_plan **")
    raise_status(lib.ggc_graph_plan_new(graph._graph, ffi.NULL, out), "", "plan")
    try:
        unit = lib.ggc_graph_plan_unit_of_node(out[0])[graph.nodes.index(node)]
        if unit == lib.GGC_NONE:
            return Declared(fence=False, accesses=[])
        units = lib.ggc_graph_plan_units(out[0])
        found = units.accesses[units.access_begin[unit] : units.access_begin[unit + 1]]
        accesses = [
            Access(a.mode == lib.GGC_WRITE, a.offset, a.run, a.stride, a.count)
            for a in found
            if a.buffer == 0  # 0: host memory; a Store's repacked weights have another number
        ]
        return Declared(bool(units.fence[unit]), accesses)
    finally:
        lib.ggc_graph_plan_free(out[0])


def shown_by(tensor: Any, *, writes: bool) -> Iterator[Access]:
    """Exactly the bytes of a tensor whose rows are contiguous, as ne and nb tell them."""
    n, nb = tensor.ne, tensor.nb
    run = dtypes.BY_ID[tensor.type].row_bytes(n[0])
    base = address_of(tensor.data)
    for i3, i2, i1 in itertools.product(range(n[3]), range(n[2]), range(n[1])):
        yield Access(writes, base + i3 * nb[3] + i2 * nb[2] + i1 * nb[1], run, run, 1)
