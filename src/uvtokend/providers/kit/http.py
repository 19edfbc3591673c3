"""Record HTTP calls and classify network failures.

The exceptions of SDKs do not distinguish a refused connection, a network's login page and a wrong password well. So
network failures are classified here, next to the wire, where the cause is known. The daemon decides whether and when to
retry.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from uvtokend.errors import FetchFailed
from uvtokend.providers.kit import limits, trust
from uvtokend.providers.kit.failures import parse_http_date, parse_retry_after, too_much, transient
from uvtokend.providers.kit.skew import skew

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Exchange:
    """An HTTP call and its response.

    Args:
        url: The requested URL.
        status: The HTTP status of the response.
        headers: The headers of the response; names are case-insensitive.
        body: The JSON object in the response; otherwise empty.
        is_page: Whether the response is an HTML page.
        at: The time of the response on this machine's clock, UTC.
        date: The ``Date`` of the response, UTC; None if it has none.
        grant: The ``grant_type`` of the request, if any.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    is_page: bool
    at: datetime
    date: datetime | None
    grant: str = ""


def remembered(url: str, status: int, headers: Mapping[str, str], data: Any, grant: str = "") -> Exchange:
    """Return an `Exchange` for a response that has just arrived.

    Args:
        url: The requested URL.
        status: The HTTP status of the response.
        headers: The headers of the response; names are case-insensitive.
        data: The body of the response.
        grant: The ``grant_type`` of the request, if any.
    """
    try:
        body = json.loads(data)
    except (TypeError, ValueError, RecursionError):
        body = None
    return Exchange(
        url=url,
        status=status,
        headers=headers,
        body=body if isinstance(body, dict) else {},
        is_page=headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html",
        at=datetime.now(UTC),
        date=parse_http_date(headers.get("Date")),
        grant=grant,
    )


def unsent(url: str, error: BaseException | None) -> FetchFailed:
    """Return the failure of a call without a response.

    Args:
        url: The requested URL.
        error: The exception that requests raised; every error of requests is an OSError.
    """
    host = host_of(url)
    if error is not None and (failure := trust.problem(error, host)) is not None:
        return failure
    match error:
        case limits.TooMuchError():
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
        case requests.RequestException() | None:
            return transient("unreachable", f"{host} cannot be reached.")
    why = isinstance(error, OSError) and error.strerror
    return transient("unreachable", f"{host} cannot be reached: {why or 'the system refused'}.")


def unwell(exchange: Exchange) -> FetchFailed | None:
    """Return the failure for a response that is a login page of the network or a server error; otherwise None."""
    host, status = host_of(exchange.url), exchange.status
    if status == 511 or (status == 200 and exchange.is_page):  # RFC 6585 6
        return captive_portal(host)
    if status == 429 or status >= 500:
        later = parse_retry_after(exchange.headers.get("Retry-After"), exchange.date)
        if status == 429:
            return transient("throttled", f"{host} asks us to come again later (429).", None, later)
        return transient("server-error", f"{host} has a fault of its own ({status}).", None, later)
    return None


def captive_portal(host: str) -> FetchFailed:
    """Return the failure for a response that did not come from `host`."""
    message = f"Something on the way answered instead of {host}, most likely the login page of this network."
    return transient("captive-portal", message)


def host_of(url: str) -> str:
    """Return the host of a URL, or "the server" if the URL has none."""
    return urlsplit(url).hostname or "the server"


def no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from reading netrc, which would overwrite an explicit Bearer header."""
    return request


def on_our_clock(ends: datetime, exchange: Exchange) -> datetime:
    """Convert a time from the issuer's clock to ours, if the response's ``Date`` shows a difference."""
    return ends + timedelta(seconds=skew(exchange.date, exchange.at) or 0.0)


def bounded(seconds: float, work: Callable[[], _T], late: FetchFailed) -> _T:
    """Return what `work` returns, or raise what it raises, within a time limit.

    `work` runs in a thread, because the timeouts of HTTP libraries do not cover DNS lookups, hosts with several
    addresses, or responses that arrive very slowly. If `work` is late, its thread is abandoned, and the worker exits
    without waiting for it.

    Args:
        seconds: The time limit.
        work: The function to call.
        late: The exception to raise when the time is over.
    """
    done: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again below
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        outcome, error = done.get(timeout=seconds)
    except queue.Empty:
        raise late from None
    if error is not None:
        raise error
    return outcome  # type: ignore[return-value]  # None only where `work` says so
