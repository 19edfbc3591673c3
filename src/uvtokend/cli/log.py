"""``uvtokend log``: show the last events with their reasons."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from datetime import datetime
from io import FileIO

from uvtokend import paths
from uvtokend.cli import console
from uvtokend.core.event_line import event_line
from uvtokend.disk import files
from uvtokend.disk.answering import answered
from uvtokend.errors import OK

#: How many events are shown.
_LAST = 200
#: Seconds between two checks of the file.
_PAUSE = 0.25


EXAMPLES = ("uvtokend log", "uvtokend log --follow")

#: How the message of an end begins to be of no interest: a command or a signal asked for it.
_ASKED = (": uvtokend stop.", ": SIGTERM.", ": SIGINT.")


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("--follow", action="store_true", help="keep showing new events until interrupted")


def run(args: argparse.Namespace) -> int:
    """Show the last events; see `log`."""
    return log(args.follow)


def log(follow: bool) -> int:
    """Show the last events.

    Args:
        follow: Whether to show new events until interrupted.

    Raises:
        UvtokendError: The file system of the events does not answer.
    """
    path = paths.events_file()
    with _Tail(path) as end:
        lines = answered(lambda: _lines(f"{path}.1") + end.read(), path)
        for line in lines[-_LAST:]:
            _show(line)
        if not lines:
            console.say(_why_empty(path))
        while follow:
            time.sleep(_PAUSE)
            for line in end.read():
                _show(line)
    return OK


def unasked_end() -> str | None:
    """Return why the last daemon ended, if nobody asked it to; None if somebody did, or if the log does not tell."""
    path = paths.events_file()
    for line in reversed(_lines(f"{path}.1") + _lines(path)):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            at = datetime.fromisoformat(record["at"]).astimezone()
            if record["event"] == "started":
                return f"The daemon that started on {at:%Y-%m-%d at %H:%M} crashed or was killed: uvtokend log"
            if record["event"] == "stopped":
                asked = record["message"].endswith(_ASKED)
                return None if asked else f"{record['message']} That was on {at:%Y-%m-%d at %H:%M}."
    return None


class _Tail:
    """Reads the lines added to a file. If the file has been replaced, the last lines of the former file come first.

    Args:
        path: The file, which may be missing.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: FileIO | None = None

    def __enter__(self) -> _Tail:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self) -> list[bytes]:
        """Return the lines that were added since the last call."""
        new = self._opened()  # before the former file is read: nothing is added to that one any more
        lines = self._added()
        if new is not None:
            if self._file is not None:
                self._file.close()
            self._file = new
            lines += self._added()
        return lines

    def _opened(self) -> FileIO | None:
        """Return the file at the path; None if it is open already, is missing, or is not a log."""
        with contextlib.suppress(OSError):
            if self._file is None or not os.path.samestat(os.lstat(self._path), os.fstat(self._file.fileno())):
                return FileIO(files.open_regular(self._path, os.O_RDONLY))
        return None

    def _added(self) -> list[bytes]:
        if self._file is None:
            return []
        start, text = self._file.tell(), b""
        with contextlib.suppress(OSError):
            text = self._file.readall()
        whole = text.rfind(b"\n") + 1  # an incomplete line is read again when it is complete
        self._file.seek(start + whole)
        return text[:whole].splitlines()


def _lines(path: str) -> list[bytes]:
    with _Tail(path) as tail:
        return tail.read()


def _show(line: bytes) -> None:
    try:
        record = json.loads(line)
    except ValueError:
        record = {}
    console.out(event_line(record, console.colored(sys.stdout)) + "\n")


def _why_empty(path: str) -> str:
    """Return why there is no event: no daemon has ever run, or the log was deleted."""
    if os.path.exists(paths.state_file()):
        return f"No event is recorded in {path}: the file was deleted, or log-level hides what happened."
    return "No events are recorded: the daemon has not run here yet. Start it with: uvtokend start"
