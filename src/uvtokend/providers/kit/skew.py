"""The issuer's clock and ours: how far they are apart, as far as an answer's ``Date`` tells (RFC 9110 6.6.1)."""

from __future__ import annotations

from datetime import datetime

#: Seconds that are no difference: ``Date`` knows whole ones, and an answer takes its time.
SKEW = 2.0


def skew(date: datetime | None, at: datetime) -> float | None:
    """Return the seconds by which this machine's clock is ahead of an issuer's, or None where that is not known.

    Args:
        date: What the answer's ``Date`` said.
        at: When the answer came, on this machine's clock.
    """
    if date is None:
        return None
    ahead = (at - date).total_seconds()
    return ahead if abs(ahead) > SKEW else 0.0
