"""All arithmetic on time: when to refresh, how long to back off, what life is promised.

The rules, in prose:

* A token is refreshed at 1/2 of a life of up to two hours and at 2/3 of a longer one, a little earlier by jitter (1/40
  to 1/20 of its life), so that a uv that starts at any moment finds at least 30 minutes of a one-hour token and 4 hours
  of a twelve-hour one. The issuer's own `refresh_after` wins, unless it would leave less than the issuer window (270 s)
  of a longer life.
* An issuer that returns cached tokens (metadata servers, ``az``, ``gcloud``) answers with the same end of life, or
  nearly the same if it returns the seconds that are left. That is success: we ask again halfway, and at the latest just
  inside the window in which such issuers renew (Google's metadata server and MSAL: 5 minutes before the end; we take
  4.5). The same holds for a token that arrives when its refresh is already past, because it was cached or a clock is
  wrong. A different token that expires later is a new one, even if a person asked for it seconds after the last one.
* An issuer is never asked again within 30 s, or a quarter of the token's life if that is less.
* A secret without a known end, or one that only a person renews, is read again every 30 minutes, in case it was
  replaced.
* The promised life is the life that the next refresh leaves, less the time that a fetch may take (1/40 of the life, at
  most 30 s): 1/2 or 1/3 of the life, or less if the issuer allows less.
* Back-off is 5 s doubling with full jitter, capped at 25 s from the beginning of one try to the next while less than
  the promised life is left or the issuer does not answer at all, else at 5 minutes. It is 25 s so that a failed try and
  the next fetch fit into 30 s. The issuer's ``Retry-After`` wins, up to an hour.
* While less than the promised life is left, or will be in half a minute, one fetch gets at most 20 s: a try that hangs
  must not use up the 30 s.
* A blocked lease is probed every 5 minutes, because a person may have fixed the cause.

All times are aware UTC datetimes, all durations seconds. `roll` is a dice roll in [0, 1), made once by the caller.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from uvtokend.core.model import Credential, Failure

LONG_LIFE = 2 * 3600.0
MIN_INTERVAL = 30.0
HARD_INTERVAL = 1.0
ISSUER_WINDOW = 270.0
#: A wall clock that differs by less from what was expected was not set.
DOUBT = timedelta(seconds=30)
#: Two ends of life count as the same if they differ by no more than this, or an eighth of the life if that is less.
SAME_END = 10.0
REREAD = 30 * 60.0
BACKOFF_BASE = 5.0
BACKOFF_CAP = 300.0
BACKOFF_CAP_URGENT = 25.0
RETRY_AFTER_CAP = 3600.0
BLOCKED_PROBE = 300.0
#: How long a fetch may take while less than the promised life is left.
FETCH_URGENT = 20.0
#: How long before the promised life ends the next try becomes urgent: time for a try that hangs and one that works.
MARGIN = 30.0
#: Failures without any answer: the network is down and may return at any moment. A worker that hung until its deadline
#: got no answer, either.
NOBODY_ANSWERED = frozenset({"unreachable", "timeout", "deadline"})


def refresh_at(credential: Credential, received: datetime, previous: Credential | None, roll: float) -> datetime:
    """Return when to refresh a credential.

    Args:
        credential: The issuer's credential.
        received: When it was received.
        previous: The credential that the new one replaces.
        roll: The dice roll of this credential.
    """
    end = credential.expires_at
    again = received + _seconds(REREAD * (1 - roll / 20))
    if end is None:
        return again
    if credential.renew is not None:
        return max(min(again, end), received + _seconds(HARD_INTERVAL))
    life = (end - credential.issued_at).total_seconds()
    earliest = received + _seconds(max(HARD_INTERVAL, min(MIN_INTERVAL, life / 4)))
    own = credential.issued_at + _seconds(life * (_fraction(life) - (1 + roll) / 40))
    due = own
    if credential.refresh_after is not None:
        due = min(credential.refresh_after, max(own, end - _seconds(ISSUER_WINDOW)))
    if due <= received or is_same(credential, previous):
        due = _ask_cache_again(end, received)
    return max(min(max(due, earliest), end), received + _seconds(HARD_INTERVAL))


def is_same(credential: Credential, previous: Credential | None) -> bool:
    """Return whether an issuer answered with no more life than before, as with a cached token or a bounded session.

    Args:
        credential: The issuer's credential.
        previous: The credential before it, if there was one.
    """
    end = credential.expires_at
    if end is None or previous is None or previous.expires_at is None:
        return False
    life = (end - credential.issued_at).total_seconds()
    near = abs(end - previous.expires_at) <= _seconds(min(SAME_END, life / 8))
    return near and (credential.password == previous.password or end <= previous.expires_at)


def min_life(credential: Credential, planned: datetime, cached: bool = False) -> float | None:
    """Return the seconds of life promised to every uv that starts, or None if the token has no known end.

    Args:
        credential: The current credential.
        planned: The time of the next refresh.
        cached: The issuer has returned the same token twice, so the next refresh may bring no more life.
    """
    if credential.expires_at is None:
        return None
    life = (credential.expires_at - credential.issued_at).total_seconds()
    left = (credential.expires_at - planned).total_seconds()
    at_fetch = min(left, ISSUER_WINDOW) if cached else left
    return max(0.0, min(life * (1 - _fraction(life)), at_fetch - min(MARGIN, life / 40)))


def on_our_clock(credential: Credential, shift: timedelta, now: datetime) -> Credential:
    """Return a credential with the issuer's times moved from the wall clock to the daemon's clock.

    A wall clock that is behind, as the issuer's answer showed, is right once somebody sets it.

    Args:
        credential: As the worker returned it.
        shift: The difference between the wall clock and the daemon's own.
        now: Aware UTC, on the daemon's clock.
    """
    end, behind = credential.expires_at, min(0.0, credential.skew or 0.0)
    return replace(
        credential,
        wall_end=None if end is None else end - timedelta(seconds=behind),
        issued_at=min(credential.issued_at - shift, now),
        expires_at=None if end is None else end - shift,
        refresh_after=None if credential.refresh_after is None else credential.refresh_after - shift,
    )


def doubt(credential: Credential | None, shift: timedelta) -> timedelta:
    """Return how much earlier a credential expires according to the wall clock than we believe.

    If the machine was paused from outside, our clock stood still, and the wall clock is right. If a person or a time
    service has set the clock, ours is. So this counts only where the wall clock is known to be right.

    Args:
        credential: The credential; None for none.
        shift: The difference between the wall clock and the daemon's own.
    """
    if credential is None or credential.expires_at is None or credential.wall_end is None:
        return timedelta()
    doubt = credential.expires_at - (credential.wall_end - shift)
    return doubt if doubt > DOUBT else timedelta()


def fetch_limit(left: float | None) -> float | None:
    """Return the seconds that a fetch may take, or None for as long as the configuration allows.

    Args:
        left: Seconds until less than the promised life is left; 0 if it is so now, None if it never is.
    """
    return None if left is None else max(FETCH_URGENT, left - MARGIN + FETCH_URGENT)


def backoff(failures: int, failure: Failure, urgent: bool, roll: float, spent: float = 0.0) -> float:
    """Return the seconds to wait after a transient failure.

    Args:
        failures: How many failures there have been in a row, this one included.
        failure: The failure.
        urgent: Whether less than the promised life is left, or will be within `MARGIN`.
        roll: A dice roll.
        spent: Seconds that the failed try took.
    """
    hurried = urgent or failure.reason in NOBODY_ANSWERED
    cap = max(HARD_INTERVAL, BACKOFF_CAP_URGENT - spent) if hurried else BACKOFF_CAP
    ceiling = min(cap, BACKOFF_BASE * 2.0 ** min(failures - 1, 16))
    if failure.retry_after is not None:
        return min(max(failure.retry_after, HARD_INTERVAL), RETRY_AFTER_CAP) + roll * BACKOFF_BASE
    return HARD_INTERVAL + (ceiling - HARD_INTERVAL) * roll  # leases that fail together must not all retry at once


def probe(roll: float) -> float:
    """Return the seconds until a blocked lease is probed again."""
    return BLOCKED_PROBE * (1 - roll / 20)


def _fraction(life: float) -> float:
    return 1 / 2 if life <= LONG_LIFE else 2 / 3


def _ask_cache_again(end: datetime, received: datetime) -> datetime:
    halfway = received + (end - received) / 2
    window = end - _seconds(ISSUER_WINDOW)
    return min(halfway, window) if window > received else halfway


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
