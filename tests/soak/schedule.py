"""Which fault comes when: drawn from a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as it was drawn.

    Args:
        kind: A key of `soak.faults.FAULTS`.
        seconds: How long it lasts.
        dice: How bad it is, in [0, 1); what that means is the fault's to say.
        quiet: Seconds of peace, once the daemon is over it.
    """

    kind: str
    seconds: float
    dice: float
    quiet: float


def schedule(seed: int, kinds: Sequence[str], life: float) -> Iterator[Fault]:
    """Draw faults without end, none if there are no kinds: every kind once in each round, in another order each time.

    A fault lasts from a tenth of a token's life to one and a half of it, so that some tokens outlive it and some do
    not; the quiet after it is a quarter of a life to one.
    """
    dice = random.Random(seed)
    while kinds:
        for kind in dice.sample(kinds, len(kinds)):
            yield Fault(kind, dice.uniform(0.1, 1.5) * life, dice.random(), dice.uniform(0.25, 1.0) * life)
