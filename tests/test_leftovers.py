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

#: A test run that guards its daemons as conftest.py does, and then kills itself.
KILLED = """\
import os, signal, sys
from pathlib import Path
from support.leftovers import ended_with_us
ended_with_us(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_daemons_of_a_killed_test_run_stop(desk: Desk) -> None:
    """A detached daemon stops although the test run that started it was killed and could not stop it."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    daemon = psutil.Process(ask(desk.socket, "version")["pid"])
    tests = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", KILLED, str(desk.home)], cwd=tests, check=False)
    assert done.returncode == -signal.SIGKILL
    gone(daemon)
