"""What several rows share, created when the first row needs it, and the numbers of repetitions."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import peers as rivals
from bench.fleet import Fleet
from bench.peers import Peer, Peers
from bench.processes import run
from uvtokend.sandbox.machine import find_uv

#: Where Linux keeps files in memory, and the least free space there, in bytes.
_MEMORY, _ENOUGH = "/dev/shm", 32 << 20
#: What every Python program takes at least, unless it starts without `site`, as our keyring command does.
FLOOR = (sys.executable, "-I", "-c", "pass")


@dataclass(frozen=True, slots=True)
class Scale:
    """The numbers of repetitions and sizes.

    Args:
        rounds: Turns of commands that take less than a second.
        runs: Runs of a command within a turn, if it takes about a tenth of a second.
        few: Turns of commands that take seconds.
        sizes: Numbers of indexes, in ascending order.
        idle: Seconds for which an idle daemon is measured; more than one guard tick of 25 s.
        questions: Requests to the control socket.
        wheels: The number of wheels of the larger installation.
    """

    rounds: int = 13
    runs: int = 7
    few: int = 5
    sizes: tuple[int, ...] = (1, 10, 100, 1000)
    idle: float = 126.0
    questions: int = 10_000
    wheels: int = 30


QUICK = Scale(rounds=2, runs=3, few=1, sizes=(1, 10, 50), idle=26.0, questions=1000, wheels=10)


class Stage:
    """A context manager with what the rows share.

    Args:
        scale: The numbers of repetitions.
        cache: The directory where the peers stay installed.
        say: Called with what is being prepared.
    """

    def __init__(self, scale: Scale, cache: Path, say: Callable[[str], None]) -> None:
        self.scale = scale
        self._cache = cache
        self._say = say
        self._stack = ExitStack()
        self._fleets: dict[int, Fleet] = {}
        self._used_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def directory(self) -> Path:
        """Return a new directory whose path is short enough for a socket."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="uvtokend-bench-")))

    def memory(self) -> Path:
        """Return a new directory for a few MiB, in memory if the system has a place for that.

        It is for commands that create many files. How long a disk takes for them depends on what was deleted before:
        ext4 skips inodes that were deleted within the last minutes, one by one (ext4's `recently_deleted`).
        """
        place = _MEMORY if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH else None
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="uvtokend-bench-", dir=place)))

    @cached_property
    def peers(self) -> Peers:
        """The peers, installed and called once."""
        self._say("installing the peers, or checking whether they are installed")
        return self._stack.enter_context(rivals.peers(self._cache))

    def versions(self) -> str:
        """Return the versions of uv and of the peers that were used."""
        uv = " ".join(run((find_uv(), "--version"), {}).split()[:2])
        used: Peers | None = self.__dict__.get("peers")  # set by cached_property
        of_peers = {part for peer in used.available for part in peer.versions.split(", ")} if used else set()
        return ", ".join([uv, *sorted(of_peers)])

    def peer(self, *words: str) -> Peer | None:
        """Return the peer whose name contains all of these words, or None if it is not available."""
        return next((peer for peer in self.peers.available if all(word in peer.name for word in words)), None)

    def fleet(self, size: int) -> Fleet:
        """Return a machine whose daemon has delivered that many secrets."""
        if size not in self._fleets:
            self.new_fleet(size).start()
            self.used()
        return self._fleets[size]

    def used(self) -> None:
        """Record that a row has just used a daemon."""
        self._used_at = time.monotonic()

    def rest(self, seconds: float) -> None:
        """Wait until no row has used a daemon for that many seconds."""
        time.sleep(max(0.0, self._used_at + seconds - time.monotonic()))

    def new_fleet(self, size: int) -> Fleet:
        """Return a machine whose daemon has not been started; `fleet` returns the same machine from then on."""
        self._say(f"a daemon with {size:,} {'index' if size == 1 else 'indexes'}")
        fleet = self._fleets[size] = Fleet(self.directory(), size)
        self._stack.callback(fleet.stop)
        return fleet


def quietly(command: tuple[str, ...], environment: dict[str, str]) -> Callable[[], object]:
    """Return a function that runs a command and checks that it succeeds."""
    return lambda: run(command, environment)
