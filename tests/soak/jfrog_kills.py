"""The JFrog part: kills at random moments of a refresh; the emulated platform uses up a refresh token at once.

Some workers get SIGTERM, as from a daemon that stops, and must never lose a chain; the others get SIGKILL.
"""

from __future__ import annotations

import json
import random
import stat
import tempfile
import threading
import time
from pathlib import Path

from clouds.jfrog import JFrog
from soak.result import Result
from soak.victims import PATIENCE, Say, Victims
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Request
from uvtokend.providers.jfrog import fetch as jfrog


def run(seed: int, scale: float, say: Say) -> Result:
    """Kill workers during refreshes, and check each time that no chain was lost unnecessarily.

    Args:
        seed: The seed of the random numbers.
        scale: As for `Victims.kill`.
        say: Called with each broken law.
    """
    with JFrog() as platform, tempfile.TemporaryDirectory(prefix="uvtokend-kills-") as directory:
        world = _World(platform, Path(directory), random.Random(seed), say)
        world.plant()
        world.kill(scale)
    figures = world.figures(
        "refresh",
        "before the platform had acted",
        "when the answer was on disk",
        "when the answer was on the wire, so that the chain is lost",
    )
    return Result("jfrog", figures, tuple(world.broken))


class _World(Victims):
    def __init__(self, platform: JFrog, directory: Path, dice: random.Random, say: Say) -> None:
        self.platform = platform
        self.typical = 0.5
        options = tuple((f"{kind}-token", (("file", str(directory / kind)),)) for kind in ("access", "refresh"))
        request = Request("jfrog-artifactory", platform.url, options)
        super().__init__(request, platform.server.port, directory, dice, say)
        platform.stage = self.stage

    def plant(self) -> None:
        """Write a new token pair, as a user does after a loss, and measure an undisturbed fetch."""
        access, self.seed = self.platform.pair()
        (self.directory / "access").write_text(access)
        (self.directory / "refresh").write_text(self.seed)
        began = time.monotonic()
        self.worker().communicate(timeout=PATIENCE)
        self.typical = time.monotonic() - began

    def kill_one(self, number: int) -> None:
        for event in self.reached.values():
            event.clear()
        threads, refreshed = {*threading.enumerate()}, self.platform.refreshed
        victim = self.worker()
        other = self.worker() if self.dice.random() < 0.1 else None
        moment = self.dice.choice(["any", "arrived", "burnt", "burnt"])
        if moment == "any":
            time.sleep(self.dice.uniform(0, 1.2 * self.typical))
        else:
            self.reached[moment].wait(PATIENCE)
            time.sleep(self.dice.uniform(0, 0.02))
        late, politely = self.strike(victim)
        said = None if other is None else wire.decode_answer(other.communicate(timeout=PATIENCE)[0])
        self.settle()
        for thread in {*threading.enumerate()} - threads:  # the server has a thread per call
            thread.join(PATIENCE)
        untouched = other is None and self.platform.refreshed == refreshed
        if politely and not self.platform.alive(self._on_disk(f"end {number} ({moment})")[0]):
            self.breaks(f"end {number} ({moment})", "the worker got SIGTERM, and the chain is lost")
        self._judge(f"kill {number} ({moment})", late, untouched, said)

    def _judge(self, what: str, late: bool, untouched: bool, other: Credential | Failure | None) -> None:
        token, marked = self._on_disk(what)
        alive = self.platform.alive(token)
        self.kills["late" if late else "before" if untouched else "kept" if alive else "lost"] += 1
        if untouched and not alive:
            self.breaks(what, "the platform did nothing, but the chain is lost")
        if not alive and not marked:
            self.breaks(what, "the chain is lost without a mark")
        if isinstance(other, Failure) and other.reason != "chain-lost":
            self.breaks(what, f"the concurrent worker failed: {other.reason}")
        fetched = self.fetch(jfrog.fetch)
        if alive:
            good = isinstance(fetched, Credential) and self.platform.valid(fetched.login, fetched.password.reveal())
            if not good:
                self.breaks(what, f"the chain is alive, but the next fetch fails: {fetched}")
            return
        if not isinstance(fetched, Failure) or (fetched.kind, fetched.reason) != ("login-required", "chain-lost"):
            self.breaks(what, f"the chain is lost, and the next fetch says {fetched}")
        elif str(self.directory / "refresh") not in (fetched.hint or "") or self.seed in repr(fetched):
            self.breaks(what, f"the fix is missing: {fetched}")
        self.plant()

    def _on_disk(self, what: str) -> tuple[str, bool]:
        """Return the refresh token that the next fetch will use, and whether it has a mark."""
        chains = self.directory / "state" / "uvtokend" / "chains"
        if stat.S_IMODE(chains.stat().st_mode) != 0o700:
            self.breaks(what, "the directory is open to others")
        newest = max(chains.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        for file in chains.iterdir():
            if stat.S_IMODE(file.stat().st_mode) != 0o600:
                self.breaks(what, f"{file.name} is open to others")
        try:
            chain = json.loads(newest.read_bytes())
        except ValueError:
            self.breaks(what, "the chain's file is invalid")
            return self.seed, False
        return str(chain["refresh_token"]), chain["asked_at"] is not None
