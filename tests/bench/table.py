"""The table: one line for each comparison, with what it aims at and whether that is reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.turns import Figures, Spread, ratio, spread


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure has to reach.

    Args:
        limit: The greatest value, or with `at_least` the least.
        at_least: More is better.
        of: What is limited: the ratio, or our own figure.
    """

    limit: float
    at_least: bool = False
    of: str = "ratio"

    def met(self, value: float) -> bool:
        """Tell whether a value reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Args:
        row: What is measured.
        ours: Our side.
        value: The median of its figures.
        unit: Of the figures: ``s``, ``MiB`` …
        against: The other side: a peer or a floor; empty for a figure that is alone.
        other: The median of its figures.
        ratio: Ours divided by the other's; the other way round for "times faster".
        aim: What is to be reached; None for a figure that is only shown.
        note: What else has to be known, for example why there is no figure.
    """

    row: str
    ours: str
    value: float | None
    unit: str
    against: str = ""
    other: float | None = None
    ratio: Spread | None = None
    aim: Aim | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None without an aim or a figure."""
        if self.aim is None:
            return None
        share = None if self.ratio is None else self.ratio.median
        found = self.value if self.aim.of == "value" else share
        return None if found is None else self.aim.met(found)

    def as_json(self) -> dict[str, Any]:
        """Return the line for machines."""
        return {**asdict(self), "met": self.met}


def compared(row: str, figures: Figures, ours: str, against: str, aim: Aim | None = None, unit: str = "s") -> Line:
    """Return the line that compares two sides, turn by turn.

    Args:
        row: What is measured.
        figures: Of all sides.
        ours: Our side.
        against: The other side. With an aim of "at least", its figures are divided by ours.
        aim: What is to be reached.
        unit: Of the figures.
    """
    pair = (figures[ours], figures[against])
    found = ratio(*reversed(pair)) if aim is not None and aim.at_least else ratio(*pair)
    return Line(row, ours, spread(pair[0]).median, unit, against, spread(pair[1]).median, found, aim)


def alone(row: str, ours: str, values: Sequence[float], unit: str, limit: float | None = None, note: str = "") -> Line:
    """Return the line of a figure that is compared with nothing but a limit."""
    aim = None if limit is None else Aim(limit, of="value")
    return Line(row, ours, spread(values).median, unit, aim=aim, note=note)


def missing(row: str, names_and_reasons: Mapping[str, str]) -> list[Line]:
    """Return a line for each side that cannot be had here: its name and the reason, and no figure."""
    return [Line(row, name, None, "", note=f"not available: {why}") for name, why in names_and_reasons.items()]


HEAD = ("row", "ours", "", "against", "", "ratio [quartiles]", "aim", "met")


def shown(lines: Iterable[Line]) -> str:
    """Return the table as text; in Markdown, so that it can be copied into a document."""
    rows = [HEAD, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def _cells(line: Line) -> tuple[str, ...]:
    note = f" ({line.note})" if line.note else ""
    found = line.ratio
    return (
        line.row,
        line.ours + note,
        "" if line.value is None else figure(line.value, line.unit),
        line.against,
        "" if line.other is None else figure(line.other, line.unit),
        "" if found is None else f"{_short(found.median)} [{_short(found.low)} to {_short(found.high)}]",
        "" if line.aim is None else _aim(line.aim, line.unit),
        {True: "yes", False: "NO", None: ""}[line.met],
    )


def figure(value: float, unit: str) -> str:
    """Return a figure with its unit, as a person reads it."""
    if unit == "s" and value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{_short(value)} {unit}".rstrip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _aim(aim: Aim, unit: str) -> str:
    sign = "≥" if aim.at_least else "≤"
    return f"{sign} {aim.limit:g} x" if aim.of == "ratio" else f"{sign} {figure(aim.limit, unit)}"
