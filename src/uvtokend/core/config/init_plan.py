"""What to do about the indexes that uv knows: candidates and what is configured in, tables and sentences out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from uvtokend.core import indexes
from uvtokend.core.config import edit
from uvtokend.core.config.discovery import Candidate
from uvtokend.core.config.edit import Table
from uvtokend.core.indexes import PROVIDERS, hostname
from uvtokend.core.model import Frozen, Index, Json, Request, Sink

_AZURE = "azure-artifacts"
_AZURE_LOGIN = "VssSessionToken"
#: What stands for a value that only the user knows.
_EXAMPLES: Table = {"secret": {"file": "~/FILE"}, "login": "YOU", "login-or-secret": "YOU", "text": "NAME"}
#: Where repositories stand on a server of one's own (the documentation of both), whose host tells nothing.
_PATHS = {"/artifactory/api/pypi/": "jfrog-artifactory", "/repository/": "nexus"}


@dataclass(frozen=True, slots=True)
class Addition:
    """An index that is to be added.

    Args:
        candidate: What uv says of it.
        table: What is to be written.
        note: What a person should know about it, or None.
    """

    candidate: Candidate
    table: Table
    note: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """An index that only a person can add, since nobody else knows the way to log in.

    Args:
        candidate: What uv says of it.
        name: What it would be called.
        remark: A comment for the configuration with the table, to be completed.
    """

    candidate: Candidate
    name: str
    remark: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done about what was found.

    Args:
        additions: The indexes to be added.
        drafts: Those to be written down as comments.
        conflicts: A sentence for each that cannot be added, with what to do.
        cautions: Sentences about what uv cannot do with those to be added.
        unknown: Those of providers that were not recognised.
        project: The lines that uv's own configuration needs, so that uv can tell two organisations apart.
    """

    additions: tuple[Addition, ...]
    drafts: tuple[Draft, ...]
    conflicts: tuple[str, ...]
    cautions: tuple[str, ...]
    unknown: tuple[Candidate, ...]
    project: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    """How an index is to be served.

    Args:
        shared: With the token of one that is configured.
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
    profile: str | None,
    text: str = "",
) -> Plan:
    """Return what is to be added, each URL once, in the order in which it was found.

    Args:
        candidates: What uv knows.
        known: What is configured.
        disabled: What is configured and switched off: it stays so.
        profile: The AWS profile in force, which is written down: the daemon may not see the variable.
        text: The configuration, for the drafts that stand in it already.
    """
    found = tuple(candidates)
    new = _new(found, [*known, *disabled])
    users = {_tenant(each.url): each.user for each in reversed(new) if each.provider == _AZURE and each.user}
    choices = [_shared(each, known) or _fresh(each, profile, users) for each in new]
    there = {index.host: index for index in known}
    recognised = [each for each in choices if each.request.provider]
    conflicts = [each for each in recognised if _stands_in_the_way(there.get(each.host), each)]
    possible = [each for each in recognised if each not in conflicts]
    drafts = [each for each in possible if _undecided(each)]
    good = [each for each in possible if each not in drafts]
    sink_of = {**sinks((each.host, each.request) for each in good), **{host: there[host].sink for host in there}}
    names = _Names(index.name for index in (*known, *disabled))
    additions = [_addition(each, names, sink_of[each.host]) for each in good]
    waiting = [each for each in drafts if _line(each.candidate) in text]
    return Plan(
        tuple(additions),
        tuple(_draft(each, names) for each in drafts if each not in waiting),
        (*(_conflict(each, there[each.host]) for each in conflicts), *map(_waiting, waiting)),
        tuple(_cautions(each for each in good if sink_of[each.host] == "uv-store")),
        tuple(each.candidate for each in choices if not each.request.provider),
        tuple(_for_uv(additions, known, found)),
    )


def sinks(requests: Iterable[tuple[str, Request]]) -> dict[str, Sink]:
    """Return where the tokens for each host are to go: a netrc knows hosts only, so two tenants on one need the store.

    Args:
        requests: What is to be fetched for each index, with its host.
    """
    tenants: dict[str, set[Request]] = {}
    for host, request in requests:
        tenants.setdefault(host, set()).add(request)
    return {host: "netrc" if len(found) == 1 else "uv-store" for host, found in tenants.items()}


def _new(candidates: Iterable[Candidate], there: Iterable[Index]) -> Sequence[Candidate]:
    """Return the first candidate for each URL that is not configured."""
    seen = {_bare(index.url) for index in there}
    new: dict[str, Candidate] = {}
    for candidate in candidates:
        # One that covers a whole organisation is for uv alone; see `_for_uv`.
        covers = candidate.provider == _AZURE and "/_packaging/" not in candidate.url
        if _bare(candidate.url) not in seen and not covers:
            new.setdefault(_bare(candidate.url), candidate)
    return tuple(new.values())


def sharing(url: str, provider: str | None, known: Iterable[Index]) -> tuple[Index, Table] | None:
    """Return a configured index whose token serves another one on its host, and what is to be written for that one.

    Args:
        url: Of the other one.
        provider: The one that is recognised from it, or None.
        known: What is configured.
    """
    for index in known:
        told = indexes.told_by_url(index.provider, url)
        env = dict(index.request.env)
        request = indexes.request(index.provider, url, {**dict(index.request.options), **told}, env)
        if index.host == _host(url) and request == index.request:
            options = {key: _thawed(value) for key, value in request.options if key not in told}
            named: Table = {} if index.provider == provider else {"provider": index.provider}
            inside: Table = {"env": _thawed(request.env)} if env else {}
            return index, {**named, **options, **inside}
    return None


def _shared(candidate: Candidate, known: Iterable[Index]) -> _Choice | None:
    found = sharing(candidate.url, candidate.provider, known)
    return _Choice(candidate, found[1], found[0].request, found[0].host, shared=True) if found else None


def _thawed(value: Frozen) -> Json:
    """Return an option as it stands in the configuration."""
    if not isinstance(value, tuple):
        return value
    pairs = [item for item in value if isinstance(item, tuple)]
    return {str(key): _thawed(inner) for key, inner in pairs} if pairs else [_thawed(item) for item in value]


def _fresh(candidate: Candidate, profile: str | None, users: Mapping[str, str]) -> _Choice:
    """Return how an index is served that shares no token with a configured one; its provider may be nobody.

    Args:
        candidate: The index.
        profile: The AWS profile in force.
        users: Tenant of Azure -> the user name in its URLs: uv takes no other login then.
    """
    provider = candidate.provider or ""
    options: dict[str, Any] = {}
    if provider == "aws-codeartifact" and profile:
        options = {"profile": profile}
    if provider == _AZURE and (user := users.get(_tenant(candidate.url), _AZURE_LOGIN)) != _AZURE_LOGIN:
        options = {"username": user}
    told = indexes.told_by_url(provider, candidate.url)
    request = indexes.request(provider, candidate.url, {**told, **options}, {})
    return _Choice(candidate, {**options}, request, _host(candidate.url), shared=False)


def _undecided(choice: _Choice) -> bool:
    known = PROVIDERS.get(choice.request.provider)
    return known is not None and known.undecided(choice.options)


def _addition(choice: _Choice, names: _Names, sink: Sink) -> Addition:
    candidate = choice.candidate
    name, note = names.take(candidate)
    table: Table = {"name": name, "url": candidate.url}
    if sink != "netrc":
        table["sink"] = sink
        if candidate.provider == _AZURE and not choice.shared:
            table["username"] = _organisation(candidate.url)  # the one in its URL, should there be one, comes over it
    return Addition(candidate, {**table, **choice.options}, note)


def _draft(choice: _Choice, names: _Names) -> Draft:
    """Return a table to be completed, as a comment: what begins with one ``#`` is the table."""
    candidate = choice.candidate
    name, _ = names.take(candidate)
    ways = _ways(choice.request.provider)
    table = edit.render({"name": name, "url": candidate.url, **ways[0]})
    lines = [f"## How do you log in to {choice.host}? Write it into these lines, and take away the # in front of each:"]
    lines += [f"# {line}" for line in table.splitlines()]
    lines += [f"## or {edit.inline(way)}" for way in ways[1:]]
    return Draft(candidate, name, "\n".join([*lines, ""]))


def _ways(provider: str) -> list[Table]:
    """Return each way to log in, with examples for what only the user knows."""
    known = PROVIDERS[provider]
    required = tuple(name for name, option in known.options.items() if option.required)
    ways = [way.needs for way in known.ways] or [required]
    return [{name: _EXAMPLES[known.options[name].kind] for name in names} for names in ways]


def suggested(candidate: Candidate) -> list[str]:
    """Return the settings with which ``uvtokend add`` might take an index of a provider that was not recognised."""
    provider = next((each for path, each in _PATHS.items() if path in candidate.url), None)
    if provider is None:
        return ["provider=…"]
    options = [
        f"{key}={value}" if isinstance(value, str) else edit.inline({key: value})
        for key, value in _ways(provider)[0].items()
    ]
    return [f"provider={provider}", *options]


def _line(candidate: Candidate) -> str:
    """Return what tells a draft that was written down."""
    return edit.inline({"url": candidate.url})


class _Names:
    """Gives each index a name of its own."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def take(self, candidate: Candidate) -> tuple[str, str | None]:
        """Return a free name, and what to say where it is not the one that uv has."""
        first = candidate.name or indexes.default_name(candidate.url)
        name, number = first, 1
        while name in self._taken:
            number += 1
            name = f"{first}-{number}"
        self._taken.add(name)
        if candidate.name in {None, name}:
            return name, None
        return (
            name,
            f"Another index is called {first!r} already, so uvtokend calls this one {name!r}; uv need not know.",
        )


# ----------------------------------------------------------------------------------------------- what to say about it


def _cautions(stored: Iterable[_Choice]) -> Iterator[str]:
    """Yield a sentence for each host where uv cannot use in one run what its store can hold.

    Within one run uv keeps a credential by host and user name (uv-auth, `AuthMiddleware::handle`), and only Azure lets
    any user name in.
    """
    alike = [choice.host for choice in stored if choice.request.provider != _AZURE and not choice.shared]
    for host in dict.fromkeys(alike):
        yield (
            f"The indexes on {host} need different credentials with the same user name. One uv run can use only one of "
            "them."
        )


def _for_uv(additions: Iterable[Addition], known: Iterable[Index], found: Iterable[Candidate]) -> Iterator[str]:
    """Yield the indexes of Azure's organisations as uv has to know them: by the user name, which tells them apart.

    One index more covers the organisation, as its files lie outside the indexes' own roots.
    """
    mine = [
        (each.candidate.name or each.table["name"], each.candidate.url, each.table.get("username"))
        for each in additions
        if each.table.get("sink") == "uv-store" and each.candidate.provider == _AZURE
    ]
    hosts = {_host(url) for _, url, _ in mine}
    theirs = [(index.name, index.url, index.request.option("username")) for index in known if index.host in hosts]
    told = {(_bare(each.url), each.user) for each in found}
    for name, url, user in [*theirs, *mine]:
        place = f"{_tenant(url).rstrip('/')}/"
        for wanted, text, more in ((name, url, ()), (f"{user}-files", place, ("explicit = true",))):
            if isinstance(user, str) and (_bare(text), user) not in told:
                told.add((_bare(text), user))
                shown = text.replace("://", f"://{quote(user)}@", 1)
                yield from ("[[tool.uv.index]]", edit.inline({"name": wanted}), edit.inline({"url": shown}), *more, "")


def _tenant(url: str) -> str:
    """Return the URL prefix of an organisation of Azure."""
    return indexes.store_service(_AZURE, url)


def _organisation(url: str) -> str:
    """Return an organisation's name, or its host's, as a user name: Azure lets any in."""
    parts = urlsplit(_tenant(url))
    return re.sub(r"[^A-Za-z0-9-]+", "-", parts.path.strip("/") or parts.netloc)


def _stands_in_the_way(there: Index | None, choice: _Choice) -> bool:
    """Tell whether an index that is configured keeps another one on its host out of the netrc."""
    return there is not None and there.sink == "netrc" and there.request != choice.request


def _conflict(choice: _Choice, there: Index) -> str:
    user = (
        f' and username = "{_organisation(there.url)}"' if there.provider == choice.request.provider == _AZURE else ""
    )
    return (
        f"{choice.candidate.url} needs another credential than {there.name!r} on the same host, and a netrc knows "
        f'hosts only. Write sink = "uv-store"{user} for {there.name!r} and run uvtokend init again.'
    )


def _waiting(choice: _Choice) -> str:
    return f"{choice.candidate.url} stands in the configuration as a comment, and waits to be completed."


def _host(url: str) -> str:
    return hostname(urlsplit(url))


def _bare(url: str) -> str:
    return url.rstrip("/").removesuffix("/simple")
