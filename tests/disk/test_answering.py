"""File systems that do not answer: after a few seconds, a command reports an error instead of waiting forever."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvtokend.cli import start
from uvtokend.cli.console import Progress
from uvtokend.cli.main import main
from uvtokend.core import fixes
from uvtokend.disk import answering, configuration, files
from uvtokend.disk.answering import answered, mount_point
from uvtokend.errors import UvtokendError


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that answers only after the event is set, with a short time limit."""
    answers = threading.Event()
    monkeypatch.setattr(answering, "PATIENCE", 0.05)
    yield answers
    answers.set()


def test_a_result_in_time_is_returned(disk: threading.Event) -> None:
    """A result or an error that comes in time is passed on. After the time limit, an error names the files and how
    to see what is mounted there."""
    assert answered(lambda: "text", "/a") == "text"
    with pytest.raises(ZeroDivisionError):
        answered(lambda: 1 // 0, "/a")
    with pytest.raises(UvtokendError, match=r"^The file system of /a or /b has not answered for 0\.05 s\.") as hung:
        answered(disk.wait, "/a", "/b")
    mount = mount_point("/a")
    assert hung.value.hint == ("mount" if mount is None else fixes.mounted_at(mount))


@pytest.mark.linux("the list of mounts is in /proc")
def test_a_mount_point_is_found_without_a_look_at_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount point is the longest one above the path, compared by whole names and including white space. The path
    itself is not opened."""
    mounts = ("/", "/home", r"/home/my\040files", "/ho")
    table = "".join(f"36 35 98:0 / {mount} rw,noatime - ext3 /dev/root rw\n" for mount in mounts)

    def opened(_path: str, **_: object) -> io.StringIO:
        return io.StringIO(table)

    monkeypatch.setattr("builtins.open", opened)
    mount_points = [mount_point(path) for path in ("/x", "/home", "/homes/x", "/home/my files/x", "/home/my filesx")]
    assert mount_points == ["/", "/home", "/", "/home/my files", "/home"]


@pytest.mark.parametrize("command", [["once"], ["doctor"], ["status"], ["list"], ["start"]])
def test_a_command_names_the_file_that_does_not_answer(
    command: list[str],
    disk: threading.Event,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If the file system of config.toml does not answer, each command that reads the file says so and exits with
    status 1."""
    config = tmp_path / "config.toml"
    config.write_text("")
    config.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UVTOKEND_CONFIG", str(config))
    monkeypatch.setenv("UVTOKEND_SOCKET", str(tmp_path / "run" / "s"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    honest = configuration._opener

    def opener(path: str, flags: int) -> int:
        if path == str(config):
            disk.wait(60)
        return honest(path, flags)

    monkeypatch.setattr(configuration, "_opener", opener)
    assert main(command) == 1
    assert f"The file system of {config} has not answered for 0.05 s." in capsys.readouterr().err


def test_the_log_names_the_file_that_does_not_answer(
    disk: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the file system of the events does not answer, `log` says so and exits with status 1."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(files, "open_regular", lambda *_: disk.wait(60))
    assert main(["log"]) == 1
    events = tmp_path / "uvtokend" / "events.jsonl"
    assert f"The file system of {events} has not answered for 0.05 s." in capsys.readouterr().err


def test_a_start_does_not_wait_for_a_process_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel cannot end a process that waits for some file systems, so ``start`` reports the failure without
    waiting for the process."""
    monkeypatch.setattr(start, "_ENDS", 0.05)
    words = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ours, theirs = os.pipe()
        os.write(theirs, b'{"code": 1, "message": "The disk hangs."}\n')
        os.close(theirs)
        child = start._Child(process, ours, "daemon.log")
        failure = child.failure(math.inf, Progress("Starting"))
        assert (str(failure), failure and failure.exit_status) == ("The daemon could not start. The disk hangs.", 1)
        child.end()
        assert process.poll() is None
        process.kill()
