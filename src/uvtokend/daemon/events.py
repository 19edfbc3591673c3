"""The event log: what happened and why, one JSON object per line, for ``uvtokend log`` and for listeners.

The file and standard error have a thread each, because a file system, or the program that reads standard error, may
not answer. Listeners get every event at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass
from datetime import UTC, datetime

from uvtokend.core.events import Report
from uvtokend.core.model import Json
from uvtokend.core.rfc3339 import zulu
from uvtokend.disk import files

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}
#: Seconds that the file gets for the last events when the daemon ends, and that standard error gets after it.
LAST, LAST_PRINTED = 0.5, 0.1
_LIMIT = 512 * 1024
#: The most events that wait to be written.
_BACKLOG = 1000
_STANDARD_ERROR = 2

Listener = Callable[[dict[str, Json]], None]


@dataclass(frozen=True, slots=True)
class _Event:
    at: str | None
    report: Report

    def as_json(self) -> dict[str, Json]:
        """Return the event as it is in the file and for listeners."""
        report = self.report
        return {
            "at": self.at,
            "level": report.level,
            "event": report.event,
            "names": list(report.names),
            "message": report.message,
            "hint": report.hint,
        }


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
        self._listeners: set[Listener] = set()
        file = _Output(self._append, "event log")
        self._outputs = (file,) if quiet else (file, _Output(_print, "standard error"))

    def emit(self, report: Report) -> None:
        """Log one event. A full disk loses a line of the log, never a token."""
        if LEVELS[report.level] < LEVELS[self.level]:
            return
        event = _now(report)
        for output in self._outputs:
            output.put(event)
        for listener in tuple(self._listeners):
            listener(event.as_json())

    def close(self) -> None:
        """Write the events that wait, and end. What does not answer costs at most `LAST` and `LAST_PRINTED` seconds."""
        for output in self._outputs:
            output.end()
        for output, seconds in zip(self._outputs, (LAST, LAST_PRINTED), strict=False):
            output.thread.join(seconds)

    def last_of(self, kinds: Set[str]) -> str | None:
        """Return the kind of the latest event in the file among these kinds; None if there is none."""
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

    def _append(self, event: _Event) -> None:
        file = files.open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, json.dumps(event.as_json()).encode() + b"\n")
            full = os.fstat(file).st_size > _LIMIT
        finally:
            os.close(file)
        if full:
            os.replace(self._path, f"{self._path}.1")


class _Output:
    """Writes events in a thread of its own, one after another.

    While a write hangs, the oldest events in the queue give way to new ones. A later event says how many are missing.

    Args:
        write: Writes an event.
        name: The name of the thread.
    """

    def __init__(self, write: Callable[[_Event], None], name: str) -> None:
        self._write = write
        self._waiting: deque[_Event] = deque()
        self._missing = 0
        self._ended = False
        self._changed = threading.Condition()
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def put(self, event: _Event) -> None:
        """Write an event as soon as those before it are written."""
        with self._changed:
            if len(self._waiting) == _BACKLOG:
                self._waiting.popleft()
                self._missing += 1
            self._waiting.append(event)
            self._changed.notify()

    def end(self) -> None:
        """End the thread as soon as all events are written."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _work(self) -> None:
        while (event := self._next()) is not None:
            with contextlib.suppress(OSError):
                self._write(event)

    def _next(self) -> _Event | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            missing, self._missing = self._missing, 0
            if missing:
                return _now(Report("warning", "log-hung", (), _gap(missing)))
            return self._waiting.popleft() if self._waiting else None


def _now(report: Report) -> _Event:
    return _Event(zulu(datetime.now(UTC)), report)


def _gap(missing: int) -> str:
    what = "1 event is" if missing == 1 else f"{missing} events are"
    return f"{what} missing here, because this log could not be written for a while."


def _print(event: _Event) -> None:
    """Print an event. `print` is not used: Python waits at its end for a thread that hangs in it."""
    report = event.report
    names = f"{', '.join(report.names)}: " if report.names else ""
    hint = f" -> {report.hint}" if report.hint else ""
    os.write(_STANDARD_ERROR, f"{report.level}: {names}{report.message}{hint}\n".encode(errors="backslashreplace"))


def _kind(line: bytes) -> str | None:
    """Return the kind of the event in a line of the log; None if the line is not an event."""
    try:
        return str(json.loads(line)["event"])
    except (ValueError, KeyError, TypeError):
        return None
