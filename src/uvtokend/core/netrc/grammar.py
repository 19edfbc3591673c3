r"""The grammar of a netrc as uv reads it, with the place of every word.

The reader follows uv's own (uv crates/uv-netrc/src/lex.rs and netrc.rs, a translation of Python's ``netrc``), quirks
included, because what counts is what uv will see:

* Words are parted by space, tab, CR and LF alone. A word that begins with ``"`` runs to the next ``"``; ``\`` takes the
  next character as it is, inside quotes and outside.
* A word that begins with ``#`` is a comment, but the rest of its line is skipped only if the reader has crossed no LF
  on its way from the last word to the end of this one; before the first entry, only if it is a lone ``#`` besides. So
  after a blank line, after a trailing space or a quoted value, or with CRLF, the second word of a comment is read as a
  word of the file (cpython issue 104306, uv issue 16083). Newer uv skips the line before the first entry as well (uv
  pull request 19494); we still count it as a trouble, for the sake of older uv and of Python.
* An unknown word makes uv ignore the whole file, with a warning that only ``-v`` shows (uv issue 10854).
* An empty word ``""`` where a keyword is due ends the file without a word.
* ``macdef`` runs to the next blank line, and swallows what stands there.

Unlike uv, `scan` goes on after an unknown word, so that every trouble is told at once and no entry is overlooked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

BOM = b"\xef\xbb\xbf"
#: What parts words.
WHITE = b" \t\r\n"
Kind = Literal["unknown-word", "comment", "byte-order-mark", "no-name", "open-quote", "empty-word", "macdef"]

_WORD = re.compile(
    rb"""
    [\n\t\r\ ]*+
    (?: "(?P<quoted> (?: [^"\\]++ | \\[\s\S] )*+ (?: \\\Z )?+ ) (?P<closed> " )?+
      | (?P<bare> (?: [^\n\t\r\ \\]++ | \\[\s\S]?+ )++ ) [\n\t\r\ ]?+ )
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(rb"\\([\s\S]?)")
#: What Rust's `str::trim` takes off, by which uv decides that a macro has ended.
_BLANK = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_SWALLOWED = re.compile(rb"[\t ]*(?:machine[\t ]+\S|default[\t ]+(?:login|user|password)\b)")


#: An entry as nearly every program writes it: three plain words. Read in one step, because the general reader is slow.
_PLAIN = re.compile(
    rb"""
    machine[\n\t\r\ ]+ (?P<name> [^"\n\t\r\ \\][^\n\t\r\ \\]*+ ) [\n\t\r\ ]+
    (?P<login> login[\n\t\r\ ]+ (?P<login_value> [^"\n\t\r\ \\][^\n\t\r\ \\]*+ ) ) [\n\t\r\ ]+
    (?P<password> password[\n\t\r\ ]+ (?P<password_value> [^"\n\t\r\ \\][^\n\t\r\ \\]*+ ) ) \n
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A ``machine`` or ``default`` as it stands in the file; `default` is the machine of that name, as it is for uv.

    Args:
        parts: Where its words stand: one span for each keyword with its value, in order.
    """

    name: bytes
    login: bytes
    account: bytes
    password: bytes
    parts: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        """Where its first word begins."""
        return self.parts[0][0]

    @property
    def end(self) -> int:
        """Where its last word ends."""
        return self.parts[-1][1]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A place that uv stumbles over, or reads otherwise than it looks.

    Args:
        at: Its offset.
        fatal: uv ignores the whole file because of it.
    """

    at: int
    kind: Kind
    fatal: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """What stands in a file, in the order of the file."""

    entries: tuple[Entry, ...]
    troubles: tuple[Trouble, ...]

    @property
    def readable(self) -> bool:
        """Whether uv reads the file at all."""
        return not any(trouble.fatal for trouble in self.troubles)

    def as_read(self) -> dict[bytes, tuple[bytes, bytes, bytes]]:
        """Return name -> (login, account, password) as uv holds it: nothing if it is unreadable, else the last wins."""
        if not self.readable:
            return {}
        return {entry.name: (entry.login, entry.account, entry.password) for entry in self.entries}


@dataclass(frozen=True, slots=True)
class _Word:
    text: bytes
    start: int
    end: int
    next: int
    one_line: bool
    closed: bool


_NOTHING = _Word(b"", -1, -1, -1, one_line=True, closed=True)


def scan(text: bytes) -> Scan:
    """Read a netrc as uv does, and go on where uv gives up."""
    reader = _Reader(text)
    while reader.plain_entries() or ((word := reader.word()) is not None and reader.take(word)):
        pass
    reader.close()
    return Scan(tuple(reader.entries), tuple(sorted(reader.troubles, key=lambda trouble: trouble.at)))


class _Reader:
    """Where `scan` stands. `open` is the entry whose words are being read, or None before the first."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.entries: list[Entry] = []
        self.troubles: list[Trouble] = []
        self.at = 0
        self.comment_end = 0
        self.parts: list[tuple[int, int]] = []
        self.values: dict[bytes, bytes] = {}
        if text.startswith(BOM):
            self.at = len(BOM)
            self.trouble(0, "byte-order-mark", fatal=True)

    def plain_entries(self) -> bool:
        """Read a run of plain entries, to the same effect as word by word; return False if none stands here."""
        text, begins = self.text, self.at == 0 or self.text[self.at - 1 : self.at] == b"\n"
        match = _PLAIN.match(text, self.at) if begins and self.comment_end <= self.at else None
        if match is None:
            return False
        self.close()
        while (following := _PLAIN.match(text, match.end())) is not None:
            name, login, password = match["name"], match["login_value"], match["password_value"]
            self.entries.append(Entry(name, login, b"", password, _spans(match)))
            match = following
        # The last one stays open, because more words may belong to it.
        self.values = {
            b"machine": match["name"],
            b"login": match["login_value"],
            b"password": match["password_value"],
        }
        self.parts = [*_spans(match)]
        self.at = match.end()
        return True

    def trouble(self, at: int, kind: Kind, *, fatal: bool) -> None:
        self.troubles.append(Trouble(at, kind, fatal))

    def word(self) -> _Word | None:
        """Read the next word; None at the end of the file."""
        match = _WORD.match(self.text, self.at)
        if match is None:
            return None
        group = "quoted" if match["bare"] is None else "bare"
        start = match.start(group) - (group == "quoted")
        end = match.end() if group == "quoted" else match.end(group)
        raw: bytes = match[group]
        value = _ESCAPE.sub(lambda escape: escape[1] or b" ", raw) if b"\\" in raw else raw
        one_line = self.text.find(b"\n", self.at, match.end()) < 0
        self.at = match.end()
        return _Word(value, start, end, self.at, one_line, group == "bare" or match["closed"] is not None)

    def take(self, word: _Word) -> bool:
        """Act on a word where a keyword is due; False where uv stops reading without a complaint."""
        text = word.text
        if text.startswith(b"#"):
            self.comment(word)
            return True
        if not text:
            self.trouble(word.start, "empty-word", fatal=False)
            return False
        commented = word.start < self.comment_end
        known = text in _TOP or (bool(self.parts) and text in _FOLLOWERS)
        if commented:
            self.trouble(word.start, "comment", fatal=not known)
        elif not known:
            self.trouble(word.start, "unknown-word" if word.closed else "open-quote", fatal=True)
        if known:
            _TAKE.get(text, _Reader.follower)(self, word)
        elif commented:
            self.skip_line(word)
        return True

    def comment(self, word: _Word) -> None:
        if word.one_line and (self.parts or word.text == b"#"):
            self.skip_line(word)
        else:
            self.comment_end = self.line_end(word.start)

    def line_end(self, at: int) -> int:
        end = self.text.find(b"\n", at)
        return len(self.text) if end < 0 else end

    def skip_line(self, word: _Word) -> None:
        self.at = max(self.at, min(self.line_end(word.start) + 1, len(self.text)))

    def value(self) -> _Word:
        word = self.word() or _NOTHING
        if not word.closed:
            self.trouble(word.start, "open-quote", fatal=False)
        return word

    def close(self) -> None:
        """End the open entry, if there is one."""
        if self.parts:
            name, login, account, password = (self.values.get(key, b"") for key in _VALUES)
            self.entries.append(Entry(name, login, account, password, tuple(self.parts)))
        self.parts, self.values = [], {}

    def machine(self, word: _Word) -> None:
        self.close()
        name = self.value()
        if name.text:
            self.values[b"machine"] = name.text
            self.parts.append((word.start, name.end))
        else:
            self.trouble(word.start, "no-name", fatal=True)

    def default(self, word: _Word) -> None:
        self.close()
        self.values[b"machine"] = b"default"
        self.parts.append((word.start, word.end))

    def follower(self, word: _Word) -> None:
        value = self.value()
        self.values[_FOLLOWERS[word.text]] = value.text
        self.parts.append((word.start, max(word.end, value.end)))

    def macro(self, word: _Word) -> None:
        """Skip a macro: its name, then lines up to a blank one, the rest of the name's own line being the first."""
        self.close()
        self.value()
        while self.at < len(self.text):
            begin, end = self.at, self.line_end(self.at)
            self.at = min(end + 1, len(self.text))
            line = self.text[begin:end]
            if not line.decode(errors="replace").strip(_BLANK):
                break
            if _SWALLOWED.match(line):
                self.trouble(word.start, "macdef", fatal=False)
        else:
            self.trouble(word.start, "macdef", fatal=False)


def _spans(match: re.Match[bytes]) -> tuple[tuple[int, int], ...]:
    return (match.start(), match.end("name")), match.span("login"), match.span("password")


_VALUES = (b"machine", b"login", b"account", b"password")
_FOLLOWERS = {b"login": b"login", b"user": b"login", b"account": b"account", b"password": b"password"}
_TAKE = {b"machine": _Reader.machine, b"default": _Reader.default, b"macdef": _Reader.macro}
_TOP = frozenset(_TAKE)


@dataclass(frozen=True, slots=True)
class Cut:
    """A stretch to take out of a text, and what to leave there instead."""

    start: int
    end: int
    stub: bytes = b""


def _cuts(text: bytes, parts: Sequence[tuple[int, int]], stub: bytes) -> tuple[Cut, ...]:
    """Return the stretches that take some spans out of a text; lines that would be left empty go as a whole."""
    result: list[Cut] = []
    for start, end in _joined(text, parts):
        line = text.rfind(b"\n", 0, start) + 1
        after = text.find(b"\n", end)
        tail = len(text) if after < 0 else after
        if text[line:start].strip(WHITE) or text[end:tail].strip(WHITE):
            result.append(Cut(start, end, stub))
        else:
            result.append(Cut(line, min(tail + 1, len(text)), stub and stub + text[tail : tail + 1]))
    return tuple(result)


def _joined(text: bytes, parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans with nothing but white space between them."""
    joined: list[tuple[int, int]] = []
    for start, end in parts:
        if joined and not text[joined[-1][1] : start].strip(WHITE):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def apply(text: bytes, taken: Sequence[Cut]) -> bytes:
    """Return a text without the stretches of some cuts."""
    pieces: list[bytes] = []
    at = 0
    for cut in taken:
        pieces += [text[at : cut.start], cut.stub]
        at = cut.end
    return b"".join([*pieces, text[at:]])


def safe_cuts(text: bytes, before: Scan, entries: Sequence[Entry], *, whole: bool = False) -> tuple[Cut, ...]:
    """Return cuts that take entries out of a text, after which uv reads all others as before.

    Where an entry stands between a blank line and a comment, taking it out would make the comment unreadable; a lone
    ``#`` in its place prevents that.

    Args:
        text: A netrc.
        before: Its scan.
        entries: The entries of that scan to take out.
        whole: Take with an entry the comments between its words; otherwise they stay, as does all else on its lines.
    """
    gone = set(entries)
    stay = [_values(entry) for entry in before.entries if entry not in gone]
    parts = [part for entry in entries for part in (((entry.start, entry.end),) if whole else entry.parts)]
    plain = _cuts(text, parts, b"")
    for choice in (plain, _cuts(text, parts, b"#")):
        after = scan(apply(text, choice))
        if after.readable >= before.readable and [_values(entry) for entry in after.entries] == stay:
            return choice
    return plain


def _values(entry: Entry) -> tuple[bytes, bytes, bytes, bytes]:
    return entry.name, entry.login, entry.account, entry.password
