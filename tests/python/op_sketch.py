"""How a sample of an operation is built: a graph with one node, and the bytes of its sources."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from op_arena import Access, Arena, address_of, declared_for

import ggml_concurrent as ggc
from ggml_concurrent._arguments import c_value, convert_arguments
from ggml_concurrent._native import Closable, ffi, ggml, lib
from ggml_concurrent.dtypes import dtype_of

Build = Callable[["Sketch"], ggc.Tensor]


@dataclass(frozen=True)
class Sample:
    """One use of one operation.

    `op` is the operation's name in the enum without GGML_OP_, for UNARY and GLU followed by that
    of the operation behind it: "UNARY:GELU".  `heavy` samples take long and show something that
    only the number of threads makes visible.
    """

    op: str
    variant: str
    build: Build
    heavy: bool = False

    @property
    def id(self) -> str:
        return f"{self.op}-{self.variant}"


SAMPLES: list[Sample] = []


def sample(op: str, *variants: str, heavy: bool = False) -> Callable[[Any], Any]:
    """Registers build(sketch), or build(sketch, variant) once for each of several variants."""

    def register(build: Any) -> Any:
        if len(variants) == 1:
            add(op, variants[0], build, heavy=heavy)
        else:
            for variant in variants:
                add(op, variant, functools.partial(build, variant=variant), heavy=heavy)
        return build

    return register


def add(op: str, variant: str, build: Build, *, heavy: bool = False) -> None:
    SAMPLES.append(Sample(op, variant, build, heavy))


class _Unchecked(ggc.Graph):
    """Builds all that ggml builds: a graph may come from elsewhere, without our checks."""

    def _build(self, name: str, *args: Any) -> ggc.Tensor:
        values = convert_arguments(self, name, args)
        for value in values.values():
            if isinstance(value, ggc.Tensor):
                self._adopt(value)
        node = getattr(ggml, f"ggml_{name}")(self._building(), *map(c_value, values.values()))
        return ggc.Tensor(node, self)


class Sketch:
    """A graph in the making, and random values for its tensors.

    All sizes are ne, the fastest dimension first.  Values are 0.1 to 1 with either sign, so that
    no byte of a float is zero for long and no operation meets a value that it is not made for.
    """

    def __init__(self, seed: int) -> None:
        self.g: ggc.Graph = _Unchecked(size=64)
        self.store = ggc.Store(repack=True)
        self.values: list[tuple[ggc.Tensor, np.ndarray]] = []
        # integers decide which bytes are read: bytes of other integers that are as valid
        self.others: list[tuple[ggc.Tensor, np.ndarray]] = []
        self._random = np.random.default_rng(seed)

    #
    # Tensors with values
    #

    def f(self, *ne: int, dtype: str = "f32", positive: bool = False) -> ggc.Tensor:
        """A contiguous tensor of any type that floats can be converted to."""
        tensor = self._new(dtype, ne)
        shape = tensor.ne[::-1]
        floats = self._random.uniform(0.1, 1, shape)
        if not positive:
            floats *= self._random.choice([-1, 1], shape)
        self.values.append((tensor, quantized(floats.astype(np.float32), dtype)))
        return tensor

    def strided(self, *ne: int, dtype: str = "f32", positive: bool = False) -> ggc.Tensor:
        """A view with gaps in every dimension but the first, inside of a larger tensor."""
        n, block = (*ne, 1, 1, 1)[:4], dtype_of(dtype).block
        parent = self.f(
            n[0] + 2 * max(block, 4), n[1] + 2, n[2] + 1, n[3] + 1, dtype=dtype, positive=positive
        )
        skip = dtype_of(dtype).row_bytes(max(block, 4))
        return self.g.view_4d(parent, *n, *parent.nb[1:], offset=parent.nb[1] + skip)

    def rows(self, *ne: int, dtype: str = "f32") -> ggc.Tensor:
        """Rows at one stride with gaps between them: the stripe of a fused product."""
        n, block = (*ne, 1, 1, 1)[:4], dtype_of(dtype).block
        margin = max(block, 4)
        parent = self.f(n[0] + 2 * margin, n[1] * n[2] * n[3], dtype=dtype)
        nb = parent.nb[1] * np.cumprod([1, n[1], n[2]])
        return self.g.view_4d(parent, *n, *map(int, nb), offset=dtype_of(dtype).row_bytes(margin))

    def permuted(self, *ne: int, dtype: str = "f32", order: Sequence[int] = (0, 2, 1, 3)) -> Any:
        """A permuted view: dimension i of the parent is dimension order[i] of the view."""
        n = (*ne, 1, 1, 1)[:4]
        return self.g.permute(self.f(*(n[k] for k in order), dtype=dtype), *order)

    def transposed(self, *ne: int, dtype: str = "f32") -> ggc.Tensor:
        return self.permuted(*ne, dtype=dtype, order=(1, 0, 2, 3))

    def inside(self, *ne: int, dtype: str = "f32") -> ggc.Tensor:
        """A contiguous view inside of a larger tensor."""
        n = (*ne, 1, 1, 1)[:4]
        kind = dtype_of(dtype)
        margin = 4 * kind.block
        flat = self.f(int(np.prod(n)) + 2 * margin, dtype=dtype)
        rows = [kind.row_bytes(n[0])]
        rows += [rows[0] * n[1], rows[0] * n[1] * n[2]]
        return self.g.view_4d(flat, *n, *rows, offset=kind.row_bytes(margin))

    def laid(self, layout: str, *ne: int, dtype: str = "f32") -> ggc.Tensor:
        """A tensor made by the method of that name, or by f() for "whole"."""
        make = self.f if layout == "whole" else getattr(self, layout)
        return make(*ne, dtype=dtype)

    def ints(self, *ne: int, limit: int, dtype: str = "i32", distinct: bool = False) -> ggc.Tensor:
        """Integers from 0 on that are less than `limit`; with `distinct` none twice in a line."""
        tensor = self._new(dtype, ne)
        shape = tensor.ne[::-1]
        if distinct:
            lines = [self._random.permutation(limit)[: ne[0]] for _ in range(np.prod(shape[:-1]))]
            numbers = np.stack(lines).reshape(shape)
        else:
            numbers = self._random.integers(0, limit, shape)
        kind = dtype_of(dtype).numpy
        self.values.append((tensor, _bytes(numbers.astype(kind))))
        self.others.append((tensor, _bytes(((numbers + 1) % limit).astype(kind))))
        return tensor

    def given(self, values: Sequence[float]) -> ggc.Tensor:
        """A vector of f32 with these values."""
        tensor = self._new("f32", (len(values),))
        self.values.append((tensor, _bytes(np.array(values, np.float32))))
        return tensor

    def repacked(self, *ne: int, dtype: str) -> ggc.Tensor:
        """A weight that the CPU backend keeps in an order of its own; plain where it has none."""
        floats = self._random.uniform(-1, 1, ne[::-1]).astype(np.float32)
        return self.store.array(f"w{len(self.store)}", floats, dtype)

    def _new(self, dtype: str, ne: Sequence[int]) -> ggc.Tensor:
        return self.g.input(f"t{len(self.g.inputs)}", dtype, (*ne, 1, 1, 1)[:4])

    #
    # Nodes that the public builders do not make
    #

    def by_hand(
        self, like: ggc.Tensor, op: str, sources: Sequence[ggc.Tensor], params: Sequence[int] = ()
    ) -> ggc.Tensor:
        """A node of operation `op` with the type and ne of `like`."""
        node = self.g.dup(like)
        node._ptr.op = getattr(lib, f"GGML_OP_{op}")
        for i, source in enumerate(sources):
            node._ptr.src[i] = source._ptr
        for i, param in enumerate(params):
            node._ptr.op_params[i] = param
        return node


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


# Types whose quantiser first makes tables for seconds: any block is valid for them.
_SLOW = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s")


def quantized(floats: np.ndarray, dtype: str) -> np.ndarray:
    """The bytes of a contiguous tensor with these values, of any type that ggml converts to.

    Some types get arbitrary values of about that size instead.
    """
    kind = dtype_of(dtype)
    if kind.name in ("f32", "f16"):
        return _bytes(floats.astype(kind.numpy))
    row = floats.shape[-1]
    rows = floats.size // row
    if kind.name in _SLOW:
        return _arbitrary_blocks(kind.name, kind.nbytes, floats.size // kind.block)
    out = np.empty(rows * kind.row_bytes(row), np.uint8)
    ggml.ggml_quantize_chunk(
        kind.id,
        ffi.from_buffer("float *", np.ascontiguousarray(floats)),
        ffi.from_buffer("uint8_t *", out, require_writable=True),
        0,
        rows,
        row,
        ffi.NULL,
    )
    return out


def _arbitrary_blocks(name: str, nbytes: int, n: int) -> np.ndarray:
    """Random blocks with a scale that is a small positive number."""
    blocks = np.random.default_rng(n).integers(0, 256, (n, nbytes), np.uint8)
    if name == "iq1_m":  # the last four bits hold the upper ones of a f16
        blocks[:, -1] = blocks[:, -1] & 0x0F | 0x30
    else:
        blocks[:, 1] = 0x30  # the upper byte of a f16 of about 0.13
    return blocks.reshape(-1)


class Bench(Closable):
    """A sample in memory, ready to be computed.

    Beside the sample's node the graph has a small copy that ggml gives to all its threads: without
    it a graph of one node that ggml computes with one thread gets one thread only.

    Attributes:
        sample: the sample.
        graph: with the copy as its first node.
        node: that of the sample.
        arena: the memory.
        content: all its bytes, sources with their values and arbitrary bytes elsewhere.
        other: the same with other, equally valid integers.
        fence: whether it is declared to touch anything.
        accesses: what the table declares for the node, weights of a Store apart.
        around: what it declares for the copy.
    """

    def __init__(self, chosen: Sample) -> None:
        self.sample = chosen
        sketch = Sketch(seed=2309)
        self._sketch: Sketch | None = sketch
        helper = sketch.g.expand(sketch.g.cont(sketch.f(64, 8)))
        self.graph = sketch.g
        self.node = sketch.g.expand(chosen.build(sketch))
        self.arena = Arena(sketch.g)
        self.content = np.random.default_rng(7).integers(0, 256, self.arena.bytes.size, np.uint8)
        self._fill(self.content, sketch.values)
        self.other = self.content.copy()
        self._fill(self.other, sketch.others)
        self.integers = np.zeros(self.content.size, bool)
        for tensor, _ in sketch.others:
            self.integers[self._place(tensor)] = True
        declared = declared_for(sketch.g, self.node)
        weights = {address_of(t._ptr.data) for t in sketch.store.tensors.values()}
        self.fence = declared.fence
        self.accesses: list[Access] = [
            a for a in declared.accesses if a.writes or a.address not in weights
        ]
        self.around = declared_for(sketch.g, helper).accesses

    def _place(self, tensor: ggc.Tensor) -> slice:
        begin = address_of(tensor._ptr.data) - self.arena.base
        return slice(begin, begin + tensor.nbytes)

    def _fill(self, memory: np.ndarray, values: list[tuple[ggc.Tensor, np.ndarray]]) -> None:
        for tensor, data in values:
            if tensor._ptr.data != ffi.NULL:
                memory[self._place(tensor)] = data

    def run(self, before: np.ndarray, threads: int) -> np.ndarray:
        """All bytes after computing with these bytes before."""
        self.arena.bytes[:] = before
        self.arena.compute(threads)
        return self.arena.bytes.copy()

    @property
    def closed(self) -> bool:
        return self._sketch is None

    def close(self) -> None:
        if self._sketch is not None:
            self.arena.close()
            self.graph.close()
            self._sketch.store.close()
            self._sketch = None
