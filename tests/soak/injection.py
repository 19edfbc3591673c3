"""Make one system call of some work fail, fall short, or be the last one before SIGKILL or a power cut.

This is how SQLite tests its I/O: the calls are counted once, then each of them fails in turn, once or from then on.
Faults are injected where Python calls the system, so the tested code is the real one. A kill is a child process that
exits directly before or directly after the call, since the code may also do something outside `CALLS`. After a power
cut, each new file that was not synced is empty, as journaling file systems leave it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from uvtokend.disk import exchange

#: The calls that may fail: module and name.
CALLS: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("open", "pread", "pwrite", "fsync", "ftruncate", "fchmod", "chmod", "fchown")),
    *((os, name) for name in ("rename", "replace", "link", "unlink", "mkdir", "rmdir")),
    (fcntl, "flock"),
    (exchange, "swap"),
)
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EINTR)
#: The exit status of a child that we killed.
KILLED = 77
#: The kinds of faults that end the process.
ENDS = ("kill", "kill before", "power")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one call.

    Args:
        at: The number of the call, from 0; -1 for none.
        kind: The errno that the call fails with, ``short``, or one of `ENDS`.
        for_good: Whether every later call of that name fails, too.
    """

    at: int = -1
    kind: int | str = "kill"
    for_good: bool = False

    def __str__(self) -> str:
        kind = errno.errorcode[self.kind] if isinstance(self.kind, int) else self.kind
        return f"{kind} at call {self.at}{' and ever after' if self.for_good else ''}"


@contextlib.contextmanager
def injected(fault: Fault, exchanges: bool, directory: Path | None = None) -> Iterator[list[str]]:
    """Inject a fault, and yield a list that grows by the name of each call.

    Args:
        fault: The fault.
        exchanges: Whether the file system can exchange two files.
        directory: Where a power cut loses data.
    """
    injection = _Injection(fault, directory)
    with contextlib.ExitStack() as stack:
        for module, name in CALLS:
            real = getattr(module, name)
            if name == "swap" and not exchanges:
                real = _no_exchange
            stack.enter_context(mock.patch.object(module, name, injection.wrapped(name, real)))
        yield injection.made


class _Injection:
    """One fault, and the calls made so far.

    Args:
        fault: The fault.
        directory: Where a power cut loses data.
    """

    def __init__(self, fault: Fault, directory: Path | None) -> None:
        self.made: list[str] = []
        self._fault = fault
        self._directory = directory
        self._struck: set[str] = set()
        self._unsynced: set[int] = set()

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that causes the fault or makes the real call."""

        def call(*arguments: Any, **named: Any) -> Any:
            hit = len(self.made) == self._fault.at or (self._fault.for_good and name in self._struck)
            self.made.append(name)
            if hit:
                self._struck.add(name)
                return self._strike(name, real, arguments, named)
            return self._done(name, real, arguments, named)

        return call

    def _strike(self, name: str, real: Callable[..., Any], arguments: Any, named: Any) -> Any:
        kind = self._fault.kind
        if isinstance(kind, int):
            raise OSError(kind, os.strerror(kind))
        if kind == "kill before":
            os._exit(KILLED)
        if kind == "short" and name == "pwrite":
            file, text, at = arguments
            return real(file, bytes(text[: len(text) // 2 or 1]), at)
        done = self._done(name, real, arguments, named)
        if kind == "power":
            self._lose()
        if kind in ENDS:
            os._exit(KILLED)
        return done

    def _done(self, name: str, real: Callable[..., Any], arguments: Any, named: Any) -> Any:
        done = real(*arguments, **named)
        if name == "open" and arguments[1] & os.O_CREAT and not os.fstat(done).st_size:
            self._unsynced.add(os.fstat(done).st_ino)
        if name == "fsync":
            self._unsynced.discard(os.fstat(arguments[0]).st_ino)
        return done

    def _lose(self) -> None:
        """Empty each new file that was not synced."""
        for file in self._directory.rglob("*") if self._directory is not None else ():
            if file.lstat().st_ino in self._unsynced:
                os.truncate(file, 0)


def _no_exchange(_one: str, _other: str) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def faults(calls: list[str]) -> Iterator[Fault]:
    """Yield every fault for some work that makes these calls."""
    for at, name in enumerate(calls):
        for kind in ENDS:
            yield Fault(at, kind)
        for code in ERRORS:
            yield Fault(at, code)
            yield Fault(at, code, for_good=True)
        if name == "pwrite":
            yield Fault(at, "short")
            yield Fault(at, "short", for_good=True)


def run(work: Callable[[], object], fault: Fault, exchanges: bool, directory: Path) -> list[str]:
    """Do some work with a fault, in a child process if it ends the process, and return the calls made.

    Args:
        work: The work.
        fault: The fault.
        exchanges: Whether the file system can exchange two files.
        directory: Where a power cut loses data.

    Raises:
        Exception: The exception of the work.
    """
    if fault.kind in ENDS and fault.at >= 0:
        child = os.fork()
        if not child:
            try:
                with injected(fault, exchanges, directory):
                    work()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        return []
    with injected(fault, exchanges) as made:
        work()
    return made
