"""Notices that a person should see in time, although the token is valid."""

from __future__ import annotations

from datetime import datetime, timedelta

from uvtokend.core import fixes
from uvtokend.core.model import Credential, Notice

#: How long before its end a notice announces that only a person can renew a secret: a week contains a working day.
ENDS_SOON = timedelta(days=7)
#: How long before its end a notice announces the end of a sign-in: most last a working day or less.
SIGN_IN_ENDS_SOON = timedelta(hours=1)
#: Seconds by which clocks may differ. AWS refuses requests that are off by more than 5 minutes, Google by 10.
SKEW = 120.0


def of(credential: Credential | None, now: datetime) -> tuple[Notice, ...]:
    """Return the notices about a valid credential.

    Args:
        credential: The credential; None if there is no valid one.
        now: Aware UTC, on the clock of the credential's times.
    """
    if credential is None:
        return ()
    soon = (_ends_soon(credential, now), _signed_out_soon(credential, now))
    notices = (credential.notice, *soon, _skewed(credential))
    return tuple(notice for notice in notices if notice is not None)


def moments(credential: Credential) -> tuple[datetime, ...]:
    """Return the times at which a notice about a credential begins."""
    end, sign_in = credential.expires_at, credential.sign_in_end
    ends_soon = () if credential.renew is None or end is None else (end - ENDS_SOON,)
    return ends_soon if sign_in is None else (*ends_soon, sign_in.at - SIGN_IN_ENDS_SOON)


def alike(login: str, theirs: str, other: str) -> Notice:
    """Return the notices about two credentials on one host that uv cannot use in one run.

    Within one run uv keeps a credential by host and user name, and asks its store by path only where it has none
    (uv-auth, `AuthMiddleware::handle`). Seen with uv 0.13.8: uv sends the first credential for both, unless both URLs
    contain a user name. An empty user name cannot be in a URL.

    Args:
        login: The user name; may be empty.
        theirs: The user name of the other index: the same, or one of the two is empty.
        other: The other index.
    """
    why = f"both have {login}" if login and theirs else "a URL cannot carry an empty one"
    message = (
        f"One uv run cannot use both this index and {other}: it tells credentials of one host apart by their user "
        f"name, and {why}. Where the server takes any, give each a username of its own, here and in its URL for uv; "
        "else use them in runs of their own."
    )
    return Notice("same-username", message, None)


def _ends_soon(credential: Credential, now: datetime) -> Notice | None:
    end = credential.expires_at
    if credential.renew is None or end is None or end - now > ENDS_SOON:
        return None
    hours = int((end - now).total_seconds() // 3600)
    left = f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
    return Notice("ends-soon", f"This secret ends in {left}, and no fetch can renew it.", credential.renew)


def _signed_out_soon(credential: Credential, now: datetime) -> Notice | None:
    end = credential.sign_in_end
    if end is None or end.at - now > SIGN_IN_ENDS_SOON:
        return None
    minutes = int((end.at - now).total_seconds() // 60)
    when = "has expired" if minutes < 0 else f"expires in {minutes} min"
    return Notice("sign-in-ends", f"{end.name[:1].upper()}{end.name[1:]} {when}.", end.command)


def _skewed(credential: Credential) -> Notice | None:
    skew = credential.skew
    if skew is None or abs(skew) <= SKEW:
        return None
    side = "ahead of" if skew > 0 else "behind"
    message = f"This machine's clock is about {abs(skew) / 60:.0f} minutes {side} the issuer's."
    return Notice("clock-skew", message, fixes.show_clock())
