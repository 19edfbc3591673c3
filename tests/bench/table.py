"""The table: one line for each comparison, with its aim and whether the aim is met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.turns import Figures, Spread, ratio, spread


@dataclass(frozen=True, slots=True)
class Aim:
    """The limit of a figure.

    Args:
        limit: The greatest value, or with `at_least` the smallest.
        at_least: Whether greater values are better.
        of: What is limited: the ratio, or our own value.
    """

    limit: float
    at_least: bool = False
    of: str = "ratio"

    def met(self, value: float) -> bool:
        """Return whether a value meets the aim."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Args:
        row: What is measured.
        ours: Our side.
        value: The median of our side's figures.
        unit: The unit of the figures: ``s``, ``MiB`` …
        against: The other side: a peer or the least possible; empty for a figure without a comparison.
        other: The median of the other side's figures.
        ratio: Ours divided by the other's, or the reverse for an aim of "at least".
        aim: The aim; None for a figure without one.
        note: Anything else, for example why there is no figure.
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
        """Whether the aim is met; None without an aim or a figure."""
        if self.aim is None:
            return None
        share = None if self.ratio is None else self.ratio.median
        measured = self.value if self.aim.of == "value" else share
        return None if measured is None else self.aim.met(measured)

    def as_json(self) -> dict[str, Any]:
        """Return the line for machines."""
        return {**asdict(self), "met": self.met}


def compared(row: str, figures: Figures, ours: str, against: str, aim: Aim | None = None, unit: str = "s") -> Line:
    """Return the line that compares two sides, turn by turn.

    Args:
        row: What is measured.
        figures: The figures of all sides.
        ours: Our side.
        against: The other side. With an aim of "at least", its figures are divided by ours.
        aim: The aim.
        unit: The unit of the figures.
    """
    pair = (figures[ours], figures[against])
    quotient = ratio(*reversed(pair)) if aim is not None and aim.at_least else ratio(*pair)
    return Line(row, ours, spread(pair[0]).median, unit, against, spread(pair[1]).median, quotient, aim)


def alone(row: str, ours: str, values: Sequence[float], unit: str, limit: float | None = None, note: str = "") -> Line:
    """Return the line of a figure that is compared only with a limit."""
    aim = None if limit is None else Aim(limit, of="value")
    return Line(row, ours, spread(values).median, unit, aim=aim, note=note)


def missing(row: str, names_and_reasons: Mapping[str, str]) -> list[Line]:
    """Return a line for each side that is not available: its name and the reason, without a figure."""
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
    share = line.ratio
    return (
        line.row,
        line.ours + note,
        "" if line.value is None else figure(line.value, line.unit),
        line.against,
        "" if line.other is None else figure(line.other, line.unit),
        "" if share is None else f"{_short(share.median)} [{_short(share.low)} to {_short(share.high)}]",
        "" if line.aim is None else _aim(line.aim, line.unit),
        {True: "yes", False: "NO", None: ""}[line.met],
    )


def figure(value: float, unit: str) -> str:
    """Return a figure with its unit, formatted for people."""
    if unit == "s" and value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{_short(value)} {unit}".rstrip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _aim(aim: Aim, unit: str) -> str:
    sign = "≥" if aim.at_least else "≤"
    return f"{sign} {aim.limit:g} x" if aim.of == "ratio" else f"{sign} {figure(aim.limit, unit)}"
