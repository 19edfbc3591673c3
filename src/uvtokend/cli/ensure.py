"""``uvtokend ensure``: refresh only tokens that are not valid long enough, then run a command."""

from __future__ import annotations

import argparse
import os
import resource
from typing import Any

from uvtokend.cli import access, client, disk, fetches
from uvtokend.core.config.values import seconds
from uvtokend.core.text import duration
from uvtokend.disk.configuration import load
from uvtokend.errors import OK, NotRunning, UvtokendError

EXAMPLES = (
    "uvtokend ensure --min 20m -- uv sync",
    "uvtokend ensure --min 1h private-registry",
    "uvtokend ensure private-registry -- uv lock",
)
DETAILS = """\
uv reads a token once, when it starts. `ensure` makes sure that the token is valid long enough for the command.
Without --min, the life that uvtokend promises is enough. The exit status is the command's own, or 1 if no
token with that much life is available."""


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.usage = "uvtokend ensure [--min DURATION] [--config PATH] [NAME…] [-- COMMAND…]"
    own.add_argument(
        "--min",
        metavar="DURATION",
        type=_duration,
        dest="minimum",
        help="life that the tokens must have: 20m, 1h30m",
    )
    own.add_argument("names", metavar="NAME", nargs="*", help="an index (default: all)")
    own.set_defaults(command=[])


def run(args: argparse.Namespace) -> int:
    """Refresh the tokens that need it and become the command, if there is one.

    Raises:
        UsageError: No index has one of those names, or the command is missing.
        UvtokendError: A token with that much life is not available, or a named index is disabled.
    """
    try:
        indexes = _through_daemon(args.names, args.minimum)
    except NotRunning:
        indexes = _alone(args.names, args.minimum, args.config)
    if off := [name for name in args.names if name not in {index["name"] for index in indexes}]:
        raise disk.disabled(off[0])
    short = [index for index in indexes if not is_enough(index, args.minimum)]
    if short:
        raise _too_short(short, args.minimum)
    if args.command:
        access.become(args.command, dict(os.environ))
    return OK


def is_enough(index: dict[str, Any], minimum: int | None) -> bool:
    """Return whether an index of the status document has a delivered token that is valid long enough.

    Args:
        index: An index of the status document.
        minimum: Seconds of life; None for the promised life. A token without a known end has enough.
    """
    if not index["delivered"]:
        return False
    needed = (index["min_life_s"] or 0) if minimum is None else minimum
    return index["life_left_s"] is None or bool(index["life_left_s"] >= needed)


def _through_daemon(names: list[str], minimum: int | None) -> list[dict[str, Any]]:
    indexes = _shown(client.call("status", client.names(names)))
    short = [index["name"] for index in indexes if not is_enough(index, minimum)]
    if short:
        client.call("refresh", client.names(short), client.FETCHES)
        indexes = _shown(client.call("status", client.names(names)))
    return indexes


def _alone(names: list[str], minimum: int | None, config: str | None) -> list[dict[str, Any]]:
    settings = load(config)
    kept = [index.name for index in disk.chosen(settings, names) if index.sink == "memory"]
    if kept:
        message = f"Only a running daemon can hold the token of {kept[0]!r}, whose sink is memory."
        raise UvtokendError(message, "uvtokend start")
    # The command must not inherit the protection of our own memory and files.
    mask, core = os.umask(0o077), resource.getrlimit(resource.RLIMIT_CORE)
    try:
        document = fetches.once(settings, names, lambda index: is_enough(index, minimum))
    finally:
        os.umask(mask)
        resource.setrlimit(resource.RLIMIT_CORE, core)
    return _shown(document)


def _shown(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the enabled indexes."""
    return [index for index in document["indexes"] if index.get("enabled", True)]


def _too_short(short: list[dict[str, Any]], minimum: int | None) -> UvtokendError:
    index = short[0]
    error, left = index["last_error"], index["life_left_s"]
    what = f"The token of {index['name']!r} "
    if not index["delivered"]:
        what = f"{index['name']!r} has no valid token that is delivered"
    elif minimum is None:
        what += f"is valid for {duration(left)} only, less than promised"
    else:
        what += f"is valid for {duration(left)} only, not for {duration(minimum)}"
    more = f" ({len(short) - 1} more like it)" if len(short) > 1 else ""
    why = f": {error['message']}" if error else "."
    hint = error["hint"] if error and error["hint"] else f"uvtokend status {index['name']}"
    return UvtokendError(f"{what}{more}{why}", hint)


def _duration(text: str) -> int:
    duration = seconds(int(text) if text.isascii() and text.isdigit() else text)
    if duration is None:
        message = f"{text!r} is not a duration such as 20m, 1h30m or 90 (seconds)"
        raise argparse.ArgumentTypeError(message)
    return duration
