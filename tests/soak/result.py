"""What a part of the soak has to say in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """What one part measured.

    Args:
        name: The part.
        figures: What is printed, in this order.
        broken: A sentence for each promise that was not kept; none, if all is well.
    """

    name: str
    figures: Mapping[str, int | float | str]
    broken: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it as a person reads it."""
        width = max((len(name) for name in self.figures), default=0)
        lines = [f"{self.name}:", *(f"  {name:{width}}  {_shown(value)}" for name, value in self.figures.items())]
        return "\n".join([*lines, *(f"  BROKEN: {sentence}" for sentence in self.broken)])


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
