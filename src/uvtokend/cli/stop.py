"""``uvtokend stop``: stop the daemon."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable

import psutil

from uvtokend import paths
from uvtokend.cli import client, console, elsewhere
from uvtokend.core import fixes
from uvtokend.disk import configuration
from uvtokend.disk.locks import Owner, named_owner, netrc_owner
from uvtokend.errors import OK, NotRunning, UvtokendError

EXAMPLES = ("uvtokend stop",)
DETAILS = "Valid tokens stay in the netrc until they expire; `uvtokend purge` removes them."

#: Seconds between two checks of an ending daemon.
_PAUSE = 0.03
#: Seconds that a daemon gets to end by itself, and then after SIGTERM.
_GRACE = 20.0


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb: none."""


def run(args: argparse.Namespace) -> int:
    """Stop the daemon."""
    return stop(args.config)


def stop(config: str | None = None, pid: int | None = None) -> int:
    """Stop the daemon, and wait until it has ended.

    Args:
        config: Another configuration file. It names the netrc, whose lock names a daemon that cannot be reached.
        pid: The process ID of the daemon to stop. Another process may have stopped it meanwhile and started another
            one.

    Raises:
        NotRunning: No daemon runs, and no process ID was given.
        UvtokendError: The daemon does not end.
    """
    process: psutil.Process | None = None
    try:
        with client.Connection() as connection:
            if pid is not None and connection.call("version")["pid"] != pid:
                return OK
            process = _process(connection.pid)
            connection.call("stop")
    except NotRunning:
        if pid is not None:
            return OK
        process = unreachable(config)
        if process is None:
            message = "uvtokend is not running, so there is nothing to stop."
            raise NotRunning(message) from None
        _end(process.terminate)
    except (client.NoAnswerError, client.HungUpError) as error:
        process = process or _process_of(named_owner(f"{paths.socket_file()}.lock")) or unreachable(config)
        if process is None and isinstance(error, client.NoAnswerError):
            message = "The daemon does not answer, and its process ID is unknown."
            raise UvtokendError(message, fixes.daemons()) from None
        if process is not None:
            _end(process.terminate)
    if process is not None and not _gone(process):
        _kill(process)
    console.say("uvtokend is stopped.")
    return OK


def _kill(process: psutil.Process) -> None:
    _end(process.kill)
    if not _gone(process):
        message = f"The daemon (pid {process.pid}) does not end."
        raise UvtokendError(message, fixes.show_processes([process.pid]))


def unreachable(config: str | None) -> psutil.Process | None:
    """Return the daemon that owns the netrc, even if its control socket is missing.

    Args:
        config: Another configuration file, which names the netrc.
    """
    return _process_of(_owner_of_netrc(config))


def daemon_of_netrc(config: str | None) -> Owner | None:
    """Return the daemon that owns the netrc, even one on another host; None if there is no owner.

    Args:
        config: Another configuration file, which names the netrc.
    """
    owner = _owner_of_netrc(config)
    if owner is not None and owner.is_here and _process(owner.pid) is None:
        return None  # `uvtokend once` owns the netrc for a moment
    return owner


def _owner_of_netrc(config: str | None) -> Owner | None:
    try:
        netrc = configuration.load(config).netrc
    except UvtokendError:
        netrc = configuration.defaults().netrc
    return netrc_owner(os.path.realpath(netrc))


def _process(pid: int) -> psutil.Process | None:
    """Return the process of a daemon, or None. psutil distinguishes it from a later process with the same ID.

    No other process is ever signaled: a process of another PID namespace has another ID here, and a recorded ID may
    belong to another process meanwhile.
    """
    try:
        process = psutil.Process(pid)
        return process if elsewhere.is_daemon(process) else None
    except psutil.Error:
        return None


def _process_of(owner: Owner | None) -> psutil.Process | None:
    return _process(owner.pid) if owner is not None and owner.is_here else None


def _end(signal: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        signal()


def _gone(process: psutil.Process) -> bool:
    """Wait until a process has ended; a zombie counts as ended."""
    deadline = time.monotonic() + _GRACE
    with console.Progress("Waiting for the daemon to end") as progress:
        while time.monotonic() < deadline:
            try:
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            progress.show()
            time.sleep(_PAUSE)
    return False
