"""One lease: what we know and do about the token that one request asks for. The twin of a delivery.

The rules, in prose; the table below is the same in code:

* A lease *waits* until its token is due, then it *fetches*. At most one fetch is in flight; requests meanwhile join it.
* A fetch that succeeds leads back to waiting, with a new token and all failures forgotten.
* A transient failure leads to *retrying* with a back-off. A failure that only a person can repair (login required,
  rejected) leads to *blocked*, where a slow probe goes on.
* The next try is never later than half a minute before less than the promised life is left, and from then on never more
  than 25 s after the beginning of the last one, which gets at most 20 s. Only a ``Retry-After`` of the issuer overrides
  that; only a person who asks for a refresh overrides a ``Retry-After``.
* After a new sign-in, a blocked or retrying lease fetches at once. A sign-in during a fetch counts if that fetch fails:
  the daemon compares the sign-in files with their state when the fetch began.
* After a wake-up, the fetch in flight is restarted, and leases that failed before try again at once. The network and
  the sign-in's helpers may need a moment, so the first failure after a wake-up is always retried, even one that asks
  for a person.
* When the network returns, leases whose issuer did not answer try again at once, and a fetch in flight is restarted,
  but only once: an unstable network must not keep a fetch from ending.
* No failure ever drops a valid credential.

The `Health` of a token is derived from the credential and the time, never stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from uvtokend.core import policy
from uvtokend.core.model import Credential, Failure, Health, Request, State

#: Until when a token keeps its promised life, and when it expires; None if the end is unknown.
Life = tuple[datetime | None, datetime | None]
Step = Literal["ask", "fetched", "try-again", "needs-person"]

TABLE: dict[tuple[State, Step], State] = {
    ("waiting", "ask"): "fetching",
    ("retrying", "ask"): "fetching",
    ("blocked", "ask"): "fetching",
    ("fetching", "ask"): "fetching",
    ("fetching", "fetched"): "waiting",
    ("fetching", "try-again"): "retrying",
    ("fetching", "needs-person"): "blocked",
}


@dataclass(frozen=True, slots=True)
class Lease:
    """What we know about one request's token, and what we do about it.

    Args:
        request: The request.
        state: The state of the lease.
        credential: The last credential that was fetched; it may have expired.
        refresh_at: When to refresh the credential.
        act_at: When to fetch next: the refresh, the retry or the probe. None while a fetch is in flight.
        failures: The number of failures in a row.
        last_failure: The last failure, and `failed_at` when it happened.
        began_at: When the last fetch began.
        cached: The issuer has returned the same token twice.
        lenient: The machine woke up or the network returned since the last verdict, so the next failure is only
            retried.
        restarted: The fetch in flight was restarted when the network returned.
    """

    request: Request
    state: State = "waiting"
    credential: Credential | None = None
    refresh_at: datetime | None = None
    act_at: datetime | None = None
    failures: int = 0
    last_failure: Failure | None = None
    failed_at: datetime | None = None
    began_at: datetime | None = None
    cached: bool = False
    lenient: bool = False
    restarted: bool = False

    def health(self, now: datetime) -> Health:
        """Return the health of the token at one moment."""
        if self.credential is None:
            return "none"
        if self.credential.expires_at is not None and now >= self.credential.expires_at:
            return "expired"
        return "stale" if self.refresh_at is not None and now >= self.refresh_at else "fresh"

    def valid(self, now: datetime) -> Credential | None:
        """Return the credential if it has not expired."""
        return self.credential if self.health(now) in {"fresh", "stale"} else None

    @property
    def min_life(self) -> float | None:
        """The seconds of life promised to every uv that starts; None without a token or a known end."""
        if self.credential is None or self.refresh_at is None:
            return None
        return policy.min_life(self.credential, self.refresh_at, self.cached)

    @property
    def promised_until(self) -> datetime | None:
        """The moment after which less than the promised life is left; None if it never is."""
        promised = self.min_life
        if promised is None or self.credential is None or self.credential.expires_at is None:
            return None
        return self.credential.expires_at - timedelta(seconds=promised)

    def promise_left(self, now: datetime) -> float | None:
        """Return the seconds until less than the promised life is left: 0 if it is so, None if it never is."""
        if self.valid(now) is None:
            return 0.0
        until = self.promised_until
        return None if until is None else max(0.0, (until - now).total_seconds())

    @property
    def life(self) -> Life:
        """How long the credential keeps its promised life, and how long it is valid."""
        return self.promised_until, None if self.credential is None else self.credential.expires_at

    @property
    def obeys(self) -> bool:
        """Return whether the lease waits because the issuer asked us to."""
        told = self.last_failure is not None and self.last_failure.retry_after is not None
        return told and self.state == "retrying"

    def next_at(self, now: datetime) -> datetime | None:
        """Return when the lease wants to act next: for a fetch, or because its token expires."""
        valid = self.valid(now)
        times = (self.act_at, None if valid is None else valid.expires_at)
        return min((time for time in times if time is not None), default=None)


def ask(lease: Lease, now: datetime) -> Lease:
    """Begin a fetch, or join the one in flight."""
    if lease.state == "fetching":
        return lease
    return replace(lease, state=TABLE[lease.state, "ask"], act_at=None, began_at=now, restarted=False)


def fetched(lease: Lease, credential: Credential, now: datetime, roll: float) -> Lease:
    """Note a new credential. The jitter from `roll` is fixed in `refresh_at` from then on.

    After the clock was set, the expiry of the previous token cannot be compared with that of the new one.
    """
    previous = None if lease.lenient else lease.credential
    due = policy.refresh_at(credential, now, previous, roll)
    cached = lease.cached or policy.is_same(credential, previous)
    state = TABLE[lease.state, "fetched"]
    return Lease(lease.request, state, credential, due, due, began_at=lease.began_at, cached=cached)


def failed(lease: Lease, failure: Failure, now: datetime, roll: float) -> Lease:
    """Note a failure: back off, or wait for a person."""
    failures = lease.failures + 1
    left = lease.promise_left(now)
    urgent = left is not None and left <= policy.MARGIN
    if failure.kind == "transient" or lease.lenient:
        step: Step = "try-again"
        spent = 0.0 if lease.began_at is None else (now - lease.began_at).total_seconds()
        wait = policy.backoff(failures, failure, urgent, roll, spent)
    else:
        step = "needs-person"
        wait = policy.probe(roll)
    act_at = now + timedelta(seconds=wait)
    if failure.retry_after is None:
        act_at = min([act_at, *_marks(lease, now)])
    return replace(
        lease,
        state=TABLE[lease.state, step],
        act_at=act_at,
        failures=failures,
        last_failure=failure,
        failed_at=now,
        lenient=False,
    )


def login_changed(lease: Lease, now: datetime) -> Lease:
    """Note that a person may have signed in."""
    tries = lease.state in {"blocked", "retrying"} and not lease.obeys
    return replace(lease, act_at=now) if tries else lease


def woke(lease: Lease, now: datetime) -> Lease:
    """Note that the machine slept: earlier failures no longer count."""
    if lease.state == "fetching":
        return replace(lease, began_at=now, lenient=True)
    if lease.state in {"blocked", "retrying"} and not lease.obeys:
        return replace(lease, act_at=now, failures=0, lenient=True)
    return replace(lease, lenient=True)


def judged(lease: Lease, shift: timedelta) -> Lease:
    """Take the times of the credential that the wall clock says, if no fetch is under way that may bring a new token.

    Args:
        lease: The lease before.
        shift: As in `policy.doubt`.
    """
    credential = lease.credential
    doubt = policy.doubt(credential, shift)
    if not doubt or lease.state == "fetching" or credential is None or credential.expires_at is None:
        return lease
    moved = replace(credential, issued_at=credential.issued_at - doubt, expires_at=credential.expires_at - doubt)
    return replace(lease, credential=moved, refresh_at=None if lease.refresh_at is None else lease.refresh_at - doubt)


def network_returned(lease: Lease, now: datetime) -> Lease:
    """Note that the network returned: an issuer that did not answer may answer now."""
    if lease.state == "fetching" and not lease.restarted:
        return replace(lease, began_at=now, lenient=True, restarted=True)
    unanswered = lease.last_failure is not None and lease.last_failure.reason in policy.NOBODY_ANSWERED
    if lease.state == "retrying" and unanswered and not lease.obeys:
        return replace(lease, act_at=now, failures=0, lenient=True)
    return lease


def _marks(lease: Lease, now: datetime) -> list[datetime]:
    """Return the future moments that make a try urgent: shortly before the promised life ends, and the token's end."""
    until, end = lease.life
    soon = None if until is None else until - timedelta(seconds=policy.MARGIN)
    return [time for time in (soon, end) if time is not None and time > now]
