"""The GitLab part: kills at random moments of a rotation, against a server that revokes the family of a reused token.

Some workers are told to end (SIGTERM), as by a daemon that stops, and must never lose a token; the others are killed.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from clouds.gitlab import ROTATE, GitLab
from soak.result import Result
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers.gitlab import fetch as gitlab

#: Seconds after which a worker that should have ended is a broken law.
PATIENCE = 60.0
#: How many kills there are at a scale of 1.
KILLS = 500

Say = Callable[[str], None]


def run(seed: int, scale: float, say: Say) -> Result:
    """Kill workers in the middle of rotations, and check each time that no token was lost without need.

    Args:
        seed: For the dice.
        scale: Share of `KILLS`, which count only if they hit a worker that had not ended.
        say: Called with each broken law.
    """
    kills = max(1, round(KILLS * scale))
    with GitLab() as cloud, tempfile.TemporaryDirectory(prefix="uvtokend-kills-") as directory:
        world = _World(cloud, Path(directory), random.Random(seed), say)
        for number in range(4 * kills):  # a kill that comes when the worker has ended does not count
            if world.kills.total() - world.kills["late"] >= kills:
                break
            world.kill_one(number)
    figures: dict[str, int | float | str] = {
        "workers that were told to end": world.told,
        "kills in the middle of a rotation": world.kills.total() - world.kills["late"],
        "... before the server had acted": world.kills["before"],
        "... when the new token was in the file": world.kills["kept"],
        "... when the response was on the wire, so that the token is lost": world.kills["lost"],
        "and those that came when the worker had ended": world.kills["late"],
        "rotations with a revoked token": world.reused(),
    }
    return Result("gitlab", figures, tuple(world.broken))


class _World:
    def __init__(self, cloud: GitLab, directory: Path, dice: random.Random, say: Say) -> None:
        self.cloud = cloud
        self.file = directory / "token"
        self.dice = dice
        self.say = say
        self.kills: Counter[str] = Counter()
        self.told = 0
        self.broken: list[str] = []
        options = (("rotate", True), ("token", (("file", str(self.file)),)))
        self.request = Request("gitlab", cloud.url, options)
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
        state = {"HOME": str(directory), "XDG_STATE_HOME": str(directory / "state"), "NETRC": os.devnull}
        self.environment = {**kept, **state}
        self.reached = {"arrived": threading.Event(), "burnt": threading.Event()}
        cloud.stage = self._stage

    def _stage(self, name: str) -> None:
        self.reached[name].set()
        time.sleep(self.dice.uniform(0, 0.004))

    def reused(self) -> int:
        """Return how often a token was sent to be rotated that had been rotated before."""
        sent = Counter(call.headers["PRIVATE-TOKEN"] for call in self.cloud.server.calls if call.path == ROTATE)
        return sum(count - 1 for count in sent.values())

    def plant(self) -> str:
        """Put a token into the file that is due to be rotated, as if it had become old."""
        token = self.cloud.personal(days=90, age=85)
        self.file.write_text(f"{token}\n")
        return token

    def kill_one(self, number: int) -> None:
        for event in self.reached.values():
            event.clear()
        old, rotated = self.plant(), self.cloud.rotated
        victim = self._worker()
        moment = self.dice.choice(["arrived", "burnt", "burnt"])
        self.reached[moment].wait(PATIENCE)
        time.sleep(self.dice.uniform(0, 0.02))
        late = victim.poll() is not None
        politely = self.dice.random() < 0.3
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGTERM if politely else signal.SIGKILL)
        victim.communicate(timeout=PATIENCE)
        self._settle()
        self.told += politely and not late
        self._judge(f"kill {number} ({moment})", old, late, politely, self.cloud.rotated != rotated)

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

    def _settle(self) -> None:
        """Wait until the server has handled every call that reached it: it takes calls in order, one lock for all."""
        last = http.client.HTTPConnection("127.0.0.1", self.cloud.server.port, timeout=PATIENCE)
        last.request("GET", "/")
        last.getresponse().read()
        last.close()

    def _judge(self, what: str, old: str, late: bool, politely: bool, acted: bool) -> None:
        kept = self.file.read_text().strip()
        alive = self.cloud.active(kept)
        self.kills["late" if late else "kept" if acted and alive else "lost" if acted else "before"] += 1
        if politely and not alive:
            self._broken(what, "the worker was told to end, and the token is lost")
        if kept not in {old, *self.cloud.issued()}:
            self._broken(what, "the file contains something else than a token")
        with mock.patch.dict(os.environ, self.environment, clear=True):
            found = self._fetch()
        good = isinstance(found, Credential) and self.cloud.valid(found.login, found.password.reveal())
        if alive and kept != old and not good:
            self._broken(what, f"the new token is in the file, but the next fetch fails: {found}")
        if not alive and (not isinstance(found, Failure) or found.reason != "rotation-lost"):
            self._broken(what, f"the token is lost, and the next fetch says {found}")
        if isinstance(found, Failure) and str(self.file) not in (found.hint or ""):
            self._broken(what, f"the fix is not named: {found}")
        if self.reused():
            self._broken(what, "a token was sent to be rotated twice")

    def _fetch(self) -> Credential | Failure:
        try:
            return gitlab.fetch(self.request)
        except FetchFailed as error:
            return error.failure

    def _broken(self, what: str, law: str) -> None:
        self.broken.append(f"{what}: {law}")
        self.say(self.broken[-1])
