"""The status document -> the small file that a shell prompt reads, and back.

The file has three lines, so that a shell needs only three ``read``:

1. the text to show, such as ``5 ready`` or ``3/5 ready, sign-in needed``;
2. until when that holds without a daemon, in seconds since 1970, UTC: the time at which the first token expires;
3. the exit status of ``uvtokend status``: 0 or 1.

The file is missing while no daemon runs. `uvtokend status --prompt` reads it, so this module imports next to nothing.
"""

from __future__ import annotations

from uvtokend.core.document import enabled, healthy, phase, ready
from uvtokend.errors import FAILED, OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any
else:
    from _datetime import datetime  # as in `uvtokend.core.text`

#: If no token has an end, a text holds until the end of the next half day, so that the file seldom changes.
_HALF_DAY = 12 * 3600
#: The words for the phases, the worst first.
_SHORT = {
    "sign-in": "sign-in needed",
    "blocked": "blocked",
    "undelivered": "not delivered",
    "tokenless": "no token",
    "retrying": "retrying",
    "fetching": "fetching",
}


def encode(document: Mapping[str, Any], now: float) -> bytes:
    """Return the content of the file.

    Args:
        document: The status document of the running daemon.
        now: The wall clock, in seconds since 1970.
    """
    good = [index for index in document["indexes"] if enabled(index) and healthy(index)]
    ends = [datetime.fromisoformat(end).timestamp() for index in good if (end := index["expires_at"]) is not None]
    until = int(min(ends, default=(now // _HALF_DAY + 2) * _HALF_DAY))
    exit_status = OK if ready(document) else FAILED
    return f"{short_line(document)}\n{until}\n{exit_status}\n".encode()


def decode(text: bytes) -> tuple[str, int, int] | None:
    """Return the text, until when it holds, and the exit status; None if the file is not one of ours."""
    try:
        line, until, exit_status = text.decode().splitlines()
        return line, int(until), int(exit_status)
    except ValueError:
        return None


def short_line(document: Mapping[str, Any]) -> str:
    """Return the status in one short line, for a shell prompt."""
    indexes = [index for index in document["indexes"] if enabled(index)]
    if not indexes:
        return "no index"
    if document["pid"] is None:
        return "not running"
    good = sum(healthy(index) for index in indexes)
    phases = [phase(index) for index in indexes if index["state"] == "blocked" or not healthy(index)]
    worst = next((words for each, words in _SHORT.items() if each in phases), None)
    count = f"{good} ready" if good == len(indexes) else f"{good}/{len(indexes)} ready"
    return count if worst is None else f"{count}, {worst}"
