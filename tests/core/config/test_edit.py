"""``config.toml`` with one index more or one less, and all else byte for byte."""

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
    """Written or derived from the URL; none where there is no good one."""
    assert edit.name_of(table) == name


def test_the_names_of_a_text() -> None:
    """In their order, however the list is written."""
    assert edit.names(TWO) == ["one", "two"]
    assert edit.names('index = [{ name = "a" }, {}]') == ["a", None]
    assert edit.names("") == []


@pytest.mark.parametrize("text", ["[[index", "index = 1", "[index]\nname = 'a'", "a = " + "[" * 5000, "a = 1\na = 2"])
def test_what_is_no_list_of_indexes_is_not_edited(text: str) -> None:
    """Each of the three says so in a sentence."""
    for attempt in (
        lambda: edit.names(text),
        lambda: edit.append(text, [NEW]),
        lambda: edit.remove(text, "a"),
    ):
        with pytest.raises(NotEditableError, match=r"^It.* not .*\.$"):
            attempt()


# -------------------------------------------------------------------------------------------------------------- more


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
def test_one_more_comes_behind_all_else(text: str, glue: str) -> None:
    """Behind a blank line; what was there is there byte for byte."""
    assert edit.append(text, [NEW]) == text + glue + RENDERED


def test_several_are_set_apart() -> None:
    """A blank line stands between two."""
    assert edit.append("", [NEW, {"name": "b"}]) == RENDERED + '\n[[index]]\nname = "b"\n'
    assert edit.append(TWO, []) == TWO


def test_remarks_come_last() -> None:
    """As comments; where the list is one value, behind that, too."""
    assert edit.append("# a", [{"name": "b"}], ["# x\n", "# y\n"]) == '# a\n\n[[index]]\nname = "b"\n\n# x\n\n# y\n'
    assert edit.append("index = []\n", [{"name": "b"}], ["# x\n"]) == 'index = [{name = "b"}]\n\n# x\n'
    assert edit.append("", [], ["# x\n"]) == "# x\n"


def test_a_table_on_one_line() -> None:
    """As a person would say it."""
    assert (
        edit.inline({"username": "YOU", "password": {"file": "~/x"}}) == 'username = "YOU", password = {file = "~/x"}'
    )


def test_the_line_ends_are_those_of_the_file() -> None:
    """A file from Windows stays one."""
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
def test_a_list_in_one_value_grows_there(before: str, after: str) -> None:
    """TOML allows no table behind it; comments in it stay; what came goes."""
    assert edit.append(before, [{"name": "b"}]) == after
    assert tomllib.loads(without(after, "b")) == tomllib.loads(before)


# -------------------------------------------------------------------------------------------------------------- less


def test_its_own_comments_go_and_no_others() -> None:
    """Those inside it, right above it behind a blank line, and right below it; those between two blank lines stay."""
    removal = edit.remove(TWO, "one")
    assert removal is not None
    gone = '# about one\n[[index]]\nname = "one"   # inside\nurl = "https://one.example/"\n# below one\n'
    assert removal.removed == gone
    assert removal.text == TWO.replace(f"{gone}\n", "")
    assert removal.table == {"name": "one", "url": "https://one.example/"}


def test_its_tables_go_with_it() -> None:
    """``[index.env]`` belongs to the index above it, also where another table stands between the two."""
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
        ("# mine\n[[index]]\nname = 'a'\n", "a", "# mine\n"),  # at the top of the file it may be the file's own
        ("[[ 'index' ]] # x\nname = 'a'\n\n[[index]]\nname = 'b'\n", "a", "[[index]]\nname = 'b'\n"),
        ("[[index]]\nname = 'a'\n# of b\n[[index]]\nname = 'b'\n", "a", "# of b\n[[index]]\nname = 'b'\n"),
        ("[[index]]\nname = 'a'\n\n# of b\n[[index]]\nname = 'b'\n", "a", "# of b\n[[index]]\nname = 'b'\n"),
        ("[[index]]\nname = 'a'\n\n# of b\n[[index]]\nname = 'b'\n", "b", "[[index]]\nname = 'a'\n"),
        ("[[index]]\nname = 'a'\nurl = '''\n# no comment'''\n[daemon]\n", "a", "[daemon]\n"),
        ("[[index]]\nname = 'a'\ncommand = [\n[ 'x' ],\n]\n[daemon]\n", "a", "[daemon]\n"),
        ("index = [{ name = 'a' }, { name = 'b' }]\n", "b", "index = [{ name = 'a' }]\n"),
    ],
)
def test_one_goes(text: str, name: str, left: str) -> None:
    """What is left is what a person would leave."""
    assert without(text, name) == left


def test_one_that_is_not_there() -> None:
    """Is no error of the text; nor is a text without any."""
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
    """A comment in it would go, and nobody can tell whose it is."""
    with pytest.raises(NotEditableError, match="safely"):
        edit.remove(text, "a")


@pytest.mark.parametrize("text", ["index = [{}# mine\n]", "index = [ {},# mine\n]\n", "index = [{}\n# mine\n]\r\n"])
def test_what_tomlkit_writes_wrongly_is_not_written(text: str) -> None:
    """It (0.15) puts a value into the comment in front of it, or a comment on another line; a better one may pass."""
    try:
        added = edit.append(text, [NEW])
    except NotEditableError:
        return
    assert tomllib.loads(added)["index"][-1] == NEW
    assert "# mine" in added


@pytest.mark.parametrize("error", [ValueError, RecursionError, TOMLKitError])
def test_what_tomlkit_does_not_read_is_left_alone(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """It (0.15) gives up on what is nested deep, say, which tomllib reads."""

    def give_up(_: str) -> None:
        raise error

    monkeypatch.setattr(tomlkit, "parse", give_up)
    with pytest.raises(NotEditableError, match="unusual"):
        edit.remove("index = [{ name = 'a' }]", "a")


@pytest.mark.parametrize(
    "written", ["index = [{}]\na = 1\n", "index = [{}] # mine {\n", "index = [{}, {}] # mine\n", "index = [{}"]
)
def test_what_tomlkit_writes_is_read_before_it_is_believed(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """Whatever is lost, broken or other than it should be: the text is left alone."""
    monkeypatch.setattr(tomlkit, "dumps", lambda _: written)
    with pytest.raises(NotEditableError):
        edit.append("index = [{}] # mine\n", [NEW])


# -------------------------------------------------------------------------------------------------------------- laws

words = st.text("ab#[]='\"\\ é\t", max_size=6).map(lambda text: text.replace("\t", " "))
values = st.one_of(
    words.map(lambda text: "'" + text.replace("'", "") + "'"),
    words.map(lambda text: "'''\n" + text.replace("'", "") + "\n[[index]]\n# x'''"),
    st.sampled_from(["7", "[\n[1], # x\n]", "{ a = [1] }", '"""\n\\"# y\n"""', "2026-01-31T08:00:00Z"]),
)
gaps = st.lists(st.sampled_from(["", "# mine", "  # [[index]]", " "]), max_size=3)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Return a configuration as people write it, and the names of its indexes."""
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
def test_what_was_added_and_removed_leaves_the_bytes(made: tuple[str, list[str]]) -> None:
    """But for the line end that the last line may not have."""
    text, _ = made
    added = edit.append(text, [NEW])
    assert added.startswith(text)
    assert without(added, "new") in {text, text + "\n", text + "\r\n"}


@given(texts())
def test_a_removal_takes_whole_lines_of_one_index(made: tuple[str, list[str]]) -> None:
    """What is left is in the old order, byte for byte; every other table says what it said."""
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
def test_any_text_is_edited_rightly_or_not_at_all(text: str, name: str) -> None:
    """Whatever comes out says what it should; all else is refused."""
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
def test_any_table_is_one_table(table: Table) -> None:
    """Whatever a key or a value holds, what is written is that table and nothing more."""
    assert tomllib.loads(edit.append("", [table])) == {"index": [table]}
