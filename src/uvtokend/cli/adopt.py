"""``uvtokend adopt``: replace a foreign netrc entry by our own. No other command changes foreign text."""

from __future__ import annotations

import argparse
from pathlib import Path

from uvtokend.cli import client, console, disk
from uvtokend.core.netrc.adopt import TakeOver, take_over
from uvtokend.disk import backups
from uvtokend.disk.configuration import load
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.errors import OK, NotRunning

EXAMPLES = ("uvtokend adopt private-registry",)
DETAILS = "The entry is kept in a backup, which `uvtokend purge` restores."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("name", metavar="NAME", help="the index")


def run(args: argparse.Namespace) -> int:
    """Replace the foreign entries for an index's host; see `adopt`."""
    return adopt(args.name, args.config)


def adopt(name: str, config: str | None) -> int:
    """Remove the foreign entries for an index's host from the netrc, and make the daemon deliver its own.

    Args:
        name: The index.
        config: Another configuration file.

    Raises:
        UsageError: No index has that name.
        UvtokendError: The backup or the netrc could not be written.
    """
    settings = load(config)
    (index,) = disk.chosen(settings, [name])
    sink = NetrcSink(settings.netrc)
    taken: list[TakeOver] = []
    kept: list[Path] = []

    def edit(text: bytes) -> bytes:
        taken.append(take_over(text, index.host))
        return taken[-1].text

    def keep() -> None:
        if taken[-1].removed:
            kept.append(backups.keep(sink.path, taken[-1].backup))
            for superseded in kept[-2:-1]:  # another program was faster than the last try
                backups.supersede(superseded)

    sink.change(edit, urgent=False, before_write=keep)
    if not kept:
        console.say(f"{sink.path} has no foreign entry for {index.host}, so there is nothing to adopt.")
    else:
        what = "the entry" if taken[-1].removed == 1 else f"{taken[-1].removed} entries"
        console.say(f"uvtokend has taken over {what} for {index.host} in {sink.path}.")
        console.say(f"A backup is in {kept[-1]}; uvtokend purge restores it.")
    _tell_daemon()
    return OK


def _tell_daemon() -> None:
    try:
        client.call("reload")
    except NotRunning:
        console.say("uvtokend is not running. It delivers its own entry after: uvtokend start")
