"""The environment of the tests of jfrog-artifactory: a loopback platform, and no way to a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from clouds.jfrog import JFrog
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers.jfrog import fetch as jfrog

CANARY = "CANARY-of-a-secret-that-must-never-be-shown"


@dataclass
class World:
    """A platform, and a home directory with the secrets."""

    platform: JFrog
    home: Path
    patch: pytest.MonkeyPatch
    service: str
    options: dict[str, Frozen] = field(default_factory=dict)
    #: Functions to call at the end of the test.
    closing: list[Callable[[], None]] = field(default_factory=list)

    def keep(self, name: str, text: str) -> Frozen:
        """Write a secret to a file, and return the reference to it."""
        (self.home / name).write_text(f"{text}\n")
        return (("file", str(self.home / name)),)

    def plant(self, user: str = "person", with_access: bool = True) -> str:
        """Write a new token pair to the files that refresh-token and access-token name,
        and return the refresh token.
        """
        access, refresh = self.platform.pair(user)
        self.options = {"refresh-token": self.keep("refresh", refresh)}
        if with_access:
            self.options["access-token"] = self.keep("access", access)
        return refresh

    def jf(self, document: object) -> None:
        """Write the configuration file of jf."""
        directory = self.home / ".jfrog"
        directory.mkdir(exist_ok=True)
        (directory / "jfrog-cli.conf.v6").write_text(json.dumps(document))

    @property
    def request(self) -> Request:
        return Request("jfrog-artifactory", self.service, tuple(sorted(self.options.items())))

    def fetch(self) -> Credential:
        """Fetch in this process."""
        return jfrog.fetch(self.request)

    def failure(self) -> Failure:
        """Fetch, expect a failure, and check that nothing that could be logged of it contains a secret."""
        with pytest.raises(FetchFailed) as caught:
            self.fetch()
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.failure)
        assert not [secret for secret in [*self.platform.issued(), CANARY] if secret in shown]
        return caught.value.failure

    def worker(self, timeout: float = 60.0) -> subprocess.Popen[bytes]:
        """Start a fetch in its own process, as the daemon does."""
        more = {"UVTOKEND_REQUEST": wire.encode_request(self.request), "UVTOKEND_FETCH_TIMEOUT": str(timeout)}
        command = [sys.executable, "-P", "-m", "uvtokend.providers.worker"]
        return subprocess.Popen(command, env={**os.environ, **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def chains(self) -> list[Path]:
        """Return the files of all chains, the oldest first."""
        files = (self.home / "state" / "uvtokend" / "chains").glob("*.json")
        return sorted(files, key=lambda file: file.stat().st_mtime_ns)

    def link(self) -> dict[str, Any]:
        """Return the newest chain's file."""
        chain: dict[str, Any] = json.loads(self.chains()[-1].read_bytes())
        return chain


def outcome(worker: subprocess.Popen[bytes]) -> Credential | Failure:
    """Return the answer of a worker."""
    return wire.decode_answer(worker.communicate(timeout=60)[0].rstrip())


@contextmanager
def loopback_world(home: Path, patch: pytest.MonkeyPatch) -> Iterator[World]:
    """Make an environment in `home` without proxy, netrc and other ways to a real service."""
    for name in list(os.environ):
        if any(word in name.upper() for word in ("PROXY", "CA_BUNDLE", "SSL_CERT", "JFROG_")):
            patch.delenv(name)
    for name, value in {"HOME": home, "XDG_STATE_HOME": home / "state", "NETRC": os.devnull}.items():
        patch.setenv(name, str(value))
    with JFrog() as platform:
        yield World(platform, home, patch, platform.url)
