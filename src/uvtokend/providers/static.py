"""static: a user name and a password that somebody else renews, say the token of a repository manager."""

from __future__ import annotations

from datetime import UTC, datetime

from uvtokend.core.model import Credential, Request
from uvtokend.core.state import parse_zulu
from uvtokend.providers.failures import rejected
from uvtokend.providers.quiet import quiet
from uvtokend.providers.secrets import read_secret


@quiet
def fetch(request: Request) -> Credential:
    """Read the password again, from where it is kept.

    Args:
        request: Its options: ``username``, ``password`` (a secret reference), ``expires`` (ISO 8601 with its zone).

    Raises:
        FetchFailed: The secret cannot be read, or its end of life has passed.
    """
    username = request.option("username")
    if not isinstance(username, str) or not username.isprintable() or ":" in username:
        raise rejected("bad-options", "username is a text of one line without a colon.")
    now = datetime.now(UTC)
    ends = _end(request.option("expires"))
    if ends is not None and ends <= now:
        message = f"This password ended at {ends:%Y-%m-%d %H:%M} UTC (expires)."
        hint = "put a new one where password says, move expires, then: uvtokend reload"
        raise rejected("expired", message, hint)
    return Credential(username, read_secret(request.option("password")), now, ends, identity=username or None)


def _end(text: object) -> datetime | None:
    if text is None:
        return None
    try:
        if isinstance(text, str) and (found := parse_zulu(text)) is not None:
            return found
    except (ValueError, OverflowError):
        pass
    raise rejected("bad-options", "expires is no time with its zone; write it as 2026-12-31T00:00:00Z.")
