"""Constructors for the three kinds of failure of a fetch, and safe parsing of other programs' text."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from uvtokend.core.model import Failure
from uvtokend.errors import FetchFailed

#: The longest wait in seconds that an issuer can ask for. A larger number is a mistake of a proxy.
LONGEST_RETRY_AFTER = 24 * 3600.0
_LONG_WORD = re.compile(r"\S{40,}")
_NAME = re.compile(r"[\"'(\[]*(arn:[A-Za-z0-9:/_.@+=,-]+|https?://[A-Za-z0-9:/_.~%-]+)")


def transient(reason: str, message: str, hint: str | None = None, retry_after: float | None = None) -> FetchFailed:
    """Return the error for a failure that may disappear by itself.

    Args:
        reason: One kebab-case word for machines: ``unreachable``, ``timeout``, ``throttled`` …
        message: A sentence for people, without secrets.
        hint: The exact command that fixes the problem, if there is one.
        retry_after: Seconds that the issuer asked us to wait.
    """
    return FetchFailed(Failure("transient", reason, message, hint, retry_after))


def login_required(reason: str, message: str, hint: str | None = None) -> FetchFailed:
    """Return the error for a failure that the user fixes by signing in; arguments as in `transient`."""
    return FetchFailed(Failure("login-required", reason, message, hint))


def rejected(reason: str, message: str, hint: str | None = None) -> FetchFailed:
    """Return the error for a failure that a retry cannot fix; arguments as in `transient`."""
    return FetchFailed(Failure("rejected", reason, message, hint))


def too_much(who: str) -> FetchFailed:
    """Return the error for a response from `who` that is too large."""
    return rejected("too-much", f"The response of {who} is far larger than a credential.")


def parse_http_date(header: str | None) -> datetime | None:
    """Return the time of a ``Date`` header (RFC 9110 5.6.7) in UTC; None if the header is missing or invalid."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - a provider that asks no server does not need it

    try:
        time = parsedate_to_datetime(header or "")
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def parse_retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds of a ``Retry-After`` header (RFC 9110 10.2.3); None if it is missing or invalid.

    Args:
        header: The value of the header: whole seconds or a date.
        now: The time to count from, preferably the response's own ``Date``. Without it, a date is ignored.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        seconds = float(text)
    else:
        until = parse_http_date(text)
        if until is None or now is None:
            return None
        seconds = (until - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def excerpt(text: str, limit: int = 300) -> str:
    """Return another program's text as one short line, with long words masked because they may be secrets.

    Words of 40 or more characters are masked, except the readable part of an ARN or a URL without its query. AWS secret
    keys have 40 characters; UUIDs in error texts have 36.

    Args:
        text: The text.
        limit: The most characters of the result.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    masked = _LONG_WORD.sub(_readable, line)
    return masked if len(masked) <= limit else masked[: limit - 1] + "…"


def _readable(word: re.Match[str]) -> str:
    name = _NAME.match(word.group())
    if name is None:
        return "****"
    return name.group() if name.end() == len(word.group()) else name.group() + "…"
