"""Notice that the installation of the running daemon was removed, or that an upgrade replaced it.

A daemon whose program was removed cannot start a worker, so it ends. An installer may remove the old files a moment
before it writes the new ones, so only an installation that is missing at two guard ticks in a row counts as removed.
After an upgrade in place the daemon continues and logs the upgrade once. `uvtokend start` or `uvtokend restart` then
replaces it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

import uvtokend
from uvtokend.core.events import Report

#: The line of our ``__init__.py`` that names the version.
_VERSION = re.compile(rb'^__version__ = "([^"\n]+)"$', re.MULTILINE)
#: More of that file than this, in bytes, is not read.
_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The state of the installation on disk.

    Args:
        missing: The first file that does not exist, or None.
        version: The current version of the package; None if it could not be read.
    """

    missing: str | None
    version: str | None = None


class InstalledFiles:
    """The files that the daemon and its workers run from.

    Args:
        interpreter: The path of the Python interpreter.
        package: The path of the package's ``__init__.py``.
    """

    def __init__(self, interpreter: str = sys.executable, package: str = uvtokend.__file__) -> None:
        self._interpreter = interpreter
        self._package = package
        self._read: tuple[int, ...] = ()
        self._last = OnDisk(None)

    def look(self) -> OnDisk:
        """Return the state now. The package is read only if it looks different from the last time.

        A file that cannot be checked, as on a network that hangs, does not count as missing.
        """
        file = self._interpreter
        try:
            os.stat(file)
            file = self._package
            status = os.stat(file)
        except (FileNotFoundError, NotADirectoryError):
            self._read = ()
            return OnDisk(file)
        except OSError:
            return OnDisk(None)
        looks = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if looks != self._read or self._last.version is None:
            self._last, self._read = OnDisk(None, _version(file)), looks
        return self._last


def _version(package: str) -> str | None:
    """Return the version that a package names; None if it cannot be read, or names none."""
    try:
        with open(package, "rb") as file:
            named = _VERSION.search(file.read(_LIMIT))
        return named[1].decode() if named else None
    except (OSError, ValueError):
        return None


class Installation:
    """Decides what the state on disk means for the daemon.

    Args:
        ended: Called with the reason when the installation is gone.
        report: Called with each report for the event log.
    """

    def __init__(self, ended: Callable[[str], None], report: Callable[[Report], None]) -> None:
        self._ended = ended
        self._report = report
        self._missing = False
        self._version = uvtokend.__version__

    def seen(self, on_disk: OnDisk) -> None:
        """Take the state at a guard tick. A tick may leave out a complete installation that stays the same."""
        if on_disk.missing is not None and self._missing:
            self._ended(f"its installation is gone ({on_disk.missing} does not exist)")
        elif on_disk.missing is None and on_disk.version not in {None, self._version}:
            self._version = str(on_disk.version)
            message = f"uvtokend was upgraded to {self._version}, but this daemon still is {uvtokend.__version__}."
            self._report(Report("warning", "upgraded", (), message, "uvtokend restart"))
        self._missing = on_disk.missing is not None
