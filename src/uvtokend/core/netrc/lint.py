"""Find what uv cannot read in a netrc, with the line and the fix. uv itself reports it only with -v (uv issue 10854).

A word right after a password may be the rest of that password, so it is quoted only if it is close to a keyword.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from uvtokend.core.model import Problem
from uvtokend.core.netrc.grammar import Kind, MachineEntry, Scan, Trouble, scan

BEGIN = b"#uvtokend:begin"
END = b"#uvtokend:end"

KEYWORDS = ("machine", "login", "user", "password", "account", "default", "macdef")
#: Words of other programs' files that look like keywords. They are not secrets, wherever they are.
_FAMILIAR = frozenset({"port", "protocol", "host", "username", "passwd", "url"})

#: The most problems that are reported: more than this tell a person nothing new.
MOST = 20

_IGNORED = "so it ignores the whole file"
_TEXT: dict[Kind, tuple[str, str]] = {
    "unknown-word": (
        f"uv does not know a word in this line, {_IGNORED}",
        "delete the word; put a value that holds spaces in double quotes",
    ),
    "byte-order-mark": (
        f"uv takes the byte order mark at the start for a word it does not know, {_IGNORED}",
        "save the file as UTF-8 without byte order mark",
    ),
    "no-name": (
        f"uv misses the host after the word machine, {_IGNORED}",
        "write the host, or delete the line",
    ),
    "open-quote": (
        "a double quote is opened and never closed, so everything after it is swallowed",
        "close the quote at the end of the value",
    ),
    "empty-word": (
        'uv stops reading at this empty word "", so everything after it is ignored',
        "delete the two quotes, or write the keyword before them",
    ),
    "macdef": (
        "this macro is not ended by an empty line, so it swallows what follows",
        "put an empty line, without spaces, after the last line of the macro",
    ),
}
_COMMENT = "uv reads this comment of several words as part of the file"
_COMMENT_FIXES = {
    True: "save the file with LF line ends: sed -i 's/\\r$//' FILE",
    False: "join the words of the comment (#like-this), or delete the empty line or the trailing space before it",
}


def problems(text: bytes, hosts: Collection[str], file: str) -> tuple[Problem, ...]:
    """Return what keeps uv from reading a netrc, or from reading our entries as we wrote them.

    Args:
        text: The whole file, including our managed block.
        hosts: The hosts of our entries.
        file: The name of the file in messages.

    Returns:
        One problem for each place, in file order, at most `MOST`. Problems that do not affect our entries are not
        fatal.
    """
    result = scan(text)
    findings = [
        *(_trouble(text, trouble) for trouble in _first_of_line(text, result.troubles)),
        *_shadows(text, result, {host.encode() for host in hosts}),
    ]
    by_place: dict[tuple[int, str], Problem] = {}
    line, counted = 1, 0
    for at, message, hint, fatal in sorted(findings, key=lambda finding: finding[0]):
        line += text.count(b"\n", counted, at)
        counted = at
        if len(by_place) < MOST:
            by_place.setdefault((line, message), Problem(file, f"line {line}", message, hint, fatal))
    return tuple(by_place.values())


_Finding = tuple[int, str, str, bool]


def _first_of_line(text: bytes, troubles: Sequence[Trouble]) -> Iterator[Trouble]:
    """Yield the troubles, but only the first of several unknown words on a line."""
    last: int | None = None
    for trouble in troubles:
        if trouble.kind == "unknown-word":
            line = text.rfind(b"\n", 0, trouble.at)
            if line == last:
                continue
            last = line
        yield trouble


def _trouble(text: bytes, trouble: Trouble) -> _Finding:
    if trouble.kind == "unknown-word":
        return trouble.at, *_unknown_word(text, trouble.at), trouble.fatal
    if trouble.kind != "comment":
        return trouble.at, *_TEXT[trouble.kind], trouble.fatal
    message = f"{_COMMENT}, {_IGNORED}" if trouble.fatal else _COMMENT
    above = text[: text.rfind(b"\n", 0, trouble.at)]
    return trouble.at, message, _COMMENT_FIXES[above.endswith(b"\r")], True


def _unknown_word(text: bytes, at: int) -> tuple[str, str]:
    """Return message and fix for an unknown word, which is quoted only if it cannot be part of a password."""
    from difflib import get_close_matches  # noqa: PLC0415 - the daemon hardly ever needs it

    before = text[text.rfind(b"\n", 0, at) + 1 : at].split()
    word = (text[at:].split(maxsplit=1) or [b""])[0][:40].decode(errors="replace")
    if word in KEYWORDS:
        return f"uv does not know the word {word!r} here, {_IGNORED}", "write machine HOST before it, or delete it"
    near = get_close_matches(word.lower(), KEYWORDS, 1, 0.75)
    if near:
        return f"uv does not know the word {word!r}, {_IGNORED}", f"write {near[0]} instead of {word}"
    if b"password" in before[-2:] and word not in _FAMILIAR:
        return _TEXT["unknown-word"]
    return f"uv does not know the word {word!r}, {_IGNORED}", _TEXT["unknown-word"][1]


def _shadows(text: bytes, result: Scan, hosts: Collection[bytes]) -> list[_Finding]:
    """Return what hides our entries: for uv the last entry of a host wins, for curl the first."""
    findings: list[_Finding] = []
    seen: set[bytes] = set()
    for entry in result.entries:
        if entry.name == b"default":
            findings.append(_default(entry))
        elif entry.name in hosts:
            host = entry.name.decode()
            if entry.name in seen:
                message = f"a second entry for {host}; uv takes the last one, which is this"
                findings.append((entry.start, message, "delete one of the two entries", True))
            seen.add(entry.name)
            findings += _strays(text, entry, host)
    return findings


def _default(entry: MachineEntry) -> _Finding:
    message = "uv sends the login of this default entry to every host that answers 401, 403 or 404 and has no own entry"
    return entry.start, message, "delete it, or name the host it is meant for: machine HOST", False


def _strays(text: bytes, entry: MachineEntry, host: str) -> list[_Finding]:
    """Return words below our block that uv reads as part of our last entry."""
    end = text.find(END, entry.start, entry.end)
    message = f"this word has no machine before it, so uv counts it to the entry of {host}"
    hint = "write machine HOST before it, or delete it"
    return [(start, message, hint, True) for start, _ in entry.parts if start > end >= 0]
