"""Texts for people: durations, times, colors and line breaks.

Text from outside (an index's name, a cloud's response) is shown with its control characters escaped, since a terminal
would obey them. `uvtokend status` starts near Python's own floor, so this module imports next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime, tzinfo
else:
    # The same class. Before Python 3.12, the module around it takes a sixth of Python's own start.
    from _datetime import datetime

GREEN, YELLOW, RED, BOLD, DIM = "32", "33", "31", "1", "2"


def clean(text: str) -> str:
    """Return a text with its control and other invisible characters escaped, so that a terminal does not obey them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def duration(seconds: float) -> str:
    """Return a duration as people say it, rounded down: ``3 d``, ``7 h``, ``1 h 20 min``, ``12 s``."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days >= 2:
        return f"{days} d"
    if hours >= 2:
        return f"{hours} h"
    if hours:
        return f"1 h {minutes % 60} min" if minutes % 60 else "1 h"
    return f"{minutes} min" if minutes else f"{whole} s"


def wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines of at most a width, broken at spaces if there are any; all but the first are indented."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1].strip() and len(lines[-1]) + 1 + len(word) > width:
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def paint(text: str, shade: str, color: bool) -> str:
    """Return a text in a color, if the terminal shows colors."""
    return f"\x1b[{shade}m{text}\x1b[0m" if color else text


class Moment:
    """Formats times for people, at one moment in one time zone.

    Args:
        now: The moment, aware.
        zone: The time zone; None means that of the system.
    """

    def __init__(self, now: datetime, zone: tzinfo | None) -> None:
        self.now = now
        self.zone = zone
        self._today = now.astimezone(zone).date()

    def seconds_until(self, time: str) -> float:
        """Return the seconds until a time of the document; negative if it has passed."""
        return (datetime.fromisoformat(time) - self.now).total_seconds()

    def at(self, time: str) -> str:
        """Return ``23:29``, with the day if that is not today."""
        local = datetime.fromisoformat(time).astimezone(self.zone)
        day = "" if local.date() == self._today else f"{local:%b} {local.day} "
        return f"{day}{local.hour:02}:{local.minute:02}"
