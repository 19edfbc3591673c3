"""Find private indexes in uv's own configuration: parsed TOML and variables in, candidates out.

A checkout may be hostile, so only names and URLs are read from a project. Keys as in uv's settings reference ("index",
"index-url", "extra-index-url", also under "pip") and its list of environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice

from uvtokend.core import clouds
from uvtokend.core.config import edit
from uvtokend.core.config.values import is_index_name
from uvtokend.core.model import Env, Json
from uvtokend.core.urls import IndexUrl

#: The most indexes that are read from one file. Real projects have fewer, and the user must read each one.
MOST = 100
#: Index names as in the settings: what uv allows, except names that look like an option.
_USER = re.compile(r"[A-Za-z0-9._@+-]+")
#: A user name of this many characters, or with a word of this many, may be a token.
_TOKEN = 32
_WORD = 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index in uv's configuration.

    Args:
        name: The name in uv's configuration; None if there is none, or if uvtokend does not accept it.
        url: The URL without user name and password.
        provider: The recognized provider, or None.
        source: The file or variable that names the index.
        secret: Whether the URL there contains a password, or a user name that may be a token.
        line: The line that should replace it there.
        user: The user name in the URL there if the URL contains no secret; otherwise empty.
    """

    name: str | None
    url: IndexUrl
    provider: str | None
    source: str
    secret: bool
    line: str
    user: str = ""


def from_document(document: Mapping[str, Json], source: str) -> Iterator[Candidate]:
    """Yield the indexes of one ``uv.toml``, or of the ``tool.uv`` of one ``pyproject.toml``; at most `MOST`."""
    pip = document.get("pip")
    tables = (document, pip) if isinstance(pip, dict) else (document,)
    return islice((candidate for table in tables for candidate in _from_table(table, source)), MOST)


def from_environment(environ: Env) -> Iterator[Candidate]:
    """Yield the indexes of uv's environment variables."""
    for variable in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        for word in environ.get(variable, "").split():
            name, equals, url = word.partition("=")
            named = bool(equals) and "/" not in name
            before = f"{variable}={name}=" if named else f"{variable}="
            yield from _candidate(name if named else None, url if named else word, variable, before.__add__)


def names_in_document(document: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Yield the name and URL, as written, of every named index in one ``uv.toml`` or ``tool.uv``.

    Every index counts, because uv accepts URLs that we do not.
    """
    pip = document.get("pip")
    for table in (document, pip if isinstance(pip, dict) else {}):
        listed = table.get("index")
        for item in listed if isinstance(listed, list) else []:
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                yield str(item["name"]), str(item.get("url"))


def names_in_environment(environ: Env) -> Iterator[tuple[str, str, str]]:
    """Yield the name, URL and variable of every named index in uv's environment variables."""
    for variable in ("UV_INDEX", "UV_DEFAULT_INDEX"):
        for word in environ.get(variable, "").split():
            name, equals, url = word.partition("=")
            if equals:
                yield name, url, variable


def tool_uv(pyproject: Mapping[str, Json]) -> dict[str, Json] | None:
    """Return the ``tool.uv`` of a ``pyproject.toml``, or None if it has none."""
    tool = pyproject.get("tool")
    table = tool.get("uv") if isinstance(tool, dict) else None
    return table if isinstance(table, dict) else None


def workspace_members(table: Mapping[str, Json]) -> Iterator[str]:
    """Yield the patterns of a workspace's members, relative to its root, in one ``tool.uv``."""
    workspace = table.get("workspace")
    members = workspace.get("members") if isinstance(workspace, dict) else None
    yield from (text for text in members if isinstance(text, str) and text) if isinstance(members, list) else ()


def path_sources(table: Mapping[str, Json]) -> Iterator[str]:
    """Yield the paths of the other projects that the sources of one ``tool.uv`` name."""
    sources = table.get("sources")
    for source in sources.values() if isinstance(sources, dict) else ():
        for item in source if isinstance(source, list) else [source]:
            path = item.get("path") if isinstance(item, dict) else None
            if isinstance(path, str):
                yield path


def file_requirements(document: Mapping[str, Json]) -> Iterator[str]:
    """Yield each text of a ``pyproject.toml`` that may require a project by its ``file:`` URL (PEP 508)."""
    waiting: list[Json] = [dict(document)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and "file:" in value:
            yield value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def is_member(workspace: Json, directory: str) -> bool:
    """Return whether a directory is a member of a workspace.

    Args:
        workspace: The ``tool.uv.workspace`` of the root.
        directory: The path relative to the root, with ``/``.
    """

    def listed(key: str) -> bool:
        patterns = workspace.get(key) if isinstance(workspace, dict) else None
        texts = [text.rstrip("/") for text in patterns if isinstance(text, str)] if isinstance(patterns, list) else []
        return any(fnmatchcase(directory, text.removeprefix("./")) for text in texts)

    return listed("members") and not listed("exclude")


def _from_table(table: Mapping[str, Json], source: str) -> Iterator[Candidate]:
    listed = table.get("index")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict):
            yield from _candidate(item.get("name"), item.get("url"), source, lambda url: edit.inline({"url": url}))
    yield from _candidate(None, table.get("index-url"), source, lambda url: edit.inline({"index-url": url}))
    extra = table.get("extra-index-url")
    for url in extra if isinstance(extra, list) else []:
        yield from _candidate(None, url, source, lambda url: edit.inline({"extra-index-url": [url]}))


def _candidate(name: Json, url: Json, source: str, line: Callable[[str], str]) -> Iterator[Candidate]:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return
    try:
        written = IndexUrl.parse(url)
    except ValueError:
        return
    if written.scheme in {"http", "https"} and written.host:
        bare = replace(written, username=None, password=False)
        recognized = clouds.recognize(bare)
        provider = recognized[0] if recognized else None
        named = name if isinstance(name, str) and is_index_name(name) else None
        user = written.username or ""
        secret = written.password or _may_be_token(user)
        kept = user if _USER.fullmatch(user) and not secret else ""
        yield Candidate(named, bare, provider, source, secret, line(bare.text), kept)


def _may_be_token(user: str) -> bool:
    """Return whether a user name in a URL may be a token: people write ``https://TOKEN@host/``.

    Tokens are long, and have long words with digits in them: those of Azure 52 or 84 characters, GitLab's 20 after
    ``glpat-``, JFrog's 64 or more. A short name, an organization's name or an email address is not one.
    """
    words = re.split(r"[@._+-]", user)
    return (len(user) >= _TOKEN and "@" not in user) or any(len(word) >= _WORD and not word.isalpha() for word in words)
