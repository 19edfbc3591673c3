"""A real daemon gets SIGTERM while one of its workers ignores SIGTERM: it ends and leaves no process behind."""

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

#: A module that the daemon runs first, but not its workers. It sets how many seconds a worker with a one-time secret
#: may take to end, and whether this provider's workers have one.
SHIM = """
import sys
if "run" in sys.orig_argv:
    from uvtokend.daemon import worker
    worker.SAVING = {saving}
    worker.spends_one_time_secret = lambda request: {spends}
"""


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a machine whose index has a provider that never answers and ignores SIGTERM."""
    created = Machine(tmp_path_factory.mktemp("m"))
    note = created.directory / "note"
    created.environment["PYTHONPATH"] = install(created.directory / "plugin")["PYTHONPATH"]
    created.write(
        '[[index]]\nname = "a"\nurl = "https://a.example/simple/"\nprovider = "made-up"\n'
        f'options = {{ how = "deaf", note = "{note}" }}\n'
    )
    yield created
    created.stop()


@pytest.mark.parametrize(("spends", "saving"), [(False, 3600.0), (True, 1.0)])
def test_a_worker_that_ignores_sigterm_is_killed(machine: Machine, spends: bool, saving: float) -> None:
    """An ordinary worker is killed at once. One that uses a one-time secret gets SIGTERM, has a limited time to save
    its successor, and is then killed. Helper processes are killed too."""
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
    assert lifecycle_events(machine.state) == ["started", "stopped"]


def test_a_second_signal_changes_nothing(machine: Machine) -> None:
    """Repeated signals end the daemon as one does, without a traceback."""
    machine.start()
    assert machine.daemon is not None
    until((machine.directory / "note").exists)
    for _ in range(3):
        machine.daemon.terminate()
    assert machine.daemon.wait(PATIENCE) == 0
    assert "Traceback" not in machine.output.read_text()
    assert subprocess.run(machine.ourselves("status"), env=machine.environment, check=False).returncode == 3


def lifecycle_events(state: Path) -> list[str]:
    """Return the logged events about the daemon's start and end, and about hung workers."""
    events = [json.loads(line)["event"] for line in (state / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event in {"started", "stopped", "worker-hung"}]
