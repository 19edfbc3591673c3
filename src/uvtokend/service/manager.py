"""The installed service of any service manager, for `start`, `status` and `service`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from uvtokend.service import launchd, systemd


@dataclass(frozen=True, slots=True)
class Service:
    """An installed unit or agent whose manager answers.

    Args:
        file: The unit or the property list.
        start: Asks the manager to start the daemon; raises UvtokendError with the manager's words if it refuses.
        why_command: The command that shows why the daemon does not start.
        variables: The environment that the manager adds for the daemon; None if it is unknown.
    """

    file: Path
    start: Callable[[], None]
    why_command: str
    variables: Mapping[str, str] | None = None


def installed() -> Service | None:
    """Return the service that starts the daemon for this user; None if there is none whose manager answers."""
    return _launchd() if sys.platform == "darwin" else _systemd()


def lines() -> list[str]:
    """Return the service manager's report, as lines for a person."""
    return launchd.lines() if sys.platform == "darwin" else systemd.lines()


def program() -> list[str]:
    """Return the absolute command of uvtokend, by a path that survives an upgrade.

    The link on PATH that `uv tool install` and pipx create is better than the file that it points to now.
    """
    called = os.path.abspath(sys.argv[0])
    on_path = shutil.which("uvtokend")
    if on_path is not None and os.path.basename(called) == "uvtokend" and os.path.samefile(on_path, called):
        return [os.path.abspath(on_path)]
    if os.path.basename(called) == "uvtokend" and os.access(called, os.X_OK):
        return [called]
    return [sys.executable, "-P", "-m", "uvtokend"]


def _systemd() -> Service | None:
    file = next(
        (directory / systemd.UNIT for directory in _systemd_directories() if (directory / systemd.UNIT).is_file()), None
    )
    if file is None or not systemd.available():
        return None
    return Service(file, partial(systemd.ask, "start", systemd.UNIT), f"journalctl --user -u {systemd.UNIT} -n 20")


def _systemd_directories() -> Iterator[Path]:
    """Yield the directories of user units: systemd.unit(5), "User Unit Search Path"."""
    from platformdirs import user_data_path  # noqa: PLC0415 - only for a service

    yield systemd.directory()
    yield user_data_path() / "systemd" / "user"
    yield from map(Path, ("/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"))


def _launchd() -> Service | None:
    directories = (launchd.file_of().parent, Path("/Library/LaunchAgents"))
    file = next((plist for directory in directories for plist in sorted(directory.glob("*uvtokend*.plist"))), None)
    where = launchd.domain() if file is not None else None
    if file is None or where is None:
        return None
    why = f"launchctl print {where}/{launchd.label(file)}"
    return Service(file, partial(launchd.start, file, where), why, launchd.variables(file))
