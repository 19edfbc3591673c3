"""The kills of `jfrog_kills`, a few of them."""

from __future__ import annotations

from jfrog_kills import run


def test_the_chain_survives_what_the_protocol_lets_it_survive() -> None:
    """A worker killed in the middle of a refresh never costs a chain that could be saved, and where the answer was
    lost the next failure says so and names the mend."""
    outcome = run(kills=5, seed=1)
    assert outcome.broken == []
    assert outcome.kills.total() == 5
