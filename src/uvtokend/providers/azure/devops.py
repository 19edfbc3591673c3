"""Azure DevOps itself: which tenant an organisation belongs to, and a session token for an Entra token.

Sources: artifacts-credprovider and artifacts-keyring-nofuss (exchange), Git Credential Manager ``AzureDevOpsRestApi``
(tenant headers), recordings of azure-devops-cli-extension, and public logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from uvtokend.core.model import Credential, Secret
from uvtokend.errors import FetchFailed
from uvtokend.providers.azure.fixes import Who
from uvtokend.providers.azure.transport import Line
from uvtokend.providers.kit.failures import login_required, rejected, transient
from uvtokend.providers.kit.http import Exchange, on_our_clock
from uvtokend.providers.kit.skew import skew

USER_NAME = "VssSessionToken"
PACKAGES = "pkgs.dev.azure.com"
_LEGACY = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)\.pkgs\.visualstudio\.com")
_NAME = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z%._-]*[0-9A-Za-z])?")
_TENANT = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*")
_SIGN_IN_HOSTS = frozenset({"login.microsoftonline.com", "login.windows.net", "login.microsoft.com"})
_AUTHORITY = re.compile(r"authorization_uri=\"?(?P<uri>[^\s,\"]+)")
_NOBODY = "00000000-0000-0000-0000-000000000000"
#: A session token lives 4 h, or as long as is asked for, 24 h at most (artifacts-credprovider); the quarter of an hour
#: is for clocks that differ.
LONGEST_LIFE = timedelta(hours=23, minutes=45)
#: Without it, a refused token is answered by a redirect to a sign-in page, or by that page itself, with status 203.
_PLAIN = {"X-TFS-FedAuthRedirect": "Suppress", "Accept": "application/json"}


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation of Azure DevOps.

    Args:
        name: As it stands in its URLs.
        service: The prefix of its package URLs.
        security: The prefix of its token service: the only place that our Entra token ever goes to.
        portal: Where people sign in.
    """

    name: str
    service: str
    security: str
    portal: str


def organisation(service: str) -> Organisation:
    """Return the organisation whose packages stand below `service`.

    Args:
        service: ``https://pkgs.dev.azure.com/<organisation>`` or ``https://<organisation>.pkgs.visualstudio.com``.

    Raises:
        FetchFailed: It is neither; no token goes anywhere else.
    """
    parts = urlsplit(service)
    host, path = parts.netloc.lower(), parts.path.strip("/")
    if parts.scheme == "https" and host == PACKAGES and _NAME.fullmatch(path):
        return Organisation(path, service, f"https://vssps.dev.azure.com/{path}", f"https://dev.azure.com/{path}")
    if parts.scheme == "https" and (found := _LEGACY.fullmatch(host)) and not path:
        name = found["name"]
        security = f"https://{name}.vssps.visualstudio.com"
        return Organisation(name, service, security, f"https://{name}.visualstudio.com")
    message = "The URL names no organisation of Azure DevOps, as https://pkgs.dev.azure.com/ORGANISATION/… does."
    raise rejected("bad-url", message)


def tenant_of(place: Organisation, line: Line) -> str | None:
    """Return the tenant that an organisation belongs to, or None where that cannot be seen.

    Raises:
        FetchFailed: It belongs to no tenant at all, so that no Entra token will ever open it.
    """
    for method, url in (("GET", place.service), ("HEAD", f"{place.security}/")):
        try:
            answer = line.ask(method, url, headers=_PLAIN)
        except FetchFailed as error:
            if error.failure.reason in {"unreachable", "timeout"}:
                return None  # the fetch itself will tell what is wrong with the network
            continue
        if answer.headers.get("X-VSS-ResourceTenant") == _NOBODY:
            message = (
                f"The organisation {place.name} belongs to a personal Microsoft account, not to a tenant, and accepts "
                "no Entra tokens; a personal access token opens it."
            )
            portal = f"{place.portal}/_usersSettings/tokens"
            raise rejected("personal-organisation", message, f'set credential = "pat" with a token from {portal}')
        if found := _tenant(answer.headers):
            return found
    return None


def _tenant(headers: Mapping[str, str]) -> str | None:
    told = headers.get("X-VSS-ResourceTenant", "")
    if _TENANT.fullmatch(told):
        return told
    found = _AUTHORITY.search(headers.get("WWW-Authenticate", ""))
    parts = urlsplit(found["uri"]) if found else None
    if parts is None or parts.scheme != "https" or parts.netloc.lower() not in _SIGN_IN_HOSTS:
        return None
    tenant = parts.path.strip("/")
    return tenant if _TENANT.fullmatch(tenant) else None


def session_token(place: Organisation, entra: Secret, identity: str | None, who: Who, line: Line) -> Credential:
    """Exchange an Entra token for a session token that can do no more than read packages.

    Args:
        place: The organisation.
        entra: The Entra token.
        identity: Whose it is.
        who: How it was got, for the command that mends a refusal.
        line: The session.

    Raises:
        FetchFailed: With what mends it.
    """
    asked = datetime.now(UTC) + LONGEST_LIFE
    answer = _ask(place, entra, line, {"validTo": asked.isoformat(timespec="seconds").replace("+00:00", "Z")})
    if answer.status == 400:  # an organisation may not grant so long a life
        answer = _ask(place, entra, line, {})
    if answer.status not in {200, 201}:
        raise _refused(place, answer, identity, who)
    token = answer.body.get("token")
    if not isinstance(token, str) or not token or not token.isprintable() or " " in token:
        raise transient("bad-answer", "Azure DevOps answered something that is no session token.")
    ends = _end(answer)
    if ends is not None and ends <= answer.at:
        raise transient("expired-on-arrival", "Azure DevOps answered a token whose end of life has passed.")
    ahead = skew(answer.date, answer.at)
    return Credential(USER_NAME, Secret(token), answer.at, ends, identity=identity, skew=ahead)


def _ask(place: Organisation, entra: Secret, line: Line, more: dict[str, str]) -> Exchange:
    return line.ask(
        "POST",
        f"{place.security}/_apis/Token/SessionTokens",
        params={"tokenType": "SelfDescribing", "api-version": "5.0-preview.1"},
        json={"displayName": "uvtokend", "scope": "vso.packaging", **more},
        headers={**_PLAIN, "Authorization": f"Bearer {entra.reveal()}"},
    )


def _end(answer: Exchange) -> datetime | None:
    """Return the end of life on this machine's clock; they tell it on theirs."""
    told: Any = answer.body.get("validTo")
    try:
        ends = datetime.fromisoformat(told)
        ends = ends.replace(tzinfo=UTC) if ends.tzinfo is None else ends.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return on_our_clock(ends, answer)


def _refused(place: Organisation, answer: Exchange, identity: str | None, who: Who) -> FetchFailed:
    text = f"{answer.body.get('message', '')} {answer.headers.get('X-TFS-ServiceError', '')}"
    whose = identity or who.name
    if "TF401444" in text:
        message = f"{whose} has to sign in to Azure DevOps with a browser once, before a token opens anything."
        return login_required("first-sign-in", message, f"open {place.portal} in a browser and sign in")
    if answer.status == 302 and not _is_sign_in(answer.headers.get("Location", "")):
        message = "Something on the way answered instead of Azure DevOps, most likely the login page of this network."
        return transient("captive-portal", message)
    if answer.status in {203, 302, 401}:
        return _not_let_in(place, whose, who)
    if answer.status == 403:
        message = f"{whose} may not have session tokens of the organisation {place.name}; a policy may forbid them."
        return rejected("forbidden", message, 'ask its administrator, or set token = "entra"')
    if answer.status == 404:
        return rejected("no-such-organisation", f"There is no organisation {place.name}.", f"open {place.portal}")
    message = f"Azure DevOps refused to give a session token ({answer.status})."
    return rejected("refused", message, 'set token = "entra" to do without')


def _not_let_in(place: Organisation, whose: str, who: Who) -> FetchFailed:
    if not who.is_user:
        message = f"The organisation {place.name} gives {whose} no session token."
        return rejected("token-refused", message, 'take out token = "session", and add the identity as a user there')
    tenant = f"the tenant {who.tenant}" if who.tenant else "its tenant"
    message = f"The organisation {place.name} does not let {whose} in: it wants a login of a member in {tenant}."
    return login_required("token-refused", message, who.hint("token-refused"))


def _is_sign_in(location: str) -> bool:
    host = (urlsplit(location).hostname or "").lower()
    return host in _SIGN_IN_HOSTS or host.endswith((".vssps.visualstudio.com", ".dev.azure.com"))
