#!/usr/bin/env python3
"""Count what ggml-metal makes of the zoo's graphs, on the simulated device; no Mac is needed.

    GGC_BUILD_DIR=build/editable python scripts/metal_figures.py [--write] [NAME...]

For each graph: barriers and command buffers in its own order, in that of ggml-metal's reorder, and
in ours; and the fewest barriers that any order can have. ggml-metal itself encodes the graphs
(tests/metal/sim.h); nothing is computed, so the graphs have their real size, and the weights no
contents. Prints a Markdown table; --write puts it into docs/metal.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))

from metal_compare import Metal, address  # noqa: E402
from metal_sim import Report, Sim, simulated  # noqa: E402
from tools import normal_build  # noqa: E402

from ggml_concurrent import zoo  # noqa: E402

PAGE = ROOT / "docs" / "metal.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"

#: Microseconds: a kernel that waits for those before it, one that does not, and a switch of command
#: buffers. csrc/include/ggml-concurrent.h, struct ggc_metal_figures, says where they are from.
WAIT, BESIDE, SWITCH = 2.05, 0.082, 40.0


def modelled(r: Report) -> float:
    """Microseconds that an order costs beside the kernels' own work."""
    waits = r.barriers + r.command_buffers
    beside = r.kernels - (r.barriers - r.inner_barriers) - r.command_buffers
    return WAIT * waits + BESIDE * beside + SWITCH * (r.command_buffers - 1)


@dataclass(frozen=True)
class Row:
    """One graph in three orders."""

    name: str
    n_tokens: int
    plain: Report
    reorder: Report
    ours: Report
    minimum: int  # barriers, where a switch of command buffers does for one


@contextmanager
def opened(sim: Sim, name: str) -> Iterator[zoo.Workload]:
    """A graph as llama.cpp builds it for Metal, with room for weights."""
    with (
        zoo.build(name, weights=False, flash_attn=True) as workload,
        sim.metal.weights(workload),
    ):
        yield workload


def ours(sim: Sim, name: str) -> Report:
    with (
        sim.dry(),
        opened(sim, name) as workload,
        workload.runner(device="metal", tune="off", always=True) as runner,
    ):
        sim.reset()
        runner.compute()
        report, predicted = sim.report(), runner.metal
    assert predicted is not None
    found = (report.kernels, report.barriers - report.inner_barriers, report.inner_barriers)
    assert found == (predicted.kernels, predicted.barriers, predicted.inner_barriers), name
    assert report.command_buffers == predicted.command_buffers, name
    assert abs(modelled(report) - predicted.microseconds) < 1e-6, name
    return report


def measure(sim: Sim, compare: Metal, name: str) -> Row:
    with zoo.build(name, weights=False, flash_attn=True) as workload:
        minimum = compare.compare(address(workload.graph)).minimum
        plain = sim.encode(workload, "plain")
        reorder = sim.encode(workload, "reorder")
    row = Row(name, zoo.GRAPHS[name].n_tokens, plain, reorder, ours(sim, name), minimum)
    for report in (row.plain, row.reorder, row.ours):
        assert report.faults == "", (name, report.faults)
        assert report.graphs == 1, name
    return row


def barriers(r: Report) -> int:
    return r.barriers - r.inner_barriers


def table(rows: list[Row]) -> str:
    heads = "graph tokens kernels plain its_reorder ours minimum inner buffers"
    heads += " plain,_µs its_reorder,_µs ours,_µs"
    titles = [title.replace("_", " ") for title in heads.split()]
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(titles) - 1)]
    for r in rows:
        three = (r.plain, r.reorder, r.ours)
        buffers = {report.command_buffers for report in three}
        cells = [
            r.name,
            r.n_tokens,
            r.ours.kernels,
            *(barriers(report) for report in three),
            r.minimum - (r.ours.command_buffers - 1),
            r.ours.inner_barriers,
            " / ".join(map(str, sorted(buffers))),
            *(f"{modelled(report):.0f}" for report in three),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def summary(rows: list[Row]) -> str:
    def mean(ratio: list[float]) -> str:
        return f"{geometric_mean(ratio):.2f} times"

    plain = [modelled(r.plain) / modelled(r.ours) for r in rows]
    reorder = [modelled(r.reorder) / modelled(r.ours) for r in rows]
    fewer = [barriers(r.reorder) / max(1, barriers(r.ours)) for r in rows]
    return (
        f"Geometric means over {len(rows)} graphs: ggml-metal's reorder sets {mean(fewer)} the "
        f"barriers that ours needs; the modelled overhead of the plain order is {mean(plain)} "
        f"ours, that of the reorder {mean(reorder)} "
        f"({min(reorder):.2f} to {max(reorder):.2f}).\n"
    )


def write(text: str) -> None:
    """Puts the text between the page's marks."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + text + END + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n", maxsplit=1)[0],
        epilog="GGC_BUILD_DIR names a build with GGC_BUILD_TESTS=ON, such as that of scripts/test.",
    )
    parser.add_argument("names", nargs="*", help="graphs of the zoo; by default all of real size")
    parser.add_argument("--write", action="store_true", help="put the table into docs/metal.md")
    arguments = parser.parse_args()
    names = arguments.names or [name for name in zoo.GRAPHS if not name.endswith("-tiny")]
    compare = Metal(normal_build() / "tests" / "metal_compare.so")
    with simulated() as sim:
        rows = [measure(sim, compare, name) for name in names]
    text = table(rows) + "\n" + summary(rows)
    if arguments.write:
        write(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
