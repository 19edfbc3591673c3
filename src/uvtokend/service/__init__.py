"""The service manager that may run the daemon: systemd's user manager or launchd, if our unit is installed there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from uvtokend.errors import UvtokendError

UNIT = "uvtokend.service"
#: Seconds that a service manager may take for an answer.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Service:
    """An installed unit whose manager can be reached.

    Args:
        file: The unit or the property list.
        start_command: What starts it.
        why_command: What a person runs to see why it does not start.
        load_command: What makes the manager read it first; it may fail, for one that was read already.
    """

    file: Path
    start_command: tuple[str, ...]
    why_command: str
    load_command: tuple[str, ...] | None = None

    def start(self) -> None:
        """Ask the manager to start the daemon.

        Raises:
            UvtokendError: It refuses, and why.
        """
        if self.load_command is not None:
            _ask(self.load_command)
        done = _ask(self.start_command)
        if done is None or done.returncode != 0:
            said = done.stderr.strip() if done else "it does not answer"
            message = f"The service {self.file} could not be started: {said}"
            raise UvtokendError(message, self.why_command)


def installed() -> Service | None:
    """Return the service that starts the daemon for this user, or None if there is none that can be reached."""
    if sys.platform == "darwin":
        return _launchd()
    file = next((folder / UNIT for folder in _systemd_folders() if (folder / UNIT).is_file()), None)
    if file is None:
        return None
    done = _ask(("systemctl", "--user", "show-environment"))  # it answers where the manager can be reached
    if done is None or done.returncode != 0:
        return None
    return Service(file, ("systemctl", "--user", "start", UNIT), f"journalctl --user -u {UNIT} -n 20")


def _systemd_folders() -> Iterator[Path]:
    """Yield where user units stand: systemd.unit(5), "User Unit Search Path"."""
    from platformdirs import user_config_path, user_data_path  # noqa: PLC0415 - only where a service is asked for

    yield user_config_path() / "systemd" / "user"
    yield user_data_path() / "systemd" / "user"
    yield from map(Path, ("/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"))


def _launchd() -> Service | None:
    """Return our agent. launchctl(1): ``bootstrap`` loads it, and fails if it is loaded; ``kickstart`` starts it."""
    for folder in (Path.home() / "Library" / "LaunchAgents", Path("/Library/LaunchAgents")):
        for file in sorted(folder.glob("*uvtokend*.plist")):
            domain = f"gui/{os.getuid()}"
            target = f"{domain}/{file.stem}"
            load = ("launchctl", "bootstrap", domain, str(file))
            return Service(file, ("launchctl", "kickstart", target), f"launchctl print {target}", load)
    return None


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """Run a command of the service manager and return how it ended; None if there is none, or it does not answer."""
    try:
        return subprocess.run(  # noqa: S603 - the commands stand above
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
