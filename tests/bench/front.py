"""A fast loopback front for all hosts of the benchmark: one thread that does only TLS and prepared responses.

Clients reach it with ``HTTPS_PROXY`` and trust its `ca_file`, as with `clouds.tls.TlsProxy`. That proxy has a thread
per connection and parses every request into objects, which is fine for tests but took longer than uv itself here.
Like a real, fast index, this one keeps connections open, delays nothing (TCP_NODELAY) and uses an EC key.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

import trustme

from uvtokend.sandbox.web import Answer, Call, Site

#: Takes the head of a request, without its last empty line, and the body; returns the complete response.
Responder = Callable[[bytes, bytes], bytes]
_T = TypeVar("_T")


class Front:
    """A context manager that answers ``CONNECT`` (RFC 9110 9.3.6) on a free loopback port.

    Attributes:
        hosts: Host name in lower case -> its responder. It may be changed at any time. Other hosts get a 502.
        url: The value for ``HTTPS_PROXY``.
        ca_file: The path of the private authority's certificate, in PEM.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, Responder] = {}
        self._authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._directory = tempfile.TemporaryDirectory(prefix="uvtokend-ca-")
        self.ca_file = str(Path(self._directory.name, "ca.pem"))
        self._authority.cert_pem.write_to_path(self.ca_file)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._wait(self._serve(0))
        self._port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def context(self, host: str) -> ssl.SSLContext:
        """Return the server side of TLS for a host; its certificate is created once."""
        if host not in self._contexts:
            context = self._contexts[host] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(host, key_type=trustme.KeyType.ECDSA).configure_cert(context)
        return self._contexts[host]

    def down(self) -> None:
        """Refuse connections until `up`."""
        self._wait(self._end())

    def up(self) -> None:
        """Listen again on the same port."""
        self._server = self._wait(self._serve(self._port))

    def close(self) -> None:
        """Stop, and drop the responses in progress."""
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._directory.cleanup()

    async def _serve(self, port: int) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", port)

    async def _end(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    def _wait(self, what: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Connection(asyncio.Protocol):
    """One connection: a ``CONNECT``, then TLS, then requests one after the other."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._received = b""
        self._respond: Responder | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._transport is not None:  # otherwise TLS has just been set up, and _secure() will answer
            self._answer()

    def _answer(self) -> None:
        while True:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            length = int(field(head, b"content-length") or 0) if end else 0
            if not end or len(rest) < length:
                return
            self._received = rest[length:]
            if self._respond is None:
                self._tunnel(head)
                return
            self._transport.write(self._respond(head, rest[:length]))

    def _tunnel(self, head: bytes) -> None:
        host = head.split(b" ", 2)[1].decode().rpartition(":")[0].lower()
        plain, self._transport = self._transport, None
        self._respond = self._front.hosts.get(host)
        if self._respond is None:
            plain.write(b"HTTP/1.1 502 No such host\r\nContent-Length: 0\r\n\r\n")
            plain.close()
            return
        plain.pause_reading()  # until TLS is set up
        plain.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        self._task = asyncio.ensure_future(self._secure(plain, self._front.context(host)))

    async def _secure(self, plain: asyncio.Transport, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError):  # the client disconnected
            self._transport = await asyncio.get_running_loop().start_tls(plain, self, context, server_side=True)
            self._answer()


def field(head: bytes, name: bytes) -> bytes:
    """Return the value of a header field, or an empty value.

    Args:
        head: The head of a request.
        name: The name in lower case.
    """
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    return head[start + len(name) + 3 :].partition(b"\r\n")[0].strip()


def response(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Return a complete HTTP/1.1 response."""
    fields = {**(headers or {}), "Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {status} -", *(f"{name}: {text}" for name, text in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def responder(site: Site) -> Responder:
    """Return a responder for the site of an emulator."""

    def respond(head: bytes, body: bytes) -> bytes:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = Message()
        for line in lines:
            name, _, text = line.partition(":")
            headers[name] = text.strip()
        parts = urlsplit(target)
        answer: Answer = site(Call(method, parts.path, dict(parse_qsl(parts.query)), headers, body))
        return response(answer.status, answer.body, answer.headers)

    return respond
