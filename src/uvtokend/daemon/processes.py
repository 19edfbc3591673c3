"""Find the name and the parent of a process, for the event log.

Linux: proc(5), /proc/PID/stat. macOS, untested: ps(1), since there is no /proc.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from uvtokend.core.text import clean


@dataclass(frozen=True, slots=True)
class Process:
    """A process at one moment.

    Args:
        pid: Its process ID; 0 if it is in another PID namespace, or has ended.
        name: Its command name, or "unknown".
    """

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else "an unknown process"


UNKNOWN = Process(0, "unknown")


def describe(pid: int, above: bool = False) -> Process:
    """Return a process.

    Args:
        pid: Its process ID, from the kernel.
        above: Return its parent process instead: our `keyring` command asks only on behalf of its parent.
    """
    name, parent = _look(pid)
    if above and parent:
        pid, (name, _) = parent, _look(parent)
    return Process(pid, name) if name else UNKNOWN


def _look(pid: int) -> tuple[str, int]:
    """Return the name and the parent of a process; empty and 0 if it is not visible."""
    if pid <= 0:
        return "", 0
    try:
        return _from_proc(pid) if sys.platform == "linux" else _from_ps(pid)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return "", 0


def _from_proc(pid: int) -> tuple[str, int]:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        before, _, after = file.read().rpartition(")")  # the name may contain parentheses
    return clean(before.partition("(")[2]), int(after.split()[1])


def _from_ps(pid: int) -> tuple[str, int]:
    command = ["/bin/ps", "-o", "ppid=", "-o", "comm=", "-p", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=2, check=True)  # noqa: S603
    parent, name = done.stdout.strip().split(None, 1)
    return clean(name.rpartition("/")[2]), int(parent)
