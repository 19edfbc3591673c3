"""Write the indexes of a status document as a table that grows with the terminal."""

from __future__ import annotations

from uvtokend.core.document import VALID, enabled, healthy, kind
from uvtokend.core.text import BOLD, DIM, GREEN, RED, YELLOW, Moment, clean, duration, paint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any

_SINKS = {"netrc": "netrc, plain text", "uv-store": "uv's store, plain text", "memory": "memory only"}
_SHADES = {"fresh": GREEN, "stale": YELLOW, "expired": RED, "none": RED}
#: What comes before a cell that is below its line.
_PREFIX = {"FOR": "for ", "STORED IN": "in "}
_STATES = {"fetching": YELLOW, "retrying": YELLOW, "blocked": RED}


def table(
    document: Mapping[str, Any], moment: Moment, width: int, color: bool, without: Collection[str] = ()
) -> list[str]:
    """Return the indexes as a table that grows with the terminal.

    Index, token and state are always columns. Host, identity and sink become columns, in this order, if the terminal is
    wide enough; otherwise they are below the line, so that nothing is lost. The provider is shown if there is room for
    it.
    """
    running = document["pid"] is not None
    cells: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "INDEX": lambda index: str(index["name"]),
        "HOST": lambda index: index.get("host") or "-",
        "PROVIDER": lambda index: index.get("provider") or "-",
        "FOR": lambda index: index.get("identity") or index.get("username") or "-",
        "TOKEN": lambda index: "disabled" if "STATE" in without and not enabled(index) else _token(index, moment),
        "STATE": lambda index: _state(index, running, moment),
        "STORED IN": lambda index: _SINKS.get(index.get("sink", ""), "-") if index["delivered"] else "-",
    }
    cells = {header: cell for header, cell in cells.items() if header not in without}
    indexes = document["indexes"]
    columns = {header: [clean(cell(index)) for index in indexes] for header, cell in cells.items()}
    widths = {header: max(len(header), *map(len, column)) for header, column in columns.items()}
    shown = {"INDEX", "TOKEN", "STATE"} & cells.keys()
    for header in ("HOST", "FOR", "STORED IN", "PROVIDER"):
        if _total(widths, shown | {header}) <= width:
            shown.add(header)
    headers = [header for header in cells if header in shown]
    below = [header for header in ("HOST", "FOR", "STORED IN") if header not in shown]
    if _total(widths, shown) > width:  # a very narrow terminal: one line for each fact
        headers, below = ["INDEX"], [header for header in cells if header not in {"INDEX", "PROVIDER"}]
    shades = [_shades(index) for index in indexes] if color else None
    rows = _joined({header: columns[header] for header in headers}, widths, shades)
    lines = [paint(_joined({header: [header] for header in headers}, widths)[0], BOLD, color)]
    if not below:
        return [*lines, *rows]
    for at, row in enumerate(rows):
        details = [f"{_PREFIX.get(header, '')}{columns[header][at]}" for header in below if columns[header][at] != "-"]
        joined = ", ".join(details)
        lines += [row, *(f"  {line}" for line in ([joined] if joined and len(joined) + 2 <= width else details))]
    return lines


def _total(widths: Mapping[str, int], headers: Iterable[str]) -> int:
    return sum(widths[header] + 2 for header in headers) - 2


def _joined(
    columns: Mapping[str, Sequence[str]],
    widths: Mapping[str, int],
    shades: Sequence[Mapping[str, str]] | None = None,
) -> list[str]:
    """Return the lines of a table. It is made column by column, which is several times as fast as cell by cell.

    Args:
        columns: The cells of each column, from left to right.
        widths: The width of each column.
        shades: The colors of each line's cells, if any.
    """
    last = [*columns][-1]
    padded = []
    for header, column in columns.items():
        cells = column if header == last else [cell.ljust(widths[header]) for cell in column]
        if shades is not None:
            pairs = zip(cells, shades, strict=True)
            cells = [paint(cell, shade[header], True) if header in shade else cell for cell, shade in pairs]
        padded.append(cells)
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def _shades(index: Mapping[str, Any]) -> dict[str, str]:
    """Return the color of the cells that have one: red if uv fails, yellow if a fetch is under way."""
    if not enabled(index):
        return {"INDEX": DIM, "TOKEN": DIM, "STATE": DIM}
    busy = index["health"] == "none" and index["state"] == "fetching"
    token = _SHADES[index["health"]] if healthy(index) or index["health"] not in VALID else RED
    shades = {"TOKEN": YELLOW if busy else token}
    if index["state"] in _STATES:
        shades["STATE"] = _STATES[index["state"]]
    return shades


def _token(index: Mapping[str, Any], moment: Moment) -> str:
    """Return the state of a token, and until when it is valid."""
    if not enabled(index):
        return "-"
    end = index.get("expires_at")
    if index["health"] not in VALID:
        if index["health"] == "none" or end is None:
            return "no token"
        return f"expired {moment.at(end)}, {duration(-moment.seconds_until(end))} ago"
    worth = "no known end" if end is None else f"expires {moment.at(end)}, in {duration(moment.seconds_until(end))}"
    return worth if index["delivered"] else f"{worth} (not delivered)"


def _state(index: Mapping[str, Any], running: bool, moment: Moment) -> str:
    """Return what the daemon does for an index, and when."""
    if not enabled(index):
        return "disabled"
    if not running:
        return "-"
    match index["state"]:
        case "fetching":
            return "fetching…"
        case "retrying":
            failed = f" ({index['failures']} failed)" if index["failures"] else ""
            return f"retrying{_in(index.get('retry_at'), moment)}{failed}"
        case "blocked":
            return {"login-required": "needs sign-in", "rejected": "rejected"}.get(kind(index) or "", "blocked")
    due = index["refresh_at"]
    return "waiting" if due is None else f"refresh{_in(due, moment) or ' due'}"


def _in(time: str | None, moment: Moment) -> str:
    seconds = 0.0 if time is None else moment.seconds_until(time)
    return f" in {duration(seconds)}" if seconds > 0 else ""
