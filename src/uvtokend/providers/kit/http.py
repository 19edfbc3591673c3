"""What every call over HTTP needs here: what came back, remembered, and what went wrong on the way, classified.

Libraries report a refused connection, a network's login page and a wrong password by classes that say little. So what
fails on the way is classified at the wire, where it is plain. Whether to ask again, and when, is for the daemon.
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
from uvtokend.providers.kit import limits
from uvtokend.providers.kit.failures import parse_http_date, parse_retry_after, rejected, too_much, transient
from uvtokend.providers.kit.skew import skew

_T = TypeVar("_T")


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
        grant: The ``grant_type`` that was asked for, if any.
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
    """Return a call and its answer, which has just come.

    Args:
        url: Where it went.
        status: The answer's HTTP status.
        headers: The answer's, matched without regard to case.
        data: The answer's body.
        grant: The ``grant_type`` that was asked for.
    """
    try:
        found = json.loads(data)
    except (TypeError, ValueError, RecursionError):
        found = None
    return Exchange(
        url=url,
        status=status,
        headers=headers,
        body=found if isinstance(found, dict) else {},
        is_page=headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html",
        at=datetime.now(UTC),
        date=parse_http_date(headers.get("Date")),
        grant=grant,
    )


def unsent(url: str, error: BaseException | None) -> FetchFailed:
    """Return the failure of a call without an answer.

    Args:
        url: Where it was to go.
        error: What requests raised; every error of requests is an OSError.
    """
    host = host_of(url)
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
    # requests: the file that the environment names as its CA bundle is missing
    return rejected("ca-bundle", "The file that holds the trusted certificates (ca-bundle) cannot be read.")


def unwell(exchange: Exchange) -> FetchFailed | None:
    """Return the failure of an answer that is not the issuer's own word: a login page, or a fault; else None."""
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
    """Return the failure for what somebody else answered in the place of `host`."""
    message = f"Something on the way answered instead of {host}, most likely the login page of this network."
    return transient("captive-portal", message)


def host_of(url: str) -> str:
    """Return the host of a URL, or words for one that has none."""
    return urlsplit(url).hostname or "the server"


def no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Replace requests' look into netrc, which would overwrite an explicit Bearer header."""
    return request


def on_our_clock(ends: datetime, exchange: Exchange) -> datetime:
    """Move a time that an issuer told from its clock to ours, as far as the answer's ``Date`` tells the two apart."""
    return ends + timedelta(seconds=skew(exchange.date, exchange.at) or 0.0)


def bounded(seconds: float, work: Callable[[], _T], late: FetchFailed) -> _T:
    """Return what `work` returns, or raise what it raises, within a time.

    It runs in a thread, since no time limit of a library bounds the look-up of a name, the walk through a host's
    addresses, or an answer that drips. One that is late is left behind; the worker ends without waiting for it.

    Args:
        seconds: How long.
        work: What to do.
        late: What to raise when the time is over.
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
