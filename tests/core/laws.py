"""The laws that must hold at every moment of every simulated history.

The oracle does not look at the agent's states. It knows what is wrong outside (no network, a sign-in that ended, a
failing issuer, a full or hung disk, a foreign entry, sleep), which events the agent got, what its status says, and the
promise:

* **Recovery.** Once nothing has been wrong outside for `GRACE` seconds (30, or 5 plus the fetch if the kernel reports
  the change), any uv that starts finds a valid token with the promised life, until something is wrong again. No state
  of the agent is an excuse. If there are more leases than slots, a fetch that waits for its slot has `FETCH` seconds
  from the time it gets one.
* **Retry-After.** An issuer's ``Retry-After`` suspends the promise until the time that the status immediately names.
  That time is at most 5 s after the end of the requested wait, which is capped at one hour. The fetch begins at exactly
  that time, or earlier if a user asks for it, and recovery takes at most `GRACE` seconds from there.
* **Verdicts.** A failure that only a person can fix suspends the promise until the time that the status names, at most
  5 minutes later. The fetch begins at exactly that time, or at once after a sign-in or a wake-up, and recovery takes at
  most `GRACE` seconds from there.
* **Rivals.** A rival that changes our block again within `FIGHT` seconds of our last repair wins, and no other program
  does. The status names the time of the next attempt, at most 5 minutes later; the delivery begins at that time or
  earlier. So our entry is back within a guard tick, 5 minutes and `SETTLE` after the rival's last change.
* **No expired tokens.** An entry never outlives its token, unless the disk prevents its removal. If only the wall clock
  says that a token has expired, because the machine was paused, the entry stays until one fetch has failed.
* **No lost tokens.** A valid token that was fetched is in the netrc, unless the disk or a foreign entry prevents it.
* **Moderation.** Requests and tokens of each lease are bounded per hour, and deliveries per second.
* **No endless waits**, neither for a slot nor for an answer.

`check` is called just before each event, when the netrc has been unchanged for longest.

The bound on the requests of a lease in an hour: the back-off at its lower cap is 25 s with full jitter, 13 s on
average, hence 277 requests with a standard deviation of 9; six deviations more make 331. Each wake-up, sign-in, return
of the network or request by a user may start the back-off again: 4 requests more. Fetched tokens have a tighter bound:
see `_tokens_an_hour`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from uvtokend.core.model import Failure, Index, Request
from uvtokend.core.slots import START

#: The guard tick, see daemon/timer.py.
TICK = 25.0
#: The longest fetch that works, in seconds.
FETCH = 4.0
DELIVERY = 0.05
#: Within this time everything is done that can be done at once: two deliveries, the rest between them, and a margin.
SETTLE = 0.8
#: After this many seconds without a fault, the promise holds again.
GRACE = 30.0
#: The same if the kernel reports the change: 5 seconds, which include the gathering of reports and the fetch.
GRACE_NOTIFIED = 5.0 + SETTLE
#: After this many seconds the worker is killed.
DEADLINE = 60.0
#: The longest wait of a client for tokens: in line, for a fetch that hangs, and for the delivery.
WAIT = 3 * DEADLINE
#: The longest wait in line for one fetch in total, whatever happens to the disk meanwhile: both other leases of a
#: history may hang first, and one of them may return; between these, each may fail quickly.
LINE = 3 * DEADLINE + GRACE
#: If an issuer gives the expiry in seconds from now, the times for one token differ by up to this; the state file keeps
#: one of them.
RELATIVE = 1.0
#: The life left when a caching issuer is asked for the last time: it renews its token a little earlier.
WINDOW = 270.0
REREAD = 1800.0
#: If a rival changes our block again within this time, we give way.
FIGHT = 60.0
#: How long a verdict that only a person can change lasts, and how long we give way to a rival.
PROBE = 300.0
#: The longest time for which an issuer may suspend the promise, and the jitter on top.
OBEYED = 3600.0
SPREAD = 5.0
#: The least step of the wall clock that counts as one.
STEP = 30.0
#: How exactly the agent keeps a time that the status names, in seconds.
EXACT = 0.01
REQUESTS_PER_HOUR = 335
REQUESTS_PER_PROD = 4
#: The least time between the starts of two deliveries while a fetch is under way, and of three deliveries otherwise.
REST = 0.5


@dataclass(frozen=True)
class Issuer:
    """An issuer of tokens.

    Args:
        life: In seconds; None for a secret without a known expiry.
        caching: It returns the same token until shortly before the token expires.
        relative: It gives the expiry in seconds from now, so that it differs a little between answers.
        refresh_after: Seconds from the issue after which the issuer wants to be asked again, if it says so.
    """

    life: float | None
    caching: bool = False
    relative: bool = False
    refresh_after: float | None = None

    @property
    def promise(self) -> float:
        """The life in seconds that any uv finds at least."""
        if self.life is None:
            return 0.0
        fetch = min(30.0, self.life / 40)
        own = self.life / (2 if self.life <= 7200 else 3)
        if self.caching:
            return min(own, WINDOW - fetch)
        return own if self.refresh_after is None else min(own, max(self.life - self.refresh_after, WINDOW) - fetch)


@dataclass(frozen=True)
class Token:
    """A token. The agent knows that it expires at `end`; under a wrong clock, or after a pause, `real_end`
    differs."""

    name: str
    issued: float
    end: float | None
    real_end: float | None
    skewed: bool = False

    def alive(self, now: float) -> bool:
        return self.end is None or now < self.end


@dataclass(frozen=True)
class Suspension:
    """A promise that an issuer, or a failure that only a person can fix, has suspended.

    Args:
        until: When the next fetch begins, as the status says.
        verdict: Only a person can fix the failure; otherwise an issuer asked us to wait.
    """

    until: float
    verdict: bool


@dataclass
class Laws:
    """Record what was wrong and what the agent knew, and compare the netrc with the promise.

    Args:
        issuers: The issuer of each lease.
        slots: How many fetches may run at once.
    """

    issuers: Mapping[Request, Issuer]
    slots: int = 4
    tokens: dict[str, Token] = field(default_factory=dict)
    indexes: tuple[Index, ...] = ()
    received: dict[Request, Token] = field(default_factory=dict)
    came_at: dict[Request, float] = field(default_factory=dict)
    good_at: dict[Request, float] = field(default_factory=dict)  # when the promise holds again
    suspended: dict[Request, Suspension] = field(default_factory=dict)
    ran_at: float = 0.0  # when the daemon last could not act because the machine slept or had just woken up
    written_at: tuple[float, float] = (-math.inf, -math.inf)  # the last two deliveries
    free_at: float = 0.0  # until then something prevented writing, too recently for the promise to hold
    yielding_until: float = 0.0
    overwrote: float = -math.inf
    wall_ends: dict[str, float] = field(default_factory=dict)  # on the wall clock at the time of the fetch
    drifting: set[str] = field(default_factory=set)
    rotations: dict[Request, float] = field(default_factory=dict)
    waiters: dict[int, float] = field(default_factory=dict)
    lines: dict[Request, float] = field(default_factory=dict)  # when the first wait for a fetch began
    waited: dict[Request, float] = field(default_factory=dict)  # how long a running fetch waited for its slot
    skewed: dict[Request, float] = field(default_factory=dict)
    requests: dict[Request, deque[float]] = field(default_factory=dict)
    successes: dict[Request, deque[float]] = field(default_factory=dict)
    prods: deque[float] = field(default_factory=deque)

    # ------------------------------------------------------------------------------------------------- the laws

    def check(
        self,
        now: float,
        file: Mapping[str, str],
        wrong: Mapping[Request, float],
        writable: bool,
        running: bool,
        foreign: Collection[str],
    ) -> None:
        """Compare the netrc, host -> token, with the promise.

        Args:
            now: The current time.
            file: The content of the netrc.
            wrong: Requests for which something is wrong outside now, and the grace in seconds that this allows.
            writable: Nothing outside prevents the daemon from writing the netrc now.
            running: The daemon runs and is aware of the time.
            foreign: Hosts whose entries are foreign.
        """
        for request, grace in wrong.items():
            self.good_at[request] = max(self.good_at.get(request, 0.0), now + grace)
        if not running:
            self.ran_at = now
        for suspension in self.suspended.values():
            late = now - max(suspension.until, self.ran_at)
            assert late <= EXACT, "the fetch does not begin when the status says"
        for since in self.lines.values():
            # With a slot for each lease, a fetch waits only for a new worker of its kind.
            longest = LINE if len(self.issuers) >= self.slots else START + EXACT
            assert now - max(since, self.ran_at) <= longest, "a fetch waits in line forever"
        if not writable:
            self.free_at = max(self.free_at, now + GRACE)
            return
        for since in self.waiters.values():
            assert now - max(since, self.free_at - GRACE) <= WAIT, "a client waits forever"
        looks_late = self.yielding_until and now - max(self.yielding_until, self.ran_at) > EXACT
        assert not looks_late, "the delivery does not begin when the status says"
        free = now > max(self.free_at, self.yielding_until)
        if free:
            assert file.keys() <= {index.host for index in self.indexes}, (
                "the netrc has an entry of an index that is not configured"
            )
        for index in self.indexes:
            if index.host not in self.drifting and index.host not in foreign:
                self._check(now, index.request, file.get(index.host), free)

    def _check(self, now: float, request: Request, present: str | None, free: bool) -> None:
        if present is not None and free:
            end = self.tokens[present].end
            assert end is None or now <= end + SETTLE, "an expired token is in the netrc"
        token = self.received.get(request)
        came = self.came_at.get(request, now)
        air = RELATIVE if self.issuers[request].relative else 0.0
        if token is not None and token.alive(now + air) and free and now > came + SETTLE:
            assert present == token.name, "a valid token is not in the netrc"
        if not free or request in self.suspended or now <= self.good_at.get(request, 0.0):
            return
        assert token is not None, "no token as promised, although one was available"
        just_expired = token.end is not None and token.skewed and now <= token.end + FETCH + SETTLE
        assert token.alive(now) or just_expired, "no valid token as promised, although one was available"
        if token.end is not None and not token.skewed:
            assert token.end - now >= self.issuers[request].promise - 0.001, "less life than promised"
            assert token.real_end is not None
            assert token.real_end > now, "no valid token as promised: the one in the netrc has really expired"
        rotated = max(self.rotations.get(request, now) + REREAD, self.good_at.get(request, 0.0))  # one attempt may hang
        read = token.issued >= self.rotations.get(request, 0.0)
        assert read or now <= rotated + DEADLINE + SETTLE, "an outdated secret is in the netrc"

    def all_is_well(self, now: float, file: Mapping[str, str]) -> None:
        """Long after the last fault, each index has a token that is really valid, whatever the agent knows."""
        for index in self.indexes:
            assert index.host in file, "no recovery"
            end = self.tokens[file[index.host]].real_end
            assert end is None or end > now, "no recovery: the token has expired"

    # ------------------------------------------------------------------------------------ the events of the agent

    def lined_up(self, request: Request, now: float) -> None:
        self.lines[request] = now - self.waited.pop(request, 0.0)
        if self.suspended.pop(request, None) is not None:
            self.good_at[request] = max(self.good_at.get(request, 0.0), now + GRACE)

    def began(self, request: Request, now: float) -> None:
        if request in self.lines:
            self.waited[request] = now - self.lines.pop(request)
        allowed = REQUESTS_PER_HOUR + REQUESTS_PER_PROD * _within(self.prods, now)
        assert _count(self.requests, request, now) <= allowed, "a burst of requests"

    def ended(self, request: Request) -> None:
        self.lines.pop(request, None)
        self.waited.pop(request, None)

    def fetched(self, request: Request, now: float, token: Token, shift: float) -> None:
        self.tokens[token.name] = self.received[request] = token
        if token.end is not None:
            self.wall_ends[token.name] = token.end + shift
        self.came_at[request] = now
        if token.skewed:
            self.skewed[request] = now
        skewed = now - self.skewed.get(request, -math.inf) < 3600
        allowed = _tokens_an_hour(self.issuers[request], skewed) + _within(self.prods, now)
        assert _count(self.successes, request, now) <= allowed, "tokens in a loop"

    def failed(self, request: Request, now: float, failure: Failure, named: float | None) -> None:
        """Record a failure that the agent received.

        Args:
            request: The request.
            now: The current time.
            failure: The failure.
            named: The time of the next attempt in the status, right after the failure.
        """
        if failure.retry_after is None and failure.kind == "transient":
            return
        assert named is not None, "the status does not say until when the promise is suspended"
        asked = 0.0 if failure.retry_after is None else min(max(failure.retry_after, 1.0), OBEYED)
        latest = PROBE if failure.retry_after is None else asked + SPREAD
        assert now + asked - EXACT <= named <= now + latest + EXACT, (
            "the promise is suspended for too long or too short a time"
        )
        self.suspended[request] = Suspension(named, failure.retry_after is None)

    def paused(self, seconds: float) -> None:
        """The machine was paused, so all tokens came closer to their expiry."""
        for name, token in self.tokens.items():
            if token.real_end is not None:
                self.tokens[name] = _earlier(token, seconds)
        self.received = {request: self.tokens[token.name] for request, token in self.received.items()}

    def judged(self, now: float, requests: Iterable[Request], shift: float) -> None:
        """Record that the wall clock is synchronized and that no fetch is running for these requests.

        Args:
            now: The current time, on the daemon's clock.
            requests: The requests.
            shift: How far the wall clock is ahead.
        """
        for request in requests:
            token = self.received.get(request)
            if token is None or token.end is None or token.end <= now:
                continue
            end = self.wall_ends[token.name] - shift
            if end < token.end - STEP:
                self.received[request] = self.tokens[token.name] = replace(token, end=max(now, end))

    def login_seen(self, now: float, requests: Iterable[Request]) -> None:
        """A user signed in for these requests."""
        self.prods.append(now)
        self._no_verdicts(now, requests)

    def network_seen(self, now: float) -> None:
        self.prods.append(now)

    def woke(self, now: float) -> None:
        self.prods.append(now)
        self._no_verdicts(now, tuple(self.suspended))
        self.overwrote = -math.inf  # a sleep ends the yielding
        self.yielding_until = min(self.yielding_until, now)

    def _no_verdicts(self, now: float, requests: Iterable[Request]) -> None:
        """End the verdicts: the next fetch begins at once."""
        for request in requests:
            if request in self.suspended and self.suspended[request].verdict:
                self.suspended[request] = Suspension(now, verdict=True)

    def delivery_began(self, now: float, fetching: bool) -> None:
        """A delivery began.

        Args:
            now: The current time.
            fetching: Whether another token may come at any moment.
        """
        before, last = self.written_at
        assert now - before >= REST - 1e-6, "deliveries in a burst"
        assert not fetching or now - last >= REST - 1e-6, "a delivery that does not wait for the next token"
        self.written_at = (last, now)
        if self.yielding_until:
            self.yielding_until = 0.0
            self.free_at = max(self.free_at, now + SETTLE)

    def delivered(self, now: float, rival: bool) -> None:
        if rival:
            assert now - self.overwrote >= FIGHT, "a fight"
            self.overwrote = now

    def yielded(self, now: float, named: float) -> None:
        """The agent gave way to a rival.

        Args:
            now: The current time.
            named: The time of the next attempt in the status.
        """
        assert now - self.overwrote <= FIGHT + DELIVERY + EXACT, "the agent gives way without a fight"
        assert now <= named <= now + PROBE + EXACT, "the agent gives way for too long"
        self.yielding_until = named

    def asked(self, waiter: int, now: float, only_waits: bool) -> None:
        self.prods.append(now)
        if not only_waits:
            self.overwrote = -math.inf  # a request by a user ends the yielding
        self.waiters[waiter] = now

    def answered(self, waiter: int) -> None:
        del self.waiters[waiter]

    def rotated(self, request: Request, now: float) -> None:
        self.rotations[request] = now

    def touched(self, host: str) -> None:
        self.drifting.add(host)

    def drift_seen(self, now: float) -> None:
        self.drifting.clear()
        self.free_at = max(self.free_at, now + SETTLE)

    def configured(self, now: float, indexes: tuple[Index, ...]) -> None:
        self._begin_again(now, indexes, self.received.keys())

    def restarted(self, now: float, indexes: tuple[Index, ...], recovered: Collection[Request]) -> None:
        self.overwrote = -math.inf
        self.written_at = (-math.inf, -math.inf)
        self.yielding_until = 0.0
        self.waiters.clear()
        self.lines.clear()
        self.waited.clear()
        self.suspended.clear()
        self._begin_again(now, indexes, recovered)

    def _begin_again(self, now: float, indexes: tuple[Index, ...], known: Iterable[Request]) -> None:
        self.prods.append(now)
        self.drift_seen(now)
        self.indexes = indexes
        requests = {index.request for index in indexes}
        self.received = {request: self.received[request] for request in known if request in requests}
        for request in requests - self.received.keys():  # nothing is known about it, or it is new
            self.good_at[request] = max(self.good_at.get(request, 0.0), now + GRACE)
        self.lines = {request: since for request, since in self.lines.items() if request in requests}
        self.suspended = {request: until for request, until in self.suspended.items() if request in requests}


def _earlier(token: Token, seconds: float) -> Token:
    assert token.real_end is not None
    return Token(token.name, token.issued - seconds, token.end, token.real_end - seconds, token.skewed)


def _tokens_an_hour(issuer: Issuer, skewed: bool) -> float:
    """Return how many tokens of one lease may be fetched within an hour.

    A fresh token is replaced at 9/20 of its life at the earliest. A caching issuer is asked again halfway to the expiry
    each time, hence the logarithm: from the whole life down to 30 s. A token fetched under a wrong clock looks as used
    as a cached one.
    """
    if issuer.life is None:
        return 3600 / (REREAD * 0.95) + 1
    if issuer.caching or skewed:
        return (3600 / issuer.life + 1) * (math.log2(issuer.life / TICK) + 2)
    return 3600 / (issuer.life * 0.45) + 1


def _count(times: dict[Request, deque[float]], request: Request, now: float) -> int:
    mine = times.setdefault(request, deque())
    mine.append(now)
    return _within(mine, now)


def _within(times: deque[float], now: float) -> int:
    while times and times[0] < now - 3600:
        times.popleft()
    return len(times)
