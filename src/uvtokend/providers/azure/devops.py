"""Azure DevOps itself: find the tenant of an organization, and exchange an Entra token for a session token.

Sources: artifacts-credprovider (``VstsSessionTokenClient.cs``) and artifacts-keyring-nofuss (the exchange), Git
Credential Manager ``AzureDevOpsRestApi`` (tenant headers), recordings of azure-devops-cli-extension, and public logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from uvtokend.core.clouds import azure_artifacts as catalog
from uvtokend.core.clouds.azure_artifacts import Organization
from uvtokend.plugin import Credential, FetchFailed, Secret, excerpt, login_required, rejected, skew, transient
from uvtokend.providers.azure import responses
from uvtokend.providers.azure.fixes import Who
from uvtokend.providers.azure.transport import Line
from uvtokend.providers.kit import jwt
from uvtokend.providers.kit.http import Exchange, on_our_clock

USER_NAME = catalog.CLOUD.login
Access = Literal["write", "read"]
#: Azure DevOps documentation, "OAuth scopes". ``vso.packaging`` gives the permissions of a feed's Reader, who cannot
#: install a package that the feed has not saved from upstream yet. Saving takes a Collaborator's permissions, and only
#: ``vso.packaging_write`` gives them (microsoft/ado-npm-auth pull request 90; Microsoft's own provider asks for it).
SCOPES: Mapping[Access, str] = {"write": "vso.packaging_write", "read": "vso.packaging"}
_TENANT = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*")
_SIGN_IN_HOSTS = frozenset({"login.microsoftonline.com", "login.windows.net", "login.microsoft.com"})
_AUTHORITY = re.compile(r"authorization_uri=\"?(?P<uri>[^\s,\"]+)")
_NOBODY = "00000000-0000-0000-0000-000000000000"
#: A session token is valid for 4 h, or as long as the request asks for, at most 24 h (artifacts-credprovider). The
#: quarter of an hour allows for clocks that differ.
LONGEST_LIFE = timedelta(hours=23, minutes=45)
#: Without it, Azure DevOps answers an invalid token with a redirect to a sign-in page, or with that page and status
#: 203.
_PLAIN = {"X-TFS-FedAuthRedirect": "Suppress", "Accept": "application/json"}


def organization(service: str) -> Organization:
    """Return the organization whose packages are below `service`.

    Args:
        service: ``https://pkgs.dev.azure.com/<organization>`` or ``https://<organization>.pkgs.visualstudio.com``.

    Raises:
        FetchFailed: The service is neither; no token is sent anywhere else.
    """
    place = catalog.organization(service)
    if place is None:
        message = (
            "The URL does not name an organization in Azure DevOps, as https://pkgs.dev.azure.com/ORGANIZATION/… does."
        )
        raise rejected("bad-url", message)
    return place


def tenant_of(place: Organization, line: Line) -> str | None:
    """Return the tenant that an organization belongs to, or None if it cannot be determined.

    Raises:
        FetchFailed: The organization belongs to no tenant, so it will never accept an Entra token.
    """
    for method, url in (("GET", place.service), ("HEAD", f"{place.security}/")):
        try:
            answer = line.ask(method, url, headers=_PLAIN)
        except FetchFailed as error:
            if error.failure.reason in {"unreachable", "timeout"}:
                return None  # the fetch itself will report the network error
            continue
        if answer.headers.get("X-VSS-ResourceTenant") == _NOBODY:
            message = (
                f"The organization {place.name} belongs to a personal Microsoft account, not to a tenant, so it "
                "accepts personal access tokens but no Entra tokens."
            )
            portal = f"{place.portal}/_usersSettings/tokens"
            raise rejected("personal-organization", message, f'set credential = "pat" with a token from {portal}')
        if tenant := _tenant(answer.headers):
            return tenant
    return None


def _tenant(headers: Mapping[str, str]) -> str | None:
    told = headers.get("X-VSS-ResourceTenant", "")
    if _TENANT.fullmatch(told):
        return told
    match = _AUTHORITY.search(headers.get("WWW-Authenticate", ""))
    parts = urlsplit(match["uri"]) if match else None
    if parts is None or parts.scheme != "https" or parts.netloc.lower() not in _SIGN_IN_HOSTS:
        return None
    tenant = parts.path.strip("/")
    return tenant if _TENANT.fullmatch(tenant) else None


def session_token(
    place: Organization, entra: Secret, identity: str | None, who: Who, line: Line, access: Access
) -> Credential:
    """Exchange an Entra token for a session token that gives access only to packages.

    Args:
        place: The organization.
        entra: The Entra token.
        identity: The identity of the token.
        who: The way of the sign-in, for the command that fixes a refusal.
        line: The session.
        access: Whether the token can also publish and install packages from upstream.

    Raises:
        FetchFailed: With the fix.
    """
    asked = datetime.now(UTC) + LONGEST_LIFE
    wanted = {"scope": SCOPES[access], "validTo": asked.isoformat(timespec="seconds").replace("+00:00", "Z")}
    answer = _ask(place, entra, line, wanted)
    if answer.status == 400:  # an organization may forbid such a long life
        del wanted["validTo"]
        answer = _ask(place, entra, line, wanted)
    if answer.status not in {200, 201}:
        raise _refused(place, answer, identity, who)
    token = answer.body.get("token")
    if not isinstance(token, str) or not token or not token.isprintable() or " " in token:
        raise transient("bad-answer", "The response of Azure DevOps did not contain a valid session token.")
    ends = _end(answer, token)
    if ends is not None and ends <= answer.at:
        raise transient("expired-on-arrival", "Azure DevOps answered with a session token that has already expired.")
    ahead = skew(answer.date, answer.at)
    return Credential(USER_NAME, Secret(token), answer.at, ends, identity=identity, skew=ahead)


def _ask(place: Organization, entra: Secret, line: Line, more: Mapping[str, str]) -> Exchange:
    return line.ask(
        "POST",
        f"{place.security}/_apis/Token/SessionTokens",
        params={"tokenType": "SelfDescribing", "api-version": "5.0-preview.1"},
        json={"displayName": "uvtokend", **more},
        headers={**_PLAIN, "Authorization": f"Bearer {entra.reveal()}"},
    )


def _end(answer: Exchange, token: str) -> datetime | None:
    """Return the end of life on this machine's clock, from the response or else from the token."""
    told: Any = answer.body.get("validTo")
    try:
        ends = datetime.fromisoformat(told)
        ends = ends.replace(tzinfo=UTC) if ends.tzinfo is None else ends.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        known = jwt.end(token)
        return None if known is None else on_our_clock(known, answer)
    return on_our_clock(ends, answer)


def _refused(place: Organization, answer: Exchange, identity: str | None, who: Who) -> FetchFailed:
    text = _text(answer)
    whose = identity or who.name
    if "TF401444" in text:
        message = f"{whose} must sign in to Azure DevOps with a browser once before it accepts any token."
        return login_required("first-sign-in", message, f"open {place.portal} in a browser and sign in")
    if responses.policy(text):
        return _policy(place, whose, text)
    if answer.status == 302 and not _is_sign_in(answer.headers.get("Location", "")):
        message = "Something between this machine and Azure DevOps answered, probably the login page of this network."
        return transient("captive-portal", message)
    if answer.status in {203, 302, 401}:
        return _not_let_in(place, whose, who)
    if answer.status == 403:
        message = f"{whose} is not allowed to get session tokens of the organization {place.name}."
        return rejected("forbidden", message, 'ask its administrator, or set token = "entra"')
    if answer.status == 404:
        return rejected(
            "no-such-organization", f"The organization {place.name} does not exist.", f"open {place.portal}"
        )
    message = f"Azure DevOps refused to issue a session token (HTTP {answer.status})."
    return rejected("refused", message, 'set token = "entra" to use the Entra token itself')


def _text(answer: Exchange) -> str:
    """Return the message of a refusal: the one in the JSON, or else the header, which is percent-encoded."""
    said = answer.body.get("message")
    return said if isinstance(said, str) and said else unquote(answer.headers.get("X-TFS-ServiceError", ""))


def _policy(place: Organization, whose: str, text: str) -> FetchFailed:
    """Return the failure for a conditional access policy, with the sentence that names the condition that failed.

    ``VS403463`` comes as 401 or 403, for example with "the client network/proxy was not connected" (public logs). This
    sentence is the only hint at what the policy misses.
    """
    message = f"A conditional access policy of the organization {place.name} blocks {whose}: {excerpt(text)}"
    hint = "connect to your company's network or VPN; if that does not help, send this sentence to your administrator"
    return rejected("conditional-access", message, hint)


def _not_let_in(place: Organization, whose: str, who: Who) -> FetchFailed:
    if not who.is_user:
        message = f"The organization {place.name} does not issue session tokens to {whose}."
        return rejected("token-refused", message, 'remove token = "session", and add the identity as a user there')
    tenant = f"the tenant {who.tenant}" if who.tenant else "its tenant"
    message = f"The organization {place.name} rejected the token of {whose}: sign in as one of its members in {tenant}."
    return login_required("token-refused", message, who.hint("token-refused"))


def _is_sign_in(location: str) -> bool:
    host = (urlsplit(location).hostname or "").lower()
    return host in _SIGN_IN_HOSTS or host.endswith((".vssps.visualstudio.com", ".dev.azure.com"))
