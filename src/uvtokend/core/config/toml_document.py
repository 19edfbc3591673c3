"""Read one configuration file as TOML. No message repeats a value that may be a secret."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from uvtokend.core.model import Json, Problem

#: Bytes. A configuration is written by hand.
LIMIT = 1 << 20

#: The deepest nesting, because the options of a plug-in are processed recursively. No real configuration is so deep.
_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Source:
    """One configuration file.

    Args:
        file: The name of the file in messages.
        text: The content of the file.
        directory: The absolute directory to which its relative paths are relative.
    """

    file: str
    text: bytes
    directory: str


def read(source: Source) -> dict[str, Json] | Problem:
    """Return the content of a file, or why it is not a usable TOML document."""
    import tomllib  # noqa: PLC0415 - the daemon reads its configuration once and then carries this along

    if len(source.text) > LIMIT:
        return Problem(source.file, "the file", "It is larger than 1 MiB.", "name the right file")
    try:
        document: dict[str, Any] = tomllib.loads(source.text.decode())
    except UnicodeDecodeError:
        return Problem(source.file, "the file", "It is not UTF-8 text.", "save it as UTF-8")
    except (ValueError, RecursionError) as error:  # ValueError itself for a number of thousands of digits
        place = re.search(r"at line (\d+)", str(error))
        where = f"line {place[1]}" if place else "the end"
        message = f"Invalid TOML{_reason(error, isinstance(error, tomllib.TOMLDecodeError))}."
        return Problem(source.file, where, message, "see https://toml.io for what a line may look like")
    unusable = _unusable(document)
    return _shared(document, {}) if unusable is None else Problem(source.file, "the file", unusable, "remove it")


def printable(key: str) -> str:
    """Return a key of a document, which may be anything, for a message."""
    return "".join(char if char.isprintable() else "?" for char in key[:60])


def _reason(error: Exception, told: bool) -> str:
    """Return why a text is not valid TOML: ``: expected '=' after a key in a key/value pair (column 8)``.

    tomllib's messages contain keys and single characters of the file, but no values.

    Args:
        error: The exception of tomllib.
        told: Whether it is about the text, and not about Python's own limits.
    """
    if not told:
        return ": it is nested too deeply, or a number has too many digits"
    reason, _, place = str(error).partition(" (at ")
    column = re.search(r"column \d+", place)
    if reason == r"Illegal character '\n'":
        reason = "a string is not closed at the end of its line"
    said = printable(reason)  # it may repeat a key
    return f": {said[:1].lower()}{said[1:]}{f' ({column[0]})' if column else ''}"


def _unusable(document: Json) -> str | None:
    """Report a number that tomllib reads although TOML or JSON does not allow it, or no person would write it."""
    todo: list[tuple[Json, int]] = [(document, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > _DEPTH:
            return "A value is nested too deeply."
        if isinstance(value, dict | list):
            todo += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, float) and not math.isfinite(value):
            return "A number in it is not finite."
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            return "A number in it has more than 64 bits."
    return None


def _shared(value: Any, texts: dict[str, str]) -> Any:
    """Return a value in which equal texts are one object: a thousand indexes have the same keys and providers.

    Args:
        value: The value.
        texts: The texts so far.
    """
    if isinstance(value, str):
        return texts.setdefault(value, value)
    if isinstance(value, dict):
        return {texts.setdefault(key, key): _shared(item, texts) for key, item in value.items()}
    return [_shared(item, texts) for item in value] if isinstance(value, list) else value
