"""The chart: horizontal bars of some figures of the table, as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from bench.table import Line, figure

#: The rows that are most useful to people who know the peers.
PANELS = (
    "uv pip install, 1 wheel",
    "keyring get",
    "sign-in until all are fresh, 5 leases",
    "idle: RSS at 10 indexes",
)
_WIDTH, _LABEL, _BAR, _STEP, _HEAD = 960, 400, 420, 24, 44
_OURS, _THEIRS, _INK = "#2da44e", "#8c959f", "#24292f"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Args:
        label: Its label.
        value: Its length.
        unit: The unit of the value.
        ours: Whether it belongs to uvtokend.
    """

    label: str
    value: float
    unit: str
    ours: bool


def draw(lines: Iterable[Line], note: str = "") -> str:
    """Return a chart with one panel for each of `PANELS` that was measured.

    Args:
        lines: The table.
        note: Where and how it was measured, for the last line.
    """
    panels: dict[str, dict[str, Bar]] = {}
    for line in lines:
        if line.row not in PANELS or line.value is None or line.other is None:
            continue
        bars = panels.setdefault(line.row, {})
        bars.setdefault(line.ours, Bar(line.ours, line.value, line.unit, ours=True))
        bars.setdefault(line.against, Bar(line.against, line.other, line.unit, ours=False))
    return _svg([(row, sorted(bars.values(), key=lambda bar: bar.value)) for row, bars in panels.items()], note)


def _svg(panels: Sequence[tuple[str, Sequence[Bar]]], note: str) -> str:
    parts, top = [], 16
    for row, bars in panels:
        parts.append(_text(16, top + 16, row, weight="bold"))
        longest = max(bar.value for bar in bars)
        for number, bar in enumerate(bars):
            y = top + 28 + number * _STEP
            length = max(1.0, bar.value / longest * _BAR)
            color = _OURS if bar.ours else _THEIRS
            parts.append(_text(_LABEL - 8, y + 13, bar.label, anchor="end"))
            parts.append(f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="16" rx="3" fill="{color}"/>')
            parts.append(_text(_LABEL + length + 8, y + 13, figure(bar.value, bar.unit)))
        top += _HEAD + len(bars) * _STEP
    parts.append(_text(16, top + 8, note))
    top += 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}" '
        'role="img" font-family="ui-sans-serif, system-ui, sans-serif" font-size="13">'
    )
    back = f'<rect width="{_WIDTH}" height="{top}" rx="8" fill="#ffffff"/>'
    return "\n".join([head, back, *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{_INK}"'
    return f'<text x="{x:.1f}" y="{y}" {style}>{escape(text)}</text>'
