#!/usr/bin/env python3
"""Measures planning time against the number of units, and fits the exponent.

    python scripts/bench_planner.py [--streams N] [--strategy NAME] [--runs N] [--json]

Three kinds of random graphs, each unit reading one or two of the 24 before it, and a weight:
  apart   every result in a buffer of its own, as before allocation
  in row  all results in one buffer, none sharing memory
  reuse   all results in 64 places of one buffer, as after ggml's allocator
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from ggml_concurrent._native import ffi, lib, raise_status
from ggml_concurrent.plan import strategy_of

KINDS = ("apart", "in row", "reuse")
SIZES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
RESULT, WEIGHT = 4096, 500_000  # bytes
WIDE, NARROW = ("offset", "run", "stride"), ("count", "buffer", "mode", "padding")
ACCESS = np.dtype([*((name, "u8") for name in WIDE), *((name, "u4") for name in NARROW)])


def make_units(kind: str, n: int, seed: int = 1) -> tuple[Any, list[Any]]:
    """A ggc_units of n units, and what it points to."""
    assert ACCESS.itemsize == ffi.sizeof("struct ggc_access")
    rng = np.random.default_rng(seed)
    n_reads = rng.integers(1, 3, n)
    n_reads[0] = 0
    begin = np.zeros(n + 1, np.uint32)
    begin[1:] = np.cumsum(n_reads + 2)
    accesses = np.zeros(int(begin[-1]), ACCESS)
    accesses["count"] = 1

    def results(rows: np.ndarray, units: np.ndarray, mode: int) -> None:
        places = units % 64 if kind == "reuse" else units
        accesses["offset"][rows] = 0 if kind == "apart" else places * RESULT
        accesses["buffer"][rows] = units if kind == "apart" else 0
        accesses["run"][rows] = RESULT
        accesses["mode"][rows] = mode

    units = np.arange(n)
    for k in range(2):
        has = n_reads > k
        earlier = units - 1 - (rng.random(n) * np.minimum(units, 24)).astype(np.int64)
        results(begin[:-1][has] + k, earlier[has], lib.GGC_READ)
    weights = begin[:-1] + n_reads
    accesses["offset"][weights] = units * WEIGHT
    accesses["run"][weights] = WEIGHT
    accesses["buffer"][weights] = n
    accesses["mode"][weights] = lib.GGC_READ
    results(weights + 1, units, lib.GGC_WRITE)
    arrays = {
        "access_begin": ffi.from_buffer("uint32_t[]", begin),
        "accesses": ffi.from_buffer("struct ggc_access[]", accesses),
    }
    return ffi.new("struct ggc_units *", {"n_units": n, **arrays}), [begin, accesses, arrays]


def measure(units: Any, params: Any, runs: int) -> tuple[float, float, float, int]:
    """Median, least and most milliseconds of a plan, and its number of waits."""
    times = []
    out = ffi.new("struct ggc_plan **")
    waits = 0
    for _ in range(runs):
        start = time.perf_counter()
        status = lib.ggc_plan_new(units, params, out)
        times.append((time.perf_counter() - start) * 1e3)
        raise_status(status, "", "plan")
        waits = int(lib.ggc_plan_get_stats(out[0]).n_waits)
        lib.ggc_plan_free(out[0])
    return statistics.median(times), min(times), max(times), waits


def exponent(sizes: list[int], times: list[float]) -> float:
    """Of the power of n that fits best."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--strategy", default="list")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    params = ffi.new("struct ggc_plan_params *")
    lib.ggc_plan_params_init(params)
    params.n_streams = options.streams
    params.strategy = strategy_of(options.strategy)
    rows = []
    for kind in KINDS:
        for n in SIZES:
            if sys.stderr.isatty():
                print(f"\r{kind}, {n} units   ", end="", file=sys.stderr)
            units, keep = make_units(kind, n)
            median, least, most, waits = measure(units, params, options.runs)
            del keep
            rows.append((kind, n, median, least, most, median * 1e6 / n, waits))
    if options.json:
        keys = ("kind", "units", "ms", "min", "max", "ns_each", "waits")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    print("| memory | units | median ms | min | max | ns a unit | waits |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, n, median, least, most, each, waits in rows:
        print(f"| {kind} | {n} | {median:.3f} | {least:.3f} | {most:.3f} | {each:.0f} | {waits} |")
    for kind in KINDS:
        mine = [r for r in rows if r[0] == kind]
        power = exponent([r[1] for r in mine], [r[2] for r in mine])
        print(f"\n{kind}: time grows like n^{power:.2f}")


if __name__ == "__main__":
    main()
