"""Parse the responses of GitLab's API about a token: its end of life and scopes, or a refusal and its fix.

Sources: GitLab's documentation, "Personal access tokens API", and its source (``lib/api/api_guard.rb`` for refusals,
``lib/api/personal_access_tokens/self_information.rb``, ``self_rotation.rb``). No text of the server is ever repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from uvtokend.plugin import FetchFailed, Frozen, login_required, place, rejected, transient
from uvtokend.providers.kit.http import Exchange, host_of, on_our_clock, unwell

#: Scopes that give no access to the package registry ("Personal access token scopes"). A token with no other scope is
#: useless here; an unknown scope may be a newer one that gives access.
_USELESS = frozenset(
    {
        "admin_mode",
        "ai_features",
        "create_runner",
        "k8s_proxy",
        "manage_runner",
        "read_registry",
        "read_repository",
        "read_user",
        "self_rotate",
        "sudo",
        "write_registry",
        "write_repository",
    }
)
#: Scopes that allow a token to rotate itself ("Self-rotate").
ROTATING = frozenset({"api", "self_rotate"})


@dataclass(frozen=True, slots=True)
class About:
    """GitLab's information about a personal, group or project access token.

    Args:
        identity: Its name and its user's id.
        scopes: Its scopes; empty if GitLab did not return them.
        ends: Its end of life, UTC, on our clock; None if it has none.
        days: How many days it is valid in total; 0 if it has no end.
        today: The date on GitLab's clock.
    """

    identity: str | None
    scopes: frozenset[str]
    ends: datetime | None
    days: int
    today: date


def about(exchange: Exchange) -> About:
    """Return GitLab's information about a token.

    A token expires at midnight UTC at the beginning of its ``expires_at`` ("Access token expiration").

    Raises:
        FetchFailed: ``expires_at`` is not a date, so the end of life is unknown.
    """
    told = exchange.body
    ends, begun = _date(exchange, "expires_at"), _date(exchange, "created_at")
    today = (exchange.date or exchange.at).date()
    scopes = told.get("scopes")
    name, user = told.get("name"), told.get("user_id")
    known = isinstance(name, str) and name.isprintable() and isinstance(user, int)
    return About(
        identity=f"{name} (user {user})" if known else None,
        scopes=frozenset(str(scope) for scope in scopes) if isinstance(scopes, list) else frozenset(),
        ends=None if ends is None else on_our_clock(datetime.combine(ends, time(), UTC), exchange),
        days=0 if ends is None else max(1, (ends - (begun or today)).days),
        today=today,
    )


def _date(exchange: Exchange, name: str) -> date | None:
    """Return a date, or the date of a time; None for null."""
    told = exchange.body.get(name)
    if told is None:
        return None
    try:
        return date.fromisoformat(str(told)[:10])
    except ValueError:
        message = f"The response of {host_of(exchange.url)} has an invalid date ({name})."
        raise transient("bad-answer", message) from None


def unusable(exchange: Exchange) -> FetchFailed | None:
    """Return the failure of a response that does not come from GitLab itself; None if it does."""
    host = host_of(exchange.url)
    if 300 <= exchange.status < 400:
        message = f"{host} answers with a redirect, and uvtokend sends no token to where it points."
        return rejected("redirected", message, "use the address that it redirects to as the url of the index")
    return unwell(exchange)


def refused(exchange: Exchange, server: str, reference: Frozen) -> FetchFailed:
    """Return the failure for a refused token.

    Args:
        exchange: The call and its response.
        server: The base URL of GitLab.
        reference: Where the configuration keeps the token.
    """
    host = host_of(exchange.url)
    if exchange.status == 401:
        message = f"{host} does not accept this token: it has expired, was revoked or never existed."
        return login_required("token-refused", message, new_token(server, reference))
    if exchange.status == 403 and exchange.body.get("error") != "insufficient_scope":
        message = f"{host} does not let the user of this token use its API; the user may be blocked."
        return rejected("forbidden", message, "ask its administrator")
    return rejected("refused", f"{host} refused the token (HTTP {exchange.status}).", new_token(server, reference))


def too_narrow(scopes: frozenset[str], server: str, reference: Frozen) -> FetchFailed | None:
    """Return the failure of a token whose scopes do not include reading packages; None for any other."""
    if not scopes or not scopes <= _USELESS:
        return None
    message = f"The token's scopes ({', '.join(sorted(scopes))}) do not include reading packages."
    return rejected("missing-scope", message, new_token(server, reference))


def new_token(server: str, reference: Frozen, scopes: str = "read_api") -> str:
    """Return the fix with which a person creates a new token."""
    page = f"{server}/-/user_settings/personal_access_tokens"
    return f"create a personal access token with the scope {scopes} at {page} and put it {place(reference)}"
