"""jfrog-artifactory: get a password, an access token, a chain of refresh tokens, an exchanged OIDC token or jf's
sign-in.

Artifactory accepts each of them as the password of a netrc entry. With a token the login may be empty; it is added if
it is known.
"""

from __future__ import annotations

from datetime import UTC, datetime

from uvtokend.core.clouds.jfrog_artifactory import CLOUD
from uvtokend.plugin import (
    Credential,
    FetchFailed,
    Frozen,
    Request,
    Secret,
    login_required,
    place,
    quiet,
    read_secret,
    rejected,
    skew,
    transient,
)
from uvtokend.providers.jfrog import refresh_chain
from uvtokend.providers.jfrog import responses as answers
from uvtokend.providers.jfrog.jf_login import server_of
from uvtokend.providers.jfrog.refresh_chain import Chain, Link
from uvtokend.providers.kit import deadline, once
from uvtokend.providers.kit.http import Exchange, host_of

#: RFC 8693 2.1, and the members as jfrog-client-go sends them (``access/services/oidctoken.go``).
_EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
}


@quiet
def fetch(request: Request) -> Credential:
    """Get a credential.

    Args:
        request: Its service is the platform's base URL; its options are one of these ways to sign in, each with an
            optional ``username``: ``password``; ``access-token``; ``refresh-token`` with the ``access-token`` that it
            came with, if that still exists; ``oidc-provider`` and ``oidc-token``, with ``project-key`` and
            ``identity-mapping`` if the integration needs them; ``source = "jf"``. Passwords and tokens are secret
            references.

    Raises:
        FetchFailed: With the fix.
    """
    written = {name for name, _ in request.options}
    if CLOUD.is_undecided(written):
        raise rejected("bad-options", "The options must be exactly one way to sign in.")
    login = request.option("username")
    if login is not None and not (isinstance(login, str) and login.isprintable() and ":" not in login):
        raise rejected("bad-options", "username must be one line of text without a colon.")
    name = login or ""
    if "password" in written:
        return Credential(name, read_secret(request.option("password")), datetime.now(UTC), identity=name)
    if "refresh-token" in written:
        return _refreshed(request, name)
    if "source" in written:
        return _jf(request, name)
    return _exchanged(request, name) if "oidc-token" in written else _given(request, name)


#: Options that narrow an exchange, and their members (jfrog-client-go ``access/services/accesstoken.go``).
_NARROWING = {"project-key": "project_key", "identity-mapping": "identity_mapping_name"}


def _given(request: Request, login: str) -> Credential:
    """Return an access token unchanged. A reference token contains neither user nor end of life."""
    reference = request.option("access-token")
    token = read_secret(reference)
    now, ends = datetime.now(UTC), answers.jwt_end(token, "access-token")
    if ends is not None and ends <= now:
        message = f"This access token expired at {ends:%Y-%m-%d %H:%M} UTC."
        raise rejected("expired", message, f"put a new one {place(reference)}")
    return _credential(token, login, now, ends, renew=f"put a new access token {place(reference)}")


def _jf(request: Request, login: str) -> Credential:
    """Return the credential that ``jf`` is signed in with on this platform."""
    server = server_of(_platform(request))
    now = datetime.now(UTC)
    if not server.is_token:
        user = login or server.user
        return Credential(user, server.secret, now, identity=user or None)
    ends = answers.jwt_end(server.secret, "jf")
    if ends is not None and ends <= now:
        message = f"The access token that jf keeps for {server.name} expired at {ends:%Y-%m-%d %H:%M} UTC."
        raise login_required("login-expired", message, server.fix())
    return _credential(server.secret, login or server.user, now, ends, renew=server.fix())


def _exchanged(request: Request, login: str) -> Credential:
    reference, provider = request.option("oidc-token"), request.option("oidc-provider")
    subject = read_secret(reference)
    url = f"{_platform(request)}/access/api/v1/oidc/token"
    more = {name: request.option(option) for option, name in _NARROWING.items() if request.option(option) is not None}
    content = {**_EXCHANGE, "subject_token": subject.reveal(), "provider_name": provider, **more}
    answer = once.post(url, content, {})
    if (failure := answers.unusable(answer)) is not None:
        raise failure
    if answer.status >= 400:
        raise answers.exchange_refused(answer, str(provider), subject.reveal(), reference)
    token = answers.token_of(answer)
    if token is None:
        raise answers.no_token(answer)
    told = answer.body.get("username")
    known = told if isinstance(told, str) and told.isprintable() and ":" not in told else ""
    return _credential(
        token, login or known, answer.at, answers.end_of(answer, token), skew=skew(answer.date, answer.at)
    )


def _refreshed(request: Request, login: str) -> Credential:
    platform, reference = _platform(request), request.option("refresh-token")
    skew = None
    with refresh_chain.held(platform, read_secret(reference)) as chain:
        if not chain.advanced and not _stands(chain.link):
            skew = _refresh(request, chain, f"{platform}/access/api/v1/tokens")
        link = chain.link
    if link.access is None:
        raise transient("bad-answer", f"The response of {host_of(platform)} did not contain an access token.")
    renew = answers.new_pair(reference) if link.refresh is None else None
    return _credential(link.access, login, link.issued_at or datetime.now(UTC), link.expires_at, renew, skew)


def _stands(link: Link) -> bool:
    """Return whether a chain has ended and its last access token is still valid, so that no refresh is needed."""
    alive = link.access is not None and (link.expires_at is None or link.expires_at > datetime.now(UTC))
    return link.refresh is None and alive


def _refresh(request: Request, chain: Chain, url: str) -> float | None:
    """Add a link to a chain and return the difference of the clocks. See `refresh_chain` for the order of the steps.

    The request needs a valid access token of the same user ("Refresh Token" in JFrog's REST API). If the last one is
    refused, the one in the configuration may work, or none: a platform may have a grace period for expired ones.
    """
    link, reference = chain.link, request.option("refresh-token")
    if link.refresh is None:
        raise answers.chain_ended(host_of(url), reference)
    given = request.option("access-token")
    known = (link.access, None if given is None else read_secret(given))
    proofs = [proof for proof in dict.fromkeys(known) if proof is not None]
    content = {"grant_type": "refresh_token", "refresh_token": link.refresh.reveal(), "refreshable": True}
    with deadline.undisturbed():
        chain.ask(datetime.now(UTC))
        try:
            answer = _asked(url, content, proofs)
        except once.NotSent:
            chain.take_back()
            raise
        if answers.untouched(answer):
            chain.take_back()
        if (failure := answers.unusable(answer)) is not None:
            raise failure
        if answer.status >= 400:
            raise answers.refresh_refused(answer, link, reference, bool(proofs))
        return _grown(chain, answer, reference)


def _grown(chain: Chain, answer: Exchange, reference: Frozen) -> float | None:
    """Store the new link of a chain, whatever else is wrong with the response: the old refresh token is used up."""
    token, successor = answers.token_of(answer), answers.token_of(answer, "refresh_token")
    if token is None and successor is None:
        raise answers.no_token(answer)
    wrong = None
    try:
        ends = None if token is None else answers.end_of(answer, token)
    except FetchFailed as error:  # the token can still authenticate the next refresh
        ends, wrong = answer.at, error
    try:
        chain.grow(Link(successor, token, answer.at, ends, chain.link.number + 1))
    except OSError as error:
        raise answers.not_kept(host_of(answer.url), error.strerror or "unknown error", reference) from None
    if wrong is not None:
        raise wrong
    return skew(answer.date, answer.at)


def _asked(url: str, content: dict[str, object], proofs: list[Secret]) -> Exchange:
    """Ask with one proof after the other and finally without one, until the server no longer refuses the proof.

    All calls together take no longer than the limit of one call.
    """
    began = datetime.now(UTC)
    first, *others = (*proofs, None)
    answer = once.post(url, content, _bearer(first))
    for proof in others:
        if answer.status != 401:
            break
        left = once.TIMEOUT - max(0.0, (datetime.now(UTC) - began).total_seconds())
        if left < once.LEAST:
            raise once.too_late(url, left)
        answer = once.post(url, content, _bearer(proof), left)
    return answer


def _bearer(proof: Secret | None) -> dict[str, str]:
    return {} if proof is None else {"Authorization": f"Bearer {proof.reveal()}"}


def _platform(request: Request) -> str:
    if not request.service:
        message = (
            "The index URL does not name the platform, as https://HOST/artifactory/api/pypi/REPOSITORY/simple does."
        )
        raise rejected("bad-url", message, "use the index URL that Artifactory's Set Me Up shows")
    return request.service


def _credential(
    token: Secret,
    login: str,
    issued: datetime,
    ends: datetime | None,
    renew: str | None = None,
    skew: float | None = None,
) -> Credential:
    """Return the credential of a token; an empty `login` is filled in if the token names its user.

    Raises:
        FetchFailed: The token cannot be delivered.
    """
    text = token.reveal()
    if not text.isprintable() or " " in text:
        raise transient("bad-answer", "The response did not contain a valid token.")
    if ends is not None and ends <= issued:
        raise transient("expired-on-arrival", "The token has already expired.")
    user = login or answers.user_of(text)
    identity = user or answers.subject_of(text)
    return Credential(user, token, issued, ends, identity=identity, renew=renew, skew=skew)
