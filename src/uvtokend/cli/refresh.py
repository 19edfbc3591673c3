"""``uvtokend refresh``: new tokens now."""

from __future__ import annotations

from uvtokend.cli import client, console, status
from uvtokend.core import report
from uvtokend.errors import FAILED, OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


EXAMPLES = ("uvtokend refresh", "uvtokend refresh private-registry")
DETAILS = "Waits until the new tokens are delivered."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("names", metavar="NAME", nargs="*", help="an index (default: all)")
    own.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """Fetch new tokens; see `refresh`."""
    return refresh(args.names, args.json)


def refresh(names: list[str], as_json: bool) -> int:
    """Let the daemon fetch now, and wait until all is delivered or has failed.

    Args:
        names: These indexes; none means all.
        as_json: Print the status document for machines.

    Returns:
        0 if all were delivered, else 1.

    Raises:
        NotRunning: There is no daemon.
    """
    with console.Progress("Fetching new tokens") as progress:
        document = client.call("refresh", client.names(names), client.FETCHES, progress.show)
    status.show(document, as_json)
    return OK if all(report.refreshed(index) for index in document["indexes"]) else FAILED
