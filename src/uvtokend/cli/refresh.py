"""``uvtokend refresh``: new tokens now."""

from __future__ import annotations

from uvtokend.cli import client, status
from uvtokend.core import report
from uvtokend.errors import FAILED, OK


def run(names: list[str], as_json: bool) -> int:
    """Let the daemon fetch now, and wait until all is delivered or has failed.

    Args:
        names: These indexes; none means all.
        as_json: Print the status document for machines.

    Returns:
        0 if all were delivered, else 1.

    Raises:
        NotRunning: There is no daemon.
    """
    document = client.call("refresh", client.names(names), client.FETCHES)
    status.show(document, as_json)
    return OK if all(report.refreshed(index) for index in document["indexes"]) else FAILED
