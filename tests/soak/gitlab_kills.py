"""The GitLab part: kills at random moments of a rotation; the emulated server revokes the family of a reused token.

Some workers get SIGTERM, as from a daemon that stops, and must never lose a token; the others get SIGKILL.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from clouds.gitlab import ROTATE, GitLab
from soak.result import Result
from soak.victims import PATIENCE, Say, Victims
from uvtokend.core.model import Credential, Failure, Request
from uvtokend.providers.gitlab import fetch as gitlab


def run(seed: int, scale: float, say: Say) -> Result:
    """Kill workers during rotations, and check each time that no token was lost unnecessarily.

    Args:
        seed: The seed of the random numbers.
        scale: As for `Victims.kill`.
        say: Called with each broken law.
    """
    with GitLab() as cloud, tempfile.TemporaryDirectory(prefix="uvtokend-kills-") as directory:
        world = _World(cloud, Path(directory), random.Random(seed), say)
        world.kill(scale)
    figures = world.figures(
        "rotation",
        "before the server had acted",
        "when the new token was in the file",
        "when the response was on the wire, so that the token is lost",
    )
    return Result("gitlab", {**figures, "rotations with a revoked token": world.reused()}, tuple(world.broken))


class _World(Victims):
    def __init__(self, cloud: GitLab, directory: Path, dice: random.Random, say: Say) -> None:
        self.cloud = cloud
        self.file = directory / "token"
        options = (("rotate", True), ("token", (("file", str(self.file)),)))
        super().__init__(Request("gitlab", cloud.url, options), cloud.server.port, directory, dice, say)
        cloud.stage = self.stage

    def reused(self) -> int:
        """Return how often a token was sent for rotation that had already been rotated."""
        sent = Counter(call.headers["PRIVATE-TOKEN"] for call in self.cloud.server.calls if call.path == ROTATE)
        return sum(count - 1 for count in sent.values())

    def plant(self) -> str:
        """Write a token to the file that is due for rotation."""
        token = self.cloud.personal(days=90, age=85)
        self.file.write_text(f"{token}\n")
        return token

    def kill_one(self, number: int) -> None:
        for event in self.reached.values():
            event.clear()
        old, rotated = self.plant(), self.cloud.rotated
        victim = self.worker()
        moment = self.dice.choice(["arrived", "burnt", "burnt"])
        self.reached[moment].wait(PATIENCE)
        time.sleep(self.dice.uniform(0, 0.02))
        late, politely = self.strike(victim)
        self.settle()
        self._judge(f"kill {number} ({moment})", old, late, politely, self.cloud.rotated != rotated)

    def _judge(self, what: str, old: str, late: bool, politely: bool, acted: bool) -> None:
        kept = self.file.read_text().strip()
        alive = self.cloud.active(kept)
        self.kills["late" if late else "kept" if acted and alive else "lost" if acted else "before"] += 1
        if politely and not alive:
            self.breaks(what, "the worker got SIGTERM, and the token is lost")
        if kept not in {old, *self.cloud.issued()}:
            self.breaks(what, "the file contains something other than a token")
        fetched = self.fetch(gitlab.fetch)
        good = isinstance(fetched, Credential) and self.cloud.valid(fetched.login, fetched.password.reveal())
        if alive and kept != old and not good:
            self.breaks(what, f"the new token is in the file, but the next fetch fails: {fetched}")
        if not alive and (not isinstance(fetched, Failure) or fetched.reason != "rotation-lost"):
            self.breaks(what, f"the token is lost, and the next fetch says {fetched}")
        if isinstance(fetched, Failure) and str(self.file) not in (fetched.hint or ""):
            self.breaks(what, f"the fix is missing: {fetched}")
        if self.reused():
            self.breaks(what, "a token was sent for rotation twice")
