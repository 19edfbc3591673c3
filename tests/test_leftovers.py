"""A test run that is killed leaves no daemon behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.daemons import ask
from support.desk import Desk, desk, gone

__all__ = ["desk"]

#: What a test run is to its daemons, and its sudden end.
KILLED = """\
import os, signal, sys
from pathlib import Path
from support.leftovers import ended_with_us
ended_with_us(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_killed_run_takes_its_daemons_along(desk: Desk) -> None:
    """A daemon that detached itself ends although its test run was killed and could not stop it."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    daemon = psutil.Process(ask(desk.socket, "version")["pid"])
    tests = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", KILLED, str(desk.home)], cwd=tests, check=False)
    assert done.returncode == -signal.SIGKILL
    gone(daemon)
