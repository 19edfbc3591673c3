"""The `keyring` command over a real socket: its answers, the call of another keyring, and the failures it survives."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from uvtokend import ask, shim
from uvtokend.disk import shims
from uvtokend.errors import UvtokendError

URL = "https://h.example/simple/"
RESULT = {"login": "me", "token": 't"0ken', "expires_at": None}
NO_MATCH = {"code": -32002, "message": "No index."}
#: Prints its arguments, copies its input, and exits with 5.
OTHER = '#!/bin/sh\necho "other $*"; cat; echo "complaint" >&2; exit 5\n'


@dataclass
class Daemon:
    """A control socket that answers each request as the test says; an answer of None closes the connection."""

    path: str
    answer: Callable[[dict[str, object]], bytes | None] = lambda _: None
    asked: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.server.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            with client:
                line = client.makefile().readline()
                if not line:
                    continue  # the client only checked who serves the socket
                request = json.loads(line)
                self.asked.append(request)
                with contextlib.suppress(OSError):
                    client.sendall(self.answer(request) or b"")


@dataclass
class Desk:
    """A directory with an installed shim, an environment, and possibly a daemon."""

    directory: Path
    shim: str
    environment: dict[str, str]
    daemon: Daemon | None = None

    def serve(self, answer: Callable[[dict[str, object]], bytes | None]) -> Daemon:
        self.daemon = Daemon(self.environment["UVTOKEND_SOCKET"], answer)
        return self.daemon

    def run(self, *arguments: str, path: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, "PATH": path or str(self.directory / "bin"), **more}
        command = [self.shim, *arguments]
        return subprocess.run(command, env=environment, input="in\n", capture_output=True, text=True, check=False)

    def other(self, name: str = "other", text: str = OTHER) -> str:
        """Make another keyring program, and return its directory."""
        (self.directory / name).mkdir(exist_ok=True)
        (self.directory / name / "keyring").write_text(text)
        (self.directory / name / "keyring").chmod(0o755)
        return str(self.directory / name)


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("s")
    (directory / "run").mkdir(0o700)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("XDG_STATE_HOME", str(directory / "state"))
    environment = {"HOME": str(directory), "UVTOKEND_SOCKET": str(directory / "run" / "control.sock")}
    made = Desk(directory, shims.install(str(directory / "bin")), environment)
    yield made
    if made.daemon is not None:
        made.daemon.close()


def result(document: object) -> Callable[[dict[str, object]], bytes]:
    return lambda _: json.dumps({"jsonrpc": "2.0", "id": 1, "result": document}).encode() + b"\n"


def error(document: object) -> Callable[[dict[str, object]], bytes]:
    return lambda _: json.dumps({"jsonrpc": "2.0", "id": 1, "error": document}).encode() + b"\n"


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["get", URL, "me"], 't"0ken\n'),
        (["get", URL, "me", "--output", "json"], '{"password": "t\\"0ken"}\n'),
        (["get", URL, "--mode", "creds"], 'me\nt"0ken\n'),
        (["--mode", "creds", "get", URL], 'me\nt"0ken\n'),
        (["--mode=creds", "get", URL, "me"], 'me\nt"0ken\n'),
        (["--mode=creds", "--output=json", "get", URL], '{"username": "me", "password": "t\\"0ken"}\n'),
        (["get", "--", URL, "me"], 't"0ken\n'),
    ],
)
def test_the_shim_prints_what_keyring_prints(desk: Desk, arguments: list[str], output: str) -> None:
    """The shim supports the forms that uv, pip, pipx and build use, with the options in any order."""
    daemon = desk.serve(result(RESULT))
    done = desk.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")
    username = "me" if "me" in arguments else None
    assert daemon.asked[0]["params"] == {"url": URL, "username": username, "shim": True}


def test_the_json_preserves_login_and_token(desk: Desk) -> None:
    """The JSON output preserves login and token exactly, including quotes, line separators and non-ASCII characters."""
    unusual = {"login": "mé\u2028", "token": '\\"\u00e9\U0001f600', "expires_at": None}
    desk.serve(result(unusual))
    printed = json.loads(desk.run("--mode=creds", "--output=json", "get", URL).stdout)
    assert printed == {"username": unusual["login"], "password": unusual["token"]}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["get", URL],
        ["get"],
        ["get", URL, "me", "more"],
        ["set", URL, "me"],
        ["del", URL, "me"],
        ["--list-backends"],
        ["-b", "some.backend", "get", URL, "me"],
        ["get", URL, "me", "--output", "xml"],
        ["get", URL, "--mode"],
        ["--help"],
    ],
)
def test_other_calls_go_to_the_next_keyring(desk: Desk, arguments: list[str]) -> None:
    """Any other call runs the next keyring on PATH with its input and output;
    without one, the shim says what it supports.
    """
    desk.serve(result(RESULT))
    other = desk.other()
    done = desk.run(*arguments, path=f"{desk.directory}/bin:{other}:/bin")
    assert (done.returncode, done.stdout, done.stderr) == (5, f"other {' '.join(arguments)}\nin\n", "complaint\n")
    done = desk.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "answers only 'keyring get" in done.stderr


def test_unknown_services_go_to_the_next_keyring(desk: Desk) -> None:
    """For a URL of no index the next keyring answers; without one, the shim exits with 1 silently, as keyring does."""
    desk.serve(error(NO_MATCH))
    done = desk.run("get", "https://theirs.example/", "me", path=f"{desk.directory}/bin:{desk.other()}:/bin")
    assert (done.returncode, done.stdout) == (5, "other get https://theirs.example/ me\nin\n")
    done = desk.run("get", "https://theirs.example/", "me")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_an_index_without_a_token_does_not_go_to_the_next_keyring(desk: Desk) -> None:
    """If an index has no token, one line gives the reason and the fix, and no other keyring is asked for it."""
    desk.serve(error({"code": -32001, "message": "The sign-in\nexpired.", "data": {"hint": "aws sso login"}}))
    done = desk.run("get", URL, "me", path=f"{desk.directory}/bin:{desk.other()}:/bin")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "uvtokend: The sign-in?expired. fix: aws sso login\n"


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: None,
        lambda _: b'{"jsonrpc": "2.0", "id"',
        lambda _: b"nonsense\n",
        lambda _: b"[]\n",
        lambda _: b"{}\n",
        lambda _: b'{"result": {"login": 1, "token": "t"}}\n',
        lambda _: b"\xff\n",
        lambda _: b"[" * 100_000 + b"\n",
    ],
)
def test_a_daemon_that_breaks_off(desk: Desk, answer: Callable[[dict[str, object]], bytes | None]) -> None:
    """An incomplete or invalid response gives one line on standard error; then the next keyring, if any, answers."""
    desk.serve(answer)
    done = desk.run("get", URL, "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("uvtokend: ")
    done = desk.run("get", URL, "me", path=f"{desk.directory}/bin:{desk.other()}:/bin")
    assert (done.returncode, done.stdout) == (5, f"other get {URL} me\nin\n")


def test_no_daemon(desk: Desk) -> None:
    """Without a daemon, one line says that uvtokend is not running."""
    done = desk.run("get", URL, "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "uvtokend: uvtokend is not running. fix: uvtokend start\n"


def test_a_daemon_that_hangs(desk: Desk) -> None:
    """The shim gives up on a daemon that accepts requests and never answers, after two short waits."""
    free = threading.Event()
    daemon = desk.serve(lambda _: b"" if free.wait() else None)
    done = desk.run("get", URL, "me")
    free.set()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "uvtokend: The uvtokend daemon does not answer. fix: uvtokend restart\n"
    assert [request["method"] for request in daemon.asked][:1] == ["credential"]
    assert 2 * ask.QUICK < 2


def test_a_slow_answer_of_a_running_daemon(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a fetch is slow, the shim keeps waiting as long as the daemon still answers `version`."""
    monkeypatch.setattr(ask, "QUICK", 0.05)
    versions = threading.Semaphore(0)
    path = str(desk.directory / "run" / "slow.sock")
    monkeypatch.setenv("UVTOKEND_SOCKET", path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(client,)).start()

        def talk(client: socket.socket) -> None:
            with client:
                if json.loads(client.makefile().readline())["method"] == "version":
                    client.sendall(result({"version": "1"})({}))
                    versions.release()
                    return
                for _ in range(3):
                    versions.acquire()
                client.sendall(result(RESULT)({}))

        thread = threading.Thread(target=serve)
        thread.start()
        answered = ask.credential(URL, None)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert answered is not None
    assert answered.token == RESULT["token"]


@pytest.mark.parametrize("service", ["x" * 100_000, "https://h.example/\nx", "https://hé.example/", "\x1b[2J"])
def test_a_hostile_argument(desk: Desk, service: str) -> None:
    """A service that no index can match, such as one with a line break, is not even sent to the daemon."""
    daemon = desk.serve(result(RESULT))
    done = desk.run("get", service, "me")
    assert (done.returncode, done.stdout, done.stderr, daemon.asked) == (1, "", "", [])
    assert ask.credential("https://h.example/" + "x" * 10_000_000, None) is None
    assert ask.credential("https://h.example/", "x" * 100_000) is None


def test_another_users_socket(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim sends no request to another user's socket or to one in a directory that others can enter."""
    daemon = desk.serve(result(RESULT))
    monkeypatch.setenv("UVTOKEND_SOCKET", daemon.path)
    monkeypatch.setattr("uvtokend.peers.uid", lambda _: os.getuid() + 1)
    with pytest.raises(UvtokendError, match="Another user"):
        ask.credential(URL, None)
    (desk.directory / "run").chmod(0o777)
    done = desk.run("get", URL, "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert "chmod 700" in done.stderr
    assert daemon.asked == []


def test_our_own_shims_on_path_are_skipped(desk: Desk) -> None:
    """The search for another keyring skips our own shims, symlinks to them, and empty or relative entries of PATH."""
    desk.serve(error(NO_MATCH))
    second = os.path.dirname(shims.install(str(desk.directory / "second")))
    (desk.directory / "linked").mkdir()
    (desk.directory / "linked" / "keyring").symlink_to(desk.shim)
    path = f"{desk.directory}/bin::bin:{second}:{desk.directory}/linked:{desk.directory}/missing:{desk.other()}:/bin"
    done = desk.run("get", URL, "me", path=path)
    assert (done.returncode, done.stdout) == (5, f"other get {URL} me\nin\n")
    done = desk.run("get", URL, "me", path=path.replace(f":{desk.directory}/other", ""))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_wrapper_that_calls_the_shim_again(desk: Desk) -> None:
    """If the next keyring is a wrapper that runs the shim again, there is no endless loop: the one after it answers."""
    desk.serve(error(NO_MATCH))
    wrapper = desk.other("wrapper", '#!/bin/sh\nexec keyring "$@"\n')
    done = desk.run("get", URL, "me", path=f"{desk.directory}/bin:{wrapper}:{desk.other()}:/bin")
    assert (done.returncode, done.stdout) == (5, f"other get {URL} me\nin\n")


def test_a_keyring_that_cannot_be_executed(desk: Desk) -> None:
    """A keyring whose interpreter is missing is skipped."""
    desk.serve(error(NO_MATCH))
    broken = desk.other("broken", "#!/nonexistent/python\n")
    done = desk.run("get", URL, "me", path=f"{broken}:{desk.other()}:/bin")
    assert (done.returncode, done.stdout) == (5, f"other get {URL} me\nin\n")


def test_foreign_files_are_not_changed(desk: Desk) -> None:
    """Install and uninstall neither overwrite nor remove another program's keyring or a dangling symlink."""
    other = desk.other()
    before = Path(other, "keyring").read_text()
    (desk.directory / "dangling").mkdir()
    (desk.directory / "dangling" / "keyring").symlink_to("/nonexistent")
    for directory in (other, str(desk.directory / "dangling")):
        with pytest.raises(UvtokendError, match="not made by uvtokend"):
            shims.install(directory)
    assert shims.install(os.path.dirname(desk.shim)) == desk.shim  # ours is renewed
    Path(desk.shim).write_text(OTHER)
    assert shims.uninstall() == []
    assert Path(other, "keyring").read_text() == before
    assert Path(desk.shim).read_text() == OTHER
    assert sorted(os.listdir(os.path.dirname(desk.shim))) == ["keyring"]


def test_uninstall_leaves_nothing(desk: Desk) -> None:
    """Uninstall removes the shim from every directory that it was ever installed to, and the list of them."""
    second = shims.install(str(desk.directory / "second"))
    default = shims.install(shims.default_directory())
    assert shims.uninstall() == [desk.shim, second, default]
    assert not [path for path in desk.directory.rglob("*") if path.name in {"keyring", "shims.json"}]
    assert shims.uninstall() == []


def test_a_directory_that_cannot_be_written(desk: Desk) -> None:
    """Installing into a path that cannot be written raises an error that says so."""
    (desk.directory / "file").write_text("")
    with pytest.raises(UvtokendError, match="cannot be written"):
        shims.install(str(desk.directory / "file" / "bin"))


def test_an_interpreter_with_an_unusual_path(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Python's path has a space or is too long for a #! line, the shim starts through the shell."""
    directory = desk.directory / "a 'dir'"
    directory.mkdir()
    (directory / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (directory / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(directory / "python"))
    desk.shim = shims.install(str(desk.directory / "odd"))
    desk.serve(result(RESULT))
    done = desk.run("get", URL, "me", path="/bin")
    assert (done.returncode, done.stdout, done.stderr) == (0, 't"0ken\n', "")


def test_a_shim_without_its_installation(desk: Desk) -> None:
    """After uvtokend has been uninstalled, a remaining shim prints one line with the command that removes it."""
    text = Path(desk.shim).read_text().replace("uvtokend.shim import", "uvtokend.gone import")
    Path(desk.shim).write_text(text)
    done = desk.run("get", URL, "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"uvtokend: {desk.shim} asks uvtokend, which is no longer installed. fix: rm {desk.shim}\n")


def test_isolated_mode(desk: Desk) -> None:
    """The environment and the current directory cannot change which code the shim runs."""
    (desk.directory / "uvtokend.py").write_text("raise SystemExit('hijacked')\n")
    desk.serve(result(RESULT))
    done = desk.run("get", URL, "me", PYTHONPATH=str(desk.directory), PYTHONSTARTUP=str(desk.directory / "uvtokend.py"))
    assert (done.returncode, done.stderr) == (0, "")
    assert shim.is_ours(desk.shim)


def test_no_package_runs_code_in_the_shim(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.pth` file in uvtokend's environment, which Python's `site` would run, does not run in the shim."""
    environment = desk.directory / "venv"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "plugin.pth").write_text("import os; os.write(2, b'hijacked')\n")
    monkeypatch.setattr(sys, "executable", str(environment / "bin" / "python"))
    desk.shim = shims.install(str(desk.directory / "clean"))
    desk.serve(result(RESULT))
    done = desk.run("get", URL, "me")
    assert (done.returncode, done.stdout, done.stderr) == (0, 't"0ken\n', "")
