"""Notice that the configuration files differ from the loaded configuration.

`status` asks often and the files change rarely, so they are read again only if the metadata of one has changed.
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
    """The loaded configuration and its files.

    Args:
        load: Reads the files; raises ConfigError.
        settings: The settings that were loaded at the start.
    """

    def __init__(self, load: Load, settings: Settings) -> None:
        self._load = load
        self._settings = settings
        self._compared = self._fingerprint()
        self._difference: Callable[[float], str] | None = None
        self._compare()  # the files may have changed since they were loaded

    def load(self) -> Settings:
        """Read the files and return their settings, which count as loaded from now on.

        Raises:
            UvtokendError: The files are invalid; the previous settings stay loaded.
        """
        self._settings = self._load()
        self._compared, self._difference = self._fingerprint(), None
        return self._settings

    def stale(self, now: float) -> str | None:
        """Return a sentence if the files differ from the loaded settings, or are invalid; otherwise None.

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
            text = f"{INVALID}, so the previous configuration stays loaded: {first.where}: "
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
        """Return when one of the files last changed, on the wall clock; 0 if there are no files."""
        times = [looks[2] for path in self._files() if (looks := _looks(path)) is not None]
        return max(times, default=0) / 1e9


def _looks(path: str) -> tuple[int, int, int, int, int] | None:
    """Return the metadata that changes when a file is written, or when its owner or mode changes."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_mode, info.st_uid
