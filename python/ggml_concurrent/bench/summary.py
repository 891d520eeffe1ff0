"""Statistics of times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Summary:
    """Statistics of some times in milliseconds.

    Attributes:
        runs: how many times there are.
        low: the smallest.
        high: the largest.
        quartiles: the first and the third.
    """

    runs: int
    median: float
    low: float
    high: float
    quartiles: tuple[float, float]

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a share of the median."""
        return (self.quartiles[1] - self.quartiles[0]) / self.median


def summary(times: Iterable[float]) -> Summary:
    """The statistics of at least one time."""
    values = sorted(times)
    if len(values) == 1:
        return Summary(1, values[0], values[0], values[0], (values[0], values[0]))
    first, _, third = quantiles(values, n=4, method="inclusive")
    return Summary(len(values), median(values), values[0], values[-1], (first, third))
