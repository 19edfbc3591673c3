"""A desk: a home directory, the commands that run there as processes, and the daemon that they start."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import commands, places
from support.daemons import ask
from support.terminal import Terminal

TOKEN = "tok-3b1f9a"
FOREIGN = b"# mine\nmachine ftp.example login me password mine\n"


@dataclass
class Desk:
    """A home directory, and the commands that run there."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list, repr=False)

    @property
    def env(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "UVTOKEND_", "NO_"))
        }
        inherited.pop("NETRC", None)
        return {**inherited, "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run"), **self.extra}

    @property
    def netrc(self) -> Path:
        return self.home / ".netrc"

    @property
    def config(self) -> Path:
        return places.config_file(self.home)

    @property
    def state(self) -> Path:
        return places.state_directory(self.home)

    @property
    def socket(self) -> Path:
        return self.home / "run" / "uvtokend" / "control.sock"

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in a new Python."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        words = [sys.executable, "-m", "uvtokend", *args]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, env=self.env, text=True, **pipes)
        self.started.append(process)
        return process

    def terminal(self, *args: str) -> Terminal:
        """Start a command on a terminal."""
        return Terminal([sys.executable, "-m", "uvtokend", *args], self.env)

    def run(self, *args: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command, and check its exit status and that it shows neither a traceback nor the token."""
        done = commands.run(args, self.env)
        output = done.stdout + done.stderr
        assert "Traceback" not in output
        assert TOKEN not in output
        assert done.returncode == status, (args, output)
        return done

    def document(self, *args: str, status: int = 0) -> dict[str, Any]:
        """Return the status document that a command prints."""
        document = json.loads(self.run(*args, "--json", status=status).stdout)
        assert isinstance(document, dict)
        return document

    def configure(self, *indexes: tuple[str, str], daemon: str = "") -> None:
        """Write a configuration of `command` indexes: (name, host), answered by the file `answer-<name>`."""
        parts = [daemon]
        for name, host in indexes:
            answer = self.home / f"answer-{name}"
            if not answer.exists():
                self.answer(name)
            command = json.dumps(["cat", str(answer)])
            parts += ["[[index]]", f'url = "https://{host}/simple/"', f'name = "{name}"']
            parts += ['provider = "command"', f"command = {command}"]
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text("\n".join(parts))
        self.config.chmod(0o600)

    def answer(self, name: str, text: str | None = None) -> None:
        """Set the answer of an index's command; the default is a valid token."""
        good = json.dumps({"username": "me", "password": TOKEN, "expires_in": 3600})
        (self.home / f"answer-{name}").write_text(good if text is None else text)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Return a desk, and stop its daemon afterwards if it still runs; print what a command said that still runs."""
    tmp_path.chmod(0o700)
    (tmp_path / "run").mkdir(0o700)
    desk = Desk(tmp_path)
    desk.netrc.write_bytes(FOREIGN)
    desk.netrc.chmod(0o600)
    yield desk
    with contextlib.suppress(FileNotFoundError, ConnectionError, json.JSONDecodeError, psutil.NoSuchProcess):
        process = psutil.Process(ask(desk.socket, "version")["pid"])
        process.terminate()
        gone(process)
    for command in desk.started:
        if command.poll() is None:
            command.kill()
            with contextlib.suppress(ValueError):  # the test has closed one of its pipes
                print("This did not end:", command.args, *command.communicate())


def gone(process: psutil.Process) -> None:
    """Wait until a process is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        # The threads of a process that was killed may hold its files for a moment after the first one has ended.
        while process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1:
            time.sleep(0.01)


def on_terminal(desk: Desk, *args: str) -> tuple[str, int]:
    """Run a command on a terminal until it ends; return what it showed, and its exit status."""
    with desk.terminal(*args) as terminal:
        status = terminal.end()
        return terminal.text, status
