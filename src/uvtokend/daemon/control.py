"""The control socket: JSON-RPC 2.0, one object per line, for the same user only.

The directory is 0700, the socket 0600, and the peer's uid is checked as well. A client that sends an invalid line gets
an error. A notification, a request without an id, is carried out and gets no answer. Clients that send too much or stop
reading are disconnected. When all slots are taken, the client that has been idle longest is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from uvtokend import errors, paths, peers
from uvtokend.core import wire
from uvtokend.core.model import Json
from uvtokend.core.wire import Command, Encoded, Invalid
from uvtokend.daemon import processes
from uvtokend.daemon.answers import NoMatchError
from uvtokend.daemon.aside import aside
from uvtokend.daemon.processes import Process
from uvtokend.errors import ConfigError, UvtokendError

#: The most clients. When no slot is left, a new client replaces the one that has been idle longest.
MAX_CLIENTS = 128
#: Seconds that a client may take to read a response.
SLOW = 10.0
#: Seconds that the socket's file system gets to answer when the daemon ends.
LAST = 0.2
#: The most events that wait for a listener; a slow listener loses events.
_BACKLOG_OF_EVENTS = 100
#: From Python 3.13 on, asyncio looks for the socket's file in the loop, and removes it when the server is closed
#: (``loop.create_unix_server``). It must not, because the file's directory may not answer.
_UNREMOVED: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
_TOO_LONG = f"The line is longer than {wire.CONTROL_LIMIT // 1024} KiB."


class UnknownNamesError(Exception):
    """A client named indexes that do not exist."""

    def __init__(self, unknown: list[str], known: list[str]) -> None:
        super().__init__(unknown)
        self.unknown = unknown
        self.known = known


class ControlHandler(Protocol):
    """The methods that clients can call."""

    async def status(self, names: list[str] | None) -> dict[str, Json] | Encoded:
        """Return the status document."""

    async def refresh(self, names: list[str] | None, wait: bool) -> dict[str, Json]:
        """Fetch now and return the status document once it is settled."""

    async def credential(
        self, url: str, username: str | None, min_life: float | None, asker: Process, name: str | None = None
    ) -> dict[str, Json]:
        """Return the login, token and end of life of the credential for a URL."""

    async def reload(self) -> dict[str, Json]:
        """Read the configuration again."""

    def stop(self) -> dict[str, Json]:
        """End the daemon."""

    def version(self) -> dict[str, Json]:
        """Return the version, process ID and files of this daemon."""

    def listen(self, listener: Callable[[dict[str, Json]], None]) -> Callable[[], None]:
        """Call the listener with every event until the returned function is called."""


class ControlServer:
    """Serves the socket until closed."""

    def __init__(self, path: str, handler: ControlHandler) -> None:
        self._path = path
        self._handler = handler
        self._clients: dict[asyncio.Task[None], float] = {}
        self._server: asyncio.Server | None = None
        self._bound: tuple[int, int] | None = None

    async def open(self) -> None:
        """Bind the socket's path, or bind it again. A killed daemon may have left a file there.

        The caller holds the socket's lock: ``asyncio.start_unix_server`` would take over a running daemon's path too.

        Raises:
            OSError: The path cannot be bound.
        """
        await self._stop_listening()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self._path)
            os.chmod(self._path, 0o600)
        except OSError:
            listener.close()
            raise
        self._bound = paths.inode(self._path)
        self._server = await asyncio.start_unix_server(
            self._connected, sock=listener, limit=wire.CONTROL_LIMIT, backlog=MAX_CLIENTS, **_UNREMOVED
        )

    def reachable(self) -> bool:
        """Return whether the socket that we bound is still at its path."""
        return self._bound is not None and paths.inode(self._path) == self._bound

    async def close(self) -> None:
        """Disconnect all clients and remove the socket, unless its file system does not answer."""
        reachable = aside(self.reachable, "socket")
        await asyncio.wait({reachable}, timeout=LAST)
        await self._stop_listening()
        if reachable.done() and reachable.result():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        clients = tuple(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _stop_listening(self) -> None:
        """Accept no more connections, and let the accepted ones become clients.

        If the asyncio server is closed in between, it drops them with an open socket (``Server._attach``).
        """
        if self._server is None:
            return
        for listener in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _step in ("make the transport", "tell the protocol", "begin the task"):
            await asyncio.sleep(0)
        self._server.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client in a task. The end of the task is noticed even if it is canceled before its first step."""
        if len(self._clients) >= MAX_CLIENTS:
            idlest = min(self._clients, key=lambda client: self._clients[client])
            del self._clients[idlest]  # at once: if many connect together, each must replace another client
            idlest.cancel()
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._heard(task)
        task.add_done_callback(functools.partial(self._disconnect, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a suppressed error: the client is gone, slow, or was dropped
        with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
            if peers.uid(writer.get_extra_info("socket")) == os.getuid():
                await self._converse(reader, writer)

    def _disconnect(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._clients.pop(task, None)
        if writer.transport.get_write_buffer_size():
            writer.transport.abort()  # `close` would wait for a client that does not read
        else:
            writer.close()

    def _heard(self, task: asyncio.Task[None]) -> None:
        self._clients[task] = asyncio.get_running_loop().time()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        while True:
            try:
                line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as end:
                if end.partial.strip():
                    await _send(writer, wire.encode_error(None, errors.PARSE_ERROR, "The line has no end."))
                return
            except asyncio.LimitOverrunError:
                await _send(writer, wire.encode_error(None, errors.INVALID_REQUEST, _TOO_LONG))
                return
            self._heard(task)
            command = wire.decode_command(line)
            if isinstance(command, Command) and command.method == "events":
                await self._stream(command, writer)
                return
            answer = await self._answer(command, writer.get_extra_info("socket"))
            if not command.notification:
                await _send(writer, answer)

    async def _answer(self, command: Command | Invalid, peer: socket.socket) -> bytes:
        if isinstance(command, Invalid):
            return wire.encode_error(command.id, command.code, command.message)
        call = self._method(command, peer)
        if call is None:
            message = f"There is no method {command.method[:40]!r}."
            return wire.encode_error(command.id, errors.METHOD_NOT_FOUND, message)
        try:
            return wire.encode_result(command.id, await call)
        except (UnknownNamesError, NoMatchError, UvtokendError, ValueError) as error:
            return wire.encode_error(command.id, *explained(error))

    def _method(self, command: Command, peer: socket.socket) -> Awaitable[Json | Encoded] | None:
        """Return the awaitable answer to a command, or None for an unknown method."""
        params, handler = command.params, self._handler
        match command.method:
            case "status":
                return _status(handler, params)
            case "refresh":
                return _refresh(handler, params)
            case "credential":
                return _credential(handler, params, peer)
            case "reload":
                return _reload(handler)
            case "stop":
                return _soon(handler.stop)
            case "version":
                return _soon(handler.version)
        return None

    async def _stream(self, command: Command, writer: asyncio.StreamWriter) -> None:
        """Send events until the client disconnects; its further requests are ignored."""
        events: asyncio.Queue[dict[str, Json]] = asyncio.Queue(_BACKLOG_OF_EVENTS)

        def listener(event: dict[str, Json]) -> None:
            with contextlib.suppress(asyncio.QueueFull):  # a client that stops reading loses events
                events.put_nowait(event)

        leave = self._handler.listen(listener)
        try:
            if not command.notification:
                await _send(writer, wire.encode_result(command.id, {"ok": True}))
            while True:
                await _send(writer, wire.encode_event(await events.get()))
        finally:
            leave()


def explained(error: UnknownNamesError | NoMatchError | UvtokendError | ValueError) -> tuple[int, str, Json]:
    """Return the code, message and data of a JSON-RPC error; `uvtokend.cli.client` makes an exception of them."""
    if isinstance(error, NoMatchError):
        return errors.NO_MATCH, "No index is configured for this URL and user name.", None
    if isinstance(error, UnknownNamesError):
        return errors.INVALID_PARAMS, "No index has that name.", {"unknown": [*error.unknown], "known": [*error.known]}
    if isinstance(error, ConfigError):
        problems: list[Json] = [
            {"file": bad.file, "where": bad.where, "message": bad.message, "hint": bad.hint} for bad in error.problems
        ]
        return errors.REFUSED, "The configuration is invalid.", {"problems": problems}
    if isinstance(error, UvtokendError):
        return errors.REFUSED, error.message, {"hint": error.hint}
    return errors.INVALID_PARAMS, str(error), None


async def _soon(call: Callable[[], dict[str, Json]]) -> Json:
    """Make an immediate answer awaitable, like the others."""
    return call()


async def _reload(handler: ControlHandler) -> Json:
    return await handler.reload()


async def _status(handler: ControlHandler, params: dict[str, Json]) -> Json | Encoded:
    return await handler.status(_names(params))


async def _refresh(handler: ControlHandler, params: dict[str, Json]) -> Json:
    wait = params.get("wait", True)
    if not isinstance(wait, bool):
        raise ValueError("wait must be true or false.")
    return await handler.refresh(_names(params), wait)


async def _credential(handler: ControlHandler, params: dict[str, Json], peer: socket.socket) -> Json:
    """Answer `credential`. With ``shim``, the client asks only on behalf of its parent process."""
    url, username, min_life = params.get("url"), params.get("username"), params.get("min_life")
    if not isinstance(url, str):
        raise ValueError("url is a text.")
    if username is not None and not isinstance(username, str):
        raise ValueError("username is a text or null.")
    if min_life is not None and (not isinstance(min_life, int | float) or isinstance(min_life, bool) or min_life < 0):
        raise ValueError("min_life is a number of seconds.")
    name = params.get("name")
    if name is not None and not isinstance(name, str):
        raise ValueError("name is a text or null.")
    asker = processes.describe(peers.pid(peer), above=params.get("shim") is True)
    return await handler.credential(url, username, min_life, asker, name)


def _names(params: dict[str, Json]) -> list[str] | None:
    names = params.get("names")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names is a list of texts.")
    return [str(name) for name in names]


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    """Write a line. Raise TimeoutError if the client does not read it in time."""
    writer.write(line)
    await asyncio.wait_for(writer.drain(), SLOW)
