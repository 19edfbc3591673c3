"""Fetch without a daemon, with progress on a terminal.

Fetches through the daemon show theirs in `uvtokend.cli.client`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from uvtokend.cli import console
from uvtokend.core.model import Credential, Failure, Index, Request, Settings

_WHAT = "Fetching new tokens"


def once(
    settings: Settings, names: list[str], enough: Callable[[dict[str, Any]], bool] | None = None
) -> dict[str, Any]:
    """Fetch what is due, deliver it, and return the status document; see `uvtokend.daemon.main.once`.

    Args:
        settings: The configuration.
        names: The indexes; none means all.
        enough: Returns whether an index of the status document needs no other fetch.

    Raises:
        UvtokendError: Another process owns the netrc.
    """
    from uvtokend.daemon import main  # noqa: PLC0415 - the daemon's imports are not small

    with console.Ticking(_WHAT):
        return main.once(settings, names, enough)[0]


def alone(settings: Settings, indexes: Iterable[Index]) -> dict[Request, Credential | Failure]:
    """Return the outcome of one fetch for each request; nothing is delivered or remembered.

    Args:
        settings: The configuration.
        indexes: The indexes that need a token.
    """
    from uvtokend.daemon import alone  # noqa: PLC0415 - the daemon's imports are not small

    with console.Ticking(_WHAT):
        return alone.fetch(settings, indexes)
