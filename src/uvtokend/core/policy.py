"""All arithmetic on time: when to refresh, how long to back off, what life is promised.

The rules, in prose:

* A token is refreshed at 1/2 of a life of up to two hours and at 2/3 of a longer one, a little earlier by jitter
  (1/40 to 1/20 of its life), so that a uv that starts at any moment finds at least 30 minutes of a one-hour token and
  4 hours of a twelve-hour one. The issuer's own `refresh_after` wins.
* An issuer that hands out a cached token (metadata servers, ``az``, ``gcloud``) answers with the same end of life, or
  nearly so where it names the seconds that are left. That is success: we ask again halfway, and at the latest just
  inside the window in which such issuers renew (Google's metadata server and MSAL: 5 minutes before the end; we take
  4.5). The same goes for a token that comes in when its refresh is already past, be it cached or the clock wrong.
* Nothing is asked again sooner than 30 s, or a quarter of the token's life where that is less.
* A secret without a known end, or one that only a person renews, is read again every 30 minutes: it may have been
  replaced.
* Back-off is 5 s doubling with full jitter, capped at 30 s while no valid token stands or nobody answers at all, else
  at 5 minutes. The issuer's ``Retry-After`` wins, up to an hour.
* A blocked lease is probed every 5 minutes: a person may have mended it without telling us.

All times are aware UTC datetimes, all durations seconds. `roll` is a dice roll in [0, 1), made once by the caller.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from uvtokend.core.model import Credential, Failure

LONG_LIFE = 2 * 3600.0
MIN_INTERVAL = 30.0
HARD_INTERVAL = 1.0
ISSUER_WINDOW = 270.0
#: Two ends of life are the same one if they differ by no more than this, or an eighth of the life where that is less.
SAME_END = 10.0
REREAD = 30 * 60.0
BACKOFF_BASE = 5.0
BACKOFF_CAP = 300.0
BACKOFF_CAP_URGENT = 30.0
RETRY_AFTER_CAP = 3600.0
BLOCKED_PROBE = 300.0
#: Reasons of failures where no issuer answered at all: the network is away, and may be back any moment. A worker that
#: hung until its deadline heard from nobody, either.
NOBODY_ANSWERED = frozenset({"unreachable", "timeout", "deadline"})


def refresh_at(credential: Credential, received: datetime, previous_end: datetime | None, roll: float) -> datetime:
    """Return when a credential is to be refreshed.

    Args:
        credential: What the issuer gave.
        received: When it was received.
        previous_end: The end of life of the credential that it replaces.
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
    due = credential.refresh_after
    if due is None:
        due = credential.issued_at + _seconds(life * (_fraction(life) - (1 + roll) / 40))
    if due <= received or (previous_end is not None and abs(end - previous_end) <= _seconds(min(SAME_END, life / 8))):
        due = _ask_cache_again(end, received)
    return max(min(max(due, earliest), end), received + _seconds(HARD_INTERVAL))


def min_life(credential: Credential, planned: datetime) -> float | None:
    """Return the life in seconds promised to any uv that starts, or None where the token has no known end.

    Args:
        credential: The credential that stands.
        planned: When it is to be refreshed.
    """
    if credential.expires_at is None:
        return None
    life = (credential.expires_at - credential.issued_at).total_seconds()
    left = (credential.expires_at - planned).total_seconds()
    return max(0.0, min(life * (1 - _fraction(life)), left))


def backoff(failures: int, failure: Failure, valid: bool, roll: float) -> float:
    """Return the seconds to wait after a transient failure.

    Args:
        failures: How many failures there have been in a row, this one included.
        failure: The failure.
        valid: Whether a valid token still stands.
        roll: A dice roll.
    """
    cap = BACKOFF_CAP if valid and failure.reason not in NOBODY_ANSWERED else BACKOFF_CAP_URGENT
    ceiling = min(cap, BACKOFF_BASE * 2.0 ** min(failures - 1, 16))
    if failure.retry_after is not None:
        return min(max(failure.retry_after, HARD_INTERVAL), RETRY_AFTER_CAP) + roll * BACKOFF_BASE
    return HARD_INTERVAL + (ceiling - HARD_INTERVAL) * roll  # many that fail together must not meet at the lower end


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
