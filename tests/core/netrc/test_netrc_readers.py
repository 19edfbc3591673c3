"""Compare what the real uv and curl read in a netrc with what `scan` reads. A server records the credentials they
send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.netrc_readers import curl, sent, uv
from uvtokend.core.model import Entry, Secret
from uvtokend.core.netrc.block import edit, scan
from uvtokend.sandbox.web import Answer, Call, Server

HOST = "127.0.0.1"
OURS = b"machine 127.0.0.1 login aws password t0\n"
THEIRS = b"machine x.example login me password mine\n"

#: Logins and tokens that must be read back exactly.
CREDENTIALS = {
    "codeartifact": ("aws", "eyJ2ZXIiOjEsImlzdSI6MTc2OTg1MDAwMH0." + "aB3-_" * 300 + "=="),
    "google": ("oauth2accesstoken", "ya29.a0AfH6SMB-x_y/z+" + "q" * 200),
    "azure": ("VssSessionToken", "eyJ0eXAiOiJKV1Qi.e30.c2ln"),
    "no-login": ("", "token"),
    "mail": ("me@example.com", "p@ss!"),
    "spaces": ("a b", "two words"),
    "quotes": ('say "hi"', '"quoted" and \\escaped\\'),
    "sharp": ("#login", "#token"),
    "umlaut": ("jürgen", "pässwörd€"),
    "keyword": ("machine", "password"),
    "percent": ("user", "%41$HOME`id`"),
}
#: Files with an entry of ours and various text from other programs around it.
FILES = {
    "alone": OURS,
    "comment-above": b"# two words\n" + OURS,
    "comment-below": OURS + b"# two words\n",
    "word-comment-after-blank-line": b"\n#word\n\n" + OURS + b"\n#word\n",
    "comment-after-blank-line": OURS + b"\n# two words\n",
    "blank-line-before-comment-above": b"\n# two words\n" + OURS,
    "comment-after-trailing-space": OURS[:-1] + b" \n# two words\n",
    "comment-after-quoted-value": b'machine 127.0.0.1 login aws password "t0"\n# two words\n',
    "comment-with-data": OURS + b"\n# password other\n",
    "joined-comment-below": OURS + b"#two words\n",
    "comment-on-the-line": OURS[:-1] + b" # two words\n" + THEIRS,
    "carriage-returns": (OURS + THEIRS).replace(b"\n", b"\r\n"),
    "carriage-returns-and-comment": (OURS + b"# two words\n").replace(b"\n", b"\r\n"),
    "byte-order-mark": b"\xef\xbb\xbf" + OURS,
    "unknown-follower": THEIRS[:-1] + b" port 21\n" + OURS,
    "unknown-word-below": OURS + b"protocol https\n",
    "stray-login": OURS + b"login other\n",
    "form-feed": OURS + b"\x0c\n",
    "undecodable": OURS + b"machine x.example login \xff\xfe password \x80\n",
    "null": OURS + b"machine x.example login \0 password \0\n",
    "no-name": OURS + b"machine",
    "cut-off": OURS + b"machine x.example login me password",
    "open-quote": OURS + b'machine x.example login "me\n' + b"machine 127.0.0.1 login other\n",
    "open-quote-above": b'machine x.example login "me\n' + OURS,
    "empty-word-above": b'""\n' + OURS,
    "empty-word-below": OURS + b'""\nport 21\n',
    "open-macro-below": OURS + b"macdef init\ncd /tmp\n",
    "open-macro-above": b"macdef init\ncd /tmp\n" + OURS,
    "closed-macro-above": b"macdef init\ncd /tmp\n\n" + OURS,
    "macro-ended-by-spaces": b"macdef init\ncd /tmp\n \t \n" + OURS,
    "macro-with-trailing-space": b"macdef init \n" + OURS,
    "macro-ended-by-wide-space": b"macdef init\ncd\n\xe3\x80\x80\n" + OURS,
    "duplicate-below": OURS + b"machine 127.0.0.1 login other password last\n",
    "default-below": OURS + b"default login other password last\n",
    "default-alone": b"default login other password last\n",
    "machine-default": b"machine default login other password last\n",
    "port-in-name": b"machine 127.0.0.1:80 login aws password t0\n",
    "no-last-line-end": OURS[:-1],
    "backslash-at-the-end": OURS[:-1] + b"\\",
    "half-megabyte": THEIRS * 12_000 + OURS,
}


@pytest.fixture(scope="module")
def index() -> Iterator[Server]:
    """Run an index that answers every request with 401."""

    def answer(_call: Call) -> Answer:
        return Answer(401, headers={"WWW-Authenticate": 'Basic realm="index"'})

    with Server(answer) as server:
        yield server


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "needs.in").write_text("alpha\n")
    return tmp_path


def rendered() -> dict[str, bytes]:
    return {
        name: edit(THEIRS, [Entry(HOST, login, Secret(token))], {}).text for name, (login, token) in CREDENTIALS.items()
    }


def as_scanned(text: bytes) -> str | None:
    read = scan(text).as_read()
    entry = read.get(HOST.encode(), read.get(b"default"))
    return None if entry is None else f"{entry[0].decode()}:{entry[2].decode()}"


def test_uv_reads_our_entries_back(index: Server, directory: Path) -> None:
    """uv sends every login and token to the index exactly as it was delivered."""
    assert sent(index, directory, rendered(), uv) == {name: ":".join(pair) for name, pair in CREDENTIALS.items()}


@pytest.mark.curl
def test_curl_reads_our_entries_back(index: Server, directory: Path) -> None:
    """curl, which has its own netrc grammar, sends every login and token exactly as it was delivered."""
    assert sent(index, directory, rendered(), curl) == {name: ":".join(pair) for name, pair in CREDENTIALS.items()}


def test_uv_reads_files_as_scan_does(index: Server, directory: Path) -> None:
    """uv ignores the files that `scan` calls unreadable, and reads the same values as `scan` from all others."""
    assert sent(index, directory, FILES, uv) == {name: as_scanned(text) for name, text in FILES.items()}


def test_uv_sends_our_token_unless_a_fatal_problem_is_reported(index: Server, directory: Path) -> None:
    """With our block at the top of the same files, uv sends our token unless a fatal problem was reported."""
    wanted = [Entry(HOST, "aws", Secret("t1"))]
    foreign = {name: text.replace(b"127.0.0.1", b"y.example") for name, text in FILES.items()}
    edits = {name: edit(text, wanted, {}) for name, text in foreign.items()}
    fatal = {name for name, result in edits.items() if any(problem.fatal for problem in result.problems)}
    got = sent(index, directory, {name: result.text for name, result in edits.items()}, uv)
    assert {name for name, pair in got.items() if pair != "aws:t1"} <= fatal
    assert {name for name in fatal if got[name] == "aws:t1"} == {"comment-with-data"}


def test_a_joined_comment_is_safe_below_our_block(index: Server, directory: Path) -> None:
    """At the top of a file a comment like "#two words" breaks Python's netrc, and uv before its pull request 19494.
    Below our block it harms neither."""
    foreign = b"#two words\n" + THEIRS
    assert not scan(foreign).readable
    text = edit(foreign, [Entry(HOST, "aws", Secret("t1"))], {}).text
    assert sent(index, directory, {"joined": text}, uv) == {"joined": "aws:t1"} == {"joined": as_scanned(text)}
