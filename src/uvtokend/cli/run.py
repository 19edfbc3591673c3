"""``uvtokend run``: the daemon in the foreground."""

from __future__ import annotations

import argparse
import os
import sys

from uvtokend.cli import console
from uvtokend.errors import OK, USAGE, UvtokendError
from uvtokend.service import LAUNCHD_LABEL

EXAMPLES = ("uvtokend run", "uvtokend run --quiet")
DETAILS = "This is what systemd and launchd start. It ends with 0 after SIGTERM or SIGINT."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("--quiet", action="store_true", help="don't print events to standard error")


def run(args: argparse.Namespace) -> int:
    """Run the daemon until it is stopped.

    Raises:
        UvtokendError: It could not start.
    """
    # asyncio would load OpenSSL if it could: a MiB for a process that uses unix sockets only.
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    from uvtokend.daemon.main import run as run_daemon  # noqa: PLC0415 - it must come after that

    try:
        return run_daemon(config_file=args.config, quiet=args.quiet)
    except UvtokendError as error:
        if error.exit_status != USAGE or os.environ.get("XPC_SERVICE_NAME") != LAUNCHD_LABEL:
            raise
        # launchd restarts after every other status, for ever, and here only a person can help (launchd.plist(5)).
        console.complain(error)
        return OK
