"""Choose the faults and their times from a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One chosen fault.

    Args:
        kind: A key of `soak.faults.FAULTS`.
        seconds: How long it lasts.
        dice: Its severity, in [0, 1); each kind of fault interprets it.
        quiet: Seconds without a fault after the daemon has recovered.
    """

    kind: str
    seconds: float
    dice: float
    quiet: float


def schedule(seed: int, kinds: Sequence[str], life: float) -> Iterator[Fault]:
    """Yield faults without end, or none if there are no kinds; each round has every kind once, in random order.

    A fault lasts from a tenth of a token's life to one and a half lives, so that some tokens outlive it and some do
    not; the quiet period after it lasts from a quarter of a life to one.
    """
    dice = random.Random(seed)
    while kinds:
        for kind in dice.sample(kinds, len(kinds)):
            yield Fault(kind, dice.uniform(0.1, 1.5) * life, dice.random(), dice.uniform(0.25, 1.0) * life)
