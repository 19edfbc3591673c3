"""``uvtokend purge`` asks for confirmation, but only on a terminal."""

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
def test_purge_asks_on_a_terminal_only(
    tmp_path: Path, answer: bytes | None, arguments: list[str], purged: bool
) -> None:
    """On a terminal only "y" continues; with --yes or without a terminal, purge does not ask."""
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
    errors = process.communicate(timeout=60)[1]
    os.close(ours)
    assert ("[y/N]" in errors) == (answer is not None)
    assert ("Nothing was removed." in errors) == (not purged)
    assert (process.returncode, machine.netrc.exists()) == ((0, False) if purged else (1, True))
