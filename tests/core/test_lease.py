"""One lease's table, row by row."""

from __future__ import annotations

from dataclasses import replace
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


FETCHING = leases.ask(Lease(REQUEST, act_at=NOW), NOW)
HOLDING = leases.fetched(FETCHING, token(), NOW, 0.5)


def test_a_wall_clock_that_is_right_ends_a_token_earlier_and_never_later() -> None:
    """Only an end that differs by more than 30 s counts, none is judged while a fetch is under way, and a secret
    without a known end has none on the wall clock either."""
    lease = leases.fetched(FETCHING, replace(token(), wall_end=after(3600)), NOW, 0.5)
    for shift, end in ((0, 3600), (-7200, 3600), (30, 3600), (31, 3569), (1800, 1800), (7200, -3600)):
        judged = leases.judged(lease, timedelta(seconds=shift))
        assert judged.credential is not None
        assert judged.credential.expires_at == after(end)
        assert (judged.min_life, judged.act_at) == (lease.min_life, lease.act_at)
        assert judged.promised_until == after(end - 1800)
        assert leases.judged(judged, timedelta(seconds=shift)) == judged
    endless = leases.fetched(FETCHING, token(None), NOW, 0.5)
    for stays in (endless, FETCHING, HOLDING, leases.ask(lease, NOW)):
        assert leases.judged(stays, timedelta(hours=1)) == stays


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
    tried = leases.ask(leases.failed(FETCHING, TRANSIENT, NOW, 0.5), NOW)
    good = leases.fetched(tried, token(), NOW, 0.5)
    assert (good.state, good.failures, good.last_failure) == ("waiting", 0, None)
    assert good.act_at == good.refresh_at
    assert good.act_at is not None
    assert NOW < good.act_at < after(1800)


@pytest.mark.parametrize(("failure", "state"), [(TRANSIENT, "retrying"), (LOGIN, "blocked"), (REJECTED, "blocked")])
def test_a_failure_never_drops_a_valid_credential(failure: Failure, state: State) -> None:
    """Whatever fails, the current token stays."""
    failed = leases.failed(leases.ask(HOLDING, after(1800)), failure, after(1800), 0.5)
    assert failed.state == state
    assert failed.valid(after(1801)) == token()
    assert (failed.failures, failed.last_failure, failed.failed_at) == (1, failure, after(1800))


def test_a_dying_token_makes_the_next_try_urgent() -> None:
    """A wait that would outlast the token is cut to its end, unless the issuer asked for the wait."""
    failed = leases.failed(leases.ask(HOLDING, after(1800)), LOGIN, after(3590), 0.0)
    assert failed.act_at == after(3600)
    told = leases.failed(
        leases.ask(HOLDING, after(1800)), Failure("transient", "throttled", "…", None, 60), after(3590), 0.0
    )
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
    assert leases.failed(leases.ask(endless, after(1800)), TRANSIENT, NOW, 0.5).valid(after(10**9)) is not None


def test_a_login_is_noticed() -> None:
    """Blocked and retrying leases fetch at once, unless the issuer asked for a wait; the others continue."""
    blocked = leases.failed(FETCHING, LOGIN, NOW, 0.5)
    assert leases.login_changed(blocked, after(7)).act_at == after(7)
    retrying = leases.failed(FETCHING, TRANSIENT, NOW, 0.5)
    assert leases.login_changed(retrying, after(7)).act_at == after(7)
    told = leases.failed(FETCHING, Failure("transient", "throttled", "…", None, 600), NOW, 0.5)
    for lease in (HOLDING, FETCHING, told):
        assert leases.login_changed(lease, after(7)) == lease


def test_after_a_wake_up_one_failure_is_no_verdict() -> None:
    """Even a failure that asks for a person is retried once after the machine slept."""
    woken = leases.ask(leases.woke(HOLDING, after(1800)), after(1800))
    first = leases.failed(woken, LOGIN, after(1801), 0.5)
    assert first.state == "retrying"
    second = leases.failed(leases.ask(first, after(1800)), LOGIN, after(1805), 0.5)
    assert second.state == "blocked"
    again = leases.woke(second, after(9000))
    assert (again.act_at, again.failures, again.lenient) == (after(9000), 0, True)


def test_a_wake_up_or_the_networks_return_wins_over_no_retry_after() -> None:
    """The issuer asked for a wait, and a sleep or a new address is no reason to ask it sooner."""
    told = leases.failed(FETCHING, Failure("transient", "unreachable", "…", None, 600), NOW, 0.0)
    assert told.obeys
    assert leases.woke(told, after(9)).act_at == leases.network_returned(told, after(9)).act_at == after(600)


def test_the_networks_return_ends_the_waiting_for_nobody() -> None:
    """A lease that nobody answered tries at once and is judged mildly; one that was answered keeps its back-off."""
    unanswered = leases.failed(FETCHING, Failure("transient", "unreachable", "…"), NOW, 0.9)
    answered = leases.failed(FETCHING, Failure("transient", "server-error", "…"), NOW, 0.9)
    tried = leases.network_returned(unanswered, after(2))
    assert (tried.act_at, tried.failures, tried.lenient) == (after(2), 0, True)
    assert leases.network_returned(answered, after(2)) == answered
    assert leases.network_returned(HOLDING, after(2)) == HOLDING


def test_a_fetch_is_started_again_for_the_network_only_once() -> None:
    """A network that comes and goes must not keep a fetch from ending; the next fetch may be started again, too."""
    first = leases.network_returned(FETCHING, after(3))
    assert (first.began_at, first.restarted) == (after(3), True)
    assert leases.network_returned(first, after(6)) == first
    assert not leases.ask(leases.failed(first, TRANSIENT, after(9), 0.5), after(20)).restarted


def test_a_hang_costs_no_more_than_its_share() -> None:
    """Without the promised life, the next try begins at most 25 s after the beginning of one that hung for 20 s."""
    hung = leases.failed(FETCHING, Failure("transient", "deadline", "…"), after(20), 0.99)
    assert hung.act_at is not None
    assert after(21) <= hung.act_at <= after(25)


def test_the_promise_makes_the_next_try_urgent() -> None:
    """An error of the issuer's waits up to 5 minutes, but not into the last half minute before the promise ends."""
    error = Failure("transient", "server-error", "…")
    early = replace(leases.ask(HOLDING, after(1500)), failures=9)
    assert leases.failed(early, error, after(1500), 0.99).act_at == after(1770)
    late = leases.failed(replace(early, began_at=after(1800)), error, after(1800), 0.99)
    assert late.act_at is not None
    assert late.act_at <= after(1825)
    assert [early.promise_left(after(at)) for at in (1500, 1900, 3600)] == [300.0, 0.0, 0.0]
    assert leases.fetched(FETCHING, token(None), NOW, 0.5).promise_left(NOW) is None


def test_what_a_lease_promises() -> None:
    """Half of a short life; what an issuer leaves that issues one token twice; nothing known without a token."""
    assert (FETCHING.min_life, FETCHING.promised_until, FETCHING.life) == (None, None, (None, None))
    assert (HOLDING.min_life, HOLDING.promised_until) == (1800, after(1800))
    cached = leases.fetched(leases.ask(HOLDING, after(1700)), token(), after(1700), 0.5)
    assert (cached.cached, cached.min_life) == (True, 240)
    assert leases.fetched(FETCHING, token(None), NOW, 0.5).promised_until is None


def test_when_a_lease_wants_to_act() -> None:
    """A lease wants to act at its refresh, and when its token expires."""
    assert HOLDING.next_at(NOW) == HOLDING.refresh_at
    assert leases.ask(HOLDING, after(1700)).next_at(after(1700)) == after(3600)
    assert FETCHING.next_at(NOW) is None


def test_a_fetch_in_flight_begins_anew_after_a_wake_up() -> None:
    """Its back-off counts from then, and its failure is no verdict; so for the network's return."""
    for again in (leases.woke(FETCHING, after(3)), leases.network_returned(FETCHING, after(3))):
        assert (again.began_at, again.lenient, again.state) == (after(3), True, "fetching")
    assert not FETCHING.lenient


def test_a_secret_shows_nothing_of_itself() -> None:
    """Neither as text, nor in a format, nor in the repr of what holds it."""
    secret = Secret("hunter2")
    assert (str(secret), repr(secret), f"{secret}", f"{secret:>9}") == ("****",) * 4
    assert secret.reveal() == "hunter2"
