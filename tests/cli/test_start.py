"""`start` and what it waits for, and which of the daemon's events the log contains."""

from __future__ import annotations

import json
import os

import psutil

from support.daemons import ask, await_daemon
from support.desk import TOKEN, Desk, desk, gone
from support.waiting import until

__all__ = ["desk"]


def test_start_waits_for_the_first_tokens(desk: Desk) -> None:
    """`start` returns once the first tokens are delivered, so `uvtokend start && uv sync` works on a first start."""
    desk.configure(("a", "a.example"), ("b", "b.example"))
    done = desk.run("start")
    assert TOKEN in desk.netrc.read_text()
    assert done.stdout.splitlines()[0] == "All 2 indexes are ready."
    assert "is running (pid" in done.stderr
    again = desk.run("start")
    assert "is running already (pid" in again.stderr
    assert again.stdout.splitlines()[0] == "All 2 indexes are ready."


def slow(desk: Desk) -> None:
    """Configure an index whose command takes longer than the test."""
    desk.configure(("a", "a.example"))
    desk.config.write_text(desk.config.read_text().replace('["cat", ', '["tail", "-f", '))


def test_start_waits_no_longer_than_requested(desk: Desk) -> None:
    """After `--wait` seconds, `start` succeeds because the daemon runs, and shows that the fetch continues."""
    slow(desk)
    with desk.popen("run", "--quiet"):
        await_daemon(desk.socket)  # which may take longer than the wait on a busy machine
        done = desk.run("start", "--wait", "1")
        desk.run("stop")
    assert done.stdout.splitlines()[0] == "The index is not ready; it is fetching its token."
    assert "fetching…" in done.stdout


def test_start_shows_a_failed_token_and_still_succeeds(desk: Desk) -> None:
    """`start` exits with 0 because the daemon runs, and prints why an index has no token."""
    desk.configure(("a", "a.example"))
    desk.answer("a", "garbage")
    done = desk.run("start")
    assert done.stdout.splitlines()[1].startswith("a: ")


def test_an_invalid_configuration_leaves_no_daemon(desk: Desk) -> None:
    """If the configuration is invalid, `start` stops the daemon that it has already spawned and prints the problems."""
    desk.configure(("a", "a.example"))
    desk.config.write_text(desk.config.read_text() + "\nnonsense = 1\n")
    done = desk.run("start", status=2)
    assert "nonsense" in done.stderr
    assert "could not start" not in done.stderr
    assert "not running" in desk.run("status", status=3).stdout
    assert not [process for process in psutil.process_iter() if str(desk.home) in _environment(process)]


def _environment(process: psutil.Process) -> str:
    try:
        return " ".join(process.environ().values()) if "uvtokend" in process.cmdline() else ""
    except psutil.Error:
        return ""


def test_start_reports_a_daemon_that_ends_without_a_message(desk: Desk) -> None:
    """If the daemon ends unexpectedly, `start` prints its exit status and the command that shows its output."""
    desk.configure(("a", "a.example"))
    broken = desk.home / "broken"
    broken.mkdir()
    (broken / "asyncio.py").write_text("import os; os._exit(7)")
    desk.extra["PYTHONPATH"] = os.pathsep.join([str(broken), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = desk.run("start", status=1)
    assert "ended with status 7" in done.stderr
    assert f"fix: tail {desk.state / 'daemon.log'}" in done.stderr


def events(desk: Desk) -> list[tuple[str, str]]:
    """Return kind and message of every event."""
    lines = (desk.state / "events.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert all(record["at"].endswith("Z") for record in records)
    return [(record["event"], record["message"]) for record in records]


def test_the_log_contains_the_daemons_events(desk: Desk) -> None:
    """The log contains start, reload, other programs' edits, stop with its reason,
    and a crash, noted at the next start.
    """
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("reload")
    desk.netrc.write_bytes(desk.netrc.read_bytes() + b"# somebody was here\n")
    until(
        lambda: desk.run("status") and "changed" in [kind for kind, _ in events(desk)]
    )  # a request makes the daemon check the netrc at once
    desk.run("stop")
    logged = events(desk)
    kinds = [kind for kind, _ in logged]
    assert [kind for kind in kinds if kind in {"started", "reloaded", "changed", "stopped", "crashed"}] == [
        "started",
        "reloaded",
        "changed",
        "stopped",
    ]
    assert logged[-1] == ("stopped", "The daemon stopped: uvtokend stop.")
    assert ("reloaded", "Configuration reloaded (1 index).") in logged
    assert ("changed", f"Another program changed {desk.netrc}.") in logged
    desk.run("start")
    process = psutil.Process(ask(desk.socket, "version")["pid"])
    process.kill()
    gone(process)
    desk.run("start")
    assert [kind for kind, _ in events(desk)].count("crashed") == 1
    process = psutil.Process(ask(desk.socket, "version")["pid"])
    process.terminate()
    gone(process)
    assert events(desk)[-1] == ("stopped", "The daemon stopped: SIGTERM.")


def test_a_deleted_log_does_not_mean_that_no_daemon_ran(desk: Desk) -> None:
    """`log` says that no daemon has run yet only if that is true; otherwise it says that the file was deleted."""
    desk.configure(("a", "a.example"))
    assert "has not run here yet" in desk.run("log").stderr
    desk.run("start")
    desk.run("stop")
    (desk.state / "events.jsonl").unlink()
    assert "the file was deleted, or log-level hides what happened" in desk.run("log").stderr


def test_a_daemon_without_an_index_loads_the_first_one(desk: Desk) -> None:
    """A daemon that started without an index loads the first one that `add` writes, without a restart."""
    done = desk.run("start")
    assert "uvtokend init" in done.stdout
    pid = ask(desk.socket, "version")["pid"]
    (desk.home / "secret").write_text(TOKEN)
    (desk.home / "secret").chmod(0o600)
    secret = f'password={{ file = "{desk.home}/secret" }}'
    options = ("--set", "provider=static", "--set", "username=me", "--set", secret)
    desk.run("add", "https://a.example/simple/", "--name", "a", *options)
    until(lambda: f"machine a.example login me password {TOKEN}" in desk.netrc.read_text())
    assert ask(desk.socket, "version")["pid"] == pid


def test_a_daemon_without_an_index_loads_a_new_configuration(desk: Desk) -> None:
    """A daemon that started without an index loads a configuration file that appears later, without a reload."""
    desk.run("start")
    desk.configure(("a", "a.example"))
    until(lambda: TOKEN in desk.netrc.read_text())
    assert ("reloaded", "Configuration reloaded (1 index).") in events(desk)
