"""The program of ``on-delivered``, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import psutil
import pytest

from support.daemons import status
from support.waiting import until
from uvtokend.daemon.hook import HookProgram
from uvtokend.sandbox.machine import Machine


class Told:
    """What the program's runs have told, one after another."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()

    async def next(self) -> str | None:
        """Wait for the end of the next run."""
        return await asyncio.wait_for(self.queue.get(), 30)


def shell(script: str, environment: dict[str, str], told: Told, deadline: float = 30.0) -> HookProgram:
    """Return a program that runs a script."""
    return HookProgram(lambda: ["/bin/sh", "-c", script], lambda: environment, deadline, told.queue.put_nowait)


def test_it_gets_its_environment_and_nothing_else(tmp_path: Path) -> None:
    """The environment is the one that it is given; input and output lead nowhere; it leads its own session."""

    async def test() -> None:
        told = Told()
        session = '"$PYTHON" -c "import os; print(os.getsid(os.getppid()))" >> "$OUT"'
        script = f'env > "$OUT"; cat >> "$OUT"; {session}; echo $$ >> "$OUT"; echo said; echo said >&2'
        program = shell(script, {"OUT": str(tmp_path / "out"), "PYTHON": sys.executable}, told)
        program.changed()
        assert await told.next() is None
        program.close()

    asyncio.run(test())
    *environment, session, pid = (tmp_path / "out").read_text().splitlines()
    assert {line.partition("=")[0] for line in environment} - {"PWD", "OLDPWD", "SHLVL", "_"} == {"OUT", "PYTHON"}
    assert session.strip() == pid


def test_changes_meanwhile_are_joined(tmp_path: Path) -> None:
    """Five changes during a run lead to one more run."""

    async def test() -> None:
        told = Told()
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        program = shell(f'echo run >> "{tmp_path}/runs"; read line < "{gate}"', {}, told)
        program.changed()
        for _ in range(5):
            program.changed()
        for _ in range(2):
            await asyncio.to_thread(gate.write_text, "go\n")
            assert await told.next() is None
        program.close()

    asyncio.run(test())
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


def test_a_failure_is_told_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status is told; the program runs again by itself, and a success is told as well."""
    monkeypatch.setattr("random.random", lambda: 0.0)

    async def test() -> None:
        told = Told()
        program = shell(f'[ -e "{tmp_path}/ok" ] || {{ touch "{tmp_path}/ok"; exit 7; }}', {}, told)
        program.changed()
        assert await told.next() == "The program of on-delivered, '/bin/sh', exited with status 7."
        assert await told.next() is None
        program.close()

    asyncio.run(test())


def test_a_program_that_is_missing() -> None:
    """It is told by name, and the daemon continues."""

    async def test() -> None:
        told = Told()
        program = HookProgram(lambda: ["/nonexistent/program"], dict, 30.0, told.queue.put_nowait)
        program.changed()
        problem = "cannot be started: No such file or directory"
        assert await told.next() == f"The program of on-delivered, '/nonexistent/program', {problem}."
        program.close()

    asyncio.run(test())


def runs(pid: int) -> bool:
    """Return whether a process runs: one that was killed may be left for its parent to wait for."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """After the deadline, and when the daemon closes: nothing of it is left."""

    async def test(seconds: float) -> list[int]:
        told, pids = Told(), tmp_path / f"{seconds}"
        program = shell(f'sleep 600 & echo $! > "{pids}"; wait', {}, told, deadline=seconds)
        program.changed()
        assert f"did not end within {seconds:g} s and was killed" in (await told.next() or "")
        program.close()
        return [int(line) for line in pids.read_text().split()] if pids.exists() else []

    # On a busy machine it takes long until the child is there.
    (child,) = next(filter(None, (asyncio.run(test(seconds)) for seconds in (0.5, 4.0, 25.0))))
    until(lambda: not runs(child))


def test_closing_ends_a_run() -> None:
    """A run under way does not outlive the daemon, and its end is not told."""

    async def test() -> None:
        told, hang = Told(), [sys.executable, "-c", "import time; time.sleep(600)"]
        program = HookProgram(lambda: hang, dict, 600.0, told.queue.put_nowait)
        program.changed()
        program.close()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert told.queue.empty()

    asyncio.run(test())


def test_the_daemon_runs_it_after_each_change(tmp_path: Path) -> None:
    """It runs after a delivery and a removal, knows indexes and netrc, and gets neither a secret nor a token."""
    machine = Machine(tmp_path)
    note, script = tmp_path / "note", tmp_path / "script"
    script.write_text(f'(env; cat "$UVTOKEND_NETRC") > "{note}.new"; mv "{note}.new" "{note}"')
    machine.write(
        f"""
        [daemon]
        on-delivered = ["/bin/sh", "{script}"]
        [[index]]
        name = "corp"
        url = "https://corp.example/simple/"
        provider = "static"
        username = "me"
        password = {{ env = "CORP_TOKEN" }}
        """
    )
    machine.start({"CORP_TOKEN": "s3cr3t-token"})
    try:
        until(note.exists)
        environment = note.read_text()
        assert "UVTOKEND_INDEXES=corp\n" in environment
        assert f"UVTOKEND_NETRC={machine.netrc}\n" in environment
        assert "CORP_TOKEN" not in environment
        assert "machine corp.example login me password s3cr3t-token" in environment
        assert "s3cr3t" not in environment.partition("#uvtokend")[0]
        note.unlink()
        machine.config.write_text(
            machine.config.read_text().replace('provider = "static"', 'provider = "static"\nenabled = false')
        )
        assert machine.uvtokend("reload").returncode == 0
        until(note.exists)
        assert "corp.example" not in note.read_text()
    finally:
        machine.stop()


def test_the_status_tells_its_failure(tmp_path: Path) -> None:
    """Until a run succeeds, `status` says which program failed and how; tokens are not affected."""
    machine = Machine(tmp_path)
    machine.write(
        """
        [daemon]
        on-delivered = ["/bin/sh", "-c", "exit 7"]
        [[index]]
        name = "corp"
        url = "https://corp.example/simple/"
        provider = "command"
        command = ["echo", '{"username": "me", "password": "t0ken"}']
        """
    )
    machine.start()
    try:
        until(lambda: "exited with status 7" in str(status(machine)))
        assert machine.uvtokend("status").returncode == 0
    finally:
        machine.stop()
