"""A laptop's months in milliseconds: the agent in a world that sleeps, breaks and lies. `laws` says what must hold.

Time jumps from event to event. Everything that happens is a method of `World`, so that a seeded schedule (`run`) and
Hypothesis (test_simulation.py) drive the same world. A sleeping machine handles nothing; after it wakes, the guard tick
comes up to 30 s later, as it does in daemon/timer.py. What the daemon's loop makes of a stepped wall clock, of a login
and of a changed netrc comes to the agent as it does there: `RefreshAsked`, `LoginChanged`, `SinkDrifted`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from laws import DEADLINE, DELIVERY, TICK, Issuer, Laws, Token

from uvtokend.core import events, state
from uvtokend.core.agent import Agent, admit
from uvtokend.core.delivery import CONTESTED as CONTESTED_REASON
from uvtokend.core.model import Credential, Entry, Failure, Index, Request, Secret, Settings

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86400.0
#: The longest fetch that comes to a good end, in seconds.
FETCH = 5.0
#: A metadata server, ``az`` and ``gcloud`` hand out a token again until it has this long to live.
WINDOW = 300.0

UNREACHABLE = Failure("transient", "unreachable", "Nobody answers.")
HUNG = Failure("transient", "deadline", "The fetch did not end and was killed.")
LOGIN_ENDED = Failure("login-required", "sso-expired", "Log in.", "aws sso login")
DISK_FULL = Failure("transient", "disk-full", "The disk is full.")
CONTESTED = Failure("transient", CONTESTED_REASON, "Another program changes our block again and again.")
#: What an issuer may answer instead of a token.
TROUBLES: dict[str, Failure | Credential] = {
    "busy": Failure("transient", "throttled", "Too many requests.", retry_after=120.0),
    "very-busy": Failure("transient", "throttled", "Too many requests.", retry_after=1e9),
    "error": Failure("transient", "server-error", "The issuer has an error of its own."),
    "denied": Failure("rejected", "access-denied", "You may not."),
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


@dataclass
class World:
    """Everything around the agent.

    Args:
        dice: What chance there is.
        issuers: One for each lease.
        shared: How many indexes the first lease serves.
        guard_tick: False for a daemon that forgets about sleep.
        watch: False for a daemon that does not look for a new login.
    """

    dice: Random
    issuers: Iterable[Issuer]
    shared: int = 1
    guard_tick: bool = True
    watch: bool = True
    now: float = 0.0
    network: bool = True
    login: bool = True
    disk: bool = True
    asleep: bool = False
    dazed: bool = False  # awake, but the timers have not noticed yet
    skew: float = 0.0  # what the wrong wall clock adds to an issuer's times
    troubles: dict[Request, str] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    file: dict[str, str] = field(default_factory=dict)  # host -> the token's name
    current: dict[Request, Token] = field(default_factory=dict)
    flights: dict[Request, int] = field(default_factory=dict)
    delivering: int | None = None
    queue: list[tuple[float, int, Callable[[], None], bool]] = field(default_factory=list)
    frozen: deque[Callable[[], None]] = field(default_factory=deque)
    healed: bool = False
    ticks: int = 0  # in a row, for something that is due and is not done
    ticked_at: float = -1.0
    serial: int = 0
    fetches: int = 0

    def __post_init__(self) -> None:
        issuers = {Request("p", options=(("n", n),)): issuer for n, issuer in enumerate(self.issuers)}
        owners = [request for n, request in enumerate(issuers) for _ in range(1 if n else self.shared)]
        self.all_indexes = tuple(
            Index(f"i{n}", f"https://h{n}.example/", f"h{n}.example", "p", request) for n, request in enumerate(owners)
        )
        self.laws = Laws(issuers)
        self.agent = Agent()
        self.configure(self.all_indexes)

    # ------------------------------------------------------------------------------------------------------- time

    def at(self) -> datetime:
        return START + timedelta(seconds=self.now)

    def live(self, seconds: float) -> None:
        """Let time go by, and everything happen that is due in it."""
        until = self.now + seconds
        while self._step(until):
            pass
        self._go(until)

    def later(self, seconds: float, what: Callable[[], None], world: bool = False) -> None:
        """Let something happen later; what is not the `world`'s waits until a sleeping machine is awake."""
        self.serial += 1
        heapq.heappush(self.queue, (self.now + seconds, self.serial, what, world))

    def _step(self, until: float) -> bool:
        deadline = None if self.asleep or self.dazed else self.agent.deadline(self.at())
        due = float("inf") if deadline is None else (deadline - START).total_seconds()
        next_ = self.queue[0][0] if self.queue else float("inf")
        if min(due, next_) > until:
            return False
        self._go(max(self.now, min(due, next_)))
        if due <= next_:
            self.ticks = self.ticks + 1 if due <= self.ticked_at else 0
            self.ticked_at = self.now
            assert self.ticks < 100, "a hot loop"
            self.feed(events.Tick())
            return True
        _, _, what, world = heapq.heappop(self.queue)
        if self.asleep and not world:
            self.frozen.append(what)
        else:
            what()
        return True

    def _go(self, now: float) -> None:
        self.now = now
        if not self.asleep and not self.dazed:
            self.laws.check(now, self.file)

    # ------------------------------------------------------------------------------------- the agent and its actions

    def feed(self, event: events.Event) -> None:
        """Let the agent handle an event, and carry out its actions."""
        for action in self.agent.handle(event, self.at()):
            match action:
                case events.StartFetch(request):
                    self._begin(request)
                case events.CancelFetch(request):
                    del self.flights[request]
                case events.Deliver():
                    self._deliver(action)
                case events.Settled(waiter):
                    self.laws.answered(waiter)
                case _:
                    pass

    def _begin(self, request: Request) -> None:
        assert request not in self.flights, "two fetches in flight for one lease"
        self.serial += 1
        number = self.flights[request] = self.serial
        self.fetches += 1
        duration, fate = self.dice.uniform(0.3, FETCH), None
        if not self.network:
            duration, fate = (DEADLINE, HUNG) if self.dice.random() < 0.3 else (duration / 10, UNREACHABLE)
        elif self.troubles.get(request) == "hung":
            duration = DEADLINE
        elif not self.login:
            fate = LOGIN_ENDED  # a worker reads the login at its beginning
        self.laws.began(request, self.now, duration)
        self.later(duration, lambda: self._fetched(request, number, fate))

    def _fetched(self, request: Request, number: int, fate: Failure | None) -> None:
        if self.flights.get(request) != number:
            return  # its worker was killed
        del self.flights[request]
        answer = fate or self._answer(request)
        outcome = self._credential(request, answer) if isinstance(answer, Token) else answer
        admitted = admit(outcome, "h.example", self.at())
        if isinstance(admitted, Failure):
            self.laws.failed(request, self.now, admitted)
        elif isinstance(answer, Token):
            self.laws.fetched(request, self.now, answer)
        self.feed(events.FetchEnded(request, outcome, self.dice.random()))

    def _answer(self, request: Request) -> Token | Failure | Credential:
        if not self.network:
            return UNREACHABLE
        if request in self.troubles:
            return TROUBLES[self.troubles[request]]
        return self._seen(self._token(request), self.laws.issuers[request])

    def _token(self, request: Request) -> Token:
        """Return what an issuer in good health hands out."""
        issuer, token = self.laws.issuers[request], self.current.get(request)
        ends = token is not None and token.end is not None and token.end - self.now < WINDOW
        if token is None or ends or not (issuer.caching or issuer.life is None):
            end = None if issuer.life is None else self.now + issuer.life
            self.serial += 1
            token = self.current[request] = Token(f"t{self.serial}", self.now, end, end)
        return token

    def _seen(self, token: Token, issuer: Issuer) -> Token:
        """Return a token as a machine with this clock sees it."""
        if token.end is None:
            return token
        late = self.dice.random() if issuer.relative else 0.0
        return replace(token, end=token.end - late + self.skew, skewed=bool(self.skew))

    def _credential(self, request: Request, token: Token) -> Credential:
        issued = min(token.issued + (self.skew if token.end is not None else 0.0), self.now)
        after = self.laws.issuers[request].refresh_after
        end = None if token.end is None else _time(token.end)
        refresh = None if after is None else _time(issued + after)
        return Credential("u", Secret(token.name), _time(issued), end, refresh)

    def _deliver(self, action: events.Deliver) -> None:
        assert self.delivering is None, "two deliveries at once"
        self.serial += 1
        number = self.delivering = self.serial
        self.later(DELIVERY, lambda: self._delivered(number, action))

    def _delivered(self, number: int, action: events.Deliver) -> None:
        if self.delivering != number:
            return  # the daemon that began it is dead
        self.delivering = None
        rival = action.left is not None and self.file != {one.host: one.password.reveal() for one in action.left}
        failure = CONTESTED if rival and action.yielding else None if self.disk else DISK_FULL
        foreign = frozenset(entry.host for entry in action.wanted) & self.foreign
        if failure is None:
            self.file = {one.host: one.password.reveal() for one in action.wanted if one.host not in foreign}
            self.laws.delivered(self.now, rival)
        else:
            self.laws.not_delivered(self.now, failure)
        self.feed(events.DeliveryEnded(action.wanted, self.dice.random(), failure, foreign, rival=rival))

    # ------------------------------------------------------------------------------------------------ what happens

    def set_network(self, up: bool) -> None:
        self.network = up

    def set_disk(self, free: bool) -> None:
        self.disk = free

    def set_login(self, good: bool) -> None:
        """A login ends, or somebody logs in: within 2 s the daemon sees that, if a lease is blocked."""
        self.login = good
        if good and self.watch:
            self.later(2.0, self._look_for_login)

    def _look_for_login(self) -> None:
        if any(lease.state == "blocked" for lease in self.agent.leases.values()):
            self.laws.login_seen(self.now, self.flights)
            self.feed(events.LoginChanged())

    def set_trouble(self, which: int, trouble: str | None) -> None:
        """One issuer answers nonsense, or is itself again."""
        request = self.all_indexes[which % len(self.all_indexes)].request
        if trouble is None:
            self.troubles.pop(request, None)
        else:
            self.troubles[request] = trouble

    def sleep(self) -> None:
        self.asleep = True

    def wake(self) -> None:
        """What was under way ends soon; timers that stood still in sleep are made good by the guard tick."""
        self.asleep, self.dazed = False, True
        while self.frozen:
            self.later(DELIVERY, self.frozen.popleft())
        self.later(self.dice.uniform(0.2, TICK) if self.guard_tick else DAY, self._guard)

    def _guard(self) -> None:
        if self.dazed and not self.asleep:
            self.dazed = False
            self.laws.woke(self.now, self.flights)
            self.feed(events.Woke())

    def step_clock(self, skew: float) -> None:
        """Somebody sets the wall clock: the guard tick sees it."""
        self.skew = skew
        self.later(self.dice.uniform(0, TICK), lambda: self.ask(None))

    def ask(self, names: tuple[str, ...] | None, due_only: bool = False) -> None:
        """Somebody wants fresh tokens, or only waits for what is under way."""
        if self.asleep or self.dazed:
            return
        known = tuple(index.name for index in self.agent.indexes)
        chosen = known if names is None else tuple(name for name in names if name in known)
        self.serial += 1
        self.laws.asked(self.serial, self.now, due_only)
        self.feed((events.WaitAsked if due_only else events.RefreshAsked)(chosen, self.serial))

    def rotate(self) -> None:
        """Whoever keeps the secrets without a known end changes them."""
        for request, issuer in self.laws.issuers.items():
            if issuer.life is None:
                self.current.pop(request, None)
                self.laws.rotated(request, self.now)

    def set_foreign(self, host: str, stands: bool) -> None:
        """Somebody writes an entry of his own for a host of ours, or takes it away."""
        if stands:
            self.foreign.add(host)
            self.file.pop(host, None)
        else:
            self.foreign.discard(host)
        self._touched(host)

    def rewrite(self) -> None:
        """Somebody writes an old copy of the netrc back, without our entries."""
        for host in tuple(self.file):
            del self.file[host]
            self._touched(host)

    def fight(self, seconds: float) -> None:
        """Somebody writes his old copy back again and again."""
        until = self.now + seconds

        def again() -> None:
            if self.now < until and not self.healed:
                self.rewrite()
                self.later(self.dice.uniform(1.0, 20.0), again)

        again()

    def _touched(self, host: str) -> None:
        self.laws.touched(host)
        self.later(self.dice.uniform(0, TICK), lambda: self._drift(host))

    def _drift(self, host: str) -> None:
        if self.dazed or self.delivering is not None:
            self.later(TICK, lambda: self._drift(host))
            return
        self.laws.drift_seen(host, self.now, host in self.foreign)
        self.feed(events.SinkDrifted())

    def configure(self, indexes: Iterable[Index]) -> None:
        """The configuration names these indexes from now on."""
        if self.asleep or self.dazed:
            return
        chosen = tuple(indexes)
        self.laws.configured(self.now, chosen)
        self.feed(events.Configured(Settings("config.toml", chosen)))

    def kill(self) -> None:
        """kill -9, and a new start that knows what stands in the file and what the state file says of it."""
        if self.asleep or self.dazed:
            return
        old, self.agent = self.agent, Agent()
        self.flights.clear()
        self.delivering = None
        records = tuple(
            state.record(request, lease.credential, lease.refresh_at, (index.host,))
            for request, lease in old.leases.items()
            if lease.credential is not None and lease.refresh_at is not None
            for index in old.indexes
            if index.request == request
        )
        standing = {host: Entry(host, "u", Secret(token)) for host, token in self.file.items()}
        recovered = state.recover(records, standing, tuple(old.leases), self.at())
        self.laws.restarted(self.now, old.indexes, recovered)
        self.feed(events.Configured(Settings("config.toml", old.indexes), recovered))

    def look(self) -> None:
        """Somebody asks for the status: what it calls delivered is."""
        if self.asleep or self.dazed:
            return
        for view in self.agent.snapshot(self.at()).indexes:
            if view.delivered and view.index.host not in self.laws.drifting:
                assert view.index.host in self.file, "the status tells of an entry that does not stand"
                token = self.laws.tokens[self.file[view.index.host]]
                assert token.alive(self.now), "the status calls a dead token delivered"

    def heal(self) -> None:
        """Everything works again, and goes on to."""
        self.healed = True
        if self.asleep:
            self.wake()
        self.set_network(True)
        self.set_disk(True)
        self.set_login(True)
        self.troubles.clear()
        if self.skew:
            self.step_clock(0.0)
        for host in sorted(self.foreign):
            self.set_foreign(host, False)


def _time(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def run(seed: int, days: float, guard_tick: bool = True, watch: bool = True, often: float = 1.0) -> World:
    """Live through one history with faults of every kind.

    Args:
        seed: Of the history.
        days: Its length.
        guard_tick: False for a daemon that forgets about sleep.
        watch: False for a daemon that does not look for a new login.
        often: How many times as often as usual faults come.

    Raises:
        AssertionError: A law is broken.
    """
    dice = Random(seed)
    weights = (6, 6, 3, 3, 3, 2, 2, 0.3)
    issuers = dice.choices(ISSUERS, weights, k=dice.randint(1, 3))
    world = World(dice, issuers, dice.randint(1, 3), guard_tick, watch)
    for gap, length, begin, end in _faults(world, dice):
        _plan(world, gap * DAY / often, length * 3600, begin, end)
    world.live(days * DAY)
    world.heal()
    world.live(2 * 3600.0)
    world.laws.all_is_well(world.now, world.file)
    return world


_Act = Callable[[], None]


def _faults(world: World, dice: Random) -> list[tuple[float, float, _Act, _Act | None]]:
    """Return mean gap in days, mean length in hours, and what happens at the beginning and at the end."""
    hosts = [index.host for index in world.all_indexes]
    names = [index.name for index in world.all_indexes]
    lease = dice.randrange(len(hosts))
    return [
        (1, 9, world.sleep, lambda: world.wake() if world.asleep else None),
        (2, 4, lambda: world.set_network(False), lambda: world.set_network(True)),
        (5, 4, lambda: world.set_login(False), lambda: world.set_login(True)),
        (10, 4, lambda: world.set_disk(False), lambda: world.set_disk(True)),
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
        (10, 0, world.rotate, None),
        (0.1, 0, world.look, None),
    ]


def _plan(world: World, gap: float, length: float, begin: _Act, end: _Act | None) -> None:
    """Let a fault come again and again."""

    def come() -> None:
        if world.healed:
            return
        begin()
        lasts = world.dice.expovariate(1 / length) if end is not None else 0.0
        if end is not None:
            world.later(lasts, end, world=True)
        world.later(lasts + world.dice.expovariate(1 / gap), come, world=True)

    world.later(world.dice.expovariate(1 / gap), come, world=True)
