"""The environment of the tests of gitlab: a loopback GitLab, and no way to a real one."""

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
    """A GitLab, and a home directory with the tokens."""

    cloud: GitLab
    home: Path
    patch: pytest.MonkeyPatch
    service: str
    options: dict[str, Frozen] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """The path of the token's file."""
        return self.home / "token"

    def at(self, hour: str) -> None:
        """Set GitLab's clock to a time of day, UTC, such as ``23:50``: a token expires on a date,
        so the time matters.
        """
        now = datetime.now(UTC)
        shown = datetime.combine(now.date(), time.fromisoformat(hour), UTC)
        self.cloud.clock_ahead = (shown - now).total_seconds()

    def keep(self, token: str) -> Frozen:
        """Write a token to the file, and return the reference to it."""
        self.file.write_text(f"{token}\n")
        self.file.chmod(0o600)
        return (("file", str(self.file)),)

    def plant(
        self, days: float | None = 90, age: float = 0, scopes: tuple[str, ...] = ("read_api", "self_rotate")
    ) -> str:
        """Write a new token to the file, configure its rotation, and return it;
        the arguments are those of `GitLab.personal`.
        """
        token = self.cloud.personal(scopes, days, age)
        self.options = {"token": self.keep(token), "rotate": True}
        return token

    def kept(self) -> str:
        """Return the content of the file."""
        return self.file.read_text().strip()

    def marks(self) -> list[Path]:
        """Return the marks of unfinished rotations."""
        return sorted((self.home / "state" / "uvtokend" / "chains").glob("*.json"))

    @property
    def request(self) -> Request:
        return loopback.asked("gitlab", self.service, **self.options)

    def fetch(self) -> Credential:
        """Fetch in this process."""
        return gitlab.fetch(self.request)

    def failure(self) -> Failure:
        """Fetch, expect a failure, and check that nothing that could be logged of it contains a secret."""
        with pytest.raises(FetchFailed) as caught:
            self.fetch()
        return quiet(caught, [*self.cloud.issued(), CANARY])

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a fetch in its own process, as the daemon does."""
        more = {"UVTOKEND_REQUEST": wire.encode_request(self.request), "UVTOKEND_FETCH_TIMEOUT": "60"}
        command = [sys.executable, "-P", "-m", "uvtokend.providers.worker"]
        return subprocess.Popen(command, env={**os.environ, **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


@contextmanager
def loopback_world(home: Path, patch: pytest.MonkeyPatch) -> Iterator[World]:
    """Make an environment in `home` without proxy, netrc and other ways to a real service."""
    forget(patch, ("PROXY", "CA_BUNDLE", "SSL_CERT", "GITLAB_", "CI_JOB"))
    for name, value in {"HOME": home, "XDG_STATE_HOME": home / "state", "NETRC": os.devnull}.items():
        patch.setenv(name, str(value))
    with GitLab() as cloud:
        yield World(cloud, home, patch, cloud.url)
