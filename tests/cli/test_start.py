"""`start` and what it waits for, and what the log says of the daemon's life."""

from __future__ import annotations

import json
import os

import psutil

from support.daemons import ask, await_daemon
from support.desk import TOKEN, Desk, desk, gone
from support.waiting import until

__all__ = ["desk"]


def test_start_waits_for_the_first_tokens(desk: Desk) -> None:
    """`uvtokend start && uv sync` works on a first start: the tokens are there when it returns, and it says so."""
    desk.configure(("a", "a.example"), ("b", "b.example"))
    done = desk.run("start")
    assert TOKEN in desk.netrc.read_text()
    assert done.stdout.splitlines()[0] == "All 2 indexes are ready."
    assert "is running (pid" in done.stderr
    again = desk.run("start")
    assert "is running already (pid" in again.stderr
    assert again.stdout.splitlines()[0] == "All 2 indexes are ready."


def slow(desk: Desk) -> None:
    """Configure an index whose command takes longer than a test."""
    desk.configure(("a", "a.example"))
    desk.config.write_text(desk.config.read_text().replace('["cat", ', '["tail", "-f", '))


def test_start_waits_no_longer_than_it_is_told(desk: Desk) -> None:
    """The daemon runs, so it is success; the status says what it is still doing."""
    slow(desk)
    with desk.popen("run", "--quiet"):
        await_daemon(desk.socket)  # which may take longer than the wait on a busy machine
        done = desk.run("start", "--wait", "1")
        desk.run("stop")
    assert done.stdout.splitlines()[0] == "The index is not ready; it is fetching its token."
    assert "fetching…" in done.stdout


def test_start_shows_a_failed_token_and_still_succeeds(desk: Desk) -> None:
    """The daemon runs: that is what was asked for. Why there is no token is in the status."""
    desk.configure(("a", "a.example"))
    desk.answer("a", "garbage")
    done = desk.run("start")
    assert done.stdout.splitlines()[1].startswith("a: ")


def test_an_invalid_configuration_is_shown_as_it_is_and_no_daemon_remains(desk: Desk) -> None:
    """The daemon starts while `start` reads the configuration; if that is invalid, the daemon is ended first."""
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


def test_start_names_a_daemon_that_ends_without_a_word(desk: Desk) -> None:
    """What no code of ours caught is in the daemon's output, and the command that shows it is named."""
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


def test_the_log_tells_the_daemons_life(desk: Desk) -> None:
    """Start, reload, another program's edit, stop with its reason, and a crash, found at the next start."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("reload")
    desk.netrc.write_bytes(desk.netrc.read_bytes() + b"# somebody was here\n")
    until(lambda: desk.run("status") and "changed" in [kind for kind, _ in events(desk)])  # asked, it looks at once
    desk.run("stop")
    told = events(desk)
    kinds = [kind for kind, _ in told]
    assert [kind for kind in kinds if kind in {"started", "reloaded", "changed", "stopped", "crashed"}] == [
        "started",
        "reloaded",
        "changed",
        "stopped",
    ]
    assert told[-1] == ("stopped", "The daemon stopped: uvtokend stop.")
    assert ("reloaded", "Configuration reloaded (1 index).") in told
    assert ("changed", f"Another program changed {desk.netrc}.") in told
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


def test_a_log_that_is_gone_is_not_a_daemon_that_never_ran(desk: Desk) -> None:
    """Nobody is told that the daemon never ran when it did."""
    desk.configure(("a", "a.example"))
    assert "has not run here yet" in desk.run("log").stderr
    desk.run("start")
    desk.run("stop")
    (desk.state / "events.jsonl").unlink()
    assert "the file was deleted, or log-level hides what happened" in desk.run("log").stderr


def test_a_daemon_without_an_index_takes_up_the_first(desk: Desk) -> None:
    """Started before anything is configured, as on a new machine, it waits and says so; `add` is all that is needed."""
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


def test_a_daemon_without_an_index_takes_up_the_sites(desk: Desk) -> None:
    """Nobody needs to tell it of a file that a device management puts in place later."""
    desk.run("start")
    desk.configure(("a", "a.example"))
    until(lambda: TOKEN in desk.netrc.read_text())
    assert ("reloaded", "Configuration reloaded (1 index).") in events(desk)
