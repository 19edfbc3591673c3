"""Find the programs that have a file open for writing, after a read lease was refused (see `files`)."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a file open for writing.

    Args:
        pid: Its process ID.
        program: Its short name, as ``ps`` shows it.
        appends: Whether it opened the file with ``O_APPEND``, so that its next write goes to the current end.
        position: The offset of its next write otherwise, in bytes.
    """

    pid: int
    program: str
    appends: bool
    position: int

    def __str__(self) -> str:
        return f"{self.program} (pid {self.pid})"


def holders(path: str) -> list[Holder]:
    """Return the processes that have a file open for writing, sorted by process ID, as far as this user may see them.

    On Linux they are in proc(5), ``/proc/PID/fd`` and ``/proc/PID/fdinfo``.
    """
    return _on_macos(path) if sys.platform == "darwin" else _in_proc(path)


def named(pid: int) -> str | None:
    """Return the name of a process with its process ID, for a sentence; None if it has ended, or is not visible."""
    with contextlib.suppress(OSError):
        return f"{_program(pid)} (pid {pid})"
    return None


def _in_proc(path: str) -> list[Holder]:
    with contextlib.suppress(OSError):
        wanted = os.stat(path)
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        perhaps = [_holder(pid, path, wanted) for pid in pids]
        return [holder for holder in perhaps if holder is not None]
    return []


def _on_macos(path: str) -> list[Holder]:
    from uvtokend import darwin  # noqa: PLC0415 - macOS only

    with contextlib.suppress(OSError):
        status = os.stat(path)
        writers = darwin.writers(path, status.st_dev, status.st_ino)
        return [Holder(each.pid, each.name or "a program", each.appends, each.position) for each in writers]
    return []


def _holder(pid: int, path: str, wanted: os.stat_result) -> Holder | None:
    with contextlib.suppress(OSError, ValueError):  # another user's process, or one that has just ended
        for number in os.listdir(f"/proc/{pid}/fd"):
            link = f"/proc/{pid}/fd/{number}"
            # The name first: a stat of every open file would wait for a network disk that does not answer.
            if os.path.basename(os.readlink(link)) != os.path.basename(path):
                continue
            if not os.path.samestat(os.stat(link), wanted):
                continue
            flags, position = _opened(f"/proc/{pid}/fdinfo/{number}")
            if flags & os.O_ACCMODE != os.O_RDONLY:
                return Holder(pid, _program(pid), bool(flags & os.O_APPEND), position)
    return None


def _opened(path: str) -> tuple[int, int]:
    """Return the flags and the position of an open file."""
    with open(path, encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
    return int(lines["flags"], 8), int(lines["pos"])


def _program(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
