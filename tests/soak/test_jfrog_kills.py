"""A few of the soak's kills of a worker that refreshes a JFrog token."""

from __future__ import annotations

from soak.jfrog_kills import run


def test_no_kill_loses_a_chain_unnecessarily() -> None:
    """SIGKILL loses no chain that could be saved, SIGTERM loses none at all, and after a loss the fix is named."""
    outcome = run(1, 0.01, print)
    assert outcome.broken == ()
    assert outcome.figures["kills in the middle of a refresh"] == 5
