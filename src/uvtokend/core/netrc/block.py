"""Edit our entries in a netrc that belongs to the user: text in, text out.

::

    #uvtokend:begin
    machine acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com login aws password eyJ...
    #uvtokend:end
    machine ftp.example login me password mine        <- foreign, and so is all that follows

1. The managed block is at the top of the file, where an unterminated macro or quote cannot swallow it. Only a byte
   order mark stays before it, so that an editor can still remove that mark.
2. The markers are comments of one word, because uv misreads comments of several words (see `grammar`).
3. A line in the block is ours if it is written exactly as we write it and its host is one of ours. All other text is
   foreign.
4. An entry outside the block is ours only if its login and password match a recent delivery. Another program rewrote
   the file without its comments then, and it may have read the file before our last delivery.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeAlias

from uvtokend.core.model import Entry, Problem, Secret
from uvtokend.core.netrc import grammar
from uvtokend.core.netrc.grammar import BOM, WHITE, Scan, scan
from uvtokend.core.netrc.lint import BEGIN, END, problems
from uvtokend.core.netrc.tail import Written, without_tail
from uvtokend.errors import DeliveryFailed

__all__ = ["BEGIN", "END", "Edit", "Layout", "Ours", "Scan", "block_entries", "check", "edit", "problems", "scan"]

#: The longest token or login, in bytes of UTF-8.
LIMIT = 16 * 1024

_BARE = re.compile(r"[A-Za-z0-9._~+/=:-]+")
#: A line as we write it if no value needs quotes. It is read in one step: the general reader is slow.
_PLAIN_LINE = re.compile(rb"machine ([a-z0-9_.-]+) login ([A-Za-z0-9._~+/=:-]+) password ([A-Za-z0-9._~+/=:-]+)")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?|\[[0-9a-f:.]+\]")

#: host -> the digests (`uvtokend.core.model.digest`) of the entries that we delivered recently.
Ours: TypeAlias = Mapping[str, Collection[str]]


def _digest(text: bytes) -> bytes:
    """Return a digest of a netrc. In a process without OpenSSL, SHA-256 takes three times as long as BLAKE2b, and no
    other thread runs meanwhile."""
    return hashlib.blake2b(text, usedforsecurity=False).digest()


@dataclass(frozen=True, slots=True)
class Layout:
    """How a text was made, without the text: a later edit of exactly this text need not read it again.

    Args:
        size: The length of the text.
        digest: The BLAKE2b digest of the text; empty if it was not computed.
        entries: host -> the entry in our block, in the order of their lines.
        rest_at: Where the foreign text begins.
        absent: Hosts that have no entry in the foreign text.
        present: Hosts of ours, and of wanted or shadowing entries, that have one -> what was known to be ours of it.
        problems: The problems of the text, if they are known.
    """

    size: int
    digest: bytes
    entries: Mapping[str, Entry]
    rest_at: int
    absent: frozenset[str]
    present: Mapping[str, tuple[str, ...]]
    problems: tuple[Problem, ...] | None = None

    def is_of(self, text: bytes) -> bool:
        """Return whether this is the layout of a text."""
        return len(text) == self.size and _digest(text) == self.digest

    def serves(self, text: bytes, ours: Ours, wanted: Collection[str], looked_for: Collection[str]) -> bool:
        """Return whether nothing else in a text with this layout has become ours since.

        Args:
            text: The text.
            ours: The recent deliveries, as for `edit`.
            wanted: The wanted hosts.
            looked_for: These, and all others whose entries matter.
        """
        names = {*ours, *wanted}
        if not self.entries.keys() <= names:
            return False
        if any(tuple(ours.get(host, ())) != digests for host, digests in self.present.items()):
            return False
        new = names.union(looked_for).difference(self.absent, self.present)
        return not new or _scanned_for(text[self.rest_at :], new) is None


@dataclass(frozen=True, slots=True)
class Edit:
    """The new content of a netrc.

    Args:
        text: The whole file.
        foreign: The wanted hosts that are not written because the file has a foreign entry for them. Also the hosts of
            `shadowing` that have a foreign entry, and ``default`` if it is one of them.
        hosts: The hosts of the entries that are written.
        file: The name of the file in messages.
        layout: How the text is made, for the next `edit`; None if it cannot be used again.
        before: Our entries in the text before the edit, by host, if its layout was known.
        known: The problems of the text, if they are those of the text before the edit.
    """

    text: bytes
    foreign: frozenset[str]
    hosts: Set[str] = frozenset()
    file: str = "the netrc"
    layout: Layout | None = None
    before: Mapping[str, Entry] | None = None
    known: tuple[Problem, ...] | None = None

    def laid_out(self, problems: tuple[Problem, ...] | None = None) -> Layout | None:
        """Return the layout with the digest of the text, which costs time that the edit itself does not take.

        Args:
            problems: The problems of the text, if they are known.
        """
        if self.layout is None:
            return None
        return replace(self.layout, digest=_digest(self.text), problems=problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The places that uv cannot read, or reads instead of our entries. Unless known, they take a whole scan."""
        return problems(self.text, self.hosts, self.file) if self.known is None else self.known


def check(entry: Entry) -> None:
    """Refuse an entry that a netrc cannot hold safely.

    Call this as soon as a token arrives, so that one bad token does not stop the others.

    Raises:
        DeliveryFailed: With a reason, and without the token.
    """
    token, login = entry.password.reveal(), entry.login
    named = _HOST.fullmatch(entry.host) and entry.host != "default"
    for reason, wrong, why in (
        ("bad-host", not named, "is for no host in lower case letters"),
        ("empty-token", not token, "has no token"),
        ("login-colon", ":" in login, "has a login with a colon, which HTTP Basic cannot carry"),
        ("too-long", _size(token, login) > LIMIT, "is longer than 16 KiB"),
        ("control-character", not (token + login).isprintable(), "holds a line break or another unprintable character"),
    ):
        if wrong:
            message = f"The credential for {entry.host[:253]!r} cannot be written to a netrc: it {why}."
            raise DeliveryFailed(reason, message)


def _size(*texts: str) -> int:
    return max(len(text.encode(errors="replace")) for text in texts)


def edit(
    text: bytes,
    wanted: Sequence[Entry],
    ours: Ours,
    file: str = "the netrc",
    shadowing: Collection[str] = (),
    left: Sequence[Entry] = (),
    layout: Layout | None = None,
) -> Edit:
    """Return a netrc with the wanted entries and no other entry of ours; all foreign text is kept byte for byte.

    Args:
        text: The current content of the file.
        wanted: The entries to write, in any order, at most one for each host.
        ours: The recent deliveries. It contains every host that we may have written, with no digests if the passwords
            are unknown: inside the block only the host counts.
        file: The name of the file in messages.
        shadowing: Hosts that must have no entry in the file at all, not even a ``default``.
        left: The entries of the last write, if they are known. A part of them may be left over; see
            `uvtokend.core.netrc.tail`.
        layout: The layout of exactly this text, from the last edit, which makes this edit cheap. Nobody may see the
            result before `Layout.is_of` has said so: it takes longer than the edit, so the caller chooses the moment.

    Raises:
        DeliveryFailed: A wanted entry cannot be written; see `check`.
    """
    hosts = [entry.host for entry in wanted]
    looked_for = [*hosts, *shadowing, *(["default"] if shadowing else [])]
    if layout is not None and len(text) == layout.size and layout.serves(text, ours, hosts, looked_for):
        if not layout.absent.issuperset(ours) or not layout.absent.issuperset(looked_for):
            absent = layout.absent.union(ours, looked_for).difference(layout.present)
            layout = replace(layout, absent=absent)
        if (again := _edit_again(text, wanted, looked_for, layout, file)) is not None:
            return again
    for entry in wanted:
        check(entry)
    rest = _foreign(text, {*ours, *hosts}, ours, _written_lines({*ours, *hosts}, ours, wanted, left))
    names = {*ours, *looked_for}
    scanned = _scanned_for(rest, names)
    machines = {entry.name for entry in scanned.entries} if scanned else set()
    present = {host: tuple(ours.get(host, ())) for host in names if host.encode(errors="replace") in machines}
    written = [entry for entry in wanted if entry.host not in present]
    new = join(written, rest)
    layout = _layout(new, written, rest, frozenset(names.difference(present)), present)
    return Edit(new, frozenset(present.keys() & looked_for), frozenset(entry.host for entry in written), file, layout)


def _layout(
    text: bytes, written: Sequence[Entry], rest: bytes, absent: frozenset[str], present: Mapping[str, tuple[str, ...]]
) -> Layout | None:
    """Return the layout of a text that `join` made; None if its parts are not one after the other."""
    if rest.startswith(BOM) or b"#uvtokend:" in rest:
        return None
    entries = {entry.host: entry for entry in sorted(written, key=lambda entry: entry.host)}
    return Layout(len(text), b"", entries, len(text) - len(rest), absent, present)


def _edit_again(
    text: bytes, wanted: Sequence[Entry], looked_for: Collection[str], layout: Layout, file: str
) -> Edit | None:
    """Edit a text whose layout is known: lines that stay and the foreign text are taken from it as they are.

    Only new lines and those that they replace are rendered. Of the others, only the bytes are copied. None means that
    the text cannot have this layout.
    """
    before, present = layout.entries, layout.present
    written = [entry for entry in wanted if entry.host not in present] if present else wanted
    fresh = {entry.host: entry for entry in written if before.get(entry.host) is not entry}
    lines = {host: _checked(fresh[host]) for host in sorted(fresh)}
    rest = memoryview(text)[layout.rest_at :]
    if same := len(written) == len(before) and fresh.keys() <= before.keys():
        entries = {**before, **fresh}  # in the order of the lines
        new = _with_lines(text, {_line(before[host]): line for host, line in lines.items()})
    else:
        entries = {entry.host: entry for entry in sorted(written, key=lambda entry: entry.host)}
        new = _with_block(text[: layout.rest_at], before, entries, lines, rest)
    if new is None:
        return None
    foreign = frozenset(present.keys() & looked_for)
    layout = replace(layout, size=len(new), digest=b"", entries=entries, rest_at=len(new) - len(rest))
    known = layout.problems if same else None  # they are in the foreign text, whose lines have not moved
    return Edit(new, foreign, entries.keys(), file, layout, before, known)


def _with_lines(text: bytes, lines: Mapping[bytes, bytes]) -> bytes | None:
    """Return a text with some of its lines replaced; None if it does not contain them.

    Args:
        text: The text. Its first line stays.
        lines: Line -> its replacement, in the order of the text.
    """
    pieces: list[bytes | memoryview] = []
    view, at = memoryview(text), 0
    for old, new in lines.items():
        start = text.find(b"\n%b\n" % old, at) + 1
        if not start:
            return None
        pieces += [view[at:start], new]
        at = start + len(old)
    return b"".join([*pieces, view[at:]])


def _with_block(
    block: bytes, before: Collection[str], hosts: Iterable[str], lines: Mapping[str, bytes], rest: memoryview
) -> bytes | None:
    """Return our block for other hosts above the foreign text; None if the block cannot have these lines.

    Args:
        block: The block as it was; empty if there was none.
        before: The hosts of its lines, in their order.
        hosts: The hosts of the new block, in their order.
        lines: Host -> its line, for those that are new.
        rest: The foreign text.
    """
    first, *kept = block.split(b"\n")
    if (first, *kept[len(before) :]) != ((BEGIN, END, b"") if before else (b"",)):
        return None
    all_lines = {**dict(zip(before, kept, strict=False)), **lines}
    return _block_above([all_lines[host] for host in hosts], rest)


def _checked(entry: Entry) -> bytes:
    """Return the line of an entry."""
    check(entry)
    return _line(entry)


def block_entries(text: bytes, ours: Ours | None = None) -> dict[str, Entry]:
    """Return our entries by host: those in the block, and those outside it that match a recent delivery.

    Args:
        text: The current content of the file.
        ours: The recent deliveries, as for `edit`. Without them, only the block counts.
    """
    blocked, rest = split(text)
    scanned = _scanned_for(rest, ours) if ours else None
    bare = [_entry(machine) for machine in _bare(scanned, ours)] if scanned and ours else []
    return {entry.host: entry for entry in [*bare, *blocked] if entry is not None}


def split(text: bytes, hosts: Collection[str] | None = None) -> tuple[list[Entry], bytes]:
    """Split a netrc into the entries of our block (or blocks) and the foreign text.

    A block without an end marker ends at the first line that we did not write.

    Args:
        text: The current content of the file.
        hosts: Only entries of these hosts are ours. By default, every line in the block that is written as we write it.
    """
    if BEGIN not in text and END not in text:
        return [], text
    bom = BOM if text.startswith(BOM) else b""
    last = text.rfind(b"#uvtokend:")
    end = text.find(b"\n", last) + 1 if text.startswith(END, last) else 0
    lines = re.findall(rb"[^\n]*\n|[^\n]+", text[len(bom) : end or len(text)])
    marks = [line.strip(WHITE) if b"#uvtokend:" in line else b"" for line in lines]
    entries: list[Entry] = []
    foreign = [bom]
    inside = closed = False
    for at, line in enumerate(lines):
        if marks[at] in (BEGIN, END):
            inside = marks[at] == BEGIN
            closed = inside and next((mark for mark in marks[at + 1 :] if mark in (BEGIN, END)), b"") == END
            seen: set[str] = set()
        elif inside and (entry := _written(line, hosts)) and (closed or entry.host not in seen):
            seen.add(entry.host)
            entries.append(entry)
        else:
            inside = inside and closed
            foreign.append(line)
    return entries, b"".join([*foreign, text[end:] if end else b""])


def join(entries: Sequence[Entry], foreign: bytes) -> bytes:
    """Return a netrc with these entries in our block, sorted by host, above the foreign text."""
    lines = {entry.host: _line(entry) for entry in entries}
    bom = BOM if foreign.startswith(BOM) else b""
    return bom + _block_above([lines[host] for host in sorted(lines)], memoryview(foreign)[len(bom) :])


def _block_above(lines: Sequence[bytes], rest: memoryview) -> bytes:
    """Return our block with some lines above another text; without lines there is no block."""
    return b"\n".join([BEGIN, *lines, END, rest]) if lines else bytes(rest)


def _foreign(text: bytes, hosts: Collection[str], ours: Ours, written: Written) -> bytes:
    """Return a netrc without our entries. Removing one may uncover another, so repeat until nothing changes."""
    while True:
        rest = split(without_tail(text, written), hosts)[1]
        scanned = _scanned_for(rest, ours)
        if scanned is not None and (bare := _bare(scanned, ours)):
            rest = grammar.apply(rest, grammar.safe_cuts(rest, scanned, bare))
        if rest == text:
            return rest
        text = rest


def _written_lines(hosts: Collection[str], ours: Ours, known: Sequence[Entry], left: Sequence[Entry]) -> Written:
    """Return what is known about the lines that we wrote."""

    def delivered(line: bytes) -> bool:
        entry = _written(line, hosts)
        return entry is not None and entry.digest in ours.get(entry.host, ())

    logins = {entry.login for entry in (*known, *left)}
    heads = {_line(Entry(host, login, Secret(""))).removesuffix(b'""') for host in hosts for login in logins}
    return Written(delivered, heads, [_line(entry) for entry in left])


def _scanned_for(text: bytes, names: Iterable[str]) -> Scan | None:
    """Return the scan of a text; None if it contains none of the names, which is much faster for a large file."""
    if b"\\" in text or any(name.encode(errors="replace") in text for name in names):
        return scan(text)
    return None


def _bare(scanned: Scan, ours: Ours) -> list[grammar.MachineEntry]:
    """Return the entries in foreign text that match a recent delivery."""
    return [entry for entry in scanned.entries if not entry.account and _delivered(entry, ours)]


def _delivered(machine: grammar.MachineEntry, ours: Ours) -> bool:
    known = ours.get(machine.name.decode(errors="replace"))
    entry = _entry(machine) if known else None
    return entry is not None and entry.digest in (known or ())


def _written(line: bytes, hosts: Collection[str] | None) -> Entry | None:
    """Return the entry of a line if it is written exactly as we write it, for one of these hosts."""
    line = line.strip(WHITE)
    if (plain := _PLAIN_LINE.fullmatch(line)) is not None:
        host, login, password = (word.decode() for word in plain.groups())
        return Entry(host, login, Secret(password)) if hosts is None or host in hosts else None
    named = line.split(b" ", 2)[1].decode(errors="replace") if line.startswith(b"machine ") else None
    machines = scan(line).entries if named is not None and (hosts is None or named in hosts) else ()
    entry = _entry(machines[0]) if machines else None
    return entry if entry is not None and _line(entry) == line else None


def _entry(machine: grammar.MachineEntry) -> Entry | None:
    try:
        return Entry(machine.name.decode(), machine.login.decode(), Secret(machine.password.decode()))
    except UnicodeDecodeError:
        return None


def _line(entry: Entry) -> bytes:
    words = ("machine", entry.host, "login", _value(entry.login), "password", _value(entry.password.reveal()))
    return " ".join(words).encode()


def _value(text: str) -> str:
    r"""Return a value as uv and Python can read it: bare if it is safe, otherwise quoted with ``\"`` and ``\\``."""
    if _BARE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
