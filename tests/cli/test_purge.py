"""``uvtokend purge`` asks on a terminal only."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from uvtokend.sandbox.machine import Machine

CONFIG = '[[index]]\nname = "a"\nurl = "https://a.example/simple/"\nprovider = "static"\nusername = "me"\n'


@pytest.mark.parametrize(
    ("answer", "arguments", "purged"),
    [(b"y\n", [], True), (b"n\n", [], False), (b"\n", [], False), (None, ["--yes"], True), (None, [], True)],
    ids=["yes", "no", "enter", "--yes", "no terminal"],
)
def test_it_asks_on_a_terminal_only(tmp_path: Path, answer: bytes | None, arguments: list[str], purged: bool) -> None:
    """Only a clear yes continues; --yes is never asked, and neither is a command without a terminal."""
    machine = Machine(tmp_path)
    machine.environment["SECRET"] = "hunter2"
    machine.write(CONFIG + 'password = { env = "SECRET" }\n')
    assert machine.uvtokend("once").returncode == 0
    ours, theirs = pty.openpty()
    on_terminal = answer is not None or arguments
    process = subprocess.Popen(
        machine.ourselves("purge", *arguments),
        env=machine.environment,
        stdin=theirs if on_terminal else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    os.write(ours, answer or b"")
    said = process.communicate(timeout=60)[1]
    os.close(ours)
    assert ("[y/N]" in said) == (answer is not None)
    assert ("Nothing was removed." in said) == (not purged)
    assert (process.returncode, machine.netrc.exists()) == ((0, False) if purged else (1, True))
