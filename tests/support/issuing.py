"""A machine with a program that issues a new token for each fetch, and an index that accepts these tokens."""

from __future__ import annotations

import secrets
from pathlib import Path

from support.daemons import await_ready
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.machine import Machine

LOGIN = "me"
#: A part of every token, so that a search finds it in any file; it is different in every test run.
CANARY = f"canary-{secrets.token_hex(8)}"


class Issuing(Machine):
    """A machine with a token program.

    Args:
        directory: An empty directory; nothing is written elsewhere.
        life: Seconds that each token is valid.

    Attributes:
        index: A package index that accepts every issued token.
    """

    def __init__(self, directory: Path, life: int = 3600) -> None:
        super().__init__(directory)
        self.index = PackageIndex(lambda login, token: login == LOGIN and token in self.tokens)
        self._count = directory / "count"
        self._program = directory / "issue"
        self.set_life(life)

    @property
    def tokens(self) -> list[str]:
        """The issued tokens, oldest first."""
        issued = int(self._count.read_text() or 0) if self._count.exists() else 0
        return [f"{CANARY}-{number}" for number in range(1, issued + 1)]

    def set_life(self, life: int) -> None:
        """Issue tokens that are valid for this many seconds from now on."""
        answer = f'{{"username": "{LOGIN}", "password": "{CANARY}-%s", "expires_in": {life}}}'
        self._install(f"n=$(($(cat {self._count} 2>/dev/null || echo 0) + 1)); echo $n > {self._count}\n", answer)

    def fail(self) -> None:
        """Let the token program fail from now on."""
        self._install("exit 1\n", "")

    def _install(self, start: str, answer: str) -> None:
        new = self._program.with_suffix(".new")
        new.write_text(f"#!/bin/sh\n{start}printf '{answer}\\n' $n\n")
        new.chmod(0o755)
        new.replace(self._program)

    def configure(self, *extra: str, **urls: str) -> None:
        """Write uvtokend's configuration.

        Args:
            extra: Further lines of every index, such as a sink.
            urls: Names and URLs of the indexes, which share one credential. The default is ``acme`` with our index.
        """
        tables = [
            f'[[index]]\nname = "{name}"\nurl = "{url}"\nprovider = "command"\ncommand = ["{self._program}"]\n'
            + "".join(f"{line}\n" for line in extra)
            for name, url in (urls or {"acme": self.index.url}).items()
        ]
        self.write(*tables)

    def begin(self) -> None:
        """Start the daemon and wait until every index has a token."""
        self.start()
        await_ready(self)

    def close(self) -> None:
        """Stop everything."""
        self.stop()
        self.index.close()
