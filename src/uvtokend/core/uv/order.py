"""Decide which credential uv sends to a URL, by uv's own order of sources.

::

    1  the request's own: user name and password in the URL
    2  what uv knows before it starts: UV_INDEX_<NAME>_USERNAME and _PASSWORD, or else the URL's, of each index
    3  netrc             the first of $NETRC and ~/.netrc that exists; by host, whatever scheme and port
    4  uv's own store    credentials.toml; by URL prefix; since uv 0.8.15
    5  keyring           only with keyring-provider = "subprocess", and a user name or authenticate = "always"

The first one that has a credential wins. A user name that is known already (steps 1 and 2) must be that of the
credential in steps 3 to 5; otherwise uv skips the credential and, in the end, sends the user name with an empty
password.

Source: uv crates/uv-auth/src/middleware.rs, cache.rs, credentials.rs and store.rs, and
crates/uv-client/src/registry_client.rs (`cache_index_credentials`). A test compares a table of cases with the real uv.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uvtokend.core.model import Env, Secret
from uvtokend.core.netrc.grammar import scan
from uvtokend.core.uv.settings import (
    Location,
    Policy,
    UvConfiguration,
    UvIndex,
    is_below,
    line_of,
    realm,
    root,
    split_url,
    variable,
)
from uvtokend.core.uv_store import parse

Source = Literal["url", "environment", "netrc", "store", "keyring"]

#: The first uv that reads its own store, and the first that knows ``authenticate`` (uv's changelogs 0.8.x and 0.6.x).
STORE_SINCE = (0, 8, 15)
AUTHENTICATE_SINCE = (0, 6, 6)


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file that uv reads."""

    path: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything from which uv could take a credential.

    Args:
        uv: uv's configuration.
        variables: uv's environment variables.
        netrc: The netrc that uv reads, or None.
        store: uv's own store, or None.
        version: The version of uv; empty if it is unknown, which counts as a new version.
    """

    uv: UvConfiguration
    variables: Env
    netrc: TextFile | None = None
    store: TextFile | None = None
    version: tuple[int, ...] = ()

    def policy(self, index: UvIndex | None) -> Policy:
        """Return the ``authenticate`` of an index."""
        return "auto" if index is None or self._older(AUTHENTICATE_SINCE) else index.authenticate

    def stored(self) -> TextFile | None:
        """Return uv's own store if this version of uv reads it."""
        return None if self._older(STORE_SINCE) else self.store

    def _older(self, version: tuple[int, ...]) -> bool:
        return bool(self.version) and self.version < version


@dataclass(frozen=True, slots=True)
class UvCredential:
    """A credential in one of uv's sources.

    Args:
        login: The user name; empty if there is none.
        secret: The password or token; None if only a login is known, and for a keyring, which is not asked here.
        bearer: Whether the secret is sent as ``Authorization: Bearer``.
    """

    source: Source
    place: Location
    login: str
    secret: Secret | None
    bearer: bool = False


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A credential that uv does not send, and why."""

    credential: UvCredential
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The credential that uv sends to a URL, and the others that it could have sent.

    Args:
        index: The index of uv's configuration that the URL belongs to.
        sent: The credential that uv sends, at once or after a refusal; None if it has none.
        anonymous_first: Whether uv sends a request without a credential first.
        shadowed: The credentials that it does not send.
        stops: Whether uv sends no request at all: ``authenticate = "always"`` and no credential, or an incomplete one.
    """

    index: UvIndex | None
    sent: UvCredential | None
    anonymous_first: bool
    shadowed: tuple[Shadowed, ...] = ()
    stops: bool = False


def decide(sources: Sources, url: str) -> Decision:
    """Return the credential that uv sends to a URL.

    Args:
        sources: The sources that uv reads.
        url: The URL of an index, or of a page or file below it; it may contain a user name.

    Raises:
        ValueError: The text is not an HTTP URL.
    """
    split = split_url(url)
    if split is None:
        raise ValueError(url)
    bare, user, password = split
    index = sources.uv.covering(bare)
    policy = sources.policy(index)
    own = UvCredential("url", Location("the given URL"), user, password) if user or password else _in_url(index)
    known = _known(sources)
    if policy == "never":
        sent = own
        eager = True
    else:
        sent, eager = _sent(sources, bare, index, own, known)
    complete = sent is not None and (sent.secret is not None or sent.source == "keyring")
    stops = policy == "always" and not complete
    others = dict.fromkeys(_everything(sources, bare, index, own, known))
    shadowed = tuple(Shadowed(other, _why(other, sent, policy)) for other in others if other != sent)
    return Decision(index, sent, not eager and policy != "always", shadowed, stops)


# --------------------------------------------------------------------------------------------- the steps, in order


def _sent(
    sources: Sources, url: str, index: UvIndex | None, own: UvCredential | None, known: tuple[_Known, ...]
) -> tuple[UvCredential | None, bool]:
    """Return the credential that uv sends in the end, and whether its first request has at least a user name."""
    if own is not None:
        return (own if own.secret is not None else _completed(sources, url, index, own, known)), True
    first = _by_url(known, url, "")
    if first is not None and first.secret is not None:
        return first, True
    name = first.login if first is not None else ""
    cached = (_by_url(known, index.url, name) if index is not None else None) or _by_realm(known, url, name) or first
    if cached is None or cached.secret is None:
        cached = next(_fetched(sources, url, index, cached.login if cached is not None else ""), cached)
    return cached, first is not None


def _completed(
    sources: Sources, url: str, index: UvIndex | None, own: UvCredential, known: tuple[_Known, ...]
) -> UvCredential:
    """Return the credential for a user name in the URL; only the name if there is no credential."""
    near = _by_url(known, index.url, own.login) if index is not None else _by_realm(known, url, own.login)
    complete = near or _by_url(known, url, own.login) or next(_fetched(sources, url, index, own.login), None)
    return complete or _by_realm(known, url, own.login) or own


def _fetched(sources: Sources, url: str, index: UvIndex | None, user: str) -> Iterator[UvCredential]:
    """Yield the credentials of netrc, store and keyring that fit a user name, in uv's order."""
    for credential in (_in_netrc(sources, url), *_in_store(sources, url, user)):
        if credential is not None and (not user or credential.login == user):
            yield credential
    keyring = _in_keyring(sources, index, user)
    if keyring is not None:
        yield keyring


# -------------------------------------------------------------------------------------------- what uv knows before


@dataclass(frozen=True, slots=True)
class _Known:
    """A credential that uv knows before its first request, and the URL that it belongs to."""

    url: str
    credential: UvCredential


def _known(sources: Sources) -> tuple[_Known, ...]:
    """Return the credentials in uv's configuration, the weakest index first: a later one replaces an earlier one."""
    result: list[_Known] = []
    for index in reversed(sources.uv.indexes):
        credential = _in_environment(index, sources.variables) or _in_url(index)
        if credential is not None and (credential.login or credential.secret is not None):
            result += [_Known(root(index.url), credential), _Known(index.url, credential)]
    return tuple(result)


def _by_url(known: tuple[_Known, ...], url: str, user: str) -> UvCredential | None:
    """Return the credential that uv knows for the shortest prefix of a URL; for a user name, one with a password."""
    below = [each for each in known if is_below(url.rstrip("/"), each.url.rstrip("/"))]
    shortest = min((each.url.rstrip("/") for each in below), key=len, default=None)
    credential = next((each.credential for each in reversed(below) if each.url.rstrip("/") == shortest), None)
    if credential is None or not user or (credential.login == user and credential.secret is not None):
        return credential
    return None


def _by_realm(known: tuple[_Known, ...], url: str, user: str) -> UvCredential | None:
    """Return the credential that uv knows for the same scheme, host and port, whichever index it belongs to."""
    best: UvCredential | None = None
    for each in known:
        fits = realm(each.url) == realm(url) and user in ("", each.credential.login)
        if fits and (each.credential.secret is not None or best is None or best.secret is None):
            best = each.credential
    return best if best is None or not user or best.secret is not None else None


def _in_environment(index: UvIndex, environ: Env) -> UvCredential | None:
    if index.name is None:
        return None
    name = variable(index.name)
    login, password = environ.get(f"{name}_USERNAME"), environ.get(f"{name}_PASSWORD")
    if login is None and password is None:
        return None
    place = Location(f"{name}_USERNAME" if password is None else f"{name}_PASSWORD")
    return UvCredential("environment", place, login or "", None if password is None else Secret(password))


def _in_url(index: UvIndex | None) -> UvCredential | None:
    if index is None or not (index.user or index.password):
        return None
    return UvCredential("url", index.place, index.user, index.password)


# ----------------------------------------------------------------------------------------- netrc, store and keyring


def _in_netrc(sources: Sources, url: str) -> UvCredential | None:
    """Return the entry for a URL's host, or ``default``; the last one of a name wins."""
    netrc = sources.netrc
    if netrc is None:
        return None
    result = scan(netrc.text)
    host = _host(url)
    for name in (host, b"default"):
        entry = next((entry for entry in reversed(result.entries) if entry.name == name), None)
        if entry is not None and result.readable:
            place = Location(netrc.path, netrc.text.count(b"\n", 0, entry.start) + 1)
            login, password = (text.decode(errors="replace") for text in (entry.login, entry.password))
            return UvCredential("netrc", place, login, Secret(password))
    return None


def _host(url: str) -> bytes:
    host = realm(url)[1]
    return (f"[{host}]" if ":" in host else host).encode()


def _in_store(sources: Sources, url: str, user: str) -> Iterator[UvCredential]:
    """Yield the record for the longest prefix of a URL; none if two are equally long, or uv cannot read the file."""
    store = sources.stored()
    records = [record for record in _records(store) if is_below(url, record[0])] if store is not None else []
    fitting = [record for record in records if not user or record[1].login == user]
    longest = max((len(service) for service, _ in fitting), default=0)
    best = [credential for service, credential in fitting if len(service) == longest]
    if len(best) == 1:
        yield best[0]


def _records(store: TextFile) -> Iterator[tuple[str, UvCredential]]:
    try:
        records = parse(store.text)
    except (ValueError, RecursionError):
        return
    for record in records:
        place = Location(store.path, line_of(store.text, record.service))
        yield record.service, UvCredential("store", place, record.username, record.secret, bearer=not record.username)


def _in_keyring(sources: Sources, index: UvIndex | None, user: str) -> UvCredential | None:
    """Return a credential without a secret: uv would run ``keyring``, whose answer is not known here."""
    setting = sources.uv.settings.get("keyring-provider")
    if setting is None or setting.value != "subprocess":
        return None
    asked = bool(user) or sources.policy(index) == "always"
    return UvCredential("keyring", setting.place, user, None) if asked else None


# ---------------------------------------------------------------------------------------------- what is not sent


def _everything(
    sources: Sources, url: str, index: UvIndex | None, own: UvCredential | None, known: tuple[_Known, ...]
) -> Iterator[UvCredential]:
    """Yield every credential that could be for a URL, in uv's order."""
    if own is not None:
        yield own
    yield from (each.credential for each in known if realm(each.url) == realm(url))
    netrc = _in_netrc(sources, url)
    yield from () if netrc is None else (netrc, *_duplicates(sources, netrc, url))
    yield from _in_store(sources, url, "")
    keyring = _in_keyring(sources, index, own.login if own is not None else "")
    if keyring is not None:
        yield keyring


def _duplicates(sources: Sources, taken: UvCredential, url: str) -> Iterator[UvCredential]:
    """Yield the netrc entries that are shadowed by a later entry of the same name, or by an entry for the host."""
    assert sources.netrc is not None  # noqa: S101 - an entry was found in it
    text = sources.netrc.text
    for entry in scan(text).entries:
        place = Location(sources.netrc.path, text.count(b"\n", 0, entry.start) + 1)
        if entry.name in (_host(url), b"default") and place != taken.place:
            login, password = (part.decode(errors="replace") for part in (entry.login, entry.password))
            yield UvCredential("netrc", place, login, Secret(password))


def _why(credential: UvCredential, sent: UvCredential | None, policy: str) -> str:
    """Return why uv does not send a credential."""
    if policy == "never":
        return 'the index has authenticate = "never"'
    names_another = sent is not None and sent.secret is None and credential.login != sent.login
    if sent is not None and names_another and credential.source in {"netrc", "store"}:
        return f"its login is not {sent.login!r}, the user name that uv already knows"
    if sent is not None and credential.source == sent.source == "netrc":
        return "uv takes the last entry of a host, and default only for hosts without an entry"
    return "uv has found a credential before it looks here" if sent is not None else "uv does not use it for this URL"
