"""How long this worker may still take: the daemon kills it, with all that it started, when its time is over."""

from __future__ import annotations

import math
import os
import signal

#: Seconds past the deadline after which the worker ends itself, should the daemon have died meanwhile.
_GRACE = 5.0


def start(seconds: float) -> None:
    """Begin to count, and end with the whole process group a little after the deadline.

    Args:
        seconds: Until the daemon kills us; it began to count a little earlier, before Python was up.
    """
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)


def left() -> float:
    """Return the seconds until the deadline; infinite where none was set."""
    remaining, _ = signal.getitimer(signal.ITIMER_REAL)
    return remaining - _GRACE if remaining else math.inf
