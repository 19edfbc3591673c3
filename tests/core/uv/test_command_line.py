"""How a uv command line changes where uv reads its configuration. The real uv is compared in
tests/disk/test_uv_files.py."""

from __future__ import annotations

import pytest

from uvtokend.core.uv import command_line

HOME = {"HOME": "/h"}


def test_options_become_variables() -> None:
    """If an option appears twice, the last one wins, in either spelling. Without a nested command there is one
    environment."""
    words = ["/bin/uv", "--directory", "a", "lock", "--project=b", "--no-config", "--config-file", "c", "--directory=d"]
    words += ["--index", "x=https://x.example/"]
    expected = {**HOME, "UV_WORKING_DIR": "d", "UV_PROJECT": "b", "UV_NO_CONFIG": "1", "UV_CONFIG_FILE": "c"}
    assert command_line.environments(words, HOME) == [expected]


def test_a_command_may_begin_anywhere() -> None:
    """After ``run``, uv's own options may end anywhere, so there is one environment for each possibility."""
    a, both = {**HOME, "UV_WORKING_DIR": "a"}, {**HOME, "UV_WORKING_DIR": "a", "UV_PROJECT": "b"}
    assert command_line.environments(["uv", "run", "--directory", "a", "x", "--project", "b"], HOME) == [HOME, a, both]
    assert command_line.environments(["uvx", "x", "--directory", "a"], HOME) == [HOME, a]


@pytest.mark.parametrize("words", [[], ["make", "--directory", "a"], ["sh", "-c", "uv --directory a lock"]])
def test_commands_other_than_uv_change_nothing(words: list[str]) -> None:
    """Options of other programs are ignored."""
    assert command_line.environments(words, HOME) == [HOME]
    assert list(command_line.indexes([*words, "--index", "a=https://a.example/"])) == []
    assert command_line.scripts(words) == []
    assert command_line.script(words) is None


@pytest.mark.parametrize("before", [["env", "A=b"], ["/usr/bin/python3", "-m"], ["nice", "-n", "5"]])
def test_uv_may_be_run_by_another_program(before: list[str]) -> None:
    """If another program runs uv, the options after uv's name count."""
    words = [*before, "uv", "--project", "a", "lock", "--script", "s.py"]
    assert command_line.environments(words, HOME) == [{**HOME, "UV_PROJECT": "a"}]
    assert command_line.scripts(words) == ["s.py"]
    assert command_line.arguments(words) == words[len(before) + 1 :]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("./a[extra]", "./a"),
        ("  --with-editable=./a  # why", "./a"),
        ("-e ./a ; python_version > '3'", "./a"),
        ("-rmore.txt", "more.txt"),
        ("a @ file:///b%20c", "/b c"),
        ("a@file://localhost/b", "/b"),
        ("a @ file:b", "b"),
        ('"./a"', "./a"),
    ],
)
def test_paths_of_an_argument(text: str, path: str) -> None:
    """Every spelling of a path that uv accepts is recognized; text that cannot be a path yields nothing."""
    assert path in command_line.paths(text)
    assert command_line.paths("a\0") == command_line.paths("") == []


def test_the_older_variable() -> None:
    """``UV_WORKING_DIRECTORY`` counts only if ``UV_WORKING_DIR`` is not set."""
    older = {"UV_WORKING_DIRECTORY": "old"}
    assert command_line.environments([], older) == [{**older, "UV_WORKING_DIR": "old"}]
    both = {**older, "UV_WORKING_DIR": "new"}
    assert command_line.environments([], both) == [both]


def test_indexes_of_a_command_line() -> None:
    """Only indexes with a name are returned, and an option without a value is ignored."""
    words = ["uv", "sync", "--index", "a=https://a.example/", "--default-index=b=https://b.example/?c=d"]
    words += ["--index", "https://none.example/", "--project", "p", "--index"]
    assert list(command_line.indexes(words)) == [
        ("a", "https://a.example/", "--index"),
        ("b", "https://b.example/?c=d", "--default-index"),
    ]


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["uv", "run", "s.py", "more"], "s.py"),
        (["uv", "-q", "run", "--index", "https://h.example/", "-q", "-"], "-"),
        (["uv", "run", "-p", "3.12", "--", "https://h.example/s.py"], "https://h.example/s.py"),
        (["uvx", "--with", "x", "tool"], "tool"),
        (["uv", "run", "-q"], None),
        (["uv", "sync", "s.py"], None),
    ],
)
def test_the_script_that_uv_runs(words: list[str], script: str | None) -> None:
    """The script is the first word that is neither an option nor an option's value."""
    assert command_line.script(words) == script


@pytest.mark.parametrize(
    ("words", "scripts"),
    [
        (["uv", "add", "--script", "s", "x"], ["s"]),
        (["uv", "lock", "--script=s", "-q"], ["s"]),
        (["uv", "run", "tool", "A.PY", "data", "--with-requirements=r.py", "tool"], ["A.PY", "r.py"]),
        (["uv", "run", "-q", "-s", "tool", "data"], ["tool"]),
        (["uv", "run", "tool", "window.pyw"], ["window.pyw"]),
        (["uv", "sync"], []),
    ],
)
def test_the_words_that_may_be_scripts(words: list[str], scripts: list[str]) -> None:
    """Possible scripts are what uv runs, the values of ``--script``, and words that end like a script."""
    assert command_line.scripts(words) == scripts


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("print(1)\n", []),
        ("# /// script\n# a = 1\n#\n# b = 2\n# ///\n", ["a = 1\n\nb = 2"]),
        ("# /// script\r\n# a = 1\r\n# ///\r\n", ["a = 1"]),
        ("x\n# /// script\n#a = 1\n# ///\n# ///\ny\n", ["a = 1\n///"]),
        ("# /// script\n# a = 1", ["a = 1"]),
        ("# /// script \n# a = 1\n# ///\n\n# /// script\n# b = 1\n# ///\n", ["a = 1", "b = 1"]),
        (" # /// script\n# a = 1\n# ///\n", []),
    ],
)
def test_inline_metadata(text: str, blocks: list[str]) -> None:
    """According to PEP 723 the last end mark counts. Text that another reader may treat as a block is a block too."""
    assert command_line.metadata(text) == blocks


@pytest.mark.parametrize(
    ("words", "added"),
    [
        (["lock", "--no-config"], [{"UV_NO_CONFIG": "1"}]),
        (["lock", "--index", "https://x.example/"], [{}]),
        (["lock", "--directory"], [{"UV_WORKING_DIR": ""}]),
        (["tool", "uvx", "--directory", "a"], [{}, {"UV_WORKING_DIR": "a"}]),
        (["tool", "run", "--directory", "a"], [{}, {"UV_WORKING_DIR": "a"}]),
    ],
)
def test_each_option_changes_its_own_variable(words: list[str], added: list[dict[str, str]]) -> None:
    """Each option of a uv command sets its own environment variable, and an option without a value an empty one.
    Options for indexes set none."""
    assert command_line.environments(["uv", *words], HOME) == [{**HOME, **each} for each in added]


@pytest.mark.parametrize("path", ["Xa", "aX", "./X"])
def test_a_path_loses_only_its_quotes(path: str) -> None:
    """Only quotes around a path are removed; its letters stay."""
    assert path in command_line.paths(path)
    assert path in command_line.paths(f"'{path}'")
