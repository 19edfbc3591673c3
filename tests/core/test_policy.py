"""The computation of refresh times, compared with the promise: 30 minutes of a one-hour token, 4 hours of a 12-hour
one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import policy
from uvtokend.core.model import Credential, Failure, Secret

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
ROLLS = st.floats(0, 1, exclude_max=True)
LIVES = st.floats(2, 90 * 86400)


def credential(life: float | None, issued: datetime = NOW, refresh_after: float | None = None) -> Credential:
    end = None if life is None else issued + timedelta(seconds=life)
    wish = None if refresh_after is None else issued + timedelta(seconds=refresh_after)
    return Credential("aws", Secret("token"), issued, end, wish)


def seconds(time: datetime) -> float:
    return (time - NOW).total_seconds()


@pytest.mark.parametrize(
    ("life", "promised"),
    [(3600, 1800), (7200, 3600), (12 * 3600, 4 * 3600), (24 * 3600, 8 * 3600), (900, 450)],
)
@pytest.mark.parametrize("roll", [0.0, 0.5, 0.999])
def test_promise_of_the_usual_lives(life: float, promised: float, roll: float) -> None:
    """A uv that starts up to a second after the refresh is due still finds the promised life."""
    token = credential(life)
    due = policy.refresh_at(token, NOW, None, roll)
    assert life - seconds(due) >= promised + 1
    assert policy.min_life(token, due) == pytest.approx(promised)


@given(LIVES, ROLLS)
def test_jitter_only_makes_the_refresh_slightly_earlier(life: float, roll: float) -> None:
    """Jitter makes the refresh earlier by at most 1/20 of the life, unless the token is too short-lived."""
    due = seconds(policy.refresh_at(credential(life), NOW, None, roll))
    fraction = 1 / 2 if life <= 7200 else 2 / 3
    assert due <= max(life * fraction, 1.0)
    assert due >= min(life * (fraction - 1 / 20), life) - 1e-3 or due == pytest.approx(min(30, life / 4), abs=1e-3)


@given(LIVES, ROLLS, st.floats(0, 1), st.booleans())
def test_never_a_hot_loop_and_never_past_the_end(life: float, roll: float, spent: float, cached: bool) -> None:
    """Whatever the issuer returns, the next fetch is at least a second away and no later than the expiry."""
    received = NOW + timedelta(seconds=life * spent)
    token = credential(life)
    due = policy.refresh_at(token, received, token if cached else None, roll)
    assert due >= received + timedelta(seconds=1)
    assert token.expires_at is not None
    assert due <= max(token.expires_at, received + timedelta(seconds=1))


def test_the_issuers_refresh_time_is_used() -> None:
    """The issuer's `refresh_after` replaces our fraction of the life, but not the minimum interval."""
    assert seconds(policy.refresh_at(credential(86400, refresh_after=43200), NOW, None, 0.5)) == 43200
    assert seconds(policy.refresh_at(credential(86400, refresh_after=1), NOW, None, 0.5)) == 30


def test_a_caching_issuer_is_asked_until_it_renews() -> None:
    """If a fetch returns the same token, the next is halfway to its expiry, then just within the last 5 minutes,
    without a loop."""
    token = credential(3600)
    times = []
    at = 1800.0
    while at < 3590:
        times.append(at)
        at = seconds(policy.refresh_at(token, NOW + timedelta(seconds=at), token, 0.5))
    assert times[:4] == [1800, 2700, 3150, 3330]
    assert len(times) <= 8
    assert min(after - before for before, after in pairwise(times)) >= 30
    assert seconds(policy.refresh_at(token, NOW + timedelta(seconds=3330), token, 0.5)) == 3330 + 135


def test_a_relative_expiry_may_vary_a_little() -> None:
    """If the issuer gives the expiry in seconds from now, it varies a little; the token still counts as the same
    cached one."""
    token, received = credential(3600), NOW + timedelta(seconds=1800)
    for late in (-9.0, 0.3, 9.0):
        before = replace(token, expires_at=NOW + timedelta(seconds=3600 + late))
        assert seconds(policy.refresh_at(token, received, before, 0.5)) == 2700
    renewed = NOW + timedelta(seconds=1800)
    assert seconds(policy.refresh_at(credential(3600, renewed), renewed, token, 0.5)) == 1800 + 3600 * 0.4625


def test_a_token_that_arrives_past_its_refresh() -> None:
    """If the issuer's clock is behind, a new token seems half used. It is refreshed halfway to its expiry, not every
    30 s."""
    received = NOW + timedelta(seconds=2400)
    assert seconds(policy.refresh_at(credential(3600), received, None, 0.5)) == 3000
    for wish in (2000, 2400):  # before it came in, or at that very moment
        assert seconds(policy.refresh_at(credential(3600, refresh_after=wish), received, None, 0.5)) == 3000


def test_a_secret_without_an_expiry_is_read_every_half_hour() -> None:
    """A secret without an expiry is read again after 30 minutes less jitter, and promises nothing."""
    assert seconds(policy.refresh_at(credential(None), NOW, None, 0.0)) == 1800
    assert 1700 < seconds(policy.refresh_at(credential(None), NOW, None, 0.999)) < 1800
    assert policy.min_life(credential(None), NOW) is None


@pytest.mark.parametrize(
    ("failures", "reason", "urgent", "ceiling"),
    [
        (1, "throttled", True, 5),
        (4, "throttled", False, 40),
        (30, "throttled", False, 300),
        (30, "throttled", True, 25),
        (30, "unreachable", False, 25),
        (5000, "timeout", False, 25),
        (30, "deadline", True, 25),
    ],
)
def test_back_off_doubles_up_to_its_cap(failures: int, reason: str, urgent: bool, ceiling: float) -> None:
    """The back-off starts at 5 s and doubles. It is at most 25 s if the promise is at risk or nothing answered,
    otherwise 5 minutes."""
    failure = Failure("transient", reason, "…")
    assert policy.backoff(failures, failure, urgent, 0.9999999) == pytest.approx(ceiling)
    assert policy.backoff(failures, failure, urgent, 0.0) == 1


def test_a_retry_after_is_obeyed_up_to_an_hour() -> None:
    """The issuer's Retry-After is obeyed up to an hour, plus jitter."""
    for asked, waited in ((120.0, 120.0), (0.0, 1.0), (1e9, 3600.0)):
        failure = Failure("transient", "throttled", "…", retry_after=asked)
        assert policy.backoff(1, failure, True, 0.0) == waited
        assert policy.backoff(1, failure, True, 0.9) == pytest.approx(waited + 4.5)


@given(ROLLS)
def test_a_blocked_lease_is_probed_every_five_minutes(roll: float) -> None:
    """A blocked lease is probed every 5 minutes, with a little jitter."""
    assert 285 <= policy.probe(roll) <= 300


@given(LIVES, ROLLS, st.booleans())
def test_a_static_secret_is_read_every_half_hour(life: float, roll: float, same: bool) -> None:
    """A secret that only a person renews may be replaced long before its expiry, so it is read again every 30
    minutes."""
    static = replace(credential(life), renew="put a new one there")
    due = seconds(policy.refresh_at(static, NOW, static if same else None, roll))
    assert due == pytest.approx(min(1800 * (1 - roll / 20), life), abs=1e-3)


def test_an_early_forced_refresh_returns_a_new_token() -> None:
    """A token with another text and expiry, fetched seconds after the previous one, is new and has the full promise."""
    first = credential(3600)
    forced = replace(credential(3600, NOW + timedelta(seconds=5)), password=Secret("another"))
    assert not policy.is_same(forced, first)
    assert policy.min_life(forced, policy.refresh_at(forced, forced.issued_at, first, 0.5)) == 1800
    assert policy.is_same(replace(forced, password=first.password), first)
    assert policy.is_same(replace(forced, expires_at=first.expires_at), first)  # its session ends then
    assert not policy.is_same(credential(None), first)
    assert not policy.is_same(first, None)
    assert not policy.is_same(first, credential(None))


def test_a_late_refresh_time_is_limited() -> None:
    """If the issuer's refresh time is shortly before the expiry, the refresh is 270 s before the expiry, and the
    promise is reduced."""
    token = credential(3600, refresh_after=3599)
    due = policy.refresh_at(token, NOW, None, 0.5)
    assert (seconds(due), policy.min_life(token, due)) == (3330, 240)
    short = credential(200, refresh_after=199)
    assert seconds(policy.refresh_at(short, NOW, None, 0.5)) == pytest.approx(200 * 0.4625)


@pytest.mark.parametrize(("left", "limit"), [(None, None), (0.0, 20.0), (30.0, 20.0), (100.0, 90.0)])
def test_a_fetch_has_20_s_while_the_promise_is_at_risk(left: float | None, limit: float | None) -> None:
    """A fetch that hangs must end early enough for another attempt before the promise is broken."""
    assert policy.fetch_limit(left) == limit


def test_equal_expiries_of_short_lived_tokens() -> None:
    """Two expiries count as equal if they differ by at most an eighth of the life; for 16 s, 3 s is too much."""
    first = Credential("aws", Secret("t"), NOW, NOW + timedelta(seconds=16))
    assert not policy.is_same(Credential("aws", Secret("t"), NOW, NOW + timedelta(seconds=19)), first)
    assert policy.is_same(Credential("aws", Secret("t"), NOW, NOW + timedelta(seconds=17)), first)


@pytest.mark.parametrize(("life", "apart", "same"), [(40, 5.0, True), (40, 5.01, False), (3600, 10.0, True)])
def test_near_expiries_count_as_equal(life: float, apart: float, same: bool) -> None:
    """Expiries count as equal if they differ by at most 10 s, or an eighth of the life if that is less, bounds
    included."""
    start = datetime(2026, 1, 31, tzinfo=UTC)
    one = Credential("u", Secret("t"), start, start + timedelta(seconds=life))
    moved = timedelta(seconds=apart)
    other = replace(one, issued_at=start + moved, expires_at=start + timedelta(seconds=life) + moved)
    assert policy.is_same(other, one) == same


@pytest.mark.parametrize(("skew", "behind"), [(None, 0), (60.0, 0), (-60.0, 60)])
def test_the_issuers_times_are_moved_to_the_daemons_clock(skew: float | None, behind: int) -> None:
    """uvtokend moves an issuer's times by as much as the wall clock is ahead of its own; a right wall-clock end
    stays. If the issuer's answer shows that the wall clock is behind, that end is moved by the difference."""
    ahead, hour = timedelta(hours=5), timedelta(hours=1)
    wall = NOW + ahead
    fetched = replace(credential(7200, wall - hour, 5400), skew=skew)
    moved = policy.on_our_clock(fetched, ahead, NOW)
    assert (moved.issued_at, moved.expires_at, moved.refresh_after) == (NOW - hour, NOW + hour, NOW + hour / 2)
    assert moved.wall_end == wall + hour + timedelta(seconds=behind)


def test_an_issuer_whose_clock_is_ahead_issued_no_token_in_the_future() -> None:
    """If the issuer's clock is ahead, its token counts as issued now. A token without an end or a refresh advice
    gets none."""
    moved = policy.on_our_clock(credential(None, NOW + timedelta(minutes=9)), timedelta(), NOW)
    assert moved.issued_at == NOW
    assert (moved.expires_at, moved.refresh_after, moved.wall_end) == (None, None, None)


def test_an_expired_static_secret_is_read_again_after_a_second() -> None:
    """Only a person can renew a static secret and may have done so already, so uvtokend reads it again after 1 s."""
    static = replace(credential(60), renew="put a new one there")
    for late in (60, 61, 3600):
        received = NOW + timedelta(seconds=late)
        assert policy.refresh_at(static, received, None, 0.5) == received + timedelta(seconds=1)


@pytest.mark.parametrize(("life", "shortest"), [(2, 1.0), (4, 1.0), (40, 10.0), (120, 30.0), (3600, 30.0)])
def test_the_shortest_time_between_two_fetches(life: float, shortest: float) -> None:
    """Two fetches are at least a quarter of the token's life apart, between 1 and 30 s, even if the issuer advises
    less."""
    assert seconds(policy.refresh_at(credential(life, refresh_after=0.5), NOW, None, 0.5)) == shortest


@pytest.mark.parametrize(
    ("life", "planned", "promised"), [(400, 200, 190), (400, 400, 0), (400, 300, 90), (40, 20, 19)]
)
def test_the_promised_life_is_shortened_by_a_fetch(life: float, planned: float, promised: float) -> None:
    """The promised life is the time between the planned refresh and the end, less a fortieth of the life (at most 30
    s), and never negative."""
    assert policy.min_life(credential(life), NOW + timedelta(seconds=planned)) == promised


@pytest.mark.parametrize(("spent", "longest"), [(0.0, 25.0), (10.0, 15.0), (24.5, 1.0), (100.0, 1.0)])
def test_the_time_of_a_failed_fetch_shortens_the_back_off(spent: float, longest: float) -> None:
    """Urgent fetches begin at most 25 s apart, so the duration of the failed one is subtracted. The wait is at least
    1 s."""
    failure = Failure("transient", "throttled", "…")
    assert policy.backoff(9, failure, True, 1.0, spent) == longest
    assert policy.backoff(9, failure, False, 1.0, spent) == 300


def test_a_token_without_an_end_is_neither_the_same_nor_in_doubt() -> None:
    """A missing token, or one without a known end, is not the same as another and is never in doubt."""
    token = credential(3600)
    for one, other in ((credential(None), token), (token, None), (token, credential(None))):
        assert policy.is_same(one, other) is False
    for known in (None, credential(None), token):
        assert policy.doubt(known, timedelta(days=1)) == timedelta()
    paused = replace(token, wall_end=token.expires_at)
    assert [policy.doubt(paused, timedelta(seconds=shift)) for shift in (-31, 30, 31)] == [
        timedelta(),
        timedelta(),
        timedelta(seconds=31),
    ]


@pytest.mark.parametrize(("life", "promised"), [(7200, 3600.0), (7200.5, 2400.2), (10800, 3600.0)])
def test_a_life_of_more_than_two_hours_is_a_long_one(life: float, promised: float) -> None:
    """The daemon promises half of a life of up to two hours, and a third of a longer one."""
    assert policy.min_life(credential(life), NOW) == pytest.approx(promised, abs=0.1)


def test_a_cached_token_promises_no_more_than_its_issuers_window() -> None:
    """The promise of a cached token is limited to its issuer's window. Any other token promises part of its whole
    life."""
    token = credential(86400)
    due = NOW + timedelta(hours=12)
    assert policy.min_life(token, due) == pytest.approx(28800)
    assert policy.min_life(token, due, cached=True) == 240
