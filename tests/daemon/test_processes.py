"""Who asks: names and parents of processes, whatever they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uvtokend.daemon import processes


def test_a_process_and_the_one_above_it() -> None:
    """Our own process has a name, and its parent is described instead of it on request."""
    mine = processes.describe(os.getpid())
    assert mine.pid == os.getpid()
    assert mine.name.strip()
    assert str(mine) == f"{mine.name} (pid {os.getpid()})"
    assert processes.describe(os.getpid(), above=True).pid == os.getppid()


def test_an_odd_name(tmp_path: Path) -> None:
    """Parentheses do not end a name, and what a terminal would obey is shown as text."""
    program = shutil.copy("/bin/sleep", tmp_path / ") 1 (\x1b[31m")
    with subprocess.Popen([program, "60"]) as process:
        found = processes.describe(process.pid)
        process.kill()
    assert found.name == ") 1 (\\x1b[31m"


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1])
def test_a_process_that_cannot_be_seen(pid: int) -> None:
    """One of another pid namespace, or one that has ended, is unknown, and that is no error."""
    assert processes.describe(pid) == processes.describe(pid, above=True) == processes.UNKNOWN
    assert str(processes.UNKNOWN) == "an unknown process"


def test_where_there_is_no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS ps tells the same; a ps that fails tells nothing."""
    monkeypatch.setattr(sys, "platform", "darwin")
    answer = subprocess.CompletedProcess([], 0, "  7 /opt/local/bin/uv\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert processes.describe(5) == processes.Process(5, "uv")
    assert processes.describe(5, above=True) == processes.Process(7, "uv")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", ""))
    assert processes.describe(5) == processes.UNKNOWN
