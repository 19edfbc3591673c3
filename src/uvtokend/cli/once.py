"""``uvtokend once``: fetch what is due and deliver it, without a daemon afterwards; for CI, containers and cron."""

from __future__ import annotations

import argparse
from typing import Any

from uvtokend.cli import client, console, disk, fetches, parser, status
from uvtokend.core.document import enabled, ready
from uvtokend.disk.configuration import load
from uvtokend.errors import FAILED, OK, NotRunning

EXAMPLES = ("uvtokend once", "uvtokend once private-registry && uv sync")
DETAILS = "Uses a running daemon if there is one."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_names(own)


def run(args: argparse.Namespace) -> int:
    """Fetch what is due; see `once`."""
    return once(args.names, args.config)


def once(names: list[str], config: str | None) -> int:
    """Fetch what is due and deliver it, through a running daemon if there is one.

    Args:
        names: The names of the indexes; none means all.
        config: Another configuration file.

    Returns:
        0 if each index has a valid delivered token now, otherwise 1.
    """
    document: dict[str, Any] | None
    try:
        document = _through_daemon(names)
    except NotRunning:
        document = _alone(names, config)
    if document is None:
        return OK
    status.show(document, as_json=False, alone=True)
    return OK if ready(document) else FAILED


def _through_daemon(names: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = client.call("status", client.names(names))
    if off := [index["name"] for index in document["indexes"] if names and not enabled(index)]:
        raise disk.disabled(off[0])
    due = [index["name"] for index in document["indexes"] if enabled(index) and not _fresh(index)]
    if due:
        client.call("refresh", client.names(due), client.FETCHES)
        document = client.call("status", client.names(names))
    return document


def _fresh(index: dict[str, Any]) -> bool:
    return bool(index["delivered"]) and index["health"] == "fresh"


def _alone(names: list[str], config: str | None) -> dict[str, Any] | None:
    """Return the status document after fetching without a daemon; None if every index is kept in memory only."""
    settings = load(config)
    chosen = disk.chosen(settings, names)
    kept = [index.name for index in chosen if index.sink == "memory"]
    if not kept:
        return fetches.once(settings, names)
    console.say(f"Skipped {', '.join(kept)}: only a running daemon can hold a token in memory. fix: uvtokend start")
    rest = [index.name for index in chosen if index.name not in kept]
    return fetches.once(settings, rest) if rest else None
