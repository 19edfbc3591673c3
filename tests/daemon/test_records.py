"""The records that the daemon makes of its tokens for the state file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from uvtokend.core import state
from uvtokend.core.agent import Agent
from uvtokend.core.events import ClockTrusted, Configured, Event, FetchEnded
from uvtokend.core.model import Credential, Index, Record, Request, Secret, Settings
from uvtokend.daemon.records import Records

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
INDEXES = tuple(
    Index(f"i{n}", f"https://i{n}.example/", f"i{n}.example", "static", Request("static", f"{n}")) for n in range(100)
)
TARGETS = {index.target for index in INDEXES}


def token(text: str) -> Credential:
    return Credential("me", Secret(text), NOW, NOW + timedelta(hours=1))


class World:
    """An agent whose leases are fetched, and the records of it."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.records = Records(self.agent)
        self.feed(Configured(Settings("config.toml", INDEXES), {}, {}, ("netrc",)))
        self.fetch(INDEXES, "t0")

    def feed(self, event: Event) -> None:
        self.records.take(event)
        self.agent.handle(event, NOW)

    def fetch(self, indexes: Iterable[Index], text: str) -> None:
        for index in indexes:
            self.feed(FetchEnded(index.request, token(text), 0.5))

    def of(self, targets: set[str] = TARGETS, shift: timedelta = timedelta()) -> tuple[Record, ...]:
        """Return the records, after checking that new ones would be equal."""
        records = self.records.of("netrc", targets, shift)()
        assert set(records) == set(Records(self.agent).of("netrc", targets, shift)())
        return records


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Return a list of the requests whose records are made from now on."""
    requests: list[Request] = []
    honest = state.record

    def record(request: Request, *rest: Any) -> Record:
        requests.append(request)
        return honest(request, *rest)

    monkeypatch.setattr(state, "record", record)
    return requests


def test_one_new_token_is_one_new_record(made: list[Request]) -> None:
    """Among a hundred tokens, only the record of the new one is made, when the delivery asks for it. The others are
    the same objects as before."""
    world = World()
    before = world.of()
    refreshed = INDEXES[42]
    world.agent.leases[refreshed.request] = replace(world.agent.leases[refreshed.request], state="fetching")
    world.fetch([refreshed], "t1")
    made.clear()
    records = world.records.of("netrc", TARGETS, timedelta(microseconds=7))
    assert made == []
    after = records()
    assert after == records()
    assert made == [refreshed.request]
    assert sum(one is not other for one, other in zip(before, after, strict=True)) == 1


def test_a_new_target_is_one_new_record(made: list[Request]) -> None:
    """While many tokens arrive one after the other, each is recorded once, with all targets of its request."""
    world = World()
    twin = replace(INDEXES[99], name="twin", host="twin.example")
    world.feed(Configured(Settings("config.toml", (*INDEXES, twin)), {}, {}, ("netrc",)))
    world.records.of("netrc", TARGETS - {INDEXES[42].target}, timedelta())()
    made.clear()
    assert len(world.records.of("netrc", TARGETS, timedelta())()) == len(INDEXES)
    assert made == [INDEXES[42].request]
    made.clear()
    (record,) = {*world.records.of("netrc", TARGETS | {twin.target}, timedelta())()} - {*world.of()}
    assert made[0] == INDEXES[99].request
    assert record.targets == (INDEXES[99].target, twin.target)


def test_everything_else_makes_all_of_them_again() -> None:
    """Fewer targets, a clock that was set and a trusted clock change every record."""
    world = World()
    before = world.of()
    assert len(world.of(TARGETS - {INDEXES[0].target})) == len(before) - 1
    assert {one.issued_at for one in world.of(shift=timedelta(hours=1))} == {NOW + timedelta(hours=1)}
    world.of()
    world.feed(ClockTrusted(timedelta(hours=2)))
    world.of()
    world.feed(Configured(Settings("config.toml", INDEXES[:3]), {}, {}, ("netrc",)))
    assert len(world.of()) == 3


def test_an_index_without_a_token_has_no_record() -> None:
    """Nothing is recorded before the first fetch has succeeded."""
    agent = Agent()
    records = Records(agent)
    event = Configured(Settings("config.toml", INDEXES), {}, {}, ("netrc",))
    records.take(event)
    agent.handle(event, NOW)
    assert records.of("netrc", TARGETS, timedelta())() == ()
