"""``uvtokend adopt``: takes over a foreign netrc entry. No other command changes foreign text."""

from __future__ import annotations

import argparse

from uvtokend.cli import client, console, disk
from uvtokend.core.netrc.adopt import take_over
from uvtokend.disk import backups
from uvtokend.disk.backups import Backup
from uvtokend.disk.configuration import load
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.errors import OK, DeliveryFailed, NotRunning

EXAMPLES = ("uvtokend adopt private-registry",)
DETAILS = "The entry is kept in a backup, which `uvtokend purge` restores."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("name", metavar="NAME", help="the index")


def run(args: argparse.Namespace) -> int:
    """Take over the foreign entries for an index's host; see `adopt`."""
    return adopt(args.name, args.config)


def adopt(name: str, config: str | None) -> int:
    """Take the foreign entries for an index's host out of the netrc, and let the daemon deliver its own.

    Args:
        name: The index.
        config: Another configuration file.

    Raises:
        UsageError: No index has that name.
        DeliveryFailed: The netrc could not be written; it is as it was.
    """
    settings = load(config)
    (index,) = disk.chosen(settings, [name])
    sink = NetrcSink(settings.netrc)
    file = backups.reserve()
    removed = 0

    def edit(text: bytes) -> bytes:
        nonlocal removed
        taken = take_over(text, index.host)
        removed = taken.removed
        if removed:
            backups.keep(Backup(file, sink.path, taken.backup))
        return taken.text

    try:
        sink.change(edit)
    except DeliveryFailed:  # nothing was taken out; whatever else ends us, the backup stays
        file.unlink(missing_ok=True)
        raise
    if not removed:
        file.unlink(missing_ok=True)
        console.say(f"{sink.path} holds no foreign entry for {index.host}: there is nothing to take over.")
    else:
        what = "the entry" if removed == 1 else f"{removed} entries"
        console.say(f"uvtokend has taken over {what} for {index.host} in {sink.path}.")
        console.say(f"What stood there is kept in {file}; uvtokend purge puts it back.")
    _tell_daemon()
    return OK


def _tell_daemon() -> None:
    try:
        client.call("reload")
    except NotRunning:
        console.say("uvtokend is not running; it delivers its own entry when it does: uvtokend start")
