"""``uvtokend reload``: the daemon reads its configuration again."""

from __future__ import annotations

import argparse

from uvtokend.cli import client, console
from uvtokend.errors import OK

EXAMPLES = ("uvtokend reload",)
DETAILS = "An invalid configuration is refused as a whole, and the old one stays in force."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb: none."""


def run(_args: argparse.Namespace) -> int:
    """Make the daemon read its configuration again.

    Raises:
        NotRunning: There is no daemon.
        ConfigError: The configuration is invalid.
    """
    answer = client.call("reload")
    for notice in answer["notices"]:
        console.say(notice)
    count = answer["indexes"]
    console.say(f"Configuration reloaded ({count} {'index' if count == 1 else 'indexes'}).")
    return OK
