#!/usr/bin/env python3
"""Time graphs of the zoo under several budgets, beside plain ggml.

    python scripts/memory_times.py [--rounds N] [--tokens N ...] [--json FILE]
        [--device cuda0] [GRAPH ...]

Each way of computing has a process of its own, and all take turns, in another order each round: a
turn is a burst of computes, after a warm-up that does not count.  Times are medians over the
rounds, with the quartiles beside them; a turn during which other programs took much of the
processors is taken again, and where that does not help, counted as disturbed.  Outputs and caches
are compared bit for bit with those of plain ggml, before and after; a difference is an error.
Streams are used whether they pay or not, except in the last two rows of each graph, where the
runner finds out by itself.  On a CUDA device plain ggml is as its users run it, through its
scheduler and with its CUDA graphs, without and with GGML_CUDA_GRAPH_OPT=1, and runners always find
out by themselves.

Budgets are: as much as it takes, the default, 1.10 of what ggml's allocator takes, 0 (the least),
and for one token 0.25, 1, 4 and 16 MiB.  Those above what no sharing takes are left out.

Prints a Markdown table on standard output, what it was measured on above it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import ggml_concurrent as ggc
from ggml_concurrent import zoo
from ggml_concurrent.bench import machine
from ggml_concurrent.bench.worker import Worker
from ggml_concurrent.memory import Memory
from ggml_concurrent.runner import CACHE_VARIABLE

MIB = 2**20
UNLIMITED = 2**50
DECODE_MIB = (0.25, 1, 4, 16)
GRAPHS = (
    "towers-256",
    "llama-lora-small",
    "llama-lora2-small",
    "rwkv7-small",
    "mmdit-small",
    "codebooks-small",
)
#: On a CUDA device: the streams of a runner's own default, and how plain ggml is run.
CUDA_STREAMS = 8
CUDA_PLAIN = {
    "plain ggml": {"GGML_CUDA_GRAPH_OPT": "0"},
    "plain ggml, graph-opt": {"GGML_CUDA_GRAPH_OPT": "1"},
}
#: Computes in a row whose bits are compared.
CHECKED = 3
#: Turns during which other processes take more of all processors than this are taken again, so
#: often at most.
OTHERS, AGAIN = 0.15, 20


@dataclass
class Way:
    """One way of computing, and how long it took."""

    what: str
    arguments: dict[str, Any]
    memory: Memory | None = None  # None: plain ggml
    environment: dict[str, str] = field(default_factory=dict)
    ms: list[float] = field(default_factory=list)
    disturbed: int = 0  # turns that count all the same

    @property
    def quartiles(self) -> tuple[float, float]:
        low, _, high = quantiles(self.ms, n=4)
        return low, high


def ways(name: str, tokens: int, threads: int, device: str) -> list[Way]:
    """Plain ggml, the reference, comes first."""
    on_cpu = device == "cpu"
    if on_cpu:
        always = {"streams": threads, "threads": threads, "always": True}
        fuse, streams = "cpu", threads
        found = [
            Way("plain ggml", {"streams": 1, "threads": threads}),
            Way("plain ggml, 1 thread", {"streams": 1, "threads": 1}),
        ]
    else:
        always, fuse, streams = {}, "cuda", CUDA_STREAMS
        plain = {"streams": 1, "scheduled": True}
        found = [Way(what, plain, environment=e) for what, e in CUDA_PLAIN.items()]
    with zoo.build(name, weights=False, n_tokens=tokens) as workload:

        def sketch(budget: int | None) -> Memory:
            return ggc.sketch_memory(workload.graph, streams, fuse=fuse, budget=budget).memory

        def add(what: str, budget: int | None) -> None:
            memory = sketch(budget)
            if budget in (None, UNLIMITED) or memory.sharing != "none":
                arguments = always if budget is None else always | {"budget": budget}
                found.append(Way(what, arguments, memory))

        add("unlimited", UNLIMITED)
        add("default", None)
        add("1.10 of ggml-alloc", int(1.1 * sketch(None).serial_peak))
        for mib in DECODE_MIB if tokens == 1 else ():
            add(f"{mib} MiB", int(mib * MIB))
        add("0", 0)
    for way in ("default", "0") if on_cpu else ():
        (forced,) = (w for w in found if w.what == way)
        arguments = {k: v for k, v in forced.arguments.items() if k != "always"}
        found.append(Way(f"{way}, if it pays", arguments, forced.memory))
    return found


def race(name: str, tokens: int, rounds: int, threads: int, device: str) -> list[Way]:
    """Times all ways; raises Error where the bits of one differ."""
    racing = ways(name, tokens, threads, device)
    with ExitStack() as stack:
        workers = []
        for way in racing:
            build = {"n_tokens": tokens, "device": device}
            job = {"graph": name, "build": build, "runner": way.arguments}
            environment = {CACHE_VARIABLE: "", **way.environment}
            worker = Worker(job, environment, f"{name}, {way.what}", wait=False)
            workers.append(stack.enter_context(worker))
        for worker in workers:
            worker.ready()
        check(racing, workers)
        for worker in workers:
            worker.ask("settle")
        order = random.Random(tokens)  # noqa: S311  the same in every run
        for _ in range(rounds):
            turns = list(range(len(racing)))
            order.shuffle(turns)
            for i in turns:
                take_turn(racing[i], workers[i], [worker.pid for worker in workers])
        check(racing, workers)
    return racing


def take_turn(way: Way, worker: Worker, pids: list[int]) -> None:
    """Times one burst, on a quiet machine if it is ever quiet."""
    for _ in range(AGAIN):
        load = machine.Load([os.getpid(), *pids])
        ms = worker.ask("time")["ms"]
        if (load.others() or 0.0) <= OTHERS:
            break
        time.sleep(0.1)
    else:
        way.disturbed += 1
    way.ms.append(ms)


def check(racing: list[Way], workers: list[Worker]) -> None:
    """Compares bits.  One thread is not asked for the same: a few operations sum by threads."""
    hashes = [worker.ask("check", computes=CHECKED)["hashes"] for worker in workers]
    for way, found in zip(racing, hashes, strict=True):
        if way.memory is not None and found != hashes[0]:
            raise ggc.Error(f"{way.what}: other bits than plain ggml's")


def lines(name: str, tokens: int, racing: list[Way]) -> list[str]:
    """Of the table: each way's time, and how much faster it is than the faster plain ggml."""
    plain = min(median(way.ms) for way in racing if way.memory is None)
    unlimited = next(median(way.ms) for way in racing if way.what == "unlimited")
    done = []
    for way in racing:
        low, high = way.quartiles
        cells = [
            name,
            tokens,
            way.what,
            f"{way.memory.size / MIB:.3f}" if way.memory else "-",
            way.memory.sharing if way.memory else "-",
            f"{median(way.ms):.3f} ({low:.3f} to {high:.3f})",
            f"{plain / median(way.ms):.2f}",
            f"{unlimited / median(way.ms):.2f}" if way.memory else "-",
            f"{way.disturbed} of {len(way.ms)}",
        ]
        done.append("| " + " | ".join(map(str, cells)) + " |")
    return done


HEAD = """\
| graph | tokens | budget | MiB | sharing | ms (quartiles) | over plain ggml | of unlimited \
| disturbed |
| --- | ---: | --- | ---: | --- | ---: | ---: | ---: | ---: |"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graphs", nargs="*", metavar="GRAPH", help="of the zoo; small ones")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--rounds", type=int, default=31, help="at least 2 (default: 31)")
    parser.add_argument("--threads", type=int, default=2, help="and streams (default: 2)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda0 (default: cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times there, too")
    options = parser.parse_args()
    facts = machine.describe()
    print(", ".join(f"{k} {v}" for k, v in facts.items()), end="\n\n")
    print(HEAD)
    done = []
    for name in options.graphs or GRAPHS:
        for tokens in options.tokens:
            racing = race(name, tokens, max(2, options.rounds), options.threads, options.device)
            print("\n".join(lines(name, tokens, racing)), flush=True)
            done.append({"graph": name, "tokens": tokens, "ways": [asdict(w) for w in racing]})
            if options.json:
                text = json.dumps({"facts": facts, "graphs": done}, indent=1)
                options.json.write_text(text + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
