"""Other users of the machine, played by root's own children, and processes that only look like ours."""

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
    """A machine with one index, whose daemon is ended at the end."""
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
    """Run a script that ends itself or is ended; `other()` in it makes it another user's, if we are root."""
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


#: Listens on a socket, as whoever it is by then, and answers every line with one text.
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
        except OSError:  # hung up on
            pass
    time.sleep(600)
"""


def test_another_user_on_the_socket(laptop: AwsMachine) -> None:
    """Nothing that somebody else answers is believed: neither his hints nor his pid."""
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"pid": os.getpid(), "version": "1", "indexes": [], "hint": "rm -r"}}
    with played(LISTEN, listener(laptop), json.dumps(answer), "other") as attacker:
        assert said(attacker) == "ready"
        for verb in ("status", "stop", "refresh") if ROOT else ():
            done = laptop.uvtokend(verb)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"Another user (uid {OTHER}) listens on the control socket" in done.stderr


def test_another_user_asks_the_daemon(laptop: AwsMachine) -> None:
    """Even if directory and socket stand open, he is hung up on, and we are told of the open directory."""
    laptop.start()
    await_ready(laptop)
    folder = os.path.dirname(listener(laptop))
    os.chmod(laptop.directory, 0o711)
    os.chmod(folder, 0o711)
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
    upper = [one for one in Path(folder).parents if ROOT and not one.stat().st_mode & 1 and one.stat().st_uid == 0]
    for one in upper:
        one.chmod(one.stat().st_mode | 1)
    with played(ask, listener(laptop)) as attacker:
        assert [said(attacker), said(attacker)] == ["True", str(not ROOT)]
    assert f"chmod 700 {folder}" in laptop.uvtokend("status").stderr
    os.chmod(folder, 0o700)
    assert laptop.uvtokend("stop").returncode == 0


@pytest.mark.parametrize(
    ("place", "kind"), [("socket", "his"), ("socket", "link"), ("state", "his"), ("state", "open")]
)
def test_folders_that_somebody_was_quicker_to_make(laptop: AwsMachine, kind: str, place: str) -> None:
    """If another user creates our directory in a place like /tmp, it is refused by a sentence and left unchanged."""
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


# --------------------------------------------------------------------------------------- whom a signal never reaches


def test_a_pid_that_is_only_told_is_never_signalled(laptop: AwsMachine) -> None:
    """Who answers names a process of ours, as a daemon in a container does by chance: it lives on."""
    with played("time.sleep(600)", "uvtokend", "run") as innocent:
        answer = {"jsonrpc": "2.0", "id": 1, "result": {"pid": innocent.pid, "version": "1"}}
        with played(LISTEN, listener(laptop), json.dumps(answer), "us") as impostor:
            assert said(impostor) == "ready"
            assert laptop.uvtokend("stop").returncode == 0
            assert impostor.poll() is None
        assert innocent.poll() is None


@pytest.mark.parametrize("kind", ["another program", "another host", "many digits"])
def test_a_pid_that_is_only_written_down_is_never_signalled(laptop: AwsMachine, kind: str) -> None:
    """A lock file is left, its number was given to somebody else, and the socket hangs: a sentence, and no signal."""
    with played("time.sleep(600)", *(("run",) if kind == "another program" else ("uvtokend", "run"))) as innocent:
        number = "9" * 99 if kind == "many digits" else innocent.pid
        host = "elsewhere" if kind == "another host" else socket.gethostname()
        Path(f"{listener(laptop)}.lock").write_text(f"pid {number} on {host}\n")
        with played(LISTEN, listener(laptop), "", "us") as hung, contextlib.ExitStack() as waiting:
            assert said(hung) == "ready"
            while True:  # until nobody is let in any more, so that the kernel cannot say who listens
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


# ------------------------------------------------------------------------------------------------ what we leave open


@pytest.mark.linux("reads limits and umask of another process in /proc")
def test_what_the_daemon_and_its_workers_let_out(laptop: AwsMachine) -> None:
    """No core dump, no file that others may read, no standard input, and no variable of the request for a helper."""
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
    folders = [laptop.state, Path(listener(laptop)).parent]
    written = {"state.json", "events.jsonl", "control.sock", "control.sock.lock"}
    until(lambda: written <= {file.name for file in modes(folders)})
    found = modes(folders)
    assert found == {file: 0o700 if file in folders else 0o600 for file in found}


def modes(folders: list[Path]) -> dict[Path, int]:
    """Return the modes of directories and of the files in them; a file may be replaced in this very moment."""
    found = {}
    for file in [*folders, *(file for folder in folders for file in folder.iterdir())]:
        with contextlib.suppress(FileNotFoundError):
            found[file] = stat.S_IMODE(file.stat().st_mode)
    return found
