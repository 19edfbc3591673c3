"""The deadline of the current fetch, and the code during which this worker must not be interrupted."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Iterator

#: Seconds after the deadline at which the worker kills itself, in case the daemon no longer exists to do it.
_GRACE = 5.0


def start(seconds: float) -> None:
    """Start the deadline of a fetch, and end that of the one before. Shortly after it, this process kills its whole
    process group.

    Args:
        seconds: Seconds until the daemon kills this worker. The daemon started to count a little earlier, before Python
            was running, or before it sent the request.
    """
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)


def left() -> float:
    """Return the seconds until the deadline; infinite if there is none."""
    remaining, _ = signal.getitimer(signal.ITIMER_REAL)
    return remaining - _GRACE if remaining else math.inf


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Delay SIGTERM while a secret that works only once is being spent, until its successor is on disk.

    A daemon that stops sends SIGTERM to such a worker (`Cloud.spends`) and waits for it. The worker exits at once, or
    if it is inside this block, at the end of the block. Threads that start inside the block inherit the signal mask.
    The worker's own alarm is not delayed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
