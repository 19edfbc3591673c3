"""`sink = "memory"`: no sink gets the token, and nothing is fetched until the former sink is clean."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from uvtokend.core import delivery
from uvtokend.core.agent import Agent
from uvtokend.core.events import (
    Configured,
    Deliver,
    DeliveryEnded,
    Due,
    Event,
    FetchEnded,
    Plan,
    RefreshAsked,
    Settled,
    StartFetch,
    Tick,
    WaitAsked,
)
from uvtokend.core.model import Credential, Entry, Failure, Index, Request, Secret, Settings, Sink
from uvtokend.core.views import IndexView

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
WRITTEN = Request("command")
KEPT = replace(WRITTEN, memory=True)
IN_NETRC = Index("a", "https://a.example/simple/", "a.example", "command", WRITTEN)
IN_MEMORY = replace(IN_NETRC, request=KEPT, sink="memory")
DISK_FULL = Failure("transient", "disk-full", "The disk is full.", "free some room")
TOKEN = Credential("me", Secret("t1"), NOW, NOW + timedelta(hours=1))


@pytest.fixture(autouse=True)
def _short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the rest after deliveries, which take a second here."""
    monkeypatch.setattr(delivery, "LONGEST_REST", timedelta(0))


class World:
    """An agent and a clock; the actions are returned as plain words."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.now = NOW
        self.planned: dict[object, datetime | None] = {}

    def feed(self, event: Event) -> list[str]:
        """Return the actions as ``fetch``, ``SINK: TARGETS`` and ``settled NUMBER``."""
        words = []
        for action in self.agent.handle(event, self.now):
            match action:
                case StartFetch(request):
                    words.append("fetch in memory" if request == KEPT else "fetch")
                case Deliver(wanted, sink):
                    words.append(f"{sink}: {' '.join(entry.target for entry in wanted)}")
                case Settled(waiter):
                    words.append(f"settled {waiter}")
                case Plan(job, _, at):
                    self.planned[job] = at
        return words

    def configure(self, *indexes: Index, sinks: tuple[Sink, ...] = ("netrc",)) -> list[str]:
        return self.feed(Configured(Settings("config.toml", indexes), sinks=sinks))

    def delivered(self, *entries: Entry, sink: Sink = "netrc", failure: Failure | None = None) -> list[str]:
        self.now += timedelta(seconds=1)
        return self.feed(DeliveryEnded(entries, 0.5, failure, sink=sink))

    def view(self) -> IndexView:
        return self.agent.snapshot(self.now).indexes[0]


def test_a_token_in_memory_counts_as_delivered() -> None:
    """No sink gets an entry. The index counts as delivered exactly while its token is valid."""
    world = World()
    assert world.configure(IN_MEMORY) == ["netrc: "]
    assert world.delivered() == ["fetch in memory"]
    assert not world.view().delivered
    assert world.feed(FetchEnded(KEPT, TOKEN, 0.5)) == []
    assert world.view().delivered
    world.now = NOW + timedelta(hours=1)
    assert world.feed(Tick()) == ["fetch in memory"]
    assert not world.view().delivered


def test_the_former_sink_is_cleaned_before_the_fetch() -> None:
    """An index that moves from the netrc to memory is fetched only after its entry has been removed."""
    world = World()
    assert world.configure(IN_NETRC) == ["netrc: ", "fetch"]
    world.delivered()
    old = Entry("a.example", "me", Secret("t1"))
    assert world.feed(FetchEnded(WRITTEN, TOKEN, 0.5)) == ["netrc: a.example"]
    assert world.configure(IN_MEMORY) == []  # the earlier delivery is still in flight
    assert world.view().lease.credential is None
    assert world.delivered(old) == ["netrc: "]
    assert world.planned.get(KEPT) is None
    assert world.feed(Tick()) == []
    assert world.delivered() == ["fetch in memory"]


def test_every_former_sink_is_cleaned() -> None:
    """Both the netrc and uv's store are cleaned before the fetch."""
    world = World()
    assert world.configure(IN_MEMORY, sinks=("netrc", "uv-store")) == ["netrc: ", "uv-store: "]
    assert world.delivered() == []
    assert world.delivered(sink="uv-store") == ["fetch in memory"]


def test_a_sink_that_cannot_be_cleaned() -> None:
    """If the former sink cannot be cleaned, nothing is fetched, the status says why, and waiters are answered. The
    fetch follows once the disk has room."""
    world = World()
    world.configure(IN_MEMORY)
    assert world.feed(RefreshAsked(("a",), 1)) == []
    assert world.feed(WaitAsked(("a",), 2)) == []
    assert world.delivered(failure=DISK_FULL) == ["settled 1", "settled 2"]
    error = world.view().last_error
    assert error is not None
    assert (error.kind, error.reason, error.hint) == ("delivery", "disk-full", "free some room")
    again = world.planned["netrc"]
    assert again is not None
    assert again > world.now
    assert world.planned.get(KEPT) is None
    world.now = again
    assert world.feed(Due("netrc")) == ["netrc: "]
    assert world.delivered() == ["fetch in memory"]
    assert world.view().last_error is None


def test_a_waiter_gets_the_first_token() -> None:
    """A client that asks while the former sink is cleaned is answered after the fetch."""
    world = World()
    world.configure(IN_MEMORY)
    assert world.feed(RefreshAsked(("a",), 1)) == []
    assert world.feed(WaitAsked(("a",), 2)) == []
    assert world.delivered() == ["fetch in memory"]
    assert world.feed(FetchEnded(KEPT, TOKEN, 0.5)) == ["settled 1", "settled 2"]


def test_a_later_delivery_failure_does_not_block_memory() -> None:
    """Once the former sink is clean, a failed delivery of another index or a reload does not delay the refresh of a
    token in memory."""
    world = World()
    other = Index("b", "https://b.example/simple/", "b.example", "command", WRITTEN)
    world.configure(IN_MEMORY, other)
    world.delivered()
    world.feed(FetchEnded(KEPT, TOKEN, 0.5))
    assert world.view().delivered
    world.configure(IN_MEMORY, other)
    world.delivered(failure=DISK_FULL)
    world.now = NOW + timedelta(minutes=30)
    assert "fetch in memory" in world.feed(Tick())
    assert world.view().last_error is None


def test_a_foreign_netrc_entry_comes_before_memory() -> None:
    """uv reads the netrc before it asks keyring, so a foreign entry blocks the index, and the fix is shown."""
    for target, hint in (("a.example", "uvtokend adopt a"), ("default", "delete it")):
        world = World()
        world.configure(IN_MEMORY)
        world.feed(DeliveryEnded((), 0.5, foreign=frozenset({target})))
        world.feed(FetchEnded(KEPT, TOKEN, 0.5))
        error = world.view().last_error
        assert error is not None
        assert "which uv uses before it asks keyring" in error.message
        assert (error.hint or "").startswith(hint)
        assert (world.view().state, world.view().delivered) == ("blocked", False)


def test_one_sink_that_cannot_be_cleaned_ends_the_wait() -> None:
    """If one sink cannot be cleaned, the waiter is answered even though the other is clean. A sink that was clean
    before it failed delays nobody."""
    for failing, clean in (("netrc", "uv-store"), ("uv-store", "netrc")):
        world = World()
        world.configure(IN_MEMORY, sinks=("netrc", "uv-store"))
        world.feed(RefreshAsked(("a",), 1))
        assert world.delivered(sink=clean) == []  # type: ignore[arg-type]
        assert world.delivered(sink=failing, failure=DISK_FULL) == ["settled 1"]  # type: ignore[arg-type]
    world = World()
    world.configure(IN_MEMORY, sinks=("netrc", "uv-store"))
    world.feed(RefreshAsked(("a",), 1))
    world.delivered(sink="netrc")
    world.configure(IN_MEMORY, sinks=("netrc", "uv-store"))
    assert world.delivered(sink="netrc", failure=DISK_FULL) == []
