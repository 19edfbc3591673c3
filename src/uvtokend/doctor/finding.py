"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from uvtokend.core.model import Json

Severity = Literal["error", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem or a notice.

    Args:
        name: The name of the check, kebab-case.
        severity: ``error``: uv fails, or installs a package from an unintended index. ``note``: anything else.
        message: A sentence for people, without secrets.
        culprit: The file and line, variable, host or program that it is about.
        fix: The exact command or edit; None if the user cannot fix it.
    """

    name: str
    severity: Severity
    message: str
    culprit: str | None = None
    fix: str | None = None

    def json(self) -> dict[str, Json]:
        """Return the finding as JSON."""
        return {
            "name": self.name,
            "severity": self.severity,
            "message": self.message,
            "culprit": self.culprit,
            "fix": self.fix,
        }


def error(name: str, message: str, culprit: str | None = None, fix: str | None = None) -> Finding:
    """Return a finding with the severity ``error``."""
    return Finding(name, "error", message, culprit, fix)


def note(name: str, message: str, culprit: str | None = None, fix: str | None = None) -> Finding:
    """Return a finding with the severity ``note``."""
    return Finding(name, "note", message, culprit, fix)
