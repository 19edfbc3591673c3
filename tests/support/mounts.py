"""A private mount namespace that lasts for several commands; no other process sees what a test mounts there."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def namespace(directory: Path) -> Iterator[list[str]]:
    """Create a namespace, and yield the prefix of commands that run in it (unshare(1), nsenter(1)).

    An ordinary user becomes root of a user namespace, if the kernel allows that.

    Args:
        directory: The working directory of the commands, since entering a namespace changes to its root.
    """
    unprivileged = os.geteuid() != 0
    command = ["unshare", "--mount", *(["--map-root-user"] if unprivileged else []), "sh", "-c", "echo ready; read end"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"ready\n", "this kernel allows no mount namespace"
            pid = str(holder.pid)
            user = ["--user", "--preserve-credentials"] if unprivileged else []
            yield ["nsenter", "--target", pid, "--mount", *user, "env", f"--chdir={directory}"]
        finally:
            holder.stdin.close()


def sh(inside: list[str], script: str, **variables: str) -> None:
    """Run a shell script in a namespace, and check that it succeeds."""
    environment: Mapping[str, str] = {"PATH": os.environ.get("PATH", os.defpath), **variables}
    done = subprocess.run([*inside, "sh", "-euc", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
