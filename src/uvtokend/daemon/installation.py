"""Notice that the installation of the running daemon was removed, or that an upgrade replaced it.

A daemon whose program was removed cannot start a worker, so it ends. An installer may remove the old files a moment
before it writes the new ones, so only an installation that is still missing some seconds later counts as removed. After
an upgrade in place the daemon continues and logs the upgrade once. `uvtokend start` or `uvtokend restart` replaces it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvtokend
from uvtokend.core.events import Report

#: Seconds after which files that an installer replaces must be there again.
REPLACED_WITHIN = 30.0
#: The line of our ``__init__.py`` that names the version.
_VERSION = re.compile(r'^__version__ = "([^"\n]+)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The state of the installation on disk.

    Args:
        missing: The first file that does not exist, or None.
        version: The current version of the package; None if it could not be read.
    """

    missing: str | None
    version: str | None = None


def find(interpreter: str, package: str) -> OnDisk:
    """Check the files that the daemon and its workers run from.

    A file that cannot be checked, as on a network that hangs, does not count as missing.

    Args:
        interpreter: The path of the Python interpreter.
        package: The path of the package's ``__init__.py``.
    """
    for file in (interpreter, package):
        try:
            os.stat(file)
        except (FileNotFoundError, NotADirectoryError):
            return OnDisk(file)
        except OSError:
            return OnDisk(None)
    try:
        named = _VERSION.search(Path(package).read_text("utf-8"))
    except (OSError, ValueError):
        return OnDisk(None)
    return OnDisk(None, named[1] if named else None)


class Installation:
    """Watches the installation, in a thread that delays neither the loop nor its end.

    Args:
        ended: Called in the loop with the reason when the installation is gone.
        report: Called in the loop with each report for the event log.
        look_at: Returns the state on disk.
    """

    def __init__(
        self,
        ended: Callable[[str], None],
        report: Callable[[Report], None],
        look_at: Callable[[], OnDisk] = lambda: find(sys.executable, uvtokend.__file__),
    ) -> None:
        self._ended = ended
        self._report = report
        self._look_at = look_at
        self._loop = asyncio.get_running_loop()
        self._looking = False
        self._again: asyncio.TimerHandle | None = None
        self._version = uvtokend.__version__

    def look(self) -> None:
        """Check the files, unless a check is under way or planned. Called at each guard tick."""
        if not self._looking and self._again is None:
            self._begin(last=False)

    def close(self) -> None:
        """Stop watching."""
        if self._again is not None:
            self._again.cancel()

    def _begin(self, last: bool) -> None:
        self._looking, self._again = True, None

        def work() -> None:
            on_disk = self._look_at()
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._seen, on_disk, last)

        threading.Thread(target=work, name="installation", daemon=True).start()

    def _seen(self, on_disk: OnDisk, last: bool) -> None:
        self._looking = False
        if on_disk.missing is not None and last:
            self._ended(f"its installation is gone ({on_disk.missing} does not exist)")
        elif on_disk.missing is not None:
            self._again = self._loop.call_later(REPLACED_WITHIN, self._begin, True)
        elif on_disk.version not in {None, self._version}:
            self._version = str(on_disk.version)
            message = f"uvtokend was upgraded to {self._version}, but this daemon still is {uvtokend.__version__}."
            self._report(Report("warning", "upgraded", (), message, "uvtokend restart"))
