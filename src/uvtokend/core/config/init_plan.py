"""Plan what ``init`` does with the indexes that uv knows: candidates and configuration in, tables and sentences out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from uvtokend.core import clouds
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.clouds.catalog import Cloud
from uvtokend.core.clouds.static import CLOUD as STATIC
from uvtokend.core.config import edit, sharing, templates
from uvtokend.core.config.discovery import Candidate
from uvtokend.core.config.edit import Table
from uvtokend.core.model import Env, Index, Json, Request, Sink
from uvtokend.core.urls import IndexUrl, is_loopback

#: The placeholder for a user name that was read from a URL, because it may be a secret.
_USER = "USER"


@dataclass(frozen=True, slots=True)
class Addition:
    """An index to add.

    Args:
        candidate: The index in uv's configuration.
        table: The table to write.
        note: What the user should know about it, or None.
    """

    candidate: Candidate
    table: Table
    note: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """An index that only the user can add, because only the user knows how to sign in.

    Args:
        candidate: The index in uv's configuration.
        name: The name in the template.
        remark: The template: a comment for the configuration with a table to complete.
    """

    candidate: Candidate
    name: str
    remark: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """The plan for the indexes that were found.

    Args:
        additions: The indexes to add.
        drafts: The indexes to write as comments.
        conflicts: A sentence with a fix for each index that cannot be added.
        cautions: Sentences about what uv cannot do with the added indexes.
        unknown: The indexes whose provider was not recognized.
        project: The lines that uv's own configuration needs, so that uv can tell two organizations apart.
    """

    additions: tuple[Addition, ...]
    drafts: tuple[Draft, ...]
    conflicts: tuple[str, ...]
    cautions: tuple[str, ...]
    unknown: tuple[Candidate, ...]
    project: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    """The way to serve an index.

    Args:
        shared: Whether it uses the token of a configured index.
    """

    candidate: Candidate
    options: Table
    request: Request
    host: str
    shared: bool


def plan(
    candidates: Iterable[Candidate],
    known: Collection[Index],
    disabled: Collection[Index],
    environ: Env,
    text: str = "",
    stored: Collection[str] = (),
) -> Proposal:
    """Return the plan, with each URL once, in the order of the candidates.

    Args:
        candidates: The indexes in uv's configuration.
        known: The configured indexes.
        disabled: The disabled indexes in the configuration; they stay disabled.
        environ: The environment of the user's shell, which the daemon may not have.
        text: The configuration, to find the templates that are already in it.
        stored: The providers whose program keeps a sign-in on this machine.
    """
    candidates = tuple(candidates)
    new = _new(candidates, [*known, *disabled])
    plain = [each for each in new if each.provider and each.url.scheme == "http" and not is_loopback(each.url.host)]
    choices = [each for each in _choices(new, known, environ, stored) if each.candidate not in plain]
    there = {index.host: index for index in known}
    recognized = [each for each in choices if each.request.provider]
    conflicts = [each for each in recognized if _is_in_the_way(there.get(each.host), each)]
    possible = [each for each in recognized if each not in conflicts]
    drafts = [each for each in possible if _is_undecided(each)]
    good = [each for each in possible if each not in drafts]
    sink_of = {**sinks((each.host, each.request) for each in good), **{host: there[host].sink for host in there}}
    names = _Names(index.name for index in (*known, *disabled))
    additions = [_addition(each, names, sink_of[each.host]) for each in good]
    waiting = [each for each in drafts if templates.mark(each.candidate.url) in text]
    return Proposal(
        additions=tuple(additions),
        drafts=tuple(_draft(each, names) for each in drafts if each not in waiting),
        conflicts=(*(_conflict(each, there[each.host]) for each in conflicts), *_left_out(waiting, plain)),
        cautions=tuple(_cautions(good, sink_of)),
        unknown=tuple(each.candidate for each in choices if not each.request.provider),
        project=tuple(_for_uv(additions, known, candidates)),
    )


def _choices(
    new: Sequence[Candidate], known: Collection[Index], environ: Env, stored: Collection[str]
) -> Iterator[_Choice]:
    """Yield the way to serve each index."""
    users = {_tenant(each): each.user for each in reversed(new) if _cloud(each).takes_any_login and each.user}
    yield from (_shared(each, known) or _fresh(each, environ, users, stored) for each in new)


def sinks(requests: Iterable[tuple[str, Request]]) -> dict[str, Sink]:
    """Return the sink for the tokens of each host: a netrc knows only hosts, so two tenants on one host need uv's
    store.

    Args:
        requests: The request of each index, with its host.
    """
    tenants: dict[str, set[Request]] = {}
    for host, request in requests:
        tenants.setdefault(host, set()).add(request)
    return {host: "netrc" if len(tenants_of_host) == 1 else "uv-store" for host, tenants_of_host in tenants.items()}


def _new(candidates: Iterable[Candidate], there: Iterable[Index]) -> Sequence[Candidate]:
    """Return the first candidate for each URL that is not configured."""
    seen = {IndexUrl.parse(index.url).root for index in there}
    new: dict[str, Candidate] = {}
    for candidate in candidates:
        # An index that covers a whole organization is only for uv; see `_for_uv`.
        if candidate.url.root not in seen and not _cloud(candidate).covers(candidate.url):
            new.setdefault(candidate.url.root, candidate)
    return tuple(new.values())


def _shared(candidate: Candidate, known: Iterable[Index]) -> _Choice | None:
    match sharing.shared(candidate.url, candidate.provider, known):
        case index, options:
            return _Choice(candidate, options, index.request, index.host, shared=True)
    return None


def _fresh(candidate: Candidate, environ: Env, users: Mapping[str, str], stored: Collection[str]) -> _Choice:
    """Return the way to serve an index that shares no token with a configured one; its provider may be unknown.

    Args:
        candidate: The index.
        environ: The environment of the person's shell.
        users: Tenant -> the user name in its URLs, because uv then accepts no other login.
        stored: The providers whose program keeps a sign-in, which is used if nothing else can be guessed.
    """
    provider, cloud = candidate.provider or "", _cloud(candidate)
    options = cloud.defaults(environ)
    if provider in stored and cloud.stored is not None and cloud.is_undecided(options):
        options = {**options, **cloud.stored.options}
    if cloud.takes_any_login and (user := users.get(_tenant(candidate), cloud.login)) != cloud.login:
        options = {**options, "username": user}
    in_url = clouds.options_in_url(provider, candidate.url)
    request = clouds.request(provider, candidate.url, {**in_url, **options}, {})  # type: ignore[dict-item]
    return _Choice(candidate, options, request, candidate.url.host, shared=False)


def _is_undecided(choice: _Choice) -> bool:
    known = CLOUDS.get(choice.request.provider)
    return known is not None and known.is_undecided(choice.options)


def _addition(choice: _Choice, names: _Names, sink: Sink) -> Addition:
    candidate = choice.candidate
    name, note = names.take(candidate)
    table: Table = {"name": name, "url": candidate.url.text}
    if sink != "netrc":
        table["sink"] = sink
        if _cloud(candidate).takes_any_login and not choice.shared:
            table["username"] = _organization(_tenant(candidate))  # a user name in the URL replaces it
    return Addition(candidate, {**table, **choice.options}, note)


def _draft(choice: _Choice, names: _Names) -> Draft:
    name, _ = names.take(choice.candidate)
    return Draft(choice.candidate, name, templates.template(choice.request.provider, name, choice.candidate.url))


class _Names:
    """Gives each index a unique name."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def take(self, candidate: Candidate) -> tuple[str, str | None]:
        """Return a free name, and a note if it is not the name in uv's configuration."""
        first = candidate.name or candidate.url.name
        name, number = first, 1
        while name in self._taken:
            number += 1
            name = f"{first}-{number}"
        self._taken.add(name)
        if candidate.name in {None, name}:
            return name, None
        return (
            name,
            f"Another index has the name {first!r} already, so uvtokend calls this one {name!r}.",
        )


# ----------------------------------------------------------------------------------------------- what to say about it


def _cautions(good: Sequence[_Choice], sink_of: Mapping[str, Sink]) -> Iterator[str]:
    """Yield what uv cannot do with the added indexes."""
    yield from _alike(each for each in good if sink_of[each.host] == "uv-store")
    yield from _in_memory(each for each in good if sink_of[each.host] == "memory")


def _alike(stored: Iterable[_Choice]) -> Iterator[str]:
    """Yield a sentence for each host with credentials that uv's store can hold, but uv cannot use in one run.

    Within one run uv keeps a credential by host and user name (uv-auth, `AuthMiddleware::handle`). So only a service
    that accepts any user name can be used for two tenants.
    """
    alike = [each.host for each in stored if not _cloud(each.candidate).takes_any_login and not each.shared]
    for host in dict.fromkeys(alike):
        yield (
            f"The indexes on {host} need different credentials with the same user name. One uv run can use only one of "
            "them."
        )


def _in_memory(kept: Iterable[_Choice]) -> Iterator[str]:
    """Yield a sentence for each host whose tokens are never on disk: uv gets them only from the keyring command."""
    for host in dict.fromkeys(each.host for each in kept):
        yield (
            f"The tokens for {host} are kept in memory, so uv has to ask for them: run uvtokend keyring install, "
            'and write keyring-provider = "subprocess" and, for each index, authenticate = "always" for uv.'
        )


def _for_uv(additions: Iterable[Addition], known: Iterable[Index], candidates: Iterable[Candidate]) -> Iterator[str]:
    """Yield the indexes of organizations on one host for uv's configuration: with a user name, to distinguish them.

    One more index covers the organization, since its files are outside the roots of its indexes.
    """
    stored = [each for each in additions if each.table.get("sink") == "uv-store"]
    mine = [
        (each.name or table["name"], each.url, _tenant(each), table.get("username"))
        for each, table in ((one.candidate, one.table) for one in stored)
        if _cloud(each).takes_any_login
    ]
    hosts = {url.host for _, url, _, _ in mine}
    theirs = [_configured(index) for index in known if index.host in hosts]
    in_urls = {(each.url.root, each.user) for each in candidates}
    for name, url, tenant, user in [*theirs, *mine]:
        place = IndexUrl.parse(f"{tenant.rstrip('/')}/")
        shown = user if user == _organization(tenant) else _USER
        for wanted, each, more in ((name, url, ()), (f"{shown}-files", place, ("explicit = true",))):
            if isinstance(user, str) and (each.root, user) not in in_urls:
                in_urls.add((each.root, user))
                text = each.text.replace("://", f"://{quote(str(shown))}@", 1)
                yield from ("[[tool.uv.index]]", edit.inline({"name": wanted}), edit.inline({"url": text}), *more, "")


def _configured(index: Index) -> tuple[str, IndexUrl, str, Json]:
    url = IndexUrl.parse(index.url)
    return index.name, url, clouds.store_service(index.provider, url), sharing.thawed(index.request.option("username"))


def _cloud(candidate: Candidate) -> Cloud:
    return CLOUDS.get(candidate.provider or "", STATIC)


def _tenant(candidate: Candidate) -> str:
    """Return the URL prefix of an index's tenant."""
    return clouds.store_service(candidate.provider or "", candidate.url)


def _organization(tenant: str) -> str:
    """Return the name of a tenant, or else of its host, as a user name."""
    url = IndexUrl.parse(tenant)
    return re.sub(r"[^A-Za-z0-9-]+", "-", url.path.strip("/") or url.netloc)


def _is_in_the_way(there: Index | None, choice: _Choice) -> bool:
    """Return whether a configured index prevents that another one on its host uses the netrc."""
    return there is not None and there.sink == "netrc" and there.request != choice.request


def _conflict(choice: _Choice, there: Index) -> str:
    both = there.provider == choice.request.provider and _cloud(choice.candidate).takes_any_login
    tenant = clouds.store_service(there.provider, IndexUrl.parse(there.url))
    user = f' and username = "{_organization(tenant)}"' if both else ""
    return (
        f"{choice.candidate.url.text} needs another credential than {there.name!r} on the same host, and a netrc knows "
        f'only hosts. Write sink = "uv-store"{user} for {there.name!r} and run uvtokend init again.'
    )


def _left_out(waiting: Iterable[_Choice], plain: Iterable[Candidate]) -> Iterator[str]:
    yield from map(_waiting, waiting)
    yield from map(_unencrypted, plain)


def _waiting(choice: _Choice) -> str:
    return f"{choice.candidate.url.text} is in the configuration as a comment. Complete it and remove the #."


def _unencrypted(candidate: Candidate) -> str:
    return (
        f"{candidate.url.text} in {candidate.source} was left out: with http:// its token would be sent unencrypted. "
        "Write https:// there."
    )
