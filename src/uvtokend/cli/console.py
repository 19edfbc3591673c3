"""What the verbs say: results to standard output, messages for people to standard error, colour only on a terminal."""

from __future__ import annotations

import os
import sys

from uvtokend.core.report import BOLD, RED, clean, wrapped
from uvtokend.errors import ConfigError, UvtokendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

#: How wide a line is where no terminal says: nobody breaks the lines of a file.
_ENDLESS = 10_000


def out(text: str) -> None:
    """Write a result to standard output, whole lines."""
    sys.stdout.write(text)
    sys.stdout.flush()


def say(sentence: str) -> None:
    """Tell a person something on standard error."""
    print(clean(sentence), file=sys.stderr, flush=True)  # noqa: T201


def complain(error: UvtokendError) -> None:
    """Tell a person what went wrong and what mends it: every problem of a configuration on a line of its own."""
    messages = [str(problem) for problem in error.problems] if isinstance(error, ConfigError) else [error.message]
    bold, red, end = ("", "", "")
    if coloured(sys.stderr):
        bold, red, end = f"\x1b[{BOLD}m", f"\x1b[{RED}m", "\x1b[0m"
    for line in (line for message in messages for line in message.splitlines()):
        text = "\n".join(wrapped(f"uvtokend: {clean(line)}", width(sys.stderr)))
        print(f"{red}{text}{end}", file=sys.stderr)  # noqa: T201
    if error.hint is not None:
        print(f"  fix: {bold}{clean(error.hint)}{end}", file=sys.stderr)  # noqa: T201
    sys.stderr.flush()


def coloured(stream: TextIO) -> bool:
    """Tell whether to use colour: on a terminal that can, and unless NO_COLOR asks for none (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width(stream: TextIO) -> int:
    """Return the width of a stream's terminal in characters."""
    if not stream.isatty():
        return _ENDLESS
    try:
        return os.get_terminal_size(stream.fileno()).columns or _ENDLESS
    except (OSError, ValueError):
        return _ENDLESS
