"""The control socket with every kind of client, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uvtokend import peers
from uvtokend.core.model import Json, Problem
from uvtokend.daemon import control
from uvtokend.daemon.answers import NoMatchError
from uvtokend.daemon.control import ControlServer, UnknownNamesError
from uvtokend.daemon.processes import Process
from uvtokend.errors import ConfigError, UvtokendError


class Answers:
    """A handler that returns its arguments."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[dict[str, Json]], None]] = []

    async def status(self, names: list[str] | None) -> dict[str, Json]:
        if names == ["unknown"]:
            raise UnknownNamesError(names, ["prod"])
        return {"names": list(names) if names else None}

    async def refresh(self, names: list[str] | None, wait: bool) -> dict[str, Json]:
        return {"names": list(names) if names else None, "wait": wait}

    async def credential(
        self, url: str, username: str | None, min_life: float | None, asker: Process, name: str | None = None
    ) -> dict[str, Json]:
        if url == "https://other.example/":
            raise NoMatchError
        return {"url": url, "username": username, "min_life": min_life, "pid": asker.pid, "name": name}

    async def reload(self) -> dict[str, Json]:
        raise ConfigError([Problem("config.toml", "index[0].url", "It is missing.", "add it")])

    def stop(self) -> dict[str, Json]:
        raise UvtokendError("No.", "because")

    def version(self) -> dict[str, Json]:
        return {"version": "1"}

    def listen(self, listener: Callable[[dict[str, Json]], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def serve(directory: Path, talk: Callable[[str, Answers], Awaitable[None]]) -> None:
    async def main() -> None:
        path = str(directory / "s")
        answers = Answers()
        server = ControlServer(path, answers)
        await server.open()
        try:
            await asyncio.wait_for(talk(path, answers), 60)
        finally:
            await server.close()
        assert not os.path.exists(path)

    asyncio.run(main())


async def ask(client: Client, line: bytes) -> Any:
    reader, writer = client
    writer.write(line)
    await writer.drain()
    return json.loads(await reader.readline())


def command(method: str, **params: Json) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"


def test_a_notification_gets_no_answer(tmp_path: Path) -> None:
    """A notification, even an invalid one, gets no answer, so the next answer on the connection belongs to the next
    request. A client that subscribes to events by a notification gets only the events."""

    async def talk(path: str, answers: Answers) -> None:
        client = await asyncio.open_unix_connection(path)
        for line in (
            b'{"jsonrpc": "2.0", "method": "version"}',
            b'{"jsonrpc": "2.0", "method": "no-such-method"}',
            b'{"jsonrpc": "2.0", "method": "status", "params": []}',
            b'{"jsonrpc": "2.0", "method": "status", "params": {"names": "a"}}',
            b'{"jsonrpc": "2.0", "method": "reload"}',
        ):
            client[1].write(line + b"\n")
        assert await ask(client, command("version")) == {"jsonrpc": "2.0", "id": 1, "result": {"version": "1"}}
        client[1].write(b'{"jsonrpc": "2.0", "method": "events"}\n')
        while not answers.listeners:
            await asyncio.sleep(0)
        answers.listeners[0]({"number": 0})
        assert json.loads(await client[0].readline())["params"] == {"number": 0}
        client[1].close()

    serve(tmp_path, talk)


def test_every_method_answers(tmp_path: Path) -> None:
    """Results and errors have the id of their request, and several requests may share a connection."""

    async def talk(path: str, _answers: Answers) -> None:
        client = await asyncio.open_unix_connection(path)
        for line, part in (
            (command("version"), {"result": {"version": "1"}}),
            (command("status"), {"result": {"names": None}}),
            (command("status", names=["a", "b"]), {"result": {"names": ["a", "b"]}}),
            (command("refresh", names=["a"]), {"result": {"names": ["a"], "wait": True}}),
            (command("refresh", wait=False), {"result": {"names": None, "wait": False}}),
        ):
            assert await ask(client, line) == {"jsonrpc": "2.0", "id": 1, **part}
        for line, code, data in (
            (command("nothing"), -32601, None),
            (command("status", names="a"), -32602, None),
            (command("refresh", wait="yes"), -32602, None),
            (command("status", names=["unknown"]), -32602, {"unknown": ["unknown"], "known": ["prod"]}),
            (command("stop"), -32001, {"hint": "because"}),
            (b"nonsense\n", -32700, None),
        ):
            error = (await ask(client, line))["error"]
            assert (error["code"], error.get("data")) == (code, data)
        refused = (await ask(client, command("reload")))["error"]["data"]["problems"]
        assert [problem["where"] for problem in refused] == ["index[0].url"]
        client[1].close()

    serve(tmp_path, talk)


def test_a_credential_request_knows_the_asking_process(tmp_path: Path) -> None:
    """The kernel tells which process asks, or its parent if a shim asks. Invalid parameters are refused."""

    async def talk(path: str, _answers: Answers) -> None:
        client = await asyncio.open_unix_connection(path)
        good: tuple[tuple[dict[str, Json], dict[str, Json]], ...] = (
            ({"url": "u"}, {"url": "u", "username": None, "min_life": None, "pid": os.getpid()}),
            ({"url": "u", "username": "", "min_life": 60}, {"username": "", "min_life": 60, "pid": os.getpid()}),
            ({"url": "u", "name": "prod"}, {"url": "u", "name": "prod"}),
            ({"url": "u", "shim": True}, {"pid": os.getppid()}),
        )
        for params, expected in good:
            result = (await ask(client, command("credential", **params)))["result"]
            assert expected.items() <= result.items()
        bad: tuple[tuple[dict[str, Json], int], ...] = (
            ({}, -32602),
            ({"url": 1}, -32602),
            ({"url": "u", "username": 1}, -32602),
            ({"url": "u", "name": ["prod"]}, -32602),
            ({"url": "u", "min_life": "1h"}, -32602),
            ({"url": "u", "min_life": -1}, -32602),
            ({"url": "u", "min_life": True}, -32602),
            ({"url": "https://other.example/"}, -32002),
        )
        for params, code in bad:
            assert (await ask(client, command("credential", **params)))["error"]["code"] == code
        client[1].close()

    serve(tmp_path, talk)


def test_the_socket_is_private(tmp_path: Path) -> None:
    """The socket has mode 0600, replaces the one of a killed daemon, and knows the peer's uid and pid."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "s"))
    stale.close()

    async def talk(path: str, _answers: Answers) -> None:
        assert os.stat(path).st_mode & 0o777 == 0o600
        _, writer = await asyncio.open_unix_connection(path)
        peer = writer.get_extra_info("socket")
        assert (peers.uid(peer), peers.pid(peer)) == (os.getuid(), os.getpid())
        writer.close()

    serve(tmp_path, talk)


def test_a_client_that_connects_as_the_daemon_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose task is canceled before it starts is disconnected too."""
    connected = ControlServer._connected

    def canceled(server: ControlServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected(server, reader, writer)
        for task in server._clients:
            task.cancel()

    async def talk(path: str, _answers: Answers) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        writer.close()

    monkeypatch.setattr(ControlServer, "_connected", canceled)
    serve(tmp_path, talk)


def test_another_user_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer with another uid is disconnected without an answer."""
    monkeypatch.setattr(peers, "uid", lambda _: os.getuid() + 1)

    async def talk(path: str, _answers: Answers) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        with contextlib.suppress(ConnectionResetError):  # the line may be unread
            writer.write(command("version"))
            assert await reader.read() == b""
        writer.close()

    serve(tmp_path, talk)


def test_too_long_and_unfinished_lines(tmp_path: Path) -> None:
    """A line that is too long or incomplete gets an error and ends the connection. The next client is served."""

    async def talk(path: str, _answers: Answers) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x" * 10_000_000)
        assert json.loads(await reader.readline())["error"]["code"] == -32600
        writer.close()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"jsonrpc"')
        writer.write_eof()
        assert json.loads(await reader.readline())["error"]["code"] == -32700
        assert await reader.read() == b""
        writer.close()
        client = await asyncio.open_unix_connection(path)
        assert (await ask(client, command("version")))["result"]
        client[1].close()

    serve(tmp_path, talk)


def test_a_client_that_never_reads_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read its answers is disconnected, and others are served meanwhile."""
    monkeypatch.setattr(control, "SLOW", 0.2)

    async def talk(path: str, _answers: Answers) -> None:
        client_socket = socket.socket(socket.AF_UNIX)
        client_socket.connect(path)
        client_socket.setblocking(False)
        loop = asyncio.get_running_loop()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                await loop.sock_sendall(client_socket, command("status", names=["x" * 60000]))
        client_socket.close()
        client = await asyncio.open_unix_connection(path)
        assert (await ask(client, command("version")))["result"]
        client[1].close()

    serve(tmp_path, talk)


def test_when_all_slots_are_taken_the_client_idle_longest_is_dropped(tmp_path: Path) -> None:
    """With 129 clients, the one that has been idle longest is disconnected and the last one is served."""

    async def talk(path: str, _answers: Answers) -> None:
        clients = []
        for _number in range(control.MAX_CLIENTS + 1):
            client = await asyncio.open_unix_connection(path)
            assert (await ask(client, command("version")))["result"]
            clients.append(client)
        assert await clients[0][0].read() == b""
        assert (await ask(clients[1], command("version")))["result"]
        for _, writer in clients:
            writer.close()

    serve(tmp_path, talk)


def test_simultaneous_clients_never_exceed_the_slots(tmp_path: Path) -> None:
    """Even if clients connect faster than dropped ones leave, there are never more than the slots."""

    async def talk(path: str, _answers: Answers) -> None:
        flood = [socket.socket(socket.AF_UNIX) for _ in range(control.MAX_CLIENTS + 70)]
        for each in flood[:100]:
            each.connect(path)  # before the server runs
        client = await asyncio.open_unix_connection(path)
        assert (await ask(client, command("version")))["result"]
        for each in flood[100:]:
            each.connect(path)
        assert (await ask(client, command("version")))["result"]
        last = await asyncio.open_unix_connection(path)
        assert (await ask(last, command("version")))["result"]
        dropped = 0
        for each in flood:
            each.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                dropped += each.recv(1) == b""
            each.close()
        assert len(flood) + 2 - dropped <= control.MAX_CLIENTS
        for _, writer in (client, last):
            writer.close()

    serve(tmp_path, talk)


def test_events_are_streamed(tmp_path: Path) -> None:
    """A subscriber gets every event as a notification, and is removed when it disconnects."""

    async def talk(path: str, answers: Answers) -> None:
        client = await asyncio.open_unix_connection(path)
        assert (await ask(client, command("events")))["result"] == {"ok": True}
        for number in range(1000):  # more than the queue holds, so the newest are dropped
            answers.listeners[0]({"number": number})
        event = json.loads(await client[0].readline())
        assert (event["method"], event["params"]) == ("event", {"number": 0})
        client[1].close()

    serve(tmp_path, talk)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=80), min_size=20, max_size=60))
def test_garbage_does_no_harm(tmp_path: Path, garbage: list[bytes]) -> None:
    """Every invalid line gets an error, and the next client is served."""

    async def talk(path: str, _answers: Answers) -> None:
        client = await asyncio.open_unix_connection(path)
        for piece in garbage:
            answer = await ask(client, piece.replace(b"\n", b"") + b"\n")
            assert answer["error"]["code"] in {-32700, -32600, -32601, -32602}
        client[1].close()

    serve(tmp_path, talk)
