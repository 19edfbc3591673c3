"""``uvtokend status``: what each index's token is worth, and what mends it."""

from __future__ import annotations

import json
import select
import sys
from datetime import UTC, datetime

from uvtokend import __version__
from uvtokend.cli import client, console
from uvtokend.core import report
from uvtokend.errors import FAILED, NOT_RUNNING, OK, NotRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

#: Seconds after which a live picture is drawn anew without an event: its times go by.
_REDRAW = 2.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


EXAMPLES = ("uvtokend status", "uvtokend status --watch", "uvtokend status --json private-registry")


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("names", metavar="NAME", nargs="*", help="an index (default: all)")
    own.add_argument("--json", action="store_true", help="print JSON for machines")
    own.add_argument("--watch", action="store_true", help="keep showing until interrupted")


def run(args: argparse.Namespace) -> int:
    """Show the status; see `status`."""
    return status(args.names, args.json, args.watch, args.config)


def status(names: list[str], as_json: bool, watch: bool, config: str | None) -> int:
    """Show the status.

    Args:
        names: Only these indexes; none means all.
        as_json: For machines.
        watch: Go on until interrupted.
        config: Another configuration file, for what can be known while no daemon runs.

    Returns:
        0 if each index shown has a valid delivered token, or none is configured; 1 if not; 3 if no daemon runs.
    """
    try:
        if watch:
            return _watch(names, as_json)
        document = client.call("status", client.names(names))
    except NotRunning:
        from uvtokend.cli import disk  # noqa: PLC0415 - it reads the configuration, which costs

        document = disk.document(names, config)
    show(document, as_json)
    return _exit_status(document)


def show(document: dict[str, Any], as_json: bool) -> None:
    """Print the status document: to standard output, for machines or for people."""
    if as_json:
        console.out(json.dumps(document, indent=1) + "\n")
        if not document["indexes"]:
            console.say(report.INIT)
    else:
        console.out(_text(document))
    if document["version"] != __version__:
        console.say(f"The running daemon is version {document['version']}, this is {__version__}: uvtokend restart")


def _text(document: dict[str, Any]) -> str:
    now = datetime.now(UTC)
    return report.status(document, now, console.width(sys.stdout), console.coloured(sys.stdout))


def _exit_status(document: dict[str, Any]) -> int:
    if not document["indexes"]:
        return OK
    if document["pid"] is None:
        return NOT_RUNNING
    return OK if all(report.healthy(index) for index in document["indexes"]) else FAILED


def _watch(names: list[str], as_json: bool) -> int:
    """Show the status again and again: drawn over itself on a terminal, else anew after each event."""
    live = sys.stdout.isatty() and not as_json
    with client.Connection() as events:
        events.call("events")
        while True:
            try:
                document = client.call("status", client.names(names))
                if as_json:
                    console.out(json.dumps(document) + "\n")
                else:
                    console.out((_HOME_AND_CLEAR if live else "") + _text(document))
                _await_event(events, live, as_json)
            except (NotRunning, client.HungUpError) as end:
                message = "The daemon was stopped."
                raise NotRunning(message, "uvtokend start") from end


def _await_event(events: client.Connection, live: bool, as_json: bool) -> None:
    """Return when there is something new to show; where it is not drawn, tell the events as lines."""
    if not events.pending() and not select.select([events.socket], [], [], _REDRAW if live else None)[0]:
        return
    while True:
        record = events.read()
        if not live and not as_json:
            console.out(report.event(record.get("params", {})) + "\n")
        if not events.pending() and not select.select([events.socket], [], [], 0)[0]:
            return
