"""Whether a worker may run another fetch: only if that fetch starts as in a new process.

A fetch can leave something behind. What can be restored, is: the environment (one CA bundle is made of several files)
and memory (the SDKs leave reference cycles, with their connections). Anything else ends the worker: a thread that still
waits for a server, a helper program, whose own children may still run, and much memory. The SDKs themselves keep
nothing that matters: every fetch makes its own sessions, clients and credentials, which read the sign-in files again.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
from typing import Any

from uvtokend.core.model import Failure

#: Bytes of memory that a worker may fill; with an SDK loaded it takes 45 MiB.
MOST = 128 << 20
#: Seconds for a thread to end that has already handed over its result.
_MOMENT = 0.02
#: The failures after which nothing is known about the provider's state.
_ODD = frozenset({"too-much", "garbage", "unexpected", "deadline"})


class Start:
    """The state of this process before a fetch.

    Attributes:
        has_helpers: Whether the fetch has started a helper program.
    """

    def __init__(self) -> None:
        self.has_helpers = False
        self._environment = dict(os.environ)
        self._threads = frozenset(threading.enumerate())

    def provider_loaded(self) -> None:
        """Count everything until now as part of the start: some SDKs start a helper program when they are imported."""
        self.has_helpers = False
        gc.freeze()  # what was imported never becomes garbage, so a search between two fetches need not look at it

    def is_regained(self, outcome: Any) -> bool:
        """Return whether the process, after a fetch with this outcome, is as it was at the start, or can be restored.

        Args:
            outcome: A `Credential` or a `Failure`.
        """
        if isinstance(outcome, Failure) and outcome.reason in _ODD:
            return False
        return not self.has_helpers and self._have_threads_ended() and _memory() < MOST

    def restore(self) -> None:
        """Restore what can be restored."""
        if os.environ != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        gc.collect()

    def _have_threads_ended(self) -> bool:
        more = [thread for thread in threading.enumerate() if thread not in self._threads]
        for thread in more:
            thread.join(_MOMENT)
        return not any(thread.is_alive() for thread in more)


def _memory() -> int:
    """Return the bytes of memory that this process fills; on macOS the most that it has filled.

    On Linux, the most counts the process that started this one, too (fs/exec.c, setmax_mm_hiwater_rss): getrusage(2)
    would say how large the daemon is. proc(5), statm: the second number is in pages.
    """
    if sys.platform == "linux":
        with open("/proc/self/statm", "rb") as numbers:
            size = int(numbers.read().split()[1]) * resource.getpagesize()
    else:
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size
