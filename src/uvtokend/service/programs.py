"""Run a program of the service manager: without a terminal, and with a time limit."""

from __future__ import annotations

import subprocess

#: Seconds that a service manager gets to answer.
PATIENCE = 60.0


def run(*command: str) -> subprocess.CompletedProcess[str] | None:
    """Return the result of a command; None if its program is missing, or does not end."""
    try:
        return subprocess.run(  # noqa: S603 - the callers' own commands, without a shell
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
