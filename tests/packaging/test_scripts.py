"""The scripts of packaging/ can be loaded."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "packaging").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
def test_a_script_finds_everything_that_it_imports(script: Path) -> None:
    """A name that moves in the package breaks no script unnoticed."""
    assert runpy.run_path(str(script), run_name="loaded")["__doc__"]
