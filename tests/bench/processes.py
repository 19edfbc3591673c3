"""A process's memory, processor time and wake-ups, as the kernel reports them, and a function that runs a command."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

MIB = 1 << 20
#: A process counts as woken up if it slept for this many seconds before; switches between its threads right after that
#: are not another wake-up.
REST = 0.1
#: Seconds between two measurements of a process.
_LOOK = 0.02


def run(command: Sequence[str], environment: Mapping[str, str], limit: float = 120.0) -> str:
    """Run a command without a terminal and return its standard output.

    Raises:
        SystemExit: The command failed, so the benchmark cannot continue.
    """
    done = subprocess.run(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=limit,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def memory(pid: int) -> tuple[float, float | None]:
    """Return RSS and USS in MiB; USS is None if the system does not report it."""
    process = psutil.Process(pid)
    try:
        return process.memory_info().rss / MIB, process.memory_full_info().uss / MIB
    except psutil.AccessDenied:
        return process.memory_info().rss / MIB, None


def cpu(pid: int) -> float:
    """Return the processor seconds of all threads of a process, without its children."""
    if sys.platform == "linux":
        files = Path(f"/proc/{pid}/task").glob("*/schedstat")  # in nanoseconds; utime counts in hundredths
        seconds = sum(int(file.read_text().split()[0]) for file in files) / 1e9
    else:
        times = psutil.Process(pid).cpu_times()
        seconds = times.user + times.system
    return seconds


def switches(pid: int) -> int:
    """Return how often the threads of a process have gone to sleep voluntarily."""
    if sys.platform == "linux":
        texts = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/status")]
        count = sum(int(text.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in texts)
    else:
        count = psutil.Process(pid).num_ctx_switches().voluntary
    return count


class Watch:
    """Counts how often processes wake up, until it is closed.

    Args:
        pids: The processes.

    Attributes:
        woke: How often each process woke up.
    """

    def __init__(self, *pids: int) -> None:
        self.woke = dict.fromkeys(pids, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def close(self) -> None:
        """Stop counting."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        before = {pid: switches(pid) for pid in self.woke}
        moved = {pid: time.monotonic() for pid in self.woke}
        while not self._ended.wait(_LOOK):
            for pid in self.woke:
                now, at = switches(pid), time.monotonic()
                if now != before[pid]:
                    self.woke[pid] += at - moved[pid] > REST
                    before[pid], moved[pid] = now, at


def load() -> str:
    """Return the load of this machine, for the head of the table."""
    return f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
