"""A mount namespace of its own, in which a test mounts what it likes and no other process sees it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def namespace(directory: Path) -> Iterator[list[str]]:
    """Make a namespace, and give what stands before a command that is to run in it (unshare(1), nsenter(1)).

    An ordinary user becomes root of a user namespace, where the kernel allows that.

    Args:
        directory: Where the commands run; entering a namespace leads to its root.
    """
    alone = os.geteuid() != 0
    command = ["unshare", "--mount", *(["--map-root-user"] if alone else []), "sh", "-c", "echo ready; read end"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"ready\n", "this kernel gives nobody a mount namespace"
            pid = str(holder.pid)
            user = ["--user", "--preserve-credentials"] if alone else []
            yield ["nsenter", "--target", pid, "--mount", *user, "env", f"--chdir={directory}"]
        finally:
            holder.stdin.close()


def sh(inside: list[str], script: str, **variables: str) -> None:
    """Run a shell script in a namespace; it must succeed."""
    environment: Mapping[str, str] = {"PATH": os.environ.get("PATH", os.defpath), **variables}
    done = subprocess.run([*inside, "sh", "-euc", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
