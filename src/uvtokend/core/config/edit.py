"""Add an index to ``config.toml`` or remove one, and keep everything else byte for byte: text in, text out.

1. A new table is appended. A table is removed by cutting its lines.
2. tomlkit only writes values, and edits a list in one value, ``index = [{…}]``. It is not used for tables, because it
   (0.15) moves a table between two ``[[index]]``, and removes the comments above the next table with a table.
3. These comments belong to a table: those inside it, those directly above its header after a blank line, and those
   directly below its last key before a blank line. All others stay.
4. The result is parsed again and compared with the intended content. If they differ, the text is not edited.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Item

from uvtokend.core.model import Json
from uvtokend.core.urls import IndexUrl

#: The table of one index: keys and values in the order of writing.
Table: TypeAlias = dict[str, Json]


class NotEditableError(Exception):
    """The text is written in a way that cannot be edited safely; the message is a sentence that says which."""


@dataclass(frozen=True, slots=True)
class RemovedIndex:
    """A text without an index.

    Args:
        text: The remaining text.
        removed: The removed text, including comments.
        table: The content of the removed table.
    """

    text: str
    removed: str
    table: Table


@dataclass(frozen=True, slots=True)
class _Section:
    """A header and the lines up to the next one.

    Args:
        first: The first line.
        content: The line after the last key; only comments and blank lines follow.
        end: The line after the last line.
        starts: Whether the header is ``[[index]]``.
        belongs: Whether the header is ``[[index]]`` or a table below it.
    """

    first: int
    content: int
    end: int
    starts: bool
    belongs: bool


def name_of(table: Any) -> str | None:
    """Return the name of an index as the settings do; None if the table has no valid name."""
    if not isinstance(table, dict):
        return None
    name, url = table.get("name"), table.get("url")
    if name is None and isinstance(url, str):
        try:
            return IndexUrl.parse(url).name
        except ValueError:
            return None
    return name if isinstance(name, str) else None


def names(text: str) -> list[str | None]:
    """Return the names of the indexes in a text, in their order.

    Raises:
        NotEditableError: The text is not valid TOML, or its `index` is not a list.
    """
    return [name_of(table) for table in _listed(_read(text))]


def render(table: Table) -> str:
    """Return the text of a table for the end of a file, with ``\\n`` line endings."""
    return "\n".join(["[[index]]", *_pairs(table), ""])


def inline(table: Table) -> str:
    """Return keys and values as one line of TOML."""
    return ", ".join(_pairs(table))


def append(text: str, tables: Sequence[Table], remarks: Sequence[str] = ()) -> str:
    """Return a text with more indexes, at its end.

    Args:
        text: The file.
        tables: The indexes.
        remarks: Comments to append after them: whole lines with their ``#``.

    Raises:
        NotEditableError: The text cannot be edited safely.
    """
    document = _read(text)
    listed = [*_listed(document), *tables]
    wanted: Table = {**document, "index": listed} if listed or "index" in document else document
    pieces = [*map(render, tables), *remarks]
    if _in_one_value(text, document):
        text, pieces = _with_more(text, tables), [*remarks]
    rendered = "\n".join(pieces)
    glue = "" if not text or not pieces else "\n" if text.endswith("\n") else "\n\n"
    added = (glue + rendered).replace("\n", "\r\n" if "\r\n" in text else "\n")
    return _checked(text + added, wanted)


def remove(text: str, name: str) -> RemovedIndex | None:
    """Return a text without one index, or None if no index has that name.

    Raises:
        NotEditableError: The text cannot be edited safely.
    """
    document = _read(text)
    listed = _listed(document)
    number = next((at for at, table in enumerate(listed) if name_of(table) == name), None)
    if number is None:
        return None
    left = [table for at, table in enumerate(listed) if at != number]
    new, removed = _with_less(text, number) if _in_one_value(text, document) else _without(text, number)
    # After the last index is removed, the list is empty or missing.
    rest = {key: value for key, value in document.items() if key != "index"}
    _checked(new, {**rest, "index": left}, *([] if left else [rest]))
    table = listed[number]
    assert isinstance(table, dict)  # noqa: S101 - for the type checker: it has a name
    return RemovedIndex(new, removed, table)


# -------------------------------------------------------------------------------------------------- tables of lines


def _without(text: str, number: int) -> tuple[str, str]:
    lines = _lines(text)
    kept, removed, at = [], [], 0
    for first, end in _blocks(lines, number):
        kept += lines[at:first]
        removed += lines[first:end]
        at = end
    return "".join(kept + lines[at:]), "".join(removed).strip("\r\n") + "\n"


def _blocks(lines: list[str], number: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of lines to remove for one index. Tables below it may be elsewhere in the file."""
    sections = list(_sections(lines))
    before = 0
    count = -1
    block: list[int] = []
    for section in sections:
        count += section.starts
        if section.belongs and count == number:
            block = [block[0] if block else _lead(lines, before, section.first), section.content, section.end]
        elif block:
            yield _trimmed(lines, *block)
            block = []
        before = section.content
    if block:
        yield _trimmed(lines, *block)


def _sections(lines: list[str]) -> Iterator[_Section]:
    """Yield the sections; the first has no header."""
    first = 0
    header: Mapping[str, Any] = {}
    for at in range(len(lines) + 1):
        last = at == len(lines)
        if not last and not (lines[at].lstrip(" \t").startswith("[") and _is_whole(lines[first:at])):
            continue
        index = header.get("index")
        yield _Section(first, _content(lines, first, at), at, isinstance(index, list), index is not None)
        if not last:
            first, header = at, tomllib.loads(lines[at])


def _content(lines: list[str], first: int, end: int) -> int:
    """Return the line behind the last key of a section."""
    content = end
    while content > first and (_is_blank(lines[content - 1]) or _is_comment(lines[content - 1])):
        content -= 1
    while not _is_whole(lines[first:content]):  # the line is not a comment but the end of a string of several lines
        content += 1
    return content


def _lead(lines: list[str], least: int, header: int) -> int:
    """Return the first line of the comment above a header, if it clearly belongs to the header."""
    first = header
    while first > least and _is_comment(lines[first - 1]):
        first -= 1
    return first if first > 0 and _is_blank(lines[first - 1]) else header


def _trimmed(lines: list[str], first: int, content: int, end: int) -> tuple[int, int]:
    """Extend a block by the comment below its last key if it clearly belongs to it, and by one blank line."""
    tail = content
    while tail < end and _is_comment(lines[tail]):
        tail += 1
    behind = tail if tail == len(lines) or (tail < end and _is_blank(lines[tail])) else content
    alone = first == 0 or _is_blank(lines[first - 1])
    if alone and behind < len(lines) and _is_blank(lines[behind]):
        return first, behind + 1
    if alone and first > 0 and behind == len(lines):
        return first - 1, behind
    return first, behind


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_blank(line: str) -> bool:
    return not line.strip(" \t\r\n")


def _is_comment(line: str) -> bool:
    return line.lstrip(" \t").startswith("#")


def _is_whole(lines: list[str]) -> bool:
    """Return whether lines are complete TOML, so that no part of a value is missing."""
    try:
        tomllib.loads("".join(lines))
    except ValueError:
        return False
    return True


# -------------------------------------------------------------------------------------------------- a list in a value


def _in_one_value(text: str, document: Mapping[str, Json]) -> bool:
    return "index" in document and not any(section.starts for section in _sections(_lines(text)))


def _with_more(text: str, tables: Sequence[Table]) -> str:
    document, array = _array(text)
    for table in tables:
        array.append(_item(table))
    new = tomlkit.dumps(document)
    if _piece(new, text) is None:
        raise NotEditableError("Its list of indexes is written in a way that cannot be added to safely.")
    return new


def _with_less(text: str, number: int) -> tuple[str, str]:
    document, array = _array(text)
    del array[number]
    new = tomlkit.dumps(document)
    removed = _piece(text, new)
    if removed is None or "#" in removed:
        raise NotEditableError("Its list of indexes is written in a way that cannot be edited safely.")
    return new, removed.strip() + "\n"


def _array(text: str) -> tuple[tomlkit.TOMLDocument, Any]:
    try:
        document = tomlkit.parse(text)
    except (TOMLKitError, ValueError, RecursionError) as error:
        raise NotEditableError("Its list of indexes is written in an unusual way.") from error
    return document, document["index"]


def _piece(longer: str, shorter: str) -> str | None:
    """Return the one piece that a text has in addition to another; None if they differ in more than that."""
    pairs = enumerate(zip(longer, shorter, strict=False))
    at = next((at for at, (one, other) in pairs if one != other), len(shorter))
    end = at + len(longer) - len(shorter)
    return longer[at:end] if longer[:at] + longer[end:] == shorter else None


# ------------------------------------------------------------------------------------------------------------ values


def _pairs(table: Table) -> list[str]:
    return [f"{tomlkit.key(key).as_string()} = {_item(value).as_string()}" for key, value in table.items()]


def _item(value: Json) -> Item:
    """Return a value as TOML on one line."""
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        for key, inner in value.items():
            inline.append(key, _item(inner))
        return inline
    if isinstance(value, list):
        array = tomlkit.array()
        for inner in value:
            array.append(_item(inner))
        return array
    return tomlkit.item(value)


def _read(text: str) -> dict[str, Json]:
    try:
        document: dict[str, Json] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotEditableError("It is not TOML.") from error
    return document


def _listed(document: Mapping[str, Json]) -> list[Json]:
    listed = document.get("index", [])
    if not isinstance(listed, list):
        raise NotEditableError("Its index is not a list of tables.")
    return listed


def _checked(text: str, *wanted: Mapping[str, Json]) -> str:
    """Return an edited text if it has the intended content."""
    if _read(text) not in wanted:
        raise NotEditableError("It is written in a way that cannot be edited safely.")
    return text
