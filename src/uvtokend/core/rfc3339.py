"""Format and parse times: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def zulu(time: datetime | None) -> str | None:
    """Return a time as RFC 3339 in UTC with ``Z``, with milliseconds if there are any."""
    if time is None:
        return None
    whole = time if time.tzinfo is UTC else time.astimezone(UTC)
    text = whole.isoformat()  # a thousand times for a status; with a timespec it takes twice as long
    return f"{text[:-9]}Z" if whole.microsecond else f"{text[:-6]}Z"


def parse_zulu(text: object) -> datetime | None:
    """Return the aware UTC time that an RFC 3339 text names, or None for None.

    Raises:
        ValueError: It is not a time, or it has no zone.
    """
    return None if text is None else instant(str(text))


def instant(text: str) -> datetime:
    """Return the aware UTC time that an RFC 3339 text names.

    Raises:
        ValueError: It is not a time, or it has no zone.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(text)
    return time.astimezone(UTC)
