"""Measure the difference between the issuer's clock and ours with the ``Date`` of a response (RFC 9110 6.6.1)."""

from __future__ import annotations

from datetime import datetime

#: Differences up to this many seconds are ignored: ``Date`` has whole seconds, and a response takes time.
SKEW = 2.0


def skew(date: datetime | None, at: datetime) -> float | None:
    """Return the seconds by which this machine's clock is ahead of the issuer's; None if unknown.

    Args:
        date: The ``Date`` of the response.
        at: The time of the response on this machine's clock.
    """
    if date is None:
        return None
    ahead = (at - date).total_seconds()
    return ahead if abs(ahead) > SKEW else 0.0
