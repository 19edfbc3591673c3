"""A loopback proxy that replaces any HTTPS host, for SDKs with hard-coded hosts.

A client that uses it with ``HTTPS_PROXY`` and trusts its `ca_file` (``REQUESTS_CA_BUNDLE``, ``SSL_CERT_FILE``) sends
``CONNECT host:443`` (RFC 9110 9.3.6). The proxy terminates the TLS of that tunnel itself, with a certificate for
that host from its own private authority, and passes every call to the site that represents the host. No packet
leaves loopback.
"""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl
import tempfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import trustme

from uvtokend.sandbox.web import Answer, Call, LoopbackListener, Site, handler

#: Seconds until a client that has not finished the TLS handshake is disconnected.
HANDSHAKE_TIMEOUT = 10.0


class TlsProxy(LoopbackListener):
    """Answers ``CONNECT`` on a free loopback port until closed.

    Args:
        sites: Host name in lower case -> the site that represents it. It may be changed at any time. Other hosts get a
            502 and are recorded in `refused`.
        demanding: Whether every site requires a client certificate of the private authority.
        over_tls: Whether the proxy itself is reached over TLS; if `demanding`, it requires the certificate too.

    Attributes:
        url: The value for ``HTTPS_PROXY``.
        ca_file: The path of the private authority's certificate, in PEM.
        client_file: The path of a client certificate and its key, in PEM.
        calls: Every call, in order, with its host.
        refused: Every requested host without a site, in order.
    """

    def __init__(self, sites: Mapping[str, Site], *, demanding: bool = False, over_tls: bool = False) -> None:
        self.sites = sites
        self._demanding = demanding
        self.calls: list[tuple[str, Call]] = []
        self.refused: list[str] = []
        self._authority = trustme.CA()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._directory = tempfile.TemporaryDirectory(prefix="uvtokend-ca-")
        self.ca_file = str(Path(self._directory.name, "ca.pem"))
        self._authority.cert_pem.write_to_path(self.ca_file)
        self.client_file = str(Path(self._directory.name, "client.pem"))
        self._authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(self.client_file)
        super().__init__(_tunnel(self, over_tls))
        self.url = f"{'https' if over_tls else 'http'}://127.0.0.1:{self.port}"

    def site(self, host: str) -> Site | None:
        """Return the site of `host`; for an unknown host record it as refused and return None."""
        wanted = self.sites.get(host)
        if wanted is None:
            self.refused.append(host)
            return None

        def remembering(call: Call) -> Answer:
            self.calls.append((host, call))
            return wanted(call)

        return remembering

    def context(self, host: str) -> ssl.SSLContext:
        """Return the server side of a TLS connection to `host`; its certificate is created once."""
        with self._lock:
            if host not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._authority.issue_cert(host).configure_cert(context)
                if self._demanding:
                    context.verify_mode = ssl.CERT_REQUIRED
                    self._authority.configure_trust(context)
                self._contexts[host] = context
            return self._contexts[host]

    def close(self) -> None:
        """Stop listening and delete the certificate; the threads of open tunnels continue."""
        super().close()
        self._directory.cleanup()


def _tunnel(proxy: TlsProxy, over_tls: bool) -> type[socketserver.BaseRequestHandler]:
    class Tunnel(BaseHTTPRequestHandler):
        def handle(self) -> None:
            # An OSError means that the client disconnected or does not trust our authority, so no response is needed.
            with contextlib.suppress(OSError):
                super().handle()

        def do_CONNECT(self) -> None:
            self.close_connection = True
            host = self.path.rpartition(":")[0].strip("[]").lower()
            site = proxy.site(host)
            if site is None:
                self.send_error(502, "No such site")
                return
            self.send_response_only(200, "Connection Established")
            self.end_headers()
            self.connection.settimeout(HANDSHAKE_TIMEOUT)
            with _lingering(self.connection), proxy.context(host).wrap_socket(self.connection, True) as inner:
                inner.settimeout(None)
                handler(site)(inner, self.client_address, self.server)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            """Print nothing, since the calls are recorded."""

    def tunnel(connection: socket.socket, *more: Any) -> None:
        with connection:
            Tunnel(connection, *more)

    class Outer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            """Terminate the outer TLS and pass its content to a tunnel, since Python cannot wrap a TLS socket."""
            ours, theirs = _pair()
            with contextlib.suppress(OSError), theirs:
                self.request.settimeout(HANDSHAKE_TIMEOUT)
                with proxy.context("127.0.0.1").wrap_socket(self.request, server_side=True) as outer:
                    threading.Thread(target=tunnel, args=(ours, self.client_address, self.server), daemon=True).start()
                    _pump(outer, theirs)

    return Outer if over_tls else Tunnel


@contextlib.contextmanager
def _lingering(connection: socket.socket) -> Iterator[None]:
    """Continue reading after a failed handshake,
    so that the client reads the alert before it writes to a closed socket.
    """
    with connection.dup() as raw:
        try:
            yield
        except ssl.SSLError:
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65536):
                continue
            raise


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection, since those of socketpair() do not support TCP_NODELAY."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        return server.accept()[0], theirs


def _pump(outer: ssl.SSLSocket, inner: socket.socket) -> None:
    """Copy bytes between two sockets until one of them ends."""
    while True:
        ready = [outer] if outer.pending() else select.select([outer, inner], [], [])[0]
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (inner if source is outer else outer).sendall(data)
