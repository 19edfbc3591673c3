"""static: read a user name and a password that a person or another program renews."""

from __future__ import annotations

from datetime import UTC, datetime

from uvtokend.plugin import RENEW, Credential, Request, end_of, quiet, read_secret, rejected


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
        raise rejected("bad-options", "username must be one line of text without a colon.")
    now, password = datetime.now(UTC), read_secret(request.option("password"))
    ends = end_of(password, request.option("expires"), now)
    renew = RENEW if ends is not None else None
    return Credential(username, password, now, ends, identity=username or None, renew=renew)
