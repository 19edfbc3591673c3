"""Whether the configuration files still say what the daemon has loaded.

A status asks often and the files change rarely, so they are read again only when one of them looks different.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from uvtokend import paths
from uvtokend.core.model import Settings
from uvtokend.core.report import INVALID, duration
from uvtokend.errors import ConfigError, UvtokendError

Load = Callable[[], Settings]


class ConfigFiles:
    """The configuration in force and the files behind it.

    Args:
        load: Reads the files; raises ConfigError.
        settings: What they said at the start.
    """

    def __init__(self, load: Load, settings: Settings) -> None:
        self._load = load
        self._settings = settings
        self._compared = self._fingerprint()
        self._difference: Callable[[float], str] | None = None
        self._compare()  # the files may have changed between the loading and now

    def load(self) -> Settings:
        """Read the files and take what they say for loaded.

        Raises:
            UvtokendError: They are invalid; what was loaded before stays in force.
        """
        self._settings = self._load()
        self._compared, self._difference = self._fingerprint(), None
        return self._settings

    def stale(self, now: float) -> str | None:
        """Return a sentence if the files say something else than what is loaded, or are invalid; else None.

        Args:
            now: The wall clock in seconds, for ``changed 3 min ago``.
        """
        seen = self._fingerprint()
        if seen != self._compared:
            self._compared = seen
            self._compare()
        return None if self._difference is None else self._difference(now)

    def _compare(self) -> None:
        try:
            new = self._load()
        except ConfigError as error:
            first = error.problems[0]
            text = f"{INVALID}, so the previous configuration stays in force: {first.where}: "
            self._difference = lambda _: f"{text}{first.message}"
        except UvtokendError as error:
            message = error.message
            self._difference = lambda _: f"The configuration cannot be read: {message}"
        else:
            changed = self._changed_at()
            same = replace(new, notices=self._settings.notices) == self._settings
            self._difference = None if same else lambda now: f"config.toml changed {duration(now - changed)} ago."

    def _files(self) -> tuple[str, ...]:
        return (self._settings.file, paths.site_config_file())

    def _fingerprint(self) -> tuple[object, ...]:
        return tuple(_looks(path) for path in self._files())

    def _changed_at(self) -> float:
        """Return when a file changed last, on the wall clock; 0 if none is there."""
        times = [looks[2] for path in self._files() if (looks := _looks(path)) is not None]
        return max(times, default=0) / 1e9


def _looks(path: str) -> tuple[int, int, int, int, int] | None:
    """Return what changes when a file is written, or its owner or mode: a file that others may write is refused."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_mode, info.st_uid
