"""A few of the soak's kills of a process that delivers."""

from __future__ import annotations

from soak.kills import run


def test_a_kill_loses_nothing() -> None:
    """Wherever a delivery is killed, the file is the old one or the new one, and the next delivery tidies up."""
    outcome = run(1, 0.01, print)
    assert outcome.broken == ()
    assert outcome.figures["kills"] == 10
