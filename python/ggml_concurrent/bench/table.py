"""Results as tables: rows of texts, which the terminal and the page both show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .candidates import CANDIDATES, kind_of
from .results import COMPLETE, GraphResult, Measured, Results

NONE = "-"
SAME, OTHER, DIFFERENT = "same", "other", "DIFFERENT"


@dataclass(frozen=True)
class Table:
    """A table of texts; the first `left` columns are aligned to the left."""

    title: str
    head: list[str]
    rows: list[list[str]]
    left: int

    def __str__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(self.head))]
        rule = ["-" * w if i < self.left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        return "\n".join(self._line(line, widths) for line in [self.head, rule, *self.rows])

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = (
            cell.ljust(w) if i < self.left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"


#
# Numbers
#


def milliseconds(value: float | None) -> str:
    """Four digits that say something."""
    if value is None:
        return NONE
    return _four_digits(value)


def _four_digits(value: float) -> str:
    digits = 4 if value < 1 else 3 if value < 10 else 2 if value < 100 else 1
    return f"{value:.{digits}f}"


def times(value: float | None) -> str:
    """A ratio."""
    return NONE if value is None else f"{value:.2f}x"


def percent(value: float | None) -> str:
    """A share."""
    return NONE if value is None else f"{100 * value:.0f} %"


def mebibytes(value: int | None) -> str:
    """A size in memory."""
    return NONE if value is None else _four_digits(value / 2**20)


#
# Tables
#


def race(results: Results, old: Results | None = None) -> Table:
    """A row for each graph and candidate; with the ratios of an older run beside, if given."""
    serial = [c for c in results.settings.candidates if CANDIDATES[c].serial]
    over = serial if len(serial) > 1 else []
    was = [] if old is None else ["was"]
    head = ["graph", "candidate", "ratio", *was, *(f"/ {c}" for c in over)]
    head += ["median ms", "min", "max", "spread", "runs", "way", "GB/s", "of copy", "of bound"]
    head += ["planning ms", "buffer MiB", "bits"]
    rows = [
        _race_row(results, graph, measured, over, old)
        for graph in results.graphs
        for measured in graph.measured
    ]
    return Table("Race", head, rows, left=2)


def _race_row(
    results: Results, graph: GraphResult, m: Measured, over: Sequence[str], old: Results | None
) -> list[str]:
    s = m.summary
    memory = results.bandwidth.gb_per_s if results.bandwidth else None
    bound = None if memory is None else graph.bound_ms(memory)
    rate = graph.gb_per_s(m)
    return [
        graph.name,
        m.candidate,
        times(graph.ratio(m)),
        *([] if old is None else [times(_old_ratio(old, graph, m))]),
        *(times(graph.ratio(m, c)) for c in over),
        milliseconds(s.median),
        milliseconds(s.low),
        milliseconds(s.high),
        percent(s.spread),
        str(s.runs),
        ", ".join(m.ways),
        f"{rate:.1f}",
        percent(None if memory is None else rate / memory),
        percent(None if bound is None else bound / s.median),
        f"{m.planning_ms:.3f}",
        mebibytes(m.buffer_bytes),
        bits(m),
    ]


def bits(m: Measured) -> str:
    """Whether the bits are those that they should be."""
    if not m.differs:
        return SAME
    return OTHER if CANDIDATES[m.candidate].serial else DIFFERENT


def _old_ratio(old: Results, graph: GraphResult, m: Measured) -> float | None:
    before = old.of(graph.name)
    then = None if before is None else before.of(m.candidate)
    return None if before is None or then is None else before.ratio(then)


def graphs(results: Results) -> Table:
    """A row for each graph: what it is, and how fast it could be."""
    head = ["graph", "type", "tokens", "cached", "nodes", "units", "phases", "width", "reads MB"]
    head += ["all units ms", "critical ms", "bytes ms", "bound ms", "ggml-alloc MiB", "others"]
    return Table("Graphs", head, [_graph_row(results, graph) for graph in results.graphs], left=2)


def _graph_row(results: Results, graph: GraphResult) -> list[str]:
    f = graph.facts
    memory = results.bandwidth.gb_per_s if results.bandwidth else None
    return [
        graph.name,
        graph.dtype,
        str(graph.n_tokens),
        str(graph.n_past),
        str(f.nodes),
        str(f.units),
        str(f.phases),
        str(f.width),
        f"{f.bytes_read / 1e6:.2f}",
        milliseconds(f.work_ms),
        milliseconds(f.critical_ms),
        milliseconds(None if memory is None else graph.bytes_ms(memory)),
        milliseconds(None if memory is None else graph.bound_ms(memory)),
        mebibytes(f.serial_buffer_bytes),
        percent(graph.others),
    ]


#
# Text around the tables
#


class _Known(dict[str, str]):
    """Facts by name; what is not known is a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"


def heading(results: Results) -> list[str]:
    """Where and how the numbers came about."""
    m, s = _Known(results.machine), results.settings
    load = f"load average {m['load average']} before"
    ours = f"ggml-concurrent {m['version']}, commit {m['commit']}"
    shared = f"; {s.processes} processes of each candidate share its runs"
    lines = [
        f"{m['processor']}, {m['processors']} processors, largest cache {m['largest cache']}",
        f"{m['platform']}, {m['python']}, {load}",
        f"{ours}; ggml {m['ggml']}, {m['cpu module']}",
        f"{results.when}: {results.command}",
        f"device {s.device}, at most {s.streams} streams, {s.threads} threads{shared}",
    ]
    if "device" in results.machine:
        what = f"{m['device']}, driver {m['driver']}, built with {m['device features']}"
        lines[-1] = f"device {s.device}: {what}; at most {s.streams} streams{shared}"
        lines += [f"set in the environment: {m['variables']}"] * bool(m["variables"])
    if results.bandwidth is not None:
        b = results.bandwidth
        by = f"{b.threads} threads" if b.threads else "the device"
        lines.append(
            f"copy bandwidth {b.gb_per_s:.1f} GB/s: {by}, {b.nbytes / 2**20:.0f} "
            "MiB, bytes read and bytes written both counted, as STREAM does; best of 5"
        )
    if results.state != COMPLETE:
        lines.append(f"{results.state.upper()}: what was measured until then")
    return lines


_NOTES = """\
ratio: median of the faster serial candidate over this median; above 1 is faster. A time is the \
mean of a burst of computes that lasts 10 ms or more, after 25 ms of computes that do not count.
spread: the distance between the quartiles, as a share of the median; median and quartiles are of \
all runs, whichever process they are from.
GB/s: weights and caches that the graph reads, each byte once, over the median; of copy: its share \
of the copy bandwidth, above 100 % where they stay in a cache, or where reading alone is faster.
bound: the larger of the critical path, made of measured times of the units (each the better of 1 \
and all threads, one after another, together no more than the untraced graph takes), and the bytes \
at the copy bandwidth of memory or, if that is faster, of as many bytes as the graph reads; \
of bound: its share of the median.
buffer: what the runner allocated for inputs and intermediate results; ggml-alloc: what ggml's own \
graph allocator takes for the nodes in their order, one at a time.
others: what other processes took of the processors during the race.
way: how units are placed, on how many streams, and by how many threads in all.
bits: outputs and written caches of 6 computes in each process, 3 before the race and 3 after it, \
compared with those of plain ggml with all threads, on CUDA with one kernel after another; other: \
plain ggml's own, which depend here on its threads, on kernels that begin too early, or on where \
its scheduler puts tensors.
""".splitlines()


_UNMEASURED = """\
critical: not measured on this device where it is -; the bound is then that of the bytes alone.\
"""
_ON_CUDA = """\
serial, graph-opt: inputs lie on the device; llama.cpp copies them there before each computation, \
which no candidate does here. Their buffer is what ggml's scheduler took; it lets the backend keep \
some tensors for longer.\
"""


def notes(results: Results) -> list[str]:
    """What the columns mean."""
    used = [c for c in results.settings.candidates if c in CANDIDATES]
    unmeasured = any(graph.facts.critical_ms is None for graph in results.graphs)
    on_cuda = kind_of(results.settings.device) == "cuda"
    further = [_UNMEASURED] * unmeasured + [_ON_CUDA] * on_cuda
    return [*_NOTES, *further, *(f"{name}: {CANDIDATES[name].about}." for name in used)]


def text(results: Results, old: Results | None = None) -> str:
    """Everything for a terminal."""
    parts = ["\n".join(heading(results))]
    if results.graphs:
        parts += [str(race(results, old)), str(graphs(results))]
        parts.append("\n".join(notes(results)))
    else:
        parts.append("nothing was measured")
    parts += [f"DISTURBED: {line}" for line in results.disturbances]
    parts += [f"DIFFERENT BITS: {line}" for line in results.differences]
    return "\n\n".join(parts)
