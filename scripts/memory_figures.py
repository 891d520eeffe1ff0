#!/usr/bin/env python3
"""Lay out the graphs of the zoo under several budgets, without memory and without weights.

    python scripts/memory_figures.py [--streams N] [--fuse cuda] [--json FILE] [GRAPH ...]

By default every graph of real size, for one token and for 64.  Sizes and the time that planning and
layout take are measured; concurrency is estimated, from the costs that plans are made with: the
speed-up over serial on the layout, as a part of that without any sharing.  No GPU is needed: units
are those of the CUDA backend, tensors are as large as on the CPU.

Prints two Markdown tables on standard output, of all graphs and of what sums them up.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import ggml_concurrent as ggc
from ggml_concurrent import zoo
from ggml_concurrent.memory import Sketch

MIB = 2**20
# The layout by plan is had by asking for one that is hardly larger than the bound.
BUDGETS = (1.0, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0)
FIXED_MIB = (0.25, 1, 4, 16)


@dataclass(frozen=True)
class Row:
    """One graph, laid out."""

    graph: str
    tokens: int
    tensors: int
    default: Sketch
    by_plan: Sketch | None  # None: there is none, for want of concurrency or of memory
    tight: Sketch  # 1.10 of the serial peak
    least: Sketch
    fixed: tuple[Sketch, ...]  # FIXED_MIB

    @property
    def to_bound(self) -> float | None:
        """The layout by plan as a multiple of the bound."""
        if self.by_plan is None:
            return None
        return self.by_plan.memory.size / max(1, self.by_plan.memory.bound)

    def line(self) -> str:
        """For the table."""
        memory = self.default.memory
        ratio = self.to_bound
        cells = [
            self.graph,
            self.tokens,
            self.tensors,
            mib(memory.serial_peak),
            mib(memory.no_reuse),
            mib(memory.bound),
            mib(self.by_plan.memory.size) if self.by_plan else "-",
            f"{ratio:.2f}" if ratio else "-",
            f"{mib(memory.size)} ({memory.sharing})",
            f"{self.default.kept:.2f}",
            mib(self.tight.memory.size),
            f"{self.tight.kept:.2f}",
            mib(self.least.memory.size),
            f"{self.least.kept:.2f}",
            f"{self.default.serial / self.default.no_reuse:.2f}",
            f"{1e3 * self.default.plan_seconds:.2f}",
            f"{1e3 * memory.seconds:.2f}",
            f"{1e3 * self.tight.memory.seconds:.2f}",
        ]
        return "| " + " | ".join(map(str, cells)) + " |"


HEAD = """\
| graph | tokens | tensors | ggml-alloc | no sharing | bound | by plan | over bound | default \
| kept | at 1.10x | kept | least | kept | speed-up | plan, ms | layout, ms | at 1.10x, ms |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: \
| ---: | ---: | ---: | ---: |"""


def mib(n: int) -> str:
    return f"{n / MIB:.2f}"


def lay_out(name: str, tokens: int, options: argparse.Namespace) -> Row:
    with zoo.build(name, weights=False, n_tokens=tokens) as workload:

        def sketch(budget: int | None = None) -> Sketch:
            return ggc.sketch_memory(
                workload.graph, options.streams, options.fuse, budget=budget, wait_cost=2.0
            )

        default = min((sketch() for _ in range(3)), key=lambda s: s.memory.seconds)
        memory = default.memory
        by_plan = None
        for factor in BUDGETS:
            shared = sketch(int(factor * memory.bound))
            if shared.memory.sharing == "by plan":
                by_plan = shared
                break
        budget = int(1.1 * memory.serial_peak)
        tight = min((sketch(budget) for _ in range(3)), key=lambda s: s.memory.seconds)
        fixed = tuple(sketch(int(mib * MIB)) for mib in FIXED_MIB)
        least = sketch(0)
    return Row(name, tokens, memory.tensors, default, by_plan, tight, least, fixed)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    names = options.graphs or sorted(n for n in zoo.GRAPHS if not n.endswith("-tiny"))
    for name in names:
        for tokens in options.tokens:
            try:
                yield lay_out(name, tokens, options)
            except ggc.Error as error:
                print(f"{name}, {tokens} tokens: {error}", file=sys.stderr)


def figures(group: list[Row]) -> dict[str, str]:
    """What the goals are about, over graphs with equal numbers of tokens."""
    n = len(group)
    ratios = [r.to_bound for r in group if r.to_bound]
    least = [r.least.memory.size / max(1, r.least.memory.serial_peak) for r in group]
    times = [r.default.memory.seconds / r.default.plan_seconds for r in group]
    tight = [r.tight.memory.seconds / r.default.plan_seconds for r in group]
    fixed = [[r.fixed[i].kept for r in group] for i in range(len(FIXED_MIB))]
    sizes = ", ".join(map(str, FIXED_MIB))
    return {
        "graphs": str(n),
        "kept at the default budget, least": f"{min(r.default.kept for r in group):.2f}",
        "graphs with 0.98 or more of it": f"{sum(r.default.kept >= 0.98 for r in group)}",
        "kept at 1.10x, median": f"{median(r.tight.kept for r in group):.2f}",
        "graphs with 0.85 or more of it": f"{sum(r.tight.kept >= 0.85 for r in group)}",
        f"kept at {sizes} MiB, median": ", ".join(f"{median(kept):.2f}" for kept in fixed),
        "graphs with 0.98 or more of it, each": ", ".join(
            str(sum(k >= 0.98 for k in kept)) for kept in fixed
        ),
        "by plan over bound, median": f"{median(ratios):.3f}" if ratios else "-",
        "least over ggml-alloc, median": f"{median(least):.2f}",
        "layout over planning, time, median": f"{median(times):.2f}",
        "the same at 1.10x": f"{median(tight):.2f}",
        "the same, longest": f"{max(tight):.1f}",
    }


def summary(done: list[Row]) -> str:
    """The second table."""
    tokens = sorted({r.tokens for r in done})
    columns = [figures([r for r in done if r.tokens == n]) for n in tokens]
    lines = ["| | " + " | ".join(f"{n} tokens" for n in tokens) + " |"]
    lines.append("| --- |" + " ---: |" * len(tokens))
    lines += [f"| {what} | " + " | ".join(c[what] for c in columns) + " |" for what in columns[0]]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graphs", nargs="*", metavar="GRAPH", help="of the zoo; all by default")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--fuse", default="cuda", help="whose units (default: cuda)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there, too")
    options = parser.parse_args()
    done = []
    print(HEAD)
    for row in rows(options):
        print(row.line(), flush=True)
        done.append(row)
    if not done:
        return 1
    print(f"\n{summary(done)}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in done], indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
