"""Two versions of a file, neither of which may be lost: their union, line by line.

Only needed after a crash, or when somebody edits the file within the very instant of our own edit; see
disk/netrc_sink.py.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher


def lacks(text: bytes, other: bytes) -> bool:
    """Return whether a text lacks a line that another has."""
    return not {line.rstrip(b"\n") for line in _lines(other)} <= {line.rstrip(b"\n") for line in _lines(text)}


def mixture(text: bytes, one: bytes, other: bytes) -> bool:
    """Tell whether a text is what remains if one text is written over another in place, and that is cut short."""
    shorter, longer = sorted((one, other), key=len)
    if not len(shorter) <= len(text) <= len(longer):
        return False
    head = zip(text, one, other, strict=False)
    return all(byte in (a, b) for byte, a, b in head) and text[len(shorter) :] == longer[len(shorter) : len(text)]


def union(older: bytes, newer: bytes) -> bytes:
    """Return a text with every line of both versions, in their order.

    Where the two differ, the lines of the newer one come last: in a netrc the last entry and the last value win for uv.
    """
    before, after = _lines(older), _lines(newer)
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    left, right = before[head : len(before) - tail], after[head : len(after) - tail]
    merged = before[:head]
    for _, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        merged += left[a:b] if left[a:b] == right[c:d] else left[a:b] + right[c:d]
    merged += before[len(before) - tail :]
    # A last line without its line end may have come to stand above others.
    return b"".join([*(line if line.endswith(b"\n") else line + b"\n" for line in merged[:-1]), *merged[-1:]])


def _lines(text: bytes) -> list[bytes]:
    return re.findall(rb"[^\n]*\n|[^\n]+", text)


def _common(one: list[bytes], other: list[bytes]) -> int:
    """Return how many lines both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
