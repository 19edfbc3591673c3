"""The result of one part of the soak test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one part.

    Args:
        name: The part.
        figures: The figures, in the order in which they are printed.
        broken: A sentence for each broken promise.
    """

    name: str
    figures: Mapping[str, int | float | str]
    broken: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the result as text."""
        width = max((len(name) for name in self.figures), default=0)
        lines = [f"{self.name}:", *(f"  {name:{width}}  {_shown(value)}" for name, value in self.figures.items())]
        return "\n".join([*lines, *(f"  BROKEN: {sentence}" for sentence in self.broken)])


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
