"""The program of ``on-delivered``, with real processes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest

from support.daemons import status
from support.waiting import runs, until
from uvtokend.core import hook as hook_rules
from uvtokend.daemon.hook import HookProgram
from uvtokend.sandbox.machine import Machine


class Reports:
    """The reports of the program's runs, in order."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()

    async def next(self) -> str | None:
        """Wait for the end of the next run."""
        return await asyncio.wait_for(self.queue.get(), 30)


def shell(script: str, environment: dict[str, str], reports: Reports, deadline: float = 30.0) -> HookProgram:
    """Return a hook whose program runs a shell script."""
    return HookProgram(lambda: ["/bin/sh", "-c", script], lambda: environment, deadline, reports.queue.put_nowait)


def test_the_program_gets_only_its_environment(tmp_path: Path) -> None:
    """The program gets exactly the given environment, no input or output, and its own session."""

    async def test() -> None:
        reports = Reports()
        session = '"$PYTHON" -c "import os; print(os.getsid(os.getppid()))" >> "$OUT"'
        script = f'env > "$OUT"; cat >> "$OUT"; {session}; echo $$ >> "$OUT"; echo said; echo said >&2'
        program = shell(script, {"OUT": str(tmp_path / "out"), "PYTHON": sys.executable}, reports)
        program.changed()
        assert await reports.next() is None
        await program.close()

    asyncio.run(test())
    *environment, session, pid = (tmp_path / "out").read_text().splitlines()
    assert {line.partition("=")[0] for line in environment} - {"PWD", "OLDPWD", "SHLVL", "_"} == {"OUT", "PYTHON"}
    assert session.strip() == pid


def test_changes_during_a_run_are_joined(tmp_path: Path) -> None:
    """Five changes during a run cause one more run."""

    async def test() -> None:
        reports = Reports()
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        program = shell(f'echo run >> "{tmp_path}/runs"; read line < "{gate}"', {}, reports)
        program.changed()
        for _ in range(5):
            program.changed()
        for _ in range(2):
            await asyncio.to_thread(gate.write_text, "go\n")
            assert await reports.next() is None
        await program.close()

    asyncio.run(test())
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


def test_a_failure_is_reported_and_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status of a failed run is reported, the program runs again, and its success is reported too."""
    monkeypatch.setattr("random.random", lambda: 0.0)

    async def test() -> None:
        reports = Reports()
        program = shell(f'[ -e "{tmp_path}/ok" ] || {{ touch "{tmp_path}/ok"; exit 7; }}', {}, reports)
        program.changed()
        assert await reports.next() == "The program of on-delivered, '/bin/sh', exited with status 7."
        assert await reports.next() is None
        await program.close()

    asyncio.run(test())


def test_a_program_that_is_missing() -> None:
    """A missing program is reported by name, and the daemon continues."""

    async def test() -> None:
        reports = Reports()
        program = HookProgram(lambda: ["/nonexistent/program"], dict, 30.0, reports.queue.put_nowait)
        program.changed()
        problem = "cannot be started: No such file or directory"
        assert await reports.next() == f"The program of on-delivered, '/nonexistent/program', {problem}."
        await program.close()

    asyncio.run(test())


def test_a_hung_program_is_killed_with_its_children(tmp_path: Path) -> None:
    """At the deadline the program and its children are killed."""

    async def test(seconds: float) -> list[int]:
        reports, pids = Reports(), tmp_path / f"{seconds}"
        program = shell(f'sleep 600 & echo $! > "{pids}"; wait', {}, reports, deadline=seconds)
        program.changed()
        assert f"did not end within {seconds:g} s and was killed" in (await reports.next() or "")
        await program.close()
        return [int(line) for line in pids.read_text().split()] if pids.exists() else []

    # On a busy machine the child starts late.
    (child,) = next(filter(None, (asyncio.run(test(seconds)) for seconds in (0.5, 4.0, 25.0))))
    until(lambda: not runs(child))


def test_a_program_on_a_hung_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the program can be neither started nor killed, because a file system does not answer, the loop goes on, and
    the problem is reported at the deadline and at each repetition. No other run is started until the first one has
    ended, and a program that starts after the end of the daemon is killed at once."""
    monkeypatch.setattr("random.random", lambda: 0.0)
    monkeypatch.setattr(hook_rules, "BASE", 1.0)
    answers, started = threading.Event(), list[str]()
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]

    def environment() -> dict[str, str]:
        started.append("")
        answers.wait(60)
        return {}

    async def test() -> list[int]:
        reports = Reports()
        program = HookProgram(lambda: sleeps, environment, 0.1, reports.queue.put_nowait)
        program.changed()
        for _ in range(2):
            assert "because a file system does not answer" in str(await reports.next())
            assert len(started) == 1
        run = program._running
        assert run is not None
        monkeypatch.setattr("uvtokend.daemon.hook.KILLED", 0.01)
        await asyncio.wait_for(program.close(), 30)
        answers.set()
        await asyncio.to_thread(run.ended.wait, 30)
        assert run._process is not None
        return [run._process.pid]

    (pid,) = asyncio.run(test())
    assert not runs(pid)


def test_closing_ends_a_run() -> None:
    """A running program is killed when the daemon ends, and its end is not reported."""

    async def test() -> None:
        reports, hang = Reports(), [sys.executable, "-c", "import time; time.sleep(600)"]
        program = HookProgram(lambda: hang, dict, 600.0, reports.queue.put_nowait)
        program.changed()
        await program.close()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert reports.queue.empty()

    asyncio.run(test())


def test_the_daemon_runs_the_program_after_each_change(tmp_path: Path) -> None:
    """The program runs after a delivery and after a removal. It gets the index names and the netrc, but no secret or
    token."""
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


def test_the_status_shows_the_failure_of_the_program(tmp_path: Path) -> None:
    """Until a run succeeds, the status shows which program failed and how. Tokens are not affected."""
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
