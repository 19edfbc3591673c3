"""The status document and the event log -> what a person reads.

What is broken stands first, each with its cause and the exact command that mends it; then one line for each index. Text
from outside (an index's name, what a cloud answered) is shown with its control characters escaped, since a terminal
would obey them. A command is never shortened or broken into lines: it is there to be copied.

`uvtokend status` starts near Python's own floor, so this module imports next to nothing.
"""

from __future__ import annotations

from datetime import datetime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

GREEN, YELLOW, RED, BOLD, DIM = "32", "33", "31", "1", "2"
_COLOURS = {"fresh": GREEN, "stale": YELLOW, "expired": RED, "none": RED, "warning": YELLOW, "error": RED}
_HEADER = ("INDEX", "HEALTH", "LIFE LEFT", "NEXT REFRESH")
_SHORTEST_NAME = 12
#: What to do where nothing is configured yet.
INIT = "No index is configured yet. Set one up with: uvtokend init"


def healthy(index: Mapping[str, Any]) -> bool:
    """Tell whether one index of the document has a valid delivered token."""
    return bool(index["delivered"]) and index["health"] in {"fresh", "stale"}


def refreshed(index: Mapping[str, Any]) -> bool:
    """Tell whether the last refresh of one index of the document was delivered."""
    return healthy(index) and index["last_error"] is None


def status(document: Mapping[str, Any], now: datetime, width: int = 80, colour: bool = False) -> str:
    """Return what a person reads of the status document.

    Args:
        document: As ``status --json`` prints it.
        now: Aware UTC.
        width: Of the terminal, in characters.
        colour: Whether the terminal shows colours.
    """
    lines = troubles(document, width, colour) + notices(document, width, colour)
    indexes = document["indexes"]
    if indexes:
        lines += [*([""] if lines else []), *_table(document, now, width, colour)]
    else:
        lines.append(INIT)
    if document["pid"] is not None:
        lines.append(_paint(f"pid {document['pid']}, netrc {clean(document['netrc'])}", DIM, colour))
    return "\n".join(lines) + "\n"


def troubles(document: Mapping[str, Any], width: int, colour: bool) -> list[str]:
    """Return what is broken, each with its mend, as lines. No lines: all is well."""
    lines: list[str] = []
    if document["pid"] is None and document["indexes"]:
        lines += _trouble("uvtokend is not running: nothing is refreshed.", "uvtokend start", width, colour)
    problem = document["delivery"]["problem"]
    if problem is not None:
        said = _told_by_index(document, problem)
        lines += [] if said else _trouble(problem, None, width, colour)
    for (message, hint), names in _grouped(document).items():
        lines += _trouble(f"{', '.join(names)}: {message}", hint, width, colour)
    return lines


def notices(document: Mapping[str, Any], width: int, colour: bool) -> list[str]:
    """Return what a person should know although the tokens are good, each with its mend, as lines."""
    grouped: dict[tuple[str, str | None], list[str]] = {}
    for index in document["indexes"]:
        for notice in index.get("notices", ()):
            grouped.setdefault((notice["message"], notice["hint"]), []).append(index["name"])
    lines: list[str] = []
    for (message, hint), names in grouped.items():
        lines += _trouble(f"{', '.join(names)}: {message}", hint, width, colour)
    return lines


def _told_by_index(document: Mapping[str, Any], problem: str) -> bool:
    errors = [index["last_error"] for index in document["indexes"]]
    return any(error is not None and error["message"] == problem for error in errors)


def _grouped(document: Mapping[str, Any]) -> dict[tuple[str, str | None], list[str]]:
    """Return (message, hint) -> the names that it is true of: ten indexes of one login are one trouble."""
    grouped: dict[tuple[str, str | None], list[str]] = {}
    for index in document["indexes"]:
        trouble = _of_index(index, document["pid"] is not None)
        if trouble is not None:
            grouped.setdefault(trouble, []).append(index["name"])
    return grouped


def _of_index(index: Mapping[str, Any], running: bool) -> tuple[str, str | None] | None:
    error = index["last_error"]
    if error is not None:
        return error["message"], error["hint"]
    if healthy(index) or not running:
        return None
    if index["state"] == "fetching":
        return "The token is being fetched right now.", None
    if index["health"] in {"fresh", "stale"}:
        return "The token is there, but not delivered yet.", None
    return "There is no valid token yet.", f"uvtokend refresh {clean(index['name'])}"


def _trouble(sentence: str, hint: str | None, width: int, colour: bool) -> list[str]:
    lines = wrapped(clean(sentence), width)
    if hint is not None:
        lines.append(f"  fix: {_paint(clean(hint), BOLD, colour)}")
    return lines


# ----------------------------------------------------------------------------------------------------------- table


def _table(document: Mapping[str, Any], now: datetime, width: int, colour: bool) -> list[str]:
    running = document["pid"] is not None
    rows = [_row(index, now, running) for index in document["indexes"]]
    widths = [max(len(row[column]) for row in [_HEADER, *rows]) for column in range(len(_HEADER))]
    spare = width - sum(widths[1:]) - 2 * (len(_HEADER) - 1)
    widths[0] = min(widths[0], max(spare, _SHORTEST_NAME))
    lines = [_paint(_line(_HEADER, widths), BOLD, colour)]
    for row, index in zip(rows, document["indexes"], strict=True):
        shade = _COLOURS[index["health"]] if healthy(index) else RED
        lines.append(_line(row, widths, shade if colour else None))
    return lines


def _row(index: Mapping[str, Any], now: datetime, running: bool) -> tuple[str, str, str, str]:
    undelivered = index["health"] in {"fresh", "stale"} and not index["delivered"]
    health = f"{index['health']}, not delivered" if undelivered else index["health"]
    return clean(index["name"]), health, _life(index), _next(index, now, running)


def _life(index: Mapping[str, Any]) -> str:
    if index["health"] not in {"fresh", "stale"}:
        return "-"
    left = index["life_left_s"]
    return "no known end" if left is None else duration(left)


def _next(index: Mapping[str, Any], now: datetime, running: bool) -> str:
    if not running:
        return "-"
    if index["state"] == "fetching":
        return "now"
    if index["state"] == "retrying":
        return f"retrying, {index['failures']} failed" if index["failures"] else "retrying"
    if index["state"] == "blocked" or index["refresh_at"] is None:
        return str(index["state"])
    seconds = (datetime.fromisoformat(index["refresh_at"]) - now).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else "now"


def _line(cells: Sequence[str], widths: Sequence[int], shade: str | None = None) -> str:
    padded = [_shortened(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True)]
    if shade is not None:
        padded[1] = _paint(padded[1], shade, True)
    return "  ".join(padded).rstrip()


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


# ---------------------------------------------------------------------------------------------------------- events


def event(record: Mapping[str, Any], colour: bool = False) -> str:
    """Return one event of the log as a line; a record that is none of ours says so."""
    try:
        names = f"{', '.join(str(name) for name in record['names'])}: " if record["names"] else ""
        hint = f"  fix: {record['hint']}" if record["hint"] else ""
        level = str(record["level"])
        text = clean(f"{names}{record['message']}{hint}")
        return f"{clean(str(record['at']))}  {_paint(clean(level).ljust(7), _COLOURS.get(level, DIM), colour)}  {text}"
    except (KeyError, TypeError):
        return "(a line that is no event)"


# ------------------------------------------------------------------------------------------------------------ text


def clean(text: str) -> str:
    """Return a text with its control and other invisible characters escaped, so that a terminal does not obey them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def duration(seconds: float) -> str:
    """Return a length of time in its two greatest units: ``2d 3h``, ``3h 5m``, ``59m``, ``12s``."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes % 60}m"
    return f"{minutes}m {whole % 60}s" if minutes else f"{whole}s"


def wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines of at most that width, broken at spaces where there are any; later ones are indented."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1].strip() and len(lines[-1]) + 1 + len(word) > width:
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _paint(text: str, shade: str, colour: bool) -> str:
    return f"\x1b[{shade}m{text}\x1b[0m" if colour else text
