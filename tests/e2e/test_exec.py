"""`exec`, `ensure` and `token` as processes: real uv, real twine, and an index that checks every token."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support import commands
from support.issuing import CANARY, Issuing
from support.waiting import until
from uvtokend.disk import uv_files
from uvtokend.sandbox.index import wheel
from uvtokend.sandbox.machine import find_uv

#: Keeps uv away from the netrc that the daemon writes.
BLIND = {"NETRC": os.devnull}
SHOW = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """A machine with one index; its daemon is not started."""
    made = Issuing(tmp_path_factory.mktemp("x"))
    made.configure()
    yield made
    made.close()


@pytest.fixture(params=["daemon", "alone"])
def either(request: pytest.FixtureRequest, machine: Issuing) -> Issuing:
    """The same machine, once with and once without a running daemon."""
    if request.param == "daemon":
        machine.begin()
    return machine


def project(machine: Issuing, url: str) -> Path:
    folder = machine.directory / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "work"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["alpha"]\n\n'
        f'[[tool.uv.index]]\nname = "acme"\nurl = {json.dumps(url)}\ndefault = true\nauthenticate = "always"\n'
    )
    return folder


def run(machine: Issuing, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return commands.run(arguments, {**machine.environment, **BLIND}, cwd or machine.directory)


def test_uv_gets_the_credential_by_the_index_name(either: Issuing) -> None:
    """`uv sync` installs with UV_INDEX_* alone; nothing is refused on the way, and the token is in no argument."""
    folder = project(either, either.index.url)
    done = run(either, "exec", "acme", "--", find_uv(), "sync", "--python", sys.executable, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert list(folder.glob(".venv/lib/*/site-packages/alpha-2.0.dist-info"))
    assert either.index.refused == 0
    assert CANARY not in done.stdout + done.stderr


def test_uv_and_twine_publish(either: Issuing) -> None:
    """A plain `uv publish` and a plain `twine upload` go to the index's own upload URL, with its token."""
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
    """A token that was fetched for one command is in no file afterwards."""
    done = run(machine, "exec", "acme", "--", *SHOW)
    assert json.loads(done.stdout)["UV_INDEX_ACME_PASSWORD"] == f"{CANARY}-1"
    assert [
        path for path in machine.directory.rglob("*") if path.is_file() and f"{CANARY}-1".encode() in path.read_bytes()
    ] == []
    assert not machine.netrc.exists()


@pytest.mark.linux("/proc tells which signals are ignored")
def test_the_command_is_all_that_runs(either: Issuing) -> None:
    """Exit status, standard input, arguments and the default signals are the command's own: it replaces exec."""
    script = either.directory / "script"
    script.write_text('read line; grep SigIgn /proc/$$/status > "$1"; echo "$# $line"; exit 7\n')
    ignored = either.directory / "ignored"
    command = either.ourselves("exec", "acme", "--", "/bin/sh", str(script), str(ignored), "--", "-x")
    environment = {**either.environment, **BLIND}
    done = subprocess.run(command, env=environment, input="hello\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "3 hello\n"), done.stderr
    assert int(ignored.read_text().split()[1], 16) & 1 << (signal.SIGPIPE - 1) == 0


def test_a_signal_reaches_the_command(machine: Issuing) -> None:
    """The pid of `exec` becomes the command's, so a signal ends the command, and its end is seen as such."""
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
    """A sentence with the culprit and what to do; the command does not run."""
    done = run(machine, *arguments)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_the_daemon_knows_the_names(machine: Issuing) -> None:
    """A name that the running daemon does not know is wrong usage, as it is without a daemon."""
    machine.begin()
    for verb in (["exec", "nobody", "--", "true"], ["ensure", "nobody"], ["token", "nobody"]):
        done = run(machine, *verb)
        assert (done.returncode, "nobody" in done.stderr) == (2, True)


def test_a_project_cannot_turn_the_token_elsewhere(either: Issuing) -> None:
    """A checkout that puts the index's name on another host gets no token: uv would send it there."""
    folder = project(either, "https://evil.example/simple/")
    done = run(either, "exec", "acme", "--", *SHOW, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "evil.example" in done.stderr
    assert "pyproject.toml" in done.stderr
    assert len(either.tokens) == (either.daemon is not None)  # none was fetched for it


def test_a_command_line_cannot_turn_the_token_elsewhere(machine: Issuing) -> None:
    """What uv's own options and a script's metadata lead to is checked before a token is fetched."""
    folder = project(machine, "https://evil.example/simple/")
    (machine.directory / "script.py").write_text(
        '# /// script\n# [[tool.uv.index]]\n# name = "acme"\n# url = "https://evil.example/"\n# ///\n'
    )
    for words in (
        ["sync", "--project", str(folder)],
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
def test_no_strange_url_turns_the_token_elsewhere(machine: Issuing, url: str) -> None:
    """uv reads these URLs as the first host, Python as the second or as none (seen with the real uv)."""
    folder = project(machine, url.format("127.0.0.1:1", urlsplit(machine.index.url).netloc))
    done = run(machine, "exec", "acme", "--", *SHOW, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "uv's index 'acme' is on" in done.stderr


def test_what_cannot_be_checked_gets_no_token(machine: Issuing) -> None:
    """A file that uv may read and we cannot is no way around the check."""
    folder = project(machine, machine.index.url)
    with (folder / "pyproject.toml").open("a") as file:
        file.write("#" * (uv_files.LIMIT + 1))
    done = run(machine, "exec", "acme", "--", *SHOW, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be checked" in done.stderr


def test_another_target_in_the_environment_is_refused(either: Issuing) -> None:
    """What an earlier command exported would take the token or the package elsewhere."""
    for name, value in (("UV_PUBLISH_URL", "https://evil.example/"), ("TWINE_REPOSITORY", "other")):
        done = commands.run(["exec", "acme", "--", *SHOW], {**either.environment, **BLIND, name: value})
        assert (done.returncode, done.stdout) == (2, "")
        assert f"fix: unset {name}" in done.stderr


def test_token_prints_the_token_alone(either: Issuing) -> None:
    """Standard output has the token and a line end; a terminal is refused unless it is asked for."""
    done = run(either, "token", "acme")
    assert (done.returncode, done.stdout) == (0, f"{either.tokens[-1]}\n")
    assert done.stderr == ""
    assert _on_terminal(either, "token", "acme") == (1, False)
    assert _on_terminal(either, "token", "acme", "--show") == (0, True)


def _on_terminal(machine: Issuing, *arguments: str) -> tuple[int, bool]:
    """Run a command whose standard output is a terminal; return its status and whether a token was seen."""
    ours, theirs = pty.openpty()
    try:
        command = machine.ourselves(*arguments)
        done = subprocess.run(command, env=machine.environment, stdout=theirs, stderr=theirs, check=False)
        return done.returncode, CANARY.encode() in os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_failure_says_why(machine: Issuing) -> None:
    """With no token to be had, the command does not run, and status 1 comes with a reason."""
    machine.fail()
    for verb in (["exec", "acme", "--", *SHOW], ["token", "acme"], ["ensure", "--", *SHOW]):
        done = run(machine, *verb)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert "acme" in done.stderr


def test_ensure_refreshes_only_what_it_must(either: Issuing) -> None:
    """A token with enough life is left alone; a short one is fetched again, delivered, and then the command runs."""
    either.set_life(600)
    assert either.uvtokend("ensure").returncode == 0
    fetched = len(either.tokens)
    assert either.uvtokend("ensure", "--min", "5m", "acme", "--", "true").returncode == 0
    assert len(either.tokens) == fetched
    either.set_life(7200)
    done = either.uvtokend("ensure", "--min", "90m", "--", "/bin/cat", str(either.netrc))
    assert (done.returncode, either.tokens[-1] in done.stdout) == (0, True), done.stderr
    assert len(either.tokens) == fetched + 1


def test_a_disabled_index_ensures_nothing(either: Issuing) -> None:
    """No life can be had of it: naming it is a failure, and the command does not run; unnamed it does not count."""
    either.set_life(7200)
    either.config.write_text(either.config.read_text() + '\n[[index]]\nname = "off"\nenabled = false\n')
    either.uvtokend("reload")
    done = either.uvtokend("ensure", "off", "acme", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "'off' is disabled" in done.stderr
    assert either.uvtokend("ensure", "--", "echo", "ran").stdout == "ran\n"


def test_ensure_stops_where_the_life_cannot_be_had(either: Issuing) -> None:
    """The command does not run with less than was asked for, and the life that there is is said."""
    either.set_life(600)
    done = either.uvtokend("ensure", "--min", "2h", "--", *SHOW)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not for 2 h" in done.stderr


def test_ensure_leaves_its_own_protection_behind(machine: Issuing) -> None:
    """The command gets the umask and the limits that the user had, also where ensure fetched by itself."""
    script = "umask; ulimit -Sc; ulimit -Hc"
    plain = machine.run(["/bin/sh", "-c", script]).stdout
    assert machine.uvtokend("ensure", "--", "/bin/sh", "-c", script).stdout == plain
