"""A loopback proxy that stands in for any HTTPS host, for SDKs whose hosts are written into their code.

A client that is pointed at it with ``HTTPS_PROXY`` and trusts its `ca_file` (``REQUESTS_CA_BUNDLE``,
``SSL_CERT_FILE``) sends ``CONNECT host:443`` (RFC 9110 9.3.6); the proxy ends the TLS of that tunnel itself, with a
certificate for that host from its own private authority, and hands every call within to the site that stands for the
host. No packet leaves loopback.
"""

from __future__ import annotations

import ssl
import tempfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme

from uvtokend.sandbox.web import Answer, Call, Site, handler

#: Seconds that a client may take for the TLS handshake before its thread is given back.
HANDSHAKE_TIMEOUT = 10.0


class TlsProxy:
    """Answers ``CONNECT`` on a free loopback port until closed.

    Args:
        sites: For each host name, in lower case, the site that stands for it. It may be changed at any time. A host
            that is not named is answered 502 and remembered in `refused`.

    Attributes:
        url: What to set ``HTTPS_PROXY`` to.
        ca_file: Path of the private authority's certificate, in PEM.
        calls: Every call that came through, in order, with its host.
        refused: Every host that was asked for and is not among the sites, in order.
    """

    def __init__(self, sites: Mapping[str, Site]) -> None:
        self.sites = sites
        self.calls: list[tuple[str, Call]] = []
        self.refused: list[str] = []
        self._authority = trustme.CA()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="uvtokend-ca-")
        self.ca_file = str(Path(self._folder.name, "ca.pem"))
        self._authority.cert_pem.write_to_path(self.ca_file)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _tunnel(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def site(self, host: str) -> Site | None:
        """Return what answers the calls for `host`, or None, and then the host is remembered as refused."""
        found = self.sites.get(host)
        if found is None:
            self.refused.append(host)
            return None

        def remembering(call: Call) -> Answer:
            self.calls.append((host, call))
            return found(call)

        return remembering

    def context(self, host: str) -> ssl.SSLContext:
        """Return the server side of a TLS connection to `host`; its certificate is made once."""
        with self._lock:
            if host not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._authority.issue_cert(host).configure_cert(context)
                self._contexts[host] = context
            return self._contexts[host]

    def close(self) -> None:
        """Stop listening and remove the certificate; tunnels under way are left to their threads."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tunnel(proxy: TlsProxy) -> type[BaseHTTPRequestHandler]:
    class Tunnel(BaseHTTPRequestHandler):
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
            try:
                with proxy.context(host).wrap_socket(self.connection, server_side=True) as inner:
                    inner.settimeout(None)
                    handler(site)(inner, self.client_address, self.server)
            except OSError:
                # The client went away or does not trust our authority: there is nobody left to answer.
                return

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            """Say nothing: the calls are remembered instead."""

    return Tunnel
