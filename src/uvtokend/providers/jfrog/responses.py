"""Parse the responses of a platform's Access API: a token and its end of life, or a refusal and its fix.

Sources: JFrog's REST API pages "Refresh Token" and "Create Token", jfrog-client-go (``access/services``) and jfrog-cli
issue 2490 (the 404 of a used refresh token). Which status refuses an OIDC exchange is not documented. No text of the
server is ever repeated.
"""

from __future__ import annotations

import math
import shlex
from datetime import datetime, timedelta

from uvtokend.plugin import FetchFailed, Frozen, Secret, login_required, place, rejected, transient
from uvtokend.providers.jfrog.refresh_chain import Link
from uvtokend.providers.kit import jwt
from uvtokend.providers.kit.http import Exchange, host_of, on_our_clock, unwell

#: The longest life in seconds; a longer one is an error.
_LONGEST_LIFE = 100 * 365 * 86400
#: The statuses of a refused credential, in JFrog's own format.
_REFUSALS = frozenset({400, 401, 404})


def token_of(exchange: Exchange, name: str = "access_token") -> Secret | None:
    """Return a token of a response, or None if it has none."""
    token = exchange.body.get(name)
    return Secret(token) if isinstance(token, str) and token else None


def end_of(exchange: Exchange, token: Secret) -> datetime | None:
    """Return a new token's end of life on our clock, the earlier one of response and token; None if neither has one.

    ``expires_in`` is missing or 0 if the token has no end, and may be missing if it has one (jfrog-client-go).

    Raises:
        FetchFailed: The end of life is invalid, so it is unknown.
    """
    ends = []
    if seconds := _life(exchange):
        ends.append(exchange.at + timedelta(seconds=seconds))
    if (told := jwt_end(token, host_of(exchange.url))) is not None:
        ends.append(on_our_clock(told, exchange))
    return min(ends, default=None)


def _life(exchange: Exchange) -> float | None:
    """Return the seconds of ``expires_in``; None if there are none. Some proxies turn numbers into text."""
    told = exchange.body.get("expires_in")
    if told is None or told == 0:
        return None
    try:
        seconds = math.nan if isinstance(told, bool) else float(told)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not abs(seconds) < _LONGEST_LIFE:  # neither is NaN
        message = f"The response of {host_of(exchange.url)} has an invalid end of life (expires_in)."
        raise transient("bad-answer", message)
    return seconds


def jwt_end(token: Secret, source: str) -> datetime | None:
    """Return the end of life in a token (``exp``); None if it has none.

    Args:
        token: The token, a JWT or not.
        source: Where the token comes from, for the message.

    Raises:
        FetchFailed: The end of life is not a valid time.
    """
    ends = jwt.end(token.reveal())
    if ends is None and jwt.claims(token.reveal()).get("exp") is not None:
        raise transient("bad-answer", f"The token from {source} has an invalid end of life (exp).")
    return ends


def user_of(token: str) -> str:
    """Return the user in the ``sub`` of a token, ``…/users/<name>``; empty if there is no valid name."""
    subject = jwt.claims(token).get("sub")
    _, separator, name = subject.partition("/users/") if isinstance(subject, str) else ("", "", "")
    return name if separator and name.isprintable() and ":" not in name else ""


def subject_of(token: str) -> str | None:
    """Return the subject of a token."""
    subject = jwt.claims(token).get("sub")
    return user_of(token) or (subject if isinstance(subject, str) and subject.isprintable() and subject else None)


def unusable(exchange: Exchange) -> FetchFailed | None:
    """Return the failure of a response that does not come from the Access API itself; None if it does."""
    host, status = host_of(exchange.url), exchange.status
    if 300 <= status < 400:
        message = f"{host} answers with a redirect, and uvtokend sends no token to where it points."
        return rejected("redirected", message, "use the address that it redirects to as the url of the index")
    if (failure := unwell(exchange)) is not None:
        return failure
    if status in {404, 405} and not _is_jfrogs(exchange):
        message = f"{exchange.url} is not a JFrog Access API; its address comes from the index URL."
        ping = f"{exchange.url.partition('/access/api/')[0]}/access/api/v1/system/ping"
        return rejected("no-access-api", message, shlex.join(["curl", "-i", ping]))
    return None


def untouched(exchange: Exchange) -> bool:
    """Return whether a response proves that nothing was done. A gateway's timeout (408, 5xx) does not."""
    return 300 <= exchange.status < 500 and exchange.status != 408


def refresh_refused(exchange: Exchange, link: Link, reference: Frozen, proven: bool) -> FetchFailed:
    """Return the failure for a refused refresh token.

    Args:
        exchange: The call and its response.
        link: The link that was used, with the mark of an earlier refresh that was interrupted.
        reference: Where the configuration keeps the seed.
        proven: Whether the request carried an access token.
    """
    host, status = host_of(exchange.url), exchange.status
    hint = new_pair(reference)
    if link.asked_at is not None and status in _REFUSALS and _is_jfrogs(exchange):
        message = (
            f"The refresh at {link.asked_at:%Y-%m-%d %H:%M} UTC was interrupted before its response was on disk. "
            f"{host} had already issued new tokens then, and a refresh token works only once."
        )
        return login_required("chain-lost", message, hint)
    if status in {400, 404} and _is_jfrogs(exchange):
        whose = "was already used (it works only once)" if link.number == 0 else "was used by another program"
        message = f"{host} does not know this refresh token: it {whose}, was revoked or has expired."
        return login_required("refresh-token-refused", message, hint)
    if status == 401 and not proven:
        message = f"{host} only refreshes together with a valid access token, and none is known yet."
        return login_required(
            "no-access-token", message, "add access-token = { … } with the token that the refresh token came with"
        )
    if status == 401:
        message = f"{host} only refreshes together with a valid access token; the last one has expired or was revoked."
        return login_required("login-expired", message, hint)
    if status == 403:
        message = f"{host} does not allow this user to refresh tokens."
        return rejected("forbidden", message, "ask its administrator about token.allow-refreshable")
    return rejected("refused", f"{host} refused to refresh the token (HTTP {status}).", hint)


def new_pair(reference: Frozen) -> str:
    """Return the fix with which a person starts a new chain; `reference` is where the configuration keeps the seed."""
    return (
        f"create a new token pair (jf access-token-create --refreshable) and put its refresh token {place(reference)}"
    )


def chain_ended(host: str, reference: Frozen) -> FetchFailed:
    """Return the failure of a chain whose last response brought no refresh token."""
    message = f"{host} issued the last access token without a refresh token, so it cannot be refreshed."
    return login_required("chain-ended", message, new_pair(reference))


def not_kept(host: str, why: str, reference: Frozen) -> FetchFailed:
    """Return the failure of a refresh whose response could not be written to disk."""
    message = f"{host} issued new tokens, but they could not be written to disk ({why}); the old ones no longer work."
    return login_required("chain-lost", message, new_pair(reference))


def exchange_refused(exchange: Exchange, provider: str, subject: str, reference: Frozen) -> FetchFailed:
    """Return the failure for a refused OIDC token.

    Args:
        exchange: The call and its response.
        provider: The name of the integration.
        subject: The OIDC token.
        reference: Where the configuration keeps it.
    """
    host = host_of(exchange.url)
    ends = jwt.end(subject)
    if ends is not None and ends <= exchange.at:
        message = f"The OIDC token expired at {ends:%Y-%m-%d %H:%M} UTC."
        return login_required("oidc-token-expired", message, f"put a new one {place(reference)}")
    message = (
        f"{host} refused the OIDC token: no identity mapping of the OIDC integration {provider!r} matches its claims."
    )
    if exchange.status in {400, 404}:
        message = f"{host} does not know the OIDC integration {provider!r}, or oidc-token is not a token of its issuer."
    hint = "compare oidc-provider and the token's claims with Administration > Manage Integrations > OpenID Connect"
    return rejected("oidc-refused", message, hint)


def no_token(exchange: Exchange) -> FetchFailed:
    """Return the failure of a response without a token."""
    message = f"The response of {host_of(exchange.url)} did not contain a token (HTTP {exchange.status})."
    return transient("bad-answer", message)


def _is_jfrogs(exchange: Exchange) -> bool:
    """Return whether a response is an error of the Access API or of Artifactory; both have a list of errors."""
    return isinstance(exchange.body.get("errors"), list)
