"""``uvtokend token``: print one token, and nothing else."""

from __future__ import annotations

import argparse
import sys

from uvtokend.cli import access, console
from uvtokend.errors import OK, UvtokendError

EXAMPLES = ("uvtokend token private-registry > token.txt", "uvtokend token private-registry --show")
DETAILS = "Asks the running daemon, or fetches a token if there is none. Prints nothing else to standard output."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("name", metavar="NAME", help="the index")
    own.add_argument("--show", action="store_true", help="print it on a terminal, too")


def run(args: argparse.Namespace) -> int:
    """Print the token.

    Raises:
        UvtokendError: The output is a terminal, or there is no valid token.
    """
    if sys.stdout.isatty() and not args.show:
        message = "Standard output is a terminal, which would show the token to everyone who sees your screen."
        raise UvtokendError(message, f"uvtokend token {args.name} --show")
    (granted,) = access.accesses([args.name], args.config)
    console.out(f"{granted.token.reveal()}\n")
    return OK
