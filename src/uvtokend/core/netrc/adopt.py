"""Remove foreign entries of a host, and restore them. uvtokend never changes foreign text otherwise."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from uvtokend.core.netrc import grammar
from uvtokend.core.netrc.block import join, split
from uvtokend.core.netrc.grammar import BOM, scan

#: How many places to try for a piece whose surroundings have changed. Each try costs one scan of the file.
_TRIES = 20


@dataclass(frozen=True, slots=True)
class TakeOver:
    """A netrc without the foreign entries of a host.

    Args:
        text: The file without the entries; unchanged if there were none.
        removed: The number of entries that were removed.
        backup: The input of `restore`: JSON in ASCII that contains the passwords of the entries.
    """

    text: bytes
    removed: int
    backup: bytes


@dataclass(frozen=True, slots=True)
class _Segment:
    """A piece of text that was removed.

    Args:
        at: The offset of the piece in the remaining foreign text.
        text: The piece.
        stub: The text that replaced the piece.
        before: The whole line above the piece.
    """

    at: int
    text: bytes
    stub: bytes
    before: bytes


def take_over(text: bytes, host: str) -> TakeOver:
    """Remove the foreign entries of a host from a netrc; our own block stays unchanged."""
    block, foreign = split(text)
    scanned = scan(foreign)
    entries = [entry for entry in scanned.entries if entry.name == host.encode()]
    taken = grammar.safe_cuts(foreign, scanned, entries, whole=True)
    rest = grammar.apply(foreign, taken)
    segments = []
    shift = 0
    for cut in taken:
        line = foreign.rfind(b"\n", 0, cut.start) + 1
        before = foreign[foreign.rfind(b"\n", 0, max(line - 1, 0)) + 1 : line]
        pieces = {"text": foreign[cut.start : cut.end], "stub": cut.stub, "before": before}
        segments.append({"at": cut.start + shift, **{key: _pack(piece) for key, piece in pieces.items()}})
        shift += len(cut.stub) - (cut.end - cut.start)
    document = {"host": host, "sha256": hashlib.sha256(rest).hexdigest(), "segments": segments}
    return TakeOver(join(block, rest) if entries else text, len(entries), json.dumps(document).encode())


def restore(text: bytes, backup: bytes) -> bytes:
    """Restore the entries that `take_over` removed.

    1. If the foreign text is otherwise unchanged, the result is equal to the original byte for byte.
    2. Otherwise each piece goes as close to its old place as possible without changing how uv reads the rest.
    3. An entry that is already in the file with the same values is not added again. An existing entry with other values
       stays the last one, and so wins.

    Args:
        text: The current content of the file.
        backup: The `TakeOver.backup` of the entries.

    Raises:
        ValueError: The backup is damaged.
    """
    try:
        document = json.loads(backup)
        host, digest = document["host"].encode(), document["sha256"]
        segments = [
            _Segment(int(raw["at"]), *(base64.b64decode(raw[key], validate=True) for key in ("text", "stub", "before")))
            for raw in document["segments"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        message = "the file is not a backup of uvtokend"
        raise ValueError(message) from error
    block, foreign = split(text)
    if hashlib.sha256(foreign).hexdigest() == digest:
        for segment in reversed(segments):
            end = segment.at + len(segment.stub)
            foreign = foreign[: segment.at] + segment.text + foreign[end:]
    else:
        for segment in segments:
            foreign = _insert(foreign, segment, host)
    return join(block, foreign)


def _insert(foreign: bytes, segment: _Segment, host: bytes) -> bytes:
    """Insert one piece on lines of its own, at the nearest place where uv reads the rest as before."""
    standing = scan(foreign)
    pieces = [_values(entry) for entry in scan(segment.text).entries]
    present = [entry for entry in standing.entries if entry.name == host]
    if pieces and all(piece in map(_values, present) for piece in pieces):
        return foreign
    limit = present[0].start if present else len(foreign)
    near = _near(foreign, segment)
    first, *others = sorted(_places(foreign, limit), key=lambda place: abs(place - near))
    wanted = sorted([*map(_values, standing.entries), *pieces])
    whole: bytes | None = None
    for place in [first, *others[:_TRIES], *others[-1:]]:
        choice = _joined(foreign[:place], segment.text, foreign[place:])
        result = scan(choice)
        if sorted(map(_values, result.entries)) == wanted:
            if result.readable >= standing.readable:
                return choice
            whole = whole or choice  # uv cannot read the piece itself; it could not at the old place either
    return whole or _joined(foreign[:first], segment.text, foreign[first:])


def _near(foreign: bytes, segment: _Segment) -> int:
    """Return the best offset for a piece: below a line like the one that was above it, the nearest of them."""
    ends = (line.end() for line in re.finditer(rb"(?m)^" + re.escape(segment.before), foreign))
    return min(ends, key=lambda end: abs(end - segment.at), default=segment.at)


def _places(foreign: bytes, limit: int) -> Iterator[int]:
    """Return the offsets of line starts up to a limit, including the end of the file."""
    start = len(BOM) if foreign.startswith(BOM) else 0
    ends = (at + 1 for at, byte in enumerate(foreign[:limit]) if byte == ord("\n"))
    return itertools.chain([start], ends, [len(foreign)] if limit == len(foreign) else [])


def _joined(above: bytes, piece: bytes, below: bytes) -> bytes:
    above += b"" if above in (b"", BOM) or above.endswith(b"\n") else b"\n"
    return above + piece + (b"" if not below or piece.endswith(b"\n") else b"\n") + below


def _values(entry: grammar.MachineEntry) -> tuple[bytes, bytes, bytes, bytes]:
    return entry.name, entry.login, entry.account, entry.password


def _pack(text: bytes) -> str:
    return base64.b64encode(text).decode()
