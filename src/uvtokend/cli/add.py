"""``uvtokend add``: add an index to ``config.toml``."""

from __future__ import annotations

import argparse
import math
import shlex
import tomllib
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import replace
from typing import Any

from uvtokend import paths
from uvtokend.cli import console, reload
from uvtokend.core import clouds
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.config import edit, sharing, templates
from uvtokend.core.model import Index, Json, Problem
from uvtokend.core.text import clean
from uvtokend.core.urls import IndexUrl
from uvtokend.disk import config_editor, configuration
from uvtokend.errors import OK, ConfigError, UsageError

EXAMPLES = (
    "uvtokend add https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/production/simple/",
    (
        "uvtokend add https://packages.example.com/simple/ --name private --set provider=nexus "
        "--set username=me --set 'password={ env = \"PACKAGES_PASSWORD\" }'"
    ),
)


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("url", metavar="URL", help="the index, as uv knows it")
    own.add_argument("--name", metavar="NAME", help="as uv knows it (default: derived from the URL)")
    own.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="assignments",
        help="a key of the index's table: provider=static, duration=3600, env.NAME=value, "
        "'password={ env = \"VAR\" }'; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Add an index; see `add`."""
    return add(args.url, args.name, args.assignments, args.config)


def add(url: str, name: str | None, assignments: Sequence[str], config_file: str | None) -> int:
    """Add an index to the configuration, and make the daemon load it.

    Args:
        url: The URL in uv's configuration.
        name: The name in uv's configuration; by default it is derived from the URL.
        assignments: ``KEY=VALUE``, as on the command line. Without any, the settings of a configured index on the same
            host are used.
        config_file: Another configuration file.

    Raises:
        UsageError: The name is taken, or the URL or a setting is invalid.
        ConfigError: The configuration would be invalid; nothing was written.
    """
    shared = None if assignments else _shared(url, config_file)
    table = _table(url, name, assignments, shared)
    places = {f"index {table['name']!r}"}

    def change(text: str) -> str:
        _check_name(table, text, config_file, assignments)
        places.add(f"[[index]] {len(edit.names(text)) + 1}")
        return edit.append(text, [table])

    try:
        settings = config_editor.edit(config_file, change)
    except ConfigError as error:
        raise ConfigError([_in_words_of_the_command(problem, places) for problem in error.problems]) from error
    console.out("".join(f"{clean(line)}\n" for line in edit.render(table).splitlines()))
    console.say(f"Added to {settings.file}." + (f" It shares the token of {shared[0].name!r}." if shared else ""))
    reload.tell_daemon(settings)
    return OK


def _shared(url: str, config_file: str | None) -> tuple[Index, edit.Table] | None:
    """Return a configured index whose token serves the new one, too, and the options to write for the new one."""
    text = configuration.read(paths.config_file(config_file)) or b""
    try:
        parsed = IndexUrl.parse(url)
    except ValueError:
        return None
    recognized = clouds.recognize(parsed)
    known = configuration.load(config_file, text).indexes
    return sharing.shared(parsed, recognized[0] if recognized else None, known)


def _table(
    url: str, name: str | None, assignments: Sequence[str], shared: tuple[Index, edit.Table] | None
) -> edit.Table:
    for text in (url, name or "", *assignments):
        if not _is_text(text):
            raise UsageError("The arguments are not UTF-8 text.")
    parsed = _parsed(url)
    _check_complete(parsed)
    provider = _provider(parsed, assignments, shared is not None)
    table: edit.Table = {"name": name or parsed.name, "url": url}
    if shared is not None:
        index, options = shared
        return {**table, **({} if index.sink == "netrc" else {"sink": index.sink}), **options}
    for assignment in assignments:
        path, value = _setting(assignment, provider)
        _set(table, path, value)
    return table


def _parsed(text: str) -> IndexUrl:
    with suppress(ValueError):
        url = IndexUrl.parse(text)
        if url.scheme and url.host:
            return url
    message = "This is not a URL."  # it is not repeated, because it may contain a password
    raise UsageError(message, "uvtokend add --help")


def _check_complete(url: IndexUrl) -> None:
    """Refuse a URL that was copied from an example.

    Raises:
        UsageError: It has a placeholder.
    """
    if (blank := url.placeholder) is not None:
        message = f"The URL has the placeholder {blank!r}. Write the index URL as your administrator or uv has it."
        raise UsageError(message, "uvtokend add --help")


def _provider(url: IndexUrl, assignments: Sequence[str], known: bool) -> str:
    if url.username is not None:
        message = "The URL contains a user name or password. uvtokend fetches what is needed. "
        message += "If it was a password or token, revoke it: it is in your shell's history now."
        raise UsageError(message, f"uvtokend add {shlex.quote(url.text)}")
    recognized = clouds.recognize(url)
    named = [text.partition("=")[2] for text in assignments if text.partition("=")[0].strip() == "provider"]
    if not recognized and not named and not known:
        message = f"No provider is known for this URL, so name one: {', '.join(CLOUDS)}."
        raise UsageError(message, templates.by_hand(url, None))
    return named[0].strip(" \"'") if named else recognized[0] if recognized else ""


def _setting(assignment: str, provider: str) -> tuple[list[str], Json]:
    """Return the key as a path, and the value: parsed as TOML if possible, otherwise a text.

    Raises:
        UsageError: The text is not a setting. It is not repeated, because it may contain a secret.
    """
    key, equals, text = assignment.partition("=")
    path = _path(key) if equals else []
    if not path:
        message = "--set wants KEY=VALUE, with a key of the index's table."
        raise UsageError(message, "uvtokend add URL --set duration=3600 --set 'password={ env = \"VAR\" }'")
    if path[0] in {"url", "name"}:
        raise UsageError(f"--set {path[0]} is given twice.", "uvtokend add URL --name NAME")
    value = _value(text)
    options = CLOUDS[provider].options if provider in CLOUDS else {}
    texts = {"provider", "sink", *(name for name, option in options.items() if option.kind.is_text)}
    if not isinstance(value, str) and (path[0] in texts or (path[0] == "env" and len(path) > 1)):
        return path, text
    return path, value


def _path(key: str) -> list[str]:
    """Return the parts of a TOML key such as ``env.NAME``; none if the text is not a key."""
    try:
        nested: Any = tomllib.loads(f"{key} = 0") if key.isprintable() and not key.lstrip().startswith("[") else {}
    except (ValueError, RecursionError):
        return []
    path: list[str] = []
    while isinstance(nested, dict) and len(nested) == 1:
        ((part, nested),) = nested.items()
        path.append(part)
    return path


def _value(text: str) -> Json:
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value: Json = document.pop("value")
    odd = isinstance(value, float) and not math.isfinite(value)
    return text if document or odd else value


def _set(table: edit.Table, path: Sequence[str], value: Json) -> None:
    for part in path[:-1]:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {part} is given twice.")
        table = inner
    if path[-1] in table:
        raise UsageError(f"--set {'.'.join(path)} is given twice.")
    table[path[-1]] = value


def _check_name(table: edit.Table, text: str, config_file: str | None, assignments: Sequence[str]) -> None:
    name = str(table["name"])
    if name in edit.names(text):
        message = f"An index called {name!r} already exists."
    elif name in {index.name for index in _of_site(config_file)}:
        message = f"The site's configuration already has an index called {name!r}."
    else:
        return
    recognized = clouds.recognize(IndexUrl.parse(str(table["url"])))
    provider = str(table.get("provider") or (recognized[0] if recognized else ""))
    settings = [word for each in assignments for word in ("--set", _harmless(each, provider))]
    raise UsageError(message, shlex.join(["uvtokend", "add", str(table["url"]), "--name", f"{name}-2", *settings]))


def _harmless(assignment: str, provider: str) -> str:
    """Return a setting for a message, without a value that may be a secret."""
    key, _, text = assignment.partition("=")
    cloud = CLOUDS.get(provider)
    option = cloud.options.get(key.strip()) if cloud is not None else None
    known = key.strip() in {"provider", "sink", "enabled"} or (option is not None and not option.kind.may_be_secret)
    return assignment if known or isinstance(_value(text), dict) else f"{key}=…"


def _in_words_of_the_command(problem: Problem, places: Set[str]) -> Problem:
    """Return a problem of the new index as a problem of the arguments, since nothing of it is in the file."""
    place, _, key = problem.where.partition(": ")
    if place not in places:
        return problem
    return replace(problem, file="the new index", where=key or "its table")


def _of_site(config_file: str | None) -> list[Any]:
    settings = configuration.load(config_file, b"")
    return [*settings.indexes, *settings.disabled]


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
