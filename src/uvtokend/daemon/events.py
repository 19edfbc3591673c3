"""The event log: what happened and why, one JSON object per line, for ``uvtokend log`` and for listeners."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Set
from datetime import UTC, datetime

from uvtokend.core.events import Report
from uvtokend.core.model import Json
from uvtokend.core.rfc3339 import zulu
from uvtokend.disk import files

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_LIMIT = 512 * 1024

Listener = Callable[[dict[str, Json]], None]


class EventLog:
    """Appends events to a file of bounded size, passes them to listeners, and prints them on standard error unless
    quiet.

    Args:
        path: The file. When it is full, it is kept once as ``<path>.1``.
        quiet: Print nothing on standard error.
    """

    def __init__(self, path: str, quiet: bool) -> None:
        self.level = "info"
        self._path = path
        self._quiet = quiet
        self._listeners: set[Listener] = set()

    def emit(self, report: Report) -> None:
        """Log one event. A full disk loses a line of the log, never a token."""
        if LEVELS[report.level] < LEVELS[self.level]:
            return
        event: dict[str, Json] = {
            "at": zulu(datetime.now(UTC)),
            "level": report.level,
            "event": report.event,
            "names": list(report.names),
            "message": report.message,
            "hint": report.hint,
        }
        with contextlib.suppress(OSError):
            self._append(json.dumps(event).encode() + b"\n")
        if not self._quiet:
            self._say(report)
        for listener in tuple(self._listeners):
            listener(event)

    def last_of(self, kinds: Set[str]) -> str | None:
        """Return the kind of the latest event among these kinds; None if the log has none of them."""
        for path in (self._path, f"{self._path}.1"):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                for line in reversed(file.read(2 * _LIMIT).splitlines()):
                    if (kind := _kind(line)) in kinds:
                        return kind
        return None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Pass every event to a listener from now on. The returned function ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def _append(self, line: bytes) -> None:
        file = files.open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line)
            full = os.fstat(file).st_size > _LIMIT
        finally:
            os.close(file)
        if full:
            os.replace(self._path, f"{self._path}.1")

    def _say(self, report: Report) -> None:
        names = f"{', '.join(report.names)}: " if report.names else ""
        hint = f" -> {report.hint}" if report.hint else ""
        with contextlib.suppress(OSError):
            print(f"{report.level}: {names}{report.message}{hint}", file=sys.stderr, flush=True)  # noqa: T201


def _kind(line: bytes) -> str | None:
    """Return the kind of the event in a line of the log; None if the line is not an event."""
    try:
        return str(json.loads(line)["event"])
    except (ValueError, KeyError, TypeError):
        return None
