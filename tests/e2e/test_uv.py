"""The main job, end to end: real daemon, real boto3, real uv, and a netrc between them."""

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
    """A cloud, an index that believes it, and a laptop with a project that uses the index."""

    laptop: AwsMachine
    cloud: CodeArtifact
    index: PackageIndex
    project: Path
    #: Asked before the cloud answers.
    hook: Callable[[Call], Answer | None] = field(default=lambda _: None)

    def uv(self, *arguments: str, status: int = 0) -> str:
        """Run uv in the project and return what it said; it must end with this status."""
        # Told of no Python, uv would start four to find one; told of ours, `uv pip` would install there.
        env = {} if arguments[0] == "pip" else {"UV_PYTHON": sys.executable}
        done = self.laptop.uv(*arguments, cwd=self.project, env=env)
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def ours(self, *arguments: str, status: int = 0) -> str:
        """Run a command of ours and return what it said; it must end with this status."""
        done = self.laptop.uvtokend(*arguments)
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def seen(self) -> str:
        """Return every version of packages that is installed in the project."""
        return " ".join(sorted(path.stem for path in self.project.glob(".venv/lib/*/site-packages/*.dist-info")))

    def start(self) -> None:
        """Start the daemon and wait for its first delivery."""
        self.laptop.start()
        self.wait(lambda: "machine" in self.entry())

    def entry(self) -> str:
        """Return what is in the netrc."""
        return self.laptop.netrc.read_text() if self.laptop.netrc.exists() else ""

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, and not for ever."""
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
    """Everything, with the daemon not started yet."""
    made: World | None = None
    tmp_path = tmp_path_factory.mktemp("w")  # a short path, since a socket is in it
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


def test_uv_works_through_the_netrc_alone(world: World) -> None:
    """Lock, sync, add, pip install and publish all get what they want with no request refused on the way, and the
    token is in no file, output or log beside the netrc."""
    world.start()
    said = [world.uv("lock"), world.uv("sync"), world.uv("add", "eta==1.1")]
    assert "alpha-2.0" in world.seen()
    assert "eta-1.1" in world.seen()
    said.append(world.uv("pip", "install", "--reinstall", "--no-cache", "alpha==1.0"))
    assert "alpha-1.0" in world.seen()
    (world.project / "dist").mkdir()
    (world.project / "dist" / "omega-1.0-py3-none-any.whl").write_bytes(wheel("omega", "1.0"))
    said.append(world.uv("publish", "--trusted-publishing", "never", "--index", "acme"))
    assert "omega-1.0-py3-none-any.whl" in world.index.files
    said += [world.uv("add", "omega"), world.uv("export", "--emit-index-url")]
    assert world.index.refused == 0
    assert world.index.accepted > 20
    said += [world.ours("status"), world.ours("status", "--json"), world.ours("refresh"), world.ours("log")]
    assert len(world.cloud.tokens) == 2
    files = [path for path in world.laptop.directory.parent.rglob("*") if path.is_file() and path != world.laptop.netrc]
    assert {world.project / "pyproject.toml", world.project / "uv.lock", world.laptop.state / "events.jsonl"} <= {
        *files
    }
    for token in world.cloud.tokens:
        assert [path for path in files if token.encode() in path.read_bytes()] == []
        assert token not in "".join(said)
    assert next(reversed(world.cloud.tokens)) in world.entry()


def test_the_token_stands_in_no_argument_and_no_environment(world: World) -> None:
    """While a worker holds the new token and the old one is in the netrc, neither shows in the process list."""
    seen: list[str] = []
    known: set[str] = set()

    def look(call: Call) -> None:
        if call.form().get("Action") == "GetCallerIdentity" and world.laptop.daemon:
            until(lambda: set(world.cloud.tokens) - known)  # the worker asks for its identity beside the token
            known.update(world.cloud.tokens)
            daemon = psutil.Process(world.laptop.daemon.pid)
            for process in (daemon, *daemon.children(recursive=True)):
                seen.extend([*process.cmdline(), *({} if hidden(process) else process.environ()).values()])

    world.hook = look
    world.start()
    world.ours("refresh")
    assert sum("uvtokend.providers.worker" in text for text in seen) == 2
    assert [text for token in world.cloud.tokens for text in seen if token in text] == []


def test_a_rotated_token_serves_the_next_uv(world: World) -> None:
    """When the old token is revoked, a refresh is all that it takes."""
    world.start()
    world.uv("sync", "--no-cache")
    world.cloud.tokens.clear()
    assert "401 Unauthorized" in world.uv("sync", "--no-cache", "--reinstall", status=2)
    world.ours("refresh")
    world.uv("sync", "--no-cache", "--reinstall")


def test_a_dead_token_is_taken_out_and_uv_asks_nobody(world: World) -> None:
    """A token that dies while the cloud gives none is removed; uv then stops before any request; when the cloud is
    back, so is uv."""
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
    """What a user has written for other hosts is there byte for byte, before, while and after we run."""
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
def test_nothing_but_loopback_was_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemon and worker hold no connection to anything but this machine."""
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
