"""Turns and statistics: the compared sides take turns, so that a busy machine slows all of them down alike.

Within a turn, a side may run several times; its figure is the median of these runs. They are spread over the turn, so
that all sides meet the same load. The order is random, because what ran before a side has left its own code and data in
the caches of the CPU. A ratio is formed within each turn; the table
shows the median of these ratios and their quartiles.
"""

from __future__ import annotations

import random
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
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    runs: Mapping[str, int] | None = None,
    afterwards: Mapping[str, Callable[[], object]] | None = None,
    warm: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Let all sides take turns, in a random order, and return the seconds of each in each turn.

    Args:
        sides: Name -> what to measure.
        rounds: The number of turns.
        runs: Name -> how often a side runs within a turn, unless it is once.
        afterwards: Name -> what is called after each run of a side, while the clock stands still.
        warm: Whether everything has been loaded from disk already; if not, each side is called before the first turn.
        clock: Returns seconds.
    """

    def timed(name: str) -> float:
        began = clock()
        sides[name]()
        seconds = clock() - began
        if afterwards is not None and name in afterwards:
            afterwards[name]()
        return seconds

    for name in () if warm else sides:
        timed(name)
    counts = {name: (runs or {}).get(name, 1) for name in sides}
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        turn: dict[str, list[float]] = {name: [] for name in sides}
        for name in _order(counts):
            turn[name].append(timed(name))
        for name, seconds in turn.items():
            figures[name].append(statistics.median(seconds))
    return figures


def _order(counts: Mapping[str, int]) -> list[str]:
    """Return the order of a turn: as many parts as the greatest count, and no part has a side twice."""
    parts: list[list[str]] = [[] for _ in range(max(counts.values()))]
    for name, count in counts.items():
        for part in random.sample(parts, count):
            part.append(name)
    for part in parts:
        random.shuffle(part)
    return [name for part in parts for name in part]
