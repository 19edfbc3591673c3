"""Random histories of weeks (of months in a thorough run) must keep the promise, and broken agents must fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from laws import Issuer, Laws
from simulation import DAY, ISSUERS, START, TROUBLES, World, run

from uvtokend.core import delivery as deliveries
from uvtokend.core import events, policy, slots, views
from uvtokend.core import lease as leases
from uvtokend.core.agent import Agent, admit
from uvtokend.core.delivery import Delivery
from uvtokend.core.lease import Lease
from uvtokend.core.model import Credential, Entry, Failure, Index, Request
from uvtokend.core.waiting import Waiting

#: One history takes as long as hundreds of ordinary examples. Hypothesis always begins with the same, simplest one.
HISTORIES = max(2, settings().max_examples // 25)
#: Days of a random history, and of one whose faults Hypothesis chooses: fewer in a normal run.
DAYS, UNTIL = (45, 90) if HISTORIES > 2 else (15, 30)


@settings(max_examples=HISTORIES, phases=(Phase.generate,))
@given(st.integers(0, 2**32), st.integers(0, 2))
def test_the_promise_holds_in_random_histories(seed: int, kinds: int) -> None:
    """In random histories of weeks with every kind of fault, the laws hold at every moment, and each index
    recovers in the end."""
    run(seed, days=DAYS, kinds=kinds)


class Laptop(RuleBasedStateMachine):
    """The same world with faults that Hypothesis chooses, to find the shortest history that breaks a law."""

    @initialize(
        seed=st.integers(0, 2**32),
        issuers=st.lists(st.sampled_from([issuer for issuer in ISSUERS if issuer.life != 900]), min_size=1, max_size=3),
        shared=st.integers(1, 3),
        notified=st.booleans(),
        kinds=st.integers(0, 2),
    )
    def begin(self, seed: int, issuers: list[Issuer], shared: int, notified: bool, kinds: int) -> None:
        self.world = World(Random(seed), issuers, shared, notified=notified, kinds=kinds)
        self.hosts = [index.host for index in self.world.all_indexes]

    @rule(hours=st.sampled_from([0.01, 0.5, 3.0, 24.0, 120.0]))
    def time_goes_by(self, hours: float) -> None:
        self.world.live(hours * 3600)

    @rule(up=st.booleans())
    def the_network(self, up: bool) -> None:
        self.world.set_network(up)

    @rule(free=st.booleans())
    def the_disk(self, free: bool) -> None:
        self.world.set_disk(free)

    @rule(good=st.booleans())
    def the_login(self, good: bool) -> None:
        self.world.set_login(good)

    @rule(which=st.integers(0, 4), trouble=st.sampled_from([None, *TROUBLES]))
    def an_issuer(self, which: int, trouble: str | None) -> None:
        self.world.set_trouble(which, trouble)

    @rule(hours=st.sampled_from([0.001, 1.0, 40.0]))
    def sleeps(self, hours: float) -> None:
        self.world.sleep()
        self.world.live(hours * 3600)
        self.world.wake()

    @rule(skew=st.sampled_from([-2400.0, -60.0, 0.0, 60.0, 900.0]))
    def the_clock_is_set(self, skew: float) -> None:
        self.world.step_clock(skew)

    @rule(only_waits=st.booleans())
    def a_client_asks(self, only_waits: bool) -> None:
        self.world.ask(None, only_waits)

    @rule(which=st.integers(0, 4), present=st.booleans())
    def a_foreign_entry(self, which: int, present: bool) -> None:
        self.world.set_foreign(self.hosts[which % len(self.hosts)], present)

    @rule(seconds=st.sampled_from([30.0, 120.0, 900.0]))
    def a_rival(self, seconds: float) -> None:
        self.world.fight(seconds)

    @rule(first=st.integers(0, 2))
    def the_configuration(self, first: int) -> None:
        self.world.configure(self.world.all_indexes[first:])

    @rule(reboot=st.booleans())
    def a_kill(self, reboot: bool) -> None:
        self.world.kill(reboot)

    @rule(seconds=st.sampled_from([40.0, 7200.0]))
    def a_pause(self, seconds: float) -> None:
        self.world.pause(seconds)

    @rule(what=st.sampled_from([World.hang_disk, World.unhang_disk, World.hold, World.release]))
    def a_file_that_cannot_be_written(self, what: Callable[[World], None]) -> None:
        what(self.world)

    @rule(what=st.sampled_from([World.rewrite, World.rotate, World.look]))
    def something_else(self, what: Callable[[World], None]) -> None:
        what(self.world)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.heal()
            self.world.live(max(2 * 3600, UNTIL * DAY - self.world.now))
            self.world.laws.all_is_well(self.world.now, self.world.file)


def test_hypothesis_finds_no_history_that_breaks_a_law() -> None:
    """Hypothesis chooses the faults of at least 30 days and finds no history that breaks a law."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Laptop, settings=settings(max_examples=HISTORIES, stateful_step_count=30))


def test_simultaneous_failures_are_not_retried_simultaneously() -> None:
    """Sixty indexes lose the network in the same second. No later second has more than 30 fetches, and once the
    back-off has grown (to 15 s on average: 4 fetches a second, plus six standard deviations of 2), none has more
    than 16."""
    for seed in range(min(HISTORIES // 2, 10)):
        world = World(Random(seed), [Issuer(3600.0)] * 60, network=False, slots=60)
        world.live(900.0)
        seconds = Counter(int(time) for times in world.laws.requests.values() for time in times if time)
        assert max(seconds.values()) <= 30
        assert max(count for second, count in seconds.items() if second > 120) <= 16


def test_the_agent_gives_way_to_a_rival_until_it_stops() -> None:
    """The agent gives way to a rival that changes our block twice within a minute, and reports the index as blocked.
    At the first attempt after the rival stopped, the entry is restored and the index is no longer blocked."""
    world = World(Random(1), [Issuer(43200.0)])
    world.live(60.0)
    before = world.file.copy()
    world.fight(600.0)
    reasons = set()
    for _ in range(600):
        world.live(1.0)
        (view,) = world.agent.snapshot(world.at()).indexes
        if view.state == "blocked" and view.last_error is not None:
            reasons.add(view.last_error.reason)
    assert reasons == {deliveries.CONTESTED}
    world.live(330.0)
    (view,) = world.agent.snapshot(world.at()).indexes
    assert (view.state, view.last_error, world.file) == ("waiting", None, before)


def test_an_agent_that_gives_way_forever_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails for an agent that does not try again after the rival stopped."""
    monkeypatch.setattr(deliveries, "FIGHT", timedelta(days=1000))
    with pytest.raises(AssertionError):
        test_the_agent_gives_way_to_a_rival_until_it_stops()


# ------------------------------------------------------------------------------------------------- broken agents


def broken_law(first: int, guard_tick: bool = True) -> str | None:
    """Return the law that a broken agent breaks within some histories, or None.

    Args:
        first: The seed to begin with. Each test names one that is known to catch its agent soon, which saves most of
            the time; the others follow.
        guard_tick: False for a daemon without a guard tick, which never notices a sleep.
    """
    for seed in dict.fromkeys((first, *range(30))):
        try:
            run(seed, 10, guard_tick, often=6.0)
        except AssertionError as error:
            return str(error).splitlines()[0]
    return None


def test_a_daemon_without_a_guard_tick_is_caught() -> None:
    """Without the guard tick, timers stop during sleep and the indexes never recover after a wake-up."""
    laws = {"no recovery", "no recovery: the token has expired", "an expired token is in the netrc"}
    assert broken_law(first=2, guard_tick=False) in laws


def test_a_daemon_that_does_not_watch_for_a_sign_in_is_caught() -> None:
    """A daemon that ignores a sign-in retries only at its next slow probe, which breaks the promise."""

    def ignore_login(self: World) -> None:
        self.laws.login_seen(self.now, tuple(self.agent.leases))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "_look_for_login", ignore_login)
        assert broken_law(first=0) is not None


def test_an_agent_that_refreshes_late_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that refreshes only one minute before the expiry breaks the promised life."""

    def late(credential: Credential, received: datetime, previous: Credential | None, roll: float) -> datetime:
        return (credential.expires_at or received + timedelta(hours=1)) - timedelta(seconds=60)

    monkeypatch.setattr(policy, "refresh_at", late)
    assert "promised" in (broken_law(first=0) or "")


def test_an_agent_that_keeps_expired_tokens_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that leaves an entry in the netrc after its token has expired breaks a law."""

    def entry(index: Index, lease: Lease, now: datetime) -> Entry | None:
        credential = lease.credential
        return None if credential is None else Entry(index.host, credential.login, credential.password)

    monkeypatch.setattr(views, "entry", entry)
    assert broken_law(first=0) == "an expired token is in the netrc"


def an_issuer_with_an_error() -> None:
    """Simulate an issuer that fails for two hours."""
    world = World(Random(1), [Issuer(3600.0)])
    world.set_trouble(0, "error")
    world.live(7200.0)


def test_an_agent_that_never_backs_off_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that retries every second during an outage breaks the law on requests."""
    an_issuer_with_an_error()
    monkeypatch.setattr(policy, "backoff", lambda *_: 1.0)
    with pytest.raises(AssertionError, match="a burst of requests"):
        an_issuer_with_an_error()


def test_an_agent_without_jitter_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jitter, sixty fetches that fail together are retried together."""
    jittery = policy.backoff
    monkeypatch.setattr(
        policy, "backoff", lambda failures, failure, urgent, _, spent: jittery(failures, failure, urgent, 0.99, spent)
    )
    with pytest.raises(AssertionError):
        test_simultaneous_failures_are_not_retried_simultaneously()


def asks_caches_in_a_loop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policy, "_ask_cache_again", lambda _, received: received + timedelta(seconds=30))


def takes_cached_tokens_for_new(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policy, "SAME_END", 0.0)
    patch.setattr(policy, "_ask_cache_again", lambda _, received: received)


def drops_a_token_on_failure(patch: pytest.MonkeyPatch) -> None:
    def failed(lease: Lease, failure: Failure, now: datetime, roll: float) -> Lease:
        return replace(honest(lease, failure, now, roll), credential=None)

    honest = leases.failed
    patch.setattr(leases, "failed", failed)


def gives_up(patch: pytest.MonkeyPatch) -> None:
    def failed(lease: Lease, failure: Failure, now: datetime, roll: float) -> Lease:
        lease = honest(lease, failure, now, roll)
        gives_up = lease.failures > 9 and failure.kind == "transient" and failure.retry_after is None
        return replace(lease, act_at=None) if gives_up else lease

    honest = leases.failed
    patch.setattr(leases, "failed", failed)


def does_not_try_after_a_login(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases, "login_changed", lambda lease, _: lease)


def obeys_any_retry_after(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policy, "RETRY_AFTER_CAP", 1e9)


def never_delivers_again(patch: pytest.MonkeyPatch) -> None:
    def begins(delivery: Delivery, now: datetime, fetching: bool) -> bool:
        return delivery.failure is None and honest(delivery, now, fetching)

    honest = deliveries.begins
    patch.setattr(deliveries, "begins", begins)


def fetches_twice_at_once(patch: pytest.MonkeyPatch) -> None:
    def start(self: Agent, request: Request, now: datetime, doubtful: bool = False) -> None:
        self._actions.append(events.StartFetch(request, 20.0))
        self._change({request: leases.ask(self.leases[request], now)})

    patch.setattr(Agent, "_start", start)


def does_not_look_at_the_file(patch: pytest.MonkeyPatch) -> None:
    def drift(self: World) -> None:
        self.laws.drift_seen(self.now)

    patch.setattr(World, "_drift", drift)


def answers_no_client(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Waiting, "settled", lambda *_: ())


def keeps_entries_of_removed_indexes(patch: pytest.MonkeyPatch) -> None:
    def configure(self: Agent, event: events.Configured, now: datetime) -> None:
        before = {host: entry for wanted in self._wanted.values() for host, entry in wanted.items()}
        honest(self, event, now)
        self._wanted["netrc"] |= before

    honest = Agent._configure
    patch.setattr(Agent, "_configure", configure)


def calls_everything_delivered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(views, "_delivered", lambda *_: True)


def fights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deliveries, "FIGHT", timedelta(0))


def probes_seldom(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policy, "BLOCKED_PROBE", 900.0)


def names_no_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(views, "_retry_at", lambda *_: None)


def names_another_time(patch: pytest.MonkeyPatch) -> None:
    def retry_at(lease: Lease, delivery: Delivery) -> datetime | None:
        at = honest(lease, delivery)
        return at and at - timedelta(seconds=1)

    honest = views._retry_at
    patch.setattr(views, "_retry_at", retry_at)


def names_the_refresh_instead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(views, "_retry_at", lambda lease, _: lease.act_at)


def gives_way_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deliveries, "FIGHT", timedelta(hours=1))


def gives_way_for_an_hour(patch: pytest.MonkeyPatch) -> None:
    def failed(delivery: Delivery, failure: Failure, now: datetime, roll: float) -> Delivery:
        after = honest(delivery, failure, now, roll)
        return replace(after, retry_at=now + timedelta(hours=1)) if after.contested else after

    honest = deliveries.failed
    patch.setattr(deliveries, "failed", failed)


def waits_for_no_token(patch: pytest.MonkeyPatch) -> None:
    def begins(delivery: Delivery, now: datetime, fetching: bool) -> bool:
        return honest(delivery, now, False)

    honest = deliveries.begins
    patch.setattr(deliveries, "begins", begins)


def is_always_early(patch: pytest.MonkeyPatch) -> None:
    def begins(delivery: Delivery, now: datetime, fetching: bool) -> bool:
        return honest(replace(delivery, early=False), now, fetching)

    honest = deliveries.begins
    patch.setattr(deliveries, "begins", begins)


BROKEN = [
    (fights, "a fight", 0),
    (asks_caches_in_a_loop, "tokens in a loop", 0),
    (takes_cached_tokens_for_new, "tokens in a loop", 0),
    (drops_a_token_on_failure, "a valid token is not in the netrc", 0),
    (gives_up, "promised", 1),
    (does_not_try_after_a_login, "the fetch does not begin when the status says", 2),
    (obeys_any_retry_after, "suspended for too long", 3),
    (probes_seldom, "suspended for too long", 0),
    (names_no_time, "until when the promise is suspended", 0),
    (names_another_time, "the fetch does not begin when the status says", 0),
    (names_the_refresh_instead, "for how long the agent gives way", 0),
    (gives_way_at_once, "without a fight", 0),
    (gives_way_for_an_hour, "gives way for too long", 0),
    (never_delivers_again, "a hot loop", 0),
    (fetches_twice_at_once, "two fetches in flight for one lease", 1),
    (does_not_look_at_the_file, "not in the netrc", 0),
    (answers_no_client, "a client waits forever", 3),
    (keeps_entries_of_removed_indexes, "not configured", 4),
    (calls_everything_delivered, "the status", 0),
    (waits_for_no_token, "does not wait for the next token", 6),
    (is_always_early, "deliveries in a burst", 29),
]


@pytest.mark.parametrize(("breaks", "law", "first"), BROKEN, ids=[breaks.__name__ for breaks, *_ in BROKEN])
def test_a_broken_agent_is_caught(
    breaks: Callable[[pytest.MonkeyPatch], None], law: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulator catches each broken agent with the law that it breaks."""
    breaks(monkeypatch)
    assert law in (broken_law(first) or "")


def sign_in_during_a_probe(seed: int) -> None:
    """Sign in while one of two blocked leases is being probed with the old sign-in."""
    world = World(Random(seed), [Issuer(3600.0)] * 2, login=False)
    world.live(600.0)
    world.ask(("i0",))
    world.set_login(True)
    world.live(60.0)
    assert len(world.file) == 2


def test_a_daemon_that_ignores_a_sign_in_during_a_fetch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that was in flight during a sign-in says nothing about the new sign-in; a daemon that trusts it waits
    5 minutes."""
    for seed in range(20):
        sign_in_during_a_probe(seed)
    monkeypatch.setattr(World, "_logged_in_meanwhile", lambda *_: None)
    with pytest.raises(AssertionError):
        for seed in range(20):
            sign_in_during_a_probe(seed)


def wake_with_a_dead_connection(notified: bool) -> None:
    """A fetch hangs when the machine goes to sleep. It wakes up in another network, with its timers late."""
    world = World(Random(1), [Issuer(3600.0)], network=False, notified=notified)
    while not world.flights or world.limits[world.all_indexes[0].request] < 20.0:
        world.live(0.1)
    world.sleep()
    world.live(7200.0)
    world.set_network(True)
    world.wake()
    world.live(5.8 if notified else 30.0)
    assert world.file


@pytest.mark.parametrize("notified", [True, False])
def test_an_agent_that_does_not_retry_after_a_wake_up_is_caught(
    notified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fetch in flight is restarted: a token arrives within 5 s if the kernel reports the wake-up, otherwise
    within 30 s."""
    wake_with_a_dead_connection(notified)
    monkeypatch.setattr(leases, "woke", lambda lease, _: lease)
    if notified:
        with pytest.raises(AssertionError):
            wake_with_a_dead_connection(notified)


def the_network_returns_after_a_hang() -> None:
    """A fetch hangs on a broken connection until it is killed; then the kernel reports that the network is back."""
    world = World(Random(1), [Issuer(3600.0)], network=False, notified=True)
    (request,) = world.laws.issuers
    while (failure := world.agent.leases[request].last_failure) is None or failure.reason != "deadline":
        world.live(0.1)
    world.live(1.0)  # the failed fetch is planned again by now
    world.agent.leases[request] = replace(world.agent.leases[request], act_at=START + timedelta(seconds=world.now + 25))
    world.plans[request] = world.now + 25.0
    world.set_network(True)
    world.live(5.8)
    assert world.file


def test_a_daemon_that_treats_a_hang_as_an_answer_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung fetch was not answered, so the return of the network retries it at once instead of after up to 25 s."""
    the_network_returns_after_a_hang()
    monkeypatch.setattr(policy, "NOBODY_ANSWERED", frozenset({"unreachable", "timeout"}))
    with pytest.raises(AssertionError):
        the_network_returns_after_a_hang()


def a_healthy_issuer_behind_hung_ones() -> World:
    """Twenty issuers hang; one, which is asked last, does not."""
    world = World(Random(1), [Issuer(3600.0)] * 21, network=False)
    for which in range(20):
        world.set_trouble(which, "hung")
    world.set_network(True)
    world.ask(None)
    return world


def test_hung_issuers_do_not_starve_a_healthy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With four slots, the healthy issuer's token arrives within 30 s and keeps the promised life while the others
    hang. If hung fetches did not give way, it would wait until five of them were killed."""
    for slice_, in_time in ((slots.SLICE, True), (1000.0, False)):
        monkeypatch.setattr(slots, "SLICE", slice_)
        world = a_healthy_issuer_behind_hung_ones()
        world.live(30.0)
        assert ("h20.example" in world.file) == in_time
    monkeypatch.undo()
    world = a_healthy_issuer_behind_hung_ones()
    for _ in range(8):
        world.live(1000.0)
        (end,) = {world.laws.tokens[token].end for token in world.file.values()}
        assert end is not None
        assert end - world.now >= 1800.0


def test_how_long_a_failure_suspends_the_promise() -> None:
    """A Retry-After suspends the promise for at most an hour plus jitter, a verdict for 5 minutes, and any other
    failure not at all. The status must name the time."""
    request = Request("p")
    for trouble in [*TROUBLES.values(), Failure("login-required", "ended", "Sign in.")]:
        failure = admit(trouble, "h.example", START + timedelta(days=1))
        assert isinstance(failure, Failure)
        laws = Laws({request: Issuer(3600.0)})
        suspends = failure.retry_after is not None or failure.kind != "transient"
        latest = 300.0 if failure.retry_after is None else min(failure.retry_after, 3600.0) + 5.0
        laws.failed(request, 0.0, failure, latest)
        assert (request in laws.suspended) == suspends
        for named in (None, latest + 1.0, -1.0) if suspends else ():
            with pytest.raises(AssertionError, match="suspended"):
                laws.failed(request, 0.0, failure, named)
