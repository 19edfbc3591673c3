"""Reap, as process 1 of a container, what helper programs leave behind.

A process whose parent has ended becomes a child of process 1 of its PID namespace (pid_namespaces(7)). Once it ends,
it remains as a zombie, which counts against the container's limit, until process 1 takes its exit status (wait(2)).
``az``, for example, starts a program for its telemetry and does not wait for it.

Our own children must not be reaped here, since their exit status is wanted elsewhere. That takes less than a second, so
a child that is a zombie at two guard ticks in a row is an orphan.
"""

from __future__ import annotations

import contextlib
import os
import sys


class Orphans:
    """The zombies of this process; it does nothing unless this is process 1."""

    def __init__(self) -> None:
        self._first = sys.platform == "linux" and os.getpid() == 1
        self._before: frozenset[tuple[int, str]] = frozenset()

    def reap(self) -> None:
        """Reap those that were zombies at the previous call already; called at each guard tick."""
        if not self._first:
            return
        zombies = frozenset(_zombies())
        for pid, _ in self._before & zombies:
            with contextlib.suppress(ChildProcessError):  # reaped meanwhile
                os.waitpid(pid, os.WNOHANG)
        self._before = zombies


def _zombies() -> list[tuple[int, str]]:
    """Return process id and start time of each child that has ended: proc(5), /proc/PID/stat."""
    zombies = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # a name may hold parentheses
            if fields[:2] == ["Z", "1"]:
                zombies.append((int(name), fields[19]))
    return zombies
