"""As process 1 of a container, the daemon reaps the orphans of helper programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.daemons import await_daemon
from support.desk import TOKEN, Desk, desk
from support.namespace import namespace
from support.waiting import until

__all__ = ["desk"]

#: A shorter guard tick than 25 s, but long enough for the daemon to wait for its own children between two ticks.
QUICK = """\
import sys
from uvtokend.daemon import timer
timer.GUARD_TICK = 1.0
from uvtokend.cli.main import main
sys.exit(main(["run"]))
"""


@pytest.mark.mounts
def test_orphans_of_helpers_are_reaped(desk: Desk, tmp_path: Path) -> None:
    """A helper's child that outlives it in its own session does not remain as a zombie of process 1.

    The daemon's own children are not affected: fetches and programs of `on-delivered` end normally.
    """
    left, hooked = tmp_path / "left", tmp_path / "hooked"
    helper = tmp_path / "helper"
    answer = f'{{"username": "me", "password": "{TOKEN}", "expires_in": 3600}}'
    helper.write_text(
        f"(setsid sh -c 'echo >>{left}; exec sleep 0.3' >/dev/null &)\n"
        # Once the fetch has ended, its process group is killed, and with it a child that is not in its session yet.
        f"until [ -e {left} ]; do sleep 0.01; done\necho '{answer}'\n"
    )
    desk.configure(
        daemon=f'[daemon]\non-delivered = ["sh", "-c", "echo >>{hooked}; exit 3"]\n[[index]]\n'
        f'name = "a"\nurl = "https://a.example/simple/"\nprovider = "command"\ncommand = ["sh", "{helper}"]'
    )
    words = namespace("", [sys.executable, "-c", QUICK], "--pid", "--fork", "--kill-child", "--mount-proc")
    container = subprocess.Popen(words, env=desk.env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_daemon(desk.socket)
        (daemon,) = psutil.Process(container.pid).children()
        desk.run("refresh")
        until(lambda: left.exists() and not daemon.children(recursive=True))
        assert desk.document("status")["pid"] == 1
        until(hooked.exists)
        until(lambda: "exited with status 3" in desk.run("status").stdout)
        daemon.terminate()
        assert container.wait(20) == 0
    finally:
        container.kill()
        container.wait()
