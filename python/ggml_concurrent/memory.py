"""How the tensors of a graph share memory: reports, and pictures of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ._native import Closable, Handle, ffi, lib, load_backends, message_of, raise_status
from .graph import Graph
from .plan import Plan, count, fuse_of, strategy_of

__all__ = ["Block", "Memory", "Pool", "Sketch", "sketch_memory"]

_SHARING = {
    lib.GGC_SHARING_NONE: "none",
    lib.GGC_SHARING_BY_PLAN: "by plan",
    lib.GGC_SHARING_BY_TIME: "by time",
    lib.GGC_SHARING_SERIAL: "serial",
    lib.GGC_SHARING_BY_PHASE: "by phase",
}


@dataclass(frozen=True)
class Block:
    """Where a tensor lies, and when it is in use.

    Attributes:
        name: of the tensor.
        buffer: number of the buffer; most layouts have one.
        offset: first byte in it.
        size: bytes.
        units: those of the plan that access the tensor, ascending; empty on Metal.
        stream: of the unit that writes it; -1 where none does (an input, a cache).
        start, finish: microseconds, as the plan is expected to run; what no unit writes is in use
            from the beginning to the end.
    """

    name: str
    buffer: int
    offset: int
    size: int
    units: tuple[int, ...]
    stream: int
    start: float
    finish: float


@dataclass(frozen=True)
class Memory:
    """How the tensors of a graph that had no memory were laid out. Sizes are bytes.

    Attributes:
        sharing: which tensors share memory: "none"; "by plan", those that the plan orders anyway;
            "by time", those that are over in time in a plan that is made for the budget, which
            orders what could run at once; "serial", whatever the order of the graph allows, as
            ggml does; "by phase", on Metal.
        budget: what there was to spend.
        serial_peak: what ggml's allocator would take for the order of the graph.
        no_reuse: what it would take if no two tensors shared memory.
        bound: no layout that costs the plan no concurrency is smaller; 0 on Metal.
        size: of this layout.
        tensors, buffers: how many there are, views not counted.
        seconds: that it took to find the layout.
        blocks: where each tensor lies.
    """

    sharing: str
    budget: int
    serial_peak: int
    no_reuse: int
    bound: int
    size: int
    tensors: int
    buffers: int
    seconds: float
    blocks: tuple[Block, ...] = field(default=(), repr=False)

    def to_svg(self, width: int = 960, height: int = 540) -> str:
        """A picture: offsets (upwards) over time (to the right), colours for streams.

        Grey is what no unit writes. Dashed lines stand at what ggml's allocator would take and at
        the bound. `width` and `height` in pixels.
        """
        return _picture(self, width, height)


def memory_of(figures: Any, blocks: Sequence[Block] = ()) -> Memory:
    """From the C struct."""
    return Memory(
        _SHARING[figures.sharing],
        figures.budget,
        figures.serial,
        figures.apart,
        figures.bound,
        figures.size,
        figures.n_tensors,
        figures.n_buffers,
        figures.seconds,
        tuple(blocks),
    )


def blocks_of(runner: Any, plan: Plan) -> list[Block]:
    """Of an open runner of the C library, with the times of one of its plans."""
    n = lib.ggc_runner_places(runner, ffi.NULL, 0)
    places = ffi.new("struct ggc_tensor_place[]", max(n, 1))
    lib.ggc_runner_places(runner, places, n)
    times = plan.expected_times()
    end = max((finish for _, _, finish in times), default=0.0)
    blocks = []
    for place in places[0:n]:
        units = tuple(ffi.unpack(place.uses, place.n_uses)) if place.n_uses else ()
        written = bool(units) and place.tensor.op != lib.GGML_OP_NONE
        stream = times[units[0]][0] if written else -1
        start = min(times[u][1] for u in units) if written else 0.0
        finish = max(times[u][2] for u in units) if written else end
        name = ffi.string(place.tensor.name).decode(errors="replace")
        blocks.append(
            Block(name, place.buffer, place.offset, place.size, units, stream, start, finish)
        )
    return blocks


class Pool(Closable):
    """Keeps the memory of closed runners for those that come after them; a context manager.

    For graphs that are built anew with other shapes, as for a growing cache: `Runner(graph,
    pool=pool)`. Runners that use it keep it alive. Several threads may use one.
    """

    def __init__(self) -> None:
        out = ffi.new("struct ggc_pool **")
        raise_status(lib.ggc_pool_new(out), "", "Pool")
        self._handle: Handle | None = Handle("pool", out[0], lib.pool_free)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._handle is None

    def close(self) -> None:
        """Frees what it keeps, once the runners that use it are closed."""
        self._handle = None

    def handle(self) -> Handle:
        """For runners, which keep it."""
        self._check_open()
        assert self._handle is not None
        return self._handle


#
# Pictures
#

_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#eeca3b")
_GREY = "#c8c8c8"
_LEFT, _TOP, _BOTTOM, _RIGHT = 80, 30, 40, 10  # margins, pixels


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.4g} {unit}"
        n /= 1024
    return f"{n:.4g} GiB"


def _tops(memory: Memory) -> list[int]:
    """Where each buffer begins, one on top of the other; last, where all of them end."""
    tops = [0]
    for buffer in range(memory.buffers):
        ends = [b.offset + b.size for b in memory.blocks if b.buffer == buffer]
        tops.append(tops[-1] + max(ends, default=0))
    return tops


def _picture(memory: Memory, width: int, height: int) -> str:
    tops = _tops(memory)
    end = max((b.finish for b in memory.blocks), default=0.0) or 1.0
    lines = {"ggml's allocator": memory.serial_peak, "bound": memory.bound}
    most = max([tops[-1], *(n for n in lines.values() if n <= 4 * tops[-1])]) or 1
    x_scale, y_scale = (width - _LEFT - _RIGHT) / end, (height - _TOP - _BOTTOM) / most

    def y(offset: float) -> float:
        return height - _BOTTOM - offset * y_scale

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
        (
            f'<text x="{_LEFT}" y="18">{_bytes(memory.size)} of {_bytes(memory.no_reuse)}, '
            f"shared {escape(memory.sharing)}</text>"
        ),
    ]
    for block in memory.blocks:
        colour = _COLOURS[block.stream % len(_COLOURS)] if block.stream >= 0 else _GREY
        top = tops[block.buffer] + block.offset + block.size
        parts.append(
            f'<rect x="{_LEFT + block.start * x_scale:.2f}" y="{y(top):.2f}" '
            f'width="{max((block.finish - block.start) * x_scale, 0.3):.2f}" '
            f'height="{max(block.size * y_scale, 0.3):.2f}" fill="{colour}" stroke="white" '
            f'stroke-width="0.3"><title>{escape(block.name)}: {_bytes(block.size)}</title></rect>'
        )
    parts += _axes(width, height, end, most, y)
    for what, n in lines.items():
        if 0 < n <= most:
            parts.append(
                f'<path d="M{_LEFT} {y(n):.2f}H{width - _RIGHT}" stroke="black" '
                f'stroke-dasharray="4 3"/><text x="{width - _RIGHT}" y="{y(n) - 3:.2f}" '
                f'text-anchor="end">{what}, {_bytes(n)}</text>'
            )
    parts += _legend(memory, width)
    return "\n".join([*parts, "</svg>", ""])


def _axes(
    width: int, height: int, end: float, most: float, y: Callable[[float], float]
) -> list[str]:
    bottom = height - _BOTTOM
    parts = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{width - _RIGHT}" fill="none" stroke="black"/>']
    for k in range(5):
        x = _LEFT + (width - _LEFT - _RIGHT) * k / 4
        anchor = "end" if k == 4 else "middle"
        parts.append(
            f'<text x="{x:.0f}" y="{bottom + 18}" text-anchor="{anchor}">'
            f"{end * k / 4:.4g} \N{MICRO SIGN}s</text>"
        )
        parts.append(
            f'<text x="{_LEFT - 5}" y="{y(most * k / 4) + 4:.0f}" text-anchor="end">'
            f"{_bytes(most * k / 4)}</text>"
        )
    return parts


def _legend(memory: Memory, width: int) -> list[str]:
    streams = sorted({block.stream for block in memory.blocks})
    parts = []
    for i, stream in enumerate(reversed(streams)):
        x = width - _RIGHT - 70 * (i + 1)
        colour = _COLOURS[stream % len(_COLOURS)] if stream >= 0 else _GREY
        what = f"stream {stream}" if stream >= 0 else "inputs"
        parts.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="18">{what}</text>')
    return parts


#
# Without memory
#


@dataclass(frozen=True)
class Sketch:
    """What a runner would do with memory, and what that is expected to cost.

    Attributes:
        memory: the layout, without blocks.
        serial: microseconds of all units one after another.
        no_reuse: microseconds of the plan if no two tensors shared memory.
        planned: microseconds of the plan on this layout.
        plan_seconds: that planning the graph took, once.
    """

    memory: Memory
    serial: float
    no_reuse: float
    planned: float
    plan_seconds: float

    @property
    def kept(self) -> float:
        """The speed-up over serial on this layout, as a part of that without sharing."""
        return self.no_reuse / self.planned if self.planned else 1.0


def sketch_memory(
    graph: Graph,
    streams: int = 2,
    fuse: str = "cpu",
    *,
    strategy: str = "list",
    budget: int | None = None,
    wait_cost: float | None = None,
) -> Sketch:
    """Lays the graph out as a Runner would, without memory: for graphs of any size.

    Tensors of a Store are taken to have theirs already, placeholders too.  All times are estimates,
    from the same costs as the plan's.  Arguments as for `Runner`.

    Raises:
        GraphError: an argument is out of range, or the graph is not whole.
    """
    if not isinstance(graph, Graph):
        raise TypeError(f"expected a Graph, got {type(graph).__name__}")
    graph._building()  # open, whole, and without a runner
    params = ffi.new("struct ggc_runner_params *")
    lib.ggc_runner_params_init(params)
    params.n_streams = count(streams, 1, lib.GGC_MAX_STREAMS, "streams")
    params.fuse = fuse_of(fuse)
    params.strategy = strategy_of(strategy)
    if budget is not None:
        params.budget = count(budget, 0, 2**62, "budget")
    if wait_cost is not None:
        params.wait_cost = wait_cost
    load_backends()
    sketch = ffi.new("struct ggc_memory_sketch *")
    message = ffi.new("char[512]")
    status = lib.ggc_memory_sketch(graph._graph, params, sketch, message, 512)
    raise_status(status, message_of(message), "sketch_memory")
    return Sketch(
        memory_of(sketch.memory),
        sketch.serial_time,
        sketch.apart_time,
        sketch.time,
        sketch.plan_seconds,
    )
