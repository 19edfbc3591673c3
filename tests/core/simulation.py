"""Simulate months of a laptop in milliseconds: the agent in a world that sleeps, fails and reports wrong times.

Time jumps from event to event. Everything that happens is a method of `World`, so that a seeded schedule (`run`) and
Hypothesis (test_simulation.py) drive the same world. `laws` checks the promise. The daemon's part around the agent is
the same as in the daemon: one planned time per lease and delivery, slots for the workers (the real `Slots`), the state
file between two daemons (the real file), and the loop's reactions to a stepped clock, a sign-in or a changed netrc.

A sleeping machine handles nothing. After a wake-up or a clock step, either the kernel tells the daemon at once or the
daemon notices at its next guard tick; each history has one of the two.
"""

from __future__ import annotations

import heapq
import json
import os
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from unittest import mock

from laws import DEADLINE, DELIVERY, FETCH, GRACE, GRACE_NOTIFIED, SETTLE, TICK, Issuer, Laws, Token

from uvtokend import clock
from uvtokend.core import delivery, events, state, status
from uvtokend.core.agent import Agent, admit
from uvtokend.core.model import Credential, Entry, Failure, Index, Record, Request, Secret, Settings
from uvtokend.core.slots import Slots
from uvtokend.core.status_rows import Rows
from uvtokend.core.views import IndexView, Snapshot
from uvtokend.disk.state_file import Store

#: The directory of the state files, in memory because a real disk is slower.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86400.0
#: A metadata server, ``az`` and ``gcloud`` return the same token until it is valid for only this many seconds.
WINDOW = 300.0
CPUS = 2

UNREACHABLE = Failure("transient", "unreachable", "No answer.")
HUNG = Failure("transient", "deadline", "The fetch was killed at its deadline.")
LOGIN_ENDED = Failure("login-required", "sso-expired", "Sign in.", "aws sso login")
DISK_FULL = Failure("transient", "disk-full", "The disk is full.")
HELD = Failure("transient", delivery.HELD_OPEN, "Another program holds it open.")
CONTESTED = Failure("transient", delivery.CONTESTED, "Another program changes our block repeatedly.")
#: What an issuer may answer instead of a token.
TROUBLES: dict[str, Failure | Credential] = {
    "busy": Failure("transient", "throttled", "Too many requests.", retry_after=120.0),
    "very-busy": Failure("transient", "throttled", "Too many requests.", retry_after=1e9),
    "error": Failure("transient", "server-error", "The issuer has an internal error."),
    "denied": Failure("rejected", "access-denied", "Access denied."),
    "unwritable": Credential("u", Secret("a\nb"), START),
    "dead": Credential("u", Secret("t"), START - timedelta(hours=1), START),
    "hung": HUNG,
}
ISSUERS = (
    Issuer(3600.0),
    Issuer(43200.0),
    Issuer(7200.0, refresh_after=3600.0),
    Issuer(3600.0, caching=True),
    Issuer(3600.0, caching=True, relative=True),
    Issuer(43200.0, caching=True, relative=True),
    Issuer(None),
    Issuer(900.0),
)


def _document(views: tuple[IndexView, ...], now: datetime) -> status.StatusDocument:
    frame = status.Frame("1.0.0", "/config.toml", "/netrc", "/socket")
    return status.of_daemon(frame, Snapshot(views, True, None), (), now)


@dataclass
class World:
    """Everything around the agent.

    Args:
        dice: The source of randomness.
        issuers: One for each lease.
        shared: How many indexes the first lease serves.
        guard_tick: False for a daemon without a guard tick, which never notices a sleep.
        watch: False for a daemon that does not watch for a sign-in.
        notified: The kernel reports wake-ups, clock steps and the return of the network.
        slots: How many workers may run at once.
        kinds: How many kinds of fetches share workers; with 0, none does.
    """

    dice: Random
    issuers: Iterable[Issuer]
    shared: int = 1
    guard_tick: bool = True
    watch: bool = True
    notified: bool = False
    slots: int = 4
    kinds: int = 0
    now: float = 0.0
    network: bool = True
    login: bool = True
    disk: bool = True
    held: bool = False  # another program has emptied the netrc and not written it yet
    hung: bool = False  # the netrc's file system hangs
    asleep: bool = False
    dazed: bool = False  # awake, but the daemon has not noticed yet
    pausing: bool = False  # the machine was paused, and its wall clock is not corrected yet
    skew: float = 0.0  # the offset of the wrong wall clock
    paused: float = 0.0  # how long the machine has been paused in total
    boot: int = 1
    troubles: dict[Request, str] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    file: dict[str, str] = field(default_factory=dict)  # host -> the token's name
    current: dict[Request, Token] = field(default_factory=dict)
    flights: dict[Request, int] = field(default_factory=dict)
    hung_before: set[Request] = field(default_factory=set)  # requests whose last fetch hung
    limits: dict[Request, float] = field(default_factory=dict)
    plans: dict[events.Job, float] = field(default_factory=dict)
    delivering: int | None = None
    stuck: list[Callable[[], None]] = field(default_factory=list)  # deliveries that the disk does not finish
    known: state.State = field(default_factory=state.State)  # the content of the state file
    queue: list[tuple[float, int, Callable[[], None], bool, bool]] = field(default_factory=list)
    frozen: deque[tuple[Callable[[], None], bool]] = field(default_factory=deque)
    healed: bool = False
    ticks: int = 0  # in a row without progress
    ticked_at: float = -1.0
    serial: int = 0
    fetches: int = 0
    news_at: float = 0.0
    rows: Rows = field(default_factory=Rows)

    def __post_init__(self) -> None:
        issuers = {Request("p", options=(("n", n),)): issuer for n, issuer in enumerate(self.issuers)}
        owners = [request for n, request in enumerate(issuers) for _ in range(1 if n else self.shared)]
        self.all_indexes = tuple(
            Index(f"i{n}", f"https://h{n}.example/", f"h{n}.example", "p", request) for n, request in enumerate(owners)
        )
        directory = tempfile.mkdtemp(dir=_MEMORY)
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self.store = Store(directory, len(self.all_indexes))
        self.laws = Laws(issuers, self.slots)
        self.agent = Agent()
        self.line: Slots[Request] = Slots(self.slots, CPUS)
        self.configure(self.all_indexes)

    # ------------------------------------------------------------------------------------------------------- time

    def at(self) -> datetime:
        return START + timedelta(seconds=self.now)

    def live(self, seconds: float) -> None:
        """Advance the time, and let everything happen that is due."""
        until = self.now + seconds
        while self._step(until):
            pass
        self._go(until)

    def later(self, seconds: float, what: Callable[[], None], world: bool = False, wire: bool = False) -> None:
        """Schedule something.

        Args:
            seconds: In how many seconds.
            what: What happens.
            world: It happens outside; everything else waits until a sleeping machine is awake.
            wire: It arrives over a connection, which may be broken after a sleep.
        """
        self.serial += 1
        heapq.heappush(self.queue, (self.now + seconds, self.serial, what, world, wire))

    def _step(self, until: float) -> bool:
        due, job = float("inf"), None
        if self.plans and not self.asleep and not self.dazed:
            job = min(self.plans, key=self.plans.__getitem__)
            due = self.plans[job]
        next_ = self.queue[0][0] if self.queue else float("inf")
        if min(due, next_) > until:
            return False
        self._go(max(self.now, min(due, next_)))
        if job is not None and due <= next_:
            self.ticks = self.ticks + 1 if self.now <= self.ticked_at else 0
            self.ticked_at = self.now
            assert self.ticks < 100 + len(self.plans), "a hot loop"
            del self.plans[job]
            self.feed(events.Due(job))
            return True
        _, _, what, world, wire = heapq.heappop(self.queue)
        if self.asleep and not world:
            self.frozen.append((what, wire))
        else:
            what()
        return True

    def _go(self, now: float) -> None:
        self.now = now
        wrong = {request: grace for request in self.laws.issuers if (grace := self._grace(request))}
        writable = self.disk and not self.held and not self.hung and not self.asleep
        self.laws.check(now, self.file, wrong, writable, not (self.asleep or self.dazed), self.foreign)

    def _grace(self, request: Request) -> float:
        """Return how many seconds the daemon may take to recover from what is wrong now; 0 if nothing is."""
        if request in self.troubles or not self.login or self.skew or self.pausing:
            return GRACE
        if request not in self.flights and request in self.line:
            if request in self.hung_before:
                return GRACE  # it goes last
            if self.slots < len(self.laws.issuers):
                return FETCH + SETTLE  # more fetches may be due than there are slots
        if self.asleep or not self.network:
            return GRACE_NOTIFIED if self.notified else GRACE
        return 0.0

    # ------------------------------------------------------------------------------------- the agent and its actions

    def feed(self, event: events.Event) -> None:
        """Let the agent handle an event, and carry out its actions."""
        for action in self.agent.handle(event, self.at()):
            match action:
                case events.StartFetch(request, limit, hung):
                    self.limits[request] = DEADLINE if limit is None else min(DEADLINE, limit)
                    self.laws.lined_up(request, self.now)
                    assert request not in self.line, "two fetches in flight for one lease"
                    (self.hung_before.add if hung else self.hung_before.discard)(request)
                    self.line.ask(request, self.now, kind=self._kind(request), hung=hung)
                    self._fill()
                case events.RestartFetch(request, limit):
                    self.limits[request] = DEADLINE if limit is None else min(DEADLINE, limit)
                    if request in self.flights:
                        self._begin(request)
                case events.CancelFetch(request):
                    self.flights.pop(request, None)
                    self.laws.ended(request)
                    self.line.leave(request)
                    self._fill()
                case events.Deliver():
                    self._deliver(action)
                case events.Plan(job, _, None):
                    del self.plans[job]
                case events.Plan(job, _, datetime() as at):
                    self.plans[job] = (at - START).total_seconds()
                case events.Settled(waiter):
                    self.laws.answered(waiter)
                case _:
                    pass

    def _fill(self) -> None:
        for request in self.line.starts(self.now):
            self._begin(request)
        at = self.line.look_at(self.now)
        if at is not None:
            self.later(max(0.0, at - self.now), self._make_way)

    def _make_way(self) -> None:
        while (request := self.line.gives_way(self.now)) is not None:
            del self.flights[request]
            self.hung_before.add(request)
            self.laws.lined_up(request, self.now)
            self._fill()
        self._fill()

    def _kind(self, request: Request) -> int | None:
        number = request.option("n")
        return number % self.kinds if self.kinds and isinstance(number, int) else None

    def _begin(self, request: Request) -> None:
        self.serial += 1
        number = self.flights[request] = self.serial
        self.fetches += 1
        duration, fate = self.dice.uniform(0.3, FETCH), None
        if not self.network:
            duration, fate = (DEADLINE, HUNG) if self.dice.random() < 0.3 else (duration / 10, UNREACHABLE)
        elif self.troubles.get(request) == "hung":
            duration, fate = DEADLINE, HUNG
        elif not self.login:
            fate = LOGIN_ENDED  # a worker reads the sign-in when it begins
        if duration > self.limits[request]:
            duration, fate = self.limits[request], HUNG
        self.laws.began(request, self.now)
        self.later(duration, lambda: self._fetched(request, number, fate, self.limits[request] - duration), wire=True)

    def _fetched(self, request: Request, number: int, fate: Failure | None, left: float) -> None:
        """End a fetch, unless the network failed meanwhile: then its connection is broken and it may hang until its
        deadline."""
        if self.flights.get(request) != number:
            return  # its worker was killed
        if not self.network and fate is None and left > 0.0 and self.dice.random() < 0.3:
            self.later(left, lambda: self._fetched(request, number, HUNG, 0.0), wire=True)
            return
        del self.flights[request]
        heir = self.line.passes_on(request, self.now) if fate is not HUNG else None
        self.line.leave(request)
        self.laws.ended(request)
        answer = fate or self._answer(request)
        outcome = self._credential(request, answer) if isinstance(answer, Token) else answer
        admitted = admit(outcome, "h.example", self.at())
        if not isinstance(admitted, Failure) and isinstance(answer, Token):
            self.laws.fetched(request, self.now, answer, self.skew + self.paused)
        if heir is not None:
            self._begin(heir)
        self._fill()
        self.feed(events.FetchEnded(request, outcome, self.dice.random()))
        if isinstance(admitted, Failure):
            self.laws.failed(request, self.now, admitted, self._named(request))
            self._judge()
        if fate is LOGIN_ENDED and self.login and self.watch:
            self._logged_in_meanwhile(request)

    def _named(self, request: Request) -> float | None:
        """Return the time of the next fetch according to the status."""
        one = next(index for index in self.agent.indexes if index.request == request)
        (view,) = self.agent.snapshot(self.at(), [one]).indexes
        return None if view.retry_at is None else (view.retry_at - START).total_seconds()

    def _logged_in_meanwhile(self, request: Request) -> None:
        """The sign-in files have changed since the fetch began, see `login_watch.Watch.fails`."""
        self.laws.login_seen(self.now, (request,))
        self.feed(events.LoginChanged((request,)))

    def _answer(self, request: Request) -> Token | Failure | Credential:
        if not self.network:
            return UNREACHABLE
        if request in self.troubles:
            return TROUBLES[self.troubles[request]]
        return self._seen(self._token(request), self.laws.issuers[request])

    def _token(self, request: Request) -> Token:
        """Return the token that a healthy issuer returns."""
        issuer, token = self.laws.issuers[request], self.current.get(request)
        ends = token is not None and token.end is not None and token.end - self.now < WINDOW
        if token is None or ends or not (issuer.caching or issuer.life is None):
            end = None if issuer.life is None else self.now + issuer.life
            self.serial += 1
            token = self.current[request] = Token(f"t{self.serial}", self.now, end, end)
        return token

    def _seen(self, token: Token, issuer: Issuer) -> Token:
        """Return a token with the times that a machine with this clock computes."""
        if token.end is None:
            return token
        late = self.dice.random() if issuer.relative else 0.0
        return replace(token, end=token.end - late + self.skew, skewed=bool(self.skew))

    def _credential(self, request: Request, token: Token) -> Credential:
        issued = min(token.issued + (self.skew if token.end is not None else 0.0), self.now)
        after = self.laws.issuers[request].refresh_after
        end = None if token.end is None else _time(token.end)
        refresh = None if after is None else _time(issued + after)
        wall_end = None if end is None else end + self._shift()
        return Credential("u", Secret(token.name), _time(issued), end, refresh, wall_end=wall_end)

    # -------------------------------------------------------------------------------------------- disk and deliveries

    def _deliver(self, action: events.Deliver) -> None:
        assert self.delivering is None, "two deliveries at once"
        self.laws.delivery_began(self.now, any(request in self.line for request in self.laws.issuers))
        self.serial += 1
        number = self.delivering = self.serial
        before, records = state.on_clock(self.known, self._boot()), self._records(action)
        news = state.began(before, "netrc", action.wanted, records, "config.toml", created=False)
        self._save(replace(state.joined(before, news), boot=self._boot()))
        self.later(DELIVERY, lambda: self._delivered(number, action))

    def _delivered(self, number: int, action: events.Deliver) -> None:
        if self.delivering != number:
            return  # the daemon that began it was killed
        if self.hung:
            self.stuck.append(lambda: self._delivered(number, action))
            return
        self.delivering = None
        rival = action.left is not None and self.file != {one.host: one.password.reveal() for one in action.left}
        failure = HELD if self.held else CONTESTED if rival and action.yielding else None if self.disk else DISK_FULL
        foreign = frozenset(entry.host for entry in action.wanted) & self.foreign
        if failure is None:
            self.file = {one.host: one.password.reveal() for one in action.wanted if one.host not in foreign}
            written = tuple(known for known in self._records(action) if not foreign.issuperset(known.targets))
            self._save(state.with_records(self.known, written, "netrc"))
            self.laws.delivered(self.now, rival)
        self.feed(events.DeliveryEnded(action.wanted, self.dice.random(), failure, foreign, rival=rival))
        contested = self.agent.deliveries["netrc"]
        if contested.contested and failure is CONTESTED:
            self._yielded(contested)

    def _yielded(self, contested: delivery.Delivery) -> None:
        """Check that every index that waits only for the delivery names the time until which the agent gives way."""
        assert contested.retry_at is not None
        for view in self.agent.snapshot(self.at()).indexes:
            if view.lease.state == "waiting":
                assert view.retry_at == contested.retry_at, "the status does not say for how long the agent gives way"
        self.laws.yielded(self.now, (contested.retry_at - START).total_seconds())

    def _save(self, new: state.State) -> None:
        self.known = new
        self.store.save(new, durable=False)

    def _shift(self) -> timedelta:
        """Return the difference between the wall clock and the daemon's own time."""
        return timedelta(seconds=self.skew + self.paused)

    def _boot(self) -> state.Boot:
        return state.Boot(f"boot-{self.boot}", START + self._shift())

    def _records(self, action: events.Deliver) -> tuple[Record, ...]:
        """Return the records of a delivery for the state file, on the wall clock."""
        wanted = {entry.host: entry.password for entry in action.wanted}
        hosts: dict[Request, list[str]] = {}
        for index in self.agent.indexes:
            lease = self.agent.leases[index.request]
            if lease.credential is not None and wanted.get(index.host) == lease.credential.password:
                hosts.setdefault(index.request, []).append(index.host)
        records = []
        for request, targets in hosts.items():
            lease = self.agent.leases[request]
            assert lease.credential is not None
            assert lease.refresh_at is not None
            record = state.record(request, lease.credential, lease.refresh_at, tuple(sorted(targets)))
            records.append(state.shifted(record, self._shift()))
        return tuple(records)

    # ---------------------------------------------------------------------------------------------------- happenings

    def set_network(self, up: bool) -> None:
        """Disconnect or reconnect the network. The kernel reports the reconnection, at most once in 5 s."""
        returned, self.network = up and not self.network, up
        if returned and self.notified and not self.asleep:
            self.news_at = max(self.now + 0.25, self.news_at + 5.0)
            self.later(self.news_at - self.now, self._news)

    def _news(self) -> None:
        self.laws.network_seen(self.now)
        self.feed(events.NetworkReturned())

    def set_disk(self, free: bool) -> None:
        self.disk = free

    def hang_disk(self) -> None:
        self.hung = True

    def unhang_disk(self) -> None:
        """End the hang; the stuck deliveries finish."""
        self.hung = False
        while self.stuck:
            self.later(DELIVERY, self.stuck.pop())

    def hold(self) -> None:
        """Another program empties the netrc and writes its text much later, as ``gpg -d x > ~/.netrc`` does."""
        self.held = True
        self.rewrite()

    def release(self) -> None:
        if self.held:
            self.held = False
            self.rewrite()

    def set_login(self, good: bool) -> None:
        """End the sign-in, or sign in. If a lease is blocked, the daemon notices the sign-in within 2 s."""
        self.login = good
        if good and self.watch:
            self.later(2.0, self._look_for_login)

    def _look_for_login(self) -> None:
        if self.agent.blocked:
            leases = self.agent.leases.values()
            failed = tuple(lease.request for lease in leases if lease.state in {"blocked", "retrying"})
            self.laws.login_seen(self.now, failed)
            self.feed(events.LoginChanged(failed))

    def set_trouble(self, which: int, trouble: str | None) -> None:
        """Let one issuer fail, or recover."""
        request = self.all_indexes[which % len(self.all_indexes)].request
        if trouble is None:
            self.troubles.pop(request, None)
        else:
            self.troubles[request] = trouble

    def sleep(self) -> None:
        self.asleep = True

    def wake(self) -> None:
        """Wake up. Pending events follow soon, answers from the network late, and timers when the daemon notices."""
        self.asleep, self.dazed = False, True
        while self.frozen:
            what, wire = self.frozen.popleft()
            self.later(self.dice.uniform(10.0, 20.0) if wire else DELIVERY, what, wire=wire)
        self.later(self._notice(), self._noticed)

    def _notice(self) -> float:
        """Return how many seconds the daemon takes to notice a sleep or a clock step."""
        if self.notified:
            return 0.2
        return self.dice.uniform(0.2, TICK) if self.guard_tick else DAY

    def _noticed(self) -> None:
        if self.dazed and not self.asleep:
            self.dazed = False
            self.laws.woke(self.now)
            self.feed(events.Woke())

    def _judge(self) -> None:
        """As the loop does, report that a time service keeps the wall clock, unless the clock is wrong now."""
        if not self.skew and not self.pausing:
            idle = [request for request in self.laws.issuers if request not in self.line]
            self.laws.judged(self.now, idle, self.paused)
            if self.agent.doubts(self._shift()):
                self.feed(events.ClockTrusted(self._shift()))

    def step_clock(self, skew: float) -> None:
        """Set the wall clock."""
        self.skew = skew
        self.later(self._notice(), self._stepped)

    def pause(self, seconds: float) -> None:
        """Pause the machine, its own clocks included; afterwards its wall clock is corrected."""
        if self.pausing or self.skew:
            return
        self.laws.paused(seconds)
        self.current = {request: _older(token, seconds) for request, token in self.current.items()}
        self.pausing = True
        self.later(self.dice.uniform(0.0, 5.0), lambda: self._resynced(seconds), world=True)

    def _resynced(self, seconds: float) -> None:
        self.pausing = False
        self.paused += seconds
        self.later(self._notice(), self._stepped)

    def _stepped(self) -> None:
        if self.dazed:
            self.later(TICK, self._stepped)
            return
        self.laws.woke(self.now)
        self.feed(events.Woke(stepped=True))
        self._judge()

    def ask(self, names: tuple[str, ...] | None, only_waits: bool = False) -> None:
        """A client asks for fresh tokens, or only waits for fetches in flight."""
        if self.asleep or self.dazed:
            return
        known = tuple(index.name for index in self.agent.indexes)
        chosen = known if names is None else tuple(name for name in names if name in known)
        self.serial += 1
        self.laws.asked(self.serial, self.now, only_waits)
        self.feed((events.WaitAsked if only_waits else events.RefreshAsked)(chosen, self.serial))

    def rotate(self) -> None:
        """The owner of the secrets without an expiry changes them."""
        for request, issuer in self.laws.issuers.items():
            if issuer.life is None:
                self.current.pop(request, None)
                self.laws.rotated(request, self.now)

    def set_foreign(self, host: str, present: bool) -> None:
        """Another program adds a foreign entry for a host of ours, or removes it."""
        if present:
            self.foreign.add(host)
            self.file.pop(host, None)
        else:
            self.foreign.discard(host)
        self._touched(host)

    def rewrite(self) -> None:
        """Another program restores an old copy of the netrc, without our entries."""
        for index in self.all_indexes:
            self.file.pop(index.host, None)
            self._touched(index.host)

    def fight(self, seconds: float) -> None:
        """Another program restores its old copy repeatedly."""
        until = self.now + seconds

        def again() -> None:
            if self.now < until and not self.healed:
                self.rewrite()
                self.later(self.dice.uniform(1.0, 20.0), again)

        again()

    def _touched(self, host: str) -> None:
        self.laws.touched(host)
        self.later(self.dice.uniform(0, TICK), self._drift)

    def _drift(self) -> None:
        if self.dazed or self.delivering is not None:
            self.later(TICK / 25, self._drift)
            return
        self.laws.drift_seen(self.now)
        self.feed(events.SinkDrifted())

    def configure(self, indexes: Iterable[Index]) -> None:
        """Load a configuration with these indexes."""
        if self.asleep or self.dazed:
            return
        chosen = tuple(indexes)
        self.laws.configured(self.now, chosen)
        self.feed(events.Configured(Settings("config.toml", chosen)))

    def kill(self, reboot: bool = False) -> None:
        """Kill the daemon or reboot, and start a new one from the netrc and the state file."""
        if self.asleep or self.dazed or self.hung:
            return
        indexes, self.agent = self.agent.indexes, Agent()
        self.flights.clear()
        self.plans.clear()
        self.line = Slots(self.slots, CPUS)
        self.delivering = None
        self.boot += reboot
        with mock.patch.object(clock, "boot", self._boot):
            self.known = self.store.load()
        requests = tuple(dict.fromkeys(index.request for index in indexes))
        standing = {host: Entry(host, "u", Secret(token)) for host, token in self.file.items()}
        records = tuple(state.shifted(known, -self._shift()) for known in self.known.records)
        recovered = state.recover(records, standing, requests, self.at())
        self.laws.restarted(self.now, indexes, recovered)
        self.feed(events.Configured(Settings("config.toml", indexes), recovered))
        self._judge()

    def look(self) -> None:
        """Check that every index that the status reports as delivered has a valid token in the netrc."""
        if self.asleep or self.dazed:
            return
        for view in self.agent.snapshot(self.at()).indexes:
            if view.delivered and view.index.host not in self.laws.drifting:
                assert view.index.host in self.file, "the status reports an entry that is not in the netrc"
                token = self.laws.tokens[self.file[view.index.host]]
                assert token.alive(self.now), "the status reports an expired token as delivered"
        now, agent = self.at(), self.agent
        outdated = self.rows.outdated(agent.indexes, agent.leases, agent.deliveries, now, timedelta())
        views = agent.snapshot(now, outdated).indexes
        self.rows.take(_document(views, now)["indexes"], views, now)
        text = self.rows.text(_document((), now), agent.indexes, now)
        assert json.loads(text) == _document(agent.snapshot(now).indexes, now), "the status shows what was true before"

    def heal(self) -> None:
        """End all faults for good."""
        self.healed = True
        if self.asleep:
            self.wake()
        self.set_network(True)
        self.set_disk(True)
        self.unhang_disk()
        self.release()
        self.set_login(True)
        self.troubles.clear()
        if self.skew:
            self.step_clock(0.0)
        for host in sorted(self.foreign):
            self.set_foreign(host, False)


def _older(token: Token, seconds: float) -> Token:
    """Return a token that came closer to its expiry while the machine was paused."""
    if token.end is None or token.real_end is None:
        return token
    return replace(token, issued=token.issued - seconds, end=token.end - seconds, real_end=token.real_end - seconds)


def _time(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def run(
    seed: int, days: float, guard_tick: bool = True, watch: bool = True, often: float = 1.0, kinds: int = 0
) -> World:
    """Run one history with faults of every kind.

    Args:
        seed: The seed of the history.
        days: The length of the history.
        guard_tick: False for a daemon without a guard tick, which never notices a sleep.
        watch: False for a daemon that does not watch for a sign-in.
        often: A factor for the frequency of the faults.
        kinds: How many kinds of fetches share workers.

    Raises:
        AssertionError: A law is broken.
    """
    dice = Random(seed)
    weights = (6, 6, 3, 3, 3, 2, 2, 0.3)
    issuers = dice.choices(ISSUERS, weights, k=dice.randint(1, 3))
    notified, slots = guard_tick and dice.random() < 0.5, dice.choice([1, 2, 4])
    world = World(dice, issuers, dice.randint(1, 3), guard_tick, watch, notified, slots, kinds)
    for gap, length, begin, end in _faults(world, dice):
        _plan(world, gap * DAY / often, length * 3600, begin, end)
    world.live(days * DAY)
    world.heal()
    world.live(2 * 3600.0)
    world.laws.all_is_well(world.now, world.file)
    return world


_Act = Callable[[], None]


def _faults(world: World, dice: Random) -> list[tuple[float, float, _Act, _Act | None]]:
    """Return for each fault its mean gap in days, its mean length in hours, and the functions that begin and end it."""
    hosts = [index.host for index in world.all_indexes]
    names = [index.name for index in world.all_indexes]
    lease = dice.randrange(len(hosts))
    return [
        (1, 9, world.sleep, lambda: world.wake() if world.asleep else None),
        (2, 4, lambda: world.set_network(False), lambda: world.set_network(True)),
        (5, 4, lambda: world.set_login(False), lambda: world.set_login(True)),
        (10, 4, lambda: world.set_disk(False), lambda: world.set_disk(True)),
        (12, 1, world.hang_disk, world.unhang_disk),
        (12, 0.02, world.hold, world.release),
        (4, 3, lambda: world.set_trouble(lease, dice.choice(list(TROUBLES))), lambda: world.set_trouble(lease, None)),
        (
            9,
            5,
            lambda: world.step_clock(dice.choice([-18000, -2400, -900, -60, 60, 900])),
            lambda: world.step_clock(0.0),
        ),
        (15, 8, lambda: world.set_foreign(hosts[0], True), lambda: world.set_foreign(hosts[0], False)),
        (15, 8, lambda: world.configure(world.all_indexes[1:]), lambda: world.configure(world.all_indexes)),
        (3, 0, lambda: world.ask(None if dice.random() < 0.5 else (dice.choice(names),), dice.random() < 0.3), None),
        (6, 0, world.rewrite, None),
        (12, 0, lambda: world.fight(300.0), None),
        (6, 0, world.kill, None),
        (12, 0, lambda: world.kill(reboot=True), None),
        (9, 0, lambda: world.pause(dice.choice([40.0, 900.0, 7200.0, 86400.0])), None),
        (10, 0, world.rotate, None),
        (0.1, 0, world.look, None),
    ]


def _plan(world: World, gap: float, length: float, begin: _Act, end: _Act | None) -> None:
    """Let a fault occur repeatedly."""

    def come() -> None:
        if world.healed:
            return
        begin()
        lasts = world.dice.expovariate(1 / length) if end is not None else 0.0
        if end is not None:
            world.later(lasts, end, world=True)
        world.later(lasts + world.dice.expovariate(1 / gap), come, world=True)

    world.later(world.dice.expovariate(1 / gap), come, world=True)
