"""What a zoo graph is made with: a graph, random weights, and contents for its inputs."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._native import ffi, ggml
from ..dtypes import DType, DTypeLike, dtype_of, to_bytes
from ..graph import Graph
from ..plan import count
from ..store import Store
from ..tensor import Tensor

#: Random values made for one tensor alone. Larger tensors are made of runs of rows from a pool,
#: which all of a type and width share: gigabytes then take little longer than copying them.
_OWN, _POOL = 1 << 20, 1 << 22

#: Tokens that no graph here has room for.
_MOST = 1 << 24


class Builder:
    """Collects one graph with everything that it needs to run.

    Weights are random and not zero, scaled so that activations keep their size from layer to
    layer.  They are named as in the model's file.

    Attributes:
        g: the graph.
        store: weights and caches.
        feeds: the contents of the graph's inputs, by name.
        n_tokens: tokens that the graph computes at once.
        n_past: tokens that stand in the caches before them.
        flash_attn: whether attention is one operation, FLASH_ATTN_EXT.
        seed: of all random numbers.

    Args:
        dtype: the type of the matrices.
        seed: of all random numbers; equal arguments give equal graphs, weights and inputs.
        zero_caches: whether caches start empty instead of random.
        repack: whether matrices are laid out for the CPU's kernels, as llama.cpp does.
        device: where weights and caches are.
        weights: whether weights and caches have memory and contents; a graph without can be
            planned, not computed.
    """

    def __init__(
        self,
        *,
        dtype: DTypeLike = "f16",
        n_tokens: int = 1,
        n_past: int = 0,
        flash_attn: bool = False,
        seed: int = 0,
        zero_caches: bool = False,
        repack: bool = False,
        device: str = "cpu",
        weights: bool = True,
        size: int = 16384,
    ) -> None:
        self.n_tokens = count(n_tokens, 1, _MOST, "n_tokens")
        self.n_past = count(n_past, 0, _MOST, "n_past")
        self.seed = count(seed, 0, 2**63 - 1, "seed")
        self._dtype = dtype_of(dtype)
        self.g = Graph(size=size)
        self.store = Store(device)
        self.feeds: dict[str, np.ndarray] = {}
        self.flash_attn = flash_attn
        self.zero_caches = zero_caches
        self._repack = repack
        self._weights = weights
        self._pools: dict[tuple[str, int, float], np.ndarray] = {}

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers of one tensor: what else the graph holds does not change them."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    #
    # Weights
    #

    def matrix(self, name: str, n_in: int, n_out: int, *more: int, quantize: bool = True) -> Tensor:
        """A matrix of ne (n_in, n_out, ...) that is only ever the weight of a matrix product.

        quantize: whether it has a quantised type when the others have; f16 if not.
        """
        kind = self._dtype if quantize or not self._dtype.quantized else dtype_of("f16")
        return self._random(name, kind, (n_in, n_out, *more), n_in**-0.5, self._repack)

    def table(self, name: str, width: int, n_rows: int, dtype: DTypeLike | None = None) -> Tensor:
        """A matrix of which rows are looked up: an embedding."""
        kind = self._dtype if dtype is None else dtype_of(dtype)
        return self._random(name, kind, (width, n_rows), 1.0, repack=False)

    def norm(self, name: str, *ne: int) -> Tensor:
        """Factors around 1, f32: the weight of a norm."""
        return self._array(name, ne, lambda rng: rng.uniform(0.5, 1.5, ne[::-1]))

    def vector(self, name: str, *ne: int, scale: float = 0.1, offset: float = 0.0) -> Tensor:
        """Numbers around `offset`, f32: a bias, or another small tensor."""
        return self._array(name, ne, lambda rng: rng.normal(offset, scale, ne[::-1]))

    def _array(
        self, name: str, ne: tuple[int, ...], draw: Callable[[np.random.Generator], np.ndarray]
    ) -> Tensor:
        if not self._weights:
            return self.store.placeholder(name, "f32", ne)
        return self.store.array(name, draw(self.rng(name)).astype(np.float32))

    def table_copy(self, name: str, table: Tensor) -> Tensor:
        """The values of a table once more, as a matrix that only stands in products."""
        ne = table.ne[:2]
        return self._random(name, dtype_of(table.dtype), ne, 1.0, self._repack, like=table.name)

    def cache(self, name: str, dtype: DTypeLike, ne: Sequence[int]) -> Tensor:
        """Memory that outlives the graph and that it writes to: a key/value cache, a state."""
        if self.zero_caches and self._weights:
            return self.store.zeros(name, dtype, ne)
        return self._random(name, dtype_of(dtype), tuple(ne), 1.0, repack=False)

    def _random(
        self,
        name: str,
        dtype: DType,
        ne: tuple[int, ...],
        scale: float,
        repack: bool,
        like: str | None = None,
    ) -> Tensor:
        if not self._weights:
            return self.store.placeholder(name, dtype, ne)
        rng = self.rng(like or name)
        n_in, n_rows = ne[0], math.prod(ne[1:])
        if n_in * n_rows <= _OWN:
            data = _rows(rng, dtype, n_in, n_rows, scale)
            return self.store.raw(name, dtype, ne, data, repack=repack)
        runs = list(self._runs(rng, dtype, n_in, n_rows, scale))
        if repack and dtype.quantized:  # can only be written as a whole
            return self.store.raw(name, dtype, ne, np.concatenate(runs), repack=True)
        tensor = self.store.zeros(name, dtype, ne)
        offset = 0
        for run in runs:
            source = ffi.from_buffer("uint8_t *", run)
            ggml.ggml_backend_tensor_set(tensor._ptr, source, offset, run.nbytes)
            offset += run.nbytes
        return tensor

    def _runs(
        self, rng: np.random.Generator, dtype: DType, n_in: int, n_rows: int, scale: float
    ) -> Iterator[np.ndarray]:
        """Rows in runs of half the pool, each from a random row of the pool on."""
        key = dtype.name, n_in, scale
        if key not in self._pools:
            n_pool = max(2, _POOL // n_in)
            self._pools[key] = _rows(self.rng(f"pool {key}"), dtype, n_in, n_pool, scale)
        pool = self._pools[key]
        half = len(pool) // 2
        for begin in range(0, n_rows, half):
            first = int(rng.integers(len(pool) - half + 1))
            yield pool[first : first + min(half, n_rows - begin)]

    #
    # Inputs and outputs
    #

    def input(self, name: str, dtype: DTypeLike, values: Any) -> Tensor:
        """An input of the graph that is always fed these values, in NumPy's order of dimensions."""
        array = np.asarray(values)
        self.feeds[name] = array
        return self.g.input(name, dtype, ne=tuple(reversed(array.shape)) or (1,))

    def activations(self, name: str, *ne: int) -> Tensor:
        """A random f32 input."""
        return self.input(name, "f32", self.rng(name).standard_normal(ne[::-1], np.float32))

    def ids(self, name: str, n: int, below: int) -> Tensor:
        """n random whole numbers under `below`: tokens, rows of a table."""
        return self.input(name, "i32", self.rng(name).integers(below, size=n, dtype=np.int32))

    def output(self, tensor: Tensor, name: str) -> Tensor:
        """Marks a result of the graph."""
        return self.g.output(tensor, name)

    def close(self) -> None:
        """Frees the graph and the weights."""
        self.g.close()
        self.store.close()


def _rows(
    rng: np.random.Generator, dtype: DType, n_in: int, n_rows: int, scale: float
) -> np.ndarray:
    """The bytes of random rows, one after another."""
    values = rng.standard_normal((n_rows, n_in), np.float32) * np.float32(scale)
    data = to_bytes(values, dtype, (n_in, n_rows, 1, 1), "random rows")
    return data.view(np.uint8).reshape(n_rows, -1)
