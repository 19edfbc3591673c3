"""How long this worker may still take, and when it must not be interrupted."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Iterator

#: Seconds after the deadline when the worker ends itself, in case the daemon no longer exists to kill it.
_GRACE = 5.0


def start(seconds: float) -> None:
    """Start the deadline; a little after it, this process kills its whole process group.

    Args:
        seconds: Until the daemon kills this worker. The daemon's count began a little earlier, before Python was up.
    """
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)


def left() -> float:
    """Return the seconds until the deadline; infinite if none was set."""
    remaining, _ = signal.getitimer(signal.ITIMER_REAL)
    return remaining - _GRACE if remaining else math.inf


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Delay SIGTERM while a secret that works only once is being spent, until its successor is on disk.

    A daemon that stops sends SIGTERM to such a worker (`Cloud.spends`) and waits for it: outside of this
    block the worker ends at once, inside it when the block does. Threads that start within the block inherit the mask.
    The worker's own alarm is not delayed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
