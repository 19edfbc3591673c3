"""The table of verbs: each row has a complete module, and wrong usage gets a helpful message."""

from __future__ import annotations

import importlib
import inspect
import shlex
from pathlib import Path

import pytest

from uvtokend.cli import help as help_verb
from uvtokend.cli import main, parser
from uvtokend.cli.verbs import GROUPS, VERBS

CLI = Path(main.__file__).parent


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_complete(name: str) -> None:
    """Every verb has arguments and examples, and its help shows them."""
    module = importlib.import_module(f"uvtokend.cli.{VERBS[name].module}")
    assert list(inspect.signature(module.arguments).parameters) == ["own"]
    assert module.EXAMPLES
    text = parser.build(name).format_help()
    assert f"usage: uvtokend {name}" in text
    for example in module.EXAMPLES:
        assert example in text


@pytest.mark.parametrize("name", VERBS)
def test_every_example_is_accepted(name: str) -> None:
    """Every example is accepted by its verb's own parser."""
    for example in importlib.import_module(f"uvtokend.cli.{VERBS[name].module}").EXAMPLES:
        words = shlex.split(example.partition(" | ")[0].partition(" && ")[0].partition(" > ")[0])
        assert words[0] == "uvtokend"
        own = parser.build(name)
        cut = words.index("--") if own.get_default("command") is not None and "--" in words else len(words)
        own.parse_args(words[2:cut])


def test_every_summary_is_one_short_line() -> None:
    """`uvtokend --help` fits into 80 columns, lists each verb once, and its summaries share one style."""
    assert all(len(line) <= 80 for line in parser.overview().splitlines())
    assert sum(len(verbs) for verbs in GROUPS.values()) == len(VERBS)
    assert [verb.name for verb in VERBS.values() if verb.summary.endswith(".") or verb.summary[0].isupper()] == []


@pytest.mark.parametrize(
    ("args", "sentence", "fix"),
    [
        (["statsu"], "Unknown command 'statsu'. Did you mean 'status'?", "uvtokend --help"),
        (["xyzzy"], "Unknown command 'xyzzy'.", "uvtokend --help"),
        (["--verson"], "Unknown option '--verson'. Did you mean '--version'?", "uvtokend --help"),
        (["status", "--jsno"], "Did you mean '--json'?", "uvtokend status --help"),
        (["status", "-x"], "Unrecognized arguments: -x.", "uvtokend status --help"),
        (["start", "--wait", "soon"], "'soon' is not a number of seconds", "uvtokend start --help"),
        (["add", "--set"], "expected one argument", "uvtokend add --help"),
        (["add", "a", "b", "https://me:hunter2@x.example/"], "//…@x.example", "uvtokend add --help"),
        (["service"], "Say what to do: install, uninstall or status.", "uvtokend service --help"),
        (["keyring", "instal"], "Unknown action 'instal'. Did you mean 'install'?", "uvtokend keyring --help"),
        (["credential-helper"], "Say what to do: get.", "uvtokend credential-helper --help"),
        (["status", "--prompt", "--json"], "--prompt prints one line", "uvtokend status --help"),
        (["help", "exit-stauts"], "Did you mean 'exit-status'?", "uvtokend help"),
    ],
)
def test_wrong_usage_gets_a_helpful_message(
    args: list[str], sentence: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage exits with 2, suggests the likely word, and points to the help of that command."""
    assert main.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.splitlines()[-1] == f"  fix: {fix}"
    assert "hunter2" not in err


def test_help_lists_its_topics_and_shows_each(capsys: pytest.CaptureFixture[str]) -> None:
    """`help` lists all topics with their titles, `help TOPIC` prints a topic, and `help VERB` a verb's help."""
    topics = help_verb.topics()
    assert topics
    assert main.main(["help"]) == 0
    listed = capsys.readouterr().out
    for name, file in topics.items():
        text = file.read_text(encoding="utf-8")
        title = text.splitlines()[0]
        assert title.startswith("# ")
        assert f"  {name}" in listed
        assert title.removeprefix("# ") in listed
        assert main.main(["help", name]) == 0
        assert capsys.readouterr().out == text
    assert main.main(["help", "reload"]) == 0
    assert "usage: uvtokend reload" in capsys.readouterr().out


def test_every_module_of_a_verb_has_a_row() -> None:
    """Every module with EXAMPLES is in the table of verbs."""
    modules = {verb.module for verb in VERBS.values()}
    callable_files = {file.stem for file in CLI.glob("*.py") if "\nEXAMPLES = (" in file.read_text()}
    assert callable_files == modules
