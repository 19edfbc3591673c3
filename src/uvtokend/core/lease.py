"""One lease: what we do about the token that one request asks for.

The rules, in prose; the table below is the same in code:

* A lease *waits* until its token is due, then it *fetches*. At most one fetch is in flight: who asks meanwhile joins
  it.
* A fetch that succeeds leads back to waiting, with a new token and all failures forgotten.
* A transient failure leads to *retrying* with a back-off. A failure that only a person can mend (login required,
  rejected) leads to *blocked*, where a slow probe goes on.
* A new login lets a blocked or retrying lease fetch at once; one that comes while a fetch is in flight is remembered,
  and if that fetch fails we fetch again at once.
* Just after a wake-up the network and the login's helpers may need a moment: then one failure is no verdict, and even
  one that asks for a person is first retried.
* No failure ever drops a valid credential.

What a token is worth (`Health`) is derived from the credential and the time, never stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from uvtokend.core import policy
from uvtokend.core.model import Credential, Failure, Health, Request, State

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
    """What we know and do about one request's token.

    Args:
        request: What is asked for.
        state: What we are doing.
        credential: The last token that we got, maybe dead by now.
        refresh_at: When the credential is to be refreshed.
        act_at: When to fetch next: the refresh, the retry or the probe. None: not planned, a fetch is in flight.
        failures: Failures in a row.
        last_failure: The last of them, and `failed_at` its time.
        again: A login came while a fetch was in flight.
        lenient: The machine woke up since the last verdict, so the next failure is none.
    """

    request: Request
    state: State = "waiting"
    credential: Credential | None = None
    refresh_at: datetime | None = None
    act_at: datetime | None = None
    failures: int = 0
    last_failure: Failure | None = None
    failed_at: datetime | None = None
    again: bool = False
    lenient: bool = False

    def health(self, now: datetime) -> Health:
        """Return what the token is worth at this moment."""
        if self.credential is None:
            return "none"
        if self.credential.expires_at is not None and now >= self.credential.expires_at:
            return "expired"
        return "stale" if self.refresh_at is not None and now >= self.refresh_at else "fresh"

    def valid(self, now: datetime) -> Credential | None:
        """Return the credential if it is alive."""
        return self.credential if self.health(now) in {"fresh", "stale"} else None


def ask(lease: Lease) -> Lease:
    """Begin a fetch, or join the one in flight."""
    return replace(lease, state=TABLE[lease.state, "ask"], act_at=None)


def fetched(lease: Lease, credential: Credential, now: datetime, roll: float) -> Lease:
    """Take a new credential. `roll` is rolled once and lives in `refresh_at` from then on."""
    before = lease.credential.expires_at if lease.credential is not None else None
    due = policy.refresh_at(credential, now, before, roll)
    return Lease(lease.request, TABLE[lease.state, "fetched"], credential, due, due)


def failed(lease: Lease, failure: Failure, now: datetime, roll: float) -> Lease:
    """Take a failure: back off, or wait for a person."""
    failures = lease.failures + 1
    alive = lease.valid(now)
    if lease.again:
        step: Step = "try-again"
        wait = policy.HARD_INTERVAL
    elif failure.kind == "transient" or lease.lenient:
        step = "try-again"
        wait = policy.backoff(failures, failure, alive is not None, roll)
    else:
        step = "needs-person"
        wait = policy.probe(roll)
    act_at = now + timedelta(seconds=wait)
    if alive is not None and alive.expires_at is not None and failure.retry_after is None:
        act_at = min(act_at, alive.expires_at)  # a token that dies makes the next try urgent
    return replace(
        lease,
        state=TABLE[lease.state, step],
        act_at=act_at,
        failures=failures,
        last_failure=failure,
        failed_at=now,
        again=False,
        lenient=False,
    )


def login_changed(lease: Lease, now: datetime) -> Lease:
    """Take note that a person may have logged in."""
    if lease.state == "fetching":
        return replace(lease, again=True)
    if lease.state in {"blocked", "retrying"}:
        return replace(lease, act_at=now)
    return lease


def woke(lease: Lease, now: datetime) -> Lease:
    """Take note that the machine slept: nothing that failed before says anything about now."""
    if lease.state in {"blocked", "retrying"}:
        return replace(lease, act_at=now, failures=0, lenient=True)
    return replace(lease, lenient=True)
