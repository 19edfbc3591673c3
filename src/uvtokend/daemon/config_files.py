"""Notice that the configuration files differ from the loaded configuration.

`status` asks often and the files change rarely, so they are read again only if the metadata of one has changed. Their
file system may not answer. So they are read in threads, never in the loop, and nobody waits for them for long: the
fetches and deliveries go on with the loaded configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from uvtokend import paths
from uvtokend.core.document import INVALID
from uvtokend.core.model import Settings
from uvtokend.core.text import duration
from uvtokend.daemon.aside import aside
from uvtokend.errors import ConfigError, UvtokendError

Load = Callable[[], Settings]
_THREAD = "config files"

#: Seconds that the files may take to be read when the user has changed them.
PATIENCE = 10.0
_NO_ANSWER = "The configuration cannot be read: its file system does not answer."


class ConfigFiles:
    """The loaded configuration and its files.

    Args:
        load: Reads the files; raises ConfigError.
        settings: The settings that were loaded at the start.
    """

    def __init__(self, load: Load, settings: Settings) -> None:
        self._load = load
        self._settings = settings
        self._site_file = paths.site_config_file()  # platformdirs takes longer than all checks of a guard tick
        self._compared = self._fingerprint()
        self._difference: Callable[[float], str] | None = None
        self._reading = threading.Lock()  # held by the thread that reads, even if it hangs
        self._hangs = False
        self._looking: asyncio.Future[None] | None = None
        self._compare()  # the files may have changed since they were loaded

    async def load(self) -> Settings:
        """Read the files and return their settings, which count as loaded from now on.

        Raises:
            UvtokendError: The files are invalid, or their file system does not answer; the previous settings stay
                loaded.
        """
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(aside(self._loaded, _THREAD), PATIENCE)
        self._hangs = True
        raise _hung()

    def _loaded(self) -> Settings:
        if not self._reading.acquire(timeout=PATIENCE):
            raise _hung()
        try:
            new = self._load()
            self._settings, self._hangs = new, False
            self._compared, self._difference = self._fingerprint(), None
            return new
        finally:
            self._reading.release()

    async def look(self, seconds: float) -> None:
        """Look whether the files have changed, for so many seconds at the most; many that ask share one look."""
        if self._looking is None or self._looking.done():
            others = 0.0 if self._hangs else seconds / 2
            look = asyncio.wait_for(aside(partial(self.check, others), _THREAD), seconds)
            self._looking = asyncio.ensure_future(look)
        try:
            await asyncio.shield(self._looking)
        except TimeoutError:
            self._hangs = True

    def check(self, patience: float = 0.0) -> None:
        """Look whether the files have changed; in a thread, since their file system may not answer.

        Args:
            patience: The seconds after which another thread that reads them hangs.
        """
        if not self._reading.acquire(timeout=patience):
            self._hangs = self._hangs or patience > 0.0
            return
        try:
            seen = self._fingerprint()
            if seen != self._compared:
                self._compared = seen
                self._compare()
            self._hangs = False
        finally:
            self._reading.release()

    @property
    def differ(self) -> bool:
        """Whether the last look found that the files differ from the loaded settings, or are invalid."""
        return self._difference is not None

    def stale(self, now: float) -> str | None:
        """Return a sentence if the last look found that the files differ from the loaded settings, or are invalid.

        Args:
            now: The wall clock in seconds, for ``changed 3 min ago``.
        """
        if self._hangs:
            return _NO_ANSWER
        difference = self._difference
        return None if difference is None else difference(now)

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
        return (self._settings.file, self._site_file)

    def _fingerprint(self) -> tuple[object, ...]:
        return tuple(_looks(path) for path in self._files())

    def _changed_at(self) -> float:
        """Return when one of the files last changed, on the wall clock; 0 if there are no files."""
        times = [looks[2] for path in self._files() if (looks := _looks(path)) is not None]
        return max(times, default=0) / 1e9


def _hung() -> UvtokendError:
    return UvtokendError(_NO_ANSWER, "make it answer again (dmesg says more), then: uvtokend reload")


def _looks(path: str) -> tuple[int, int, int, int, int] | None:
    """Return the metadata that changes when a file is written, or when its owner or mode changes."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_mode, info.st_uid
