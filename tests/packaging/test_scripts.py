"""Every script in packaging/ can be imported."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "packaging").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
def test_every_script_can_be_imported(script: Path) -> None:
    """Every import of the script works, so a renamed module does not silently break it."""
    assert runpy.run_path(str(script), run_name="loaded")["__doc__"]
