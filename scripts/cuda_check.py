#!/usr/bin/env python3
"""Compare the bits of the zoo's graphs on a CUDA device, by our plans and without us.

    python scripts/cuda_check.py [--device cuda0] [--brief] [--flash] [--json FILE] [GRAPH...]

`scripts/cuda` sets everything up and calls this.  Each graph, at full size, is computed a few times
in a row by plain ggml on that device, then many times on other inputs, by a process of its own in
which no kernel begins before the one before it is over (GGML_CUDA_PDL=0); then by each of our ways,
from the same caches: issued, captured and replayed, with and without urgency, with tensors that
share as much memory as they can, and while a runner measures and tunes.  Every output must have the
same bits, and so must every cache, where inputs are the same.  With --brief nothing is tuned, and
caches are compared once: some seconds a graph.
Prints one line a graph, which also tells where ggml's scheduler gives other bits (because kernels
begin too early, or are fused otherwise where it puts the tensors); exit status 1 where any bit of
ours differs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import ggml_concurrent as ggc
from ggml_concurrent import zoo
from ggml_concurrent.bench.candidates import PDL
from ggml_concurrent.bench.traffic import raw_bytes
from ggml_concurrent.runner import CACHE_VARIABLE

#: Computations, one after another, whose results are compared: on the same inputs, and on others
#: each time, since what is read too early is then not what it was the time before.
CHECKED, VARIED = 4, 40
#: Of different inputs in turn while a runner tunes, each from the same caches.
TUNED = 5

#: Name -> arguments of the Runner.
WAYS: dict[str, dict[str, Any]] = {
    "2 streams": {"streams": 2, "always": True},
    "8 streams": {"streams": 8, "always": True},
    "8 streams, urgent first": {"streams": 8, "always": True, "urgency": True},
    "by phase": {"streams": 8, "always": True, "strategy": "levels"},
    "least memory": {"streams": 8, "always": True, "budget": 0},
}

#: What ggml's scheduler makes of the graph; that it differs is told, and no failure of ours.
SCHEDULED = "ggml's scheduler"

#: Graphs that fill an H100 twice over, or take minutes to make.
LARGE = ("command-r-35b", "qwen3next-80b-a3b")


Results = list[dict[str, np.ndarray]]


class Trial:
    """One graph, and comparisons of its results with those expected: what `reference` gave, in
    another process; none of that is needed for asking it.
    """

    def __init__(
        self, workload: zoo.Workload, brief: bool, expected: Results, fresh: Results
    ) -> None:
        self.workload = workload
        self._n_same = 1 if brief else CHECKED
        store = workload.store
        self._caches = {name: raw_bytes(store[name]) for name in workload.caches()}
        self._expected, self._fresh = expected, fresh

    def reference(self) -> tuple[Results, Results]:
        """Results in a row, and of other inputs, each from the same caches."""
        with self._runner(streams=1) as runner:
            expected = self._results(runner, self._n_same, VARIED)
            return expected, [self._afresh(runner, step) for step in range(TUNED)]

    def _restore(self) -> None:
        for name, data in self._caches.items():
            self.workload.store[name].set_raw(data)

    def _runner(self, **arguments: Any) -> ggc.Runner:
        self._restore()
        return self.workload.runner(**arguments)

    def _results(self, runner: ggc.Runner, n: int, varied: int) -> Results:
        same = [self.workload.run(runner) for _ in range(n)]
        return same + [self.workload.outputs(runner, step) for step in range(varied)]

    def _differ(self, found: Results) -> list[str]:
        """Names of the outputs and caches that are not as expected."""
        return sorted(
            {
                name
                for expected, run in zip(self._expected, found, strict=False)
                for name, array in expected.items()
                if array.tobytes() != run[name].tobytes()
            }
        )

    def compare(self, **arguments: Any) -> dict[str, Any]:
        """Facts of a runner, with the names whose bits `differ`."""
        with self._runner(**arguments) as runner:
            differ = self._differ(self._results(runner, self._n_same, VARIED))
            cuda, stats = runner.cuda, runner.plan.stats
            return {
                "differ": differ,
                "streams": stats.n_streams,
                "waits": stats.n_waits,
                "buffer_bytes": runner.buffer_size,
                "stream_bytes": runner.stream_bytes,
                "captured": cuda is not None and cuda.captured,
                "nodes": cuda.nodes if cuda else 0,
                "edges": cuda.edges if cuda else 0,
                "capture_us": cuda.capture_us if cuda else 0.0,
                "instantiate_us": cuda.instantiate_us if cuda else 0.0,
            }

    def _afresh(self, runner: ggc.Runner, step: int) -> dict[str, np.ndarray]:
        self._restore()
        return self.workload.outputs(runner, step)

    def tune(self) -> dict[str, Any]:
        """The same while a runner measures and tunes: each computation against plain ggml's."""
        differ: set[str] = set()
        with self._runner(tune="full") as runner:
            for number in itertools.count():
                if runner.settled:
                    break
                step = number % TUNED
                found = self._afresh(runner, step)
                differ |= {
                    n for n, a in self._fresh[step].items() if a.tobytes() != found[n].tobytes()
                }
            (way,) = (way for way in runner.ways if way.in_use)
            ways = [(str(way), way.microseconds) for way in runner.ways]
        return {"differ": sorted(differ), "chosen": str(way), "ways": ways}


def save(file: Path, expected: Results, fresh: Results) -> None:
    """For `load`."""
    lists = {"expected": expected, "fresh": fresh}
    arrays = {
        f"{kind} {i} {name}": array
        for kind, results in lists.items()
        for i, result in enumerate(results)
        for name, array in result.items()
    }
    np.savez(file, **arrays)


def load(file: Path) -> tuple[Results, Results]:
    """What `save` has kept."""
    lists: dict[str, Results] = {"expected": [], "fresh": []}
    with np.load(file) as arrays:
        for key in arrays:
            kind, i, name = key.split(" ", 2)
            while len(lists[kind]) <= int(i):
                lists[kind].append({})
            lists[kind][int(i)][name] = arrays[key]
    return lists["expected"], lists["fresh"]


@contextmanager
def reference(
    name: str, device: str, brief: bool, flash: bool
) -> Iterator[Callable[[], tuple[Results, Results]]]:
    """What gives the results of a process of its own, in which no kernel begins early, once it is
    done. It builds the graph while this process does.  Raises Error if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reference.npz"
        command = [sys.executable, __file__, name, "--device", device, "--reference", str(file)]
        command += ["--brief"] * brief + ["--flash"] * flash
        environment = {**os.environ, PDL: "0"}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:

            def results() -> tuple[Results, Results]:
                told, _ = process.communicate()
                if process.returncode != 0:
                    raise ggc.Error(f"plain ggml: {told.strip()}")
                return load(file)

            try:
                yield results
            finally:
                process.kill()


def check(name: str, device: str, brief: bool, flash: bool) -> dict[str, Any]:
    """What was found about one graph."""
    begin = time.perf_counter()
    with (
        reference(name, device, brief, flash) as results,
        zoo.build(name, device=device, flash_attn=flash) as workload,
    ):
        trial = Trial(workload, brief, *results())
        found: dict[str, Any] = {SCHEDULED: trial.compare(streams=1, scheduled=True)}
        found |= {way: trial.compare(**args) for way, args in WAYS.items()}
        if not brief:
            found["tuned"] = trial.tune()
    found["seconds"] = time.perf_counter() - begin
    return found


def wrong(found: dict[str, Any]) -> dict[str, list[str]]:
    """Way of ours -> what differs there."""
    ways = {way: f for way, f in found.items() if way not in ("seconds", SCHEDULED)}
    return {way: f["differ"] for way, f in ways.items() if f["differ"]}


def line(name: str, found: dict[str, Any]) -> str:
    """What a reader wants to know."""
    wide = found["8 streams"]
    bits = "same bits" if not wrong(found) else f"DIFFERENT: {wrong(found)}"
    if found[SCHEDULED]["differ"]:
        bits += f" (ggml's scheduler has not: {', '.join(found[SCHEDULED]['differ'])})"
    captured = "captured" if wide["captured"] else "issued"
    chosen = f"{found['tuned']['chosen']}; " if "tuned" in found else ""
    return (
        f"{name:32} {bits}; {wide['streams']} streams, {wide['waits']} waits, {captured}: "
        f"{wide['nodes']} nodes in {wide['capture_us'] / 1e3:.1f} + "
        f"{wide['instantiate_us'] / 1e3:.1f} ms; {wide['buffer_bytes'] / 2**20:.1f} MiB, least "
        f"{found['least memory']['buffer_bytes'] / 2**20:.1f}, streams "
        f"{wide['stream_bytes'] / 2**20:.0f}; {chosen}{found['seconds']:.0f} s"
    )


def named(names: list[str]) -> Iterator[str]:
    """Those, or all that are not made for tests."""
    for name in names or sorted(zoo.GRAPHS):
        if names or not (name.endswith("-tiny") or name in LARGE):
            yield name


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graphs", nargs="*", metavar="GRAPH", help="of the zoo; by default all")
    parser.add_argument("--device", default="cuda0")
    parser.add_argument("--flash", action="store_true", help="attention as one operation")
    parser.add_argument("--brief", action="store_true", help="nothing is tuned")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything found there")
    options = parser.parse_args()
    warnings.simplefilter("always")
    os.environ[CACHE_VARIABLE] = ""  # nothing is remembered: every graph is measured and tuned
    if options.reference:
        (name,) = options.graphs
        with zoo.build(name, device=options.device, flash_attn=options.flash) as workload:
            save(options.reference, *Trial(workload, options.brief, [], []).reference())
        return 0
    results: dict[str, Any] = {}
    for name in named(options.graphs):
        try:
            results[name] = check(name, options.device, options.brief, options.flash)
        except (ggc.Error, MemoryError) as error:
            results[name] = {"error": str(error)}
            print(f"{name:32} FAILED: {error}", flush=True)
        else:
            print(line(name, results[name]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
        gc.collect()
    bad = [name for name, found in results.items() if "error" in found or wrong(found)]
    if bad:
        print(f"{len(bad)} of {len(results)} graphs are not right: {', '.join(bad)}")
    return 1 if bad or not results else 0


if __name__ == "__main__":
    sys.exit(main())
