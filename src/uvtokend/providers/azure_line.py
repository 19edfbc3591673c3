"""How azure-identity and we reach the network: with our time limits, and with every answer remembered.

azure-core would wait 300 s for a connection and again for an answer, and azure-identity reports a refused connection, a
network's login page and a wrong secret by one class (``ClientAuthenticationError``). So what fails on the way is
classified here, at the wire, where it is plain. Whether to ask again, and when, is for the daemon to decide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from uvtokend.errors import FetchFailed
from uvtokend.providers import bounded
from uvtokend.providers.failures import parse_http_date, parse_retry_after, rejected, too_much, transient

#: Seconds to wait for a connection, and then for an answer.
TIMEOUT = (6.0, 12.0)
#: The same for this machine's own identity endpoint; a network that has none lets packets for it vanish.
MACHINE_TIMEOUT = (2.0, 6.0)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call and what came back.

    Args:
        url: Where it went.
        status: The answer's HTTP status.
        headers: Of the answer, matched without regard to case.
        body: The answer's JSON, or an empty object.
        is_page: A page for people came.
        at: When the answer came, UTC, on this machine's clock.
        date: What the answer's ``Date`` said.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    is_page: bool
    at: datetime
    date: datetime | None


class Line(requests.Session):
    """The session of one fetch.

    Attributes:
        last: The last exchange since `forget`.
        trouble: What the last call failed of, where that was the way there or the other side's own fault.
        refusal: The last answer since `forget` that names an OAuth error (RFC 6749 5.2): msal makes further calls after
            one, to look for aliases of its host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.auth = _no_netrc
        bounded.mount(self)
        self.last: Exchange | None = None
        self.trouble: FetchFailed | None = None
        self.refusal: Exchange | None = None

    def forget(self) -> None:
        """Forget what was: what comes next is judged alone."""
        self.last = self.trouble = self.refusal = None

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Make one call; whoever calls, it follows no redirect, since a token may be on board."""
        url = request.url or ""
        ours = is_machine(url)
        kwargs |= {"timeout": MACHINE_TIMEOUT if ours else TIMEOUT, "allow_redirects": False, "stream": False}
        if ours:
            kwargs["proxies"] = {}  # it answers for this very machine
        self.last = self.trouble = None
        try:
            answer = super().send(request, **kwargs)
        except OSError as error:  # every error of requests is one
            self.trouble = _unsent(url, error)
            raise
        self.last = _remembered(url, answer)
        self.trouble = _unwell(self.last)
        if self.trouble is None and "error" in self.last.body:
            self.refusal = self.last
        return answer

    def ask(self, method: str, url: str, **more: Any) -> Exchange:
        """Make one call and return what came back.

        Raises:
            FetchFailed: Nobody answered, or what answered is not who was asked, or has a fault of its own.
        """
        try:
            self.request(method, url, **more)
        except (OSError, ValueError) as error:
            raise self.trouble or _unsent(url, error) from None
        if self.trouble is not None or self.last is None:
            raise self.trouble or transient("no-answer", f"{_host(url)} gave no answer.")
        return self.last


def is_machine(url: str) -> bool:
    """Tell whether a call is for this machine's own identity endpoint; all else goes over TLS."""
    return url.startswith("http://")


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Replace requests' look into netrc, which would overwrite an explicit Bearer header."""
    return request


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the server"


def _remembered(url: str, answer: requests.Response) -> Exchange:
    try:
        found = json.loads(answer.content)
    except (ValueError, RecursionError):
        found = None
    return Exchange(
        url=url,
        status=answer.status_code,
        headers=answer.headers,
        body=found if isinstance(found, dict) else {},
        is_page=answer.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html",
        at=datetime.now(UTC),
        date=parse_http_date(answer.headers.get("Date")),
    )


def _unsent(url: str, error: Exception) -> FetchFailed:
    host = _host(url)
    match error:
        case bounded.TooMuchError():
            return too_much(host)
        case requests.Timeout():
            return transient("timeout", f"{host} did not answer in time.")
        case requests.exceptions.ProxyError():
            return transient("unreachable", f"The proxy did not let us through to {host}.")
        case requests.exceptions.SSLError():
            message = (
                f"The certificate of {host} is not trusted. Where a company's proxy opens TLS connections, its "
                "authority belongs into ca-bundle of the configuration."
            )
            return transient("untrusted-certificate", message)
        case requests.RequestException():
            return transient("unreachable", f"{host} cannot be reached.")
    # requests: the file that the environment names as its CA bundle is missing
    return rejected("ca-bundle", "The file that holds the trusted certificates (ca-bundle) cannot be read.")


def _unwell(exchange: Exchange) -> FetchFailed | None:
    host, status = _host(exchange.url), exchange.status
    if status == 511 or (status == 200 and exchange.is_page):  # RFC 6585 6
        message = f"Something on the way answered instead of {host}, most likely the login page of this network."
        return transient("captive-portal", message)
    if status == 429 or status >= 500:
        later = parse_retry_after(exchange.headers.get("Retry-After"), exchange.date)
        if status == 429:
            return transient("throttled", f"{host} asks us to come again later (429).", None, later)
        return transient("server-error", f"{host} has a fault of its own ({status}).", None, later)
    return None
