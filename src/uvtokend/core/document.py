"""Read a status document: whether uv works with its indexes, and what the others wait for.

Documents may come from a daemon of another version, so keys that are newer than 1.0 are read with a default.
`uvtokend status` starts near Python's own floor, so this module imports next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: The delivery problem in the document while no daemon runs.
STOPPED = "uvtokend is not running, so no tokens are being refreshed."
#: The beginning of the document's sentence about an invalid configuration.
INVALID = "config.toml is invalid"
#: The health of a token that uv can use.
VALID = ("fresh", "stale")


def enabled(index: Mapping[str, Any]) -> bool:
    """Return whether one index of the document is enabled."""
    return bool(index.get("enabled", True))


def healthy(index: Mapping[str, Any]) -> bool:
    """Return whether one index of the document has a valid delivered token."""
    return bool(index["delivered"]) and index["health"] in VALID


def refreshed(index: Mapping[str, Any]) -> bool:
    """Return whether the last refresh of one index of the document was delivered."""
    return healthy(index) and index["last_error"] is None


def under_way(index: Mapping[str, Any]) -> bool:
    """Return whether one index of the document has no valid delivered token yet, but may have one in a moment."""
    waits = index["state"] == "fetching" or (index["state"] == "waiting" and index["last_error"] is None)
    return enabled(index) and not healthy(index) and waits


def ready(document: Mapping[str, Any]) -> bool:
    """Return whether every enabled index of the document has a valid delivered token."""
    return all(healthy(index) for index in document["indexes"] if enabled(index))


def phase(index: Mapping[str, Any]) -> str:
    """Return the phase of an index that is not ready, or is ready but has a problem."""
    if index["state"] == "blocked":
        return "sign-in" if kind(index) == "login-required" else "blocked"
    if index["state"] in {"retrying", "fetching"}:
        return str(index["state"])
    return "undelivered" if index["health"] in VALID else "tokenless"


def kind(index: Mapping[str, Any]) -> str | None:
    """Return the kind of the last error of one index, or None."""
    error = index["last_error"]
    return None if error is None else str(error["kind"])
