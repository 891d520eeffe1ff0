"""Bursts: as many computes in a row as it takes to be timed well.

A core that has slept while other candidates had their turn needs some 20 ms to be as fast as in a
program that computes all the time (measured here: 4.1 ms for a graph that then takes 2.4 ms).  So
a burst comes after as long a time of computes that do not count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

#: A burst of computes lasts at least this long, and what comes before it too.
BURST_MS, WARM_MS = 10.0, 25.0
_MOST = 10_000


def burst_for(compute: Callable[[], object]) -> int:
    """How many computes make a burst."""
    warm_up(compute)
    burst, ms = 1, mean_ms(compute, 1)
    while ms * burst < BURST_MS and burst < _MOST:
        burst = min(max(2 * burst, math.ceil(BURST_MS / max(ms, 1e-4))), _MOST)
        ms = mean_ms(compute, burst)
    return burst


def warm_up(compute: Callable[[], object]) -> None:
    """Computes for a while, at least once."""
    end = time.perf_counter() + WARM_MS / 1e3
    compute()
    while time.perf_counter() < end:
        compute()


def mean_ms(compute: Callable[[], object], burst: int) -> float:
    """Milliseconds of one compute in a burst."""
    start = time.perf_counter()
    for _ in range(burst):
        compute()
    return (time.perf_counter() - start) * 1e3 / burst
