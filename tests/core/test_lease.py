"""The state table of a lease, row by row."""

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


def test_a_synchronized_wall_clock_may_only_shorten_a_token() -> None:
    """The wall clock moves the expiry only to an earlier time, and only by more than 30 s. It does not apply during
    a fetch or to a secret without an expiry."""
    lease = leases.fetched(FETCHING, replace(token(), wall_end=after(3600)), NOW, 0.5)
    for shift, end in ((0, 3600), (-7200, 3600), (30, 3600), (31, 3569), (1800, 1800), (7200, -3600)):
        judged = leases.judged(lease, timedelta(seconds=shift))
        assert judged.credential is not None
        assert judged.credential.expires_at == after(end)
        assert (judged.min_life, judged.act_at) == (lease.min_life, lease.act_at)
        assert judged.promised_until == after(end - 1800)
        assert leases.judged(judged, timedelta(seconds=shift)) == judged
    unlimited = leases.fetched(FETCHING, token(None), NOW, 0.5)
    for stays in (unlimited, FETCHING, HOLDING, leases.ask(lease, NOW)):
        assert leases.judged(stays, timedelta(hours=1)) == stays


def test_after_a_clock_step_a_new_token_is_not_taken_for_the_old_one() -> None:
    """Because of a clock step, the old token seems to expire together with the new one, which is still refreshed at
    half its life. Without the step, both would belong to a session that ends then."""
    early = replace(token(4500), password=Secret("old"))
    new = replace(token(), issued_at=after(895), expires_at=after(4495))
    for stepped in (True, False):
        lease = leases.fetched(FETCHING, early, NOW, 0.5)
        lease = leases.ask(leases.woke(lease, after(895)) if stepped else lease, after(895))
        planned = leases.fetched(lease, new, after(895), 0.0)
        assert (planned.refresh_at == after(895 + 1800 - 90), planned.cached) == (stepped, not stepped)


def test_every_state_leads_to_a_fetch() -> None:
    """Every state has a step to a fetch, so no lease can get stuck."""
    assert {state for state, step in TABLE if step == "ask"} == set(get_args(State))
    assert {TABLE[state, "ask"] for state in get_args(State)} == {"fetching"}


def test_only_a_fetching_lease_accepts_an_answer() -> None:
    """An answer in any other state is a programming error and raises KeyError."""
    for state in ("waiting", "retrying", "blocked"):
        with pytest.raises(KeyError):
            leases.fetched(Lease(REQUEST, state), token(), NOW, 0.5)
        with pytest.raises(KeyError):
            leases.failed(Lease(REQUEST, state), TRANSIENT, NOW, 0.5)


def test_success_forgets_failures() -> None:
    """After a successful fetch the lease waits for its refresh and has no failures."""
    tried = leases.ask(leases.failed(FETCHING, TRANSIENT, NOW, 0.5), NOW)
    good = leases.fetched(tried, token(), NOW, 0.5)
    assert (good.state, good.failures, good.last_failure) == ("waiting", 0, None)
    assert good.act_at == good.refresh_at
    assert good.act_at is not None
    assert NOW < good.act_at < after(1800)


@pytest.mark.parametrize(("failure", "state"), [(TRANSIENT, "retrying"), (LOGIN, "blocked"), (REJECTED, "blocked")])
def test_a_failure_never_drops_a_valid_credential(failure: Failure, state: State) -> None:
    """A failed fetch never drops a token that is still valid."""
    failed = leases.failed(leases.ask(HOLDING, after(1800)), failure, after(1800), 0.5)
    assert failed.state == state
    assert failed.valid(after(1801)) == token()
    assert (failed.failures, failed.last_failure, failed.failed_at) == (1, failure, after(1800))


def test_an_expiring_token_makes_the_next_attempt_urgent() -> None:
    """A wait that would outlast the token ends at its expiry, unless the issuer asked for the wait."""
    failed = leases.failed(leases.ask(HOLDING, after(1800)), LOGIN, after(3590), 0.0)
    assert failed.act_at == after(3600)
    obeying = leases.failed(
        leases.ask(HOLDING, after(1800)), Failure("transient", "throttled", "…", None, 60), after(3590), 0.0
    )
    assert obeying.act_at == after(3650)


@pytest.mark.parametrize(
    ("at", "health"), [(0, "fresh"), (1600, "fresh"), (1800, "stale"), (3599, "stale"), (3600, "expired")]
)
def test_the_health_of_a_token(at: float, health: str) -> None:
    """A token is fresh until its refresh is due, then stale, and expired after its expiry."""
    assert HOLDING.health(after(at)) == health
    assert (HOLDING.valid(after(at)) is None) == (health == "expired")


def test_the_health_without_a_token_or_an_expiry() -> None:
    """Without a token the health is `none`; a token without an expiry never expires."""
    assert FETCHING.health(NOW) == "none"
    unlimited = leases.fetched(FETCHING, token(None), NOW, 0.5)
    assert unlimited.health(after(10**9)) == "stale"
    assert leases.failed(leases.ask(unlimited, after(1800)), TRANSIENT, NOW, 0.5).valid(after(10**9)) is not None


def test_a_sign_in_retries_blocked_and_retrying_leases() -> None:
    """After a sign-in, blocked and retrying leases fetch at once, unless the issuer asked for a wait. Others are
    unchanged."""
    blocked = leases.failed(FETCHING, LOGIN, NOW, 0.5)
    assert leases.login_changed(blocked, after(7)).act_at == after(7)
    retrying = leases.failed(FETCHING, TRANSIENT, NOW, 0.5)
    assert leases.login_changed(retrying, after(7)).act_at == after(7)
    obeying = leases.failed(FETCHING, Failure("transient", "throttled", "…", None, 600), NOW, 0.5)
    for lease in (HOLDING, FETCHING, obeying):
        assert leases.login_changed(lease, after(7)) == lease


def test_the_first_failure_after_a_wake_up_is_retried() -> None:
    """After the machine slept, a failure that needs a person is retried once before the lease is blocked."""
    woken = leases.ask(leases.woke(HOLDING, after(1800)), after(1800))
    first = leases.failed(woken, LOGIN, after(1801), 0.5)
    assert first.state == "retrying"
    second = leases.failed(leases.ask(first, after(1800)), LOGIN, after(1805), 0.5)
    assert second.state == "blocked"
    again = leases.woke(second, after(9000))
    assert (again.act_at, again.failures, again.lenient) == (after(9000), 0, True)


def test_a_wake_up_does_not_shorten_a_retry_after() -> None:
    """Neither a wake-up nor the return of the network ends the wait that an issuer asked for."""
    obeying = leases.failed(FETCHING, Failure("transient", "unreachable", "…", None, 600), NOW, 0.0)
    assert obeying.obeys
    assert leases.woke(obeying, after(9)).act_at == leases.network_returned(obeying, after(9)).act_at == after(600)


def test_the_return_of_the_network_retries_unanswered_fetches() -> None:
    """When the network returns, a lease without an answer retries at once and leniently. One that was answered keeps
    its back-off."""
    unanswered = leases.failed(FETCHING, Failure("transient", "unreachable", "…"), NOW, 0.9)
    answered = leases.failed(FETCHING, Failure("transient", "server-error", "…"), NOW, 0.9)
    tried = leases.network_returned(unanswered, after(2))
    assert (tried.act_at, tried.failures, tried.lenient) == (after(2), 0, True)
    assert leases.network_returned(answered, after(2)) == answered
    assert leases.network_returned(HOLDING, after(2)) == HOLDING


def test_the_network_restarts_a_fetch_only_once() -> None:
    """An unstable network restarts a fetch only once, so that it can end. The next fetch may be restarted again."""
    first = leases.network_returned(FETCHING, after(3))
    assert (first.began_at, first.restarted) == (after(3), True)
    assert leases.network_returned(first, after(6)) == first
    assert not leases.ask(leases.failed(first, TRANSIENT, after(9), 0.5), after(20)).restarted


def test_a_hang_delays_the_next_attempt_little() -> None:
    """If the promise is broken, the next attempt begins at most 25 s after the start of one that hung for 20 s."""
    hung = leases.failed(FETCHING, Failure("transient", "deadline", "…"), after(20), 0.99)
    assert hung.act_at is not None
    assert after(21) <= hung.act_at <= after(25)


def test_the_promise_makes_the_next_attempt_urgent() -> None:
    """The wait after an issuer's error is at most 5 minutes and ends at least 30 s before the promise does."""
    error = Failure("transient", "server-error", "…")
    early = replace(leases.ask(HOLDING, after(1500)), failures=9)
    assert leases.failed(early, error, after(1500), 0.99).act_at == after(1770)
    late = leases.failed(replace(early, began_at=after(1800)), error, after(1800), 0.99)
    assert late.act_at is not None
    assert late.act_at <= after(1825)
    assert [early.promise_left(after(at)) for at in (1500, 1900, 3600)] == [300.0, 0.0, 0.0]
    assert leases.fetched(FETCHING, token(None), NOW, 0.5).promise_left(NOW) is None


def test_the_promise_of_a_lease() -> None:
    """A short-lived token promises half its life, a cached one what the issuer leaves, and a lease without a token
    nothing."""
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


def test_a_wake_up_restarts_a_fetch_in_flight() -> None:
    """After a wake-up or a return of the network, a fetch in flight counts from that time, and its failure is judged
    leniently."""
    for again in (leases.woke(FETCHING, after(3)), leases.network_returned(FETCHING, after(3))):
        assert (again.began_at, again.lenient, again.state) == (after(3), True, "fetching")
    assert not FETCHING.lenient


def test_a_secret_is_masked() -> None:
    """`str`, `repr` and format all mask a secret; only `reveal` returns it."""
    secret = Secret("hunter2")
    assert (str(secret), repr(secret), f"{secret}", f"{secret:>9}") == ("****",) * 4
    assert secret.reveal() == "hunter2"


def test_every_field_when_a_fetch_begins_and_ends() -> None:
    """A lease that is already being fetched stays as it is. After the fetch, the lease keeps when it began and
    forgets earlier failures."""
    assert Lease(REQUEST, act_at=NOW).began_at is None
    failing = Lease(REQUEST, "retrying", None, None, NOW, 3, TRANSIENT, NOW, after(-9), lenient=True, restarted=True)
    fetching = leases.ask(failing, after(1))
    assert fetching == replace(failing, state="fetching", act_at=None, began_at=after(1), restarted=False)
    assert leases.ask(fetching, after(2)) is fetching
    due = after(3600 * 0.4625)
    assert leases.fetched(fetching, token(), NOW, 0.5) == Lease(
        REQUEST, "waiting", token(), due, due, began_at=after(1), cached=False
    )


def test_a_token_is_stale_from_the_very_moment_of_its_refresh() -> None:
    """A token is fresh until its refresh is due, and stale from that moment on."""
    assert HOLDING.refresh_at is not None
    assert HOLDING.health(HOLDING.refresh_at) == "stale"
    assert HOLDING.health(HOLDING.refresh_at - timedelta(microseconds=1)) == "fresh"


@pytest.mark.parametrize(("left", "urgent"), [(30.0, True), (30.001, False)])
def test_a_failure_is_urgent_shortly_before_the_promise_ends(left: float, urgent: bool) -> None:
    """A failed fetch is retried within 25 s if the promised life ends within 30 s."""
    assert HOLDING.promised_until is not None
    fetching = leases.ask(HOLDING, HOLDING.promised_until - timedelta(seconds=left))
    failing = replace(fetching, failures=8)
    now = HOLDING.promised_until - timedelta(seconds=left)
    failed = leases.failed(failing, replace(TRANSIENT, retry_after=None), now, 0.9999999)
    assert failed.act_at is not None
    waited = (failed.act_at - now).total_seconds()
    assert waited == pytest.approx(25.0 if urgent else left - 30, abs=1e-3)


def test_a_fetch_without_a_known_beginning_took_no_time() -> None:
    """If it is unknown when a failed fetch began, the wait is as long as after a fetch that failed at once."""
    failed = leases.failed(replace(FETCHING, began_at=None, failures=8), TRANSIENT, NOW, 1.0)
    assert failed.act_at == after(25)


def test_waking_gives_every_lease_another_chance() -> None:
    """When the machine wakes, a failed lease is tried at once with its failures forgotten. A waiting lease keeps its
    plan. No lease is blocked by its next failure."""
    for state in ("blocked", "retrying"):
        failing = Lease(REQUEST, state, act_at=after(99), failures=3, last_failure=TRANSIENT, failed_at=NOW)
        assert leases.woke(failing, after(1)) == replace(failing, act_at=after(1), failures=0, lenient=True)
        assert leases.login_changed(failing, after(1)) == replace(failing, act_at=after(1))
    assert leases.woke(HOLDING, after(1)) == replace(HOLDING, lenient=True)
    assert leases.login_changed(HOLDING, after(1)) is HOLDING
    assert leases.woke(FETCHING, after(1)) == replace(FETCHING, began_at=after(1), lenient=True)
