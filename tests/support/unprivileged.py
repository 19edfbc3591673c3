"""Runs code as an ordinary user, whoever runs the tests: what root may do proves nothing about others."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping

import psutil

#: The user that root becomes: any but root will do, and one without a passwd entry is met in containers too.
ORDINARY = 12345


def as_user(
    script: str, *arguments: str, imports: str = "", uid: int = ORDINARY, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script as an ordinary user; where we are no root, as ourselves.

    Args:
        script: Python code.
        arguments: Its arguments.
        imports: What it imports, however late, as in an ``import`` statement: the rights of root are given up when all
            is imported, since root's Python may lie where nobody else may read.
        uid: Which user root becomes; that user's group has the same number.
        env: The environment, instead of ours.
    """
    start = f"import os, {imports}\n".replace(", \n", "\n")
    if os.geteuid() == 0:
        start += f"os.setgroups([])\nos.setgid({uid})\nos.setuid({uid})\n"
    command = [sys.executable, "-c", start + textwrap.dedent(script), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def hidden(process: psutil.Process) -> bool:
    """Tell whether a process hides its environment and its memory from us: undumpable ones show them to root alone."""
    try:
        process.environ()
    except psutil.AccessDenied:
        return os.geteuid() != 0
    return False
