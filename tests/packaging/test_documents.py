"""Man pages and completions contain every command, and shells accept the completions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from uvtokend.cli.verbs import VERBS

PACKAGING = Path(__file__).parent.parent.parent / "packaging"


@pytest.fixture(scope="module")
def documents() -> Iterator[object]:
    """Import the script as a module."""
    sys.path.insert(0, str(PACKAGING))
    yield import_module("documents")
    sys.path.remove(str(PACKAGING))


def test_every_command_is_in_the_manual(documents: object) -> None:
    """uvtokend(1) describes every command with an example; the configuration has its own page."""
    pages: dict[str, str] = documents.manual()  # type: ignore[attr-defined]
    assert [name for name in VERBS if f"## uvtokend {name}\n" not in pages["man1/uvtokend.1"]] == []
    assert "[daemon]" in pages["man5/uvtokend.toml.5"]
    assert "|---" not in "".join(pages.values())


def test_shells_accept_the_completions(documents: object, tmp_path: Path) -> None:
    """Every installed shell can parse its completion file, and bash completes a command."""
    for name, text in documents.completions().items():  # type: ignore[attr-defined]
        (tmp_path / name).write_text(text)
        shell = {"uvtokend": "bash", "_uvtokend": "zsh"}.get(name, "fish")
        if (program := shutil.which(shell)) is not None:
            subprocess.run([program, "-n", str(tmp_path / name)], check=True)
    script = f"""
    . {tmp_path}/uvtokend
    COMP_WORDS=(uvtokend stat); COMP_CWORD=1; COMP_LINE='uvtokend stat'; COMP_POINT=13
    $(complete -p uvtokend | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["status"]
