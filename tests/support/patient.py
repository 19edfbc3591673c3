"""A machine with a broken setup, which a test repairs by following the output of ``uvtokend doctor``."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support import commands
from uvtokend.sandbox.index import PackageIndex, wheel
from uvtokend.sandbox.machine import Machine, find_uv
from uvtokend.sandbox.web import Answer

LOGIN, TOKEN = "aws", "good-token"
INDEX = """\
[[tool.uv.index]]
name = "acme"
url = "{url}"
default = true
authenticate = "always"
"""
PROJECT = """\
[project]
name = "work"
version = "1"
requires-python = ">=3.11"
dependencies = ["alpha"]

"""


def _nothing() -> None:
    """Do nothing."""


@dataclass
class Patient:
    """A home with a delivered token, a project, a private index that requires the token, and an open public one.

    Attributes:
        env: Variables of this shell in addition to the machine's environment.
        inside: The prefix of every command, such as one that enters a mount namespace.
        freed: Makes room on a full disk, as a user would.
    """

    machine: Machine
    index: PackageIndex
    public: PackageIndex
    env: dict[str, str] = field(default_factory=dict)
    inside: list[str] = field(default_factory=list)
    freed: Callable[[], None] = _nothing

    def __post_init__(self) -> None:
        self.said = ""
        self.valid = self.index.valid
        self.project = self.machine.home / "project"
        self.netrc = self.machine.home / ".netrc"
        self.pyproject = self.project / "pyproject.toml"
        self.saved = self.machine.directory / "saved"

    @property
    def public_url(self) -> str:
        """The URL of the public index, with another host than the private one."""
        return self.public.url.replace("127.0.0.1", "localhost")

    @property
    def host(self) -> str:
        """The host of the private index."""
        return urlsplit(self.index.url).hostname or ""

    def configure(self, *more: str, url: str | None = None) -> None:
        """Write config.toml and the secret that it names."""
        (self.machine.home / "secret").write_text(TOKEN)
        (self.machine.home / "secret").chmod(0o600)
        index = (
            f'[[index]]\nname = "acme"\nurl = "{url or self.index.url}"\nprovider = "static"\n'
            f'username = "{LOGIN}"\npassword = {{ file = "~/secret" }}\n'
        )
        self.machine.write(*more, index)

    def write_project(self, uv: str = INDEX, more: str = "") -> None:
        """Write the project's pyproject.toml."""
        self.project.mkdir(exist_ok=True)
        self.pyproject.write_text(PROJECT + more + uv.format(url=self.index.url, public=self.public_url))

    def answer(self, change: Callable[[Answer], Answer]) -> None:
        """Change the responses of the private index."""
        self.index.server.site = lambda call: change(self.index.answer(call))

    def restarted(self) -> bool:
        """Return whether the daemon was started since the last reset."""
        return (self.machine.directory / "run" / "control.sock").exists()

    def save(self) -> None:
        """Copy the home directory as it is."""
        shutil.copytree(self.machine.home, self.saved, symlinks=True)

    def reset(self) -> None:
        """Restore the home directory."""
        self.env.clear()
        self.inside.clear()
        self.machine.home.chmod(0o700)
        self.index.valid = self.valid
        self.index.server.site, self.public.server.site = self.index.answer, self.public.answer
        if self.restarted():
            self.ours("stop")
        shutil.rmtree(self.machine.home)
        shutil.copytree(self.saved, self.machine.home, symlinks=True)

    # ------------------------------------------------------------------------------------------------- the shell

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the project."""
        return self.machine.run([*self.inside, *command], self.project, self.env)

    def uv(self, *arguments: str) -> bool:
        """Run the real uv in the project without a cache, ignoring the lock file; return whether it succeeded."""
        done = self.run([find_uv(), *(arguments or ("lock", "--no-cache", "--upgrade"))])
        self.said = done.stdout + done.stderr
        return done.returncode == 0

    def ours(self, *arguments: str) -> tuple[int, str, str]:
        """Run a uvtokend command in the project."""
        if self.inside:
            done = self.run(self.machine.ourselves(*arguments))
        else:
            done = commands.run(arguments, {**self.machine.environment, **self.env}, self.project)
        return done.returncode, done.stdout, done.stderr

    def doctor(self, *arguments: str) -> list[dict[str, Any]]:
        """Run doctor and return its findings, after checking that its exit status says whether one is an error."""
        status, out, err = self.ours("doctor", "--json", *arguments)
        document = json.loads(out)
        findings: list[dict[str, Any]] = document["findings"]
        assert status == any(each["severity"] == "error" for each in findings), (status, out, err)
        assert document["ok"] == (status == 0)
        assert TOKEN not in out + err
        return findings

    def repair(self, fix: str) -> None:
        """Do what a fix says, as a user with this shell and an editor would."""
        if match := re.fullmatch(r"write (.+) in (\S+):(\d+)", fix):
            self._edit(match[2], int(match[3]), lambda _: [match[1]])
        elif match := re.fullmatch(r"add (.+) below (\S+):(\d+)(, and pin .*)?", fix):
            self._edit(match[2], int(match[3]), lambda line: [line, match[1]])
        elif match := re.fullmatch(r"delete the line (\S+):(\d+)", fix):
            self._edit(match[1], int(match[2]), lambda _: [])
        elif fix.startswith("delete what you do not need there: "):
            self.freed()
        elif match := re.fullmatch(r"add to (\S+):\n(.*)", fix, re.DOTALL):
            file = Path(match[1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text((file.read_text() if file.exists() else "") + match[2] + "\n")
        else:
            self._command(fix)

    def _edit(self, file: str, number: int, change: Any) -> None:
        lines = Path(file).read_text().splitlines()
        lines[number - 1 : number] = change(lines[number - 1])
        Path(file).write_text("\n".join(lines) + "\n")

    def _command(self, fix: str) -> None:
        words = shlex.split(fix)
        match words:
            case ["unset", *names]:
                for name in names:
                    self.env.pop(name, None)
            case ["export", *pairs]:
                for pair in pairs:
                    name, _, value = pair.partition("=")
                    self.env[name] = value
            case ["uvtokend", *arguments]:
                status, out, err = self.ours(*arguments)
                assert status == 0, (fix, out, err)
            case ["uv", *arguments]:
                assert self.uv(*arguments), (fix, self.said)
            case _:
                done = self.run(["sh", "-c", fix.removeprefix("sudo ")])
                assert done.returncode == 0, (fix, done.stderr)


def environment_of(machine: Machine) -> Mapping[str, str]:
    """Return a machine's environment without the variable that names its netrc, as most shells have it.

    It tells uv which Python to use, since uv would start four to find one outside a virtual environment.
    """
    rest = {name: text for name, text in machine.environment.items() if name != "NETRC"}
    return {**rest, "UV_HTTP_RETRIES": "0", "UV_PYTHON": sys.executable}


@contextlib.contextmanager
def prepared(directory: Path) -> Iterator[Patient]:
    """Make a machine on which everything works; its daemon is not started, because it has a token.

    Args:
        directory: An empty directory.
    """
    with (
        PackageIndex(lambda login, token: (login, token) == (LOGIN, TOKEN)) as index,
        PackageIndex(lambda *_: True) as public,
    ):
        public.add("alpha-9.9-py3-none-any.whl", wheel("alpha", "9.9"))
        machine = Machine(directory)
        machine.environment = dict(environment_of(machine))
        patient = Patient(machine, index, public)
        patient.configure()
        patient.write_project()
        status, out, err = patient.ours("once")
        assert status == 0, (out, err)
        patient.save()
        yield patient
        patient.reset()


@pytest.fixture(scope="session")
def prepared_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """Return one machine for all tests of a process."""
    with prepared(tmp_path_factory.mktemp("d")) as patient:
        yield patient


@pytest.fixture
def patient(prepared_machine: Patient) -> Iterator[Patient]:
    """Return the machine, and restore it afterwards."""
    yield prepared_machine
    prepared_machine.reset()
