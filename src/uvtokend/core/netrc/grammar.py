r"""Read a netrc as uv does, with the position of every word.

The reader follows uv's own (uv crates/uv-netrc/src/lex.rs and netrc.rs, a translation of Python's ``netrc``) including
its quirks, because only what uv sees counts:

* Only space, tab, CR and LF separate words. A word that begins with ``"`` extends to the next ``"``. A ``\`` escapes
  the next character, inside and outside of quotes.
* A word that begins with ``#`` is a comment. The reader skips the rest of the line only if there is no LF between the
  previous word and the end of this one. Before the first entry, the word must also be a lone ``#``. So after a blank
  line, a trailing space or a quoted value, or with CRLF, the second word of a comment is read as a word of the file
  (cpython issue 104306, uv issue 16083). Newer uv also skips the line before the first entry (uv pull request 19494);
  we still report it, because older uv and Python do not.
* An unknown word makes uv ignore the whole file, with a warning that only ``-v`` shows (uv issue 10854).
* An empty word ``""`` in the place of a keyword silently ends the file.
* ``macdef`` extends to the next blank line and swallows everything before it.

Unlike uv, `scan` continues after an unknown word, so that it reports every problem at once and misses no entry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

BOM = b"\xef\xbb\xbf"
#: The characters that separate words.
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
#: The characters that Rust's `str::trim` removes. uv uses it to detect the end of a macro.
_BLANK = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_SWALLOWED = re.compile(rb"[\t ]*(?:machine[\t ]+\S|default[\t ]+(?:login|user|password)\b)")


#: An entry as nearly every program writes it: three plain words. It is read in one step: the general reader is slow.
_PLAIN = re.compile(
    rb"""
    machine[\n\t\r\ ]+ (?P<name> [^"\n\t\r\ \\][^\n\t\r\ \\]*+ ) [\n\t\r\ ]+
    (?P<login> login[\n\t\r\ ]+ (?P<login_value> [^"\n\t\r\ \\][^\n\t\r\ \\]*+ ) ) [\n\t\r\ ]+
    (?P<password> password[\n\t\r\ ]+ (?P<password_value> [^"\n\t\r\ \\][^\n\t\r\ \\]*+ ) ) \n
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class MachineEntry:
    """A ``machine`` or ``default`` entry of the file. As in uv, ``default`` is a machine of that name.

    Args:
        name: The host.
        login: The value after ``login`` or ``user``.
        account: The value after ``account``.
        password: The value after ``password``.
        parts: The span of each keyword with its value, in order.
    """

    name: bytes
    login: bytes
    account: bytes
    password: bytes
    parts: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        """The offset of the first word."""
        return self.parts[0][0]

    @property
    def end(self) -> int:
        """The offset behind the last word."""
        return self.parts[-1][1]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A place that uv cannot read, or reads differently from what it looks like.

    Args:
        at: The offset.
        kind: The kind of problem.
        fatal: Whether uv ignores the whole file because of it.
    """

    at: int
    kind: Kind
    fatal: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """The content of a file, in file order."""

    entries: tuple[MachineEntry, ...]
    troubles: tuple[Trouble, ...]

    @property
    def readable(self) -> bool:
        """Whether uv can read the file."""
        return not any(trouble.fatal for trouble in self.troubles)

    def as_read(self) -> dict[bytes, tuple[bytes, bytes, bytes]]:
        """Return name -> (login, account, password) as uv reads them: the last one wins; none if unreadable."""
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
    """Read a netrc as uv does, but continue where uv gives up."""
    reader = _Reader(text)
    while reader.plain_entries() or ((word := reader.word()) is not None and reader.take(word)):
        pass
    reader.close()
    return Scan(tuple(reader.entries), tuple(sorted(reader.troubles, key=lambda trouble: trouble.at)))


class _Reader:
    """The position of `scan`. `open` is the entry that is being read, or None before the first."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.entries: list[MachineEntry] = []
        self.troubles: list[Trouble] = []
        self.at = 0
        self.comment_end = 0
        self.parts: list[tuple[int, int]] = []
        self.values: dict[bytes, bytes] = {}
        if text.startswith(BOM):
            self.at = len(BOM)
            self.trouble(0, "byte-order-mark", fatal=True)

    def plain_entries(self) -> bool:
        """Read a run of plain entries, with the same result as word by word. Return False if there is none here."""
        text, begins = self.text, self.at == 0 or self.text[self.at - 1 : self.at] == b"\n"
        match = _PLAIN.match(text, self.at) if begins and self.comment_end <= self.at else None
        if match is None:
            return False
        self.close()
        while (following := _PLAIN.match(text, match.end())) is not None:
            name, login, password = match["name"], match["login_value"], match["password_value"]
            self.entries.append(MachineEntry(name, login, b"", password, _spans(match)))
            match = following
        # The last entry stays open, because more words may belong to it.
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
        """Return the next word; None at the end of the file."""
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
        """Handle a word in the place of a keyword. Return False if uv silently stops reading there."""
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
        """Close the open entry, if there is one."""
        if self.parts:
            name, login, account, password = (self.values.get(key, b"") for key in _VALUES)
            self.entries.append(MachineEntry(name, login, account, password, tuple(self.parts)))
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
        """Skip a macro: its name, the rest of that line, and all lines up to a blank one."""
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
    """A span to remove from a text, and the text that replaces it."""

    start: int
    end: int
    stub: bytes = b""


def _cuts(text: bytes, parts: Sequence[tuple[int, int]], stub: bytes) -> tuple[Cut, ...]:
    """Return the cuts that remove some spans from a text. A line that would be left empty is removed as a whole."""
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
    """Join spans that have only white space between them."""
    joined: list[tuple[int, int]] = []
    for start, end in parts:
        if joined and not text[joined[-1][1] : start].strip(WHITE):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def apply(text: bytes, taken: Sequence[Cut]) -> bytes:
    """Return a text after some cuts."""
    pieces: list[bytes] = []
    at = 0
    for cut in taken:
        pieces += [text[at : cut.start], cut.stub]
        at = cut.end
    return b"".join([*pieces, text[at:]])


def safe_cuts(text: bytes, before: Scan, entries: Sequence[MachineEntry], *, whole: bool = False) -> tuple[Cut, ...]:
    """Return cuts that remove entries from a text so that uv reads all other entries as before.

    If an entry is between a blank line and a comment, removing it would make the comment unreadable. A lone ``#`` in
    its place prevents that.

    Args:
        text: A netrc.
        before: The scan of `text`.
        entries: The entries of that scan to remove.
        whole: Also remove the comments between an entry's words. Otherwise they stay, like all else on those lines.
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


def _values(entry: MachineEntry) -> tuple[bytes, bytes, bytes, bytes]:
    return entry.name, entry.login, entry.account, entry.password
