#!/usr/bin/env python3
"""Try ggml's Metal backend with and without us on this Mac, and write a report to be attached.

    python scripts/metal_report.py [--output FILE] [--rounds N] [NAME...]

`scripts/metal` sets everything up and calls this. For some graphs of the zoo: whether the results
have the same bits as those of ggml-metal alone, and how long one computation takes, in turns:

    plain      ggml-metal, nodes in the graph's order
    reorder    ggml-metal under ggml's scheduler, as llama.cpp uses it; its own reorder
    by phase   ours, whether it pays or not
    default    ours, as it has tuned itself
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))

from metal_run import MetalRun  # noqa: E402
from metal_sim import on_metal, simulated  # noqa: E402

import ggml_concurrent as ggc  # noqa: E402
from ggml_concurrent import zoo  # noqa: E402

GRAPHS = (
    "towers-1024",
    "gemma3-270m",
    "llama-0.4b",
    "llama-1b",
    "falcon-h1-0.5b",
    "rwkv7-0.1b",
    "whisper-base",
    "mmdit-small",
)
CONTENDERS = ("plain", "reorder", "by phase", "default")
N_CHECKED = 3  # computations, one after another, whose results are compared


@dataclass(frozen=True)
class Contender:
    """A graph of its own with weights of its own, ready to be computed."""

    feed: Callable[[], None]  # sets the inputs, where each computation needs that
    compute: Callable[[], None]
    results: Callable[[], dict[str, np.ndarray]]
    runner: ggc.Runner | None = None

    def seconds(self) -> float:
        """Of one computation."""
        self.feed()
        start = time.perf_counter()
        self.compute()
        return time.perf_counter() - start


@dataclass
class Found:
    """What was found about one graph."""

    name: str
    error: str = ""
    same_bits: dict[str, bool] = field(default_factory=dict)  # as plain
    difference: dict[str, float] = field(default_factory=dict)  # the largest, of results up to 1
    microseconds: dict[str, list[float]] = field(default_factory=dict)  # medians of rounds
    predicted: dict[str, Any] = field(default_factory=dict)

    def ratio(self, contender: str) -> float:
        """How many times as fast as the reorder."""
        return median(self.microseconds["reorder"]) / median(self.microseconds[contender])


@contextmanager
def opened(metal: MetalRun, name: str, way: str) -> Iterator[Contender]:
    with on_metal(name, flash_attn=True) as workload:
        if way in ("plain", "reorder"):
            with metal.opened(workload, way) as run:
                yield Contender(run.feed, run.compute, lambda: run.outputs() | workload.caches())
            return
        arguments = {"tune": "off", "always": True} if way == "by phase" else {}
        with workload.runner(device="metal", **arguments) as runner:

            def results() -> dict[str, np.ndarray]:
                outputs = {name: runner.get(name) for name in workload.graph.outputs}
                return outputs | workload.caches()

            yield Contender(lambda: None, runner.compute, results, runner)


def results_of(metal: MetalRun, name: str, way: str) -> dict[str, np.ndarray]:
    with opened(metal, name, way) as contender:
        for _ in range(N_CHECKED):
            contender.seconds()
        return contender.results()


def results_of_cpu(name: str) -> dict[str, np.ndarray]:
    with zoo.build(name, flash_attn=True) as workload, workload.runner(streams=1) as runner:
        for _ in range(N_CHECKED - 1):
            runner.compute()
        return workload.run(runner)


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Of two sets of results, in units of each result's largest value."""
    worst = 0.0
    for name, array in a.items():
        x, y = array.astype(np.float64), b[name].astype(np.float64)
        scale = float(np.abs(y).max()) or 1.0
        worst = max(worst, float(np.abs(x - y).max()) / scale)
    return worst


def check(metal: MetalRun, found: Found) -> None:
    plain = results_of(metal, found.name, "plain")
    for contender in CONTENDERS[1:]:
        other = results_of(metal, found.name, contender)
        found.same_bits[contender] = all(
            other[name].tobytes() == array.tobytes() for name, array in plain.items()
        )
        found.difference[contender] = largest_difference(other, plain)
    found.difference["cpu"] = largest_difference(results_of_cpu(found.name), plain)


def measure(metal: MetalRun, found: Found, rounds: int) -> None:
    """Contenders take turns; each round is the median of ten computations."""
    with ExitStack() as stack:
        contenders = {}
        for way in CONTENDERS:
            contender = stack.enter_context(opened(metal, found.name, way))
            if contender.runner is not None:
                found.predicted[way] = predicted(contender.runner)
            contender.seconds()
            contenders[way] = contender
        for _ in range(rounds):
            for way, contender in contenders.items():
                times = [contender.seconds() * 1e6 for _ in range(10)]
                found.microseconds.setdefault(way, []).append(median(times))


def predicted(runner: ggc.Runner) -> dict[str, Any]:
    runner.settle()
    assert runner.metal is not None
    return asdict(runner.metal) | {"way": str(next(w for w in runner.ways if w.in_use))}


def investigate(metal: MetalRun, name: str, rounds: int) -> Found:
    found = Found(name)
    try:
        check(metal, found)
        measure(metal, found, rounds)
    except (ggc.Error, MemoryError) as error:
        found.error = str(error)
    return found


#
# The report
#


def output_of(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()


def machine() -> dict[str, str]:
    return {
        "processor": output_of("sysctl", "-n", "machdep.cpu.brand_string"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "ggml-concurrent": ggc.__version__,
        "commit": output_of("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
    }


def line(found: Found) -> str:
    if found.error:
        return f"| {found.name} | {found.error} |" + " |" * 7
    medians = [f"{median(found.microseconds[c]):.0f}" for c in CONTENDERS]
    bits = "yes" if all(found.same_bits[c] for c in ("by phase", "default")) else "NO"
    ratios = [f"{found.ratio(c):.2f}" for c in ("by phase", "default")]
    worst = f"{found.difference['cpu']:.1e}"
    return f"| {found.name} | {bits} | {' | '.join([*medians, *ratios, worst])} |"


def report(founds: Sequence[Found], rounds: int, where: str) -> str:
    facts = "\n".join(f"- {name}: {value}" for name, value in machine().items())
    titles = ("graph", "same bits", *(f"{c}, µs" for c in CONTENDERS))
    titles += ("by phase / reorder", "default / reorder", "difference to the CPU")
    lines = [f"| {' | '.join(titles)} |", "| --- | --- |" + " ---: |" * (len(titles) - 2)]
    raw = json.dumps({"machine": machine(), "graphs": [asdict(f) for f in founds]}, indent=1)
    return (
        f"# ggml-concurrent on {where}\n\n{facts}\n\n"
        f"Medians of {rounds} rounds in turns; ratios above 1: faster than ggml-metal under "
        "ggml's scheduler. Same bits: as ggml-metal's plain order, results and caches, after "
        f"{N_CHECKED} computations.\n\n"
        + "\n".join([*lines, *map(line, founds)])
        + f"\n\n<details><summary>Raw</summary>\n\n```json\n{raw}\n```\n\n</details>\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", default=GRAPHS, help="graphs of the zoo")
    parser.add_argument("--output", type=Path, default=Path("metal-report.md"), help="the report")
    parser.add_argument("--rounds", type=int, default=20, help="of measurements, in turns")
    parser.add_argument(
        "--simulated", action="store_true", help="try this script where there is no Metal"
    )
    options = parser.parse_args(arguments)
    founds = []
    with simulated() if options.simulated else nullcontext():
        metal = MetalRun()
        for name in options.names:
            print(f"{name} ...", flush=True)
            founds.append(investigate(metal, name, options.rounds))
            print(line(founds[-1]), flush=True)
    where = "a simulated device: times mean nothing" if options.simulated else "Metal"
    options.output.write_text(report(founds, options.rounds, where), encoding="utf-8")
    print(f"The report is in {options.output}.")
    wrong = [f.name for f in founds if f.error or not all(f.same_bits.values())]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
