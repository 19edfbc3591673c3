"""The installed service of any service manager, for `start`, `status` and `service`.

`start` looks for a service before it starts a daemon, and most people have none. So a manager's module, and what it
imports, is loaded only if there is a service file.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import NamedTuple

from uvtokend.service import SYSTEMD_UNIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


class Service(NamedTuple):
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
    from uvtokend.service import launchd, systemd  # noqa: PLC0415 - see the module's docstring

    return launchd.lines() if sys.platform == "darwin" else systemd.lines()


def program() -> list[str]:
    """Return the absolute command of uvtokend, by a path that survives an upgrade.

    The link on PATH that `uv tool install` and pipx create is better than the file that it points to now.
    """
    import shutil  # noqa: PLC0415 - see the module's docstring

    called = os.path.abspath(sys.argv[0])
    on_path = shutil.which("uvtokend")
    if on_path is not None and os.path.basename(called) == "uvtokend" and os.path.samefile(on_path, called):
        return [os.path.abspath(on_path)]
    if os.path.basename(called) == "uvtokend" and os.access(called, os.X_OK):
        return [called]
    return [sys.executable, "-P", "-m", "uvtokend"]


def _systemd() -> Service | None:
    units = (os.path.join(directory, SYSTEMD_UNIT) for directory in unit_directories())
    unit = next((unit for unit in units if os.path.isfile(unit)), None)
    if unit is None:
        return None
    from pathlib import Path  # noqa: PLC0415 - see the module's docstring

    from uvtokend.service import systemd  # noqa: PLC0415

    if not systemd.available():
        return None
    return Service(
        Path(unit), partial(systemd.ask, "start", SYSTEMD_UNIT), f"journalctl --user -u {SYSTEMD_UNIT} -n 20"
    )


def unit_directories() -> Iterator[str]:
    """Yield the directories of user units: systemd.unit(5), "User Unit Search Path".

    The first two are those that platformdirs names; importing it would take longer than the whole search.
    """
    for variable, default in (("XDG_CONFIG_HOME", "~/.config"), ("XDG_DATA_HOME", "~/.local/share")):
        base = os.environ.get(variable, "")
        yield os.path.join(base if base.strip() else os.path.expanduser(default), "systemd", "user")
    yield from ("/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user")


def _launchd() -> Service | None:
    from pathlib import Path  # noqa: PLC0415 - see the module's docstring

    from uvtokend.service import launchd  # noqa: PLC0415

    directories = (launchd.file_of().parent, Path("/Library/LaunchAgents"))
    file = next((plist for directory in directories for plist in sorted(directory.glob("*uvtokend*.plist"))), None)
    where = launchd.domain() if file is not None else None
    if file is None or where is None:
        return None
    why = f"launchctl print {where}/{launchd.label(file)}"
    return Service(file, partial(launchd.start, file, where), why, launchd.variables(file))
