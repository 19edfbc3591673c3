"""What uv's own configuration says of private indexes: parsed TOML and variables in, candidates out, tables to add.

From a project only names and URLs are taken: a checkout may be hostile. Keys as in uv's settings reference ("index",
"index-url", "extra-index-url", also under "pip") and its list of environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from uvtokend.core import indexes
from uvtokend.core.edit import Table
from uvtokend.core.indexes import hostname
from uvtokend.core.model import Env, Index, Json, Request, Sink

#: So many indexes of one file are looked at; nobody has more, and each one shown must be read by a person.
MOST = 100
#: As in the settings: what uv allows, but nothing that reads as an option.
_NAME = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that uv knows.

    Args:
        name: As uv knows it; None where uv has none for it, or one that we do not take.
        url: Without a user or a password.
        provider: Whose it is; None for one of nobody's that we know.
        place: The file or variable that names it.
        credential: A password stands in its URL there.
        line: What should stand there instead.
    """

    name: str | None
    url: str
    provider: str | None
    place: str
    credential: bool
    line: str


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
class Plan:
    """What is to be done about what was found.

    Args:
        additions: The indexes to be added.
        conflicts: A sentence for each that cannot be added, with what to do.
        unknown: Those of providers that were not recognised.
    """

    additions: tuple[Addition, ...]
    conflicts: tuple[str, ...]
    unknown: tuple[Candidate, ...]


# ------------------------------------------------------------------------------------------------------ what uv says


def from_document(document: Mapping[str, Json], place: str) -> Iterator[Candidate]:
    """Yield the indexes of one ``uv.toml``, or of the ``tool.uv`` of one ``pyproject.toml``; at most `MOST`."""
    pip = document.get("pip")
    tables = (document, pip) if isinstance(pip, dict) else (document,)
    return islice((found for table in tables for found in _from_table(table, place)), MOST)


def from_environment(environ: Env) -> Iterator[Candidate]:
    """Yield the indexes of uv's environment variables."""
    for variable in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        for word in environ.get(variable, "").split():
            name, equals, url = word.partition("=")
            named = bool(equals) and "/" not in name
            line = f"{variable}={f'{name}=' if named else ''}{{}}"
            yield from _candidate(name if named else None, url if named else word, variable, line)


def tool_uv(pyproject: Mapping[str, Json]) -> dict[str, Json] | None:
    """Return the ``tool.uv`` of a ``pyproject.toml``, or None if it has none."""
    tool = pyproject.get("tool")
    found = tool.get("uv") if isinstance(tool, dict) else None
    return found if isinstance(found, dict) else None


def is_member(workspace: Json, folder: str) -> bool:
    """Tell whether a workspace takes a folder in.

    Args:
        workspace: The ``tool.uv.workspace`` of its root.
        folder: Relative to the root, with ``/``.
    """

    def listed(key: str) -> bool:
        patterns = workspace.get(key) if isinstance(workspace, dict) else None
        texts = [text.rstrip("/") for text in patterns if isinstance(text, str)] if isinstance(patterns, list) else []
        return any(fnmatchcase(folder, text.removeprefix("./")) for text in texts)

    return listed("members") and not listed("exclude")


def _from_table(table: Mapping[str, Json], place: str) -> Iterator[Candidate]:
    listed = table.get("index")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict):
            yield from _candidate(item.get("name"), item.get("url"), place, 'url = "{}"')
    yield from _candidate(None, table.get("index-url"), place, 'index-url = "{}"')
    extra = table.get("extra-index-url")
    for url in extra if isinstance(extra, list) else []:
        yield from _candidate(None, url, place, 'extra-index-url = ["{}"]')


def _candidate(name: Json, url: Json, place: str, line: str) -> Iterator[Candidate]:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return
    try:
        parts = urlsplit(url)
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        found = indexes.recognise(bare)
    except ValueError:
        return
    if parts.scheme in {"http", "https"} and parts.hostname:
        named = name if isinstance(name, str) and _NAME.fullmatch(name) else None
        provider = found[0] if found else None
        yield Candidate(named, bare, provider, place, parts.password is not None, line.replace("{}", bare))


# ----------------------------------------------------------------------------------------------- what to do about it


def plan(
    candidates: Iterable[Candidate], known: Collection[Index], disabled: Collection[Index], profile: str | None
) -> Plan:
    """Return what is to be added, each URL once, in the order in which it was found.

    An index on a host that the configuration has already gets the options of that one, as both must share a token.

    Args:
        candidates: What uv knows.
        known: What is configured.
        disabled: What is configured and switched off: it stays so.
        profile: The AWS profile in force, which is written down: the daemon may not see the variable.
    """
    seen = {_bare(index.url) for index in (*known, *disabled)}
    new: dict[str, Candidate] = {}
    for candidate in candidates:
        if _bare(candidate.url) not in seen:
            new.setdefault(_bare(candidate.url), candidate)
    chosen = [(candidate, _options(candidate, known, profile)) for candidate in new.values() if candidate.provider]
    wanted = [(candidate, options, _request(candidate, options)) for candidate, options in chosen]
    there = {index.host: index for index in known}
    free = [(_host(candidate.url), request) for candidate, _, request in wanted if _host(candidate.url) not in there]
    sink_of = {**sinks(free), **{host: index.sink for host, index in there.items()}}
    names = {index.name for index in (*known, *disabled)}
    additions, conflicts = [], []
    for candidate, options, request in wanted:
        host = _host(candidate.url)
        if host in there and sink_of[host] == "netrc" and there[host].request != request:
            conflicts.append(_conflict(candidate, there[host]))
            continue
        name, note = _name(candidate, names)
        names.add(name)
        sink: Table = {} if sink_of[host] == "netrc" else {"sink": sink_of[host]}
        additions.append(Addition(candidate, {"name": name, "url": candidate.url, **sink, **options}, note))
    unknown = [candidate for candidate in new.values() if not candidate.provider]
    return Plan(tuple(additions), tuple(conflicts), tuple(unknown))


def sinks(requests: Iterable[tuple[str, Request]]) -> dict[str, Sink]:
    """Return where the tokens for each host are to go: a netrc knows hosts only, so two tenants on one need the store.

    Args:
        requests: What is to be fetched for each index, with its host.
    """
    tenants: dict[str, set[Request]] = {}
    for host, request in requests:
        tenants.setdefault(host, set()).add(request)
    return {host: "netrc" if len(found) == 1 else "uv-store" for host, found in tenants.items()}


def _options(candidate: Candidate, known: Iterable[Index], profile: str | None) -> Table:
    """Return the options to write: those of an index that shares the host and the tenant, or the profile in force."""
    for index in known:
        if index.host == _host(candidate.url) and index.provider == candidate.provider:
            told = indexes.told_by_url(index.provider, candidate.url)
            options: dict[str, Any] = {key: value for key, value in index.request.options if key not in told}
            if _request(candidate, {}).service == index.request.service and all(
                isinstance(value, str | int) for value in options.values()
            ):
                env: Table = {"env": dict(index.request.env)} if index.request.env else {}
                return {**options, **env}
    return {"profile": profile} if candidate.provider == "aws-codeartifact" and profile else {}


def _request(candidate: Candidate, options: Table) -> Request:
    provider = candidate.provider or ""
    env = options.get("env")
    plain: Any = {key: value for key, value in options.items() if key != "env"}
    inside: Any = env if isinstance(env, dict) else {}
    told = indexes.told_by_url(provider, candidate.url)
    return indexes.request(provider, candidate.url, {**told, **plain}, inside)


def _name(candidate: Candidate, taken: Collection[str]) -> tuple[str, str | None]:
    """Return a free name, and what to say where it is not the one that uv has."""
    first = candidate.name or indexes.default_name(candidate.url)
    name, number = first, 1
    while name in taken:
        number += 1
        name = f"{first}-{number}"
    if candidate.name in {None, name}:
        return name, None
    return name, f"Another index is called {first!r} already, so uvtokend calls this one {name!r}; uv need not know."


def _conflict(candidate: Candidate, there: Index) -> str:
    return (
        f"{candidate.url} needs another credential than {there.name!r} on the same host, and a netrc knows hosts only. "
        f'Write sink = "uv-store" for {there.name!r} and run uvtokend init again.'
    )


def _host(url: str) -> str:
    return hostname(urlsplit(url))


def _bare(url: str) -> str:
    return url.rstrip("/").removesuffix("/simple")
