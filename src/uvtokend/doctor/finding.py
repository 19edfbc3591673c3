"""What a check returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from uvtokend.core.model import Json

Severity = Literal["error", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Args:
        name: Of the check, kebab-case.
        severity: ``error``: uv fails, or takes a package from a place that was not meant. ``note``: all else.
        message: A sentence for people, without secrets.
        culprit: The file and line, variable, host or program that it is about.
        fix: The exact command, or the edit; None where nobody here can do anything.
    """

    name: str
    severity: Severity
    message: str
    culprit: str | None = None
    fix: str | None = None

    def json(self) -> dict[str, Json]:
        """Return it for machines."""
        return {
            "name": self.name,
            "severity": self.severity,
            "message": self.message,
            "culprit": self.culprit,
            "fix": self.fix,
        }


def error(name: str, message: str, culprit: str | None = None, fix: str | None = None) -> Finding:
    """Return a finding that makes uv fail, or fail open."""
    return Finding(name, "error", message, culprit, fix)


def note(name: str, message: str, culprit: str | None = None, fix: str | None = None) -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(name, "note", message, culprit, fix)
