"""Stores: tensors that outlive a graph, such as weights and caches."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._native import Closable, Handle, ffi, find_device, ggml, log_of
from .dtypes import DType, DTypeLike, as_array, dtype_of, to_bytes
from .errors import DeviceError, FormatError, GraphError
from .gguf import GGUF, TensorInfo
from .tensor import Tensor, encode_name

__all__ = ["Store"]

# Which tensors of a file are repacked: all that can be, none, or those for which it says so.
RepackChoice = bool | Callable[[str, TensorInfo], bool]

# Bytes that no machine has: refused before sizes are multiplied in C, where they would wrap.
_MAX_BYTES = 1 << 60


class _Spec(NamedTuple):
    """A tensor to be made."""

    name: str
    dtype: DType
    ne: tuple[int, ...]


def check_ne(ne: int | Sequence[int], dtype: DType, what: str) -> tuple[int, ...]:
    """ne as four positive integers. GraphError if no tensor can have that shape."""
    sizes = (ne,) if isinstance(ne, (int, np.integer)) else tuple(ne)
    if not 1 <= len(sizes) <= 4 or not all(
        isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in sizes
    ):
        raise GraphError(f"{what}: expected ne as 1 to 4 positive integers, got {ne!r}")
    sizes = tuple(int(n) for n in sizes) + (1,) * (4 - len(sizes))
    if sizes[0] % dtype.block:
        raise GraphError(
            f"{what}: ne[0] of {dtype.name} is a multiple of {dtype.block}, got {sizes[0]}"
        )
    if dtype.row_bytes(sizes[0]) * sizes[1] * sizes[2] * sizes[3] > _MAX_BYTES:
        raise GraphError(f"{what}: a tensor of ne {sizes} is larger than any memory")
    return sizes


def new_tensor(context: Any, spec: _Spec) -> Any:
    """A tensor without memory."""
    tensor = ggml.ggml_new_tensor(context, spec.dtype.id, 4, list(spec.ne))
    ggml.ggml_set_name(tensor, spec.name.encode())
    return tensor


def new_context(n_tensors: int) -> Any:
    """A ggml context with room for the descriptions of n tensors, not for their data."""
    size = n_tensors * ggml.ggml_tensor_overhead() + 1024
    params = ffi.new("struct ggml_init_params *")
    params.mem_size, params.mem_buffer, params.no_alloc = size, ffi.NULL, True
    context = ggml.ggml_init(params[0])
    if context == ffi.NULL:
        raise MemoryError(f"no memory for {n_tensors} tensor descriptions")
    return context


class _Block:
    """One context with its tensors and the buffer that holds their bytes, freed together."""

    def __init__(self, specs: Sequence[_Spec]) -> None:
        self.context = Handle("context", new_context(len(specs)), ggml.ggml_free)
        self.tensors = [new_tensor(self.context.pointer, spec) for spec in specs]
        self.buffer: Handle | None = None

    def allocate(self, buffer_type: Any, where: str) -> None:
        """Gives every tensor memory of one buffer type."""
        context = self.context.pointer
        buffer, log = log_of(
            lambda: ggml.ggml_backend_alloc_ctx_tensors_from_buft(context, buffer_type)
        )
        if buffer == ffi.NULL:
            need = sum(ggml.ggml_nbytes(t) for t in self.tensors)
            raise DeviceError(f"cannot allocate {need} bytes on {where}: {log or 'out of memory'}")
        # The buffer's own bookkeeping may look at tensors: the context goes after it.
        self.buffer = Handle("buffer", buffer, ggml.ggml_backend_buffer_free, self.context)

    def adopt(self, buffer: Any, *keep: Any) -> None:
        """Takes over a buffer around memory that `keep` holds."""
        self.buffer = Handle("buffer", buffer, ggml.ggml_backend_buffer_free, self.context, *keep)


class _Device:
    """One of ggml's devices and its buffer types."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = find_device(name)
        self.buffer_type = ggml.ggml_backend_dev_buffer_type(self.device)

    def repack_types(self) -> Iterator[Any]:
        """Buffer types that keep weights in an order that suits the device's kernels."""
        registry = ggml.ggml_backend_dev_backend_reg(self.device)
        address = ggml.ggml_backend_reg_get_proc_address(
            registry, b"ggml_backend_dev_get_extra_bufts"
        )
        if address == ffi.NULL:
            return
        types = ffi.cast("ggml_backend_dev_get_extra_bufts_t", address)(self.device)
        i = 0
        while types != ffi.NULL and types[i] != ffi.NULL:
            yield types[i]
            i += 1

    def repack_type(self, dtype: DType, ne: tuple[int, ...]) -> Any | None:
        """The first buffer type in which the device multiplies by such a matrix, or None."""
        for buffer_type in self.repack_types():
            if self._multiplies(dtype, ne, buffer_type):
                return buffer_type
        return None

    def _multiplies(self, dtype: DType, ne: tuple[int, ...], buffer_type: Any) -> bool:
        """Asks the device about a product with 512 columns, the weight in an empty buffer."""
        context = Handle("context", new_context(8), ggml.ggml_free)
        buffer = Handle(
            "buffer",
            ggml.ggml_backend_buft_alloc_buffer(buffer_type, 0),
            ggml.ggml_backend_buffer_free,
        )
        c, f32, i32 = context.pointer, dtype_of("f32"), dtype_of("i32")
        weight = new_tensor(c, _Spec("weight", dtype, ne))
        weight.buffer = buffer.pointer
        if ne[2] > 1 and ne[3] == 1:  # one matrix per expert
            x = new_tensor(c, _Spec("x", f32, (ne[0], 1, 512, 1)))
            ids = new_tensor(c, _Spec("ids", i32, (1, 512, 1, 1)))
            product = ggml.ggml_mul_mat_id(c, weight, x, ids)
        else:
            x = new_tensor(c, _Spec("x", f32, (ne[0], 512, ne[2], ne[3])))
            product = ggml.ggml_mul_mat(c, weight, x)
        return bool(ggml.ggml_backend_dev_supports_op(self.device, product))


class _Memory:
    """What a store owns. Graphs and runners hold it too, so that it outlives their use of it."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.repacked: set[int] = set()  # addresses of tensors that only products can read


class Store(Closable):
    """Tensors with memory of their own: weights, caches. A context manager.

    A closed store cannot be used any more; its memory is freed as soon as no open Graph or Runner
    uses its tensors either.  Without close() the same happens when the store is garbage.

    Args:
        device: where the memory is; "cpu", "metal".
        repack: whether quantised weights are kept in the order that suits the device's matrix
            kernels, where it has such an order.  Faster products; but a repacked tensor can only be
            the weight of mul_mat or mul_mat_id, and cannot be read back.
    """

    def __init__(self, device: str = "cpu", repack: bool = False) -> None:
        self._device = _Device(device)
        self._repack = bool(repack)
        self._memory: _Memory | None = _Memory()
        self._pointers: dict[str, Any] = {}

    #
    # Life
    #

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._memory is None

    def _open(self) -> _Memory:
        self._check_open()
        assert self._memory is not None
        return self._memory

    def close(self) -> None:
        """Ends the use of the store; may be called again."""
        self._memory = None
        self._pointers = {}

    #
    # Tensors by name
    #

    @property
    def device(self) -> str:
        """Where the memory is."""
        return self._device.name

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Name -> tensor, in the order of their making."""
        self._open()
        return {name: Tensor(ptr, self) for name, ptr in self._pointers.items()}

    def __getitem__(self, name: str) -> Tensor:
        self._open()
        if name not in self._pointers:
            raise KeyError(name)
        return Tensor(self._pointers[name], self)

    def __contains__(self, name: object) -> bool:
        return name in self._pointers

    def __len__(self) -> int:
        return len(self._pointers)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._pointers))

    def __repr__(self) -> str:
        return "<Store closed>" if self.closed else f"<Store {len(self)} tensors>"

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together, mapped ones included."""
        self._open()
        return sum(int(ggml.ggml_nbytes(p)) for p in self._pointers.values())

    def set_name(self, tensor: Tensor, name: str) -> None:  # noqa: ARG002
        """Raises GraphError: a store finds its tensors by name."""
        raise GraphError("a Store's tensors keep the names that they were made with")

    def _wrap(self, ptr: Any) -> Tensor:
        return Tensor(ptr, self)

    def _is_repacked(self, tensor: Tensor) -> bool:
        return tensor._address in self._open().repacked

    def _add(self, block: _Block, specs: Sequence[_Spec]) -> list[Tensor]:
        memory = self._open()
        memory.blocks.append(block)
        for spec, ptr in zip(specs, block.tensors, strict=True):
            self._pointers[spec.name] = ptr
        return [Tensor(ptr, self) for ptr in block.tensors]

    def _check_new(self, name: str) -> None:
        self._open()
        encode_name(name)
        if name in self._pointers:
            raise GraphError(f"this Store has a tensor {name!r} already; choose another name")

    #
    # Making
    #

    def array(self, name: str, values: Any, dtype: DTypeLike | None = None) -> Tensor:
        """A tensor with a copy of an array's values.

        Args:
            name: new in this store.
            values: an array of 1 to 4 dimensions, or what NumPy makes one of.
            dtype: the tensor's type, the array's own by default; where it is a quantised type the
                values are quantised row by row.
        """
        self._check_new(name)
        what = f"array {name!r}"
        array = as_array(values, what)
        if array.ndim > 4:
            raise GraphError(f"{what}: expected at most 4 dimensions, got {array.ndim}")
        target = dtype_of(array.dtype if dtype is None else dtype)
        ne = check_ne(tuple(reversed(array.shape)) or (1,), target, what)
        spec = _Spec(name, target, ne)
        data = to_bytes(array, target, ne, what)
        repack = self._device.repack_type(target, ne) if self._repack and target.quantized else None
        return self._fill(spec, ffi.from_buffer("uint8_t *", data), repack)

    def raw(
        self,
        name: str,
        dtype: DTypeLike,
        ne: int | Sequence[int],
        data: Any,
        repack: bool | None = None,
    ) -> Tensor:
        """A tensor with these bytes, in ggml's layout, row after row.

        Args:
            name: new in this store.
            dtype: the tensor's type.
            ne: its shape in ggml's order, fastest first.
            data: bytes, or another contiguous buffer, of exactly the tensor's size.
            repack: whether to repack a quantised tensor; the store's own setting by default.
        """
        self._check_new(name)
        what = f"raw {name!r}"
        target = dtype_of(dtype)
        spec = _Spec(name, target, check_ne(ne, target, what))
        view = memoryview(data).cast("B")
        need = target.row_bytes(spec.ne[0]) * spec.ne[1] * spec.ne[2] * spec.ne[3]
        if view.nbytes != need:
            raise GraphError(f"{what}: expected {need} bytes, got {view.nbytes}")
        wanted = (self._repack if repack is None else repack) and target.quantized
        buffer_type = self._device.repack_type(target, spec.ne) if wanted else None
        return self._fill(spec, ffi.from_buffer("uint8_t *", view), buffer_type)

    def zeros(self, name: str, dtype: DTypeLike, ne: int | Sequence[int]) -> Tensor:
        """A tensor of zero bytes, such as an empty cache. `ne` in ggml's order, fastest first."""
        self._check_new(name)
        target = dtype_of(dtype)
        spec = _Spec(name, target, check_ne(ne, target, f"zeros {name!r}"))
        block = _Block([spec])
        block.allocate(self._device.buffer_type, self.device)
        assert block.buffer is not None
        ggml.ggml_backend_buffer_clear(block.buffer.pointer, 0)
        return self._add(block, [spec])[0]

    def placeholder(self, name: str, dtype: DTypeLike, ne: int | Sequence[int]) -> Tensor:
        """A tensor without memory: graphs with it can be planned, not computed.

        Args:
            name: new in this store.
            dtype: the tensor's type.
            ne: its shape in ggml's order, fastest first.
        """
        self._check_new(name)
        target = dtype_of(dtype)
        spec = _Spec(name, target, check_ne(ne, target, f"placeholder {name!r}"))
        return self._add(_Block([spec]), [spec])[0]

    def _fill(self, spec: _Spec, data: Any, repack: Any | None) -> Tensor:
        """A tensor with these bytes, in a repacked order if a buffer type for it is given."""
        block = _Block([spec])
        block.allocate(repack or self._device.buffer_type, self.device)
        ptr = block.tensors[0]
        ggml.ggml_backend_tensor_set(ptr, data, 0, ggml.ggml_nbytes(ptr))
        tensor = self._add(block, [spec])[0]
        if repack:
            self._open().repacked.add(tensor._address)
        return tensor

    #
    # Files
    #

    def gguf(
        self,
        path: str | os.PathLike[str],
        names: Iterable[str] | None = None,
        repack: RepackChoice | None = None,
    ) -> dict[str, Tensor]:
        """The tensors of a GGUF file, under their names in the file.

        The file is mapped into memory, and tensors are used where they stand; only those that are
        repacked or not aligned for the device are copied.  Writing to a mapped tensor changes the
        memory of this process, never the file.  The file must not be cut while it is in use.

        Args:
            path: the file.
            names: those tensors only; all by default.
            repack: whether to repack, or a function (name, TensorInfo) -> bool that chooses; the
                store's own setting by default.

        Raises:
            FormatError: the file is damaged, or has no tensor of a name asked for.
        """
        memory = self._open()
        choice = self._repack if repack is None else repack
        with GGUF(path) as file:
            infos = _selected(file, names)
            for name in infos:
                self._check_new(name)
            view = _map(file)
        before = dict(self._pointers), list(memory.blocks), set(memory.repacked)
        try:
            mapped, copied = self._split(view, infos, choice)
            tensors = dict(self._use_mapped(view, mapped))
            for name, (info, buffer_type) in copied.items():
                spec = _spec_of(name, info)
                tensors[name] = self._fill(spec, view + info.offset, buffer_type)
        except BaseException:  # all of the file or nothing
            self._pointers, memory.blocks, memory.repacked = before
            raise
        return {name: tensors[name] for name in infos}

    def _split(
        self, view: Any, infos: dict[str, TensorInfo], choice: RepackChoice
    ) -> tuple[dict[str, TensorInfo], dict[str, tuple[TensorInfo, Any]]]:
        """Tensors used in place, and those copied with the buffer type for each."""
        alignment = ggml.ggml_backend_buft_get_alignment(self._device.buffer_type)
        base = int(ffi.cast("uintptr_t", view))
        mapped, copied = {}, {}
        for name, info in infos.items():
            wanted = choice(name, info) if callable(choice) else choice
            spec = _spec_of(name, info)
            repack = self._device.repack_type(spec.dtype, spec.ne) if wanted else None
            if repack is not None or (base + info.offset) % alignment:
                copied[name] = (info, repack)
            else:
                mapped[name] = info
        return mapped, copied

    def _use_mapped(self, view: Any, infos: dict[str, TensorInfo]) -> Iterator[tuple[str, Tensor]]:
        if not infos:
            return
        specs = [_spec_of(name, info) for name, info in infos.items()]
        block = _Block(specs)
        end = max(info.offset + info.nbytes for info in infos.values())
        largest = max(info.nbytes for info in infos.values())
        buffer = ggml.ggml_backend_dev_buffer_from_host_ptr(self._device.device, view, end, largest)
        if buffer == ffi.NULL:
            raise DeviceError(f"{self.device} cannot use a mapped file")
        block.adopt(buffer, view)
        for ptr, info in zip(block.tensors, infos.values(), strict=True):
            ggml.ggml_backend_tensor_alloc(buffer, ptr, view + info.offset)
        yield from zip(infos, self._add(block, specs), strict=True)


def _selected(file: GGUF, names: Iterable[str] | None) -> dict[str, TensorInfo]:
    if names is None:
        chosen = dict(file.tensors)
    else:
        wanted = [names] if isinstance(names, str) else list(names)
        missing = [name for name in wanted if name not in file.tensors]
        if missing:
            raise FormatError(f"{file.path} has no tensors named {', '.join(map(repr, missing))}")
        chosen = {name: file.tensors[name] for name in wanted}
    for name, info in chosen.items():
        if not name or 0 in info.ne:
            raise FormatError(f"{file.path}: tensor {name!r} of ne {info.ne} holds nothing")
    return chosen


def _spec_of(name: str, info: TensorInfo) -> _Spec:
    dtype = dtype_of(info.dtype)
    return _Spec(name, dtype, check_ne(info.ne, dtype, f"tensor {name!r}"))


def _map(file: GGUF) -> Any:
    """The file's bytes as `char *`, private to this process; the pointer keeps the mapping."""
    if file.size == 0:
        raise FormatError(f"{file.path} is empty")
    with file.path.open("rb") as handle:
        if os.fstat(handle.fileno()).st_size < file.size:
            raise FormatError(f"{file.path} was cut while it was read")
        # Copy on write: a stray write is harmless, where a read-only page would end the process.
        mapping = mmap.mmap(handle.fileno(), file.size, access=mmap.ACCESS_COPY)
    return ffi.from_buffer("uint8_t[]", mapping)
