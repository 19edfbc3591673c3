"""Run a program whose output is a secret: limited in time and size, without a terminal. Its output stays private."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections.abc import Sequence

from uvtokend.core import fixes
from uvtokend.providers.kit.failures import rejected, transient

#: The most bytes of output; more than this is not a credential.
LIMIT = 64 * 1024
#: Seconds to continue reading after the program has exited: a process that it left behind may keep its output open.
_GRACE = 1.0


def answer(command: Sequence[str], timeout: float | None = None) -> bytes:
    """Return what a program writes to its standard output.

    The program runs in our process group, so that it is killed together with the worker. Its arguments and its standard
    error may contain secrets, so a failure never contains them.

    Args:
        command: The program and its arguments.
        timeout: The time limit in seconds; None if only the deadline of the fetch counts.

    Raises:
        FetchFailed: The program cannot be started, takes too long, fails, or prints too much or nothing.
    """
    name = os.path.basename(command[0])
    try:
        process = subprocess.Popen(  # noqa: S603 - the program that the user's configuration names
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or "its name or an argument contains an invalid character"
        raise rejected("no-command", f"{name} cannot be started: {why}.", find_fix(command[0])) from None
    said = bytearray()
    reader = threading.Thread(target=_drain, args=(process, said), daemon=True)
    reader.start()
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise transient("timeout", f"{name} did not answer within {timeout:g} s.") from None
    reader.join(_GRACE)
    _check(name, status, said)
    return bytes(said)


def find_fix(program: str) -> str:
    """Return the command that lets the daemon find a program, or shows why the path that is named cannot be started."""
    return f"ls -l {shlex.quote(program)}" if "/" in program else fixes.find_program(program)


def _drain(process: subprocess.Popen[bytes], said: bytearray) -> None:
    if process.stdout is None:
        return
    with process.stdout as pipe:
        while data := pipe.read(LIMIT):
            said += data
            if len(said) > LIMIT:
                process.kill()
                return


def _check(name: str, status: int, said: bytearray) -> None:
    if len(said) > LIMIT:
        raise rejected("too-much", f"{name} answered more than {LIMIT // 1024} KiB, which is not a credential.")
    if status in {126, 127}:  # the exit status of shells and env for a program that is missing or not executable
        raise rejected("no-command", f"{name} could not start what it runs (exit status {status}).")
    if status != 0:
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        raise transient("command-failed", f"{name} failed ({how}).")
    if not said.strip():
        raise rejected("no-answer", f"{name} answered nothing.")
