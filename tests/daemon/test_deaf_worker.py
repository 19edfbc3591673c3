"""SIGTERM to a real daemon one of whose workers ignores SIGTERM: the daemon ends, and leaves nobody behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from plugin import install

from support.waiting import PATIENCE, until
from uvtokend.sandbox.machine import Machine

#: What the daemon, and no worker of it, runs before anything else: how long a worker that spends a one-time secret may
#: take, and whether this provider's do.
SHIM = """
import sys
if "run" in sys.orig_argv:
    from uvtokend.daemon import worker
    worker.SAVING = {saving}
    worker.spends_one_time_secret = lambda request: {spends}
"""


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose index has a provider that never answers and ignores SIGTERM."""
    made = Machine(tmp_path_factory.mktemp("m"))
    note = made.directory / "note"
    made.environment["PYTHONPATH"] = install(made.directory / "plugin")["PYTHONPATH"]
    made.write(
        '[[index]]\nname = "a"\nurl = "https://a.example/simple/"\nprovider = "made-up"\n'
        f'options = {{ how = "deaf", note = "{note}" }}\n'
    )
    yield made
    made.stop()


@pytest.mark.parametrize(("spends", "saving"), [(False, 3600.0), (True, 1.0)])
def test_a_deaf_worker_keeps_no_daemon_alive(machine: Machine, spends: bool, saving: float) -> None:
    """An ordinary fetch is killed at once, though an hour would be left for one that spends a one-time secret; such a
    one is asked, waited for as long as it may take to save the successor, and then killed. The helpers go with both."""
    shim = machine.directory / "plugin" / "sitecustomize.py"
    shim.write_text(SHIM.format(spends=spends, saving=saving))
    machine.start()
    assert machine.daemon is not None
    note = machine.directory / "note"
    until(note.exists)
    worker, helper = (psutil.Process(int(pid)) for pid in note.read_text().split())
    machine.daemon.terminate()
    assert machine.daemon.wait(PATIENCE) == 0
    assert not worker.is_running()
    until(lambda: not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE)
    assert said(machine.state) == ["started", "stopped"]


def test_a_second_signal_changes_nothing(machine: Machine) -> None:
    """Whoever is impatient gets the same end, and no traceback."""
    machine.start()
    assert machine.daemon is not None
    until((machine.directory / "note").exists)
    for _ in range(3):
        machine.daemon.terminate()
    assert machine.daemon.wait(PATIENCE) == 0
    assert "Traceback" not in machine.output.read_text()
    assert subprocess.run(machine.ourselves("status"), env=machine.environment, check=False).returncode == 3


def said(state: Path) -> list[str]:
    """Return what the log says of the daemon's own life, and of workers that do not end."""
    events = [json.loads(line)["event"] for line in (state / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event in {"started", "stopped", "worker-hung"}]
