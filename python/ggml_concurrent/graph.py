"""Building graphs of ggml's operations."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ._arguments import c_value, convert_arguments, describe
from ._native import Closable, Handle, ffi, ggml, lib
from ._ops import Ops
from ._rules import check_operation, check_result
from .dtypes import DTypeLike, dtype_of
from .errors import ClosedError, GraphError
from .store import Store, check_ne
from .tensor import Tensor, encode_name

if TYPE_CHECKING:
    from .runner import Runner

__all__ = ["Graph"]

_MAX_SIZE = 1 << 20

# Some functions of ggml.h build several tensors; none builds more than this.
_TENSORS_PER_CALL = 16

# ggml walks a graph by recursion. Chains longer than this are walked here, lest the stack ends.
_RECURSION = 2000


class Graph(Closable, Ops):
    """A graph of ggml operations; a context manager.

    The methods named like the functions of ggml.h build tensors: ``g.mul_mat(a, b)`` is
    ``ggml_mul_mat(ctx, a, b)``.  Enum arguments are given by name or number, types like "f32".
    A tensor takes part in the computation once `output` or `expand` was called for it or for one
    computed from it.  The order of these calls is the order of the nodes: a write into a cache
    that is read later has to be expanded before the reader is.

    Wrong arguments raise GraphError or TypeError and leave the graph as it was.  A closed graph
    cannot be used any more; its memory is freed when no open Runner uses it either.  A graph is
    built by one thread at a time.

    Args:
        size: the most nodes that the graph can have.  Views count.
    """

    def __init__(self, size: int = 2048) -> None:
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"size: expected an int, got {type(size).__name__}")
        if not 1 <= size <= _MAX_SIZE:
            raise GraphError(f"size is {size}, expected 1 to {_MAX_SIZE}")
        self._size = size
        self._handle: Handle | None = Handle("graph", _new_context(size), ggml.ggml_free)
        self._graph = ggml.ggml_new_graph_custom(self._handle.pointer, size, False)
        self._lock = threading.RLock()
        self._foreign: dict[int, tuple[Store, Any]] = {}  # stores' tensors used here, by address
        self._uses: set[Any] = set()  # the stores' memory, which has to outlive this graph
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._expanded: set[int] = set()  # addresses of nodes
        self._pending = 0  # tensors built since the last expansion
        self._broken: str | None = None
        self._runner: weakref.ref[Runner] | None = None

    #
    # Life
    #

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._handle is None

    def _open(self) -> Handle:
        self._check_open()
        assert self._handle is not None
        return self._handle

    def _building(self) -> Any:
        """The context of a graph that may still change."""
        handle = self._open()
        self._check_whole()
        if self._open_runner() is not None:
            raise GraphError("a Runner of this graph is open; close it before changing the graph")
        return handle.pointer

    def _open_runner(self) -> Runner | None:
        runner = None if self._runner is None else self._runner()
        return None if runner is None or runner.closed else runner

    def _check_whole(self) -> None:
        """Raises unless the nodes are all that was asked for."""
        self._open()
        if self._broken:
            raise GraphError(self._broken)

    def close(self) -> None:
        """Ends the use of the graph; may be called again."""
        with self._lock:
            self._handle = None
            self._graph = ffi.NULL
            self._foreign, self._uses = {}, set()

    def __repr__(self) -> str:
        return "<Graph closed>" if self.closed else f"<Graph {len(self)} of {self._size} nodes>"

    #
    # Nodes
    #

    @property
    def size(self) -> int:
        """The most nodes that the graph can have."""
        return self._size

    @property
    def address(self) -> int:
        """Where the ggml_cgraph is: for other libraries that take one."""
        self._open()
        return int(ffi.cast("uintptr_t", self._graph))

    def __len__(self) -> int:
        self._open()
        return int(ggml.ggml_graph_n_nodes(self._graph))

    def node(self, i: int) -> Tensor:
        """The i-th node in serial order; negative numbers count from the end."""
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"node {i} of {n}")
        return self._wrap(ggml.ggml_graph_node(self._graph, i))

    @property
    def nodes(self) -> list[Tensor]:
        """All nodes in serial order."""
        return [self.node(i) for i in range(len(self))]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Name -> tensor made with input()."""
        self._open()
        return {name: self._wrap(ptr) for name, ptr in self._inputs.items()}

    @property
    def outputs(self) -> dict[str, Tensor]:
        """Name -> tensor marked with output()."""
        self._open()
        return {name: self._wrap(ptr) for name, ptr in self._outputs.items()}

    def _wrap(self, ptr: Any) -> Tensor:
        store = self._foreign.get(int(ffi.cast("uintptr_t", ptr)))
        return Tensor(ptr, store[0] if store else self)

    def _may_use(self, tensor: Tensor) -> bool:
        return isinstance(tensor._owner, Store)

    def _adopt(self, tensor: Tensor) -> None:
        """Keeps the memory of a store's tensor for as long as this graph needs it."""
        owner = tensor._owner
        if isinstance(owner, Store) and tensor._address not in self._foreign:
            self._uses.add(owner._open())
            self._foreign[tensor._address] = (owner, tensor._ptr)

    #
    # Building
    #

    def input(self, name: str, dtype: DTypeLike, ne: int | Sequence[int]) -> Tensor:
        """A tensor that the host writes before each run. `ne` is in ggml's order, fastest first."""
        with self._lock:
            context = self._reserve()
            encoded = encode_name(name)
            if name in self._inputs:
                raise GraphError(f"this Graph has an input {name!r} already; choose another name")
            kind = dtype_of(dtype)
            sizes = check_ne(ne, kind, f"input {name!r}")
            tensor = ggml.ggml_new_tensor(context, kind.id, 4, list(sizes))
            ggml.ggml_set_name(tensor, encoded)
            ggml.ggml_set_input(tensor)
            self._inputs[name] = tensor
            return Tensor(tensor, self)

    def _reserve(self) -> Any:
        """The context, with room for one more call."""
        context = self._building()
        room = ggml.ggml_get_mem_size(context) - ggml.ggml_used_mem(context)
        if room < _TENSORS_PER_CALL * ggml.ggml_tensor_overhead():
            raise GraphError(
                f"this Graph has no room for further tensors: it was made for {self._size} nodes; "
                "make it with a larger Graph(size=...)"
            )
        return context

    def _prepare(self, name: str, args: tuple[Any, ...]) -> dict[str, Any]:
        """Checked arguments by name."""
        values = convert_arguments(self, name, args)
        tensors = [(n, v) for n, v in values.items() if isinstance(v, Tensor)]
        for parameter, tensor in tensors:
            self._check_repacked(name, parameter, tensor, values)
        check_operation(name, values)
        for _, tensor in tensors:
            self._adopt(tensor)
        return values

    def _check_repacked(
        self, name: str, parameter: str, tensor: Tensor, values: dict[str, Any]
    ) -> None:
        owner = tensor._owner
        if not isinstance(owner, Store) or not owner._is_repacked(tensor):
            return
        if (name, parameter) not in (("mul_mat", "a"), ("mul_mat_id", "as_")):
            raise GraphError(
                f"{describe(name, values)}: {parameter} is repacked and can only be the weight of "
                "mul_mat or mul_mat_id; load it with repack=False for other uses"
            )

    def _build(self, name: str, *args: Any) -> Tensor:
        with self._lock:
            context = self._reserve()
            values = self._prepare(name, args)
            function = getattr(ggml, "ggml_" + name)
            try:
                result = function(context, *map(c_value, values.values()))
            except GraphError as error:
                raise GraphError(f"{describe(name, values)}: {error}") from None
            check_result(name, values, result)
            self._pending += _TENSORS_PER_CALL if name.startswith("conv") else 1
            return Tensor(result, self)

    def _modify(self, name: str, *args: Any) -> Tensor:
        """Changes args[0], a tensor that is not yet part of the graph, and returns it."""
        with self._lock:
            self._building()
            values = self._prepare(name, args)
            target = values["a"] if "a" in values else values["tensor"]
            assert isinstance(target, Tensor)
            if target._address in self._expanded:
                raise GraphError(f"{describe(name, values)}: the tensor is in the graph already")
            self._check_no_cycle(name, values, target)
            try:
                getattr(ggml, "ggml_" + name)(*map(c_value, values.values()))
            except GraphError as error:
                raise GraphError(f"{describe(name, values)}: {error}") from None
            return target

    def _check_no_cycle(self, name: str, values: dict[str, Any], target: Tensor) -> None:
        """A source given to a tensor afterwards must not be computed from that tensor."""
        source = values.get("sinks")
        if source is not None and any(p == target._ptr for p in _ancestors(source._ptr)):
            raise GraphError(f"{describe(name, values)}: sinks is computed from a")

    def set_name(self, tensor: Tensor, name: str) -> None:
        """Names a tensor of this graph, for messages and for the reader of a plan."""
        encoded = encode_name(name)
        with self._lock:
            self._open()
            if not isinstance(tensor, Tensor) or tensor._owner is not self:
                raise GraphError(f"set_name: expected a tensor of this Graph, got {tensor!r}")
            ggml.ggml_set_name(tensor._ptr, encoded)

    #
    # Taking part
    #

    def expand(self, tensor: Tensor) -> Tensor:
        """Adds a tensor to the nodes, after all that it is computed from that are not yet there."""
        with self._lock:
            self._building()
            self._check_own("expand", tensor)
            self._grow(tensor._ptr)
            return tensor

    def output(self, tensor: Tensor, name: str | None = None) -> Tensor:
        """Marks a tensor as a result and expands the graph with it.

        Its memory is not used for anything else, and it is read under `name`: its own name by
        default, "output" where it has none.
        """
        with self._lock:
            self._building()
            self._check_own("output", tensor)
            if tensor.op == "NONE":
                raise GraphError("output: nothing computes this tensor; use cont() to copy it")
            name = name if name is not None else tensor.name or self._free_name()
            encoded = encode_name(name)
            if name in self._outputs:
                raise GraphError(f"this Graph has an output {name!r} already; choose another name")
            ggml.ggml_set_name(tensor._ptr, encoded)
            ggml.ggml_set_output(tensor._ptr)
            self._grow(tensor._ptr)
            self._outputs[name] = tensor._ptr
            return tensor

    def select(self, tensors: Sequence[Tensor], idx: int) -> Tensor:
        """Adds all tensors to the nodes and marks only tensors[idx] for computing; returns it.

        Graphs that differ in idx have the same nodes.
        """
        with self._lock:
            self._building()
            chosen = list(tensors)
            for tensor in chosen:
                self._check_own("select", tensor)
            if not isinstance(idx, int) or not 0 <= idx < len(chosen):
                raise GraphError(f"select: idx is {idx!r}, expected 0 to {len(chosen) - 1}")
            array = ffi.new("struct ggml_tensor *[]", [t._ptr for t in chosen])
            self._expanding(
                lambda: ggml.ggml_build_forward_select(self._graph, array, len(chosen), idx)
            )
            return chosen[idx]

    def _free_name(self) -> str:
        n = len(self._outputs)
        return "output" if n == 0 else f"output_{n}"

    def _check_own(self, what: str, tensor: Tensor) -> None:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{what}: expected a Tensor, got {type(tensor).__name__}")
        if tensor._owner.closed:
            raise ClosedError(f"{what}: the tensor's owner is closed")
        if tensor._owner is not self:
            raise GraphError(f"{what}: expected a tensor that this Graph computes")

    def _grow(self, ptr: Any) -> None:
        if self._pending > _RECURSION:
            for step in _postorder(ptr, self._expanded):
                self._expanding(lambda step=step: ggml.ggml_build_forward_expand(self._graph, step))
        self._expanding(lambda: ggml.ggml_build_forward_expand(self._graph, ptr))
        self._pending = 0

    def _expanding(self, call: Any) -> None:
        """Runs a call that adds nodes. One that fails leaves half of them: the graph is lost."""
        before = len(self)
        try:
            call()
        except GraphError as error:
            self._broken = (
                f"this Graph is full: it was made for {self._size} nodes; build it again with a "
                f"larger Graph(size=...) ({error})"
            )
            raise GraphError(self._broken) from None
        for i in range(before, len(self)):
            node = ggml.ggml_graph_node(self._graph, i)
            self._expanded.add(int(ffi.cast("uintptr_t", node)))


def _new_context(size: int) -> Any:
    """A context for a graph of `size` nodes, with as many leafs and some tensors to spare."""
    n_tensors = 2 * size + 8 * _TENSORS_PER_CALL
    params = ffi.new("struct ggml_init_params *")
    params.mem_size = (
        ggml.ggml_graph_overhead_custom(size, False) + n_tensors * ggml.ggml_tensor_overhead()
    )
    params.mem_buffer, params.no_alloc = ffi.NULL, True
    context = ggml.ggml_init(params[0])
    if context == ffi.NULL:
        raise MemoryError(f"no memory for a graph of {size} nodes")
    return context


def _sources(ptr: Any) -> Iterator[Any]:
    return (s for s in ptr.src if s not in (ffi.NULL, ptr))


def _ancestors(ptr: Any) -> Iterator[Any]:
    """A tensor and all that it is computed from."""
    seen, stack = {ptr}, [ptr]
    while stack:
        current = stack.pop()
        yield current
        for source in _sources(current):
            if source not in seen:
                seen.add(source)
                stack.append(source)


def _postorder(ptr: Any, done: set[int]) -> Iterator[Any]:
    """What a tensor is computed from, sources first, as ggml's own recursion meets them."""
    seen: set[Any] = set()
    stack = [(ptr, _sources(ptr))]
    while stack:
        current, sources = stack[-1]
        for source in sources:
            if source not in seen and int(ffi.cast("uintptr_t", source)) not in done:
                seen.add(source)
                stack.append((source, _sources(source)))
                break
        else:
            stack.pop()
            if current != ptr and current.op != lib.GGML_OP_NONE:
                yield current
