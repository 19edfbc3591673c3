"""``uvtokend reload``: make the daemon reload its configuration."""

from __future__ import annotations

import argparse
import os

from uvtokend.cli import client, console
from uvtokend.core.model import Settings
from uvtokend.errors import OK, NotRunning

EXAMPLES = ("uvtokend reload",)
DETAILS = "An invalid configuration is refused as a whole, and the previous one stays loaded."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb: none."""


def run(_args: argparse.Namespace) -> int:
    """Make the daemon reload its configuration.

    Raises:
        NotRunning: No daemon runs.
        ConfigError: The configuration is invalid.
    """
    answer = client.call("reload")
    for notice in answer["notices"]:
        console.say(notice)
    count = answer["indexes"]
    console.say(f"Configuration reloaded ({count} {'index' if count == 1 else 'indexes'}).")
    return OK


def tell_daemon(settings: Settings) -> bool:
    """Make the daemon load an edited configuration, and return whether it did.

    Args:
        settings: The edited configuration; the daemon may use another file.
    """
    try:
        answer = client.call("reload")
    except NotRunning:
        console.say("No daemon is running. Start it with: uvtokend start")
        return False
    read = str(answer.get("config", settings.file))
    if os.path.realpath(read) != os.path.realpath(settings.file):
        console.say(f"The running daemon uses another configuration: {read}")
        return False
    console.say("The running daemon has loaded it.")
    return True
