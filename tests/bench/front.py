"""A fast loopback front for all hosts of the benchmark: one thread that does only TLS and prepared responses.

Clients reach it with ``HTTPS_PROXY`` and trust its `ca_file`, as with `clouds.tls.TlsProxy`. That proxy has a thread
per connection and parses every request into objects, which is fine for tests but took longer than uv itself here.
Like a real, fast index, this one keeps connections open, delays nothing (TCP_NODELAY) and uses an EC key. A real one
also takes no CPU time from uv, so this one takes as little as it can: most of what is left are TLS handshakes.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from urllib.parse import parse_qsl, urlsplit

import trustme

from uvtokend.sandbox.web import Answer, Call, Site

#: Takes the head of a request, without its last empty line, and the body; returns the complete response.
Responder = Callable[[bytes, bytes], bytes]
#: The most bytes that are received at a time.
_PIECE = 1 << 16
#: The most seconds that a client may leave a response unread.
_PATIENCE = 10.0


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
        self._port = 0
        self.up()
        self.url = f"http://127.0.0.1:{self._port}"

    def context(self, host: str) -> ssl.SSLContext:
        """Return the server side of TLS for a host; its certificate is created once."""
        if host not in self._contexts:
            context = self._contexts[host] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(host, key_type=trustme.KeyType.ECDSA).configure_cert(context)
        return self._contexts[host]

    def down(self) -> None:
        """Close all connections, and refuse others until `up`."""
        self._serving = False
        self._waker.close()
        self._thread.join()

    def up(self) -> None:
        """Listen again on the same port."""
        listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = listener.getsockname()[1]
        self._waker, woken = socket.socketpair()
        self._serving = True
        self._thread = threading.Thread(target=self._serve, args=(listener, woken))
        self._thread.start()

    def close(self) -> None:
        """Stop, and drop the responses in progress."""
        self.down()
        self._directory.cleanup()

    def _serve(self, listener: socket.socket, woken: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:

            def accept() -> bool:
                connection, _ = listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                selector.register(connection, selectors.EVENT_READ, _Connection(self, connection).receive)
                return True

            selector.register(listener, selectors.EVENT_READ, accept)
            selector.register(woken, selectors.EVENT_READ, lambda: True)
            while self._serving:
                for key, _ in selector.select():
                    if not key.data():
                        selector.unregister(key.fileobj)
                        cast("socket.socket", key.fileobj).close()
            for key in selector.get_map().values():
                cast("socket.socket", key.fileobj).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Connection:
    """One connection: a ``CONNECT``, then TLS, then requests one after the other.

    Args:
        front: What it is connected to.
        connection: Its socket, which does not block.
    """

    def __init__(self, front: Front, connection: socket.socket) -> None:
        self._front = front
        self._socket = connection
        self._received = b""
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._established = False

    def receive(self) -> bool:
        """Handle what has arrived, and return whether the connection remains open."""
        try:
            data = self._socket.recv(_PIECE)
            return bool(data) and self._handle(data)
        except OSError:  # the client disconnected, or it does not trust the authority
            return False

    def _handle(self, data: bytes) -> bool:
        if self._tls is None:
            self._received += data
            return self._tunnel()
        self._incoming.write(data)
        try:
            goes_on = self._proceed(self._tls)
        except ssl.SSLWantReadError:  # the rest of a handshake or of a record has not arrived
            goes_on = True
        if self._outgoing.pending:
            self._send(self._outgoing.read())
        return goes_on

    def _tunnel(self) -> bool:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return True
        host = head.split(b" ", 2)[1].decode().rpartition(":")[0].lower()
        if host not in self._front.hosts:
            self._send(b"HTTP/1.1 502 No such host\r\nContent-Length: 0\r\n\r\n")
            return False
        self._respond = self._front.hosts[host]
        self._tls = self._front.context(host).wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._send(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        self._received = b""
        return not rest or self._handle(rest)

    def _proceed(self, tls: ssl.SSLObject) -> bool:
        if not self._established:
            tls.do_handshake()
            self._established = True
        while self._incoming.pending or tls.pending():
            data = tls.read(_PIECE)
            if not data:
                return False
            self._received += data
            self._answer(tls)
        return True

    def _answer(self, tls: ssl.SSLObject) -> None:
        while True:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            length = int(field(head, b"content-length") or 0) if end else 0
            if not end or len(rest) < length:
                return
            self._received = rest[length:]
            tls.write(self._respond(head, rest[:length]))

    def _send(self, data: bytes) -> None:
        sent = self._socket.send(data)
        if sent < len(data):  # a long response; the client has to read the beginning first
            self._socket.settimeout(_PATIENCE)
            self._socket.sendall(data[sent:])
            self._socket.setblocking(False)


def field(head: bytes, name: bytes) -> bytes:
    """Return the value of a header field, or an empty value.

    Args:
        head: The head of a request.
        name: The name in lower case.
    """
    start = name + b":"
    for line in head.split(b"\r\n"):
        if line[: len(start)].lower() == start:  # lower() on a head with a token would take longer than all else here
            return line[len(start) :].strip()
    return b""


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
