"""The entry point: run the verb, and turn every error into a sentence and an exit status, never a traceback.

``status`` and ``refresh`` run in prompts, hooks and loops, so their usual forms are parsed here: argparse alone costs
two thirds of Python's own start. `uvtokend.cli.parser` handles everything else, including ``--help`` and wrong usage.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

from uvtokend.cli import console
from uvtokend.errors import FAILED, UvtokendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The arguments; those of this process by default.
    """
    # A character that an old terminal cannot show must not cause an error.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text file, unless a test says no
    try:
        status = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except UvtokendError as error:
        console.complain(error)
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output again at its end; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the user gets a sentence in every case
        console.complain(_unexpected(error))
        return FAILED


def _dispatch(args: list[str]) -> int:
    hot = _hot(args)
    if hot is None:
        from uvtokend.cli import parser  # noqa: PLC0415 - see the module's docstring

        return parser.run(args)
    verb, parsed = hot
    if verb == "status":
        from uvtokend.cli import status  # noqa: PLC0415

        return status.run(parsed)
    from uvtokend.cli import refresh  # noqa: PLC0415

    return refresh.run(parsed)


def _hot(args: list[str]) -> tuple[str, Any] | None:
    """Return `status` or `refresh` in its usual form, with its parsed arguments, or None."""
    flags_of = {"status": {"json", "watch", "prompt"}, "refresh": {"json"}}
    words: list[str] = []
    flags: set[str] = set()
    config: str | None = None
    rest = iter(args)
    for arg in rest:
        if arg == "--config":
            config = next(rest, None)
            if config is None:
                return None
        elif arg.startswith("--config="):
            config = arg.removeprefix("--config=")
        elif arg.startswith("--"):
            flags.add(arg.removeprefix("--"))
        elif arg.startswith("-"):
            return None
        else:
            words.append(arg)
    verb = words[0] if words else ""
    if verb not in flags_of or not flags <= flags_of[verb]:
        return None
    chosen = {flag: flag in flags for flag in flags_of[verb]}
    return verb, SimpleNamespace(names=words[1:], config=config, **chosen)


def _unexpected(error: Exception) -> UvtokendError:
    """Return a sentence about a bug of ours. The error's own text is left out, since it might contain a secret."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "?"
    message = f"Internal error: {type(error).__name__} at {where} (Python {sys.version.split()[0]})."
    return UvtokendError(message, "report this line as a bug in uvtokend")
