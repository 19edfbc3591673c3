"""What the kills of two kinds of one-time secrets share: the worker, the stages of its server, and the broken laws."""

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

#: Seconds after which a worker that has not ended is a broken law.
PATIENCE = 60.0
#: How many kills there are at a scale of 1.
KILLS = 500

Say = Callable[[str], None]


class Victims(ABC):
    """Workers that are killed while they use a one-time secret.

    Args:
        request: What they fetch.
        port: The port of their server.
        directory: Their home directory.
        dice: The random numbers that choose the moments.
        say: Called with each broken law.

    Attributes:
        kills: How many kills had which result.
        terminated: How many workers got SIGTERM.
        broken: The broken laws.
        reached: The stages of the server: a call has arrived, and its secret is used up.
    """

    def __init__(self, request: Request, port: int, directory: Path, dice: random.Random, say: Say) -> None:
        self.request = request
        self.port = port
        self.directory = directory
        self.dice = dice
        self.say = say
        self.kills: Counter[str] = Counter()
        self.terminated = 0
        self.broken: list[str] = []
        inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
        state = {"HOME": str(directory), "XDG_STATE_HOME": str(directory / "state"), "NETRC": os.devnull}
        self.environment = {**inherited, **state}
        self.reached = {"arrived": threading.Event(), "burnt": threading.Event()}

    def kill(self, scale: float) -> None:
        """Kill workers, each at another moment.

        Args:
            scale: The share of `KILLS`; only kills of a worker that had not ended count.
        """
        wanted = max(1, round(KILLS * scale))
        for number in range(4 * wanted):  # a kill after the worker has ended does not count
            if self.counted() >= wanted:
                break
            self.kill_one(number)

    @abstractmethod
    def kill_one(self, number: int) -> None:
        """Kill one worker, and check what it left."""

    def figures(self, act: str, before: str, kept: str, lost: str) -> dict[str, int | float | str]:
        """Return the figures with their descriptions.

        Args:
            act: What the workers do.
            before, kept, lost: The descriptions of these results in `kills`.
        """
        return {
            "workers that got SIGTERM": self.terminated,
            f"kills in the middle of a {act}": self.counted(),
            f"... {before}": self.kills["before"],
            f"... {kept}": self.kills["kept"],
            f"... {lost}": self.kills["lost"],
            "and those after the worker had ended": self.kills["late"],
        }

    def counted(self) -> int:
        """Return how many kills hit a worker that had not ended."""
        return self.kills.total() - self.kills["late"]

    def stage(self, name: str) -> None:
        """Report that the server has reached a stage, and wait there for a moment."""
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
        """End a worker; return whether it had ended before, and whether it got SIGTERM instead of SIGKILL."""
        late = victim.poll() is not None
        politely = self.dice.random() < 0.3
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGTERM if politely else signal.SIGKILL)
        victim.communicate(timeout=PATIENCE)
        self.terminated += politely and not late
        return late, politely

    def settle(self) -> None:
        """Wait until the server has handled every call that reached it; it handles them in order."""
        last = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        last.request("GET", "/")
        last.getresponse().read()
        last.close()

    def fetch(self, provider: Callable[[Request], Credential]) -> Credential | Failure:
        """Return the result of the next fetch, in the workers' environment."""
        with mock.patch.dict(os.environ, self.environment, clear=True):
            try:
                return provider(self.request)
            except FetchFailed as error:
                return error.failure

    def breaks(self, what: str, law: str) -> None:
        """Record a broken law."""
        self.broken.append(f"{what}: {law}")
        self.say(self.broken[-1])
