"""Merge two versions of a text line by line, without losing either.

This is needed only after a crash, or when another program edits the netrc at the very moment of our own edit; see
`uvtokend.disk.journal`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher


def merge(base: bytes | None, older: bytes, newer: bytes) -> bytes:
    """Return a text with the changes of two versions of it.

    A line that either version deleted is deleted; a line that either version added is in the result. If both versions
    add lines at the same place, the lines of the newer version come last, because uv uses the last entry of a netrc and
    its last value.

    Args:
        base: The text that both versions were made from. If it is None (unknown), every line of both is kept.
        older: One version.
        newer: The other version.
    """
    before, one, other = _lines(base or b""), _lines(older), _lines(newer)
    if base is None:
        merged = _union(one, other)
    else:
        kept_by_one, added_by_one = _changes(before, one)
        kept_by_other, added_by_other = _changes(before, other)
        merged = []
        for at in range(len(before) + 1):
            merged += _union(added_by_one.get(at, []), added_by_other.get(at, []))
            if at in kept_by_one and at in kept_by_other:
                merged.append(before[at])
    ended = older.endswith(b"\n") or newer.endswith(b"\n")
    return b"\n".join(merged) + (b"\n" if ended and merged else b"")


def mixture(text: bytes, one: bytes, other: bytes) -> bool:
    """Return whether a text can result from an interrupted write of one text over another in place."""
    shorter, longer = sorted((one, other), key=len)
    if not len(shorter) <= len(text) <= len(longer):
        return False
    head = zip(text, one, other, strict=False)
    return all(byte in (a, b) for byte, a, b in head) and text[len(shorter) :] == longer[len(shorter) : len(text)]


def made_of(text: bytes, *others: bytes) -> bool:
    """Return whether each line of a text is in one of the others, so that no line was cut in two."""
    return {*_lines(text)} <= {line for other in others for line in _lines(other)}


def _changes(before: list[bytes], after: list[bytes]) -> tuple[set[int], dict[int, list[bytes]]]:
    """Return the numbers of the kept lines, and the added lines as: number of the line below -> lines."""
    kept: set[int] = set()
    added: dict[int, list[bytes]] = {}
    for equal, a, b, c, d in _matches(before, after):
        if equal:
            kept.update(range(a, b))
        else:
            added[a] = after[c:d]
    return kept, added


def _union(one: list[bytes], other: list[bytes]) -> list[bytes]:
    """Return every line of both in order; where the two differ, the lines of `other` come last."""
    merged: list[bytes] = []
    for equal, a, b, c, d in _matches(one, other):
        merged += one[a:b] if equal else one[a:b] + other[c:d]
    return merged


def _matches(one: list[bytes], other: list[bytes]) -> Iterator[tuple[bool, int, int, int, int]]:
    """Yield the sections of two lists in order: whether they are equal, and where they begin and end in each list.

    The common head and tail are found first, because `difflib` is slow for long texts.
    """
    head = _common(one, other)
    tail = _common(one[head:][::-1], other[head:][::-1])
    yield True, 0, head, 0, head
    left, right = one[head : len(one) - tail], other[head : len(other) - tail]
    for kind, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        yield kind == "equal", head + a, head + b, head + c, head + d
    yield True, len(one) - tail, len(one), len(other) - tail, len(other)


def _lines(text: bytes) -> list[bytes]:
    """Return the lines of a text without line endings."""
    return text.removesuffix(b"\n").split(b"\n") if text else []


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """Return the number of lines that both lists have in common at the start."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
