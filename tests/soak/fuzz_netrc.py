"""Generated netrc files and edits of them, compared with Python's `netrc`, and a sample of them with uv itself.

Two effects that an edit cannot avoid are counted and are not broken laws. Foreign words may continue into our block,
or our markers into theirs; no editor does this, but the generator does. And Python and uv read a comment of several
words as words at the top of a file, but not below an entry.
"""

from __future__ import annotations

import netrc as oracle
import random
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from support.netrc_readers import sent, uv
from uvtokend.core.model import Entry, Secret
from uvtokend.core.netrc.adopt import restore, take_over
from uvtokend.core.netrc.block import BEGIN, END, Edit, Ours, block_entries, edit, scan
from uvtokend.sandbox.web import Answer, Server

HOSTS = ("a.example", "b.example", "index.example.com")
OTHERS = ("x.example", "y.example", "z.example")
WORDS = (
    *("machine", "default", "login", "user", "account", "password", "x.example", "y.example", "mine", "port"),
    *("#note", "#", "#two words", '""', '"q u"', '"in \\" side"', "es\\cape", '"open', "macdef", "a.example", "ü"),
)
GAPS = (" ", " ", "\n", "\n", "\n\n", "\t", " \n", "  ", "\r\n")
PIECES = (
    "machine x.example login me password mine\n",
    "machine y.example\n\tlogin you\n\tpassword yours\n",
    "machine z.example login z password z # of old\n",
    "machine x.example login again password twice\n",
    "machine a.example login foreign password theirs\n",
    'machine q.example login "a b" password "c\\"d"\n',
    "machine p.example password alone\n",
    "machine n.example\n",
    "default login anonymous password guest\n",
    "macdef init\ncd /tmp\nls\n\n",
    "#note\n",
    "# two words\n",
    "\n",
    "\n\n",
)
LETTERS = "abcXYZ0189._~+/=:-" * 3 + " \"\\#'@%$üß€"
#: Long enough that two tokens are never equal by chance.
_LENGTHS = (12, 20, 400)

#: The figures about edits.
FIGURES = (
    "edits",
    "... of files that Python refuses",
    "... with a fatal problem, which is reported",
    "... compared with what Python's netrc reads",
    "... where foreign words continued into our block",
    "... where a comment at the top is a comment only below an entry",
    "adoptions",
)

#: A foreign keyword that takes our next word as its value; a foreign comment that becomes words after a quoted value of
#: ours without a marker between them; or foreign words directly behind our block, which continue our last entry.
_REACHING = re.compile(
    rb"(?:^|\s)(?:machine|login|user|account|password|macdef)\s+(?:#uvtokend:|machine\s)"
    rb'|machine (?:a\.|b\.|index\.)[^\n]*"\r?\n\s*#(?!uvtokend:)'
    rb"|#uvtokend:end\s+(?:login|user|account|password)\b"
)
_GUARD = b"machine guard login g password g\n#end\n"

Hosts = Mapping[str, tuple[str, str | None, str]]


class Netrcs:
    """Generate files and edits, and check the results.

    Args:
        dice: The random numbers.

    Attributes:
        broken: The broken laws, with the files.
        counts: How many files and edits of which kind there were.
    """

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.broken: list[str] = []
        self.counts: Counter[str] = Counter(dict.fromkeys(FIGURES, 0))
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by `close`

    def close(self) -> None:
        """Delete the temporary file."""
        self._file.close()

    def judge_one(self) -> None:
        """Generate a file, write entries into it, let another program edit it, and write again."""
        foreign, wanted = self.foreign(), self.wanted()
        try:
            first = edit(foreign, wanted, {})
            self._first(foreign, wanted, first)
            changed = self._changed(first.text)
            self._second(changed, wanted)
            self._adopted(first.text, foreign, wanted)
        except Exception as error:  # noqa: BLE001 - any exception is a finding
            self._break(f"{type(error).__name__}: {error}", foreign)

    # ------------------------------------------------------------------------------------------------------ the laws

    def _first(self, foreign: bytes, wanted: Sequence[Entry], first: Edit) -> None:
        written = [entry for entry in wanted if entry.host not in first.foreign]
        ours = _ours(wanted)
        self._law("the foreign bytes are back", edit(first.text, [], ours).text == foreign, foreign)
        self._law("a second edit changes nothing", _same(edit(first.text, wanted, ours), first), foreign)
        self._law("our block is read back", block_entries(first.text) == {one.host: one for one in written}, foreign)
        messages = "".join(map(str, first.problems))
        self._law("no problem names a secret", not any(one.password.reveal() in messages for one in wanted), foreign)
        self._compare(foreign, first, [], written)

    def _second(self, changed: bytes, before: Sequence[Entry]) -> None:
        """Another program has edited the file: an edit of ours must not change what Python
        reads of the foreign entries.
        """
        wanted, ours = self.wanted(), _ours(before)
        after = edit(changed, wanted, ours)
        written = [entry for entry in wanted if entry.host not in after.foreign]
        self._law(
            "a second edit changes nothing", _same(edit(after.text, wanted, {**ours, **_ours(wanted)}), after), changed
        )
        self._compare(changed, after, before, written)

    def _compare(self, before: bytes, after: Edit, ours: Sequence[Entry], written: Sequence[Entry]) -> None:
        """Compare what Python reads after an edit with what it read before."""
        self.counts["edits"] += 1
        old = self._read(before)
        values = {one.host: _values(one) for one in ours}
        if old is None:
            self.counts["... of files that Python refuses"] += 1
        elif any(problem.fatal for problem in after.problems):
            self.counts["... with a fatal problem, which is reported"] += 1
        elif _REACHING.search(before) or any(old.get(host, value) != value for host, value in values.items()):
            self.counts["... where foreign words continued into our block"] += 1
        else:
            self.counts["... compared with what Python's netrc reads"] += 1
            self._same(before, old, after, written, {*values, *(entry.host for entry in written)})

    def _same(self, before: bytes, old: Hosts, after: Edit, written: Sequence[Entry], mine: Collection[str]) -> None:
        new = self._read(after.text)
        if new is not None:
            for entry in written:
                self._law("Python reads what we wrote", new.get(entry.host) == _values(entry), before)
        if new is not None and _without(mine, old) == _without(mine, new):
            return
        self.counts["... where a comment at the top is a comment only below an entry"] += 1
        below = [_without(mine, self._read(_GUARD + text)) for text in (before, after.text)]
        alike = _without(mine, new) == below[0] or _without(mine, old) == below[1]
        self._law("Python reads the others as before", alike, before)

    def _adopted(self, text: bytes, foreign: bytes, wanted: Sequence[Entry]) -> None:
        host = self.dice.choice([*OTHERS, "a.example"])
        if any(entry.host == host for entry in wanted):
            return
        self.counts["adoptions"] += 1
        taken = take_over(text, host)
        names = [entry.name for entry in scan(edit(taken.text, [], _ours(wanted)).text).entries]
        self._law("the adopted entry is removed", host.encode() not in names, foreign)
        more = [*wanted, Entry(host, "aws", Secret(self.token()))]
        delivered = edit(taken.text, more, _ours(wanted))
        self._law("the adopted host can be written", host not in delivered.foreign, foreign)
        back = edit(restore(delivered.text, taken.backup), [], {**_ours(more), host: ()}).text
        self._law("restore undoes adopt", back == foreign, foreign)

    def _law(self, law: str, holds: bool, text: bytes) -> None:
        if not holds:
            self._break(law, text)

    def _break(self, law: str, text: bytes) -> None:
        self.broken.append(f"not so: {law}, with {text!r}")

    def _read(self, text: bytes) -> Hosts | None:
        path = Path(self._file.name)
        path.write_bytes(
            text if text.endswith(b"\n") else text + b"\n"
        )  # only Python rejects a macro without its final line
        try:
            return oracle.netrc(str(path)).hosts
        except (oracle.NetrcParseError, UnicodeDecodeError):
            return None

    # -------------------------------------------------------------------------------------------------- the generator

    def foreign(self) -> bytes:
        """Return a generated foreign file."""
        dice = self.dice
        kind = dice.random()
        if kind < 0.45:
            text = "".join(dice.choices(PIECES, k=dice.randint(0, 8))).encode()
        elif kind < 0.8:
            text = "".join(dice.choice(WORDS) + dice.choice(GAPS) for _ in range(dice.randint(0, 16))).encode()
        elif kind < 0.9:
            text = dice.randbytes(dice.randint(0, 60)).translate(None, b"#\r")
        else:
            text = "".join(dice.choices(PIECES, k=4)).encode() + dice.randbytes(8).translate(None, b"#\r")
        shape = dice.random()
        if shape < 0.1:
            text = _carriage_returns(text)
        elif shape < 0.15:
            text = b"\xef\xbb\xbf" + text
        elif shape < 0.3:
            text = text.rstrip(b"\n")
        return text

    def wanted(self) -> list[Entry]:
        """Return the entries to write."""
        hosts = self.dice.sample(HOSTS, self.dice.randint(0, 3))
        return [Entry(host, self._login(), Secret(self.token())) for host in hosts]

    def token(self) -> str:
        """Return a token that occurs nowhere else."""
        return "".join(self.dice.choices(LETTERS, k=self.dice.choice(_LENGTHS)))

    def _login(self) -> str:
        login = "".join(self.dice.choices(LETTERS.replace(":", ""), k=self.dice.randint(0, 8)))
        return self.dice.choice(["aws", login])

    def _changed(self, text: bytes) -> bytes:
        """Return a file as another program has edited it."""
        dice = self.dice
        lines = text.splitlines(keepends=True)
        at = dice.randint(0, len(lines))
        piece = dice.choice(PIECES).encode()
        match dice.randrange(8):
            case 0:
                return b"".join([*lines[:at], piece, *lines[at:]])
            case 1:
                return b"".join([*lines[:at], *lines[at + 1 :]])
            case 2:
                return b"".join(line for line in lines if not line.startswith(b"#"))
            case 3:
                return _carriage_returns(text)
            case 4:
                return text + text[dice.randint(0, len(text)) :]
            case 5:
                return b"".join(line for line in lines if line.strip() != dice.choice([BEGIN, END]))
            case 6:
                dice.shuffle(lines)
                return b"".join(lines)
        return text + piece


def against_uv(dice: random.Random, samples: int, directory: Path) -> list[str]:
    """Let the real uv read generated files, half of them with our entry, and return what it reads differently.

    Args:
        dice: The random numbers.
        samples: The number of files.
        directory: An empty directory.
    """
    (directory / "needs.in").write_text("alpha\n")
    files = Netrcs(dice)
    texts: dict[str, bytes] = {}
    expected: dict[str, str | None] = {}
    for number in range(samples):
        foreign = files.foreign().replace(b"x.example", b"127.0.0.1" if number % 2 else b"x.example")
        name = f"case{number}"
        if number % 2:
            texts[name] = foreign
            read = scan(foreign).as_read()
        else:
            result = edit(foreign, [Entry("127.0.0.1", "aws", Secret(files.token()))], {})
            texts[name], read = result.text, scan(result.text).as_read()
        entry = read.get(b"127.0.0.1", read.get(b"default"))
        expected[name] = None if entry is None else f"{entry[0].decode()}:{entry[2].decode()}"
    files.close()
    with Server(lambda _: Answer(401, headers={"WWW-Authenticate": 'Basic realm="index"'})) as server:
        got = sent(server, directory, texts, uv)
    return [
        f"uv reads {got[name]!r}, not {expected[name]!r}, in {texts[name]!r}"
        for name in texts
        if got[name] != expected[name]
    ]


def _values(entry: Entry) -> tuple[str, str | None, str]:
    return entry.login, "", entry.password.reveal()


def _without(mine: Collection[str], hosts: Hosts | None) -> Hosts | None:
    """Return the foreign entries; None if the file cannot be read."""
    return None if hosts is None else {host: read for host, read in hosts.items() if host not in {*mine, "guard"}}


def _carriage_returns(text: bytes) -> bytes:
    """Return a text with CRLF line ends; a lone CR ends a line only for Python."""
    return text.replace(b"\r", b"").replace(b"\n", b"\r\n")


def _same(one: Edit, other: Edit) -> bool:
    """Return whether two edits have the same result, regardless of what they record for the next one."""
    return (one.text, one.foreign, one.hosts) == (other.text, other.foreign, other.hosts)


def _ours(entries: Sequence[Entry]) -> Ours:
    return {one.host: [one.digest] for one in entries}
