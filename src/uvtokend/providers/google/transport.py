"""The HTTP transport for google-auth: with our time limits, without retries, recording every response.

By itself, google-auth waits 120 s for each response and retries three times. Its exceptions do not distinguish a
refused connection, a network's login page and a wrong password (``TransportError`` is never ``retryable``; a captive
portal causes a builtin ``TypeError``). So network failures are classified here.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs

import google.auth.transport
import requests
from google.auth.exceptions import TransportError
from google.auth.transport.requests import Request as RequestsTransport

from uvtokend.plugin import FetchFailed, rejected, transient
from uvtokend.providers.kit import limits
from uvtokend.providers.kit.http import Exchange, captive_portal, host_of, no_netrc, remembered, unsent, unwell

#: Seconds to wait for a connection, and again for a response.
CALL_TIMEOUT = 8.0
#: Seconds to wait for the metadata server, which is on the same machine; google-auth's own default.
METADATA_TIMEOUT = 3.0
#: Temporary errors (RFC 6749 4.1.2.1), for which google-auth retries.
_PASSING = frozenset({"temporarily_unavailable", "server_error", "internal_failure"})
#: Hosts that are never reached through a proxy: the machine itself answers, with its token (Compute Engine docs).
_MACHINE_HOSTS = ("metadata.google.internal", "169.254.")
_MACHINE_VARIABLES = ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP")


class Transport(google.auth.transport.Request):
    """Makes google-auth's calls.

    Attributes:
        last: The last exchange, which explains a failure.
    """

    def __init__(self) -> None:
        self.last: Exchange | None = None
        session = requests.Session()
        session.auth = no_netrc
        limits.mount(session)
        self._send = RequestsTransport(session)

    def close(self) -> None:
        """Close the connections."""
        self._send.session.close()

    def __call__(  # type: ignore[no-untyped-def]  # google-auth passes what requests takes
        self, url: str, method: str = "GET", body: Any = None, headers: Any = None, timeout: Any = None, **more
    ) -> Any:
        """Make one call.

        Raises:
            FetchFailed: There is no response, it came from another host than requested, or it asks us to retry later.
        """
        limit = min(timeout or CALL_TIMEOUT, CALL_TIMEOUT)
        try:
            answer = self._send(url, method, body, headers, limit, allow_redirects=False, **_direct(url), **more)
        except TransportError as error:
            raise _unsent(url, error.__cause__) from None
        except OSError as error:  # requests: the CA bundle
            raise unsent(url, error) from None
        self.last = remembered(url, answer.status, answer.headers, answer.data, _grant(body))
        _check(self.last)
        return answer

    def is_metadata_server(self, host: str) -> bool:
        """Return whether Google's metadata server responds at `host`. No other server sends this header."""
        headers = {"Metadata-Flavor": "Google"}
        try:
            answer = self._send(
                f"http://{host}/", headers=headers, timeout=METADATA_TIMEOUT, **_direct(f"http://{host}")
            )
        except (TransportError, OSError):
            return False
        return bool(answer.status == 200 and answer.headers.get("Metadata-Flavor") == "Google")


def _direct(url: str) -> dict[str, Any]:
    host = url.removeprefix("http://").partition("/")[0]  # "https:" if it is not plain HTTP
    if host.startswith(_MACHINE_HOSTS) or host in map(os.environ.get, _MACHINE_VARIABLES):
        return {"proxies": {"http": "", "all": ""}}
    return {}


def _grant(body: Any) -> str:
    if not isinstance(body, bytes):
        return ""
    return parse_qs(body.decode("utf-8", "replace")).get("grant_type", [""])[0].rpartition(":")[2]


def _unsent(url: str, cause: BaseException | None) -> FetchFailed:
    if isinstance(cause, (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema)):
        return rejected("bad-credentials-file", "The credentials contain an invalid URL.")
    return unsent(url, cause if isinstance(cause, requests.RequestException) else None)


def _check(exchange: Exchange) -> None:
    host = host_of(exchange.url)
    if 300 <= exchange.status < 400:
        raise captive_portal(host)
    passing = exchange.body.get("error")
    if exchange.status >= 400 and isinstance(passing, str) and passing in _PASSING:
        raise transient("server-error", f"{host} cannot answer at the moment ({passing}).")
    if (failure := unwell(exchange)) is not None:
        raise failure
