"""What a platform's Access API says: a token and its end, or a refusal and what mends it.

Sources: JFrog's REST API pages "Refresh Token" and "Create Token", jfrog-client-go (``access/services``) and jfrog-cli
issue 2490 (the 404 of a used refresh token). Which status refuses an OIDC exchange is not documented. No text of the
server is ever repeated.
"""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta

from uvtokend.core.model import Frozen, Secret
from uvtokend.errors import FetchFailed
from uvtokend.providers.jfrog.refresh_chain import Link
from uvtokend.providers.kit import jwt
from uvtokend.providers.kit.failures import login_required, rejected, transient
from uvtokend.providers.kit.http import Exchange, host_of, on_our_clock, unwell
from uvtokend.providers.kit.secrets import place

#: Seconds; a longer life is a mistake.
_LONGEST_LIFE = 100 * 365 * 86400
#: Statuses by which a platform refuses a credential, in JFrog's own shape.
_REFUSALS = frozenset({400, 401, 404})


def token_of(exchange: Exchange, name: str = "access_token") -> Secret | None:
    """Return a token of an answer, or None where none came."""
    found = exchange.body.get(name)
    return Secret(found) if isinstance(found, str) and found else None


def end_of(exchange: Exchange, token: Secret) -> datetime | None:
    """Return a new token's end of life on our clock, the earlier of what answer and token say; None where neither does.

    ``expires_in`` is missing or 0 where the token has no end, and may be missing where it has one (jfrog-client-go).
    """
    ends = []
    seconds = exchange.body.get("expires_in")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < _LONGEST_LIFE:
        ends.append(exchange.at + timedelta(seconds=seconds))
    if (told := jwt.end(token.reveal())) is not None:
        ends.append(on_our_clock(told, exchange))
    return min(ends, default=None)


def user_of(token: str) -> str:
    """Return the user whom a token names in its ``sub``, ``…/users/<name>``; empty for none, or for an odd name."""
    subject = jwt.claims(token).get("sub")
    _, found, name = subject.partition("/users/") if isinstance(subject, str) else ("", "", "")
    return name if found and name.isprintable() and ":" not in name else ""


def subject_of(token: str) -> str | None:
    """Return what a token says that it is for."""
    subject = jwt.claims(token).get("sub")
    return user_of(token) or (subject if isinstance(subject, str) and subject.isprintable() and subject else None)


def unusable(exchange: Exchange) -> FetchFailed | None:
    """Return the failure of an answer that is not the Access API's own word on what was asked; else None."""
    host, status = host_of(exchange.url), exchange.status
    if 300 <= status < 400:
        message = f"{host} answers with a redirect, and a token is not sent after one."
        return rejected("redirected", message, "write the address that it leads to as the url of the index")
    if (failure := unwell(exchange)) is not None:
        return failure
    if status in {404, 405} and not _is_jfrogs(exchange):
        message = f"There is no Access API at {exchange.url}: the platform's address was taken from the index URL."
        ping = f"{exchange.url.partition('/access/api/')[0]}/access/api/v1/system/ping"
        return rejected("no-access-api", message, shlex.join(["curl", "-i", ping]))
    return None


def untouched(exchange: Exchange) -> bool:
    """Tell whether an answer says that nothing was done; a gateway's own time-out (408, 5xx) leaves it open."""
    return 300 <= exchange.status < 500 and exchange.status != 408


def refresh_refused(exchange: Exchange, link: Link, reference: Frozen, proven: bool) -> FetchFailed:
    """Return what the refusal of a refresh token means.

    Args:
        exchange: The call and its answer.
        link: What was asked with, with the mark of an earlier refresh that was cut short.
        reference: Where the configuration keeps the seed.
        proven: There was an access token to ask with.
    """
    host, status = host_of(exchange.url), exchange.status
    hint = new_pair(reference)
    if link.asked_at is not None and status in _REFUSALS and _is_jfrogs(exchange):
        message = (
            f"The refresh of {link.asked_at:%Y-%m-%d %H:%M} UTC was cut short before its answer was on disk. By then "
            f"{host} had given out new tokens, and the refresh token, which works only once, is used up."
        )
        return login_required("chain-lost", message, hint)
    if status in {400, 404} and _is_jfrogs(exchange):
        whose = "was used before (it works only once)" if link.number == 0 else "was used by another program"
        message = f"{host} does not know this refresh token: it {whose}, was revoked or has expired."
        return login_required("refresh-token-refused", message, hint)
    if status == 401 and not proven:
        message = f"{host} refreshes only for a living access token, and none is known yet."
        return login_required(
            "no-access-token", message, "add access-token = { … }, the one that the refresh token came with"
        )
    if status == 401:
        message = f"{host} refreshes only for a living access token, and the last one has expired or was revoked."
        return login_required("login-expired", message, hint)
    if status == 403:
        message = f"{host} does not let this user refresh tokens."
        return rejected("forbidden", message, "ask its administrator about token.allow-refreshable")
    return rejected("refused", f"{host} refused to refresh the token ({status}).", hint)


def new_pair(reference: Frozen) -> str:
    """Return what a person does to begin a new chain; `reference` is where the configuration keeps the seed."""
    return f"make a new token pair (jf access-token-create --refreshable) and put its refresh token {place(reference)}"


def chain_ended(host: str, reference: Frozen) -> FetchFailed:
    """Return the failure of a chain whose last answer brought no refresh token."""
    message = f"{host} gave no refresh token with the last access token, so there is nothing to go on with."
    return login_required("chain-ended", message, new_pair(reference))


def not_kept(host: str, why: str, reference: Frozen) -> FetchFailed:
    """Return the failure of a refresh whose answer could not be put on disk."""
    message = f"{host} gave out new tokens, and they could not be put on disk ({why}); the refresh token is used up."
    return login_required("chain-lost", message, new_pair(reference))


def exchange_refused(exchange: Exchange, provider: str, subject: str, reference: Frozen) -> FetchFailed:
    """Return what the refusal of an OIDC token means.

    Args:
        exchange: The call and its answer.
        provider: The integration that was named.
        subject: The token that was to be exchanged.
        reference: Where the configuration keeps it.
    """
    host = host_of(exchange.url)
    ends = jwt.end(subject)
    if ends is not None and ends <= exchange.at:
        message = f"The OIDC token that was to be exchanged ended at {ends:%Y-%m-%d %H:%M} UTC."
        return login_required("oidc-token-expired", message, f"put a new one {place(reference)}")
    message = (
        f"{host} exchanges no token of this kind: no identity mapping of the OIDC integration {provider!r} fits it."
    )
    if exchange.status in {400, 404}:
        message = (
            f"{host} knows no OIDC integration {provider!r}, or what oidc-token leads to is no token of its issuer."
        )
    hint = "compare oidc-provider and the token's claims with Administration > Manage Integrations > OpenID Connect"
    return rejected("oidc-refused", message, hint)


def no_token(exchange: Exchange) -> FetchFailed:
    """Return the failure of an answer in which there is no token."""
    return transient("bad-answer", f"{host_of(exchange.url)} answered something that is no token ({exchange.status}).")


def _is_jfrogs(exchange: Exchange) -> bool:
    """Tell JFrog's errors, of the Access API and of Artifactory, from a stranger's page: both have a list of them."""
    return isinstance(exchange.body.get("errors"), list)
