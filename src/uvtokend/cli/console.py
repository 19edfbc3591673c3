"""Print results to standard output, and messages for people to standard error."""

from __future__ import annotations

import os
import sys
import time

from uvtokend.core.text import BOLD, RED, clean, wrapped
from uvtokend.errors import ConfigError, UvtokendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

#: Seconds between two updates of the progress.
_TICK = 0.5
#: The size without a terminal: lines in a file are not wrapped.
_ENDLESS = 10_000


def out(text: str) -> None:
    """Write whole lines of a result to standard output."""
    sys.stdout.write(text)
    sys.stdout.flush()


def say(sentence: str, hint: str | None = None) -> None:
    """Print a message on standard error, and the command that fixes it."""
    fix = "" if hint is None else f"\n  fix: {clean(hint)}"
    print(f"{clean(sentence)}{fix}", file=sys.stderr, flush=True)  # noqa: T201


def complain(error: UvtokendError) -> None:
    """Print an error and its fix; every problem of a configuration gets a line of its own."""
    told: list[tuple[str, str | None]] = [(error.message, error.hint)]
    if isinstance(error, ConfigError):
        told = [(f"{one.file}: {one.where}: {one.message}", one.hint) for one in error.problems]
    bold, red, end = ("", "", "")
    if colored(sys.stderr):
        bold, red, end = f"\x1b[{BOLD}m", f"\x1b[{RED}m", "\x1b[0m"
    for message, hint in told:
        for line in message.splitlines():
            text = "\n".join(wrapped(f"uvtokend: {clean(line)}", width(sys.stderr)))
            print(f"{red}{text}{end}", file=sys.stderr)  # noqa: T201
        if hint is not None:
            print(f"  fix: {bold}{clean(hint)}{end}", file=sys.stderr)  # noqa: T201
    sys.stderr.flush()


class Progress:
    """Shows on a terminal that something takes longer than a second, and how long it has taken.

    Args:
        what: The activity, as a sentence without its period.
        waited: Seconds that it has already taken.
    """

    def __init__(self, what: str, waited: float = 0.0) -> None:
        self._what = what
        self._started = time.monotonic() - waited
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, detail: str = "") -> None:
        """Update the line, if the activity has taken that long. Call this repeatedly.

        Args:
            detail: The progress, such as ``2 of 5``.
        """
        seconds = int(time.monotonic() - self._started)
        if seconds < 1 or not sys.stderr.isatty():
            return
        self._shown = True
        far = f": {detail}" if detail else ""
        sys.stderr.write(f"\r{clean(self._what + far)} ({seconds} s)\x1b[K")
        sys.stderr.flush()


class Ticking(Progress):
    """Progress of an activity that cannot call `Progress.show` itself; a thread calls it."""

    def __enter__(self) -> Ticking:
        from threading import Event, Thread  # noqa: PLC0415 - the hot path does not need it

        self._ended = Event()
        self._thread = Thread(target=self._tick, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        super().__exit__()

    def _tick(self) -> None:
        while not self._ended.wait(_TICK):
            self.show()


def colored(stream: TextIO) -> bool:
    """Return whether to use color: on a terminal with colors, unless NO_COLOR is set (https://no-color.org).

    FORCE_COLOR turns color on even without a terminal (https://force-color.org); NO_COLOR overrides it.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def width(stream: TextIO) -> int:
    """Return the width of a stream's terminal in characters."""
    return _size(stream)[0]


def height(stream: TextIO) -> int:
    """Return the height of a stream's terminal in lines."""
    return _size(stream)[1]


def _size(stream: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno()) if stream.isatty() else (0, 0)
    except (OSError, ValueError):
        size = (0, 0)
    return size[0] or _ENDLESS, size[1] or _ENDLESS
