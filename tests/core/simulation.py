"""A laptop's months in milliseconds: the agent against outages, sleep, logins that end and full disks.

The world is drawn from a seed. Time jumps from event to event. A sleeping machine handles nothing; after it wakes, the
guard tick comes up to 30 s later. `run` raises AssertionError as soon as a promise is broken.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from uvtokend.core import agent as core
from uvtokend.core.agent import Agent
from uvtokend.core.model import Credential, Entry, Failure, Index, Request, Secret, Settings

START = datetime(2026, 1, 1, tzinfo=UTC)
TICK = 30.0
FETCH = 2.0
DELIVERY = 0.05
#: How soon after everything is well again a fresh token must stand: one guard tick or one capped retry, and the fetch.
GRACE = 35.0
REQUESTS_PER_HOUR = 400
UNREACHABLE = Failure("transient", "unreachable", "Nobody answers.")
LOGIN_ENDED = Failure("login-required", "sso-expired", "Log in.", "aws sso login")
DISK_FULL = Failure("transient", "disk-full", "The disk is full.")


@dataclass
class World:
    """Everything around the agent, and what it has seen of it."""

    dice: Random
    lives: dict[Request, float]
    guard_tick: bool = True
    now: float = 0.0
    network: bool = True
    login: bool = True
    disk: bool = True
    asleep: bool = False
    dazed: bool = False  # awake, but the timers have not noticed yet
    well_since: float = 0.0
    file: tuple[Entry, ...] = ()
    ends: dict[str, float] = field(default_factory=dict)
    in_flight: set[Request] = field(default_factory=set)
    asked: dict[Request, deque[float]] = field(default_factory=dict)
    queue: list[tuple[float, int, str, object]] = field(default_factory=list)
    frozen: list[tuple[str, object]] = field(default_factory=list)
    count: int = 0
    fetches: int = 0

    def later(self, seconds: float, kind: str, what: object = None) -> None:
        self.count += 1
        heapq.heappush(self.queue, (self.now + seconds, self.count, kind, what))


def run(seed: int, days: float, guard_tick: bool = True) -> World:
    """Live through one history.

    Args:
        seed: Of the history.
        days: Its length.
        guard_tick: False for a daemon that forgets about sleep.
    """
    dice = Random(seed)
    requests = [Request("p", options=(("n", number),)) for number in range(dice.randint(1, 3))]
    world = World(dice, {request: dice.choice([900.0, 3600.0, 43200.0]) for request in requests}, guard_tick)
    indexes = tuple(Index(f"i{n}", f"https://h{n}.example/", f"h{n}.example", "p", r) for n, r in enumerate(requests))
    agent = Agent()
    for kind in ("outage", "login-ends", "sleep", "disk-full", "refresh", "look"):
        world.later(_gap(world, kind), kind)
    feed(agent, world, core.Configured(Settings("config.toml", indexes)))
    while world.now < days * 86400:
        step(agent, world)
    return world


def _gap(world: World, kind: str) -> float:
    mean = {"outage": 2, "login-ends": 5, "sleep": 1, "disk-full": 10, "refresh": 3, "look": 0.02}[kind]
    return world.dice.expovariate(1 / (mean * 86400))


def feed(agent: Agent, world: World, event: core.Event) -> None:
    """Let the agent handle an event, and carry out its actions in the world."""
    for action in agent.handle(event, at(world)):
        if isinstance(action, core.StartFetch):
            assert action.request not in world.in_flight, "two fetches in flight for one lease"
            world.in_flight.add(action.request)
            count_request(world, action.request)
            world.later(FETCH, "fetched", action.request)
        elif isinstance(action, core.Deliver):
            world.later(DELIVERY, "delivered", action.wanted)


def at(world: World) -> datetime:
    return START + timedelta(seconds=world.now)


def count_request(world: World, request: Request) -> None:
    asked = world.asked.setdefault(request, deque())
    asked.append(world.now)
    while asked[0] < world.now - 3600:
        asked.popleft()
    world.fetches += 1
    assert len(asked) <= REQUESTS_PER_HOUR, "a burst of requests"


def step(agent: Agent, world: World) -> None:
    """Go to the next thing that happens: in the world, or at the agent's own deadline."""
    deadline = agent.deadline(at(world))
    due = (deadline - START).total_seconds() if deadline is not None else float("inf")
    if not world.asleep and not world.dazed and due <= world.queue[0][0]:
        world.now = max(world.now, due)
        feed(agent, world, core.Tick())
        return
    world.now, _, kind, what = heapq.heappop(world.queue)
    if world.asleep and kind in {"fetched", "delivered", "tick", "login-seen", "look", "refresh"}:
        world.frozen.append((kind, what))  # nothing runs while the machine sleeps
        return
    happen(agent, world, kind, what)


def happen(agent: Agent, world: World, kind: str, what: object) -> None:
    """Let one thing happen."""
    match kind:
        case "fetched":
            assert isinstance(what, Request)
            world.in_flight.discard(what)
            feed(agent, world, core.FetchEnded(what, answer(world, what), world.dice.random()))
        case "delivered":
            assert isinstance(what, tuple)
            deliver(agent, world, what)
        case "look":
            look(world)
            world.later(_gap(world, kind), kind)
        case "refresh":
            feed(agent, world, core.RefreshAsked(tuple(index.name for index in agent.indexes)))
            world.later(_gap(world, kind), kind)
        case "tick":
            world.dazed = False
            feed(agent, world, core.Woke())
        case "login-seen":
            feed(agent, world, core.LoginChanged())
        case _:
            turn(world, kind)


def turn(world: World, kind: str) -> None:
    """Something breaks, or works again."""
    ends = {"outage": "network-back", "login-ends": "login", "sleep": "wake", "disk-full": "disk-free"}
    if kind in ends:
        world.later(world.dice.expovariate(1 / 14400), ends[kind])
        world.later(_gap(world, kind) + 86400, kind)
    else:
        world.well_since = world.now
    match kind:
        case "outage" | "network-back":
            world.network = kind == "network-back"
        case "login-ends" | "login":
            world.login = kind == "login"
            if world.login:
                world.later(2.0, "login-seen")
        case "disk-full" | "disk-free":
            world.disk = kind == "disk-free"
        case _:
            world.asleep = kind == "sleep"
            if not world.asleep:
                wake(world)


def wake(world: World) -> None:
    """What was under way ends soon; timers that stood still in sleep are made good by the guard tick."""
    world.dazed = True
    while world.frozen:
        world.later(DELIVERY, *world.frozen.pop(0))
    world.later(world.dice.uniform(0, TICK) if world.guard_tick else 86400.0, "tick")


def answer(world: World, request: Request) -> Credential | Failure:
    if not world.network:
        return UNREACHABLE
    if not world.login:
        return LOGIN_ENDED
    token = f"t{len(world.ends)}"
    world.ends[token] = world.now + world.lives[request]
    return Credential("u", Secret(token), at(world), START + timedelta(seconds=world.ends[token]))


def deliver(agent: Agent, world: World, wanted: tuple[Entry, ...]) -> None:
    if world.disk:
        world.file = wanted
    feed(agent, world, core.DeliveryEnded(wanted, world.dice.random(), None if world.disk else DISK_FULL))


def look(world: World) -> None:
    """A uv starts now: hold what it finds against the promise."""
    well = world.network and world.login and world.disk and world.now - world.well_since > GRACE
    left = {entry.host: world.ends[entry.password.reveal()] - world.now for entry in world.file}
    if world.disk and world.now - world.well_since > GRACE:
        assert all(life > -1 for life in left.values()), "a dead token stands in the file"
    if well and world.now > GRACE:
        promises = {f"h{n}.example": life / (2 if life <= 7200 else 3) for n, life in enumerate(world.lives.values())}
        assert left.keys() == promises.keys(), "no token, though one could be had"
        assert all(left[host] >= promise for host, promise in promises.items()), "less life than promised"
