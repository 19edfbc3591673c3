"""A private mount namespace for one command; no other process sees what a test mounts there."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def in_namespace(
    setup: str, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as root of a new mount namespace, after shell lines that mount something.

    Args:
        setup: The shell lines. ``$1``, ``$2`` ... are the words of the command.
        command: The command.
        env: Its environment, instead of ours.
        cwd: Its directory, instead of ours.
    """
    words = namespace(setup, command)
    return subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=100)


def namespace(setup: str, command: Sequence[str], *options: str) -> list[str]:
    """Return the words that run a command as root of new namespaces, after shell lines that mount something.

    Args:
        setup: The shell lines. ``$1``, ``$2`` ... are the words of the command.
        command: The command.
        options: Options of unshare(1) for more than a mount namespace.
    """
    words = ["unshare", "--mount", *options, *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-euc"]
    return [*words, f'{setup}\nexec "$@"', "sh", *command]


@functools.cache
def missing_for_mounts() -> str | None:
    """Return why this user cannot mount anything here, or None."""
    if not shutil.which("unshare"):
        return "a mount namespace needs Linux and util-linux"
    done = in_namespace("mount -t tmpfs none /tmp", ["true"])
    return f"this machine allows no mount namespace: {done.stderr.strip()}" if done.returncode else None
