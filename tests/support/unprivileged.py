"""Run code as an ordinary user, even if root runs the tests: what root can do proves nothing about other users."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping

import psutil

#: The user that root becomes; without a passwd entry, as is usual in containers.
ORDINARY = 12345


def as_user(
    script: str, *arguments: str, imports: str = "", uid: int = ORDINARY, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script as an ordinary user, or as the current user if that is not root.

    Args:
        script: Python code.
        arguments: Its arguments.
        imports: Everything that it imports, even late, as in an ``import`` statement. Root's permissions are given up
            after these imports, since other users may not be able to read root's Python.
        uid: The user that root becomes; the user's group has the same number.
        env: The environment, instead of ours.
    """
    start = f"import os, {imports}\n".replace(", \n", "\n")
    if os.geteuid() == 0:
        start += f"os.setgroups([])\nos.setgid({uid})\nos.setuid({uid})\n"
    command = [sys.executable, "-c", start + textwrap.dedent(script), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def hidden(process: psutil.Process) -> bool:
    """Return whether a process hides its environment and memory from us:
    only root sees those of undumpable processes.
    """
    try:
        process.environ()
    except psutil.AccessDenied:
        return os.geteuid() != 0
    return False
