"""A small loopback web server: one function handles every call, and every call is recorded."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class Call:
    """One received request; header names are case-insensitive."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes = b""

    def form(self) -> dict[str, str]:
        """Return the body of a form post."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's response."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Self:
        """Return a JSON answer; underscores in header names become hyphens."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})


Site = Callable[[Call], Answer]


class LoopbackListener:
    """Listens on a free loopback port until closed; a context manager.

    Args:
        requests: Handles each connection.
        host: The loopback address.
    """

    def __init__(self, requests: type[socketserver.BaseRequestHandler], host: str = "127.0.0.1") -> None:
        self._server = ThreadingHTTPServer((host, 0), requests)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._listen()

    def _listen(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; threads finish the calls in progress."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Server(LoopbackListener):
    """Serve one site on a free loopback port until closed; `calls` contains the received calls in order."""

    def __init__(self, site: Site, host: str = "127.0.0.1") -> None:
        self.site = site
        self.calls: list[Call] = []
        super().__init__(handler(self._answer), host)
        self.url = f"http://{host}:{self.port}"

    def down(self) -> None:
        """Refuse connections until `up`, and keep the port: a socket that is bound and does not listen does both."""
        self._server.shutdown()
        self._thread.join()
        self._server.socket.close()
        self._server.socket = socket.socket()
        self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.socket.bind(self._server.server_address)

    def up(self) -> None:
        """Listen again after `down`."""
        self._server.server_activate()
        self._listen()

    def _answer(self, call: Call) -> Answer:
        self.calls.append(call)
        return self.site(call)


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    """Return a request handler class that answers every call with `site`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes, and a delayed ACK would part them by 40 ms

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client disconnected
                self.close_connection = True

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = Call(
                self.command, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), self.headers, body
            )
            answer = site(call)
            self.send_response_only(answer.status)
            for name, text in {"Date": self.date_time_string(), **answer.headers}.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            """Log nothing: the calls are recorded instead."""

    return Handler
