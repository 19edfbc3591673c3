"""Where the tests of gitlab take place: a loopback GitLab, and an environment that knows no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from pathlib import Path

import pytest

from clouds.gitlab import GitLab
from support import loopback
from support.loopback import CANARY, forget, quiet
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers.gitlab import fetch as gitlab


@dataclass
class World:
    """A GitLab, and a home directory in which the tokens are kept."""

    cloud: GitLab
    home: Path
    patch: pytest.MonkeyPatch
    service: str
    options: dict[str, Frozen] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """The token's file."""
        return self.home / "token"

    def at(self, hour: str) -> None:
        """Let GitLab's clock show a time of day, UTC, as ``23:50``: a token's end is a date, and so depends on it."""
        now = datetime.now(UTC)
        shown = datetime.combine(now.date(), time.fromisoformat(hour), UTC)
        self.cloud.clock_ahead = (shown - now).total_seconds()

    def keep(self, token: str) -> Frozen:
        """Keep a token in the file and return the reference to it."""
        self.file.write_text(f"{token}\n")
        self.file.chmod(0o600)
        return (("file", str(self.file)),)

    def plant(
        self, days: float | None = 90, age: float = 0, scopes: tuple[str, ...] = ("read_api", "self_rotate")
    ) -> str:
        """Keep a new token in the file, let it be rotated, and return it; arguments as of `GitLab.personal`."""
        token = self.cloud.personal(scopes, days, age)
        self.options = {"token": self.keep(token), "rotate": True}
        return token

    def kept(self) -> str:
        """Return what is in the file."""
        return self.file.read_text().strip()

    def marks(self) -> list[Path]:
        """Return the marks of rotations that have not ended."""
        return sorted((self.home / "state" / "uvtokend" / "chains").glob("*.json"))

    @property
    def request(self) -> Request:
        return loopback.asked("gitlab", self.service, **self.options)

    def fetch(self) -> Credential:
        """Fetch in this process."""
        return gitlab.fetch(self.request)

    def failure(self) -> Failure:
        """Fetch, expect a failure, and look for secrets in all that could be logged of it."""
        with pytest.raises(FetchFailed) as caught:
            self.fetch()
        return quiet(caught, [*self.cloud.issued(), CANARY])

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a fetch as the daemon does, in a process of its own."""
        more = {"UVTOKEND_REQUEST": wire.encode_request(self.request), "UVTOKEND_FETCH_TIMEOUT": "60"}
        command = [sys.executable, "-P", "-m", "uvtokend.providers.worker"]
        return subprocess.Popen(command, env={**os.environ, **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


@contextmanager
def loopback_world(home: Path, patch: pytest.MonkeyPatch) -> Iterator[World]:
    """Make a world in `home`, and an environment that knows nothing else: no proxy, no netrc."""
    forget(patch, ("PROXY", "CA_BUNDLE", "SSL_CERT", "GITLAB_", "CI_JOB"))
    for name, value in {"HOME": home, "XDG_STATE_HOME": home / "state", "NETRC": os.devnull}.items():
        patch.setenv(name, str(value))
    with GitLab() as cloud:
        yield World(cloud, home, patch, cloud.url)
