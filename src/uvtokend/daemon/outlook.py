"""Keep the prompt file, the metrics file and the desktop notifications up to date.

They follow the status document a moment after each event, and the clock at each guard tick. Files are written in a
thread, since a metrics file may be on a network that hangs. A file that cannot be written is reported once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from uvtokend import paths
from uvtokend.core import prompt, reminders
from uvtokend.core.events import Report
from uvtokend.core.metrics import exposition
from uvtokend.core.model import Settings
from uvtokend.core.status import StatusDocument
from uvtokend.daemon import desktop
from uvtokend.daemon.aside import aside
from uvtokend.disk import files

#: Seconds after an event before anything is written, so that events that happen together cause one write.
_PAUSE = 0.1
#: The largest part of its time that the daemon spends on this: a document of a thousand indexes takes a while.
_SHARE = 0.02
#: Seconds after which the prompt file is checked without an event: a text without an end holds for half a day.
_RARELY = 3600.0
#: The mode of the metrics file, which another user's collector reads.
_READABLE = 0o644
#: Seconds that a write in flight, and then the removal of the files, get when the daemon ends.
LAST = 0.5

_T = TypeVar("_T")


class Outlook:
    """Keeps these files and notifications up to date.

    Args:
        document: Returns the status document.
        settings: Returns the loaded settings.
        emit: Writes a report to the event log.
    """

    def __init__(
        self, document: Callable[[], StatusDocument], settings: Callable[[], Settings], emit: Callable[[Report], None]
    ) -> None:
        self._document = document
        self._settings = settings
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._planned: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._written: dict[str, bytes] = {}
        self._broken: dict[str, str] = {}
        self._metrics_file: str | None = None
        self._shown: dict[str, str | None] | None = None  # not read yet
        self._woke_at = -reminders.AFTER_WAKING
        self._cost = 0.0
        self._updated_at = self._loop.time()

    def changed(self) -> None:
        """Note that the status may have changed."""
        if self._planned is None:
            self._planned = self._loop.call_later(max(_PAUSE, self._cost / _SHARE), self._begin)

    def ticked(self) -> None:
        """Note that time passes: a sign-in ends soon, quiet hours end, or a collector needs a recent file."""
        settings = self._settings()
        watched = settings.notify or settings.metrics_file is not None
        if watched or self._loop.time() - self._updated_at >= _RARELY:
            self.changed()

    def woke(self) -> None:
        """Note that the machine slept: no notification is shown for a minute."""
        self._woke_at = self._loop.time()

    async def close(self) -> None:
        """Remove the files, which describe a running daemon."""
        if self._planned is not None:
            self._planned.cancel()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=LAST)
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        told = [path for path in self._written if path != paths.reminders_file()]  # which the next daemon needs
        await asyncio.wait({_apart(_remove, *told)}, timeout=LAST)

    def _begin(self) -> None:
        self._planned = None
        if self._writing is not None and not self._writing.done():
            self.changed()  # if a disk or the desktop hangs: try again when it answers
            return
        self._writing = self._loop.create_task(self._update())

    async def _update(self) -> None:
        began = self._loop.time()
        document, settings, now = self._document(), self._settings(), datetime.now(UTC)
        line = prompt.encode(document, now.timestamp())
        self._updated_at = self._loop.time()
        self._cost = self._updated_at - began
        await self._write(paths.prompt_file(), line, 0o600)
        if settings.metrics_file != self._metrics_file and self._metrics_file is not None:
            await _apart(_remove, self._metrics_file)
            self._written.pop(self._metrics_file, None)
        self._metrics_file = settings.metrics_file
        if settings.metrics_file is not None:
            await self._write(settings.metrics_file, exposition(document, now).encode(), _READABLE)
        await self._remind(document, settings, now)

    async def _write(self, path: str, text: bytes, mode: int) -> None:
        if self._written.get(path) == text:
            return
        try:
            await _apart(files.replace, path, text, False, mode)  # it is not needed after a power cut
        except OSError as error:
            if self._broken.get(path) != str(error):
                self._broken[path] = str(error)
                message = f"{path} could not be written: {error.strerror}."
                self._emit(Report("warning", "outlook", (), message, f"ls -ld {paths.quoted(os.path.dirname(path))}"))
            return
        self._broken.pop(path, None)
        self._written[path] = text

    async def _remind(self, document: StatusDocument, settings: Settings, now: datetime) -> None:
        due = reminders.due(document, now.astimezone(), settings.quiet_hours) if settings.notify else {}
        shown = self._shown = await _apart(_read_shown) if self._shown is None else self._shown
        before = dict(shown)
        if not settings.notify or reminders.settled(document):
            for key in [key for key in shown if key not in due]:
                number = shown.pop(key)
                if number is not None:
                    await desktop.withdraw(number)
        woke = self._loop.time() - self._woke_at < reminders.AFTER_WAKING
        if not woke and not reminders.quiet(settings.quiet_hours, now.astimezone()):
            for key, reminder in due.items():
                if key not in shown:
                    shown[key] = await desktop.show(reminder.title, reminder.body)
        if shown != before:
            await self._write(paths.reminders_file(), reminders.encode(shown), 0o600)


def _apart(function: Callable[..., _T], *args: object) -> asyncio.Future[_T]:
    return aside(partial(function, *args), "outlook")


def _read_shown() -> dict[str, str | None]:
    """Return the reminders that the previous daemon has shown."""
    try:
        return reminders.decode(files.read(paths.reminders_file()))
    except OSError:
        return {}


def _remove(*files: str) -> None:
    for path in files:
        with contextlib.suppress(OSError):
            os.unlink(path)
