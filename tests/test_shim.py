"""The `keyring` command: what it answers, what it hands over, and what it survives, over a real socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
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
#: Writes what it was called with, reads its input to the end, and has a status of its own.
OTHER = '#!/bin/sh\necho "other $*"; cat; echo "complaint" >&2; exit 5\n'


@dataclass
class Daemon:
    """A control socket that does what a test says with each request; None means that it hangs up."""

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
                    continue  # it looked who we are, and went away
                request = json.loads(line)
                self.asked.append(request)
                with contextlib.suppress(OSError):
                    client.sendall(self.answer(request) or b"")


@dataclass
class Place:
    """A directory with a shim, an environment, and maybe a daemon."""

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
        """Make another keyring, and return its directory."""
        (self.directory / name).mkdir(exist_ok=True)
        (self.directory / name / "keyring").write_text(text)
        (self.directory / name / "keyring").chmod(0o755)
        return str(self.directory / name)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("s")
    (directory / "run").mkdir(0o700)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("XDG_STATE_HOME", str(directory / "state"))
    environment = {"HOME": str(directory), "UVTOKEND_SOCKET": str(directory / "run" / "control.sock")}
    made = Place(directory, shims.install(str(directory / "bin")), environment)
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
def test_it_prints_what_keyring_prints(place: Place, arguments: list[str], output: str) -> None:
    """The forms that uv, pip, pipx and build use, with the options in any order."""
    daemon = place.serve(result(RESULT))
    done = place.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")
    username = "me" if "me" in arguments else None
    assert daemon.asked[0]["params"] == {"url": URL, "username": username, "shim": True}


def test_the_json_is_keyrings_own(place: Place) -> None:
    """Token and login come back from the JSON as they are, whatever they hold."""
    odd = {"login": "mé\u2028", "token": '\\"\u00e9\U0001f600', "expires_at": None}
    place.serve(result(odd))
    printed = json.loads(place.run("--mode=creds", "--output=json", "get", URL).stdout)
    assert printed == {"username": odd["login"], "password": odd["token"]}


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
def test_anything_else_is_handed_over(place: Place, arguments: list[str]) -> None:
    """Arguments, input, output, errors and status are the other keyring's; without one, the way out is named."""
    place.serve(result(RESULT))
    other = place.other()
    done = place.run(*arguments, path=f"{place.directory}/bin:{other}:/bin")
    assert (done.returncode, done.stdout, done.stderr) == (5, f"other {' '.join(arguments)}\nin\n", "complaint\n")
    done = place.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "answers only 'keyring get" in done.stderr


def test_services_that_are_not_ours_are_handed_over(place: Place) -> None:
    """With another keyring it answers; with none, it ends as keyring does: status 1 and not a word."""
    place.serve(error(NO_MATCH))
    done = place.run("get", "https://theirs.example/", "me", path=f"{place.directory}/bin:{place.other()}:/bin")
    assert (done.returncode, done.stdout) == (5, "other get https://theirs.example/ me\nin\n")
    done = place.run("get", "https://theirs.example/", "me")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_url_of_ours_without_a_token_is_not_handed_over(place: Place) -> None:
    """One line says why and what helps; nobody else is asked for the credential of our index."""
    place.serve(error({"code": -32001, "message": "The sign-in\nexpired.", "data": {"hint": "aws sso login"}}))
    done = place.run("get", URL, "me", path=f"{place.directory}/bin:{place.other()}:/bin")
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
def test_a_daemon_that_breaks_off(place: Place, answer: Callable[[dict[str, object]], bytes | None]) -> None:
    """A daemon that stops while it is asked, or a stranger: one line on standard error, then keyring's own way."""
    place.serve(answer)
    done = place.run("get", URL, "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("uvtokend: ")
    done = place.run("get", URL, "me", path=f"{place.directory}/bin:{place.other()}:/bin")
    assert (done.returncode, done.stdout) == (5, f"other get {URL} me\nin\n")


def test_no_daemon(place: Place) -> None:
    """Where none runs, one line says so."""
    done = place.run("get", URL, "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "uvtokend: uvtokend is not running. fix: uvtokend start\n"


def test_a_daemon_that_hangs(place: Place) -> None:
    """A daemon that takes requests and never answers is noticed after two short waits."""
    free = threading.Event()
    daemon = place.serve(lambda _: b"" if free.wait() else None)
    done = place.run("get", URL, "me")
    free.set()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "uvtokend: The uvtokend daemon does not answer. fix: uvtokend restart\n"
    assert [request["method"] for request in daemon.asked][:1] == ["credential"]
    assert 2 * ask.QUICK < 2


def test_a_slow_answer_of_a_living_daemon(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a fetch takes its time, the daemon is asked for its version, and the answer is waited for."""
    monkeypatch.setattr(ask, "QUICK", 0.05)
    versions = threading.Semaphore(0)
    path = str(place.directory / "run" / "slow.sock")
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
        found = ask.credential(URL, None)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert found is not None
    assert found.token == RESULT["token"]


@pytest.mark.parametrize("service", ["x" * 100_000, "https://h.example/\nx", "https://hé.example/", "\x1b[2J"])
def test_a_hostile_argument(place: Place, service: str) -> None:
    """What can belong to no index does not even reach the daemon."""
    daemon = place.serve(result(RESULT))
    done = place.run("get", service, "me")
    assert (done.returncode, done.stdout, done.stderr, daemon.asked) == (1, "", "", [])
    assert ask.credential("https://h.example/" + "x" * 10_000_000, None) is None
    assert ask.credential("https://h.example/", "x" * 100_000) is None


def test_another_users_socket(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that another user serves, or a directory that others may enter, is not asked."""
    daemon = place.serve(result(RESULT))
    monkeypatch.setenv("UVTOKEND_SOCKET", daemon.path)
    monkeypatch.setattr("uvtokend.peers.uid", lambda _: os.getuid() + 1)
    with pytest.raises(UvtokendError, match="Another user"):
        ask.credential(URL, None)
    (place.directory / "run").chmod(0o777)
    done = place.run("get", URL, "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert "chmod 700" in done.stderr
    assert daemon.asked == []


def test_every_shim_of_ours_is_skipped(place: Place) -> None:
    """Shims in a row, one of them a symlink, and an empty and a relative entry of PATH: another program answers."""
    place.serve(error(NO_MATCH))
    second = os.path.dirname(shims.install(str(place.directory / "second")))
    (place.directory / "linked").mkdir()
    (place.directory / "linked" / "keyring").symlink_to(place.shim)
    path = (
        f"{place.directory}/bin::bin:{second}:{place.directory}/linked:{place.directory}/missing:{place.other()}:/bin"
    )
    done = place.run("get", URL, "me", path=path)
    assert (done.returncode, done.stdout) == (5, f"other get {URL} me\nin\n")
    done = place.run("get", URL, "me", path=path.replace(f":{place.directory}/other", ""))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_keyring_that_hands_over_to_us(place: Place) -> None:
    """A wrapper that calls the first keyring on PATH again comes back once, not for ever."""
    place.serve(error(NO_MATCH))
    wrapper = place.other("wrapper", '#!/bin/sh\nexec keyring "$@"\n')
    done = place.run("get", URL, "me", path=f"{place.directory}/bin:{wrapper}:{place.other()}:/bin")
    assert (done.returncode, done.stdout) == (5, f"other get {URL} me\nin\n")


def test_a_keyring_that_cannot_be_executed(place: Place) -> None:
    """One whose interpreter is gone is passed over."""
    place.serve(error(NO_MATCH))
    broken = place.other("broken", "#!/nonexistent/python\n")
    done = place.run("get", URL, "me", path=f"{broken}:{place.other()}:/bin")
    assert (done.returncode, done.stdout) == (5, f"other get {URL} me\nin\n")


def test_no_foreign_file_is_touched(place: Place) -> None:
    """A keyring of somebody else is neither overwritten nor removed, and neither is a dangling link."""
    other = place.other()
    before = Path(other, "keyring").read_text()
    (place.directory / "dangling").mkdir()
    (place.directory / "dangling" / "keyring").symlink_to("/nonexistent")
    for directory in (other, str(place.directory / "dangling")):
        with pytest.raises(UvtokendError, match="not made by uvtokend"):
            shims.install(directory)
    assert shims.install(os.path.dirname(place.shim)) == place.shim  # ours is renewed
    Path(place.shim).write_text(OTHER)
    assert shims.uninstall() == []
    assert Path(other, "keyring").read_text() == before
    assert Path(place.shim).read_text() == OTHER
    assert sorted(os.listdir(os.path.dirname(place.shim))) == ["keyring"]


def test_uninstall_leaves_nothing(place: Place) -> None:
    """Every directory that we ever installed to is cleaned, and so is the list of them."""
    second = shims.install(str(place.directory / "second"))
    default = shims.install(shims.default_directory())
    assert shims.uninstall() == [place.shim, second, default]
    assert not [path for path in place.directory.rglob("*") if path.name in {"keyring", "shims.json"}]
    assert shims.uninstall() == []


def test_a_directory_that_cannot_be_written(place: Place) -> None:
    """The reason and another way are named."""
    (place.directory / "file").write_text("")
    with pytest.raises(UvtokendError, match="cannot be written"):
        shims.install(str(place.directory / "file" / "bin"))


def test_an_interpreter_with_an_odd_path(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A space in Python's path, or a path that is too long for a first line, goes through the shell."""
    directory = place.directory / "a 'dir'"
    directory.mkdir()
    (directory / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (directory / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(directory / "python"))
    place.shim = shims.install(str(place.directory / "odd"))
    place.serve(result(RESULT))
    done = place.run("get", URL, "me", path="/bin")
    assert (done.returncode, done.stdout, done.stderr) == (0, 't"0ken\n', "")


def test_an_installation_that_is_gone(place: Place) -> None:
    """Without uvtokend the command says in one line that it can be removed."""
    text = Path(place.shim).read_text().replace("uvtokend.shim import", "uvtokend.gone import")
    Path(place.shim).write_text(text)
    done = place.run("get", URL, "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"uvtokend: {place.shim} asks uvtokend, which is no longer installed. fix: rm {place.shim}\n"
    )


def test_isolated_mode(place: Place) -> None:
    """Nothing in the environment or in the current directory decides what the command runs."""
    (place.directory / "uvtokend.py").write_text("raise SystemExit('hijacked')\n")
    place.serve(result(RESULT))
    done = place.run(
        "get", URL, "me", PYTHONPATH=str(place.directory), PYTHONSTARTUP=str(place.directory / "uvtokend.py")
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(place.shim).read_text().splitlines()[0].endswith(" -I")
    assert shim.is_ours(place.shim)
