"""The JFrog part: kills at random moments of a refresh, against a platform that uses up a refresh token at once.

Some workers are told to end (SIGTERM), as by a daemon that stops, and must never lose a chain; the others are killed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from clouds.jfrog import JFrog
from soak.result import Result
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers.jfrog import fetch as jfrog

#: Seconds after which a worker that should have ended is a broken law.
PATIENCE = 60.0


#: How many kills there are at a scale of 1.
KILLS = 500

Say = Callable[[str], None]


def run(seed: int, scale: float, say: Say) -> Result:
    """Kill workers in the middle of refreshes, and check each time that no chain was lost without need.

    Args:
        seed: For the dice.
        scale: Share of `KILLS`, which count only if they hit a worker that had not ended.
        say: Called with each broken law.
    """
    kills = max(1, round(KILLS * scale))
    with JFrog() as platform, tempfile.TemporaryDirectory(prefix="uvtokend-kills-") as folder:
        world = _World(platform, Path(folder), random.Random(seed), say)
        world.plant()
        for number in range(4 * kills):  # a kill that comes when the worker has ended is none
            if world.kills.total() - world.kills["late"] >= kills:
                break
            world.kill_one(number)
    figures: dict[str, int | float | str] = {
        "workers that were told to end": world.told,
        "kills in the middle of a refresh": world.kills.total() - world.kills["late"],
        "... before the platform had acted": world.kills["before"],
        "... when the answer was on disk": world.kills["kept"],
        "... when the answer was on the wire, so that the chain is lost": world.kills["lost"],
        "and those that came when the worker had ended": world.kills["late"],
    }
    return Result("jfrog", figures, tuple(world.broken))


class _World:
    def __init__(self, platform: JFrog, folder: Path, dice: random.Random, say: Say) -> None:
        self.platform = platform
        self.directory = folder
        self.dice = dice
        self.say = say
        self.kills: Counter[str] = Counter()
        self.told = 0
        self.broken: list[str] = []
        self.typical = 0.5
        options = tuple((f"{kind}-token", (("file", str(folder / kind)),)) for kind in ("access", "refresh"))
        self.request = Request("jfrog-artifactory", platform.url, options)
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
        self.environment = {**kept, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "NETRC": os.devnull}
        self.reached = {"arrived": threading.Event(), "burnt": threading.Event()}
        platform.stage = self._stage

    def _stage(self, name: str) -> None:
        self.reached[name].set()
        time.sleep(self.dice.uniform(0, 0.004))

    def plant(self) -> None:
        """Write a new seed, as a person does after a loss, and measure an undisturbed fetch."""
        access, self.seed = self.platform.pair()
        (self.directory / "access").write_text(access)
        (self.directory / "refresh").write_text(self.seed)
        began = time.monotonic()
        self._worker().communicate(timeout=PATIENCE)
        self.typical = time.monotonic() - began

    def kill_one(self, number: int) -> None:
        for event in self.reached.values():
            event.clear()
        threads, refreshed = {*threading.enumerate()}, self.platform.refreshed
        victim = self._worker()
        other = self._worker() if self.dice.random() < 0.1 else None
        moment = self.dice.choice(["any", "arrived", "burnt", "burnt"])
        if moment == "any":
            time.sleep(self.dice.uniform(0, 1.2 * self.typical))
        else:
            self.reached[moment].wait(PATIENCE)
            time.sleep(self.dice.uniform(0, 0.02))
        late = victim.poll() is not None
        politely = self.dice.random() < 0.3
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGTERM if politely else signal.SIGKILL)
        victim.communicate(timeout=PATIENCE)
        said = None if other is None else wire.decode_answer(other.communicate(timeout=PATIENCE)[0])
        self._settle(threads)
        untouched = other is None and self.platform.refreshed == refreshed
        self.told += politely and not late
        if politely and not self.platform.alive(self._on_disk(f"end {number} ({moment})")[0]):
            self._broken(f"end {number} ({moment})", "the worker was told to end, and the chain is lost")
        self._judge(f"kill {number} ({moment})", late, untouched, said)

    def _worker(self) -> subprocess.Popen[bytes]:
        more = {"UVTOKEND_REQUEST": wire.encode_request(self.request), "UVTOKEND_FETCH_TIMEOUT": "60"}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "uvtokend.providers.worker"],
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _settle(self, before: set[threading.Thread]) -> None:
        """Wait until the platform has handled every call that reached it: it takes calls in order, a thread each."""
        last = http.client.HTTPConnection("127.0.0.1", self.platform.server.port, timeout=PATIENCE)
        last.request("GET", "/")
        last.getresponse().read()
        last.close()
        for thread in {*threading.enumerate()} - before:
            thread.join(PATIENCE)

    def _judge(self, what: str, late: bool, untouched: bool, other: Credential | Failure | None) -> None:
        token, marked = self._on_disk(what)
        alive = self.platform.alive(token)
        self.kills["late" if late else "before" if untouched else "kept" if alive else "lost"] += 1
        if untouched and not alive:
            self._broken(what, "the platform did nothing, but the chain is lost")
        if not alive and not marked:
            self._broken(what, "the chain is lost, and no mark explains it")
        if isinstance(other, Failure) and other.reason != "chain-lost":
            self._broken(what, f"the process beside it failed: {other.reason}")
        with mock.patch.dict(os.environ, self.environment, clear=True):
            found = self._fetch()
        if alive:
            good = isinstance(found, Credential) and self.platform.valid(found.login, found.password.reveal())
            if not good:
                self._broken(what, f"the chain is alive, but the next fetch fails: {found}")
            return
        if not isinstance(found, Failure) or (found.kind, found.reason) != ("login-required", "chain-lost"):
            self._broken(what, f"the chain is lost, and the next fetch says {found}")
        elif str(self.directory / "refresh") not in (found.hint or "") or self.seed in repr(found):
            self._broken(what, f"the fix is not named: {found}")
        self.plant()

    def _on_disk(self, what: str) -> tuple[str, bool]:
        """Return the refresh token that the next fetch will use, and whether a mark stands beside it."""
        folder = self.directory / "state" / "uvtokend" / "chains"
        if stat.S_IMODE(folder.stat().st_mode) != 0o700:
            self._broken(what, "the directory is open to others")
        newest = max(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        for file in folder.iterdir():
            if stat.S_IMODE(file.stat().st_mode) != 0o600:
                self._broken(what, f"{file.name} is open to others")
        try:
            found = json.loads(newest.read_bytes())
        except ValueError:
            self._broken(what, "the chain's file is broken")
            return self.seed, False
        return str(found["refresh_token"]), found["asked_at"] is not None

    def _fetch(self) -> Credential | Failure:
        try:
            return jfrog.fetch(self.request)
        except FetchFailed as error:
            return error.failure

    def _broken(self, what: str, law: str) -> None:
        self.broken.append(f"{what}: {law}")
        self.say(self.broken[-1])
