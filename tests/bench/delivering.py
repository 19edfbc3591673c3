"""Rows: the time from a provider's response until uv can read the entry.

It is compared with a program that waits for a child's answer, too, and does nothing then but write the same bytes: it
was idle just as long, it is woken in the same way, and one stopwatch measures both. The write alone, in a loop of a
process that is awake, is shown beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import bare
from bench.fleet import Fleet, ask
from bench.stage import Stage
from bench.table import Aim, Line, compared

HOST = "stamped.example"
#: The sides: ours, a program that is woken in the same way and only writes the bytes, and that write in a loop.
DAEMON, BARE, WRITE = "daemon", "bare program: write, fsync, rename", "write, fsync, rename in a loop"
#: A provider whose credential names the time when it was returned, in nanoseconds, as its identity. A file with the
#: time would cost the worker, and the disk, part of the time that is measured.
STAMP = """\
import secrets, time
from datetime import UTC, datetime, timedelta
from uvtokend.plugin import Credential, Secret

def fetch(request):
    now = datetime.now(UTC)
    token = Secret(secrets.token_hex(600))
    return Credential("me", token, now, now + timedelta(hours=12), identity=str(time.monotonic_ns()))
"""
TABLE = f'[[index]]\nname = "stamped"\nurl = "https://{HOST}/simple/"\nprovider = "stamp"\noptions = {{}}\n'
#: The number of foreign entries in a netrc of one megabyte.
FOREIGN = 26_000


def measure(stage: Stage) -> list[Line]:
    """Refresh one token among increasing numbers of others."""
    lines: list[Line] = []
    for size in stage.scale.sizes:
        if size != 10:
            name = "1 entry" if size == 1 else f"{size:,} entries"
            lines.extend(_among(stage, f"answer until the entry is visible, {name}", size - 1, ""))
    others = "\n".join(f"machine {number:05}.example login u password t" for number in range(FOREIGN)) + "\n"
    name = f"{len(others) / 1e6:.1f} MB with {FOREIGN:,} entries of others"
    lines.extend(_among(stage, f"answer until the entry is visible, {name}", 0, others))
    return lines


def _among(stage: Stage, row: str, size: int, others: str) -> list[Line]:
    directory = stage.directory()
    plugin = directory / "plugin"
    (plugin / "stamp-1.dist-info").mkdir(parents=True)
    (plugin / "stamp-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stamp\nVersion: 1\n")
    (plugin / "stamp-1.dist-info" / "entry_points.txt").write_text("[uvtokend.providers]\nstamp = stamp:fetch\n")
    (plugin / "stamp.py").write_text(STAMP)
    fleet = Fleet(directory, size, TABLE)
    fleet.environment["PYTHONPATH"] = str(plugin)
    if others:
        fleet.netrc.write_text(others)
        fleet.netrc.chmod(0o600)
    figures: dict[str, list[float]] = {DAEMON: [], BARE: [], WRITE: []}
    try:
        fleet.start()
        with _Bare(directory / "bare", fleet.netrc.read_bytes(), fleet.environment) as floor:
            for _ in range(2 * stage.scale.few + 1):
                figures[DAEMON].append(_visible(fleet))
                figures[BARE].append(floor.visible(_rest(fleet)))
                figures[WRITE].append(_written(fleet.netrc))
    finally:
        fleet.stop()
    return [compared(row, figures, DAEMON, BARE, Aim(2.0)), compared(row, figures, DAEMON, WRITE)]


def _visible(fleet: Fleet) -> float:
    """Return the seconds from the provider's response until the netrc has been replaced."""
    time.sleep(_rest(fleet))
    with _Replaced(fleet.netrc) as replaced:
        asking = threading.Thread(target=fleet.command, args=("refresh", "stamped"))
        asking.start()
    asking.join()
    index = ask(fleet.socket, "status", names=["stamped"])["indexes"][0]
    return (replaced.at - int(index["identity"])) / 1e9


def _rest(fleet: Fleet) -> float:
    """Return the seconds before each turn: the daemon delays a delivery that follows another one closely."""
    return 6 if fleet.size > 100 else 1


class _Bare:
    """A context manager with the program of `bench.bare`, which has a file of its own.

    Args:
        file: The file.
        data: Its content.
        environment: The environment of the program.
    """

    def __init__(self, file: Path, data: bytes, environment: Mapping[str, str]) -> None:
        self._file = file
        file.write_bytes(data)
        command = [sys.executable, "-P", str(Path(bare.__file__)), str(file)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment)
        )

    def visible(self, rest: float) -> float:
        """Return the seconds from its child's answer until the file has been replaced.

        Args:
            rest: Seconds to wait before.
        """
        time.sleep(rest)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with _Replaced(self._file) as replaced:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return (replaced.at - int(self._process.stdout.readline())) / 1e9

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


class _Replaced:
    """A context manager that ends when a file has been replaced.

    Args:
        path: The file.

    Attributes:
        at: When that was seen, in nanoseconds of the monotonic clock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.at = 0

    def __enter__(self) -> Self:
        self._before = self._path.stat().st_ino
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = time.monotonic() + 60
        while error is None and self._path.stat().st_ino == self._before:
            if time.monotonic() > end:
                raise SystemExit(f"Nobody has replaced {self._path}.")
            time.sleep(0.0002)
        self.at = time.monotonic_ns()


def _written(netrc: Path) -> float:
    """Return the seconds of a plain write of the same bytes to a file beside the netrc."""
    data, beside = netrc.read_bytes(), netrc.parent / "beside"
    beside.write_bytes(data)
    began = time.perf_counter()
    file = os.open(f"{beside}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(file, data)
    os.fsync(file)
    os.close(file)
    os.rename(f"{beside}.new", beside)
    return time.perf_counter() - began
