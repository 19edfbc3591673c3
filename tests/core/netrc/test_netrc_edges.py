"""Edges of the netrc functions: marks, quoted keywords, unusual bytes and names."""

from __future__ import annotations

import pytest

from uvtokend.core.model import Entry, Secret
from uvtokend.core.netrc.block import BEGIN, END, block_entries, edit, join, problems, scan, split

ENTRIES = [Entry(host, "me", Secret(f"token-of-{host}")) for host in ("a.example", "b.example")]


def test_the_span_of_a_quoted_keyword_includes_its_quotes() -> None:
    """Each part of an entry begins at the quote of its keyword, so that removing the part leaves no quote."""
    text = b'"machine" "h" "login" "u" "password" "p"\n'
    (entry,) = scan(text).entries
    assert [text[start:end] for start, end in entry.parts] == [b'"machine" "h"', b'"login" "u"', b'"password" "p"']


def test_removing_an_entry_with_quoted_keywords_leaves_nothing() -> None:
    """An entry of ours that another program has written with quoted keywords is taken back as a whole."""
    (entry, *_) = ENTRIES
    text = f'# mine\n"machine" "{entry.host}" "login" "me" "password" "{entry.password.reveal()}"\n'.encode()
    assert edit(text, [], {entry.host: (entry.digest,)}).text == b"# mine\n"


@pytest.mark.parametrize("above", [b"", b"# mine\n", b"# mine\n# too\n"])
def test_a_whole_block_is_ours_to_its_end_wherever_it_is(above: bytes) -> None:
    """In a block with an end, the entries below a foreign line are ours too, and the foreign line is kept."""
    begin, first, second, end, _ = join(ENTRIES, b"").split(b"\n")
    text = above + b"\n".join([begin, first, b"# foreign", second, end, b""])
    assert split(text) == (ENTRIES, above + b"# foreign\n")


@pytest.mark.parametrize("mark", [BEGIN, END])
def test_a_lone_mark_is_ours(mark: bytes) -> None:
    """A begin without an end, and an end without a begin, are removed without the foreign lines around them."""
    assert split(b"# above\n" + mark + b"\n# below\n") == ([], b"# above\n# below\n")


def test_a_name_that_no_file_can_contain_is_not_in_it() -> None:
    """A host with a lone surrogate has no UTF-8 form. It is looked for like any other host, and is not there."""
    text = b"machine x.example login me password mine\n"
    assert block_entries(text, {"\ud800.example": ("digest",)}) == {}


@pytest.mark.parametrize(("shadowing", "foreign"), [([], set()), (["a.example"], {"default"})])
def test_a_default_entry_counts_only_where_it_shadows(shadowing: list[str], foreign: set[str]) -> None:
    """A foreign ``default`` prevents entries in uv's store, because uv prefers the netrc. It prevents none here."""
    assert edit(b"default login x password y\n", [], {}, shadowing=shadowing).foreign == foreign


@pytest.mark.parametrize("cut", [1, 2, 9])
def test_a_tail_without_its_first_bytes_is_removed(cut: int) -> None:
    """Text without a line end that another program wrote over the first bytes of our last entry stays; the rest of the
    block goes, however little of the entry was overwritten."""
    _, line, end, _ = join(ENTRIES[:1], b"").split(b"\n")
    theirs = b"machine x.example login me password mine\nmachine y.example login me password mine "
    text = theirs + line[cut:] + b"\n" + end + b"\n"
    assert edit(text, [], {"a.example": ()}, left=ENTRIES[:1]).text == theirs


@pytest.mark.parametrize(("white", "ends"), [("\u200a", True), ("\u200b", False)])
def test_what_ends_a_macro(white: str, ends: bool) -> None:
    """A line of white space ends a macro, and a line of a zero-width space does not: it has no White_Space property in
    Unicode, by which uv (Rust's `str::trim`) decides."""
    text = f"macdef init\nls\n{white}\nmachine x.example login me password mine\n".encode()
    assert (scan(text).entries != ()) == ends


@pytest.mark.parametrize("keyword", ["machine", "login", "password", "account", "default", "macdef"])
def test_a_misspelled_keyword_is_named(keyword: str) -> None:
    """The fix for a keyword with a missing letter names the keyword."""
    wrong = keyword[:2] + keyword[3:]
    (problem,) = problems(f"{wrong} x\n".encode(), (), "n")[:1]
    assert problem.hint == f"write {keyword} instead of {wrong}"
