"""The command line, with real processes, the real daemon and real files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.daemons import ask, await_daemon
from support.desk import FOREIGN, TOKEN, Desk, desk, gone, on_terminal
from uvtokend import __version__

__all__ = ["desk"]


# --------------------------------------------------------------------------------------------- wrong usage, no daemon


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nope"],
        ["--nope"],
        ["status", "--nope"],
        ["refresh", "--watch"],
        ["start", "--wait", "soon"],
        ["start", "--wait", "-1"],
        ["stop", "now"],
        ["adopt"],
        ["--config"],
        ["status", "--config"],
        ["status", "nobody"],
        ["once", "nobody"],
        ["adopt", "nobody"],
    ],
)
def test_wrong_usage_is_2(desk: Desk, args: list[str]) -> None:
    """Wrong usage, including an unknown index name, exits with 2 and a message on standard error."""
    done = desk.run(*args, status=2)
    assert done.stderr
    assert not done.stdout


def test_help_and_version_go_to_standard_output(desk: Desk) -> None:
    """`--help` and `--version` print to standard output, and `--help` lists every verb."""
    assert desk.run("--version").stdout == f"uvtokend {__version__}\n"
    text = desk.run("--help").stdout
    verbs = ("run", "start", "stop", "restart", "reload", "status", "refresh", "once", "log", "purge", "adopt", "demo")
    assert all(f"\n  {verb} " in text for verb in verbs)
    assert "--watch" in desk.run("status", "--help").stdout


def test_without_a_configuration_status_names_init(desk: Desk) -> None:
    """A missing or empty configuration is not an error: status names `uvtokend init` and exits with 0."""
    assert "uvtokend init" in desk.run("status").stdout
    document = json.loads((done := desk.run("status", "--json")).stdout)
    assert (document["pid"], document["indexes"]) == (None, [])
    assert "uvtokend init" in done.stderr
    desk.configure()
    assert "uvtokend init" in desk.run("status").stdout
    assert not desk.state.exists()


@pytest.mark.parametrize("verb", ["run", "start", "restart", "once", "adopt"])
def test_an_invalid_configuration_is_2_with_all_its_problems(desk: Desk, verb: str) -> None:
    """For an invalid configuration, every verb exits with 2 and lists all problems, each with file, key and fix."""
    desk.configure()
    desk.config.write_text('[daemon]\nmax-wrkers = 1\n\n[[index]]\nurl = "ftp://x.example/"\nname = "x"\n')
    done = desk.run(verb, *(["x"] if verb == "adopt" else []), status=2)
    lines = [line for line in done.stderr.splitlines() if str(desk.config) in line]
    assert len(lines) >= 2
    assert "max-wrkers" in done.stderr
    assert "max-workers" in done.stderr


def test_the_option_config_works_before_and_after_the_verb(desk: Desk) -> None:
    """`--config` works before and after the verb, for the hot verbs and for the others."""
    desk.configure(("a", "a.example"))
    other = desk.home / "other.toml"
    desk.config.rename(other)
    for args in (["--config", str(other), "status"], ["status", f"--config={other}"]):
        assert desk.document(*args, status=3)["config"] == str(other)
    for args in (["--config", str(other), "adopt", "a"], ["adopt", "a", "--config", str(other)]):
        assert "nothing to adopt" in desk.run(*args).stderr


@pytest.mark.parametrize(
    ("args", "said"), [(["stop"], "nothing to stop"), (["reload"], "uvtokend start"), (["refresh"], "uvtokend start")]
)
def test_a_verb_that_needs_a_daemon_is_3_without_one(desk: Desk, args: list[str], said: str) -> None:
    """A verb that needs a daemon exits with 3 if none runs, and says how to start one if that helps."""
    desk.configure(("a", "a.example"))
    done = desk.run(*args, status=3)
    assert "not running" in done.stderr
    assert said in done.stderr


# ------------------------------------------------------------------------------------------------------- a whole life


def test_a_life_from_start_to_purge(desk: Desk) -> None:
    """Each verb, run one after the other, does what it promises, and purge leaves the netrc as it was at first."""
    desk.configure(("a", "a.example"), ("b", "b.example"))
    assert "is running (pid" in desk.run("start").stderr
    assert "already" in desk.run("start").stderr
    desk.run("refresh")
    document = desk.document("status")
    assert [index["health"] for index in document["indexes"]] == ["fresh", "fresh"]
    assert document["pid"] == ask(desk.socket, "version")["pid"]
    assert {"version", "started_at", "config", "netrc", "socket", "delivery"} <= document.keys()
    assert [index["name"] for index in desk.document("status", "b")["indexes"]] == ["b"]
    assert [index["name"] for index in desk.document("refresh", "b")["indexes"]] == ["b"]
    for verb in ("status", "refresh"):
        assert "a, b" in desk.run(verb, "nobody", status=2).stderr
    assert desk.run("status").stdout.splitlines()[0] == "All 2 indexes are ready."
    assert TOKEN in desk.netrc.read_text()
    log = desk.run("log").stdout
    assert log.count("Fetched a new token") >= 2
    assert stat.S_IMODE((desk.state / "daemon.log").stat().st_mode) == 0o600
    assert "is stopped" in desk.run("stop").stderr
    document = desk.document("status", status=3)
    assert document["pid"] is None
    assert [(index["health"], index["delivered"]) for index in document["indexes"]] == [("fresh", True)] * 2
    assert "not running" in desk.run("status", status=3).stdout
    desk.run("purge")
    assert desk.netrc.read_bytes() == FOREIGN
    assert not desk.state.exists()
    assert not desk.socket.parent.exists()
    assert desk.config.exists()
    desk.run("purge")


def test_purge_stops_the_daemon_and_removes_a_netrc_that_it_created(desk: Desk) -> None:
    """purge stops the daemon first, and deletes the netrc if uvtokend created it."""
    desk.netrc.unlink()
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("refresh")
    process = psutil.Process(ask(desk.socket, "version")["pid"])
    desk.run("purge")
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert not desk.netrc.exists()


def test_purge_needs_no_state_and_leaves_a_foreign_netrc_alone(desk: Desk) -> None:
    """purge removes our block even without the state directory, and does not touch a netrc without our block."""
    desk.netrc.chmod(0o644)
    before = desk.netrc.stat()
    desk.run("purge")
    after = desk.netrc.stat()
    assert (after.st_mode, after.st_ino, after.st_mtime_ns) == (before.st_mode, before.st_ino, before.st_mtime_ns)
    desk.configure(("a", "a.example"))
    desk.run("once")
    desk.config.write_text("nonsense")
    for file in desk.state.iterdir():
        file.unlink()
    desk.state.rmdir()
    desk.run("purge")
    assert desk.netrc.read_bytes() == FOREIGN


def test_purge_removes_the_chains_of_refresh_tokens(desk: Desk) -> None:
    """purge deletes our stored refresh tokens, and tells the user that the original token pairs are used up."""
    assert "token pairs" not in desk.run("purge").stderr
    chains = desk.state / "chains"
    chains.mkdir(parents=True, mode=0o700)
    desk.state.chmod(0o700)
    for name in ("a.json", "a.json.lock", "a.json.new", "a.json.room"):
        (chains / name).write_text("{}")
    assert "create new token pairs" in desk.run("purge").stderr
    assert not desk.state.exists()


def test_purge_keeps_the_mark_of_an_interrupted_rotation(desk: Desk) -> None:
    """purge says which marks of an interrupted token rotation it keeps, why, and how to get rid of them."""
    chains, token = desk.state / "chains", desk.home / "token"
    chains.mkdir(parents=True, mode=0o700)
    desk.state.chmod(0o700)
    token.write_text(f"{TOKEN}\n")
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    for name, mark in (
        ("lost", {"token_sha256": digest, "file": str(token), "successor": None}),
        ("copy", {"token_sha256": digest, "file": str(token), "successor": TOKEN}),
        ("older", {"token_sha256": digest, "successor": None}),
        ("replaced", {"token_sha256": "0", "file": str(token), "successor": None}),
        ("gone", {"token_sha256": "0", "file": "/nonexistent/token", "successor": None}),
    ):
        (chains / f"{name}.json").write_text(json.dumps(mark))
        (chains / f"{name}.json.lock").touch()
    said = desk.run("purge").stderr
    assert sorted(file.name for file in chains.iterdir()) == ["copy.json", "gone.json", "lost.json", "older.json"]
    assert f"fix: put a new token into {token}, then: uvtokend purge" in said
    assert f"only copy of the GitLab token that could not be written to {token}" in said
    assert "Everything else that uvtokend wrote is removed" in said
    assert "token pairs" not in said
    token.write_text("another\n")
    (chains / "older.json").unlink()
    (chains / "gone.json").unlink()
    desk.run("purge")
    assert not desk.state.exists()


def test_restart_starts_a_stopped_daemon_and_replaces_a_running_one(desk: Desk) -> None:
    """`restart` starts a new daemon whether one ran or not; if the configuration is invalid,
    the old one keeps running.
    """
    desk.configure(("a", "a.example"))
    desk.run("restart")
    first = ask(desk.socket, "version")["pid"]
    desk.run("restart")
    second = ask(desk.socket, "version")["pid"]
    assert second != first
    desk.config.write_text("nonsense")
    desk.run("restart", status=2)
    assert ask(desk.socket, "version")["pid"] == second


def test_reload_loads_a_valid_configuration_and_refuses_an_invalid_one(desk: Desk) -> None:
    """reload refuses an invalid configuration as a whole, with all problems; the previous one stays loaded."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.configure(("a", "a.example"), ("b", "b.example"))
    assert "Configuration reloaded (2 indexes)." in desk.run("reload").stderr
    desk.config.write_text(desk.config.read_text() + "\n[daemon]\nmax-wrkers = 1\nlog-level = 7\n")
    done = desk.run("reload", status=2)
    assert "max-wrkers" in done.stderr
    assert "log-level" in done.stderr
    assert len(desk.document("refresh")["indexes"]) == 2


def test_a_failure_is_1_and_shows_its_fix_first(desk: Desk) -> None:
    """If a token cannot be fetched, `status`, `refresh` and `once` exit with 1 and show cause and fix at the top."""
    desk.configure(("a", "a.example"), ("b", "b.example"))
    desk.answer("b", "garbage")
    desk.run("once", status=1)
    desk.run("start")
    done = desk.run("refresh", status=1)
    assert done.stdout.splitlines()[0] == "1 of 2 indexes is ready; 1 is blocked."
    assert done.stdout.splitlines()[1].startswith("b: ")
    assert desk.run("status", status=1).stdout.splitlines()[:2] == done.stdout.splitlines()[:2]
    desk.run("status", "a")
    desk.run("refresh", "a")
    desk.run("once", "a")
    desk.run("once", status=1)
    desk.answer("b")
    desk.run("once")
    desk.run("status")
    # A failed refresh exits with 1 although the previous token is still valid.
    desk.answer("a", "garbage")
    desk.run("refresh", "a", status=1)
    desk.run("status", "a")


def test_once_needs_no_daemon(desk: Desk) -> None:
    """`once` fetches and delivers due tokens, leaves no process behind, and does not fetch a fresh token again."""
    desk.configure(("a", "a.example"))
    desk.run("once")
    assert TOKEN in desk.netrc.read_text()
    assert not desk.socket.exists()
    desk.answer("a", "garbage")
    desk.run("once")


def test_once_with_a_name_fetches_for_that_index_only(desk: Desk) -> None:
    """`once NAME` fetches only that index's token, and leaves the other indexes' entries in the netrc."""
    desk.configure(("a", "a.example"), ("b", "b.example"))
    desk.run("once", "a")
    assert "b.example" not in desk.netrc.read_text()
    events = [json.loads(line) for line in (desk.state / "events.jsonl").read_text().splitlines()]
    assert [event["names"] for event in events if event["event"] == "refreshed"] == [["a"]]
    desk.run("once")
    both = desk.netrc.read_text()
    assert "b.example" in both
    desk.run("once", "a")
    assert desk.netrc.read_text() == both


# --------------------------------------------------------------------------------------------------- starting, stopping


def test_two_starts_at_once_make_one_daemon(desk: Desk) -> None:
    """Concurrent `start` commands all succeed and name the same daemon; only one daemon runs."""
    desk.configure(("a", "a.example"))
    starts = [desk.popen("start", "--config", str(desk.config)) for _ in range(3)]
    texts = ["".join(start.communicate(timeout=60)) for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], texts
    pid = ask(desk.socket, "version")["pid"]
    assert all(f"(pid {pid})" in text for text in texts)
    # No slower daemon still waits to take over when this one is stopped.
    assert [process.pid for process in psutil.process_iter() if daemon_of(desk, process)] == [pid]


def daemon_of(desk: Desk, process: psutil.Process) -> bool:
    """Return whether a process is a daemon of this desk; other users' processes do not count."""
    with contextlib.suppress(psutil.Error):
        return {"run", str(desk.config)} <= {*process.cmdline()}
    return False


def test_start_fails_with_the_reason(desk: Desk) -> None:
    """If the daemon cannot start, `start` prints the daemon's reason and exits with 1."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.extra["UVTOKEND_SOCKET"] = str(desk.home / "run" / "other.sock")
    done = desk.run("start", "--wait", "3", status=1)
    assert "already has an owner: pid" in done.stderr
    desk.extra["UVTOKEND_SOCKET"] = str(desk.home / "run" / ("x" * 120))
    assert "UVTOKEND_SOCKET" in desk.run("start", status=1).stderr


@pytest.mark.parametrize("verb", ["start", "status", "run"])
def test_a_socket_directory_that_others_may_enter_is_refused(desk: Desk, verb: str) -> None:
    """Daemon and clients refuse a control socket in a directory that other users can enter, and print the fix."""
    desk.configure(("a", "a.example"))
    (desk.home / "run" / "uvtokend").mkdir()
    (desk.home / "run" / "uvtokend").chmod(0o755)
    assert "chmod 700" in desk.run(verb, status=1).stderr


@pytest.mark.linux("/proc shows pending signals")
def test_stop_ends_a_daemon_that_hangs(desk: Desk) -> None:
    """`status` says that the daemon does not answer, and `stop` still ends it."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    process = psutil.Process(ask(desk.socket, "version")["pid"])
    process.suspend()
    try:
        stop = desk.popen("stop")
        assert "uvtokend restart" in desk.run("status", status=1).stderr
        # A suspended process does not receive SIGTERM until it continues.
        while not _pending(process, signal.SIGTERM):
            time.sleep(0.02)
    finally:
        process.resume()
    assert stop.wait(timeout=60) == 0
    stop.communicate()
    gone(process)
    desk.run("stop", status=3)


def _pending(process: psutil.Process, number: int) -> bool:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_exits_with_0_after_a_signal(desk: Desk, number: int) -> None:
    """`run` stays in the foreground, waits for a configuration if there is none, and exits with 0 after a signal."""
    daemon = desk.popen("run")
    await_daemon(desk.socket)
    assert "uvtokend init" in desk.run("status").stdout
    assert ask(desk.socket, "version")["pid"] == daemon.pid
    daemon.send_signal(number)
    daemon.communicate(timeout=20)
    assert daemon.returncode == 0


SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$HOME/asked"
case "$2" in
    show-environment) test ! -e "$HOME/unreachable" ;;
    start) test -e "$HOME/broken" && { echo "Unit is masked." >&2; exit 1; }
        setsid "$PYTHON" -m uvtokend run --quiet < /dev/null > /dev/null 2>&1 & ;;
esac
"""


@pytest.mark.linux("the service is a unit of systemd")
def test_start_starts_the_installed_service(desk: Desk) -> None:
    """If a user unit is installed and systemd is reachable, `start` starts the unit, and prints systemd's error."""
    unit = desk.home / ".config" / "systemd" / "user" / "uvtokend.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    systemctl = desk.home / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    desk.extra |= {"PATH": f"{systemctl.parent}:{os.environ['PATH']}", "PYTHON": sys.executable}
    desk.configure(("a", "a.example"))
    (desk.home / "broken").touch()
    done = desk.run("start", status=1)
    assert "Unit is masked." in done.stderr
    assert "journalctl --user -u uvtokend" in done.stderr
    (desk.home / "broken").unlink()
    desk.run("restart")
    assert (desk.home / "asked").read_text().splitlines()[-1] == "--user start uvtokend.service"
    assert not (desk.state / "daemon.log").exists()
    desk.run("stop")
    (desk.home / "unreachable").touch()
    desk.run("start")
    assert (desk.state / "daemon.log").exists()
    desk.run("stop")


def test_a_killed_daemon_is_not_running(desk: Desk) -> None:
    """After SIGKILL the daemon's socket remains; `status` says that no daemon runs, and `start` works at once."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    process = psutil.Process(ask(desk.socket, "version")["pid"])
    process.kill()
    gone(process)
    assert desk.socket.exists()
    desk.run("status", status=3)
    desk.run("start")


# ---------------------------------------------------------------------------------------------------------------- adopt


def test_adopt_removes_an_entry_and_purge_restores_it(desk: Desk) -> None:
    """A foreign entry blocks its index, `adopt` fixes that, and `purge` restores the netrc byte for byte."""
    before = (
        FOREIGN + b"machine a.example\n  login old # why\n  password old-secret\nmachine z.example login z password z"
    )
    desk.netrc.write_bytes(before)
    desk.configure(("a", "a.example"))
    desk.run("start")
    done = desk.run("refresh", status=1)
    assert "  fix: uvtokend adopt a" in done.stdout.splitlines()
    assert desk.netrc.read_bytes() == before
    desk.run("adopt", "a")
    desk.run("refresh")
    assert b"old-secret" not in desk.netrc.read_bytes()
    (backup,) = (desk.state / "adopted").iterdir()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert "nothing to adopt" in desk.run("adopt", "a").stderr
    desk.run("purge")
    assert desk.netrc.read_bytes() == before
    assert not desk.state.exists()


def test_purge_keeps_a_backup_that_it_cannot_restore(desk: Desk) -> None:
    """If a backup is corrupt, purge fails, names it and deletes nothing; once it is repaired, purge restores it."""
    desk.netrc.write_bytes(b"machine a.example login old password old\n")
    desk.configure(("a", "a.example"))
    desk.run("adopt", "a")
    (backup,) = (desk.state / "adopted").iterdir()
    text = backup.read_text()
    for broken in ("no json", json.dumps({"netrc": str(desk.netrc), "backup": "{}"})):
        backup.write_text(broken)
        assert str(backup) in desk.run("purge", status=1).stderr
    backup.write_text(text)
    desk.run("purge")
    assert desk.netrc.read_bytes() == b"machine a.example login old password old\n"


# ------------------------------------------------------------------------------------------------- terminals and pipes


def test_watch_prints_after_each_event_and_ends_with_the_daemon(desk: Desk) -> None:
    """Without a terminal, `--watch` prints a line per event; when the daemon stops, it says so and exits with 3."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("refresh")
    watch = desk.popen("status", "--watch", "--json")
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["indexes"][0]["name"] == "a"
    desk.run("refresh")
    assert json.loads(watch.stdout.readline())["indexes"][0]["name"] == "a"
    desk.run("stop")
    _, err = watch.communicate(timeout=20)
    assert watch.returncode == 3
    assert "uvtokend start" in err


def test_watch_on_a_terminal_redraws_until_interrupted(desk: Desk) -> None:
    """On a terminal, `--watch` redraws the table in color; Ctrl-C ends it with 130 and no traceback."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("refresh")
    with desk.terminal("status", "--watch") as terminal:
        terminal.expect(r"\x1b\[H[^\x1b]*\x1b\[32m")
        terminal.expect(r"\x1b\[H")
        assert terminal.interrupt() == 130
        assert "Traceback" not in terminal.text
    text, _ = on_terminal(desk, "status")
    assert "\x1b[32m" in text
    desk.extra["NO_COLOR"] = "1"
    text, _ = on_terminal(desk, "status")
    assert "The index is ready." in text
    assert "\x1b" not in text


def test_a_closed_pipe_is_not_an_error(desk: Desk) -> None:
    """`uvtokend log --follow | head -1` ends without a message."""
    desk.configure(("a", "a.example"))
    desk.run("once")
    log = desk.popen("log", "--follow")
    assert log.stdout is not None
    assert log.stderr is not None
    assert "  info  " in log.stdout.readline()
    log.stdout.close()
    desk.answer("a", "garbage")
    events = desk.state / "events.jsonl"
    events.write_bytes(events.read_bytes() * 2)
    assert log.wait(timeout=20) == 141
    assert log.stderr.read() == ""
    log.stderr.close()


def test_the_log_continues_after_rotation_and_invalid_lines(desk: Desk) -> None:
    """`log --follow` prints each event once and complete, across a rotation, a half-written and an invalid line."""
    assert "has not run here yet" in desk.run("log").stderr
    desk.state.mkdir(0o700, parents=True)
    events = desk.state / "events.jsonl"

    def event(text: str) -> str:
        return json.dumps({"at": "2026-01-31T08:00:00Z", "level": "info", "names": [], "message": text, "hint": None})

    events.write_text(f"{event('one')}\nnonsense\n{event('two')[:9]}")
    log = desk.popen("log", "--follow")
    assert log.stdout is not None
    assert log.stdout.readline().endswith("one\n")
    assert "not an event" in log.stdout.readline()
    events.write_text(f"{event('one')}\nnonsense\n{event('two')}\n")
    assert log.stdout.readline().endswith("two\n")
    log.send_signal(signal.SIGSTOP)  # the daemon renames the file right after the event that fills it
    with events.open("a") as file:
        file.write(event("three") + "\n")
    events.rename(f"{events}.1")
    events.write_text(event("four \x1b[31m") + "\n")
    log.send_signal(signal.SIGCONT)
    assert log.stdout.readline().endswith("three\n")
    assert log.stdout.readline().endswith("four \\x1b[31m\n")
    log.send_signal(signal.SIGINT)
    log.communicate(timeout=20)
    assert log.returncode == 130
    assert [line.split()[-1] for line in desk.run("log").stdout.splitlines()] == [
        *("one", "event)", "two", "three", "\\x1b[31m")
    ]


# --------------------------------------------------------------------------------------------------- other daemons


@contextlib.contextmanager
def impostor(desk: Desk, *answers: bytes) -> Iterator[None]:
    """Listen on the daemon's socket: each client gets the next answer, and is then disconnected."""
    desk.socket.parent.mkdir(0o700)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(desk.socket))
    server.listen()

    def serve() -> None:
        for answer in answers:
            try:
                client, _ = server.accept()
            except OSError:
                return  # the test is over
            with client:
                client.recv(65536)
                client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"garbage\n", "is not uvtokend"),
        (b"[]\n", "is not uvtokend"),
        (b'{"error": 3}\n', "is not uvtokend"),
        (b'{"error": {"code": 1}}\n', "is not uvtokend"),
        (b"", "disconnected"),
        (b'{"half', "disconnected"),
        (b'{"error": {"code": -32603, "message": "Ouch \\u001b[31m", "data": {"hint": "repair"}}}\n', "repair"),
        (b'{"error": {"code": -32602, "message": "names is a list"}}\n', "names is a list"),
    ],
)
def test_an_invalid_answer_causes_a_clear_message(desk: Desk, answer: bytes, sentence: str) -> None:
    """For any answer on the socket, the client prints what is wrong; it neither hangs nor shows a traceback."""
    with impostor(desk, answer):
        done = desk.run("status", status=1)
    assert sentence in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stdout == ""


def test_another_version_is_named(desk: Desk) -> None:
    """If the daemon does not know a method, the client names the daemon's version and the fix."""
    refusal = b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "There is no method."}}\n'
    with impostor(desk, refusal, b'{"jsonrpc": "2.0", "id": 1, "result": {"version": "0.0.7", "pid": 1}}\n'):
        done = desk.run("reload", status=1)
    assert "0.0.7" in done.stderr
    assert "uvtokend restart" in done.stderr


def test_status_names_an_older_daemon(desk: Desk) -> None:
    """If the running daemon is of an older version, as after an upgrade, `status` says so and names the fix."""
    document = {
        "version": "0.0.7",
        "pid": 1,
        "netrc": "/n",
        "delivery": {"ok": True, "problem": None},
        "indexes": [],
    }
    with impostor(desk, json.dumps({"jsonrpc": "2.0", "id": 1, "result": document}).encode() + b"\n"):
        done = desk.run("status", "--json")
    assert json.loads(done.stdout) == document
    assert "0.0.7" in done.stderr
    assert "uvtokend restart" in done.stderr
