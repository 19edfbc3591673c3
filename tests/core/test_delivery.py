"""When deliveries begin, rest and hang, and how the status and the log report them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from uvtokend.core import delivery, events
from uvtokend.core.agent import Agent
from uvtokend.core.delivery import DELIVERY_HUNG, HELD_OPEN, REST, Delivery
from uvtokend.core.events import Action, Configured, Deliver, DeliveryEnded, Due, FetchEnded, Plan, Report, Settled
from uvtokend.core.lease import Life
from uvtokend.core.model import Credential, Entry, Failure, Index, Problem, Request, Secret, Settings

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
HELD = Failure("transient", HELD_OPEN, "gpg (pid 7) holds it open.")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def indexes(count: int) -> tuple[Index, ...]:
    requests = [Request("p", options=(("n", number),)) for number in range(count)]
    return tuple(Index(f"i{n}", f"https://h{n}.example/", f"h{n}.example", "p", r) for n, r in enumerate(requests))


def fetched(agent: Agent, index: Index, seconds: float, token: str = "t") -> list[Action]:
    agent.handle(events.RefreshAsked((index.name,)), after(seconds))
    return ended(agent, index, seconds, token)


def ended(agent: Agent, index: Index, seconds: float, token: str = "t") -> list[Action]:
    credential = Credential("me", Secret(token), after(seconds), after(seconds + 3600))
    return agent.handle(FetchEnded(index.request, credential, 0.5), after(seconds))


def delivers(actions: list[Action]) -> list[Deliver]:
    return [action for action in actions if isinstance(action, Deliver)]


def plans(actions: list[Action]) -> dict[events.Job, datetime | None]:
    return {action.job: action.at for action in actions if isinstance(action, Plan)}


def stuck(agent: Agent) -> bool:
    return agent.stuck


def configured(count: int = 1) -> tuple[Agent, tuple[Index, ...]]:
    """Return an agent whose first delivery, which reads the netrc, has ended."""
    agent, served = Agent(), indexes(count)
    agent.handle(Configured(Settings("config.toml", served)), NOW)
    agent.handle(DeliveryEnded((), 0.5), NOW)
    return agent, served


def delivered(agent: Agent, seconds: float, actions: list[Action]) -> list[Action]:
    (deliver,) = delivers(actions)
    return agent.handle(DeliveryEnded(deliver.wanted, 0.5), after(seconds))


def holding() -> tuple[Agent, tuple[Index, ...]]:
    """Return an agent whose token has been delivered."""
    agent, served = configured()
    delivered(agent, 1, fetched(agent, served[0], 1))
    return agent, served


def fetching(count: int) -> tuple[Agent, tuple[Index, ...]]:
    """Return an agent whose first delivery has ended long ago, and all of whose fetches are under way."""
    agent, served = configured(count)
    agent.handle(events.RefreshAsked(tuple(index.name for index in served)), after(10))
    return agent, served


def test_simultaneous_tokens_share_a_delivery() -> None:
    """The first token is written at once; those of the next half second share one further delivery."""
    agent, (first, *others, last) = fetching(50)
    (one,) = delivers(ended(agent, first, 10))
    assert len(one.wanted) == 1
    agent.handle(DeliveryEnded(one.wanted, 0.5), after(10))
    for index in others:
        assert delivers(ended(agent, index, 10.1)) == []
    (two,) = delivers(agent.handle(Due("netrc"), after(10) + REST))
    assert len(two.wanted) == 49
    assert agent.snapshot(after(10.5)).indexes[-1].index == last


def test_the_last_of_several_tokens_is_written_at_once() -> None:
    """A delivery waits for further tokens only while a fetch is under way, whether the last fetch ends with a token
    or without."""
    failure = Failure("transient", "unreachable", "No answer.")
    for outcome, wanted in ((Credential("me", Secret("t"), NOW, after(3600)), 3), (failure, 2)):
        agent, (first, second, last) = fetching(3)
        delivered(agent, 10, ended(agent, first, 10))
        assert plans(ended(agent, second, 10.1))["netrc"] == after(10) + REST
        (deliver,) = delivers(agent.handle(FetchEnded(last.request, outcome, 0.5), after(10.2)))
        assert len(deliver.wanted) == wanted


def test_no_two_early_deliveries_follow_each_other() -> None:
    """A chain of short fetches, of which none overlaps the next, does not write more than twice per rest."""
    agent, served = configured(4)
    for index in served:
        agent.handle(FetchEnded(index.request, Failure("transient", "unreachable", "No answer."), 0.5), NOW)
    begun = []
    for number, index in enumerate(served):
        seconds = 10 + number / 10
        actions = fetched(agent, index, seconds)
        if delivers(actions):
            begun.append(seconds)
            delivered(agent, seconds, actions)
    assert begun == [10, 10.1]
    (last,) = delivers(agent.handle(Due("netrc"), after(10.1) + REST))
    assert len(last.wanted) == 4


def test_no_early_delivery_follows_drift() -> None:
    """After drift the delivery rests, so that a rival that writes continually is not met with a write each time."""
    agent, _ = holding()
    actions = agent.handle(events.SinkDrifted("netrc"), after(1.1))
    assert delivers(actions) == []
    assert plans(actions)["netrc"] == after(1) + REST


@pytest.mark.parametrize(("took", "rest"), [(0.01, 0.5), (0.3, 3.0), (2.0, 5.0)])
def test_slow_deliveries_are_less_frequent(took: float, rest: float) -> None:
    """While fetches are under way, deliveries use at most a tenth of the time, but no token waits longer than 5 s."""
    agent, (first, second, _) = fetching(3)
    actions = ended(agent, first, 10)
    agent.handle(DeliveryEnded(delivers(actions)[0].wanted, 0.5), after(10 + took))
    assert plans(ended(agent, second, 10 + took))["netrc"] == after(10 + rest)


def test_a_hung_delivery_is_reported_and_ends_all_waits() -> None:
    """A delivery that has not ended after 20 s counts as failed, and its waiters are answered. Its late end counts
    as success."""
    agent, (index,) = holding()
    agent.handle(events.RefreshAsked((index.name,), 7), after(10))
    actions = fetched(agent, index, 11, "t2")
    (deliver,) = delivers(actions)
    assert plans(actions)["netrc"] == after(31)
    assert agent.handle(Due("netrc"), after(30)) == [Plan("netrc", "deliver netrc", after(31))]
    actions = agent.handle(Due("netrc"), after(31))
    assert Settled(7) in actions
    assert [action.event for action in actions if isinstance(action, Report)] == [DELIVERY_HUNG]
    assert stuck(agent)
    snapshot = agent.snapshot(after(31))
    assert (snapshot.delivery_ok, snapshot.indexes[0].delivered) == (False, False)
    assert snapshot.delivery_problem is not None
    assert "may still be there" in snapshot.delivery_problem
    assert Settled(8) in agent.handle(events.WaitAsked((), 8), after(32))
    agent.handle(DeliveryEnded(deliver.wanted, 0.5), after(500))
    assert not stuck(agent)
    assert agent.snapshot(after(500)).indexes[0].delivered


def test_a_hung_delivery_to_uvs_store_names_the_store() -> None:
    """The message about a hung delivery names uv's credential store."""
    agent = Agent()
    agent.handle(Configured(Settings("config.toml", ()), sinks=("netrc", "uv-store")), NOW)
    agent.handle(DeliveryEnded((), 0.5), NOW)
    agent.handle(Due("uv-store"), after(20))
    assert (agent.snapshot(after(20)).delivery_problem or "").startswith("Writing uv's credential store has not ended")


def test_a_waiter_is_answered_after_the_delivery_of_its_token() -> None:
    """A delivery that began before the token arrived does not answer the waiter; the next one does. A waiter that
    left gets no answer."""
    agent, (first, second, _) = configured(3)
    agent.handle(events.RefreshAsked((second.name,), 1), NOW)
    agent.handle(events.RefreshAsked((second.name,), 2), NOW)
    in_flight = fetched(agent, first, 1)
    fetched(agent, second, 1.01)
    agent.handle(events.WaiterLeft(2), after(1.02))
    assert Settled(1) not in delivered(agent, 1.05, in_flight)
    actions = agent.handle(Due("netrc"), after(1.5))
    assert [action for action in delivered(agent, 1.6, actions) if isinstance(action, Settled)] == [Settled(1)]


def test_a_netrc_held_open_is_tried_at_every_guard_tick() -> None:
    """If another program holds the netrc open, the delivery is tried every 25 s. The old entry counts as delivered
    while valid."""
    agent, (index,) = holding()
    (deliver,) = delivers(fetched(agent, index, 1700, "t2"))
    assert not deliver.urgent
    for tick in range(3):
        at = 1700 + 25 * tick
        actions = agent.handle(DeliveryEnded(deliver.wanted, 0.9, HELD), after(at))
        assert plans(actions)["netrc"] == after(at + 25)
        assert agent.snapshot(after(at)).indexes[0].delivered
        (deliver,) = delivers(agent.handle(Due("netrc"), after(at + 25)))
    agent.handle(DeliveryEnded(deliver.wanted, 0.9, HELD), after(3602))
    assert not agent.snapshot(after(3602)).indexes[0].delivered


@pytest.mark.parametrize(("at", "urgent"), [(1700, False), (1801, True)])
def test_a_delivery_is_urgent_if_the_promise_is_at_risk(at: float, urgent: bool) -> None:
    """A delivery is not urgent while the delivered token still keeps its promised life."""
    agent, (index,) = holding()
    (deliver,) = delivers(fetched(agent, index, at, "t2"))
    assert deliver.urgent == urgent


def test_a_delivery_after_drift_is_urgent() -> None:
    """After drift, the content of the netrc is unknown, so the delivery is urgent."""
    agent, _ = holding()
    (deliver,) = delivers(agent.handle(events.SinkDrifted(), after(60)))
    assert deliver.urgent


def test_a_delivered_entry_is_not_delivered_again() -> None:
    """A configuration loaded during a delivery causes no further delivery if the result is already as wanted."""
    agent, (index,) = configured()
    (deliver,) = delivers(fetched(agent, index, 1))
    assert delivers(agent.handle(Configured(Settings("config.toml", (index,))), after(1.01))) == []
    agent.handle(DeliveryEnded(deliver.wanted, 0.5), after(1.02))
    actions = agent.handle(Due("netrc"), after(2))
    assert delivers(actions) == []
    assert not agent.deliveries["netrc"].pending


def test_a_netrc_held_open_delivers_nothing_new() -> None:
    """Only entries written before another program opened the netrc count as delivered."""
    agent, (first, second) = configured(2)
    delivered(agent, 1, fetched(agent, first, 1))
    (deliver,) = delivers(fetched(agent, second, 9))
    agent.handle(DeliveryEnded(deliver.wanted, 0.5, HELD), after(10))
    assert [view.delivered for view in agent.snapshot(after(10)).indexes] == [True, False]


def test_drift_of_an_unused_sink_is_ignored() -> None:
    """Drift of a sink that the configuration no longer uses may still be reported, and starts no delivery."""
    agent, _ = configured()
    assert agent.handle(events.SinkDrifted("uv-store"), after(1)) == []


def test_a_failure_ends_if_the_sink_is_already_as_wanted() -> None:
    """If the entry that could not be written is no longer wanted, nothing is written and the failure ends."""
    wanted = {"h0.example": Entry("h0.example", "me", Secret("t"))}
    failing = Delivery(
        pending=True, standing=wanted, failures=3, failure=HELD, failed_at=NOW, retry_at=after(9), begun=4, ended=4
    )
    settled, action = delivery.begin(failing, "netrc", wanted, {}, after(9))
    assert action is None
    assert (settled.pending, settled.failure, settled.failures, settled.retry_at) == (False, None, 0, None)
    assert settled.ok
    assert settled.settles_at is None


def test_a_hung_delivery_plans_nothing() -> None:
    """A delivery in flight plans the time at which it counts as hung. Once hung and reported, it plans nothing."""
    flying = Delivery(in_flight=True, began_at=NOW)
    assert flying.next_at(NOW, fetching=False) == NOW + delivery.HUNG
    hung = delivery.hung(flying, "netrc", NOW + delivery.HUNG)
    assert (hung.next_at(NOW, fetching=False), hung.failed_at) == (None, NOW + delivery.HUNG)
    assert (Delivery().begun, Delivery().ended, Delivery().failures) == (0, 0, 0)


ONE, TWO = (Entry(f"h{number}.example", "me", Secret("t")) for number in range(2))
WANTED = {ONE.target: ONE, TWO.target: TWO}
LIVES: dict[str, Life] = {ONE.target: (after(1800), after(3600)), TWO.target: (after(60), after(120))}
#: A delivery under way after one that failed, in every detail.
FLYING = Delivery(
    pending=False,
    lives={ONE.target: LIVES[ONE.target]},
    short_at=after(1800),
    offered=LIVES,
    in_flight=True,
    began_at=NOW,
    begun=5,
    ended=4,
    failures=3,
    failure=HELD,
    failed_at=after(-5),
    foreign=frozenset({"old.example"}),
    note="old",
    rival_at=after(-9),
)


def test_every_field_after_a_delivery_begins() -> None:
    """When a delivery begins, it offers the wanted entries, writes the targets in order, and increases the number of
    deliveries begun."""
    before = replace(FLYING, pending=True, in_flight=False, standing={}, offered={}, began_at=None, retry_at=NOW)
    begun, action = delivery.begin(before, "netrc", dict(reversed(WANTED.items())), LIVES, NOW)
    assert begun == replace(FLYING, begun=6, standing={})
    assert action == Deliver((ONE, TWO), "netrc", None, True, True)


def test_every_field_after_a_delivery_succeeds() -> None:
    """After a successful delivery, the written entries are standing, except those whose targets have foreign
    entries. All failures are forgotten."""
    problem = Problem("netrc", "line 3", "stops", "delete it")
    foreign = frozenset({TWO.target})
    event = DeliveryEnded((ONE, TWO), 0.5, foreign=foreign, problems=(problem,), note="new", rival=True)
    assert delivery.succeeded(FLYING, event, after(2)) == Delivery(
        pending=False,
        standing=WANTED,
        lives={ONE.target: LIVES[ONE.target]},
        short_at=after(1800),
        offered=LIVES,
        left=(ONE,),
        in_flight=False,
        began_at=NOW,
        took=timedelta(seconds=2),
        begun=5,
        ended=5,
        failures=0,
        failure=None,
        failed_at=None,
        foreign=foreign,
        problems=(problem,),
        note="new",
        seen_at=after(2),
        rival_at=after(2),
    )
    assert delivery.succeeded(FLYING, replace(event, rival=False), after(2)).rival_at == after(-9)


@pytest.mark.parametrize(("reason", "wait"), [("disk-full", 25.0), (HELD_OPEN, 25.0), (delivery.CONTESTED, 285.0)])
def test_every_field_after_a_delivery_fails(reason: str, wait: float) -> None:
    """A failed delivery is retried after at most 25 s. If another program keeps rewriting the file, it is retried
    after a slow probe."""
    why = Failure("transient", reason, "Why.")
    flying = replace(FLYING, failures=9)
    failed = delivery.failed(flying, why, after(2), 0.9999999999)
    assert failed.retry_at is not None
    assert (failed.retry_at - after(2)).total_seconds() == pytest.approx(wait)
    assert replace(failed, retry_at=None) == replace(
        flying, pending=True, in_flight=False, ended=5, failures=10, failure=why, failed_at=after(2)
    )
    yielded = replace(FLYING, rival_at=None)
    if reason == delivery.CONTESTED:
        assert delivery.failed(yielded, why, NOW, 0.5) == replace(yielded, pending=True, in_flight=False, ended=5)


def test_every_field_while_a_delivery_hangs() -> None:
    """A delivery that hangs stays in flight with a transient failure, and the content of the sink counts as unknown."""
    hung = delivery.hung(replace(FLYING, standing=WANTED), "netrc", after(20))
    assert hung.failure is not None
    assert (hung.failure.kind, hung.failure.reason, hung.hung) == ("transient", DELIVERY_HUNG, True)
    assert replace(hung, failure=HELD) == replace(FLYING, standing=None, failed_at=after(20))


def test_drift_ends_the_back_off() -> None:
    """After drift, the content of the sink is unknown and the delivery is due at once. A person's request also
    forgets rivals."""
    failing = Delivery(pending=False, standing=WANTED, retry_at=after(9), rival_at=NOW)
    assert delivery.drifted(failing) == Delivery(pending=True, standing=None, retry_at=None, rival_at=NOW)
    assert delivery.urged(failing) == Delivery(pending=False, standing=WANTED)
    assert delivery.touched(failing) == replace(failing, pending=True)


def test_an_entry_is_valid_until_its_end_and_not_at_it() -> None:
    """An entry is valid until its life ends, and always if it has no known end. A target without an entry is never
    valid."""
    known = Delivery(lives={"a": (None, after(9)), "b": (None, None)})
    assert [known.valid("a", after(seconds)) for seconds in (8.9, 9)] == [True, False]
    assert (known.valid("b", after(1e9)), known.valid("c", NOW)) == (True, False)


@pytest.mark.parametrize(("ago", "fought"), [(59.9, True), (60.0, False)])
def test_the_daemon_yields_to_a_rival_of_the_last_minute(ago: float, fought: bool) -> None:
    """The daemon yields if a rival changed its block less than a minute ago. After that, it restores the block once
    more."""
    _, action = delivery.begin(Delivery(rival_at=NOW), "netrc", WANTED, LIVES, after(ago))
    assert action is not None
    assert action.yielding == fought


def test_the_reasons_of_failed_deliveries() -> None:
    """Scripts read these reasons in the status document, so they do not change."""
    assert (delivery.CONTESTED, HELD_OPEN, DELIVERY_HUNG) == ("contested", "held", "delivery-hung")


def test_the_defaults_of_events_and_actions() -> None:
    """By default, events and actions concern the netrc and report nothing unusual."""
    ended, deliver = DeliveryEnded((), 0.5), Deliver(())
    assert (ended.rival, ended.sink, ended.changed, ended.foreign, ended.problems) == (
        False,
        "netrc",
        False,
        frozenset(),
        (),
    )
    assert (deliver.sink, deliver.yielding, deliver.urgent, deliver.left) == ("netrc", False, True, None)
    assert (events.Woke().stepped, events.SinkDrifted().sink) == (False, "netrc")
    assert events.StartFetch(Request("p")).hung is False
    configured = Configured(Settings("c"))
    assert (configured.recovered, configured.notices, configured.sinks) == ({}, {}, ("netrc",))
    new = Delivery()
    assert (new.pending, new.in_flight, new.lives, new.offered) == (True, False, {}, {})
    assert (Problem("f", "w", "m", "h").fatal, Request("p").service, Request("p").memory) == (True, "", False)
    index = Index("a", "https://a.example/", "a.example", "p", Request("p"))
    assert (index.sink, index.service, Entry("h", "u", Secret("t")).service) == ("netrc", "", "")
    settings = Settings("c")
    assert (settings.netrc, settings.fetch_timeout, settings.max_workers) == ("", 60.0, 4)
    assert (settings.log_level, settings.notify) == ("info", False)
