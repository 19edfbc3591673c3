"""The main task, end to end: the real daemon, boto3 and uv, and a netrc between them."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.unprivileged import hidden
from support.waiting import until
from uvtokend.sandbox.codeartifact import CodeArtifact, error
from uvtokend.sandbox.index import PackageIndex, wheel
from uvtokend.sandbox.machine import AwsMachine
from uvtokend.sandbox.web import Answer, Call


@dataclass
class World:
    """A cloud, an index that accepts its tokens, and a laptop with a project that uses the index."""

    laptop: AwsMachine
    cloud: CodeArtifact
    index: PackageIndex
    project: Path
    #: Called before the cloud answers.
    hook: Callable[[Call], Answer | None] = field(default=lambda _: None)

    def uv(self, *arguments: str, status: int = 0) -> str:
        """Run uv in the project, check its exit status, and return its output."""
        # Without UV_PYTHON, uv starts four Pythons to find one; with it, `uv pip` would install into ours.
        env = {} if arguments[0] == "pip" else {"UV_PYTHON": sys.executable}
        done = self.laptop.uv(*arguments, cwd=self.project, env=env)
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def ours(self, *arguments: str, status: int = 0) -> str:
        """Run uvtokend, check its exit status, and return its output."""
        done = self.laptop.uvtokend(*arguments)
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def seen(self) -> str:
        """Return the packages and versions that are installed in the project."""
        return " ".join(sorted(path.stem for path in self.project.glob(".venv/lib/*/site-packages/*.dist-info")))

    def start(self) -> None:
        """Start the daemon and wait for its first delivery."""
        self.laptop.start()
        self.wait(lambda: "machine" in self.entry())

    def entry(self) -> str:
        """Return the text of the netrc."""
        return self.laptop.netrc.read_text() if self.laptop.netrc.exists() else ""

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, at most 60 s."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, self.laptop.output.read_text()
            assert self.laptop.daemon is not None
            assert self.laptop.daemon.poll() is None, self.laptop.output.read_text()
            time.sleep(0.02)


PYPROJECT = """\
[project]
name = "work"
version = "1"
requires-python = ">=3.11"
dependencies = ["alpha"]

[[tool.uv.index]]
name = "acme"
url = "{url}"
publish-url = "{upload}"
default = true
authenticate = "always"
"""


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Make the whole setup, without starting the daemon."""
    made: World | None = None
    tmp_path = tmp_path_factory.mktemp("w")  # a short path, because it contains a socket
    with (
        CodeArtifact(fault=lambda call: made.hook(call) if made else None) as cloud,
        PackageIndex(lambda login, token: login == "aws" and cloud.valid(token)) as index,
    ):
        (tmp_path / "laptop").mkdir()
        laptop = AwsMachine(tmp_path / "laptop", cloud)
        laptop.configure(acme=index.url)
        project = tmp_path / "project"
        project.mkdir()
        (project / "pyproject.toml").write_text(PYPROJECT.format(url=index.url, upload=index.upload_url))
        made = World(laptop, cloud, index, project)
        yield made
        laptop.stop()


def test_uv_works_with_only_the_netrc(world: World) -> None:
    """Lock, sync, add, pip install and publish work without a refused request.

    Apart from the netrc, no file, output or log contains the token.
    """
    world.start()
    outputs = [world.uv("lock"), world.uv("sync"), world.uv("add", "eta==1.1")]
    assert "alpha-2.0" in world.seen()
    assert "eta-1.1" in world.seen()
    outputs.append(world.uv("pip", "install", "--reinstall", "--no-cache", "alpha==1.0"))
    assert "alpha-1.0" in world.seen()
    (world.project / "dist").mkdir()
    (world.project / "dist" / "omega-1.0-py3-none-any.whl").write_bytes(wheel("omega", "1.0"))
    outputs.append(world.uv("publish", "--trusted-publishing", "never", "--index", "acme"))
    assert "omega-1.0-py3-none-any.whl" in world.index.files
    outputs += [world.uv("add", "omega"), world.uv("export", "--emit-index-url")]
    assert world.index.refused == 0
    assert world.index.accepted > 20
    outputs += [world.ours("status"), world.ours("status", "--json"), world.ours("refresh"), world.ours("log")]
    assert len(world.cloud.tokens) == 2
    files = [path for path in world.laptop.directory.parent.rglob("*") if path.is_file() and path != world.laptop.netrc]
    assert {world.project / "pyproject.toml", world.project / "uv.lock", world.laptop.state / "events.jsonl"} <= {
        *files
    }
    for token in world.cloud.tokens:
        assert [path for path in files if token.encode() in path.read_bytes()] == []
        assert token not in "".join(outputs)
    assert next(reversed(world.cloud.tokens)) in world.entry()


def test_no_argument_and_no_environment_contains_the_token(world: World) -> None:
    """The process list shows neither the token in the netrc nor the new one that a worker has just fetched."""
    seen: list[str] = []
    known: set[str] = set()

    def look(call: Call) -> None:
        if call.form().get("Action") == "GetCallerIdentity" and world.laptop.daemon:
            until(lambda: set(world.cloud.tokens) - known)  # the worker fetches its identity in parallel with the token
            known.update(world.cloud.tokens)
            daemon = psutil.Process(world.laptop.daemon.pid)
            for process in (daemon, *daemon.children(recursive=True)):
                seen.extend([*process.cmdline(), *({} if hidden(process) else process.environ()).values()])

    world.hook = look
    world.start()
    world.ours("refresh")
    assert sum("uvtokend.providers.worker" in text for text in seen) == 2
    assert [text for token in world.cloud.tokens for text in seen if token in text] == []


def test_a_refresh_replaces_a_revoked_token(world: World) -> None:
    """When the token is revoked, uv fails, and works again after a refresh."""
    world.start()
    world.uv("sync", "--no-cache")
    world.cloud.tokens.clear()
    assert "401 Unauthorized" in world.uv("sync", "--no-cache", "--reinstall", status=2)
    world.ours("refresh")
    world.uv("sync", "--no-cache", "--reinstall")


def test_an_expired_token_is_removed_and_uv_sends_no_request(world: World) -> None:
    """If a token expires while the cloud is down, its entry is removed and uv stops before any request.

    When the cloud is back, uv works again.
    """
    world.cloud.life = 3.0
    world.start()
    world.hook = lambda _: error(500, "InternalServerException", "Down.")
    world.wait(lambda: "machine" not in world.entry())
    before = len(world.index.server.calls)
    assert "Missing credentials" in world.uv("lock", status=2)
    assert len(world.index.server.calls) == before
    document: dict[str, Any] = json.loads(world.ours("status", "--json", status=1))
    assert (document["indexes"][0]["health"], document["indexes"][0]["delivered"]) == ("expired", False)
    world.cloud.life = 3600.0
    world.hook = lambda _: None
    world.ours("refresh")
    world.uv("lock")


def test_a_foreign_netrc_is_kept(world: World) -> None:
    """The user's own netrc entries stay byte for byte while the daemon runs and after purge."""
    foreign = b"# mine\nmachine ftp.example login me password mine"
    world.laptop.netrc.write_bytes(foreign)
    world.laptop.netrc.chmod(0o600)
    world.start()
    world.wait(lambda: "machine 127.0.0.1" in world.entry())
    assert foreign in world.laptop.netrc.read_bytes()
    world.uv("sync")
    world.ours("purge")
    assert world.laptop.netrc.read_bytes() == foreign


@pytest.mark.root
def test_daemon_and_worker_connect_only_to_loopback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemon and worker have no connection to another machine."""
    peers: list[str] = []

    def look(call: Call) -> None:
        if world.laptop.daemon is not None:
            daemon = psutil.Process(world.laptop.daemon.pid)
            for process in (daemon, *daemon.children(recursive=True)):
                peers.extend(
                    connection.raddr.ip
                    for connection in process.net_connections("inet")
                    if connection.raddr and connection.family in {socket.AF_INET, socket.AF_INET6}
                )

    world.hook = look
    world.start()
    assert set(peers) == {"127.0.0.1"}
