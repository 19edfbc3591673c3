"""Write an event of the log as a line for people."""

from __future__ import annotations

from datetime import datetime

from uvtokend.core.text import DIM, RED, YELLOW, clean, paint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo
    from typing import Any

_LEVELS = {"warning": YELLOW, "error": RED}


def event_line(record: Mapping[str, Any], color: bool = False, zone: tzinfo | None = None) -> str:
    """Return one event of the log as a line in local time; a record that is not an event says so.

    Args:
        record: The record in the log.
        color: Whether the terminal shows colors.
        zone: The time zone of the person; None means that of the system.
    """
    try:
        names = f"{', '.join(str(name) for name in record['names'])}: " if record["names"] else ""
        hint = f"  fix: {record['hint']}" if record["hint"] else ""
        level = str(record["level"])
        text = clean(f"{names}{record['message']}{hint}")
        at = datetime.fromisoformat(str(record["at"])).astimezone(zone)
        return f"{at:%Y-%m-%d %H:%M:%S}  {paint(clean(level).ljust(7), _LEVELS.get(level, DIM), color)}  {text}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return "(not an event)"
