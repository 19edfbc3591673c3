"""``uvtokend refresh``: fetch new tokens now."""

from __future__ import annotations

from uvtokend.cli import client, status
from uvtokend.core.document import refreshed
from uvtokend.errors import FAILED, OK, NotRunning

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
    return refresh(args.names, args.json, args.config)


def refresh(names: list[str], as_json: bool, config: str | None = None) -> int:
    """Make the daemon fetch now, and wait until every token is delivered or has failed.

    Args:
        names: The names of the indexes; none means all.
        as_json: Whether to print the status document as JSON.
        config: Another configuration file, for the indexes if no daemon runs.

    Returns:
        0 if all were delivered, otherwise 1.

    Raises:
        NotRunning: No daemon runs.
        UsageError: No index has one of those names.
    """
    try:
        document = client.call("refresh", client.names(names), client.FETCHES)
    except NotRunning:
        if names:
            from uvtokend.cli import disk  # noqa: PLC0415 - reading the configuration is slow

            disk.document(names, config)
        raise
    status.show(document, as_json, config=config)
    return OK if all(refreshed(index) for index in document["indexes"]) else FAILED
