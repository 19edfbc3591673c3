"""The keyring command and the keyring backend with the programs that call them: uv, pip, twine and keyring itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.issuing import CANARY, LOGIN, Issuing
from support.waiting import PATIENCE, until
from uvtokend import ask
from uvtokend.core.worker_environment import FIXED
from uvtokend.sandbox.index import wheel

#: Prevents programs from reading the netrc that the daemon writes.
BLIND = {"NETRC": os.devnull}
KEYRING = [sys.executable, "-m", "keyring"]


@contextmanager
def running(folder: Path) -> Iterator[Issuing]:
    made = Issuing(folder)
    made.configure()
    assert made.uvtokend("keyring", "install", str(made.home / "bin")).returncode == 0
    made.environment["PATH"] = f"{made.home / 'bin'}{os.pathsep}{made.environment['PATH']}"
    made.begin()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """A machine with a running daemon, and our keyring first on PATH, for tests that change neither."""
    with running(tmp_path_factory.mktemp("k")) as made:
        yield made


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """A machine of its own."""
    with running(tmp_path_factory.mktemp("k")) as made:
        yield made


def log(machine: Issuing) -> list[dict[str, str]]:
    """Return the `answered` events of the log."""
    lines = (machine.state / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "answered"]


def with_user(machine: Issuing) -> str:
    return machine.index.url.replace("://", f"://{LOGIN}@")


def test_uv_asks_with_the_user_name(machine: Issuing) -> None:
    """uv gets the token with `--keyring-provider subprocess`; the log names uv and does not contain the token."""
    where = machine.directory / "target"
    arguments = ("--keyring-provider", "subprocess", "--index-url", with_user(machine), "alpha")
    done = machine.install(where, *arguments, env=BLIND)
    assert done.returncode == 0, done.stderr
    assert (where / "alpha.py").exists()
    assert log(machine)
    assert all(event["message"].startswith("Answered uv (pid ") for event in log(machine))
    assert CANARY not in (machine.state / "events.jsonl").read_text()


def test_uv_asks_for_user_name_and_token(machine: Issuing) -> None:
    """With `authenticate = "always"` and no user name, uv asks for both with `--mode creds`, and installs."""
    directory = machine.directory / "project"
    directory.mkdir()
    (directory / "pyproject.toml").write_text(
        '[project]\nname = "work"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["alpha"]\n\n'
        '[tool.uv]\nkeyring-provider = "subprocess"\n\n'
        f'[[tool.uv.index]]\nname = "acme"\nurl = "{machine.index.url}"\ndefault = true\nauthenticate = "always"\n'
    )
    done = machine.uv("sync", "--python", sys.executable, cwd=directory, env=BLIND)
    assert done.returncode == 0, done.stderr
    assert machine.index.refused == 0
    assert list(directory.glob(".venv/lib/*/site-packages/alpha-2.0.dist-info"))


def test_pip_asks_for_json(shared: Issuing) -> None:
    """pip's subprocess provider asks with `--mode=creds --output=json`, and installs."""
    where = shared.directory / "target"
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--no-input", "--no-cache-dir", "--no-deps"]
    command += ["--keyring-provider", "subprocess", "--index-url", shared.index.url]
    command += ["--target", str(where), "--disable-pip-version-check", "alpha"]
    done = shared.run(command, env=BLIND)
    assert done.returncode == 0, done.stderr
    assert (where / "alpha.py").exists()


def test_uv_publishes_with_keyring(shared: Issuing) -> None:
    """`uv publish` gets the token for the upload URL, which is below the index's root."""
    file = shared.directory / "omega-1.0-py3-none-any.whl"
    file.write_bytes(wheel("omega", "1.0"))
    arguments = ("--keyring-provider", "subprocess", "--username", LOGIN, "--trusted-publishing", "never")
    done = shared.uv("publish", *arguments, "--publish-url", shared.index.upload_url, str(file), env=BLIND)
    assert done.returncode == 0, done.stderr
    assert file.name in shared.index.files


def test_the_keyring_library_agrees_with_our_command(shared: Issuing) -> None:
    """With our backend, the keyring library gives the same output and status as our command, for every form."""
    forms = (
        ["get", shared.index.url, LOGIN],
        ["get", shared.index.url, LOGIN, "--output", "json"],
        ["--mode", "creds", "get", shared.index.url],
        ["--mode=creds", "--output=json", "get", shared.index.url],
        ["get", shared.index.url, "nobody"],
        ["get", "https://theirs.example/simple/", LOGIN],
        ["get", shared.index.base.replace("http://127", "http://128"), LOGIN],
        ["get", shared.index.base, LOGIN],
        ["get", shared.index.url],
    )
    for asked, arguments in enumerate(forms):
        # The first time the library chooses among all backends; then a variable names ours, which is faster.
        chosen = {"PYTHON_KEYRING_BACKEND": "uvtokend.keyring_backend.UvtokendKeyring"} if asked else {}
        ours = shared.run(["keyring", *arguments], env={**BLIND, "PATH": str(shared.home / "bin")})
        theirs = shared.run([*KEYRING, *arguments], env={**BLIND, **chosen})
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), arguments


def test_the_backend_is_loaded_without_an_sdk(shared: Issuing) -> None:
    """keyring lists our backend, and loading it imports no SDK, no asyncio and nothing of the daemon."""
    assert "uvtokend.keyring_backend.UvtokendKeyring" in shared.run([*KEYRING, "--list-backends"]).stdout
    code = "import sys, keyring.backend; before = set(sys.modules); import uvtokend.keyring_backend\n"
    done = shared.run([sys.executable, "-c", f"{code}print(*sorted(set(sys.modules) - before))"])
    ours = {"ask", "errors", "keyring_backend", "paths", "peers"}
    assert set(done.stdout.split()) - {"_json", "_socket"} <= {"uvtokend", *(f"uvtokend.{name}" for name in ours)}


def test_the_backend_stores_nothing(machine: Issuing) -> None:
    """The backend refuses to store and delete; without a daemon it returns no credential and prints the reason."""
    code = (
        "from uvtokend.keyring_backend import UvtokendKeyring as K\nk = K()\n"
        "for call in (lambda: k.set_password('s', 'u', 'p'), lambda: k.delete_password('s', 'u')):\n"
        "    try:\n        call()\n    except NotImplementedError:\n        print('refused')\n"
        f"print(k.get_password({machine.index.url!r}, 'me'), k.get_credential({machine.index.url!r}, None))\n"
    )
    assert machine.run([sys.executable, "-c", code]).stdout.split()[:3] == ["refused", "refused", machine.tokens[-1]]
    machine.stop()
    done = machine.run([sys.executable, "-c", code])
    assert done.stdout.split() == ["refused", "refused", "None", "None"]
    assert done.stderr.count("uvtokend is not running") == 2


def test_twine_gets_the_token_from_keyring(shared: Issuing) -> None:
    """twine uploads with the token of our keyring backend; no password is typed or stored."""
    file = shared.directory / "sigma-1.0-py3-none-any.whl"
    file.write_bytes(wheel("sigma", "1.0"))
    command = [sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar"]
    command += ["--repository-url", shared.index.upload_url, "--username", LOGIN, str(file)]
    done = shared.run(command, env={**BLIND, "COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert file.name in shared.index.files


def test_a_worker_never_calls_its_own_daemon(shared: Issuing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a worker, our keyring returns nothing: a helper that asks for its own index would wait for itself."""
    monkeypatch.setenv("UVTOKEND_SOCKET", shared.environment["UVTOKEND_SOCKET"])
    assert ask.credential(shared.index.url, None) is not None
    monkeypatch.setenv(ask.IN_WORKER, FIXED[ask.IN_WORKER])
    assert ask.credential(shared.index.url, None) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSTOP])
def test_a_daemon_that_stops_or_hangs_during_a_call(machine: Issuing, number: signal.Signals) -> None:
    """If the daemon stops or hangs while keyring waits for a fetch, keyring prints one line and exits with 1."""
    assert machine.daemon is not None
    os.mkfifo(machine.directory / "never")
    url, fetch = "http://localhost:1/slow/simple/", f'["cat", "{machine.directory / "never"}"]'
    with machine.config.open("a") as file:
        file.write(f'[[index]]\nname = "slow"\nurl = "{url}"\nprovider = "command"\ncommand = {fetch}\n')
    assert machine.uvtokend("reload").returncode == 0
    command, path = [str(machine.home / "bin" / "keyring"), "get", url, LOGIN], {"PATH": str(machine.home / "bin")}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**machine.environment, **path}, **pipes) as asking:
        try:
            until(lambda: bool(psutil.Process(asking.pid).net_connections("unix")))
            machine.daemon.send_signal(number)
            out, err = asking.communicate(timeout=PATIENCE)
        finally:
            machine.daemon.send_signal(signal.SIGCONT)
    assert (asking.returncode, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith("uvtokend: ")
    assert "fix: uvtokend" in err


def test_install_says_whether_path_finds_the_command(machine: Issuing) -> None:
    """`keyring install` says how to use the command or how to fix PATH; uninstall removes every file."""
    errors = machine.uvtokend("keyring", "install", str(machine.home / "bin")).stderr
    assert "uv sync --keyring-provider subprocess" in errors
    other = machine.home / "other"
    assert f"export PATH={other}:$PATH" in machine.uvtokend("keyring", "install", str(other)).stderr
    assert machine.uvtokend("keyring", "uninstall", "dir").returncode == 2
    assert machine.uvtokend("keyring", "uninstall").returncode == 0
    assert not list(machine.home.rglob("keyring"))
    assert "no keyring command" in machine.uvtokend("keyring", "uninstall").stderr
