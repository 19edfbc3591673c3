"""Random histories of months against the promise, and broken agents that must not pass."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from simulation import run

from uvtokend.core import policy
from uvtokend.core.agent import Agent
from uvtokend.core.model import Credential, Entry, Sink


@settings(max_examples=6, deadline=None, phases=(Phase.generate,))
@given(st.integers(0, 2**32))
def test_the_promise_holds_through_any_year(seed: int) -> None:
    """90 days with outages, sleep, ended logins and full disks: a uv that starts finds the promised life whenever the
    history made that possible, nothing dead stands in the file, one fetch at a time, and no burst of requests."""
    run(seed, days=90)


def caught(guard_tick: bool = True) -> bool:
    for seed in range(8):
        try:
            run(seed, 90, guard_tick)
        except AssertionError:
            return True
    return False


def test_an_agent_that_forgets_about_sleep_is_caught() -> None:
    """Without the guard tick after a wake-up the promise breaks, and the simulator sees it."""
    assert caught(guard_tick=False)


def test_an_agent_that_refreshes_late_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that waits for the end of life breaks the promise."""

    def late(credential: Credential, received: datetime, previous_end: datetime | None, roll: float) -> datetime:
        assert credential.expires_at is not None
        return credential.expires_at - timedelta(seconds=60)

    monkeypatch.setattr(policy, "refresh_at", late)
    assert caught()


def test_an_agent_that_keeps_the_dead_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that outlives its token is seen."""

    def wanted(self: Agent, sink: Sink, now: datetime) -> tuple[Entry, ...]:
        held = {index.host: self.leases[index.request].credential for index in self.indexes}
        return tuple(Entry(host, one.login, one.password) for host, one in sorted(held.items()) if one is not None)

    monkeypatch.setattr(Agent, "_wanted", wanted)
    assert caught()


def test_an_agent_that_never_backs_off_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage must not become a burst of requests."""
    monkeypatch.setattr(policy, "backoff", lambda *_: 1.0)
    assert caught()
