"""gitlab: read a personal, group or project access token, a deploy token, or the token of a CI job.

GitLab accepts each of them as the password of a netrc entry. For a personal access token (a group's or project's is
one, too), GitLab returns the end of life, and the token can be rotated before it expires. A deploy token and a job
token are only read.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import requests

from uvtokend.core.clouds.gitlab import CLOUD, JOB_LOGIN
from uvtokend.plugin import Credential, FetchFailed, Notice, Request, Secret, quiet, read_secret, rejected, skew
from uvtokend.providers.gitlab import responses, rotation
from uvtokend.providers.gitlab.responses import About
from uvtokend.providers.kit import limits
from uvtokend.providers.kit.http import Exchange, no_netrc, remembered, unsent

#: The user name with a personal access token: GitLab ignores it, but it must not be empty ("Personal access tokens").
LOGIN = "__token__"
#: Seconds to wait for a connection, and then for a response.
TIMEOUT = (6.0, 12.0)


@quiet
def fetch(request: Request) -> Credential:
    """Get a token, and rotate it if that is configured and due.

    Args:
        request: Its service is the base URL of GitLab; its options are ``token`` (a secret reference), ``kind``
            (``personal``, ``deploy`` or ``job``), ``username``, and ``rotate`` (a truth value).

    Raises:
        FetchFailed: With the fix.
    """
    options = dict(request.options)
    if (conflict := CLOUD.conflict(options)) is not None:
        raise rejected("bad-options", conflict.message, conflict.hint)
    kind, login = options.get("kind", "personal"), options.get("username")
    if kind not in CLOUD.options["kind"].choices:
        raise rejected("bad-options", "kind must be personal, deploy or job.")
    if not (login is None or (isinstance(login, str) and login and login.isprintable() and ":" not in login)):
        raise rejected("bad-options", "username must be one line of text without a colon.")
    if kind == "personal":
        return _personal(request, str(login or LOGIN))
    name = JOB_LOGIN if kind == "job" else str(login)
    return Credential(name, read_secret(request.option("token")), datetime.now(UTC), identity=name)


def _personal(request: Request, login: str) -> Credential:
    server, reference = _server(request), request.option("token")
    if request.option("rotate") is not True:
        token = read_secret(reference)
        exchange = ask(server, token)
        known = _known(exchange, server, request)
        renew = responses.new_token(server, reference) if known and known.ends else None
        return _credential(token, login, exchange, known, renew)
    with rotation.held(server, reference) as file:
        token = file.token()
        exchange = ask(server, token)
        known = _known(exchange, server, request)
        if known is not None and rotation.is_due(known, exchange.at):
            try:
                token, exchange = file.rotate(token, known)
            except rotation.NotRotated as error:
                kept = _credential(token, login, exchange, known, error.hint or responses.new_token(server, reference))
                return replace(kept, notice=_not_rotated(error))
            known = _known(exchange, server, request)
    after = None if known is None else rotation.due(known)
    return _credential(token, login, exchange, known, None, after)


def _not_rotated(error: FetchFailed) -> Notice:
    message = f"The token could not be rotated, and is used until it expires. {error.message}"
    return Notice(error.failure.reason, message, error.hint)


def _known(exchange: Exchange, server: str, request: Request) -> About | None:
    """Return GitLab's information about a token; None for a kind of token without information.

    Raises:
        FetchFailed: GitLab refuses the token, or it cannot read packages.
    """
    reference = request.option("token")
    if (failure := responses.unusable(exchange)) is not None:
        raise failure
    if exchange.status in {400, 404, 405}:  # an OAuth token (400), or GitLab before 15.5 (404)
        return None
    if exchange.status not in {200, 201}:
        raise responses.refused(exchange, server, reference)
    known = responses.about(exchange)
    if (failure := responses.too_narrow(known.scopes, server, reference)) is not None:
        raise failure
    return known


def _credential(
    token: Secret,
    login: str,
    exchange: Exchange,
    known: About | None,
    renew: str | None,
    after: datetime | None = None,
) -> Credential:
    """Return the credential of a token.

    Raises:
        FetchFailed: It has expired.
    """
    ends = None if known is None else known.ends
    if ends is not None and ends <= exchange.at:
        raise rejected("expired", f"This token expired at {ends:%Y-%m-%d %H:%M} UTC.", renew)
    identity = None if known is None else known.identity
    ahead = skew(exchange.date, exchange.at)
    return Credential(login, token, exchange.at, ends, after, identity, renew=renew, skew=ahead)


def ask(server: str, token: Secret) -> Exchange:
    """Ask GitLab what a token is, which any scope allows (``self_information.rb``).

    Args:
        server: The base URL of GitLab.
        token: The token.

    Raises:
        FetchFailed: There is no response.
    """
    url = f"{server}/api/v4/personal_access_tokens/self"
    headers = {"PRIVATE-TOKEN": token.reveal(), "Accept": "application/json", "User-Agent": "uvtokend"}
    with requests.Session() as session:
        session.auth = no_netrc
        limits.mount(session)
        try:
            answer = session.get(url, headers=headers, timeout=TIMEOUT, allow_redirects=False)
        except (OSError, ValueError) as error:
            raise unsent(url, error if isinstance(error, OSError) else None) from None
    return remembered(url, answer.status_code, answer.headers, answer.content)


def _server(request: Request) -> str:
    if not request.service:
        message = (
            "The index URL does not name GitLab's API, as https://HOST/api/v4/projects/ID/packages/pypi/simple does."
        )
        raise rejected("bad-url", message, "use the index URL that GitLab shows on a package's page")
    return request.service
