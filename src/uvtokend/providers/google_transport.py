"""How google-auth reaches the network here: with our time limits, without retries, and with every answer remembered.

google-auth would wait 120 s for each answer, try three times what failed, and report a refused connection, a network's
login page and a wrong password by classes that say little (its ``TransportError`` is never ``retryable``; a captive
portal ends as a builtin ``TypeError``). So what fails on the way is classified here, at the wire, where it is plain.
Whether to ask again, and when, is for the daemon to decide.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import google.auth.transport
import requests
from google.auth.exceptions import TransportError
from google.auth.transport.requests import Request as RequestsTransport

from uvtokend.errors import FetchFailed
from uvtokend.providers import bounded
from uvtokend.providers.failures import parse_http_date, parse_retry_after, rejected, too_much, transient

#: Seconds to wait for a connection, and again for an answer.
CALL_TIMEOUT = 8.0
#: Seconds to wait for the metadata server, which is on the same machine; google-auth's own default.
METADATA_TIMEOUT = 3.0
#: Errors that pass (RFC 6749 4.1.2.1); google-auth asks again for them.
_PASSING = frozenset({"temporarily_unavailable", "server_error", "internal_failure"})
#: Never through a proxy: these answer from this very machine, with its token (Compute Engine documentation).
_MACHINE_HOSTS = ("metadata.google.internal", "169.254.")
_MACHINE_VARIABLES = ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call and what came back.

    Args:
        url: Where it went.
        grant: The ``grant_type`` that was asked for, if any.
        status: The answer's HTTP status.
        body: The answer's JSON, or an empty object.
        at: When the answer came, UTC, on this machine's clock.
        date: What the answer's ``Date`` said.
    """

    url: str
    grant: str
    status: int
    body: Mapping[str, Any]
    at: datetime
    date: datetime | None


class Transport(google.auth.transport.Request):
    """Makes google-auth's calls.

    Attributes:
        last: The last exchange, which is what a failure is about.
    """

    def __init__(self) -> None:
        self.last: Exchange | None = None
        session = requests.Session()
        session.auth = _no_netrc
        bounded.mount(session)
        self._send = RequestsTransport(session)

    def close(self) -> None:
        """Close the connections."""
        self._send.session.close()

    def __call__(  # type: ignore[no-untyped-def]  # google-auth passes what requests takes
        self, url: str, method: str = "GET", body: Any = None, headers: Any = None, timeout: Any = None, **more
    ) -> Any:
        """Make one call.

        Raises:
            FetchFailed: Nobody answered, or what answered is not who was asked, or asks us to come again later.
        """
        limit = min(timeout or CALL_TIMEOUT, CALL_TIMEOUT)
        try:
            answer = self._send(url, method, body, headers, limit, allow_redirects=False, **_direct(url), **more)
        except TransportError as error:
            raise _unsent(url, error.__cause__) from None
        except OSError:  # requests: the file that the environment names as its CA bundle is missing
            message = "The file that holds the trusted certificates (ca-bundle) cannot be read."
            raise rejected("ca-bundle", message) from None
        self.last = Exchange(
            url=url,
            grant=_grant(body),
            status=answer.status,
            body=_json(answer.data),
            at=datetime.now(UTC),
            date=parse_http_date(answer.headers.get("Date")),
        )
        _check(answer, self.last)
        return answer

    def is_metadata_server(self, host: str) -> bool:
        """Tell whether Google's metadata server answers at `host`: nobody else sends this header."""
        headers = {"Metadata-Flavor": "Google"}
        try:
            answer = self._send(
                f"http://{host}/", headers=headers, timeout=METADATA_TIMEOUT, **_direct(f"http://{host}")
            )
        except (TransportError, OSError):
            return False
        return bool(answer.status == 200 and answer.headers.get("Metadata-Flavor") == "Google")


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Replace requests' look into netrc, which would overwrite an explicit Bearer header."""
    return request


def _direct(url: str) -> dict[str, Any]:
    host = url.removeprefix("http://").partition("/")[0]  # "https:" where it is not plain HTTP
    if host.startswith(_MACHINE_HOSTS) or host in map(os.environ.get, _MACHINE_VARIABLES):
        return {"proxies": {"http": "", "all": ""}}
    return {}


def _grant(body: Any) -> str:
    if not isinstance(body, bytes):
        return ""
    return parse_qs(body.decode("utf-8", "replace")).get("grant_type", [""])[0].rpartition(":")[2]


def _json(data: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _unsent(url: str, cause: BaseException | None) -> FetchFailed:
    host = urlsplit(url).hostname
    if isinstance(cause, bounded.TooMuchError):
        return too_much(host or "the server")
    if isinstance(cause, requests.Timeout):
        return transient("timeout", f"{host} did not answer within {CALL_TIMEOUT:g} s.")
    if isinstance(cause, requests.exceptions.ProxyError):
        return transient("unreachable", f"The proxy did not let us through to {host}.")
    if isinstance(cause, requests.exceptions.SSLError):
        message = (
            f"The certificate of {host} is not trusted. Where a company's proxy opens TLS connections, its authority "
            "belongs into ca-bundle of the configuration."
        )
        return transient("untrusted-certificate", message)
    if isinstance(cause, (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema)):
        return rejected("bad-credentials-file", "The credentials name an address that is none.")
    return transient("unreachable", f"{host} cannot be reached.")


def _check(answer: google.auth.transport.Response, exchange: Exchange) -> None:
    host, status = urlsplit(exchange.url).hostname, exchange.status
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if status == 511 or 300 <= status < 400 or (status == 200 and kind == "text/html"):  # RFC 6585 6
        message = f"Something on the way answered instead of {host}, most likely the login page of this network."
        raise transient("captive-portal", message)
    passing = exchange.body.get("error")
    if status >= 400 and isinstance(passing, str) and passing in _PASSING:
        raise transient("server-error", f"{host} cannot answer at the moment ({passing}).")
    if status == 429 or status >= 500:
        later = parse_retry_after(answer.headers.get("Retry-After"), exchange.date)
        if status == 429:
            raise transient("throttled", f"{host} asks us to come again later (429).", None, later)
        raise transient("server-error", f"{host} has a fault of its own ({status}).", None, later)
