"""The netrc as text: Python's own `netrc` is the oracle of the grammar, Hypothesis the author of the files."""

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
#: Files made of the words of a netrc, most of them wrong somewhere.
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
    """Return the digest of one of our entries."""
    return Entry("", "aws", Secret(token)).digest


def delivered(entries: list[Entry]) -> Ours:
    return {entry.host: [entry.digest] for entry in entries}


def quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # which escapes the same two characters


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
        """Every file is read with the values that Python's netrc reads, or refused where that refuses it.

        One quirk apart: at an empty word, where a keyword is due, uv and Python up to 3.13 stop reading without a
        complaint, and Python 3.14 refuses the file ("bad follower token"). We say what uv does.
        """
        if not text.endswith("\n"):
            text += "\n"  # a macro that the end of the file cuts off is an error for Python alone
        try:
            expected = read_by_python(text.encode())
        except oracle.NetrcParseError:
            found = scan(text.encode())
            assert not found.readable or any(trouble.kind == "empty-word" for trouble in found.troubles)
        else:
            assert scan(text.encode()).readable
            assert as_read(text.encode()) == expected

    @given(st.binary(max_size=200))
    def test_reads_anything(self, text: bytes) -> None:
        """No bytes make the scan fail, and every word that it names is in the file in order."""
        for found in scan(text).entries:
            spans = [at for part in found.parts for at in part]
            assert spans == sorted(spans)
            assert 0 <= found.start < found.end <= len(text)

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
        """Where uv and Python part, uv counts: half words at the end, macros that end at white space or the end."""
        found = scan(text)
        if found.readable:
            assert as_read(text) == read
        else:
            assert {item.name.decode() for item in found.entries} == set(read)

    def test_what_is_no_text_in_a_macro_is_skipped(self) -> None:
        """A macro ends at a blank line, whatever bytes it has."""
        (found,) = scan(b"macdef x\n\xff\xfe\n\nmachine a login b password c\n").entries
        assert found.name == b"a"

    def test_goes_on_after_an_unknown_word(self) -> None:
        """All troubles are found at once, and so are the entries between them, although uv reads none of them."""
        found = scan(b"machine x port 21 login a\n\n# of old\nmachine y protocol https\n")
        assert [(item.name, item.login) for item in found.entries] == [(b"x", b"a"), (b"y", b"")]
        assert [trouble.kind for trouble in found.troubles] == [
            "unknown-word",
            "unknown-word",
            "comment",
            "unknown-word",
            "unknown-word",
        ]
        assert found.as_read() == {}


class TestEdit:
    @given(FOREIGN, WANTED)
    def test_leaves_foreign_text_to_the_byte(self, foreign: bytes, wanted: list[Entry]) -> None:
        """Taking our entries out again gives the file of before, whatever was in it."""
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
        """Where the marks stand, in whatever disorder: all lines but marks and our own entries stay, in their order."""
        ours = dict.fromkeys(HOSTS, ())

        def foreign(text: bytes) -> list[bytes]:
            lines = [line for line in text.split(b"\n") if line.strip() not in (BEGIN, END, b"")]
            return [line for line in lines if not line.startswith((b"machine a.", b"machine b.", b"machine index."))]

        assert foreign(edit(text, wanted, ours).text) == foreign(text)

    @given(GOOD, WANTED)
    def test_python_reads_what_was_wanted(self, foreign: str, wanted: list[Entry]) -> None:
        """Python's netrc reads our entries as they were given, and the foreign ones as before."""
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
    def test_without_a_fatal_problem_uv_reads_what_was_wanted(self, foreign: bytes, wanted: list[Entry]) -> None:
        """If nothing is reported as fatal, every written entry is read as it was given."""
        result = edit(foreign, wanted, {})
        if not any(problem.fatal for problem in result.problems):
            read = scan(result.text).as_read()
            for item in wanted:
                assert read[item.host.encode()] == (item.login.encode(), b"", item.password.reveal().encode())

    @given(WANTED)
    def test_block_is_sorted_and_marked(self, wanted: list[Entry]) -> None:
        """The block is at the top between its marks, one line an entry, by host; without entries it is gone."""
        lines = edit(b"#mine\n", wanted, {}).text.split(b"\n")
        if wanted:
            assert lines[0] == BEGIN
            assert lines[len(wanted) + 1] == END
            assert lines[1 : len(wanted) + 1] == sorted(lines[1 : len(wanted) + 1], key=lambda line: line.split()[1])
        assert lines[-2:] == [b"#mine", b""]

    @given(FOREIGN, WANTED)
    def test_entries_can_be_recovered(self, foreign: bytes, wanted: list[Entry]) -> None:
        """What is in the block is read back as it was given, token and all."""
        assert block_entries(edit(foreign, wanted, {}).text) == {item.host: item for item in wanted}

    @given(st.lists(ENTRIES, unique_by=lambda item: item.host, min_size=1, max_size=3), GOOD)
    def test_bare_entries_are_taken_back(self, wanted: list[Entry], foreign: str) -> None:
        """A program that rewrites the file as Python's netrc does leaves our entries bare; they are still ours."""
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
        """A host for which somebody else has an entry is named, and not written; the others are."""
        text = b"machine a.example login me password mine\n"
        result = edit(text, [entry("a.example"), entry("b.example")], {"a.example": [known("t0")]})
        assert result.foreign == {"a.example"}
        assert result.text == BEGIN + b"\nmachine b.example login aws password t0\n" + END + b"\n" + text

    def test_a_foreign_line_inside_the_block_is_kept(self) -> None:
        """What others put between our marks stays theirs, also if it is written as we write."""
        theirs = b"machine x.example login me password mine\n"
        text = BEGIN + b"\nmachine a.example login aws password t0\n" + theirs + b"#word\n" + END + b"\n#last"
        result = edit(text, [entry("a.example", "t1")], {"a.example": [known("t0")]})
        assert (
            result.text
            == BEGIN + b"\nmachine a.example login aws password t1\n" + END + b"\n" + theirs + b"#word\n#last"
        )

    def test_a_block_without_end_ends_at_the_first_foreign_line(self) -> None:
        """Only the lines that we wrote go, and the second entry of one host is none of those."""
        ours: Ours = {"a.example": (), "b.example": ()}
        lines = [f"machine {host} login aws password t0\n".encode() for host in ("a.example", "b.example", "a.example")]
        foreign = b"machine x.example login b password c\nmachine b.example login aws password t0\n"
        assert edit(BEGIN + b"\n" + b"".join(lines), [], ours).text == lines[2]
        assert edit(BEGIN + b"\n" + lines[0] + foreign, [], ours).text == foreign

    def test_what_is_no_text_in_the_block_is_foreign(self) -> None:
        """A line that looks like ours, but is no UTF-8, was not written by us."""
        line = b"machine a.example login aws password \xff\n"
        text = BEGIN + b"\n" + line + END + b"\n"
        assert block_entries(text) == {}
        assert edit(text, [], {"a.example": ()}).text == line

    def test_ours_below_a_foreign_line_inside_the_block_are_ours(self) -> None:
        """The block has an end, so all of it is looked at."""
        text = edit(b"", [entry("a.example"), entry("b.example")], {}).text
        middle = text.index(b"machine b.example")
        found, foreign = block.split(text[:middle] + b"#mine\n" + text[middle:], None)
        assert [one.host for one in found] == ["a.example", "b.example"]
        assert foreign == b"#mine\n"

    def test_two_blocks_are_merged(self) -> None:
        """A block that was copied, before and after foreign text, comes out as one at the top."""
        block = edit(b"", [entry("a.example"), entry("b.example")], {}).text
        result = edit(b"#one\n" + block + b"#two\n" + block, [entry("a.example")], {"b.example": ()})
        assert result.text == edit(b"", [entry("a.example")], {}).text + b"#one\n#two\n"

    def test_an_entry_of_old_values_is_foreign_outside_the_block(self) -> None:
        """A bare entry with another password, or an account, is somebody's own."""
        for text in (
            b"machine a.example login aws password t1\n",
            b"machine a.example login aws account x password t0\n",
        ):
            assert edit(text, [], {"a.example": [known("t0")]}).text == text

    def test_a_byte_order_mark_stays_first(self) -> None:
        """It voids the file wherever it stands, but an editor finds it only at the start."""
        result = edit(b"\xef\xbb\xbfmachine x.example login a password b\n", [entry("a.example")], {})
        assert result.text.startswith(b"\xef\xbb\xbf" + BEGIN)
        assert [problem.where for problem in result.problems] == ["line 1"]

    def test_taking_a_bare_entry_out_breaks_no_comment(self) -> None:
        """A comment that is safe only because it follows our entry stays safe: a lone mark takes the entry's place."""
        text = (
            b"machine x login a password b\n\nmachine a.example login aws password t0\n# two words\nmachine y login c\n"
        )
        result = edit(text, [], {"a.example": [known("t0")]}).text
        assert result == b"machine x login a password b\n\n#\n# two words\nmachine y login c\n"
        assert set(as_read(result)) == {"x", "y"}

    @pytest.mark.parametrize("above", [b"", b"port 21\n"])
    def test_taking_a_bare_entry_out_changes_no_other(self, above: bytes) -> None:
        """A comment whose words would go to the entry above stays a comment, also in a file that uv cannot read."""
        other = b"machine x login a password b\n\n"
        below = b"# password two\nmachine y login c\n"
        ours = delivered([entry("a.example")])
        result = edit(above + other + b"machine a.example login aws password t0\n" + below, [], ours).text
        assert result == above + other + b"#\n" + below
        assert [item.password for item in scan(result).entries] == [b"b", b""]

    def test_any_of_the_last_tokens_is_known(self) -> None:
        """Whoever drops the comments may have read the file before our last delivery."""
        ours = {"a.example": [known("t1"), known("t0")]}
        for token in ("t0", "t1"):
            text = f"machine a.example login aws password {token}\nmachine x login y password z\n".encode()
            assert edit(text, [], ours).text == b"machine x login y password z\n"
            assert block_entries(text, ours) == {"a.example": entry("a.example", token)}

    def test_what_stands_on_the_line_of_a_bare_entry_stays(self) -> None:
        """Comments and other entries on its lines are foreign."""
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
        """A megabyte of foreign entries is kept byte for byte, and all of it is read."""
        foreign = b"".join(b"machine host%d.example login me password mine\n" % number for number in range(20_000))
        text = edit(foreign, [entry("a.example")], {}).text
        assert text.endswith(END + b"\n" + foreign)
        assert edit(text, [], {"a.example": ()}).text == foreign

    def test_a_line_of_a_megabyte(self) -> None:
        """Neither a value of that length nor a comment makes the scan slow or deep."""
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
    def test_what_netrc_cannot_carry_is_refused(self, reason: str, wrong: Entry) -> None:
        """The refusal says why, and never the token."""
        with pytest.raises(DeliveryFailed) as caught:
            edit(b"", [wrong], {})
        assert caught.value.reason == reason
        token = wrong.password.reveal()
        assert len(token) < 2 or token not in caught.value.message

    @pytest.mark.parametrize("host", ["a", "1.2.3.4", "[::1]", "under_score.example", "x" * 63 + ".example"])
    def test_what_it_can_carry_is_not(self, host: str) -> None:
        """Names, addresses and the longest token pass."""
        check(entry(host, "x" * 16384, login=""))

    @given(TOKENS)
    def test_harmless_tokens_stand_bare(self, token: str) -> None:
        """A token is quoted only if it needs to be; curl before 7.84 knows no quotes."""
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
    def test_each_trouble_has_a_line_and_a_mend(self, text: bytes, line: int, words: str) -> None:
        """What uv stumbles over in silence is told, with the line where it stands."""
        first, *_ = problems(text, (), "the file")
        assert (first.file, first.where) == ("the file", f"line {line}")
        assert words in first.message
        assert first.hint

    def test_only_what_costs_us_something_is_fatal(self) -> None:
        """An open macro or quote below our block, and a default entry, are warnings."""
        for text in (b"macdef init\ncd\n", b'machine x login "a', b'""', b"default login a\n"):
            assert [problem.fatal for problem in edit(text, [entry("a.example")], {}).problems] == [False]

    def test_carriage_returns_have_a_mend_of_their_own(self) -> None:
        """Joining words is no help where every line end is wrong."""
        (problem,) = problems(b"machine x login a\r\n# two words\r\n", (), "f")
        assert "LF line ends" in problem.hint

    def test_an_entry_after_ours_shadows_it(self) -> None:
        """Somebody has put a second entry of our host below: the last wins for uv, so that line is named."""
        text = edit(b"#x\n", [entry("a.example")], {}).text + b"machine a.example login me password mine\n"
        (problem,) = problems(text, ["a.example"], "f")
        assert problem.where == "line 5"
        assert problem.fatal
        assert problems(text, ["b.example"], "f") == ()

    def test_words_without_a_machine_fall_to_our_entry(self) -> None:
        """Below our block they change our login: the line is named."""
        result = edit(b"\nlogin me\n", [entry("a.example")], {})
        assert as_read(result.text)["a.example"] == ("me", "", "t0")
        assert [(problem.where, problem.fatal) for problem in result.problems] == [("line 5", True)]

    @pytest.mark.parametrize("word", ["port", "protocol", "host", "username", "passwd", "url"])
    def test_a_familiar_word_behind_a_password_is_quoted(self, word: str) -> None:
        """It is a word of other programs' files, and no part of the password; any other may be one."""
        (found,) = problems(f"machine a login b password c {word} x\n".encode(), [], "netrc")[:1]
        assert word in found.message
        (found,) = problems(b"machine a login b password c hunter2 x\n", [], "netrc")[:1]
        assert "hunter2" not in found.message

    def test_there_is_an_end_to_problems(self) -> None:
        """A file that is no netrc at all is told in a screenful, and in no time."""
        assert len(problems(b"x y\n" * 20_000, (), "f")) == 20

    def test_no_problem_quotes_the_file(self) -> None:
        """An unknown word may be the second half of a password."""
        text = b"machine x login me password hunter2 hunter3\n\n# hunter4 hunter5\n"
        assert "hunter" not in "".join(map(str, problems(text, (), "f")))


class TestAdopt:
    @given(FOREIGN, st.sampled_from(["x.example", "y.example", "z.example"]), WANTED)
    def test_restore_undoes_take_over(self, foreign: bytes, host: str, wanted: list[Entry]) -> None:
        """With the rest unchanged the file is what it was, byte for byte, also with our block come and gone."""
        text = edit(foreign, wanted, {}).text
        taken = take_over(text, host)
        assert (taken.removed == 0) == (taken.text == text)
        with_ours = edit(taken.text, [*wanted, entry(host)], {}).text
        ours: Ours = {**delivered(wanted), host: ()}
        assert edit(restore(with_ours, taken.backup), [], ours).text == foreign

    @given(GOOD, st.sampled_from(["x.example", "y.example"]), GOOD, st.integers(0, 200))
    def test_restore_into_a_changed_file_loses_nothing(self, foreign: str, host: str, other: str, at: int) -> None:
        """Every entry that was taken is back, every other is still there; doing it twice does no more."""
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
        """Duplicates go together; our block and everybody else's text stay."""
        foreign = b"#a\nmachine x login 1 password 2\n#b\nmachine y login 3\nmachine x\nlogin 4\n"
        text = edit(foreign, [entry("a.example")], {}).text
        taken = take_over(text, "x")
        assert taken.removed == 2
        assert taken.text == edit(b"#a\n#b\nmachine y login 3\n", [entry("a.example")], {}).text

    def test_a_piece_comes_back_to_its_place(self) -> None:
        """Below the line that it was below, although the file has grown at the top; never inside another entry."""
        foreign = b"#top\nmachine y\nlogin 1\nmachine x login 2\nmachine z login 3\n"
        taken = take_over(foreign, "x")
        assert restore(b"#new\n" + taken.text, taken.backup) == b"#new\n" + foreign
        split = taken.text.replace(b"login 1\n", b"login 1\npassword 4\n")
        assert restore(split, taken.backup) == foreign.replace(b"login 1\n", b"login 1\npassword 4\n")

    def test_an_entry_made_since_then_still_wins(self) -> None:
        """The old entry comes before the one that somebody has written since, and the last wins."""
        taken = take_over(b"machine y login 1\nmachine x login old\n", "x")
        back = restore(b"machine x login new\nmachine y login 1", taken.backup)
        assert as_read(back)["x"][0] == "new"
        assert b"machine x login old\n" in back

    def test_a_file_without_last_line_end(self) -> None:
        """A piece that comes back below it begins a line of its own."""
        taken = take_over(b"machine y login 1\nmachine x login 2", "x")
        assert restore(b"machine w login 1", taken.backup) in (
            b"machine w login 1\nmachine x login 2",
            b"machine x login 2\nmachine w login 1",
        )

    def test_the_line_above_a_piece_is_what_counts(self) -> None:
        """However the lines farther up have changed; an empty first line is a line, too."""
        taken = take_over(b"#one\n#two\nmachine x login 2\nmachine z login 3\n", "x")
        changed = taken.text.replace(b"#one", b"#another and longer")
        assert restore(changed, taken.backup) == b"#another and longer\n#two\nmachine x login 2\nmachine z login 3\n"
        taken = take_over(b"\nmachine x login 2\nmachine z login 3\n", "x")
        assert restore(b"#new\n#more\n" + taken.text, taken.backup) == (
            b"#new\nmachine x login 2\n#more\n\nmachine z login 3\n"
        )

    def test_a_piece_of_the_top_comes_back_to_the_top(self) -> None:
        """There was no line above it."""
        taken = take_over(b"machine x login 2\nmachine z login 3\n", "x")
        assert restore(taken.text + b"#new\n", taken.backup) == b"machine x login 2\nmachine z login 3\n#new\n"

    @pytest.mark.parametrize("pieces", [2, 3, 4])
    def test_each_of_many_pieces_has_its_place(self, pieces: int) -> None:
        """They are put back where they were, however much was taken out above them."""
        foreign = b"".join(b"machine x login %d\n#%d\n" % (number, number) for number in range(pieces))
        taken = take_over(foreign, "x")
        assert taken.removed == pieces
        assert restore(taken.text, taken.backup) == foreign

    def test_a_piece_below_a_line_without_end(self) -> None:
        """That line gets its end, and no other byte."""
        assert adopt._joined(b"#a", b"machine x login 2\n", b"") == b"#a\nmachine x login 2\n"
        assert adopt._joined(b"", b"machine x login 2", b"#a") == b"machine x login 2\n#a"
        assert adopt._joined(b"", b"machine x login 2", b"") == b"machine x login 2"
        assert adopt._joined(b"", b"machine x login 2\n", b"#a") == b"machine x login 2\n#a"

    def test_a_piece_that_uv_cannot_read_does_not_fall_into_a_macro(self) -> None:
        """No place makes such a file readable, but only some let every entry be seen as before."""
        piece = b"machine x.example login again password twicemachine x.example login me password mine\n"
        foreign = b"macdef init\ncd /tmp\nls\n\n"
        taken = take_over(foreign + piece, "x.example")
        back = restore(taken.text + b"\n\n\n\n", taken.backup)
        assert [(item.login, item.password) for item in scan(back).entries] == [(b"me", b"mine")]
        assert restore(back, taken.backup) == back

    def test_into_a_hopeless_file(self) -> None:
        """Where every place is inside somebody's open quote or macro, the piece still comes back."""
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
        ],
    )
    def test_a_broken_backup_is_refused(self, broken: bytes) -> None:
        """With a ValueError, and no change."""
        with pytest.raises(ValueError, match=r".+"):
            restore(b"", broken)


class TestUnion:
    @given(st.binary(max_size=8), st.binary(max_size=8), st.integers(0, 8), st.binary(min_size=1, max_size=3))
    def test_a_write_in_place_that_is_cut_short(self, old: bytes, new: bytes, cut: int, more: bytes) -> None:
        """What is longer is written first, then the rest from the front; whenever it stops, both texts are known in
        what is there, and not in what somebody else has added to it or taken away."""
        whole = old + new[len(old) :]
        head = min(cut, len(new))
        for torn in (old, whole[: len(old) + cut], new[:head] + whole[head:], new):
            assert mixture(torn, old, new)
        assert not mixture(whole + more, old, new)
        shortest = min(old, new, key=len)
        assert not shortest or not mixture(shortest[:-1], old, new)

    @given(GOOD, GOOD)
    def test_without_a_base_no_line_is_lost(self, older: str, newer: str) -> None:
        """Every line of both is in the result, in the order of each."""
        merged = merge(None, older.encode(), newer.encode()).split(b"\n")
        for text in (older, newer):
            lines = iter(merged)
            assert all(line in lines for line in text.encode().rstrip(b"\n").split(b"\n") if line)

    @given(GOOD, GOOD)
    def test_a_change_of_one_version_is_the_result(self, base: str, changed: str) -> None:
        """If only one version differs from the base, it is the result byte for byte, deleted lines included."""
        before, after = base.encode(), changed.encode()
        ended = after if after.endswith(b"\n") or not before.endswith(b"\n") or not after else after + b"\n"
        assert merge(before, before, after) == ended
        assert merge(before, after, before) == ended

    @given(GOOD)
    def test_of_equal_texts_is_the_text(self, text: str) -> None:
        """To the byte, with and without a base."""
        assert merge(None, text.encode(), text.encode()) == text.encode()
        assert merge(b"#other\n", text.encode(), text.encode()) == text.encode()

    def test_both_changes_count(self) -> None:
        """A line that one version deleted is gone, although the other still has it; what the other added is there."""
        base = b"#a\n#b\n#c\n"
        assert merge(base, b"#a\n#c\n", b"#a\n#b\n#c\n#d\n") == b"#a\n#c\n#d\n"
        assert merge(base, b"#new\n#a\n#b\n#c\n", b"#a\n#b\n") == b"#new\n#a\n#b\n"
        assert merge(base, b"", b"#a\n#b\n#c\n") == b""

    def test_what_both_end_with_is_there_once(self) -> None:
        """As what both begin with; only what differs is taken from each."""
        for older, newer in ((b"#a\n#z\n", b"#b\n#z\n"), (b"#z\n", b"#b\n#z\n"), (b"#a\n#z\n", b"#z\n")):
            merged = merge(None, older, newer)
            assert sorted(merged.split()) == sorted({*older.split(), *newer.split()})

    def test_a_mixture_agrees_in_its_head_and_in_its_tail(self) -> None:
        """A cut write leaves bytes of one or the other everywhere, and the end of the longer one."""
        assert mixture(b"abZZ", b"ab", b"xyZZ")
        assert not mixture(b"!bZZ", b"ab", b"xyZZ")
        assert not mixture(b"abZ!", b"ab", b"xyZZ")

    def test_the_newer_value_wins(self) -> None:
        """A password that both changed is read as the newer version has it."""
        base = b"machine x\nlogin a\npassword base\n#e\n"
        older, newer = base.replace(b"base", b"old"), base.replace(b"base", b"new")
        for known in (None, base):
            assert as_read(merge(known, older, newer))["x"][2] == "new"
            assert as_read(merge(known, newer, older))["x"][2] == "old"

    def test_a_last_line_without_end_stays_a_line(self) -> None:
        """It is not joined to what comes to be below it."""
        assert merge(None, b"#a", b"#b") == b"#a\n#b"
        assert merge(b"", b"#a", b"#b\n") == b"#a\n#b\n"

    def test_a_torn_line_is_seen(self) -> None:
        """A text is made of others only if none of its lines was cut in two."""
        assert made_of(b"#a\n#d", b"#a\n#b\n", b"#d\n")
        assert not made_of(b"#a\n#d", b"#a\n#b\n", b"#dd\n")


class TestTail:
    """What is left of a block when a program that had emptied the file before writes its text over it."""

    OLD = (entry("a.example", "eyJhbGciOi.J9"), entry("b.example", "two words"))
    THEIRS = b"machine x.example login me password mine\n"

    @pytest.mark.parametrize("known", [True, False])
    def test_is_cut_wherever_it_begins(self, known: bool) -> None:
        """Their text is kept byte for byte, ours comes above it, and nothing of the old token is left.

        Where the tokens are not known, as after a restart, parts of a token are told by their place. A line break alone
        cannot be told from one of theirs, and stays.
        """
        block = edit(b"", self.OLD, {}).text
        for length in range(1, len(block) - 4):
            theirs = (b"#" * (length - 1) + b"\n")[-length:]
            new = edit(
                theirs + block[length:], [entry("a.example", "new")], delivered([*self.OLD]), left=self.OLD * known
            )
            kept = theirs + b"\n" * block.startswith(b"\n", length)
            assert new.text == edit(kept, [entry("a.example", "new")], {}).text, length

    def test_what_stood_below_the_block_is_foreign(self) -> None:
        """Only the tail goes; all text above and below it stays."""
        tail = b'J9\nmachine b.example login aws password "two words"\n#uvtokend:end\n'
        result = edit(self.THEIRS + tail + b"#below\n", [], delivered([*self.OLD]))
        assert result.text == self.THEIRS + b"#below\n"

    def test_right_behind_their_last_word(self) -> None:
        """A text without a last line end is glued to the tail: the tail is cut if we know what we wrote."""
        theirs = self.THEIRS[:-1]
        text = theirs + b'bGciOi.J9\nmachine b.example login aws password "two words"\n#uvtokend:end\n'
        assert edit(text, [], delivered([*self.OLD]), left=self.OLD).text == theirs

    def test_a_foreign_line_above_a_lone_end_stays(self) -> None:
        """A line that uv can read is somebody's, and so is one that does not look like a part of a line of ours."""
        for line in (self.THEIRS, b"machine y login a\npassword\nsecret\n", b"two words\n", b"#word\n", b"\n"):
            assert edit(line + END + b"\n", [], delivered([*self.OLD])).text == line

    def test_a_word_that_is_no_part_of_the_mark_stays(self) -> None:
        """Only the end of the end mark, alone on the last line, was written by us."""
        for word in (b"end\n", b"kend:end x\n", b"mark:end\n"):
            assert edit(self.THEIRS + word, [], {}).text == self.THEIRS + word
        assert edit(self.THEIRS + b"kend:end\n", [], {}).text == self.THEIRS
        macro = b"macdef m\nkend:end\n"
        assert edit(macro, [], {}).text == macro

    def test_a_whole_block_is_left_alone(self) -> None:
        """Marks in order have no tail, however many blocks there are."""
        foreign = b"\xef\xbb\xbfmachine b.example login me password mine\n"
        marked = edit(foreign, [entry("a.example"), entry("b.example")], {}).text
        assert edit(marked, [], {**delivered([entry("a.example")]), "b.example": ()}).text == foreign
        text = edit(b"", [entry("c.example")], {}).text
        assert block_entries(text + text) == {"c.example": entry("c.example")}
        assert edit(text + text, [entry("c.example")], {}).text == text


class TestLargeFiles:
    def test_a_plain_entry_is_read_as_word_by_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The short cut for plain entries changes nothing: the general reader gives the same scan."""

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

    def test_is_not_read_word_by_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An edit of a megabyte of plain entries scans none of it; to find problems, one scan after the write does."""
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


def test_names_are_the_same_everywhere() -> None:
    """The parts that other code imports from one place are the ones that the grammar defines."""
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
def test_a_line_of_ours_is_read_in_one_step_as_word_by_word(wanted: Entry) -> None:
    """The short way to read a line of our block finds the entry that the general reader finds."""
    line = block._line(wanted)
    (found,) = scan(line + b"\n").entries
    assert block._written(line, None) == block._entry(found) == wanted
    assert block._written(line, {wanted.host}) == wanted
    assert block._written(line, {"other.example"}) is None


@pytest.mark.parametrize(
    ("text", "start", "above"), [(b"x", 0, 0), (b"\nx", 1, 0), (b"a\nx", 2, 0), (b"a\nb\nx", 4, 2)]
)
def test_where_the_line_above_begins(text: bytes, start: int, above: int) -> None:
    """An empty line is a line; above the first one there is none."""
    assert tail._line_above(text, start) == above


class TestLayout:
    @given(FOREIGN, st.lists(WANTED, min_size=1, max_size=4), st.sets(st.sampled_from(HOSTS), max_size=2), FOREIGN)
    @example(b"machine a.example login me password mine\n", [[entry("a.example")], [entry("b.example")]], set(), b"")
    @example(b"", [[], [entry("a.example")], []], {"a.example"}, b"default login x password y\n")
    def test_an_edit_with_the_layout_is_the_same_edit(
        self, text: bytes, deliveries: list[list[Entry]], shadowing: set[str], more: bytes
    ) -> None:
        """Edit after edit, with the layout of the last one: the text, what is foreign, what stood there before, and
        what another program added in between are the same as without it."""
        ours: dict[str, list[str]] = {}
        layout: block.Layout | None = None
        left: tuple[Entry, ...] = ()
        for number, wanted in enumerate([*deliveries, *deliveries]):
            if number == len(deliveries):
                text += more
            fast = edit(text, wanted, ours, "f", shadowing, left, layout)
            slow = edit(text, wanted, ours, "f", shadowing, left)
            assert (fast.text, fast.foreign, fast.hosts) == (slow.text, slow.foreign, slow.hosts)
            assert fast.before is None or fast.before == block_entries(text, ours)
            text, layout = fast.text, fast.layout
            left = tuple(one for one in wanted if one.host in fast.hosts)
            ours |= {one.host: [one.digest, *ours.get(one.host, [])] for one in left}

    def test_an_entry_that_was_foreign_and_is_ours_now_is_read_again(self) -> None:
        """What we have delivered meanwhile may be the entry that was foreign to the last edit: it is taken back."""
        text = b"machine a.example login aws password t0\n"
        first = edit(text, [entry("a.example"), entry("b.example")], {})
        assert first.foreign == {"a.example"}
        ours = delivered([entry("a.example"), entry("b.example")])
        again = edit(first.text, [entry("a.example"), entry("b.example")], ours, layout=first.layout)
        assert (again.foreign, again.text) == (frozenset(), block.join([entry("a.example"), entry("b.example")], b""))

    def test_lines_that_stay_are_not_read_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beside a thousand entries and much foreign text, one new token means one new line and no scan."""
        entries = [entry(f"h{number}.example") for number in range(1000)]
        rest = b"".join(b"machine f%d.example login me password mine\n" % number for number in range(1000))
        first = edit(rest, entries, {})
        ours = delivered(entries)
        second = edit(first.text, entries, ours, layout=first.layout)
        lines: list[str] = []
        honest = block._line

        def line(one: Entry) -> bytes:
            lines.append(one.host)
            return honest(one)

        monkeypatch.setattr(block, "_line", line)
        monkeypatch.setattr(block, "scan", None)
        entries[500] = entry("h500.example", "t1")
        third = edit(second.text, entries, ours, layout=second.layout)
        assert lines == ["h500.example"]
        assert third.text == second.text.replace(
            b"h500.example login aws password t0", b"h500.example login aws password t1"
        )
