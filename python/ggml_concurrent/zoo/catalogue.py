"""What the graphs of the zoo look like to the planner, without computing any of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from ..plan import find_concurrency
from . import GRAPHS, build

#: As many streams as no graph here can use.
_STREAMS = 64


@dataclass(frozen=True)
class Card:
    """A graph in numbers.

    Attributes:
        name: in the zoo.
        about: one line.
        dtype: type of the matrices.
        n_tokens: tokens computed at once.
        nodes: operations, views included.
        units: what is left of them when views are left out and what is fused is one.
        phases: the longest chain of units that have to follow one another.
        width: the most units that can run at once.
        gain: all units one after another, over the longest chain, by guessed costs: what any
            number of streams could gain at most if every unit took as long beside others as alone.
        weight_bytes: of weights and caches.
    """

    name: str
    about: str
    dtype: str
    n_tokens: int
    nodes: int
    units: int
    phases: int
    width: int
    gain: float
    weight_bytes: int

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


def card(name: str, fuse: str = "cuda") -> Card:
    """The numbers of one graph. fuse: the backend for which nodes stay together."""
    entry = GRAPHS[name]
    with build(name, weights=False) as workload:
        stats = find_concurrency(workload.graph, streams=_STREAMS, fuse=fuse).stats
        n_bytes = workload.store.nbytes
    return Card(
        name,
        entry.about,
        entry.dtype,
        entry.n_tokens,
        stats.n_nodes,
        stats.n_units,
        stats.n_phases,
        stats.width,
        stats.cost / stats.critical,
        n_bytes,
    )


def cards(names: Iterable[str] | None = None, fuse: str = "cuda") -> Iterator[Card]:
    """The numbers of these graphs; by default of all but those for tests."""
    if names is None:
        names = sorted(name for name in GRAPHS if not name.endswith("-tiny"))
    for name in names:
        yield card(name, fuse)


def table(rows: Iterable[Card]) -> Iterator[str]:
    """Lines of a table in Markdown."""
    yield "| graph | | nodes | units | phases | width | gain at most | weights |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for c in rows:
        what = f"{c.about}, {c.dtype}" + (f", {c.n_tokens} tokens" if c.n_tokens > 1 else "")
        size = f"{c.weight_bytes / 2**30:.2f} GiB"
        numbers = f"{c.nodes} | {c.units} | {c.phases} | {c.width} | {c.gain:.2f} | {size}"
        yield f"| {c.name} | {what} | {numbers} |"
