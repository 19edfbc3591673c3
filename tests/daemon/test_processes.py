"""The names and parents of asking processes, whatever they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uvtokend.daemon import processes


def test_a_process_and_its_parent() -> None:
    """A process is described by its name and pid; on request its parent is described instead."""
    mine = processes.describe(os.getpid())
    assert mine.pid == os.getpid()
    assert mine.name.strip()
    assert str(mine) == f"{mine.name} (pid {os.getpid()})"
    assert processes.describe(os.getpid(), above=True).pid == os.getppid()


def test_an_unusual_name(tmp_path: Path) -> None:
    """A name may contain parentheses, and its control characters are shown escaped."""
    program = shutil.copy("/bin/sleep", tmp_path / ") 1 (\x1b[31m")
    with subprocess.Popen([program, "60"]) as process:
        described = processes.describe(process.pid)
        process.kill()
    assert described.name == ") 1 (\\x1b[31m"


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1])
def test_a_process_that_cannot_be_seen(pid: int) -> None:
    """A process that has ended or is in another pid namespace is unknown, which is not an error."""
    assert processes.describe(pid) == processes.describe(pid, above=True) == processes.UNKNOWN
    assert str(processes.UNKNOWN) == "an unknown process"


def test_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS the name and the parent come from ps. If ps fails, the process is unknown."""
    monkeypatch.setattr(sys, "platform", "darwin")
    answer = subprocess.CompletedProcess([], 0, "  7 /opt/local/bin/uv\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert processes.describe(5) == processes.Process(5, "uv")
    assert processes.describe(5, above=True) == processes.Process(7, "uv")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", ""))
    assert processes.describe(5) == processes.UNKNOWN
