"""What every provider needs to say why a fetch failed: three constructors, and safe reading of what others wrote."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from uvtokend.core.model import Failure
from uvtokend.errors import FetchFailed

#: No issuer means a longer wait than this; a larger number is a mistake of a proxy.
LONGEST_RETRY_AFTER = 24 * 3600.0
_LONG_WORD = re.compile(r"\S{40,}")
_NAME = re.compile(r"[\"'(\[]*(arn:[A-Za-z0-9:/_.@+=,-]+|https?://[A-Za-z0-9:/_.~%-]+)")


def transient(reason: str, message: str, hint: str | None = None, retry_after: float | None = None) -> FetchFailed:
    """Return the error for a failure that may mend itself.

    Args:
        reason: One word for machines, kebab-case: ``unreachable``, ``timeout``, ``throttled`` …
        message: A sentence for people, without secrets.
        hint: The exact command that mends it, where a person can.
        retry_after: Seconds that the issuer asked us to wait.
    """
    return FetchFailed(Failure("transient", reason, message, hint, retry_after))


def login_required(reason: str, message: str, hint: str | None = None) -> FetchFailed:
    """Return the error for a failure that ends when a person has logged in; arguments as in `transient`."""
    return FetchFailed(Failure("login-required", reason, message, hint))


def rejected(reason: str, message: str, hint: str | None = None) -> FetchFailed:
    """Return the error for a failure that asking again will not mend; arguments as in `transient`."""
    return FetchFailed(Failure("rejected", reason, message, hint))


def too_much(who: str) -> FetchFailed:
    """Return the error for an answer without measure; `who` gave it."""
    return rejected("too-much", f"{who} answered far more than a credential.")


def parse_http_date(header: str | None) -> datetime | None:
    """Return the time of a ``Date`` header (RFC 9110 5.6.7) in UTC, or None where it is missing or not one."""
    try:
        found = parsedate_to_datetime(header or "")
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def parse_retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a ``Retry-After`` header (RFC 9110 10.2.3) asks for, or None where it asks for nothing.

    Args:
        header: The header's text: whole seconds or a date.
        now: The time to count from, best the answer's own ``Date``; without it the date form is ignored.
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
    """Return another program's words as one short line in which no long word stands that could be a secret.

    Words of 40 characters and more are masked, except the readable part of an ARN or a URL (its query is cut off): AWS
    secret keys have 40 characters, UUIDs in error texts 36.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    masked = _LONG_WORD.sub(_readable, line)
    return masked if len(masked) <= limit else masked[: limit - 1] + "…"


def _readable(word: re.Match[str]) -> str:
    name = _NAME.match(word.group())
    if name is None:
        return "****"
    return name.group() if name.end() == len(word.group()) else name.group() + "…"
