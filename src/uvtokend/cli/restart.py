"""``uvtokend restart``: replace the daemon by a new one."""

from __future__ import annotations

import argparse
import contextlib

from uvtokend.cli import parser, start, stop
from uvtokend.disk import configuration
from uvtokend.errors import NotRunning

EXAMPLES = ("uvtokend restart",)
DETAILS = "Also starts a daemon that is not running. If the configuration is invalid, the old daemon keeps running."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_wait(own)


def run(args: argparse.Namespace) -> int:
    """Stop the daemon if it runs, and start it.

    Raises:
        ConfigError: The configuration is invalid; the old daemon keeps running.
        UvtokendError: The old daemon does not end, or the new one could not start.
    """
    configuration.load(args.config)
    with contextlib.suppress(NotRunning):
        stop.stop(args.config)
    return start.start(args.config, args.wait)
