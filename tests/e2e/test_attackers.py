"""Attacks by other users of the machine (root's child processes play them), and processes that look like ours."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import linux
from support.daemons import await_ready
from support.waiting import until
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.machine import AwsMachine

OTHER = 65534
ROOT = os.geteuid() == 0
ANSWER = json.dumps({"username": "me", "password": "tok", "expires_in": 3600})


@pytest.fixture
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMachine]:
    """Make a machine with one index, and stop its daemon afterwards."""
    with CodeArtifact() as cloud:
        machine = AwsMachine(tmp_path_factory.mktemp("l"), cloud)
        (machine.home / "answer").write_text(ANSWER)
        index = f'name = "a"\nurl = "https://a.example/simple/"\ncommand = ["sh", "{machine.home}/fetch"]\n'
        machine.config.write_text(f'[[index]]\nprovider = "command"\n{index}')
        machine.config.chmod(0o600)
        (machine.home / "fetch").write_text(f"cat {machine.home}/answer")
        yield machine
        machine.stop()


@contextlib.contextmanager
def played(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a script that ends by itself or is killed; its `other()` switches to another user, if we are root."""
    start = f"""
        import os, socket, sys, time
        def other():
            if {ROOT}:
                os.setgroups([])
                os.setresgid({OTHER}, {OTHER}, {OTHER})
                os.setresuid({OTHER}, {OTHER}, {OTHER})
    """
    words = [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(script), *map(str, arguments)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def listener(laptop: AwsMachine) -> str:
    return laptop.environment["UVTOKEND_SOCKET"]


#: Listens on a socket, as the current or another user, and answers every line with the same text.
LISTEN = """
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    os.chmod(sys.argv[1], 0o666)
    if sys.argv[3] == "other":
        other()
    server.listen(0 if sys.argv[2] == "" else 9)
    print("ready", flush=True)
    while sys.argv[2]:
        client, _ = server.accept()
        try:
            while client.recv(9999):
                client.sendall(sys.argv[2].encode() + b"\\n")
        except OSError:  # the client disconnected
            pass
    time.sleep(600)
"""


def test_another_user_on_the_socket(laptop: AwsMachine) -> None:
    """If another user listens on the control socket, the commands refuse its answers and name its uid."""
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"pid": os.getpid(), "version": "1", "indexes": [], "hint": "rm -r"}}
    with played(LISTEN, listener(laptop), json.dumps(answer), "other") as attacker:
        assert said(attacker) == "ready"
        for verb in ("status", "stop", "refresh") if ROOT else ():
            done = laptop.uvtokend(verb)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"Another user (uid {OTHER}) listens on the control socket" in done.stderr


def test_another_user_asks_the_daemon(laptop: AwsMachine) -> None:
    """Even if directory and socket are open to all, the daemon disconnects other users,
    and `status` reports the directory.
    """
    laptop.start()
    await_ready(laptop)
    directory = os.path.dirname(listener(laptop))
    os.chmod(laptop.directory, 0o711)
    os.chmod(directory, 0o711)
    os.chmod(listener(laptop), 0o666)
    ask = """
        client = socket.socket(socket.AF_UNIX)
        client.connect(sys.argv[1])
        other()
        other_side = socket.socket(socket.AF_UNIX)
        other_side.connect(sys.argv[1])
        for one in (client, other_side):
            try:
                one.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "version"}\\n')
                print(bool(one.recv(9999)), flush=True)
            except OSError:
                print(False, flush=True)
    """
    upper = [one for one in Path(directory).parents if ROOT and not one.stat().st_mode & 1 and one.stat().st_uid == 0]
    for one in upper:
        one.chmod(one.stat().st_mode | 1)
    with played(ask, listener(laptop)) as attacker:
        assert [said(attacker), said(attacker)] == ["True", str(not ROOT)]
    assert f"chmod 700 {directory}" in laptop.uvtokend("status").stderr
    os.chmod(directory, 0o700)
    assert laptop.uvtokend("stop").returncode == 0


@pytest.mark.parametrize(
    ("place", "kind"), [("socket", "his"), ("socket", "link"), ("state", "his"), ("state", "open")]
)
def test_directories_that_another_user_created_first(laptop: AwsMachine, kind: str, place: str) -> None:
    """If another user creates our directory first, in a shared one like /tmp,
    uvtokend refuses it and does not touch it.
    """
    shared = laptop.directory / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    ours = shared / "uvtokend"
    elsewhere = laptop.directory / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if kind == "link":
        ours.symlink_to(elsewhere)
    else:
        ours.mkdir()
        os.chown(ours, OTHER if ROOT else -1, -1)
        ours.chmod(0o700 if kind == "his" and ROOT else 0o777)
    variable = {"socket": ("UVTOKEND_SOCKET", ours / "c.sock"), "state": ("XDG_STATE_HOME", shared)}[place]
    done = laptop.run([sys.executable, "-P", "-m", "uvtokend", "run"], env={variable[0]: str(variable[1])})
    assert done.returncode == 1
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(elsewhere) == []
    assert not laptop.netrc.exists()


# ------------------------------------------------------------------------------------ processes that get no signal


def test_a_pid_in_a_response_is_never_signaled(laptop: AwsMachine) -> None:
    """If the response names an unrelated process, as a daemon in a container may, `stop` sends it no signal."""
    with played("time.sleep(600)", "uvtokend", "run") as innocent:
        answer = {"jsonrpc": "2.0", "id": 1, "result": {"pid": innocent.pid, "version": "1"}}
        with played(LISTEN, listener(laptop), json.dumps(answer), "us") as impostor:
            assert said(impostor) == "ready"
            assert laptop.uvtokend("stop").returncode == 0
            assert impostor.poll() is None
        assert innocent.poll() is None


@pytest.mark.parametrize("kind", ["another program", "another host", "many digits"])
def test_a_pid_in_a_lock_file_is_never_signaled(laptop: AwsMachine, kind: str) -> None:
    """If an old lock file names an unrelated process and the socket hangs, `stop` reports that and sends no signal."""
    with played("time.sleep(600)", *(("run",) if kind == "another program" else ("uvtokend", "run"))) as innocent:
        number = "9" * 99 if kind == "many digits" else innocent.pid
        host = "elsewhere" if kind == "another host" else socket.gethostname()
        Path(f"{listener(laptop)}.lock").write_text(f"pid {number} on {host}\n")
        with played(LISTEN, listener(laptop), "", "us") as hung, contextlib.ExitStack() as waiting:
            assert said(hung) == "ready"
            while True:  # until the queue is full, so that the kernel cannot name the listener
                client = waiting.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                try:
                    client.connect(listener(laptop))
                except BlockingIOError:
                    break
            done = laptop.uvtokend("stop")
            assert (done.returncode, "its process ID is unknown" in done.stderr) == (1, True)
            assert hung.poll() is None
        assert innocent.poll() is None


# ------------------------------------------------------------------------------------------- limits and permissions


@pytest.mark.linux("reads limits and umask of another process in /proc")
def test_the_daemon_and_its_workers_expose_nothing(laptop: AwsMachine) -> None:
    """Daemon and workers dump no core and write only private files; helpers get no standard input and no request."""
    note = laptop.home / "note"
    script = 'echo "$(ulimit -c) $(ulimit -Hc) $(umask) $(readlink /proc/self/fd/0) ${UVTOKEND_REQUEST-none}"'
    (laptop.home / "fetch").write_text(f"{script} > {note}; cat {laptop.home}/answer")
    laptop.start()
    await_ready(laptop)
    assert laptop.uvtokend("refresh").returncode == 0
    assert note.read_text().split() == ["0", "0", "0077", "/dev/null", "none"]
    assert laptop.daemon is not None
    process = Path(f"/proc/{laptop.daemon.pid}")
    assert linux.core_limits(laptop.daemon.pid) == (0, 0)
    assert "Umask:\t0077\n" in (process / "status").read_text()
    directories = [laptop.state, Path(listener(laptop)).parent]
    written = {"state.json", "events.jsonl", "control.sock", "control.sock.lock"}
    until(lambda: written <= {file.name for file in modes(directories)})
    actual = modes(directories)
    assert actual == {file: 0o700 if file in directories else 0o600 for file in actual}


def modes(directories: list[Path]) -> dict[Path, int]:
    """Return the modes of directories and of their files; a file may be replaced in the meantime."""
    result = {}
    for file in [*directories, *(file for directory in directories for file in directory.iterdir())]:
        with contextlib.suppress(FileNotFoundError):
            result[file] = stat.S_IMODE(file.stat().st_mode)
    return result
