"""Test the netrc functions on text. Python's own `netrc` is the oracle for the grammar; Hypothesis generates the
files."""

from __future__ import annotations

import json
import netrc as oracle
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uvtokend.core.model import Entry, Secret
from uvtokend.core.netrc import adopt, block, grammar, tail
from uvtokend.core.netrc.adopt import restore, take_over
from uvtokend.core.netrc.block import BEGIN, END, Ours, block_entries, check, edit, problems, scan
from uvtokend.core.netrc.merge import made_of, merge, mixture
from uvtokend.errors import DeliveryFailed

HOSTS = ("a.example", "b.example", "index.example.com")
PRINTABLE = st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=("C", "Z")) | st.just(" ")
TOKENS = st.text(PRINTABLE, min_size=1, max_size=20)
LOGINS = st.text(PRINTABLE, max_size=12).filter(lambda login: ":" not in login)
ENTRIES = st.builds(
    lambda host, login, token: Entry(host, login, Secret(token)), st.sampled_from(HOSTS), LOGINS, TOKENS
)
WANTED = st.lists(ENTRIES, unique_by=lambda entry: entry.host, max_size=3)

WORDS = [
    *("machine", "default", "login", "user", "account", "password", "x.example", "y.example", "secret", "port"),
    *("#note", "#", "#two words", '""', '"q u"', '"in \\" side"', "es\\cape", '"open'),
]
GAPS = (" ", "\n", "\n\n", "\t", " \n", "  ")
#: Files made of the words of a netrc, most of them invalid somewhere.
SOUP = st.lists(st.sampled_from(WORDS) | st.sampled_from(GAPS), max_size=24).map("".join)
GOOD = st.lists(
    st.sampled_from(
        [
            "machine x.example login me password mine\n",
            "machine y.example\n\tlogin you\n\tpassword yours\n",
            "machine z.example login z password z # of old\n",
            "default login anonymous password guest\n",
            "#note\n",
            "# two words\n",
            "\n",
            "macdef init\ncd /tmp\nls\n\n",
            'machine q.example login "a b" password "c\\"d"\n',
            "machine x.example login again password twice",
        ]
    ),
    max_size=8,
).map("".join)
LINES = st.lists(
    st.sampled_from(
        [
            BEGIN + b"\n",
            END + b"\n",
            BEGIN + b"\r\n",
            b"  " + END + b"\r\n",
            b"machine a.example login aws password t0\n",
            b"machine a.example login aws password t1\r\n",
            b"machine b.example login aws password t0\n",
            b"machine x.example login me password mine\n",
            b"machine a.example\n",
            b"login aws\n",
            b"password t0\n",
            b"machine a.example login aws password t0 #uvtokend:begin\n",
            b"\n",
            b"# two words\n",
            b"\xff\xfe\n",
            b'machine b.example login "open\n',
        ]
    ),
    max_size=9,
).map(b"".join)
FOREIGN = (st.binary(max_size=60) | SOUP.map(str.encode) | GOOD.map(str.encode)).filter(
    lambda text: b"#uvt" not in text
)


def known(token: str) -> str:
    """Return the digest of an entry of ours that has this token."""
    return Entry("", "aws", Secret(token)).digest


def delivered(entries: list[Entry]) -> Ours:
    return {entry.host: [entry.digest] for entry in entries}


def quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # JSON escapes the same two characters


def entry(host: str, token: str = "t0", login: str = "aws") -> Entry:
    return Entry(host, login, Secret(token))


def read_by_python(text: bytes) -> Mapping[str, tuple[str, str | None, str]]:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(text)
        return oracle.netrc(file.name).hosts


def as_read(text: bytes) -> dict[str, tuple[str, str, str]]:
    return {
        name.decode(): (login.decode(), account.decode(), password.decode())
        for name, (login, account, password) in scan(text).as_read().items()
    }


class TestGrammar:
    @given(SOUP | GOOD)
    @example("\n# two words\n")
    @example("machine x login a password b\n\n# password old\n")
    @example('machine x login a "" machine y')
    def test_reads_as_python_does(self, text: str) -> None:
        """`scan` reads from every file the values that Python's netrc reads, and reports a problem in every file that
        Python refuses.

        There is one exception: at an empty word where a keyword is expected, uv and Python up to 3.13 stop reading
        without an error, whereas Python 3.14 refuses the file ("bad follower token"). `scan` follows uv.
        """
        if not text.endswith("\n"):
            text += "\n"  # only Python treats a macro that the end of the file cuts off as an error
        try:
            expected = read_by_python(text.encode())
        except oracle.NetrcParseError:
            scanned = scan(text.encode())
            assert not scanned.readable or any(trouble.kind == "empty-word" for trouble in scanned.troubles)
        else:
            assert scan(text.encode()).readable
            assert as_read(text.encode()) == expected

    @given(st.binary(max_size=200))
    def test_reads_anything(self, text: bytes) -> None:
        """`scan` accepts any bytes, and the words of each entry are in the order in which they are in the file."""
        for machine in scan(text).entries:
            spans = [at for part in machine.parts for at in part]
            assert spans == sorted(spans)
            assert 0 <= machine.start < machine.end <= len(text)

    @pytest.mark.parametrize(
        ("text", "read"),
        [
            (b"machine x login a password b\\", {"x": ("a", "", "b ")}),
            (b'machine x login a password "b\\', {"x": ("a", "", "b ")}),
            (b"machine x password", {"x": ("", "", "")}),
            (b"macdef", {}),
            (b"macdef init\nmachine x login a password b\n \nmachine y login c", {"y": ("c", "", "")}),
            (b"macdef init \nmachine x login a\n", {"x": ("a", "", "")}),
            (b"macdef init\ncd\n\xe3\x80\x80\nmachine x login a\n", {"x": ("a", "", "")}),
            (b"machine x login a\r\npassword b\r\n#one\r\n", {"x": ("a", "", "b")}),
            (b"machine x\x0clogin a", {"x\x0clogin": ("", "", "")}),
        ],
    )
    def test_reads_as_uv_does(self, text: bytes, read: dict[str, tuple[str, str, str]]) -> None:
        """Where uv and Python differ, `scan` follows uv: incomplete words at the end, and macros that end at white
        space or at the end of the file."""
        scanned = scan(text)
        if scanned.readable:
            assert as_read(text) == read
        else:
            assert {item.name.decode() for item in scanned.entries} == set(read)

    def test_undecodable_bytes_in_a_macro_are_skipped(self) -> None:
        """A macro ends at a blank line even if it contains undecodable bytes."""
        (machine,) = scan(b"macdef x\n\xff\xfe\n\nmachine a login b password c\n").entries
        assert machine.name == b"a"

    def test_goes_on_after_an_unknown_word(self) -> None:
        """After an unknown word `scan` continues, so that it reports all problems and entries at once, although uv
        reads none of them."""
        scanned = scan(b"machine x port 21 login a\n\n# of old\nmachine y protocol https\n")
        assert [(item.name, item.login) for item in scanned.entries] == [(b"x", b"a"), (b"y", b"")]
        assert [trouble.kind for trouble in scanned.troubles] == [
            "unknown-word",
            "unknown-word",
            "comment",
            "unknown-word",
            "unknown-word",
        ]
        assert scanned.as_read() == {}


class TestEdit:
    @given(FOREIGN, WANTED)
    def test_leaves_foreign_text_to_the_byte(self, foreign: bytes, wanted: list[Entry]) -> None:
        """Removing our entries again restores the original file byte for byte, whatever it contained."""
        text = edit(foreign, wanted, {}).text
        assert edit(text, [], delivered(wanted)).text == foreign

    @given(LINES | FOREIGN, WANTED, st.sampled_from(["", "t0", "t1"]))
    def test_is_idempotent(self, text: bytes, wanted: list[Entry], token: str) -> None:
        """A second edit changes nothing."""
        ours = {"a.example": [known(token)], "b.example": [known("t0")]}
        once = edit(text, wanted, ours)
        assert edit(once.text, wanted, ours) == once

    @given(LINES, WANTED)
    def test_loses_no_foreign_line(self, text: bytes, wanted: list[Entry]) -> None:
        """Wherever the marks are, an edit keeps all lines except the marks and our own entries, in their order."""
        ours = dict.fromkeys(HOSTS, ())

        def foreign(text: bytes) -> list[bytes]:
            lines = [line for line in text.split(b"\n") if line.strip() not in (BEGIN, END, b"")]
            return [line for line in lines if not line.startswith((b"machine a.", b"machine b.", b"machine index."))]

        assert foreign(edit(text, wanted, ours).text) == foreign(text)

    @given(GOOD, WANTED)
    def test_python_reads_the_wanted_entries(self, foreign: str, wanted: list[Entry]) -> None:
        """Python's netrc reads our entries with the values we wrote, and the foreign ones unchanged."""
        if not foreign.endswith("\n"):
            foreign += "\n"
        try:
            before = read_by_python(foreign.encode())
        except oracle.NetrcParseError:
            return
        after = read_by_python(edit(foreign.encode(), wanted, {}).text)
        ours = {item.host: (item.login, "", item.password.reveal()) for item in wanted}
        assert after == {**before, **ours}

    @given(FOREIGN, WANTED)
    def test_without_a_fatal_problem_uv_reads_the_wanted_entries(self, foreign: bytes, wanted: list[Entry]) -> None:
        """If the edit reports no fatal problem, uv reads every entry with the values we wrote."""
        result = edit(foreign, wanted, {})
        if not any(problem.fatal for problem in result.problems):
            read = scan(result.text).as_read()
            for item in wanted:
                assert read[item.host.encode()] == (item.login.encode(), b"", item.password.reveal().encode())

    @given(WANTED)
    def test_block_is_sorted_and_marked(self, wanted: list[Entry]) -> None:
        """The block is at the top between its marks, with one line per entry, sorted by host. Without entries, no
        block is written."""
        lines = edit(b"#mine\n", wanted, {}).text.split(b"\n")
        if wanted:
            assert lines[0] == BEGIN
            assert lines[len(wanted) + 1] == END
            assert lines[1 : len(wanted) + 1] == sorted(lines[1 : len(wanted) + 1], key=lambda line: line.split()[1])
        assert lines[-2:] == [b"#mine", b""]

    @given(FOREIGN, WANTED)
    def test_entries_can_be_recovered(self, foreign: bytes, wanted: list[Entry]) -> None:
        """The entries in the block are read back with the values we wrote, tokens included."""
        assert block_entries(edit(foreign, wanted, {}).text) == {item.host: item for item in wanted}

    @given(st.lists(ENTRIES, unique_by=lambda item: item.host, min_size=1, max_size=3), GOOD)
    def test_bare_entries_are_taken_back(self, wanted: list[Entry], foreign: str) -> None:
        """If a program rewrites the file as Python's netrc does, our entries lose their marks, but they are still
        recognized as ours."""
        try:
            hosts = read_by_python(edit(foreign.encode() + b"\n\n", wanted, {}).text)
        except oracle.NetrcParseError:
            return
        rewritten = "".join(
            f"machine {host}\n\tlogin {quoted(login)}\n\tpassword {quoted(word)}\n"
            for host, (login, _, word) in hosts.items()
        )
        ours = delivered(wanted)
        assert block_entries(rewritten.encode(), ours) == {item.host: item for item in wanted}
        names = [item.name.decode() for item in scan(edit(rewritten.encode(), [], ours).text).entries]
        assert names == [host for host in hosts if host not in ours]

    def test_a_foreign_entry_is_not_touched(self) -> None:
        """If a host already has a foreign entry, the edit reports the host and does not write it. It writes the
        other hosts."""
        text = b"machine a.example login me password mine\n"
        result = edit(text, [entry("a.example"), entry("b.example")], {"a.example": [known("t0")]})
        assert result.foreign == {"a.example"}
        assert result.text == BEGIN + b"\nmachine b.example login aws password t0\n" + END + b"\n" + text

    def test_a_foreign_line_inside_the_block_is_kept(self) -> None:
        """Lines that others put between our marks remain foreign, even if they are written in our style."""
        theirs = b"machine x.example login me password mine\n"
        text = BEGIN + b"\nmachine a.example login aws password t0\n" + theirs + b"#word\n" + END + b"\n#last"
        result = edit(text, [entry("a.example", "t1")], {"a.example": [known("t0")]})
        assert (
            result.text
            == BEGIN + b"\nmachine a.example login aws password t1\n" + END + b"\n" + theirs + b"#word\n#last"
        )

    def test_a_block_without_end_ends_at_the_first_foreign_line(self) -> None:
        """Without an end mark, the edit removes only lines that we wrote. A second entry for the same host is
        foreign."""
        ours: Ours = {"a.example": (), "b.example": ()}
        lines = [f"machine {host} login aws password t0\n".encode() for host in ("a.example", "b.example", "a.example")]
        foreign = b"machine x.example login b password c\nmachine b.example login aws password t0\n"
        assert edit(BEGIN + b"\n" + b"".join(lines), [], ours).text == lines[2]
        assert edit(BEGIN + b"\n" + lines[0] + foreign, [], ours).text == foreign

    def test_an_undecodable_line_in_the_block_is_foreign(self) -> None:
        """A line that resembles ours but is not valid UTF-8 is foreign."""
        line = b"machine a.example login aws password \xff\n"
        text = BEGIN + b"\n" + line + END + b"\n"
        assert block_entries(text) == {}
        assert edit(text, [], {"a.example": ()}).text == line

    def test_entries_below_a_foreign_line_inside_the_block_are_ours(self) -> None:
        """If the block has an end mark, all of it is searched for our entries."""
        text = edit(b"", [entry("a.example"), entry("b.example")], {}).text
        middle = text.index(b"machine b.example")
        entries, foreign = block.split(text[:middle] + b"#mine\n" + text[middle:], None)
        assert [one.host for one in entries] == ["a.example", "b.example"]
        assert foreign == b"#mine\n"

    def test_two_blocks_are_merged(self) -> None:
        """If our block was copied, the edit merges both copies into one block at the top."""
        block = edit(b"", [entry("a.example"), entry("b.example")], {}).text
        result = edit(b"#one\n" + block + b"#two\n" + block, [entry("a.example")], {"b.example": ()})
        assert result.text == edit(b"", [entry("a.example")], {}).text + b"#one\n#two\n"

    def test_an_entry_with_other_values_is_foreign_outside_the_block(self) -> None:
        """Outside the block, an entry whose password differs from ours, or that has an account, is foreign."""
        for text in (
            b"machine a.example login aws password t1\n",
            b"machine a.example login aws account x password t0\n",
        ):
            assert edit(text, [], {"a.example": [known("t0")]}).text == text

    def test_a_byte_order_mark_stays_first(self) -> None:
        """A byte order mark makes the file unreadable for uv wherever it is, but an editor finds it only at the
        start."""
        result = edit(b"\xef\xbb\xbfmachine x.example login a password b\n", [entry("a.example")], {})
        assert result.text.startswith(b"\xef\xbb\xbf" + BEGIN)
        assert [problem.where for problem in result.problems] == ["line 1"]

    def test_taking_a_bare_entry_out_breaks_no_comment(self) -> None:
        """If a comment is safe only because it follows our entry, a lone comment mark replaces the removed entry to
        keep it safe."""
        text = (
            b"machine x login a password b\n\nmachine a.example login aws password t0\n# two words\nmachine y login c\n"
        )
        result = edit(text, [], {"a.example": [known("t0")]}).text
        assert result == b"machine x login a password b\n\n#\n# two words\nmachine y login c\n"
        assert set(as_read(result)) == {"x", "y"}

    @pytest.mark.parametrize("above", [b"", b"port 21\n"])
    def test_taking_a_bare_entry_out_changes_no_other(self, above: bytes) -> None:
        """A comment whose words would otherwise belong to the entry above remains a comment, even in a file that uv
        cannot read."""
        other = b"machine x login a password b\n\n"
        below = b"# password two\nmachine y login c\n"
        ours = delivered([entry("a.example")])
        result = edit(above + other + b"machine a.example login aws password t0\n" + below, [], ours).text
        assert result == above + other + b"#\n" + below
        assert [item.password for item in scan(result).entries] == [b"b", b""]

    def test_an_entry_with_any_recent_token_is_ours(self) -> None:
        """A program that drops the comments may have read the file before our last delivery, so older digests count
        too."""
        ours = {"a.example": [known("t1"), known("t0")]}
        for token in ("t0", "t1"):
            text = f"machine a.example login aws password {token}\nmachine x login y password z\n".encode()
            assert edit(text, [], ours).text == b"machine x login y password z\n"
            assert block_entries(text, ours) == {"a.example": entry("a.example", token)}

    def test_other_text_on_the_line_of_a_bare_entry_stays(self) -> None:
        """Comments and other entries on the same lines are foreign and stay."""
        ours = {"a.example": [known("t0")]}
        for text, left in (
            (b"machine a.example login aws password t0 #note\n", b" #note\n"),
            (b"machine x login b machine a.example login aws password t0\n", b"machine x login b \n"),
            (b"machine a.example\n#of old\nlogin aws\n  password t0\n", b"#of old\n"),
            (b"#top\nmachine a.example\nlogin aws\npassword t0", b"#top\n"),
            (b"\n\nmachine a.example login aws password t0\n# two words", b"\n\n#\n# two words"),
            (b"machine a.example login aws password t0\n#old machine y\n", b"#old machine y\n"),
        ):
            assert edit(text, [], ours).text == left

    def test_a_large_file(self) -> None:
        """A megabyte of foreign entries is kept byte for byte."""
        foreign = b"".join(b"machine host%d.example login me password mine\n" % number for number in range(20_000))
        text = edit(foreign, [entry("a.example")], {}).text
        assert text.endswith(END + b"\n" + foreign)
        assert edit(text, [], {"a.example": ()}).text == foreign

    def test_a_line_of_a_megabyte(self) -> None:
        """The scan handles a value or a comment of a megabyte without deep recursion."""
        for filler in (b"x" * 1_000_000, b"\\x" * 500_000, b'"' + b'\\"' * 500_000, b"# " + b"w " * 50_000):
            scan(b"machine x login a password " + filler)
            scan(b"\n" + filler)


class TestRefusals:
    @pytest.mark.parametrize(
        ("reason", "wrong"),
        [
            ("bad-host", entry("default")),
            ("bad-host", entry("")),
            ("bad-host", entry("A.example")),
            ("bad-host", entry("a.example:443")),
            ("bad-host", entry("a example")),
            ("bad-host", entry("a.example\nmachine")),
            ("empty-token", entry("a.example", "")),
            ("login-colon", entry("a.example", login="a:b")),
            ("too-long", entry("a.example", "x" * 16385)),
            ("too-long", entry("a.example", "é" * 8193)),
            ("too-long", entry("a.example", login="x" * 16385)),
            ("control-character", entry("a.example", "line\nbreak")),
            ("control-character", entry("a.example", "null\0")),
            ("control-character", entry("a.example", "surrogate\udc80")),
            ("control-character", entry("a.example", login="bell\a")),
        ],
    )
    def test_an_entry_that_a_netrc_cannot_hold_is_refused(self, reason: str, wrong: Entry) -> None:
        """The error names the reason and never contains the token."""
        with pytest.raises(DeliveryFailed) as caught:
            edit(b"", [wrong], {})
        assert caught.value.reason == reason
        token = wrong.password.reveal()
        assert len(token) < 2 or token not in caught.value.message

    @pytest.mark.parametrize("host", ["a", "1.2.3.4", "[::1]", "under_score.example", "x" * 63 + ".example"])
    def test_valid_hosts_and_long_tokens_are_accepted(self, host: str) -> None:
        """Host names, IP addresses and a token of the maximum length pass the check."""
        check(entry(host, "x" * 16384, login=""))

    @given(TOKENS)
    def test_harmless_tokens_are_not_quoted(self, token: str) -> None:
        """A token is quoted only if necessary, because curl before 7.84 does not support quotes."""
        line = edit(b"", [entry("a.example", token)], {}).text.split(b"\n")[1].decode()
        bare = all(char.isascii() and (char.isalnum() or char in "._~+/=:-") for char in token)
        assert line.endswith(f" {token}" if bare else '"')


class TestProblems:
    @pytest.mark.parametrize(
        ("text", "line", "words"),
        [
            (b"machine x login a port 21\n", 1, "does not know the word 'port'"),
            (b"machine x login a password b port 21\n", 1, "does not know the word 'port'"),
            (b"machine x login a pasword b\n", 1, "does not know the word 'pasword'"),
            (b"machine x login a password b Pasword c\n", 1, "does not know the word 'Pasword'"),
            (b"\n\nlogin a\n", 3, "does not know the word 'login' here"),
            (b"#ok\nmachine x login my password two words\n", 2, "does not know a word"),
            (b"machine x login a\n\n# two words\n", 3, "comment of several words"),
            (b"machine x login a \n# two words\n", 2, "comment of several words"),
            (b"machine x login a\r\n# two words\r\n", 2, "comment of several words"),
            (b"machine x login a\n\n# password old\n", 3, "comment of several words"),
            (b"\xef\xbb\xbfmachine x login a\n", 1, "byte order mark"),
            (b"machine x login a\nmachine", 2, "misses the host"),
            (b'machine "" login a', 1, "misses the host"),
            (b'machine x login "a\nmachine y\n', 1, "never closed"),
            (b'machine x login a\n"b', 2, "never closed"),
            (b'machine x login a\n""\nmachine y\n', 2, "empty word"),
            (b"macdef init\ncd /x\n", 1, "not ended by an empty line"),
            (b"#a\nmacdef init\ncd /x\nmachine y login b\n\n", 2, "not ended by an empty line"),
        ],
    )
    def test_each_problem_has_a_line_and_a_fix(self, text: bytes, line: int, words: str) -> None:
        """Each construct that uv silently fails on is reported with its line and a fix."""
        first, *_ = problems(text, (), "the file")
        assert (first.file, first.where) == ("the file", f"line {line}")
        assert words in first.message
        assert first.hint

    def test_only_a_problem_that_affects_our_entries_is_fatal(self) -> None:
        """An open macro or quote below our block, an empty word and a default entry are only warnings."""
        for text in (b"macdef init\ncd\n", b'machine x login "a', b'""', b"default login a\n"):
            assert [problem.fatal for problem in edit(text, [entry("a.example")], {}).problems] == [False]

    def test_carriage_returns_have_their_own_fix(self) -> None:
        """If every line ends in CR LF, the fix is to change the line ends, not to join the words of the comment."""
        (problem,) = problems(b"machine x login a\r\n# two words\r\n", (), "f")
        assert "LF line ends" in problem.hint

    def test_an_entry_after_ours_shadows_it(self) -> None:
        """A second entry for our host below the block wins for uv, so its line is reported as fatal."""
        text = edit(b"#x\n", [entry("a.example")], {}).text + b"machine a.example login me password mine\n"
        (problem,) = problems(text, ["a.example"], "f")
        assert problem.where == "line 5"
        assert problem.fatal
        assert problems(text, ["b.example"], "f") == ()

    def test_words_without_a_machine_change_our_entry(self) -> None:
        """Below our block, uv adds a `login` without a machine to our entry; its line is reported as fatal."""
        result = edit(b"\nlogin me\n", [entry("a.example")], {})
        assert as_read(result.text)["a.example"] == ("me", "", "t0")
        assert [(problem.where, problem.fatal) for problem in result.problems] == [("line 5", True)]

    @pytest.mark.parametrize("word", ["port", "protocol", "host", "username", "passwd", "url"])
    def test_a_well_known_word_after_a_password_is_quoted(self, word: str) -> None:
        """The message quotes an unknown word only if it is a keyword of other programs; any other word may be part
        of the password."""
        (problem,) = problems(f"machine a login b password c {word} x\n".encode(), [], "netrc")[:1]
        assert word in problem.message
        (problem,) = problems(b"machine a login b password c hunter2 x\n", [], "netrc")[:1]
        assert "hunter2" not in problem.message

    def test_at_most_twenty_problems_are_reported(self) -> None:
        """A file that is not a netrc at all yields 20 problems, not thousands."""
        assert len(problems(b"x y\n" * 20_000, (), "f")) == 20

    def test_no_problem_quotes_the_file(self) -> None:
        """An unknown word may be the second half of a password, so no message contains it."""
        for text in (
            b"machine x login me password hunter2 hunter3\n\n# hunter4 hunter5\n",
            b"machine x login me\npassword hunter2 hunter3\n",
            b"\npassword hunter2 hunter3\n",
        ):
            reported = problems(text, (), "f")
            assert reported
            assert "hunter" not in "".join(map(str, reported))

    def test_a_word_on_the_next_line_is_no_part_of_a_password(self) -> None:
        """The message quotes at most 40 characters of an unknown word on the line after a password."""
        (problem,) = problems(b"machine x login me password hunter2\n" + b"f" * 50 + b" z\n", (), "f")
        assert problem.message.startswith(f"uv does not know the word '{'f' * 40}', ")

    @pytest.mark.parametrize(
        ("text", "whole", "ends"),
        [
            (b"machine x login a\n\n# two words\n", True, False),
            (b"machine x login a\r\n# two words\r\n", True, True),
            (b"\r\n# two words\n", True, True),
            (b"\n# two words\n", True, False),
            (b"machine x login a\n\n# login words\n", False, False),
        ],
    )
    def test_a_comment_after_a_blank_line_is_a_fatal_problem(self, text: bytes, whole: bool, ends: bool) -> None:
        """uv reads the words of such a comment. Unless it knows all of them, it ignores the whole file; the hint
        mentions line ends if the file has CRLF."""
        for problem in problems(text, (), "f"):
            assert ("ignores the whole file" in problem.message) == whole
            assert ("LF line ends" in problem.hint) == ends
            assert problem.fatal
        assert problems(text, (), "f")


class TestAdopt:
    @given(FOREIGN, st.sampled_from(["x.example", "y.example", "z.example"]), WANTED)
    def test_restore_undoes_take_over(self, foreign: bytes, host: str, wanted: list[Entry]) -> None:
        """`restore` after `take_over` gives the original file byte for byte, even if our block was written in
        between."""
        text = edit(foreign, wanted, {}).text
        taken = take_over(text, host)
        assert (taken.removed == 0) == (taken.text == text)
        with_ours = edit(taken.text, [*wanted, entry(host)], {}).text
        ours: Ours = {**delivered(wanted), host: ()}
        assert edit(restore(with_ours, taken.backup), [], ours).text == foreign

    @given(GOOD, st.sampled_from(["x.example", "y.example"]), GOOD, st.integers(0, 200))
    def test_restore_into_a_changed_file_loses_nothing(self, foreign: str, host: str, other: str, at: int) -> None:
        """If the file has changed, `restore` brings back every removed entry and keeps all others. A second
        `restore` changes nothing."""
        taken = take_over(foreign.encode(), host)
        lines = taken.text.split(b"\n\n")
        where = at % (len(lines) + 1)
        changed = b"\n\n".join([*lines[:where], b"\n" + other.encode() + b"\n", *lines[where:]])
        back = restore(changed, taken.backup)
        before = {(item.name, item.login, item.password) for item in scan(foreign.encode()).entries}
        rest = {(item.name, item.login, item.password) for item in scan(changed).entries}
        after = {(item.name, item.login, item.password) for item in scan(back).entries}
        assert after >= {item for item in before if item[0] == host.encode()} | rest
        assert restore(back, taken.backup) == back

    def test_takes_all_entries_of_the_host_and_no_other(self) -> None:
        """`take_over` removes all entries of the host, duplicates included, and keeps our block and all other text."""
        foreign = b"#a\nmachine x login 1 password 2\n#b\nmachine y login 3\nmachine x\nlogin 4\n"
        text = edit(foreign, [entry("a.example")], {}).text
        taken = take_over(text, "x")
        assert taken.removed == 2
        assert taken.text == edit(b"#a\n#b\nmachine y login 3\n", [entry("a.example")], {}).text

    def test_a_restored_entry_returns_to_its_position(self) -> None:
        """`restore` puts the entry below the line that preceded it, even if the file has grown, and never inside
        another entry."""
        foreign = b"#top\nmachine y\nlogin 1\nmachine x login 2\nmachine z login 3\n"
        taken = take_over(foreign, "x")
        assert restore(b"#new\n" + taken.text, taken.backup) == b"#new\n" + foreign
        split = taken.text.replace(b"login 1\n", b"login 1\npassword 4\n")
        assert restore(split, taken.backup) == foreign.replace(b"login 1\n", b"login 1\npassword 4\n")

    def test_an_entry_made_since_then_still_wins(self) -> None:
        """`restore` puts the old entry above an entry for the same host that was added since, because the last one
        wins."""
        taken = take_over(b"machine y login 1\nmachine x login old\n", "x")
        back = restore(b"machine x login new\nmachine y login 1", taken.backup)
        assert as_read(back)["x"][0] == "new"
        assert b"machine x login old\n" in back

    def test_a_file_without_a_final_line_end(self) -> None:
        """An entry restored below a line without a line end starts on a new line."""
        taken = take_over(b"machine y login 1\nmachine x login 2", "x")
        assert restore(b"machine w login 1", taken.backup) in (
            b"machine w login 1\nmachine x login 2",
            b"machine x login 2\nmachine w login 1",
        )

    def test_the_line_above_a_restored_entry_determines_its_position(self) -> None:
        """Changes farther up do not matter. An empty first line counts as a line."""
        taken = take_over(b"#one\n#two\nmachine x login 2\nmachine z login 3\n", "x")
        changed = taken.text.replace(b"#one", b"#another and longer")
        assert restore(changed, taken.backup) == b"#another and longer\n#two\nmachine x login 2\nmachine z login 3\n"
        taken = take_over(b"\nmachine x login 2\nmachine z login 3\n", "x")
        assert restore(b"#new\n#more\n" + taken.text, taken.backup) == (
            b"#new\n#more\n\nmachine x login 2\nmachine z login 3\n"
        )
        taken = take_over(b"#one\n\nmachine x login 2\n#end\n", "x")
        assert restore(b"#a\n#b\n#c\n#d\n\n#end\n", taken.backup) == b"#a\n#b\n#c\n#d\n\nmachine x login 2\n#end\n"

    @pytest.mark.parametrize("lines", [b"#a\n#b\n#a\n#b\n#a\n#b\n", b"#xa\n#a\n#ax\n#a\n#a\n"])
    def test_a_piece_returns_below_the_nearest_of_equal_lines(self, lines: bytes) -> None:
        """If the line above a piece occurs more than once, the piece returns below the nearest one. A longer line
        with the same end is another line."""
        for at in [match.end() for match in re.finditer(rb"(?m)^#a\n", lines)]:
            foreign = lines[:at] + b"machine x login 2\n" + lines[at:]
            taken = take_over(foreign, "x")
            assert taken.text == lines
            assert restore(lines + b"#new\n", taken.backup) == foreign + b"#new\n"

    def test_a_restored_entry_comes_above_a_newer_one(self) -> None:
        """A restored entry is never put below a newer entry for the same host, because uv uses the last one."""
        taken = take_over(b"#a\n" * 20 + b"machine x login old\n", "x")
        back = restore(b"machine x login new\n#b", taken.backup)
        assert back == b"machine x login old\nmachine x login new\n#b"

    def test_a_piece_may_return_to_the_end_of_a_file_without_a_line_end(self) -> None:
        """The last line gets a line end, and the piece is put below it."""
        taken = take_over(b"#a\n#bbbbbb\nmachine x login 2\n", "x")
        assert restore(b"#A\n#bbbbbb", taken.backup) == b"#A\n#bbbbbb\nmachine x login 2\n"

    def test_a_piece_of_which_half_is_there_returns_whole(self) -> None:
        """If only one of two removed entries is in the file again, the piece is still restored."""
        taken = take_over(b"machine x login 1\nmachine x login 2\n#a\n", "x")
        back = restore(b"machine x login 2\n#b\n", taken.backup)
        assert [item.login for item in scan(back).entries] == [b"1", b"2", b"2"]

    def test_restore_tries_few_positions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each try reads the whole file, so in a file that uv cannot read anyway, uvtokend tries at most 22
        positions."""
        tries = [0]

        def counted(text: bytes) -> object:
            tries[0] += text.count(b"open")
            return scan(text)

        taken = take_over(b"machine x login 2\n", "x")
        monkeypatch.setattr(adopt, "scan", counted)
        restore(b'login 1\npassword "open\n' + b"x\n" * 500, taken.backup)
        assert tries[0] == 1 + 22  # as it stands, the nearest place and 20 more, and the last

    def test_the_mark_that_replaces_a_piece_is_removed_again(self) -> None:
        """Between a blank line and a comment, a lone mark replaces the piece, so that uv does not read the comment.
        Restoring the piece removes the mark."""
        foreign = b"machine y login 1\n\nmachine x login 2\n# two words\n#end\n"
        taken = take_over(foreign, "x")
        assert taken.text == b"machine y login 1\n\n#\n# two words\n#end\n"
        assert restore(taken.text, taken.backup) == foreign

    def test_an_entry_from_the_top_returns_to_the_top(self) -> None:
        """An entry with no line above it returns to the top of the file."""
        taken = take_over(b"machine x login 2\nmachine z login 3\n", "x")
        assert restore(taken.text + b"#new\n", taken.backup) == b"machine x login 2\nmachine z login 3\n#new\n"

    def test_a_piece_from_the_top_returns_above_new_blank_lines(self) -> None:
        """A piece that had no line above it returns to the top, above lines that were added since then."""
        taken = take_over(b"machine x login 2\n#a\n", "x")
        assert restore(b"\n\n#b\n", taken.backup) == b"machine x login 2\n\n\n#b\n"

    @pytest.mark.parametrize("pieces", [2, 3, 4])
    def test_each_of_several_entries_returns_to_its_position(self, pieces: int) -> None:
        """Several removed entries all return to their positions."""
        foreign = b"".join(b"machine x login %d\n#%d\n" % (number, number) for number in range(pieces))
        taken = take_over(foreign, "x")
        assert taken.removed == pieces
        assert restore(taken.text, taken.backup) == foreign

    def test_an_entry_below_a_line_without_an_end(self) -> None:
        """Joining adds only the missing line ends and no other byte."""
        assert adopt._joined(b"#a", b"machine x login 2\n", b"") == b"#a\nmachine x login 2\n"
        assert adopt._joined(b"", b"machine x login 2", b"#a") == b"machine x login 2\n#a"
        assert adopt._joined(b"", b"machine x login 2", b"") == b"machine x login 2"
        assert adopt._joined(b"", b"machine x login 2\n", b"#a") == b"machine x login 2\n#a"

    def test_an_entry_that_uv_cannot_read_is_not_restored_into_a_macro(self) -> None:
        """No position makes such a file readable; `restore` chooses one where every entry is read as before."""
        piece = b"machine x.example login again password twicemachine x.example login me password mine\n"
        foreign = b"macdef init\ncd /tmp\nls\n\n"
        taken = take_over(foreign + piece, "x.example")
        back = restore(taken.text + b"\n\n\n\n", taken.backup)
        assert [(item.login, item.password) for item in scan(back).entries] == [(b"me", b"mine")]
        assert restore(back, taken.backup) == back

    def test_restore_into_a_broken_file(self) -> None:
        """Even if every position is inside an open quote or macro, `restore` brings the entry back."""
        taken = take_over(b"machine x login 2\n", "x")
        assert b"machine x login 2\n" in restore(b'login 1\npassword "open\n' + b"x\n" * 50, taken.backup)

    @pytest.mark.parametrize(
        "broken",
        [
            b"",
            b"[]",
            b"{}",
            b'{"host": 1, "sha256": "", "segments": []}',
            b'{"host": "x", "sha256": "", "segments": [{"at": 0, "text": "?"}]}',
            b'{"host": "x", "sha256": "", "segments": [{"at": 0, "text": "I2E!", "stub": "", "before": ""}]}',
        ],
    )
    def test_a_broken_backup_is_refused(self, broken: bytes) -> None:
        """`restore` raises ValueError for a backup that is not valid."""
        with pytest.raises(ValueError, match=r".+"):
            restore(b"", broken)


class TestUnion:
    @given(st.binary(max_size=8), st.binary(max_size=8), st.integers(0, 8), st.binary(min_size=1, max_size=3))
    def test_an_interrupted_write_in_place_is_recognized(self, old: bytes, new: bytes, cut: int, more: bytes) -> None:
        """A write in place first appends what is longer, then overwrites from the front. At whatever byte it stops,
        `mixture` recognizes the old and the new text, but not if another program has added or removed bytes."""
        whole = old + new[len(old) :]
        head = min(cut, len(new))
        for torn in (old, whole[: len(old) + cut], new[:head] + whole[head:], new):
            assert mixture(torn, old, new)
        assert not mixture(whole + more, old, new)
        shortest = min(old, new, key=len)
        assert not shortest or not mixture(shortest[:-1], old, new)

    @given(GOOD, GOOD)
    def test_without_a_base_no_line_is_lost(self, older: str, newer: str) -> None:
        """Without a base, the merge contains every line of both versions, each in its order."""
        merged = merge(None, older.encode(), newer.encode()).split(b"\n")
        for text in (older, newer):
            lines = iter(merged)
            assert all(line in lines for line in text.encode().rstrip(b"\n").split(b"\n") if line)

    @given(GOOD, GOOD)
    def test_a_version_that_alone_changed_is_the_result(self, base: str, changed: str) -> None:
        """If only one version differs from the base, it is the result byte for byte, including deleted lines."""
        before, after = base.encode(), changed.encode()
        ended = after if after.endswith(b"\n") or not before.endswith(b"\n") or not after else after + b"\n"
        assert merge(before, before, after) == ended
        assert merge(before, after, before) == ended

    @given(GOOD)
    def test_a_merge_of_equal_texts_is_that_text(self, text: str) -> None:
        """Merging a text with itself returns it byte for byte, with and without a base."""
        assert merge(None, text.encode(), text.encode()) == text.encode()
        assert merge(b"#other\n", text.encode(), text.encode()) == text.encode()

    def test_changes_of_both_versions_are_applied(self) -> None:
        """A line that one version deleted is deleted, and a line that the other version added is added."""
        base = b"#a\n#b\n#c\n"
        assert merge(base, b"#a\n#c\n", b"#a\n#b\n#c\n#d\n") == b"#a\n#c\n#d\n"
        assert merge(base, b"#new\n#a\n#b\n#c\n", b"#a\n#b\n") == b"#new\n#a\n#b\n"
        assert merge(base, b"", b"#a\n#b\n#c\n") == b""

    def test_a_common_tail_appears_once(self) -> None:
        """Lines that both versions begin or end with appear once; all differing lines are kept."""
        for older, newer in ((b"#a\n#z\n", b"#b\n#z\n"), (b"#z\n", b"#b\n#z\n"), (b"#a\n#z\n", b"#z\n")):
            merged = merge(None, older, newer)
            assert sorted(merged.split()) == sorted({*older.split(), *newer.split()})

    def test_a_mixture_agrees_at_its_head_and_its_tail(self) -> None:
        """After an interrupted write, every byte comes from one of the two texts and the tail from the longer one."""
        assert mixture(b"abZZ", b"ab", b"xyZZ")
        assert not mixture(b"!bZZ", b"ab", b"xyZZ")
        assert not mixture(b"abZ!", b"ab", b"xyZZ")

    @pytest.mark.parametrize(
        ("one", "other", "merged"),
        [
            (b"p\nq\n", b"x\np\n", b"x\np\nq\n"),
            (b"x\np\n", b"p\nq\n", b"x\np\nq\n"),
            (b"a\nb\nc\n", b"x\na\nc\n", b"x\na\nb\nc\n"),
            (b"x\na\nc\n", b"a\nb\nc\n", b"x\na\nb\nc\n"),
            (b"a\nm\nb\n", b"c\nm\nd\n", b"a\nc\nm\nb\nd\n"),
        ],
    )
    def test_a_merge_keeps_the_order_of_both(self, one: bytes, other: bytes, merged: bytes) -> None:
        """A merge contains a line of both files once, and keeps the lines of each file in their order."""
        assert merge(None, one, other) == merged

    def test_a_text_may_contain_all_lines_of_both_others(self) -> None:
        """A text counts as made of two others if it contains all of their lines."""
        assert made_of(b"#a\n#b\n", b"#a\n", b"#b\n")

    def test_the_newer_value_wins(self) -> None:
        """If both versions changed a password, the merged file is read with the newer one."""
        base = b"machine x\nlogin a\npassword base\n#e\n"
        older, newer = base.replace(b"base", b"old"), base.replace(b"base", b"new")
        for base_or_none in (None, base):
            assert as_read(merge(base_or_none, older, newer))["x"][2] == "new"
            assert as_read(merge(base_or_none, newer, older))["x"][2] == "old"

    def test_a_last_line_without_an_end_stays_a_line(self) -> None:
        """The merge does not join a line without a line end to the line that follows it."""
        assert merge(None, b"#a", b"#b") == b"#a\n#b"
        assert merge(b"", b"#a", b"#b\n") == b"#a\n#b\n"

    def test_a_torn_line_is_detected(self) -> None:
        """A text consists of two others only if none of its lines was cut."""
        assert made_of(b"#a\n#d", b"#a\n#b\n", b"#d\n")
        assert not made_of(b"#a\n#d", b"#a\n#b\n", b"#dd\n")


class TestTail:
    """Another program empties the file and then writes its text over our block: the tail of the block remains."""

    OLD = (entry("a.example", "eyJhbGciOi.J9"), entry("b.example", "two words"))
    THEIRS = b"machine x.example login me password mine\n"

    @pytest.mark.parametrize("known", [True, False])
    def test_is_removed_wherever_it_begins(self, known: bool) -> None:
        """Wherever the tail begins, the edit keeps the other program's text byte for byte, writes our block above it
        and leaves nothing of the old token.

        If the old tokens are unknown, as after a restart, parts of a token are recognized by their position. A lone
        line break cannot be distinguished from one of the other program, and stays.
        """
        block = edit(b"", self.OLD, {}).text
        for length in range(1, len(block) - 4):
            theirs = (b"#" * (length - 1) + b"\n")[-length:]
            new = edit(
                theirs + block[length:], [entry("a.example", "new")], delivered([*self.OLD]), left=self.OLD * known
            )
            kept = theirs + b"\n" * block.startswith(b"\n", length)
            assert new.text == edit(kept, [entry("a.example", "new")], {}).text, length

    def test_text_below_the_block_is_foreign(self) -> None:
        """The edit removes only the tail; all text above and below it stays."""
        tail = b'J9\nmachine b.example login aws password "two words"\n#uvtokend:end\n'
        result = edit(self.THEIRS + tail + b"#below\n", [], delivered([*self.OLD]))
        assert result.text == self.THEIRS + b"#below\n"

    def test_a_tail_directly_after_the_last_foreign_word(self) -> None:
        """If the foreign text has no final line end, the tail follows it directly and is removed if we know what we
        wrote."""
        theirs = self.THEIRS[:-1]
        text = theirs + b'bGciOi.J9\nmachine b.example login aws password "two words"\n#uvtokend:end\n'
        assert edit(text, [], delivered([*self.OLD]), left=self.OLD).text == theirs

    def test_a_foreign_line_above_a_lone_end_stays(self) -> None:
        """Lines above a lone end mark stay if uv can read them or if they do not look like part of one of our lines."""
        for line in (self.THEIRS, b"machine y login a\npassword\nsecret\n", b"two words\n", b"#word\n", b"\n"):
            assert edit(line + END + b"\n", [], delivered([*self.OLD])).text == line

    def test_a_comment_that_begins_like_a_mark_stays(self) -> None:
        """A comment that only begins like one of uvtokend's marks stays, and the lone end mark below it is removed."""
        theirs = self.THEIRS + b"#uvtokend:endless\n"
        assert edit(theirs + END + b"\n", [], {}).text == theirs

    def test_a_word_that_is_not_part_of_the_mark_stays(self) -> None:
        """Only the end of our end mark, alone on the last line, is removed."""
        for word in (b"end\n", b"kend:end x\n", b"mark:end\n"):
            assert edit(self.THEIRS + word, [], {}).text == self.THEIRS + word
        assert edit(self.THEIRS + b"kend:end\n", [], {}).text == self.THEIRS
        macro = b"macdef m\nkend:end\n"
        assert edit(macro, [], {}).text == macro

    def test_a_whole_block_is_left_alone(self) -> None:
        """If the marks are in order, nothing is treated as a tail, however many blocks there are."""
        foreign = b"\xef\xbb\xbfmachine b.example login me password mine\n"
        marked = edit(foreign, [entry("a.example"), entry("b.example")], {}).text
        assert edit(marked, [], {**delivered([entry("a.example")]), "b.example": ()}).text == foreign
        text = edit(b"", [entry("c.example")], {}).text
        assert block_entries(text + text) == {"c.example": entry("c.example")}
        assert edit(text + text, [entry("c.example")], {}).text == text


class TestLargeFiles:
    def test_the_fast_path_reads_what_the_general_reader_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The fast path for plain entries gives the same scan as the general reader."""

        @given(SOUP | GOOD, st.sampled_from(["", "#x\n", "machine x login a password b\n", "machine m\n", "\ufeff"]))
        @example("machine x login a password b\nlogin c\n\n# two words\n", "")
        @example("machine #x login #y password #z\nmachine y\tlogin a\r\npassword b\n", "")
        def same(text: str, head: str) -> None:
            both = []
            for pattern in (plain, never):
                monkeypatch.setattr(grammar, "_PLAIN", pattern)
                both.append(scan((head + text).encode()))
            assert both[0] == both[1]

        plain, never = grammar._PLAIN, re.compile(rb"(?!)")
        same()

    def test_an_edit_does_not_scan_a_large_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Editing a file of a megabyte of plain entries scans none of it; listing its problems afterwards takes one
        scan."""
        words, scans = [0], [0]
        read, start = grammar._Reader.word, grammar._Reader.__init__

        def word(self: grammar._Reader) -> object:
            words[0] += 1
            return read(self)

        def init(self: grammar._Reader, text: bytes) -> None:
            scans[0] += len(text) > 1_000_000
            start(self, text)

        monkeypatch.setattr(grammar._Reader, "word", word)
        monkeypatch.setattr(grammar._Reader, "__init__", init)
        foreign = b"".join(b"machine host%05d.example login u%d password p\n" % (n, n) for n in range(26_000))
        assert len(foreign) > 1_000_000
        edited = edit(foreign, [entry("a.example")], delivered([entry("a.example")]))
        assert edited.text.endswith(foreign)
        assert scans[0] == 0
        assert edited.problems == ()
        assert (scans[0], words[0] < 20) == (1, True)


def test_block_reexports_the_scanner() -> None:
    """`block.scan` is the function that the grammar module defines."""
    assert block.scan is grammar.scan


@given(
    ENTRIES
    | st.builds(
        Entry,
        st.sampled_from(HOSTS),
        st.just("aws"),
        st.from_regex(r"[A-Za-z0-9._~+/=:-]+", fullmatch=True).map(Secret),
    )
)
def test_the_fast_reader_of_our_lines_agrees_with_the_general_reader(wanted: Entry) -> None:
    """The fast reader for lines of our block returns the same entry as the general reader."""
    line = block._line(wanted)
    (machine,) = scan(line + b"\n").entries
    assert block._written(line, None) == block._entry(machine) == wanted
    assert block._written(line, {wanted.host}) == wanted
    assert block._written(line, {"other.example"}) is None


@pytest.mark.parametrize(
    ("text", "start", "above"), [(b"x", 0, 0), (b"\nx", 1, 0), (b"a\nx", 2, 0), (b"a\nb\nx", 4, 2)]
)
def test_where_the_line_above_begins(text: bytes, start: int, above: int) -> None:
    """An empty line counts as a line. Above the first line there is none, so its own offset is returned."""
    assert tail._line_above(text, start) == above


#: The wanted entries, our deliveries and the shadowing hosts of one edit, and whether the last entries are known.
STEPS = st.tuples(
    st.lists(
        st.sampled_from([*(entry(host, token) for host in HOSTS for token in ("t0", "t1")), entry("b.example", "t 2")]),
        unique_by=lambda one: one.host,
        max_size=3,
    ),
    st.dictionaries(
        st.sampled_from(HOSTS), st.lists(st.sampled_from([known("t0"), known("t1")]), max_size=2, unique=True)
    ),
    st.sets(st.sampled_from(HOSTS), max_size=2),
    st.booleans(),
)


def of(text: bytes, layout: block.Layout | None) -> block.Layout | None:
    """Return a layout if it is the text's own."""
    return layout if layout is not None and layout.is_of(text) else None


class TestLayout:
    @given(LINES | FOREIGN, st.lists(STEPS, min_size=2, max_size=5), LINES)
    def test_an_edit_with_the_layout_is_the_same_edit_of_any_text(
        self, text: bytes, steps: list[tuple[list[Entry], dict[str, list[str]], set[str], bool]], more: bytes
    ) -> None:
        """For any text with parts of blocks and any changes of the entries, an edit with the known layout yields the
        same result as one without."""
        layout: block.Layout | None = None
        left: tuple[Entry, ...] = ()
        for number, (wanted, ours, shadowing, knows) in enumerate(steps):
            text += more if number == 2 else b""
            known_left = left if knows else ()
            fast = edit(text, wanted, ours, "f", shadowing, known_left, of(text, layout))
            slow = edit(text, wanted, ours, "f", shadowing, known_left)
            assert (fast.text, fast.foreign, fast.hosts) == (slow.text, slow.foreign, slow.hosts)
            assert fast.problems == slow.problems
            text, layout = fast.text, fast.laid_out(fast.problems)
            left = tuple(one for one in wanted if one.host in fast.hosts)

    @given(FOREIGN, st.lists(WANTED, min_size=1, max_size=4), st.sets(st.sampled_from(HOSTS), max_size=2), FOREIGN)
    @example(b"machine a.example login me password mine\n", [[entry("a.example")], [entry("b.example")]], set(), b"")
    @example(b"", [[], [entry("a.example")], []], {"a.example"}, b"default login x password y\n")
    @example(b"\n# two words\n", [[entry("a.example")], [entry("a.example", "t1")]], set(), b"machine \n")
    def test_an_edit_with_the_layout_is_the_same_edit(
        self, text: bytes, deliveries: list[list[Entry]], shadowing: set[str], more: bytes
    ) -> None:
        """Repeated edits that reuse the layout of the previous edit give the same text, foreign hosts and previous
        entries as edits without it, even if another program adds text in between."""
        ours: dict[str, list[str]] = {}
        layout: block.Layout | None = None
        left: tuple[Entry, ...] = ()
        for number, wanted in enumerate([*deliveries, *deliveries]):
            if number == len(deliveries):
                text += more
            fast = edit(text, wanted, ours, "f", shadowing, left, of(text, layout))
            slow = edit(text, wanted, ours, "f", shadowing, left)
            assert (fast.text, fast.foreign, fast.hosts) == (slow.text, slow.foreign, slow.hosts)
            assert fast.before is None or fast.before == block_entries(text, ours)
            assert fast.problems == slow.problems
            text, layout = fast.text, fast.laid_out(fast.problems)
            left = tuple(one for one in wanted if one.host in fast.hosts)
            ours |= {one.host: [one.digest, *ours.get(one.host, [])] for one in left}

    @given(STEPS, STEPS, LINES | FOREIGN, st.data())
    def test_a_layout_of_another_text_does_no_harm(
        self,
        first: tuple[list[Entry], dict[str, list[str]], set[str], bool],
        second: tuple[list[Entry], dict[str, list[str]], set[str], bool],
        text: bytes,
        data: st.DataObject,
    ) -> None:
        """An edit with the layout of another text of the same length raises nothing, and `is_of` tells the texts
        apart: the caller drops such an edit."""
        made = edit(text, first[0], first[1])
        layout = made.laid_out()
        other = data.draw(st.binary(min_size=len(made.text), max_size=len(made.text)) | st.permutations(made.text))
        edit(bytes(other), second[0], second[1], "f", second[2], (), layout)
        assert layout is None or layout.is_of(bytes(other)) == (bytes(other) == made.text)

    @pytest.mark.parametrize("wanted", [[entry("a.example", "t1")], [entry("b.example")]])
    def test_a_layout_of_another_block(self, wanted: list[Entry]) -> None:
        """If the block of a text cannot have the layout that it is said to have, the text is read."""
        layout = edit(b"", [entry("a.example")], {}).laid_out()
        other = b"#" * (layout.size - 1) + b"\n" if layout is not None else b""
        fast, slow = (edit(other, wanted, {"a.example": ()}, layout=known) for known in (layout, None))
        assert (fast.text, fast.before) == (slow.text, None)

    def test_a_foreign_entry_that_became_ours_is_taken_back(self) -> None:
        """An entry that was foreign to the last edit may match a later delivery; the next edit treats it as ours."""
        text = b"machine a.example login aws password t0\n"
        first = edit(text, [entry("a.example"), entry("b.example")], {})
        assert first.foreign == {"a.example"}
        ours = delivered([entry("a.example"), entry("b.example")])
        again = edit(first.text, [entry("a.example"), entry("b.example")], ours, layout=first.laid_out())
        assert (again.foreign, again.text) == (frozenset(), block.join([entry("a.example"), entry("b.example")], b""))

    def test_a_bad_token_is_refused_with_a_layout_too(self) -> None:
        """A token with a line end would tear the block, so the delivery fails even if the layout of the file is
        known."""
        first = edit(b"", [entry("a.example")], {})
        with pytest.raises(DeliveryFailed):
            edit(first.text, [entry("a.example", "t\nt")], delivered([entry("a.example")]), layout=first.layout)

    def test_unchanged_lines_are_not_rendered_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a thousand entries and much foreign text, one new token makes uvtokend render its old and its new line
        and scan nothing."""
        entries = [entry(f"h{number}.example") for number in range(1000)]
        rest = b"".join(b"machine f%d.example login me password mine\n" % number for number in range(1000))
        first = edit(rest, entries, {})
        ours = delivered(entries)
        second = edit(first.text, entries, ours, layout=first.laid_out())
        lines: list[str] = []
        honest = block._line

        def line(one: Entry) -> bytes:
            lines.append(one.host)
            return honest(one)

        monkeypatch.setattr(block, "_line", line)
        layout = second.laid_out(second.problems)
        monkeypatch.setattr(block, "scan", None)
        monkeypatch.setattr(block, "problems", None)
        entries[500] = entry("h500.example", "t1")
        third = edit(second.text, entries, ours, layout=layout)
        assert (lines, third.problems) == (["h500.example", "h500.example"], ())  # the old line and the new one
        assert third.text == second.text.replace(
            b"h500.example login aws password t0", b"h500.example login aws password t1"
        )
