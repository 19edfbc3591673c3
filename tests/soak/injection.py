"""Makes one system call of a piece of work fail, fall short, or be the last one before SIGKILL.

As SQLite tests its I/O: the calls are counted once, then each of them fails in turn, once or from then on. Faults are
injected where Python calls the system, so the code under test is the real one; a kill is a child process that ends
right behind the call.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from uvtokend.disk import exchange

#: What may fail: module and name.
CALLS: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("open", "pread", "pwrite", "fsync", "ftruncate", "fchmod", "chmod", "fchown")),
    *((os, name) for name in ("rename", "replace", "link", "unlink", "mkdir", "rmdir")),
    (fcntl, "flock"),
    (exchange, "swap"),
)
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EINTR)
#: The exit status of a child that was killed by us.
KILLED = 77


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one call.

    Args:
        at: The number of the call, from 0; -1 for none.
        kind: The errno that it fails with, ``short`` or ``kill``.
        for_good: Every later call of that name fails, too.
    """

    at: int = -1
    kind: int | str = "kill"
    for_good: bool = False

    def __str__(self) -> str:
        kind = errno.errorcode[self.kind] if isinstance(self.kind, int) else self.kind
        return f"{kind} at call {self.at}{' and ever after' if self.for_good else ''}"


@contextlib.contextmanager
def injected(fault: Fault, exchanges: bool) -> Iterator[list[str]]:
    """Inject a fault; what is yielded grows by the name of each call.

    Args:
        fault: The fault.
        exchanges: The file system can exchange two files.
    """
    made: list[str] = []
    struck: list[str] = []
    with contextlib.ExitStack() as stack:
        for module, name in CALLS:
            real = getattr(module, name)
            if name == "swap" and not exchanges:
                real = _no_exchange
            stack.enter_context(mock.patch.object(module, name, _wrapped(name, real, fault, made, struck)))
        yield made


def _wrapped(
    name: str, real: Callable[..., Any], fault: Fault, made: list[str], struck: list[str]
) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        number = len(made)
        made.append(name)
        hit = number == fault.at or (fault.for_good and name in struck)
        if not hit:
            return real(*arguments, **named)
        struck.append(name)
        if isinstance(fault.kind, int):
            raise OSError(fault.kind, os.strerror(fault.kind))
        if fault.kind == "short" and name == "pwrite":
            file, text, at = arguments
            return real(file, bytes(text[: len(text) // 2 or 1]), at)
        done = real(*arguments, **named)
        if fault.kind == "kill":
            os._exit(KILLED)
        return done

    return call


def _no_exchange(_one: str, _other: str) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def faults(calls: list[str]) -> Iterator[Fault]:
    """Yield every fault for a piece of work that makes these calls."""
    for at, name in enumerate(calls):
        yield Fault(at)
        for code in ERRORS:
            yield Fault(at, code)
            yield Fault(at, code, for_good=True)
        if name == "pwrite":
            yield Fault(at, "short")
            yield Fault(at, "short", for_good=True)


def run(work: Callable[[], object], fault: Fault, exchanges: bool) -> list[str]:
    """Do some work with a fault, a kill in a child process, and return the calls that it made.

    Raises:
        Exception: What the work raised.
    """
    if fault.kind == "kill" and fault.at >= 0:
        child = os.fork()
        if not child:
            with injected(fault, exchanges):
                try:
                    work()
                finally:
                    os._exit(0)
        os.waitpid(child, 0)
        return []
    with injected(fault, exchanges) as made:
        work()
    return made
