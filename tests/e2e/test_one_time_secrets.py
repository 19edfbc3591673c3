"""If the daemon stops while a worker uses a one-time secret, the worker saves its successor first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clouds.gitlab import GitLab
from clouds.jfrog import JFrog
from support.daemons import await_ready
from support.machines import bare_machine, keep
from support.waiting import PATIENCE, until
from uvtokend.sandbox.machine import Machine
from uvtokend.sandbox.web import Answer


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with bare_machine(tmp_path_factory) as made:
        yield made


class Burning:
    """A stage of an emulated issuer that delays the response after the one-time secret is used up."""

    def __init__(self) -> None:
        self.burnt = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, name: str) -> None:
        if name == "burnt":
            self.burnt.set()
            self.go_on.wait(PATIENCE)


def stop_while(machine: Machine, burning: Burning) -> None:
    """Stop the daemon while a worker uses the secret,
    and let the issuer answer only once the worker has its SIGTERM.
    """
    machine.start()
    assert burning.burnt.wait(PATIENCE)
    assert machine.daemon is not None
    daemon = psutil.Process(machine.daemon.pid)
    (worker,) = until(lambda: len(running := daemon.children()) == 1 and running)  # an earlier one may still be ending
    machine.daemon.terminate()
    until(lambda: not worker.is_running() or signal.SIGTERM in pending(worker.pid))
    burning.go_on.set()
    assert machine.daemon.wait(PATIENCE) == 0


def pending(pid: int) -> set[int]:
    """Return the signals that are pending for a process (proc(5), ``ShdPnd``)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return set()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd:"))
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_stopping_loses_no_jfrog_chain(machine: Machine) -> None:
    """The worker saves the new refresh token before it ends, and the next start continues with it."""
    burning = Burning()
    with JFrog() as platform:
        access, refresh = platform.pair()
        platform.stage = burning
        machine.write(
            f'[[index]]\nname = "acme"\nurl = "{platform.url}/artifactory/api/pypi/pypi/simple/"\n'
            f'provider = "jfrog-artifactory"\naccess-token = {keep(machine, "access", access)}\n'
            f"refresh-token = {keep(machine, 'refresh', refresh)}\n"
        )
        stop_while(machine, burning)
        assert platform.refreshed == 1
        done = machine.uvtokend("once")
        assert done.returncode == 0, done.stderr
        assert "login person" in machine.netrc.read_text()


def rotated(cloud: GitLab, reference: str) -> str:
    """Return the table of an index whose token is rotated."""
    return (
        f'[[index]]\nname = "team"\nurl = "{cloud.url}/api/v4/projects/42/packages/pypi/simple"\n'
        f'provider = "gitlab"\ntoken = {reference}\nrotate = true\n'
    )


def test_stopping_loses_no_gitlab_token(machine: Machine) -> None:
    """The worker writes the new token to the user's file before it ends."""
    burning = Burning()
    with GitLab() as cloud:
        reference = keep(machine, "token", cloud.personal(days=90, age=85))
        cloud.stage = burning
        machine.write(rotated(cloud, reference))
        stop_while(machine, burning)
        token = (machine.home / "token").read_text().strip()
        assert (cloud.rotated, cloud.active(token)) == (1, True)
        done = machine.uvtokend("once")
        assert done.returncode == 0, done.stderr
        assert token in machine.netrc.read_text()


def test_a_refused_rotation_is_reported_and_the_token_delivered(machine: Machine) -> None:
    """If GitLab refuses the rotation, the old token is delivered while it is valid, and `status` names the fix."""
    with GitLab() as cloud:
        token = cloud.personal(scopes=("read_api",), days=90, age=85)
        machine.write(rotated(cloud, keep(machine, "token", token)))
        machine.start()
        await_ready(machine)
        assert token in machine.netrc.read_text()
        shown = " ".join(machine.uvtokend("status").stdout.split())
        assert "could not be rotated, and is used until it expires" in shown
        assert "self_rotate" in shown
        assert cloud.rotated == 0


def test_a_used_token_is_not_sent_again_after_purge(machine: Machine) -> None:
    """After a lost response and a purge, the old token is still never sent again; a new one works."""
    with GitLab() as cloud:
        machine.write(rotated(cloud, keep(machine, "token", cloud.personal(days=90, age=85))))
        cloud.fault = lambda call: Answer(502) if call.method == "POST" else None
        assert machine.uvtokend("once").returncode == 1
        cloud.fault = None
        purged = machine.uvtokend("purge", "--yes")
        assert (purged.returncode, "Kept " in purged.stderr) == (0, True)
        asked = len(cloud.server.calls)
        done = machine.uvtokend("once")
        assert (done.returncode, "interrupted" in done.stderr + done.stdout) == (1, True), done.stderr
        assert (cloud.rotated, len(cloud.server.calls)) == (0, asked)
        keep(machine, "token", cloud.personal())
        assert machine.uvtokend("once").returncode == 0
        assert "Kept " not in machine.uvtokend("purge", "--yes").stderr
        assert not machine.state.exists()
