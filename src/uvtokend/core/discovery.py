"""What uv's own configuration says of private indexes: parsed TOML and variables in, candidates out.

From a project only names and URLs are taken: a checkout may be hostile. Keys as in uv's settings reference ("index",
"index-url", "extra-index-url") and its list of environment variables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from uvtokend.core import indexes
from uvtokend.core.model import Env, Index, Json


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that uv knows.

    Args:
        name: As uv knows it; None where uv has none for it.
        url: Without a user or a password.
        provider: Whose it is; None for one of nobody's that we know.
        place: The file or variable that names it.
        credential: A password stands in its URL there.
    """

    name: str | None
    url: str
    provider: str | None
    place: str
    credential: bool


def from_document(document: Mapping[str, Json], place: str) -> Iterator[Candidate]:
    """Yield the indexes of one ``uv.toml``, or of the ``tool.uv`` of one ``pyproject.toml``."""
    listed = document.get("index")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict):
            yield from _candidate(item.get("name"), item.get("url"), place)
    extra = document.get("extra-index-url")
    for url in [document.get("index-url"), *(extra if isinstance(extra, list) else [])]:
        yield from _candidate(None, url, place)


def from_environment(environ: Env) -> Iterator[Candidate]:
    """Yield the indexes of uv's environment variables."""
    for variable in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        for word in environ.get(variable, "").split():
            name, equals, url = word.partition("=")
            named = bool(equals) and "/" not in name
            yield from _candidate(name if named else None, url if named else word, variable)


def missing(candidates: Iterable[Candidate], known: Iterable[Index]) -> list[Candidate]:
    """Return the candidates of known providers that the configuration lacks, each URL once, in their order."""
    urls = {_bare(index.url) for index in known}
    names = {index.name for index in known}
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate.provider is not None and _bare(candidate.url) not in urls and candidate.name not in names:
            found.setdefault(_bare(candidate.url), candidate)
    return list(found.values())


def tables(candidates: Iterable[Candidate], profile: str | None) -> str:
    """Return the tables that add candidates to ``config.toml``.

    Args:
        candidates: All of known providers.
        profile: The AWS profile in force, which is written down: the daemon may not see the variable.
    """
    return "".join(_table(candidate, profile) for candidate in candidates)


def _table(candidate: Candidate, profile: str | None) -> str:
    lines = ["", "[[index]]"]
    if candidate.name is not None:
        lines.append(f"name = {_text(candidate.name)}")
    lines.append(f"url = {_text(candidate.url)}")
    if candidate.provider == "aws-codeartifact" and profile:
        lines.append(f"profile = {_text(profile)}")
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Return a TOML basic string; JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _candidate(name: Json, url: Json, place: str) -> Iterator[Candidate]:
    if not isinstance(url, str) or not url.isprintable():
        return
    try:
        parts = urlsplit(url)
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        found = indexes.recognise(bare)
    except ValueError:
        return
    if parts.scheme in {"http", "https"} and parts.hostname:
        named = name if isinstance(name, str) and name.isprintable() else None
        yield Candidate(named, bare, found[0] if found else None, place, parts.password is not None)


def _bare(url: str) -> str:
    return url.rstrip("/").removesuffix("/simple")
