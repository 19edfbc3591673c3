"""Remove the tail of a block that another program has overwritten.

A program may empty the netrc, and write its text only after we wrote our block. Then it overwrites the start of the
block; the end of the block stays, with a part of a line above it. uv ignores such a file as a whole, and the part may
be most of a token. So the rest of the block is removed::

    machine ftp.example login me password mine
    J9.c2lnbmF0dXJl                                   <- the end of our line
    machine b.example login aws password eyJ...       <- a whole line of ours
    #uvtokend:end                                     <- and no begin above it

The part is recognized if it is the end of a line that we wrote. If only the digest of the token is known, a part of the
token cannot be compared with it. Then the part is ours if it is directly above our lines, on a line of its own, and uv
cannot read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from uvtokend.core.netrc.grammar import BOM, WHITE, scan
from uvtokend.core.netrc.lint import BEGIN, END

#: A shorter part of a line, in bytes, may be a foreign word.
_LEAST = 4
#: A part of a token, bare or quoted.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/=:-]+|.*\"")


@dataclass(frozen=True, slots=True)
class Written:
    """The known facts about the lines that we wrote, all without line ends.

    Args:
        delivered: Returns whether a whole line is one of them.
        heads: The beginnings of the lines, up to the token.
        lines: The lines that we wrote last, if they are known.
    """

    delivered: Callable[[bytes], bool]
    heads: Collection[bytes]
    lines: Collection[bytes]


def without_tail(text: bytes, written: Written) -> bytes:
    """Return a netrc without the rest of an overwritten block."""
    at = _orphan(text)
    if at is None:
        return _without_half_mark(text)
    end = text.find(b"\n", at) + 1 or len(text)
    start = at
    while (above := _line_above(text, start)) != start and written.delivered(text[above:start].strip(WHITE)):
        start = above
    above = _line_above(text, start)
    part = text[above:start].strip(WHITE)
    if part and _is_part(text, above, part, written):
        start = above
    elif ending := _ending(part, written):
        start = text.find(part, above) + len(part) - len(ending)
    return text[:start] + text[end:]


def _orphan(text: bytes) -> int | None:
    """Return the offset of the first end mark without a begin mark above it, or None."""
    inside, at = False, 0
    while (at := text.find(b"#uvtokend:", at)) >= 0:
        start, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
        mark = text[start : end if end >= 0 else len(text)].removeprefix(BOM).strip(WHITE)
        if mark == END and not inside:
            return start
        if mark in (BEGIN, END):
            inside = mark == BEGIN
        at += 1
    return None


def _line_above(text: bytes, start: int) -> int:
    """Return the offset of the line above an offset; the offset itself if there is no line above."""
    return text.rfind(b"\n", 0, max(start - 1, 0)) + 1 if start else 0


def _is_part(text: bytes, start: int, part: bytes, written: Written) -> bool:
    """Return whether the line at an offset is exactly the end of one of our lines."""
    if any(line.endswith(part) for line in (*written.lines, BEGIN)):
        return True
    for head in written.heads:
        for cut in range(1, len(head) + 1):
            if part.startswith(head[cut:]) and written.delivered(head + part[len(head) - cut :]):
                return True
    if not _TOKEN.fullmatch(part):
        return False
    unreadable = {trouble.at for trouble in scan(text).troubles if trouble.fatal}
    return len(unreadable & {*range(start, start + len(part) + 1)}) == len(part.split())


def _ending(part: bytes, written: Written) -> bytes:
    """Return the end of a line of ours that directly follows foreign text without a line end, or nothing."""
    endings = (line[cut:] for line in written.lines for cut in range(1, len(line) - _LEAST))
    return max((ending for ending in endings if part.endswith(ending)), key=len, default=b"")


def _without_half_mark(text: bytes) -> bytes:
    """Cut the end of an end mark, alone on the last line, if uv cannot read it."""
    body = text.rstrip(WHITE)
    start = body.rfind(b"\n") + 1
    last = body[start:].strip(WHITE)
    if len(last) < _LEAST or last == END or not END.endswith(last):
        return text
    return text[:start] if any(trouble.at == start and trouble.fatal for trouble in scan(text).troubles) else text
