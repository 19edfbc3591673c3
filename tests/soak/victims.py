"""What the kills of two kinds of one-time secrets share: a worker, the moments of its server, and what went wrong."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Request
from uvtokend.errors import FetchFailed

#: Seconds after which a worker that should have ended is a broken law.
PATIENCE = 60.0
#: How many kills there are at a scale of 1.
KILLS = 500

Say = Callable[[str], None]


class Victims(ABC):
    """Workers that are killed while they spend a secret.

    Args:
        request: What they fetch.
        port: Where their server listens.
        directory: Their home.
        dice: For the moments.
        say: Called with each broken law.

    Attributes:
        kills: How many kills had which result.
        told: How many workers were told to end.
        broken: The broken laws.
        reached: The moments of the server: a call has arrived, and its secret is spent.
    """

    def __init__(self, request: Request, port: int, directory: Path, dice: random.Random, say: Say) -> None:
        self.request = request
        self.port = port
        self.directory = directory
        self.dice = dice
        self.say = say
        self.kills: Counter[str] = Counter()
        self.told = 0
        self.broken: list[str] = []
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
        state = {"HOME": str(directory), "XDG_STATE_HOME": str(directory / "state"), "NETRC": os.devnull}
        self.environment = {**kept, **state}
        self.reached = {"arrived": threading.Event(), "burnt": threading.Event()}

    def kill(self, scale: float) -> None:
        """Kill workers, each time after another moment.

        Args:
            scale: Share of `KILLS`, which count only if they hit a worker that had not ended.
        """
        wanted = max(1, round(KILLS * scale))
        for number in range(4 * wanted):  # a kill that comes when the worker has ended does not count
            if self.counted() >= wanted:
                break
            self.kill_one(number)

    @abstractmethod
    def kill_one(self, number: int) -> None:
        """Kill one worker, and check what it left."""

    def figures(self, act: str, before: str, kept: str, lost: str) -> dict[str, int | float | str]:
        """Return the counts, in words.

        Args:
            act: What the workers do.
            before, kept, lost: What the results of `kills` with these names mean.
        """
        return {
            "workers that were told to end": self.told,
            f"kills in the middle of a {act}": self.counted(),
            f"... {before}": self.kills["before"],
            f"... {kept}": self.kills["kept"],
            f"... {lost}": self.kills["lost"],
            "and those that came when the worker had ended": self.kills["late"],
        }

    def counted(self) -> int:
        """Return how many kills hit a worker that had not ended."""
        return self.kills.total() - self.kills["late"]

    def stage(self, name: str) -> None:
        """Let the server tell that it has reached a moment, and stay there for a little."""
        self.reached[name].set()
        time.sleep(self.dice.uniform(0, 0.004))

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker."""
        more = {"UVTOKEND_REQUEST": wire.encode_request(self.request), "UVTOKEND_FETCH_TIMEOUT": "60"}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "uvtokend.providers.worker"],
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def strike(self, victim: subprocess.Popen[bytes]) -> tuple[bool, bool]:
        """End a worker. Return whether it had ended before, and whether it was told to end instead of killed."""
        late = victim.poll() is not None
        politely = self.dice.random() < 0.3
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGTERM if politely else signal.SIGKILL)
        victim.communicate(timeout=PATIENCE)
        self.told += politely and not late
        return late, politely

    def settle(self) -> None:
        """Wait until the server has handled every call that reached it: it takes them in order, one lock for all."""
        last = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        last.request("GET", "/")
        last.getresponse().read()
        last.close()

    def fetch(self, provider: Callable[[Request], Credential]) -> Credential | Failure:
        """Return what the next fetch brings, in the workers' environment."""
        with mock.patch.dict(os.environ, self.environment, clear=True):
            try:
                return provider(self.request)
            except FetchFailed as error:
                return error.failure

    def breaks(self, what: str, law: str) -> None:
        """Note a broken law."""
        self.broken.append(f"{what}: {law}")
        self.say(self.broken[-1])
