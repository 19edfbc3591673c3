"""What the real uv sends to a loopback index in an arrangement of credentials."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uvtokend.core.uv.order import Decision
from uvtokend.sandbox.web import Answer, Call, Server


@dataclass(frozen=True)
class Arrangement:
    """An arrangement of credentials; ``HOST``, ``PORT`` and ``HOME`` in any text are replaced by the real values.

    Args:
        netrc: The text of ``~/.netrc``; None for no file.
        files: Other files below the home directory.
        env: Variables of uv.
        user: The part of the index's URL before the ``@``.
        authenticate: The policy of the index.
        store: The text of uv's own store; None for no file.
        keyring: The output of a ``keyring`` command on PATH; None for no such command.
        top: The beginning of the project's uv.toml.
        more: The end of the project's uv.toml.
        sends: The credentials of uv's requests, in order; ``-`` is a request without one.
    """

    name: str
    netrc: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    authenticate: str = ""
    store: str | None = None
    keyring: str | None = None
    top: str = ""
    more: str = ""
    sends: tuple[str, ...] = ()


class Stage:
    """A home, a project, and an index that refuses every request and records the credentials."""

    def __init__(self, directory: Path, status: int = 401) -> None:
        self.directory = directory
        self.server = Server(self._answer)
        self.status = status
        self.number = 0

    def close(self) -> None:
        """Stop the index."""
        self.server.close()

    def _answer(self, _: Call) -> Answer:
        return Answer(self.status, b"", {"WWW-Authenticate": 'Basic realm="x"'} if self.status == 401 else {})

    @property
    def url(self) -> str:
        """The URL of the index, without a user name."""
        return f"{self.server.url}/acme/simple/"

    def set(self, arrangement: Arrangement) -> tuple[Path, dict[str, str]]:
        """Set up an arrangement, and return the project and uv's environment."""
        self.number += 1
        home = self.directory / f"home{self.number}"
        project = home / "project"
        project.mkdir(parents=True)
        known = {"HOST": "127.0.0.1", "PORT": str(self.server.port), "HOME": str(home)}

        def real(text: str) -> str:
            for word, value in known.items():
                text = text.replace(word, value)
            return text

        files = dict(arrangement.files)
        if arrangement.netrc is not None:
            files[".netrc"] = arrangement.netrc
        if arrangement.store is not None:
            files[".local/share/uv/credentials/credentials.toml"] = arrangement.store
        user = f"{arrangement.user}@" if arrangement.user else ""
        policy = f'authenticate = "{arrangement.authenticate}"\n' if arrangement.authenticate else ""
        index = f'[[index]]\nname = "acme"\nurl = "http://{user}HOST:PORT/acme/simple/"\ndefault = true\n{policy}'
        files["project/uv.toml"] = f"{arrangement.top}{index}{arrangement.more}"
        for name, text in files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(real(text), encoding="utf-8", newline="")
            path.chmod(0o600)
        programs = home / "bin"
        programs.mkdir()
        if arrangement.keyring is not None:
            script = f"#!/bin/sh\necho \"$@\" >> {home}/keyring.log\nprintf '%s' '{arrangement.keyring}'\n"
            (programs / "keyring").write_text(script)
            (programs / "keyring").chmod(0o700)
        environment = {
            "HOME": str(home),
            "PATH": os.pathsep.join([str(programs), os.path.dirname(sys.executable), "/usr/bin", "/bin"]),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "XDG_CONFIG_DIRS": str(home / "etc"),
            **{name: real(text) for name, text in arrangement.env.items()},
        }
        return project, environment

    def sent(self, uv: str, project: Path, environment: Mapping[str, str]) -> tuple[str, ...]:
        """Run uv and return the credentials of its requests to the index, in order; ``-`` for none."""
        self.server.calls.clear()
        words = [uv, "pip", "compile", "-", "--no-cache", "--python", sys.executable]
        done = subprocess.run(
            words, cwd=project, env=dict(environment), input="alpha", text=True, capture_output=True, check=False
        )
        self.said = done.stderr
        return tuple(credential(call) for call in self.server.calls if call.path.startswith("/acme/"))


def wire(decision: Decision) -> str:
    """Return the credential that a decision sends; ``-`` for none."""
    sent = decision.sent
    if sent is None:
        return "-"
    secret = sent.secret.reveal() if sent.secret is not None else ""
    return f"bearer {secret}" if sent.bearer else f"{sent.login}:{secret}"


def credential(call: Call) -> str:
    """Return the decoded credential of a request; ``-`` for none."""
    scheme, _, text = (call.headers.get("Authorization") or "").partition(" ")
    if scheme == "Basic":
        return base64.b64decode(text).decode()
    return f"bearer {text}" if scheme else "-"
