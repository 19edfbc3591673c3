"""jfrog-artifactory: a password, an access token, a chain of refresh tokens, or an exchanged OIDC token.

Artifactory takes each of them as the password of a netrc entry. With a token the login may be empty; it is named where
it is known.
"""

from __future__ import annotations

from datetime import UTC, datetime

from uvtokend.core.clouds.jfrog import JFROG
from uvtokend.core.model import Credential, Request, Secret
from uvtokend.providers.jfrog import refresh_chain
from uvtokend.providers.jfrog import responses as answers
from uvtokend.providers.jfrog.refresh_chain import Chain, Link
from uvtokend.providers.jfrog.transport import NotSent, post
from uvtokend.providers.kit import jwt
from uvtokend.providers.kit.failures import rejected, transient
from uvtokend.providers.kit.http import Exchange, host_of
from uvtokend.providers.kit.quiet import quiet
from uvtokend.providers.kit.secrets import place, read_secret
from uvtokend.providers.kit.skew import skew

#: RFC 8693 2.1, and the members as jfrog-client-go sends them (``access/services/oidctoken.go``).
_EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
}


@quiet
def fetch(request: Request) -> Credential:
    """Get a credential.

    Args:
        request: Its service is the platform's base URL; its options are one of these ways, and ``username`` beside
            each: ``password``; ``access-token``; ``refresh-token`` with, where it is still there, the ``access-token``
            that it came with; ``oidc-provider`` and ``oidc-token``. All but names are secret references.

    Raises:
        FetchFailed: With a failure that says what mends it.
    """
    written = {name for name, _ in request.options}
    if JFROG.is_undecided(written):
        raise rejected("bad-options", "The options make no way to log in, or more than one.")
    login = request.option("username")
    if login is not None and not (isinstance(login, str) and login.isprintable() and ":" not in login):
        raise rejected("bad-options", "username is a text of one line without a colon.")
    name = login or ""
    if "password" in written:
        return Credential(name, read_secret(request.option("password")), datetime.now(UTC), identity=name)
    if "refresh-token" in written:
        return _refreshed(request, name)
    return _exchanged(request, name) if "oidc-token" in written else _given(request, name)


def _given(request: Request, login: str) -> Credential:
    """Return an access token as it is. A reference token names neither user nor end."""
    reference = request.option("access-token")
    token = read_secret(reference)
    now, ends = datetime.now(UTC), jwt.end(token.reveal())
    if ends is not None and ends <= now:
        message = f"This access token ended at {ends:%Y-%m-%d %H:%M} UTC."
        raise rejected("expired", message, f"put a new one {place(reference)}")
    return _credential(token, login, now, ends, renew=f"put a new access token {place(reference)}")


def _exchanged(request: Request, login: str) -> Credential:
    reference, provider = request.option("oidc-token"), request.option("oidc-provider")
    subject = read_secret(reference)
    url = f"{_platform(request)}/access/api/v1/oidc/token"
    answer = post(url, {**_EXCHANGE, "subject_token": subject.reveal(), "provider_name": provider})
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
        raise transient("bad-answer", f"{host_of(platform)} answered no access token.")
    renew = answers.new_pair(reference) if link.refresh is None else None
    return _credential(link.access, login, link.issued_at or datetime.now(UTC), link.expires_at, renew, skew)


def _stands(link: Link) -> bool:
    """Tell whether a chain has come to its end, and its last access token still lives: there is nothing to ask for."""
    alive = link.access is not None and (link.expires_at is None or link.expires_at > datetime.now(UTC))
    return link.refresh is None and alive


def _refresh(request: Request, chain: Chain, url: str) -> float | None:
    """Add a link to a chain and return how far the clocks are apart; see `refresh_chain` for the order of things.

    The request wants a living access token of the same user ("Refresh Token" of JFrog's REST API). Where the last one
    is refused, the one of the configuration may do, or none: a platform may have a grace period for expired ones.
    """
    link, reference = chain.link, request.option("refresh-token")
    if link.refresh is None:
        raise answers.chain_ended(host_of(url), reference)
    given = request.option("access-token")
    known = (link.access, None if given is None else read_secret(given))
    proofs = [proof for proof in dict.fromkeys(known) if proof is not None]
    content = {"grant_type": "refresh_token", "refresh_token": link.refresh.reveal(), "refreshable": True}
    chain.ask(datetime.now(UTC))
    try:
        answer = _asked(url, content, proofs)
    except NotSent:
        chain.take_back()
        raise
    if answers.untouched(answer):
        chain.take_back()
    if (failure := answers.unusable(answer)) is not None:
        raise failure
    if answer.status >= 400:
        raise answers.refresh_refused(answer, link, reference, bool(proofs))
    token, successor = answers.token_of(answer), answers.token_of(answer, "refresh_token")
    if token is None and successor is None:
        raise answers.no_token(answer)
    ends = None if token is None else answers.end_of(answer, token)
    try:
        chain.grow(Link(successor, token, answer.at, ends, link.number + 1))
    except OSError as error:
        raise answers.not_kept(host_of(url), error.strerror or "the system refused", reference) from None
    return skew(answer.date, answer.at)


def _asked(url: str, content: dict[str, object], proofs: list[Secret]) -> Exchange:
    """Ask with one proof after the other and at last without one, until the answer is not that it will not do."""
    for proof in proofs:
        answer = post(url, content, proof)
        if answer.status != 401:
            return answer
    return post(url, content)


def _platform(request: Request) -> str:
    if not request.service:
        message = "The index URL does not show where the platform is; HOST/artifactory/api/pypi/REPOSITORY/simple does."
        raise rejected("bad-url", message, "write the index URL that Artifactory's Set Me Up shows")
    return request.service


def _credential(
    token: Secret,
    login: str,
    issued: datetime,
    ends: datetime | None,
    renew: str | None = None,
    skew: float | None = None,
) -> Credential:
    """Return the credential of a token that has come; an empty `login` is filled in where the token names its user.

    Raises:
        FetchFailed: It is none that could be delivered.
    """
    text = token.reveal()
    if not text.isprintable() or " " in text:
        raise transient("bad-answer", "What came as a token is none.")
    if ends is not None and ends <= issued:
        raise transient("expired-on-arrival", "The token that came has already ended.")
    user = login or answers.user_of(text)
    identity = user or answers.subject_of(text)
    return Credential(user, token, issued, ends, identity=identity, renew=renew, skew=skew)
