"""Turns and statistics: the compared sides take turns, so that a busy machine slows all of them down alike.

A ratio is formed within each turn; the table shows the median of these ratios and their quartiles.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

#: Side -> its figure in each turn, in the order of the turns.
Figures = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and its quartiles.

    Args:
        low: The first quartile.
        median: The median.
        high: The third quartile.
    """

    low: float
    median: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles of one or more values."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def ratio(values: Sequence[float], others: Sequence[float]) -> Spread:
    """Return how much larger one side is than another, turn by turn."""
    return spread([value / other for value, other in zip(values, others, strict=True)])


def turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Let all sides take turns, in another order each time, and return the seconds of each.

    Args:
        sides: Name -> what to measure. Each is called once before the first turn, to load everything from disk.
        rounds: The number of turns.
        clock: Returns seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    names = list(sides)
    for _ in range(rounds):
        for name in names:
            began = clock()
            sides[name]()
            seconds[name].append(clock() - began)
        names.append(names.pop(0))
    return seconds
