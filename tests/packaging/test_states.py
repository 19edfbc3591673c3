"""The examples of `status` in README and help are what the program prints today."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

PACKAGING = Path(__file__).parent.parent.parent / "packaging"


@pytest.fixture(scope="module")
def states() -> Iterator[Any]:
    """Import the script as a module."""
    sys.path.insert(0, str(PACKAGING))
    yield import_module("states")
    sys.path.remove(str(PACKAGING))


def test_the_pictures_are_current(states: Any) -> None:
    """The examples are up to date; to update them, run: python packaging/states.py."""
    for file in states.FILES:
        assert states.replaced(file) == file.read_text(encoding="utf-8")


def test_each_picture_fits_a_terminal_of_80_columns(states: Any) -> None:
    """The examples fit 80 columns and show the most common states: ready, signed out, offline, blocked, not running."""
    lines = states.pictures().splitlines()
    assert max(map(len, lines)) <= states.WIDTH
    headlines = [lines[number + 1] for number, line in enumerate(lines) if f"{line}\n" == states.COMMAND]
    assert headlines == [
        "All 2 indexes are ready.",
        "All 2 indexes are ready, but 1 needs a sign-in.",
        "All 2 indexes are ready, but 1 is retrying.",
        "1 of 2 indexes is ready; 1 is blocked.",
        "uvtokend is not running, so no tokens are being refreshed.",
    ]


def test_a_document_without_the_section_is_refused(states: Any, tmp_path: Path) -> None:
    """If a document has no such section, the script fails, so that a renamed heading does not go unnoticed."""
    file = tmp_path / "README.md"
    file.write_text("# x\n")
    with pytest.raises(ValueError, match="has no section"):
        states.replaced(file)


def test_the_script_changes_nothing_now(states: Any) -> None:
    """The script updates the files in place, so if they are up to date it changes nothing."""
    before = [file.read_bytes() for file in states.FILES]
    subprocess.run([sys.executable, PACKAGING / "states.py"], check=True)
    assert [file.read_bytes() for file in states.FILES] == before
