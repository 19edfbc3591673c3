"""What must hold at every moment of every history, and when the history excuses the agent.

The oracle knows no outages and no states of the agent. It knows what the agent was told, and the policy's prose: a uv
that starts now finds the promised life, unless

* a fetch is in flight, or the last one failed less long ago than the longest wait that the prose allows for such a
  failure (30 s where nobody answered or no valid token stood, else 5 minutes; the issuer's ``Retry-After`` up to an
  hour and 5 s; 5 minutes for a failure that only a person can mend; no wait at all after a new login or a wake-up);
* the last delivery failed less than 30 s ago, or gave way to a rival less than 5 minutes ago;
* somebody else changed the entry of that host and no guard tick has come since, or holds it with an entry of his own;
* the machine sleeps, or wakes and no guard tick has come since.

So a lease that waits longer than it may loses its excuse, and a promise that nothing hinders is held at every moment:
`check` is called just before anything happens, when the file has been as it is for longest.

Requests are bounded by the hour, for each lease. Back-off at its lower cap is 30 s with full jitter, 15 s in the mean:
240 requests, with a standard deviation of 9; six of those make 300. Each wake-up, login or wish of a person may add the
first steps of a back-off that begins anew: 4 requests. Tokens that come in are bounded more tightly: see
`_tokens_an_hour`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from uvtokend.core.model import Failure, Index, Request

TICK = 30.0
DELIVERY = 0.05
#: Within this time whatever the agent can do at once is done: two deliveries, one after the other, and some air.
SETTLE = 0.3
#: When a worker is killed.
DEADLINE = 60.0
#: The longest wait of somebody who waits for tokens: for a fetch in flight that hangs, and for the delivery.
WAIT = 2 * DEADLINE
#: The life that is left when we ask a cache again for the last time: it renews a little earlier.
CACHED = 269.0
REREAD = 1800.0
#: Within this time of a rival's change the next one is left to him.
FIGHT = 60.0
REQUESTS_PER_HOUR = 300
REQUESTS_PER_PROD = 4


@dataclass(frozen=True)
class Issuer:
    """Who hands out tokens.

    Args:
        life: In seconds; None for a secret without a known end.
        caching: Hands out the same token until shortly before its end.
        relative: Names the end in seconds from now, so that it differs a little from answer to answer.
        refresh_after: Seconds from the issue, where the issuer says when it wants to be asked again.
    """

    life: float | None
    caching: bool = False
    relative: bool = False
    refresh_after: float | None = None

    @property
    def promise(self) -> float:
        """The life that any uv finds at least."""
        if self.life is None:
            return 0.0
        if self.caching:
            return CACHED
        if self.refresh_after is not None:
            return self.life - self.refresh_after
        return self.life / (2 if self.life <= 7200 else 3)


@dataclass(frozen=True)
class Token:
    """One token. Its `end` is what we were told; under a wrong clock the `real_end` is another."""

    name: str
    issued: float
    end: float | None
    real_end: float | None
    skewed: bool = False

    def alive(self, now: float) -> bool:
        return self.end is None or now < self.end


@dataclass
class Laws:
    """Remembers what the agent was told, and holds the netrc against it."""

    issuers: Mapping[Request, Issuer]
    tokens: dict[str, Token] = field(default_factory=dict)
    indexes: tuple[Index, ...] = ()
    received: dict[Request, Token] = field(default_factory=dict)
    settled: dict[Request, float] = field(default_factory=dict)
    excused: dict[Request, float] = field(default_factory=dict)
    excused_hosts: dict[str, float] = field(default_factory=dict)
    all_excused: float = 0.0
    overwrote: float = -math.inf
    woke_at: float = 0.0
    drifting: set[str] = field(default_factory=set)
    logins: dict[Request, float] = field(default_factory=dict)
    rotations: dict[Request, float] = field(default_factory=dict)
    waiters: dict[int, float] = field(default_factory=dict)
    skewed: dict[Request, float] = field(default_factory=dict)
    requests: dict[Request, deque[float]] = field(default_factory=dict)
    successes: dict[Request, deque[float]] = field(default_factory=dict)
    prods: deque[float] = field(default_factory=deque)

    # ------------------------------------------------------------------------------------------------- the laws

    def check(self, now: float, file: Mapping[str, str]) -> None:
        """Hold the netrc, host -> token, against the promise. The machine is awake."""
        for since in self.waiters.values():
            assert now - max(since, self.woke_at) <= WAIT, "somebody waits for ever"
        if now <= self.all_excused:
            return
        assert file.keys() <= {index.host for index in self.indexes}, "an entry stands that nobody configured"
        for index in self.indexes:
            if now > self.excused_hosts.get(index.host, 0.0):
                self._check(now, index.request, file.get(index.host))

    def _check(self, now: float, request: Request, standing: str | None) -> None:
        if standing is not None:
            end = self.tokens[standing].end
            assert end is None or now <= end + SETTLE, "a dead token stands in the file"
        token = self.received.get(request)
        alive = token is not None and token.alive(now)
        if token is not None and alive and now > self.settled[request]:
            assert standing == token.name, "a valid token does not stand in the file"
        if now > self.excused[request]:
            assert token is not None, "no token as promised, though one could be had"
            just_dead = token.end is not None and token.skewed and now <= token.end + 1.0 + SETTLE
            assert alive or just_dead, "no valid token as promised, though one could be had"
            if token.end is not None and not token.skewed:
                assert token.end - now >= self.issuers[request].promise - 0.001, "less life than promised"
            rotated = self.rotations.get(request, now)
            assert token.issued >= rotated or now - rotated <= REREAD + SETTLE, "an old secret stands in the file"

    def all_is_well(self, now: float, file: Mapping[str, str]) -> None:
        """Long after the last fault each index has a token that is really good, whatever we were told."""
        for index in self.indexes:
            assert index.host in file, "wedged"
            end = self.tokens[file[index.host]].real_end
            assert end is None or end > now, "wedged with a dead token"

    # --------------------------------------------------------------------------------------- what the agent is told

    def began(self, request: Request, now: float, duration: float) -> None:
        self.excused[request] = now + duration + SETTLE
        allowed = REQUESTS_PER_HOUR + REQUESTS_PER_PROD * _within(self.prods, now)
        assert _count(self.requests, request, now) <= allowed, "a burst of requests"

    def fetched(self, request: Request, now: float, token: Token) -> None:
        self.tokens[token.name] = self.received[request] = token
        self.settled[request] = self.excused[request] = now + SETTLE
        self.logins.pop(request, None)
        if token.skewed:
            self.skewed[request] = now
        skewed = now - self.skewed.get(request, -math.inf) < 3600
        allowed = _tokens_an_hour(self.issuers[request], skewed) + _within(self.prods, now)
        assert _count(self.successes, request, now) <= allowed, "tokens in a loop"

    def failed(self, request: Request, now: float, failure: Failure) -> None:
        token = self.received.get(request)
        valid = token is not None and token.alive(now)
        wait = 300.0
        if failure.retry_after is not None:
            wait = min(max(failure.retry_after, 1.0), 3600.0) + 5.0
        elif failure.kind == "transient" and (not valid or failure.reason in {"unreachable", "deadline"}):
            wait = 30.0
        if token is not None and valid and token.end is not None and failure.retry_after is None:
            wait = min(wait, token.end - now)
        if self.logins.pop(request, None) is not None:
            wait = 1.0
        self.excused[request] = now + wait + SETTLE

    def login_seen(self, now: float, flights: Collection[Request]) -> None:
        self.prods.append(now)
        self.logins.update(dict.fromkeys(flights, now))
        self._no_more_waiting(now, flights)

    def woke(self, now: float, flights: Collection[Request]) -> None:
        self.prods.append(now)
        self.woke_at = now
        self.overwrote = -math.inf  # and so does a sleep
        self.all_excused = now + SETTLE
        self._no_more_waiting(now, flights)

    def _no_more_waiting(self, now: float, flights: Collection[Request]) -> None:
        for request, until in self.excused.items():
            if request not in flights:
                self.excused[request] = min(until, now + SETTLE)

    def delivered(self, now: float, rival: bool) -> None:
        self.all_excused = min(self.all_excused, now + SETTLE)
        if rival:
            assert now - self.overwrote >= FIGHT, "a fight"
            self.overwrote = now

    def not_delivered(self, now: float, failure: Failure) -> None:
        self.all_excused = now + (300.0 if failure.reason == "contested" else 30.0) + SETTLE

    def asked(self, waiter: int, now: float, due_only: bool) -> None:
        self.prods.append(now)
        if not due_only:
            self.overwrote = -math.inf  # a person's word ends the yielding
        self.waiters[waiter] = now

    def answered(self, waiter: int) -> None:
        del self.waiters[waiter]

    def rotated(self, request: Request, now: float) -> None:
        self.rotations[request] = now

    def touched(self, host: str) -> None:
        self.excused_hosts[host] = math.inf
        self.drifting.add(host)

    def drift_seen(self, host: str, now: float, foreign: bool) -> None:
        self.drifting.discard(host)
        self.excused_hosts[host] = math.inf if foreign else now + SETTLE

    def configured(self, now: float, indexes: tuple[Index, ...]) -> None:
        self._begin_anew(now, indexes, self.received.keys())

    def restarted(self, now: float, indexes: tuple[Index, ...], recovered: Collection[Request]) -> None:
        self.overwrote = -math.inf
        self.waiters.clear()
        self.logins.clear()
        self.excused.clear()
        self._begin_anew(now, indexes, recovered)

    def _begin_anew(self, now: float, indexes: tuple[Index, ...], known: Iterable[Request]) -> None:
        self.prods.append(now)
        self.all_excused = max(self.all_excused, now + SETTLE)
        self.indexes = indexes
        requests = {index.request for index in indexes}
        self.received = {request: self.received[request] for request in known if request in requests}
        self.excused = {request: self.excused.get(request, now + SETTLE) for request in requests}


def _tokens_an_hour(issuer: Issuer, skewed: bool) -> float:
    """Return how many tokens of one lease may come in within an hour.

    A fresh one is asked for at 9/20 of its life at the earliest; a cached one halfway again and again, which from the
    whole of its life down to 30 s makes a logarithm. A token that came in
    under a wrong clock looks as used as a cached one.
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
