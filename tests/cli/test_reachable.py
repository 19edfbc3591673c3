"""A daemon whose socket is gone is still found, and following the printed fixes leads to a working daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemons import await_ready
from support.waiting import PATIENCE, until
from uvtokend import paths
from uvtokend.cli import client
from uvtokend.cli import start as start_verb
from uvtokend.cli.console import Progress
from uvtokend.disk.locks import Lock
from uvtokend.errors import FAILED, USAGE, NotRunning, UvtokendError
from uvtokend.sandbox.machine import Machine

CONFIG = '[[index]]\nname = "a"\nurl = "https://a.example/simple/"\nprovider = "static"\nusername = "me"\n'


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Make a machine with a static index."""
    made = Machine(tmp_path_factory.mktemp("m"))
    made.environment["SECRET"] = "hunter2"
    made.write(CONFIG + 'password = { env = "SECRET" }\n')
    yield made
    made.uvtokend("stop")
    made.stop()


def unreachable(machine: Machine) -> int:
    """Start a daemon, delete its runtime directory, and return its pid."""
    machine.start()
    await_ready(machine)
    shutil.rmtree(machine.directory / "run")
    (machine.directory / "run").mkdir(mode=0o700)
    assert machine.uvtokend("status").returncode == 3
    assert machine.daemon is not None
    return machine.daemon.pid


def ended(machine: Machine) -> bool:
    """Return whether the first daemon has exited with 0."""
    assert machine.daemon is not None
    return machine.daemon.wait(30) == 0


def test_stop_finds_a_daemon_without_a_socket(machine: Machine) -> None:
    """`stop` finds a daemon without a socket by its lock beside the netrc."""
    unreachable(machine)
    assert machine.uvtokend("stop").returncode == 0
    assert ended(machine)
    assert machine.uvtokend("stop").returncode == 3


def test_purge_works_without_a_socket(machine: Machine) -> None:
    """purge stops a daemon without a socket before it deletes anything, so the daemon writes nothing back."""
    unreachable(machine)
    assert machine.uvtokend("purge").returncode == 0
    assert ended(machine)
    assert not machine.netrc.exists()
    assert not machine.state.exists()


def test_the_fixes_lead_to_a_working_daemon(machine: Machine) -> None:
    """`start` cannot replace a daemon that does not answer and owns the netrc; its fix is `restart`, which works."""
    pid = unreachable(machine)
    done = machine.uvtokend("start", "--wait", "2")
    assert (done.returncode, f"an owner: pid {pid}," in done.stderr) == (1, True)
    assert "20 s to save a one-time secret; a restart waits for that." in " ".join(done.stderr.split())
    assert "fix: uvtokend restart" in done.stderr
    assert machine.uvtokend("restart").returncode == 0
    assert ended(machine)
    assert machine.uvtokend("status").returncode == 0


def test_start_during_stop_ends_with_a_daemon(machine: Machine) -> None:
    """`start` does not treat a stopping daemon as running: whenever it runs during `stop`, a new daemon results."""
    assert machine.uvtokend("start").returncode == 0
    with (machine.directory / "log").open("wb") as log:
        for _ in range(2):
            stopping = subprocess.Popen(machine.ourselves("stop"), env=machine.environment, stdout=log, stderr=log)
            until(lambda: not Path(machine.environment["UVTOKEND_SOCKET"]).exists())
            assert machine.uvtokend("start").returncode == 0
            assert stopping.wait(30) == 0
            assert machine.uvtokend("status").returncode == 0


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If `start` cannot open the daemon's log because the disk is full, the error says so and the fix is `df -h`."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(UvtokendError, match="no space left") as caught:
        start_verb._opened(str(tmp_path / "daemon.log"), os.O_WRONLY)
    assert (caught.value.hint, caught.value.exit_status) == (f"df -h {tmp_path}", FAILED)


@pytest.mark.parametrize(("status", "expected"), [(1, FAILED), (2, USAGE), (120, FAILED), (-9, FAILED)])
def test_start_maps_the_daemons_exit_status(status: int, expected: int) -> None:
    """`start` exits with 1 or 2 only, even if Python ended the daemon with 120, as when it cannot flush its output."""
    failed = start_verb._StartFailedError(UvtokendError("It ended."), status, overtaken=False)
    assert failed.exit_status == expected


def test_start_is_patient_with_a_daemon_that_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` waits for the daemon's first answer for as long as --wait says, even if one question stays unanswered."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("UVTOKEND_SOCKET", str(tmp_path / "s"))
    monkeypatch.setattr(client, "SOON", 0.01)
    answer = b'{"jsonrpc": "2.0", "id": 1, "result": {"pid": 7}}\n'
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(paths.socket_file())
        server.listen()
        assert start_verb._await_answer(time.monotonic(), Progress("Starting")) is None

        def serve() -> None:
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    with server.accept()[0] as asker, contextlib.suppress(OSError):
                        asker.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert start_verb._await_answer(time.monotonic() + PATIENCE, Progress("Starting")) == {"pid": 7}
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


class TestRefused:
    """A socket that refuses connections: nothing listens, or on macOS its queue of clients is full."""

    @pytest.fixture
    def listener(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
        """Bind a socket at the daemon's path without listening on it."""
        tmp_path.chmod(0o700)
        monkeypatch.setenv("UVTOKEND_SOCKET", str(tmp_path / "s"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(paths.socket_file())
            yield server

    def test_without_a_daemon(self, listener: socket.socket) -> None:
        """If no process holds the socket's lock, the daemon was killed, and the client raises NotRunning."""
        assert listener.fileno() > 0
        with pytest.raises(NotRunning):
            client.Connection()

    def test_with_one_that_hangs(self, listener: socket.socket) -> None:
        """If a running process holds the lock, the daemon hangs, and the client raises NoAnswerError."""
        assert listener.fileno() > 0
        lock = Lock(f"{paths.socket_file()}.lock", "The socket")
        with pytest.raises(client.NoAnswerError):
            client.Connection(timeout=0.05)
        lock.remove()

    def test_with_one_that_begins(self, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the daemon holds the lock but does not listen yet, the client waits until it does."""
        lock = Lock(f"{paths.socket_file()}.lock", "The socket")
        monkeypatch.setattr(time, "sleep", lambda _: listener.listen())
        with client.Connection() as connection:
            assert connection.pid == os.getpid()
        lock.remove()
