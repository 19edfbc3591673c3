"""A few of the soak's kills of a worker that rotates a GitLab token."""

from __future__ import annotations

from soak.gitlab_kills import run


def test_no_kill_loses_a_token_unnecessarily() -> None:
    """SIGKILL loses no token that could be saved, SIGTERM loses none at all, and no rotated token is sent again."""
    outcome = run(1, 0.01, print)
    assert outcome.broken == ()
    assert outcome.figures["kills in the middle of a rotation"] == 5
    assert outcome.figures["rotations with a revoked token"] == 0
