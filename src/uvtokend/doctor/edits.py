"""Fixes that are edits of uv's configuration: the whole new line, ready to paste.

No user information of a URL is ever repeated, so that no password is shown.
"""

from __future__ import annotations

import re
import shlex

from uvtokend.core.uv.settings import Location, UvIndex
from uvtokend.doctor.facts import Facts

_USER = re.compile(r"(?<=://)[^/@\s\"']*@")
_POLICY = re.compile(r"""authenticate\s*=\s*(["'])\w+\1""")
_ALWAYS = 'authenticate = "always"'


def without_user(facts: Facts, place: Location) -> str:
    """Return the fix that takes the user name and the password out of the URLs in one place."""
    return _written(facts, place, "")


def with_url(facts: Facts, known: UvIndex, url: str) -> str:
    """Return the fix that changes the URL of an index of uv's.

    Args:
        facts: The facts with the text of the file.
        known: The index in uv's configuration.
        url: The new URL; it may have a user name.
    """
    return _written(facts, known.place, url, known.url)


def set_line(place: Location, line: str) -> str:
    """Return the fix that replaces a line, or unsets a variable."""
    return f"write {line} in {place}" if place.line else f"unset {place.name}"


def delete_line(place: Location) -> str:
    """Return the fix that deletes a line, or unsets a variable."""
    return f"delete the line {place}" if place.line else f"unset {place.name}"


def always(facts: Facts, known: UvIndex) -> str:
    """Return the fix that adds ``authenticate = "always"`` to an index."""
    return _with_key(facts, known, _POLICY, _ALWAYS)


def explicit(facts: Facts, known: UvIndex) -> str:
    """Return the fix that adds ``explicit = true`` to an index."""
    return _with_key(facts, known, re.compile(r"explicit\s*=\s*\w+"), "explicit = true")


def _with_key(facts: Facts, known: UvIndex, key: re.Pattern[str], value: str) -> str:
    lines = _lines(facts, known.place)
    if not lines:
        return f"name the index in pyproject.toml or uv.toml, as [[index]] with its name, its url and {value}"
    for number in _table(lines, known.place.line):
        if key.search(lines[number - 1]):
            return f"write {key.sub(value, lines[number - 1]).strip()} in {Location(known.place.name, number)}"
    line = _USER.sub("", lines[known.place.line - 1].strip())
    if "{" in line and "}" in line:
        before, _, after = line.rpartition("}")
        return f"write {before.rstrip()}, {value} }}{after} in {known.place}"
    return f"add {value} below {known.place}"


def _table(lines: list[str], line: int) -> range:
    """Return the numbers of the lines of the table that a line is in."""
    first = next((number for number in range(line, 0, -1) if lines[number - 1].lstrip().startswith("[")), 1)
    following = range(line + 1, len(lines) + 1)
    last = next((number for number in following if lines[number - 1].lstrip().startswith("[")), len(lines) + 1)
    return range(first, last)


def _written(facts: Facts, place: Location, url: str, before: str = "") -> str:
    lines = _lines(facts, place)
    text = lines[place.line - 1].strip() if lines else facts.environ.get(place.name, "")
    clean = _USER.sub("", text)
    if url:
        clean = clean.replace(before, url)
    return f"write {clean} in {place}" if lines else f"export {place.name}={shlex.quote(clean)}"


def _lines(facts: Facts, place: Location) -> list[str]:
    text = next((each.text for each in facts.project.uv_files if each.file == place.name), b"")
    return text.decode(errors="replace").splitlines() if place.line else []
