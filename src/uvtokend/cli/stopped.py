"""What `status` says while no daemon runs: what is known from disk, and why it may be that nothing answers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import psutil

from uvtokend import paths
from uvtokend.cli import console, disk
from uvtokend.cli.stop import unreachable
from uvtokend.service import manager

#: How many lines of the service manager are shown.
_LINES = 6
#: How many other daemons are named.
_OTHERS = 3


def status(names: list[str], config: str | None) -> tuple[dict[str, Any], Sequence[str]]:
    """Return the status document, and sentences that say why no daemon runs.

    Args:
        names: Only these indexes; none means all.
        config: Another configuration file.

    Raises:
        UsageError: No index has one of those names.
    """
    document, error = disk.document(names, config)
    if error is not None:
        console.complain(error)
    said = manager.lines()[:_LINES] if manager.installed() is not None else []
    owner = unreachable(config)
    return {**document}, (*islice(elsewhere(0 if owner is None else owner.pid), _OTHERS), *said)


def elsewhere(owner: int) -> Iterator[str]:
    """Yield a sentence for each daemon of this user that runs, but listens on another socket.

    A shell with another ``HOME``, ``XDG_RUNTIME_DIR`` or ``UVTOKEND_SOCKET`` looks for it in the wrong place.

    Args:
        owner: The pid of the daemon that owns the netrc of this configuration, which is told first; 0 for none.
    """
    for process in sorted(psutil.process_iter(), key=lambda each: each.pid != owner):
        try:
            if is_daemon(process):
                yield _sentence(process)
        except psutil.Error:
            continue  # it ended meanwhile


def is_daemon(process: psutil.Process) -> bool:
    """Tell whether a process is a daemon of ours, run by this user.

    Raises:
        psutil.Error: It is gone, or may not be looked at.
    """
    if not process.pid or process.uids().real != os.getuid():
        return False
    words = process.cmdline()
    return "run" in words and any(os.path.basename(word) == paths.APP for word in words)


def _sentence(process: psutil.Process) -> str:
    environment = process.environ()
    names = ("UVTOKEND_SOCKET", "HOME", "XDG_RUNTIME_DIR")
    different = [
        f"{name}={environment[name]}" if name in environment else f"no {name}"
        for name in names
        if environment.get(name) != os.environ.get(name)
    ]
    where = f" with {', '.join(different)}" if different else ""
    return f"Another daemon of yours runs (pid {process.pid}){where}, but it does not listen on {paths.socket_file()}."
