"""The control socket becomes reachable again after another program removed it."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from test_control import Answers, ask, command
from test_loop import live as daemon_of

from uvtokend import paths
from uvtokend.core.events import Report
from uvtokend.daemon.endpoint import Endpoint, SocketLock
from uvtokend.daemon.loop import Daemon
from uvtokend.disk.locks import Lock
from uvtokend.errors import UvtokendError


def live(socket: Path, story: Callable[[Endpoint, list[Report]], Awaitable[None]]) -> None:
    """Serve a socket while a story runs."""

    async def main() -> None:
        reports: list[Report] = []
        lock = SocketLock(str(socket))
        endpoint = Endpoint(lock, Answers(), reports.append)
        await endpoint.server.open()
        try:
            await asyncio.wait_for(story(endpoint, reports), 60)
        finally:
            await endpoint.server.close()
            lock.release()

    asyncio.run(main())


async def answered(socket: Path) -> bool:
    """Return whether a new client gets an answer."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    answer = await ask((reader, writer), command("version"))
    writer.close()
    return bool(answer["result"])


@pytest.mark.parametrize("gone", ["socket", "directory", "replaced"])
def test_a_removed_socket_is_bound_again(tmp_path: Path, gone: str) -> None:
    """The socket is bound again only if it was removed, and connected clients stay connected."""
    socket = tmp_path / "run" / "s"

    async def story(endpoint: Endpoint, reports: list[Report]) -> None:
        before = await asyncio.open_unix_connection(str(socket))
        assert (await ask(before, command("version")))["result"]
        await endpoint.keep()
        assert reports == []
        if gone == "directory":
            shutil.rmtree(socket.parent)
        else:
            socket.unlink()
        if gone == "replaced":
            socket.write_text("")
        assert not await answered(socket)
        for _ in range(2):
            await endpoint.keep()
        assert await answered(socket)
        assert [report.event for report in reports] == ["socket"]
        assert (await ask(before, command("version")))["result"]
        before[1].close()
        with pytest.raises(UvtokendError, match="already has an owner"):
            Lock(f"{socket}.lock", "The socket")

    live(socket, story)
    assert not socket.exists()


def test_binding_is_retried_later(tmp_path: Path) -> None:
    """If the directory is not private, or another daemon owns the socket, nothing is changed or reported, and the
    next tick retries."""
    socket = tmp_path / "run" / "s"

    async def story(endpoint: Endpoint, reports: list[Report]) -> None:
        shutil.rmtree(socket.parent)
        socket.parent.mkdir()
        socket.parent.chmod(0o755)
        await endpoint.keep()
        assert (reports, os.listdir(socket.parent)) == ([], [])
        socket.parent.chmod(0o700)
        other = Lock(f"{socket}.lock", "The socket")
        await endpoint.keep()
        assert (reports, await answered(socket)) == ([], False)
        other.release()
        await endpoint.keep()
        assert await answered(socket)

    live(socket, story)


def test_a_replaced_socket_is_not_removed_at_the_end(tmp_path: Path) -> None:
    """At its end the daemon does not remove a path that another program has replaced."""
    socket = tmp_path / "run" / "s"

    async def story(_endpoint: Endpoint, _reports: list[Report]) -> None:
        socket.unlink()
        socket.write_text("theirs")

    live(socket, story)
    assert socket.read_text() == "theirs"


def test_a_hung_socket_directory_blocks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the directory of the socket does not answer, guard ticks continue with one waiting thread, the sinks are
    still checked, and the daemon can end."""
    answers, looks = threading.Event(), list[str]()

    def inode(path: str) -> tuple[int, int] | None:
        looks.append(path)
        answers.wait(60)
        return None

    async def story(daemon: Daemon) -> None:
        endpoint = Endpoint(SocketLock(str(tmp_path / "run" / "s")), Answers(), lambda _: None)
        await endpoint.server.open()
        monkeypatch.setattr(paths, "inode", inode)
        daemon.at_tick = endpoint.look
        for _ in range(3):
            daemon._tick()
        (tmp_path / "netrc").write_text("")
        while "machine" not in (tmp_path / "netrc").read_text():
            daemon._tick()
            await asyncio.sleep(0.01)
        assert 1 <= len(looks) <= 2
        await asyncio.wait_for(endpoint.server.close(), 30)
        assert (tmp_path / "run" / "s").exists()

    try:
        daemon_of(tmp_path, monkeypatch, story)
    finally:
        answers.set()
