"""Add an index to ``config.toml`` or remove one, and keep all other text byte for byte."""

from __future__ import annotations

import tomllib

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st
from tomlkit.exceptions import TOMLKitError

from uvtokend.core.config import edit
from uvtokend.core.config.edit import NotEditableError, Table

NEW: Table = {"name": "new", "url": "https://new.example/simple/", "env": {"A": "b"}, "command": ["a", 'b"c']}
RENDERED = """\
[[index]]
name = "new"
url = "https://new.example/simple/"
env = {A = "b"}
command = ["a", "b\\"c"]
"""
TWO = """\
# the file's own

[daemon] # aside
max-workers = 2

# about one
[[index]]
name = "one"   # inside
url = "https://one.example/"
# below one

# between

[[index]]
name = "two"
url = "https://two.example/"
[index.env]
A = "b"

# at the end
"""


def without(text: str, name: str) -> str:
    removal = edit.remove(text, name)
    assert removal is not None
    return removal.text


# ------------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ({"name": "a", "url": "https://x.example/pypi/b/simple/"}, "a"),
        ({"url": "https://x.example/pypi/b/simple/"}, "b"),
        ({"url": "https://["}, None),
        ({"name": 7, "url": "https://x.example/b"}, None),
        ({"url": 7}, None),
        ({}, None),
        ("text", None),
    ],
)
def test_a_name_is_what_the_settings_make_of_it(table: object, name: str | None) -> None:
    """The name of a table is the written one or the one derived from its URL, and None if neither is valid."""
    assert edit.name_of(table) == name


def test_the_names_of_a_text() -> None:
    """Names are returned in their order in the file, whether the list consists of tables or is one value."""
    assert edit.names(TWO) == ["one", "two"]
    assert edit.names('index = [{ name = "a" }, {}]') == ["a", None]
    assert edit.names("") == []


@pytest.mark.parametrize("text", ["[[index", "index = 1", "[index]\nname = 'a'", "a = " + "[" * 5000, "a = 1\na = 2"])
def test_a_file_without_a_list_of_indexes_is_not_edited(text: str) -> None:
    """Each operation refuses such a text with a sentence that says why."""
    for attempt in (
        lambda: edit.names(text),
        lambda: edit.append(text, [NEW]),
        lambda: edit.remove(text, "a"),
    ):
        with pytest.raises(NotEditableError, match=r"^It.* not .*\.$"):
            attempt()


# ---------------------------------------------------------------------------------------------------------- append


@pytest.mark.parametrize(
    ("text", "glue"),
    [
        ("", ""),
        ("# mine\n", "\n"),
        ("# mine", "\n\n"),
        ("[daemon]\n\n", "\n"),
        (TWO, "\n"),
        ("[[index]]\nname = 'a'\nurl = '''\n[[index]]\n# '''", "\n\n"),
    ],
)
def test_a_new_index_is_appended(text: str, glue: str) -> None:
    """`append` adds the table at the end after a blank line and keeps the text before it byte for byte."""
    assert edit.append(text, [NEW]) == text + glue + RENDERED


def test_new_indexes_are_separated_by_blank_lines() -> None:
    """A blank line separates two new tables; appending nothing changes nothing."""
    assert edit.append("", [NEW, {"name": "b"}]) == RENDERED + '\n[[index]]\nname = "b"\n'
    assert edit.append(TWO, []) == TWO


def test_remarks_come_last() -> None:
    """Remarks are appended as comments after the tables, even if the list is one value."""
    assert edit.append("# a", [{"name": "b"}], ["# x\n", "# y\n"]) == '# a\n\n[[index]]\nname = "b"\n\n# x\n\n# y\n'
    assert edit.append("index = []\n", [{"name": "b"}], ["# x\n"]) == 'index = [{name = "b"}]\n\n# x\n'
    assert edit.append("", [], ["# x\n"]) == "# x\n"


def test_a_table_on_one_line() -> None:
    """`inline` writes a table on one line, as a person would."""
    assert (
        edit.inline({"username": "YOU", "password": {"file": "~/x"}}) == 'username = "YOU", password = {file = "~/x"}'
    )


def test_the_line_ends_of_the_file_are_kept() -> None:
    """New lines in a file with CR LF line ends get the same line ends."""
    text = TWO.replace("\n", "\r\n")
    added = edit.append(text, [NEW])
    assert added == text + "\r\n" + RENDERED.replace("\n", "\r\n")
    assert without(added, "new") == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("index = []\n", 'index = [{name = "b"}]\n'),
        ('index = [{ name = "a" }] # x\n[daemon]\n', 'index = [{ name = "a" }, {name = "b"}] # x\n[daemon]\n'),
        (
            'index = [\n    { name = "a" }, # first\n]\n',
            'index = [\n    { name = "a" }, # first\n    {name = "b"},\n]\n',
        ),
    ],
)
def test_an_inline_list_is_extended_in_place(before: str, after: str) -> None:
    """TOML allows no table after an inline list, so the list itself grows; its comments stay, and `remove` undoes
    it."""
    assert edit.append(before, [{"name": "b"}]) == after
    assert tomllib.loads(without(after, "b")) == tomllib.loads(before)


# ---------------------------------------------------------------------------------------------------------- remove


def test_only_the_comments_of_an_index_are_removed() -> None:
    """`remove` removes the comments inside an index, directly above it and directly below it. Comments between two
    blank lines stay."""
    removal = edit.remove(TWO, "one")
    assert removal is not None
    gone = '# about one\n[[index]]\nname = "one"   # inside\nurl = "https://one.example/"\n# below one\n'
    assert removal.removed == gone
    assert removal.text == TWO.replace(f"{gone}\n", "")
    assert removal.table == {"name": "one", "url": "https://one.example/"}


def test_the_subtables_of_an_index_are_removed() -> None:
    """``[index.env]`` belongs to the index above it, even if another table is between the two."""
    assert without(TWO, "two") == TWO[: TWO.index('[[index]]\nname = "two"')] + "# at the end\n"
    apart = '[[index]]\nname = "a"\n[daemon]\nmax-workers = 2\n[index.env]\nA = "b"\n[[index]]\nname = "c"\n'
    assert without(apart, "a") == '[daemon]\nmax-workers = 2\n[[index]]\nname = "c"\n'
    assert without(apart, "c") == apart.removesuffix('[[index]]\nname = "c"\n')


@pytest.mark.parametrize(
    ("text", "name", "left"),
    [
        ("[[index]]\nname = 'a'\n", "a", ""),
        ("[[index]]\nname = 'a'", "a", ""),
        ("[[index]]\nname = 'a'\n# below", "a", ""),
        ("# mine\n[[index]]\nname = 'a'\n", "a", "# mine\n"),  # a comment at the top may be about the file
        ("[[ 'index' ]] # x\nname = 'a'\n\n[[index]]\nname = 'b'\n", "a", "[[index]]\nname = 'b'\n"),
        ("[[index]]\nname = 'a'\n# of b\n[[index]]\nname = 'b'\n", "a", "# of b\n[[index]]\nname = 'b'\n"),
        ("[[index]]\nname = 'a'\n\n# of b\n[[index]]\nname = 'b'\n", "a", "# of b\n[[index]]\nname = 'b'\n"),
        ("[[index]]\nname = 'a'\n\n# of b\n[[index]]\nname = 'b'\n", "b", "[[index]]\nname = 'a'\n"),
        ("[[index]]\nname = 'a'\nurl = '''\n# no comment'''\n[daemon]\n", "a", "[daemon]\n"),
        (
            "[[index]]\nname = 'a'\nurl = '''\n\n# x'''\n[[index]]\nname = 'b'\n",
            "b",
            "[[index]]\nname = 'a'\nurl = '''\n\n# x'''\n",
        ),
        ("[[index]]\nname = 'a'\ncommand = [\n[ 'x' ],\n]\n[daemon]\n", "a", "[daemon]\n"),
        ("index = [{ name = 'a' }, { name = 'b' }]\n", "b", "index = [{ name = 'a' }]\n"),
        ("# mine\n[[index]]\nname = 'a'\n\n", "a", "# mine\n\n"),
        ("[[index]]\nname = 'a'\n# of a\n[[index]]\nname = 'b'\n", "b", "[[index]]\nname = 'a'\n# of a\n"),
        ("\n# of a\n[[index]]\nname = 'a'\n[daemon]\n", "a", "\n[daemon]\n"),
        ("\n[[index]]\nname = 'a'\n", "a", ""),
    ],
)
def test_the_text_after_a_removal(text: str, name: str, left: str) -> None:
    """`remove` leaves the text that a person would leave."""
    assert without(text, name) == left


def test_removing_an_unknown_index() -> None:
    """`remove` returns None if the file does not contain the index."""
    assert edit.remove(TWO, "three") is None
    assert edit.remove("", "a") is None


@pytest.mark.parametrize(
    "text",
    [
        "index = [{ name = 'a' }, # mine\n { name = 'b' }]\n",
        "index = [\n  { name = 'b' },\n  { name = 'a' }, # mine\n]\n",
    ],
)
def test_a_list_that_cannot_be_edited_safely_is_left_alone(text: str) -> None:
    """The list contains a comment that would be lost, so `remove` refuses to edit it."""
    with pytest.raises(NotEditableError, match="safely"):
        edit.remove(text, "a")


@pytest.mark.parametrize("text", ["index = [{}# mine\n]", "index = [ {},# mine\n]\n", "index = [{}\n# mine\n]\r\n"])
def test_an_invalid_result_of_tomlkit_is_not_written(text: str) -> None:
    """tomlkit 0.15 may write a value into the comment before it, or move a comment. The edit either is right or is
    refused."""
    try:
        added = edit.append(text, [NEW])
    except NotEditableError:
        return
    assert tomllib.loads(added)["index"][-1] == NEW
    assert "# mine" in added


@pytest.mark.parametrize("error", [ValueError, RecursionError, TOMLKitError])
def test_a_file_that_tomlkit_cannot_read_is_not_edited(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """tomlkit 0.15 fails on some valid files, such as deeply nested ones, and the error says that the file is
    unusual."""

    def give_up(_: str) -> None:
        raise error

    monkeypatch.setattr(tomlkit, "parse", give_up)
    with pytest.raises(NotEditableError, match="unusual"):
        edit.remove("index = [{ name = 'a' }]", "a")


@pytest.mark.parametrize(
    "written",
    [
        "index = [{}]\na = 1\n",
        "index = [{}] # mine {\n",
        "index = [{}, {}] # mine\n",
        "index = [{}",
        f"index = [{{}}, {{{edit.inline(NEW)}}}]\n",  # the comment is lost
    ],
)
def test_the_result_of_tomlkit_is_verified(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """If the text that tomlkit writes is invalid or has lost something, the edit is refused."""
    monkeypatch.setattr(tomlkit, "dumps", lambda _: written)
    with pytest.raises(NotEditableError):
        edit.append("index = [{}] # mine\n", [NEW])


# ------------------------------------------------------------------------------------------------------ properties

words = st.text("ab#[]='\"\\ é\t", max_size=6).map(lambda text: text.replace("\t", " "))
values = st.one_of(
    words.map(lambda text: "'" + text.replace("'", "") + "'"),
    words.map(lambda text: "'''\n" + text.replace("'", "") + "\n[[index]]\n# x'''"),
    st.sampled_from(["7", "[\n[1], # x\n]", "{ a = [1] }", '"""\n\\"# y\n"""', "2026-01-31T08:00:00Z"]),
)
gaps = st.lists(st.sampled_from(["", "# mine", "  # [[index]]", " "]), max_size=3)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Return a configuration in the style of a person, and the names of its indexes."""
    lines: list[str] = draw(gaps)
    names: list[str] = []
    if draw(st.booleans()):
        lines += ["[daemon]  # aside", f"netrc = {draw(values)}", *draw(gaps)]
    for number in range(draw(st.integers(0, 3))):
        names.append(f"i{number}")
        lines += ["[[index]]", f"name = 'i{number}'", *draw(gaps), f"url = {draw(values)}", *draw(gaps)]
        if draw(st.booleans()):
            lines += ["[index.env]", f"'a b' = {draw(values)}", *draw(gaps)]
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    return ending.join([*lines, ""] if draw(st.booleans()) else lines), names


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("#")]


@given(texts())
def test_removing_an_added_index_restores_the_text(made: tuple[str, list[str]]) -> None:
    """Adding and then removing an index restores the text, except for a missing final line end."""
    text, _ = made
    added = edit.append(text, [NEW])
    assert added.startswith(text)
    assert without(added, "new") in {text, text + "\n", text + "\r\n"}


@given(texts())
def test_a_removal_removes_whole_lines_of_one_index(made: tuple[str, list[str]]) -> None:
    """The remaining lines are in their order byte for byte, and every other table keeps its values."""
    text, names = made
    for name in names:
        left = without(text, name)
        rest = iter(text.splitlines(keepends=True))
        assert all(line in rest for line in left.splitlines(keepends=True))
        document = tomllib.loads(text)
        others = [table for table in document["index"] if table["name"] != name]
        assert tomllib.loads(left) in [
            {**document, "index": others},
            {k: v for k, v in document.items() if k != "index"},
        ]
        assert edit.names(left) == [other for other in names if other != name]
        removal = edit.remove(text, name)
        assert removal is not None
        assert len(comments(text)) == len(comments(left)) + len(comments(removal.removed))


@given(st.text(max_size=60), st.text(max_size=5))
def test_any_text_is_edited_correctly_or_refused(text: str, name: str) -> None:
    """For any text, `append` adds exactly the new index or refuses the edit."""
    try:
        added = edit.append(text, [NEW])
    except NotEditableError:
        return
    assert tomllib.loads(added)["index"][-1] == NEW
    edit.remove(text, name)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.recursive(
            st.one_of(
                st.text(max_size=9),
                st.integers(-(1 << 63), (1 << 63) - 1),
                st.booleans(),
                st.floats(allow_nan=False, allow_infinity=False),
            ),
            lambda inner: st.one_of(
                st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)
            ),
            max_leaves=4,
        ),
        max_size=3,
    )
)
def test_any_table_is_written_as_one_table(table: Table) -> None:
    """Whatever the keys and values contain, the written text is that table and nothing more."""
    assert tomllib.loads(edit.append("", [table])) == {"index": [table]}


def test_remove_returns_the_removed_text() -> None:
    """The removed text is returned unchanged, except for the line ends around it."""
    for text in ("[[index]] # X\nname = 'a' # X", "[[index]]\nname = 'a'\n# X"):
        removal = edit.remove(f"\n{text}", "a")
        assert removal is not None
        assert removal.removed == f"{text}\n"


def test_a_wrong_removal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remaining text is parsed before it is accepted, and a wrong result raises an error."""
    monkeypatch.setattr(edit, "_without", lambda text, number: (text, ""))  # noqa: ARG005
    with pytest.raises(NotEditableError):
        edit.remove(TWO, "one")
