"""One lease's table, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from uvtokend.core import lease as leases
from uvtokend.core.lease import TABLE, Lease
from uvtokend.core.model import Credential, Failure, Request, Secret, State

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
REQUEST = Request("static")
TRANSIENT = Failure("transient", "throttled", "Too many.")
LOGIN = Failure("login-required", "sso-expired", "Log in.", "aws sso login")
REJECTED = Failure("rejected", "denied", "No.")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def token(life: float | None = 3600) -> Credential:
    return Credential("aws", Secret("token"), NOW, None if life is None else after(life))


FETCHING = leases.ask(Lease(REQUEST, act_at=NOW))
HOLDING = leases.fetched(FETCHING, token(), NOW, 0.5)


def test_every_state_can_be_asked() -> None:
    """From every state there is a way into a fetch, so no lease is ever wedged."""
    assert {state for state, step in TABLE if step == "ask"} == set(get_args(State))
    assert {TABLE[state, "ask"] for state in get_args(State)} == {"fetching"}


def test_an_answer_without_a_question_is_a_mistake() -> None:
    """Only a lease that fetches can be answered."""
    for state in ("waiting", "retrying", "blocked"):
        with pytest.raises(KeyError):
            leases.fetched(Lease(REQUEST, state), token(), NOW, 0.5)
        with pytest.raises(KeyError):
            leases.failed(Lease(REQUEST, state), TRANSIENT, NOW, 0.5)


def test_success_forgets_failures() -> None:
    """A new token: waiting, planned, no failure left."""
    tried = leases.ask(leases.failed(FETCHING, TRANSIENT, NOW, 0.5))
    good = leases.fetched(tried, token(), NOW, 0.5)
    assert (good.state, good.failures, good.last_failure) == ("waiting", 0, None)
    assert good.act_at == good.refresh_at
    assert good.act_at is not None
    assert NOW < good.act_at < after(1800)


@pytest.mark.parametrize(("failure", "state"), [(TRANSIENT, "retrying"), (LOGIN, "blocked"), (REJECTED, "blocked")])
def test_a_failure_never_drops_a_valid_credential(failure: Failure, state: State) -> None:
    """Whatever fails, the token that stands keeps standing."""
    failed = leases.failed(leases.ask(HOLDING), failure, after(1800), 0.5)
    assert failed.state == state
    assert failed.valid(after(1801)) == token()
    assert (failed.failures, failed.last_failure, failed.failed_at) == (1, failure, after(1800))


def test_a_dying_token_makes_the_next_try_urgent() -> None:
    """A wait that would outlast the token is cut to its end, unless the issuer asked for the wait."""
    failed = leases.failed(leases.ask(HOLDING), LOGIN, after(3590), 0.0)
    assert failed.act_at == after(3600)
    told = leases.failed(leases.ask(HOLDING), Failure("transient", "throttled", "…", None, 60), after(3590), 0.0)
    assert told.act_at == after(3650)


@pytest.mark.parametrize(
    ("at", "health"), [(0, "fresh"), (1600, "fresh"), (1800, "stale"), (3599, "stale"), (3600, "expired")]
)
def test_health_is_what_the_token_is_worth(at: float, health: str) -> None:
    """Fresh until its refresh, stale until its end, then expired."""
    assert HOLDING.health(after(at)) == health
    assert (HOLDING.valid(after(at)) is None) == (health == "expired")


def test_health_without_a_token_or_an_end() -> None:
    """No token is none; one without a known end never expires."""
    assert FETCHING.health(NOW) == "none"
    endless = leases.fetched(FETCHING, token(None), NOW, 0.5)
    assert endless.health(after(10**9)) == "stale"
    assert leases.failed(leases.ask(endless), TRANSIENT, NOW, 0.5).valid(after(10**9)) is not None


def test_a_login_is_noticed() -> None:
    """Blocked and retrying leases fetch at once; a fetch in flight is followed by another one; waiting ones wait on."""
    blocked = leases.failed(FETCHING, LOGIN, NOW, 0.5)
    assert leases.login_changed(blocked, after(7)).act_at == after(7)
    assert leases.login_changed(HOLDING, after(7)) == HOLDING
    flying = leases.login_changed(FETCHING, NOW)
    failed = leases.failed(flying, LOGIN, NOW, 0.5)
    assert (failed.state, failed.act_at, failed.again) == ("retrying", after(1), False)
    assert not leases.fetched(flying, token(), NOW, 0.5).again


def test_after_a_wake_up_one_failure_is_no_verdict() -> None:
    """Even a failure that asks for a person is retried once after the machine slept."""
    woken = leases.ask(leases.woke(HOLDING, after(1800)))
    first = leases.failed(woken, LOGIN, after(1801), 0.5)
    assert first.state == "retrying"
    second = leases.failed(leases.ask(first), LOGIN, after(1805), 0.5)
    assert second.state == "blocked"
    again = leases.woke(second, after(9000))
    assert (again.act_at, again.failures) == (after(9000), 0)
