"""`exec`, `ensure` and `token` as processes, with the real uv and twine, and an index that checks every token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support import commands
from support.issuing import CANARY, Issuing
from support.terminal import Terminal
from support.waiting import until
from uvtokend.disk import uv_files
from uvtokend.sandbox.index import wheel
from uvtokend.sandbox.machine import find_uv

#: Prevents uv from reading the netrc that the daemon writes.
BLIND = {"NETRC": os.devnull}
SHOW = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """Make a machine with one index; its daemon is not started."""
    made = Issuing(tmp_path_factory.mktemp("x"))
    made.configure()
    yield made
    made.close()


@pytest.fixture(params=["daemon", "alone"])
def either(request: pytest.FixtureRequest, machine: Issuing) -> Issuing:
    """Return the machine, once with and once without a running daemon."""
    if request.param == "daemon":
        machine.begin()
    return machine


def project(machine: Issuing, url: str) -> Path:
    directory = machine.directory / "project"
    directory.mkdir()
    (directory / "pyproject.toml").write_text(
        '[project]\nname = "work"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["alpha"]\n\n'
        f'[[tool.uv.index]]\nname = "acme"\nurl = {json.dumps(url)}\ndefault = true\nauthenticate = "always"\n'
    )
    return directory


def run(machine: Issuing, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return commands.run(arguments, {**machine.environment, **BLIND}, cwd or machine.directory)


def test_uv_gets_the_credential_by_the_index_name(either: Issuing) -> None:
    """`uv sync` installs with the variables UV_INDEX_* only; no request is refused,
    and no output contains the token.
    """
    directory = project(either, either.index.url)
    done = run(either, "exec", "acme", "--", find_uv(), "sync", "--python", sys.executable, cwd=directory)
    assert done.returncode == 0, done.stderr
    assert list(directory.glob(".venv/lib/*/site-packages/alpha-2.0.dist-info"))
    assert either.index.refused == 0
    assert CANARY not in done.stdout + done.stderr


def test_uv_and_twine_publish(either: Issuing) -> None:
    """`uv publish` and `twine upload` without options upload to the index's upload URL with its token."""
    for name, command in (
        ("omega", [find_uv(), "publish", "--trusted-publishing", "never"]),
        ("sigma", [sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar"]),
    ):
        file = either.directory / f"{name}-1.0-py3-none-any.whl"
        file.write_bytes(wheel(name, "1.0"))
        done = run(either, "exec", "acme", "--", *command, str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        assert file.name in either.index.files
        assert CANARY not in done.stdout + done.stderr
    assert either.index.refused == 0


def test_without_a_daemon_nothing_is_left_behind(machine: Issuing) -> None:
    """Without a daemon, the token that `exec` fetches for one command is in no file afterwards."""
    done = run(machine, "exec", "acme", "--", *SHOW)
    assert json.loads(done.stdout)["UV_INDEX_ACME_PASSWORD"] == f"{CANARY}-1"
    assert [
        path for path in machine.directory.rglob("*") if path.is_file() and f"{CANARY}-1".encode() in path.read_bytes()
    ] == []
    assert not machine.netrc.exists()


@pytest.mark.linux("/proc shows which signals are ignored")
def test_the_command_replaces_exec(either: Issuing) -> None:
    """The command replaces `exec`: exit status, standard input, arguments and default signals are its own."""
    script = either.directory / "script"
    script.write_text('read line; grep SigIgn /proc/$$/status > "$1"; echo "$# $line"; exit 7\n')
    ignored = either.directory / "ignored"
    command = either.ourselves("exec", "acme", "--", "/bin/sh", str(script), str(ignored), "--", "-x")
    environment = {**either.environment, **BLIND}
    done = subprocess.run(command, env=environment, input="hello\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "3 hello\n"), done.stderr
    assert int(ignored.read_text().split()[1], 16) & 1 << (signal.SIGPIPE - 1) == 0


def test_a_signal_reaches_the_command(machine: Issuing) -> None:
    """The command has the pid of `exec`, so a signal ends the command, and the caller sees that."""
    machine.begin()
    ready = machine.directory / "ready"
    command = machine.ourselves(
        "exec", "acme", "--", "/bin/sh", "-c", f"echo $$ > {ready}.new; mv {ready}.new {ready}; exec sleep 60"
    )
    with subprocess.Popen(command, env=machine.environment) as process:
        until(ready.exists)
        assert int(ready.read_text()) == process.pid
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["exec", "acme"], "There is no command to run"),
        (["exec", "nobody", "--", "true"], "nobody"),
        (["exec", "acme", "--", "/nonexistent/program"], "'/nonexistent/program' cannot be executed"),
        (["exec", "acme", "a-b", "a.b", "--", "true"], "UV_INDEX_A_B_PASSWORD"),
        (["ensure", "--min", "soon"], "'soon' is not a duration"),
        (["ensure", "nobody"], "nobody"),
        (["token", "nobody"], "nobody"),
    ],
)
def test_wrong_usage_is_status_2(machine: Issuing, arguments: list[str], sentence: str) -> None:
    """Wrong usage exits with 2 and a message that quotes the culprit; the command does not run."""
    done = run(machine, *arguments)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_name_is_wrong_usage_with_a_daemon(machine: Issuing) -> None:
    """A name that the running daemon does not know is wrong usage, as it is without a daemon."""
    machine.begin()
    for verb in (["exec", "nobody", "--", "true"], ["ensure", "nobody"], ["token", "nobody"]):
        done = run(machine, *verb)
        assert (done.returncode, "nobody" in done.stderr) == (2, True)


def test_a_project_cannot_redirect_the_token(either: Issuing) -> None:
    """If a project gives the index's name to another host, `exec` refuses, because uv would send the token there."""
    directory = project(either, "https://evil.example/simple/")
    done = run(either, "exec", "acme", "--", *SHOW, cwd=directory)
    assert (done.returncode, done.stdout) == (2, "")
    assert "evil.example" in done.stderr
    assert "pyproject.toml" in done.stderr
    assert len(either.tokens) == (either.daemon is not None)  # exec fetched none


def test_a_command_line_cannot_redirect_the_token(machine: Issuing) -> None:
    """`exec` also checks uv's own options and a script's metadata before it fetches a token."""
    directory = project(machine, "https://evil.example/simple/")
    (machine.directory / "script.py").write_text(
        '# /// script\n# [[tool.uv.index]]\n# name = "acme"\n# url = "https://evil.example/"\n# ///\n'
    )
    for words in (
        ["sync", "--project", str(directory)],
        ["run", "script.py"],
        ["lock", "--index", "acme=https://evil.example/"],
    ):
        done = run(machine, "exec", "acme", "--", "uv", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "evil.example" in done.stderr
    done = run(machine, "exec", "acme", "--", "uv", "run", "-")
    assert (done.returncode, "cannot be checked" in done.stderr) == (2, True)
    assert machine.tokens == []


@pytest.mark.parametrize("url", ["http:\\\\{0}/", " http:{0}/", "http://{0}\\@{1}/", "http:///{0}/", "http:/{0}/"])
def test_an_ambiguous_url_cannot_redirect_the_token(machine: Issuing, url: str) -> None:
    """`exec` refuses URLs that uv reads as the first host and Python as the second or none (seen with the real uv)."""
    directory = project(machine, url.format("127.0.0.1:1", urlsplit(machine.index.url).netloc))
    done = run(machine, "exec", "acme", "--", *SHOW, cwd=directory)
    assert (done.returncode, done.stdout) == (2, "")
    assert "uv's index 'acme' is on" in done.stderr


def test_a_file_that_cannot_be_checked_is_refused(machine: Issuing) -> None:
    """If uv may read a file that `exec` cannot check, such as one that is too large, `exec` refuses."""
    directory = project(machine, machine.index.url)
    with (directory / "pyproject.toml").open("a") as file:
        file.write("#" * (uv_files.LIMIT + 1))
    done = run(machine, "exec", "acme", "--", *SHOW, cwd=directory)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be checked" in done.stderr


def test_another_upload_target_in_the_environment_is_refused(either: Issuing) -> None:
    """`exec` refuses if the environment sets another upload target, which would get the token or the package."""
    for name, value in (("UV_PUBLISH_URL", "https://evil.example/"), ("TWINE_REPOSITORY", "other")):
        done = commands.run(["exec", "acme", "--", *SHOW], {**either.environment, **BLIND, name: value})
        assert (done.returncode, done.stdout) == (2, "")
        assert f"fix: unset {name}" in done.stderr


def test_token_prints_only_the_token(either: Issuing) -> None:
    """`token` prints only the token and a line end, and refuses to print to a terminal without `--show`."""
    done = run(either, "token", "acme")
    assert (done.returncode, done.stdout) == (0, f"{either.tokens[-1]}\n")
    assert done.stderr == ""
    assert _on_terminal(either, "token", "acme") == (1, False)
    assert _on_terminal(either, "token", "acme", "--show") == (0, True)


def _on_terminal(machine: Issuing, *arguments: str) -> tuple[int, bool]:
    """Run a command on a terminal; return its exit status, and whether its output contained a token."""
    with Terminal(machine.ourselves(*arguments), machine.environment) as terminal:
        status = terminal.end()
        return status, CANARY in terminal.text


def test_a_failure_says_why(machine: Issuing) -> None:
    """If the token cannot be fetched, the command does not run; the exit status is 1 and the reason is printed."""
    machine.fail()
    for verb in (["exec", "acme", "--", *SHOW], ["token", "acme"], ["ensure", "--", *SHOW]):
        done = run(machine, *verb)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert "acme" in done.stderr


def test_ensure_refreshes_only_short_tokens(either: Issuing) -> None:
    """`ensure` keeps a token with enough life; it refreshes and delivers a shorter one before the command runs."""
    either.set_life(600)
    assert either.uvtokend("ensure").returncode == 0
    fetched = len(either.tokens)
    assert either.uvtokend("ensure", "--min", "5m", "acme", "--", "true").returncode == 0
    assert len(either.tokens) == fetched
    either.set_life(7200)
    done = either.uvtokend("ensure", "--min", "90m", "--", "/bin/cat", str(either.netrc))
    assert (done.returncode, either.tokens[-1] in done.stdout) == (0, True), done.stderr
    assert len(either.tokens) == fetched + 1


def test_ensure_with_a_disabled_index(either: Issuing) -> None:
    """`ensure` with the name of a disabled index fails and runs no command; without names it ignores that index."""
    either.set_life(7200)
    either.config.write_text(either.config.read_text() + '\n[[index]]\nname = "off"\nenabled = false\n')
    either.uvtokend("reload")
    done = either.uvtokend("ensure", "off", "acme", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "'off' is disabled" in done.stderr
    assert either.uvtokend("ensure", "--", "echo", "ran").stdout == "ran\n"


def test_ensure_fails_if_the_life_is_too_short(either: Issuing) -> None:
    """If new tokens are valid for less than `--min`, `ensure` says so and the command does not run."""
    either.set_life(600)
    done = either.uvtokend("ensure", "--min", "2h", "--", *SHOW)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not for 2 h" in done.stderr


def test_ensure_restores_umask_and_limits(machine: Issuing) -> None:
    """The command gets the user's umask and limits, even if `ensure` fetched the token itself."""
    script = "umask; ulimit -Sc; ulimit -Hc"
    plain = machine.run(["/bin/sh", "-c", script]).stdout
    assert machine.uvtokend("ensure", "--", "/bin/sh", "-c", script).stdout == plain
