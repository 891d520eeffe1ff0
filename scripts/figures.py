#!/usr/bin/env python3
"""Measure the figures that the README and the changelog quote.

    python scripts/figures.py [--llama-python PYTHON] [--json FILE]

Three things, each in turns with what it is compared with, so that a slow spell of the machine meets
all of them alike; medians with the smallest and the largest value beside them:

1. planning time of Gemma 3 270M's decoding graph;
2. milliseconds per token of that model: plain ggml serially, our plan, and llama-cpp-python, if
   --llama-python names an interpreter that has it; each in a process of its own, which sleeps
   while the others are measured;
3. milliseconds for a wide graph of small operations, 8 towers of 8 layers of 256 x 256 f32:
   plain ggml with 1 and with 2 threads, our plan with 2 streams on 2 threads.

Prints a Markdown table on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

import ggml_concurrent as ggc
from ggml_concurrent.bench.machine import processor
from ggml_concurrent.generate import Engine
from ggml_concurrent.models.package import package_model
from ggml_concurrent.stepper import Stepper, model_stepper, steady_ms

PROMPT = "Once upon a time, in a village between two rivers,"
TOWERS, LAYERS, WIDTH = 8, 8, 256
BURST = 100


@dataclass
class Figure:
    """One measured quantity."""

    what: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        return median(self.values)

    def row(self) -> str:
        low, high, n = min(self.values), max(self.values), len(self.values)
        return f"| {self.what} | {self.median:.3f} {self.unit} | {low:.3f} - {high:.3f} | {n} |"


def main() -> int:
    options = arguments()
    if options.towers:
        time_towers(*options.towers)
        return 0
    figures = planning_and_tokens(options)
    figures += towers(options)
    machine = f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    print(f"Machine: {machine}\n")
    print("| what | median | range | runs |\n| --- | --- | --- | --- |")
    for figure in figures:
        print(figure.row())
    if options.json:
        document = {
            "machine": machine,
            "figures": [{**asdict(figure), "median": figure.median} for figure in figures],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="GGUF file (default: the Gemma package's)")
    parser.add_argument("--llama-python", metavar="PYTHON", help="interpreter with llama_cpp")
    parser.add_argument("--runs", type=int, default=30, help="of each measurement (default 30)")
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there, too")
    parser.add_argument("--towers", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_turns(runs: int, calls: dict[str, Callable[[], float]]) -> list[Figure]:
    """Each call `runs` times, one after another in every round; a call gives milliseconds."""
    values: dict[str, list[float]] = {what: [] for what in calls}
    for _ in range(runs):
        for what, call in calls.items():
            values[what].append(call())
    return [Figure(what, "ms", list_) for what, list_ in values.items()]


#
# Gemma
#


def planning_and_tokens(options: argparse.Namespace) -> list[Figure]:
    """Planning time, and ms per token of the same model computed in up to three ways."""
    path = options.model or package_model()
    streams, threads = options.streams, options.threads
    with Engine(path, streams=streams, threads=threads) as engine:
        ids = engine.tokenizer.encode(PROMPT)
        engine.load(len(ids) + 1)
        graph = engine.decode_pass.graph
        plans = [planning_ms(graph, streams) for _ in range(options.runs)]
        planning = Figure(f"planning, {len(graph)} nodes of {path.name}", "ms", plans)
    with ExitStack() as stack:

        def ours(n_streams: int, *, always: bool = False) -> Callable[[], float]:
            stepper = model_stepper(
                path, streams=n_streams, threads=threads, position=len(ids), always=always
            )
            return stack.enter_context(stepper).step

        calls = {
            f"token, ggml serial on {threads} threads": ours(1),
            f"token, up to {streams} streams on {threads} threads": ours(streams),
            f"token, always {streams} streams": ours(streams, always=True),
        }
        if options.llama_python:
            arguments = [str(path), json.dumps(ids), str(threads)]
            llama = stack.enter_context(Stepper([options.llama_python, "-c", LLAMA, *arguments]))
            calls[f"token, llama-cpp-python {llama.greeting} on {threads} threads"] = llama.step
        in_turns(3, calls)  # warm
        return [planning, *in_turns(options.runs, calls)]


def planning_ms(graph: ggc.Graph, streams: int) -> float:
    """Milliseconds that the C library took to plan the graph, copies for Python not counted."""
    stats = ggc.find_concurrency(graph, streams=streams, fuse="cpu").stats
    return (stats.adapter_seconds + stats.core_seconds) * 1e3


LLAMA = """
import json, sys, time
import llama_cpp
path, ids, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
llm = llama_cpp.Llama(path, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
llm.eval(ids)
position = llm.n_tokens
print(llama_cpp.__version__, flush=True)
for _ in sys.stdin:
    for count in range(4):  # the first one wakes the threads up and does not count
        if count == 1:
            start = time.perf_counter()
        llm.n_tokens = position  # the same step every time
        llm.eval([ids[-1]])
    print((time.perf_counter() - start) * 1e3 / 3, flush=True)
"""


#
# Towers
#


def towers(options: argparse.Namespace) -> list[Figure]:
    """Many chains of small operations that do not meet, computed in three ways."""
    ways = {
        "towers, ggml serial on 1 thread": (1, 1),
        "towers, ggml serial on 2 threads": (1, 2),
        "towers, 2 streams on 2 threads": (2, 2),
    }
    with ExitStack() as stack:
        calls = {}
        for what, (streams, threads) in ways.items():
            command = [sys.executable, __file__, "--towers", str(streams), str(threads)]
            calls[what] = stack.enter_context(Stepper(command)).step
        in_turns(5, calls)  # warm
        return in_turns(options.runs, calls)


def time_towers(streams: int, threads: int) -> None:
    """The process behind `towers`: a line in, the milliseconds of one computation out.

    Each answer is the mean over BURST computations, one after another.
    """
    rng = np.random.default_rng(0)
    with ggc.Store() as store, ggc.Graph() as g:
        for tower in range(TOWERS):
            x = g.input(f"x{tower}", "f32", ne=(WIDTH,))
            for layer in range(LAYERS):
                values = rng.normal(0, 1 / 16, (WIDTH, WIDTH)).astype(np.float32)
                x = g.relu(g.mul_mat(store.array(f"w{tower}.{layer}", values), x))
            g.output(x, name=f"y{tower}")
        with ggc.Runner(g, streams=streams, threads=threads, always=True) as runner:
            for tower in range(TOWERS):
                runner.set(f"x{tower}", rng.normal(0, 1, WIDTH).astype(np.float32))
            print("ready", flush=True)
            for _ in sys.stdin:
                print(steady_ms(runner.compute, BURST), flush=True)


if __name__ == "__main__":
    sys.exit(main())
