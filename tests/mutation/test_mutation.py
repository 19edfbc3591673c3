"""The mutation run: what it changes, and that it distinguishes killed mutants from survivors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mutation import run
from mutation.operators import mutants

SOURCE = '''"""A module."""

from dataclasses import dataclass
from typing import Literal, cast

LIMIT = 3
Kind = Literal["a", "b"]


@dataclass(frozen=True)
class Pair:
    """A pair."""

    left: int = 0


def larger(one: int, other: int = 1) -> bool:
    """Return whether one is larger."""
    if one is None:
        raise ValueError(f"{one} is missing")
    return one > other and not other == cast("int", LIMIT)


async def waits(items: list[int]) -> int:
    most = max(items, default=0)
    print("for people, with spaces")
    return most + 1
'''


def changes(source: str) -> set[tuple[str, str]]:
    raw = source.encode()
    return {(raw[one.start : one.end].decode(), one.text) for one in mutants(raw)}


def test_every_decision_is_changed_and_no_text_for_people() -> None:
    """The operators change all decisions of this module, but no types, decorators, docstrings or messages."""
    assert changes(SOURCE) == {
        ("3", "(4)"),
        ("0", "(1)"),
        ("1", "(2)"),
        ("one is None", "(one is not None)"),
        ('raise ValueError(f"{one} is missing")', "pass"),
        ('one > other and not other == cast("int", LIMIT)', "(None)"),
        ('one > other and not other == cast("int", LIMIT)', "(one > other or not other == cast('int', LIMIT))"),
        ("one > other", "(one >= other)"),
        ('not other == cast("int", LIMIT)', "(other == cast('int', LIMIT))"),
        ('other == cast("int", LIMIT)', "(other != cast('int', LIMIT))"),
        ("max", "min"),
        ("max(items, default=0)", "(max(items))"),
        ('print("for people, with spaces")', "pass"),
        ("most + 1", "(None)"),
        ("most + 1", "(most - 1)"),
    }


def test_a_mutant_keeps_the_line_numbers() -> None:
    """A mutant does not change line numbers, so that a failure names the line of the source."""
    source = b"def f(a):\n    return (\n        a\n        + 1\n    )\n\n\nx = 2\n"
    for mutant in mutants(source):
        changed = mutant.applied(source)
        assert changed != source
        assert changed.count(b"\n") == source.count(b"\n")


def test_the_function_around_a_change() -> None:
    """The outermost function is named, with its class. A default and a decorator belong to no function."""
    source = SOURCE.encode()
    assert run.function_at(source, source.index(b"one > other")) == "larger"
    assert run.function_at(source, source.index(b"most + 1")) == "waits"
    assert run.function_at(source, source.index(b"other: int = 1")) is None
    nested = b"class A:\n    x = 1\n    def f(self):\n        def g():\n            return 1\n        return g\n"
    assert run.function_at(nested, nested.index(b"return 1")) == "A.f"
    assert run.function_at(nested, nested.index(b"x = 1")) is None


def test_the_score_of_a_sample_has_an_interval() -> None:
    """Wilson's interval stays within 0 and 1, and narrows as the sample grows."""
    low, high = run.interval(95, 100)
    assert (round(low, 3), round(high, 3)) == (0.888, 0.978)
    assert run.interval(0, 0) == (0.0, 1.0)
    assert run.interval(950, 1000)[0] > low


def test_a_run_distinguishes_killed_from_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The package has two functions, a test for one of them, a constant, and one mutant listed as equivalent."""
    package, tests = tmp_path / "src/uvtokend/core", tmp_path / "tests/core"
    package.mkdir(parents=True)
    tests.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "sums.py").write_text(
        "ONE = 1\n\n\ndef tested(a):\n    return a + ONE\n\n\ndef loose(a):\n    return a\n"
    )
    (tests / "conftest.py").write_text("from hypothesis import settings\nsettings.register_profile('uvtokend')\n")
    (tests / "test_sums.py").write_text(
        "from uvtokend.core import sums\n\n\ndef test_it():\n    assert sums.tested(1) == 2\n    sums.loose(1)\n"
    )
    results = tmp_path / "results.jsonl"
    monkeypatch.setattr(run, "ROOT", tmp_path)
    arguments = ["run.py", "--package", "core", "--cache", str(tmp_path / "cache"), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", arguments)
    run.main()
    judged = [json.loads(line) for line in results.read_text().splitlines()]
    verdicts = {(one["before"], one["text"]): one["verdict"] for one in judged}
    assert [one["by"].rpartition("::")[2] for one in judged] == ["test_it", "test_it", "", "test_it"]
    assert verdicts == {
        ("1", "(2)"): "killed",
        ("a + ONE", "(None)"): "killed",
        ("a + ONE", "(a - ONE)"): "killed",
        ("a", "(None)"): "survived",
    }
    assert "3 of 4 killed (0 by a timeout), 75.0%" in capsys.readouterr().out
    monkeypatch.setattr(run, "equivalent", lambda: {("core/sums.py", "return a", "a", "(None)")})
    run.main()  # everything was judged before
    assert "1 of them equivalent: 3 of 3 killed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["equivalent.txt", "survivors.txt"])
def test_the_lists_name_existing_lines(name: str) -> None:
    """Each row names an existing module and the text of an existing line, even after code was moved."""
    here = Path(__file__).parent
    rows = [line.split(" | ") for line in (here / name).read_text().splitlines() if line and not line.startswith("#")]
    assert rows
    for module, text, *_ in rows:
        file = here.parent.parent / "src" / "uvtokend" / module
        assert file.is_file(), module
        assert text.strip() in " ".join(file.read_text().split()), f"{module}: {text}"
