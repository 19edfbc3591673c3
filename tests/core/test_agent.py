"""The agent, event by event."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from uvtokend.core import delivery, fixes, status
from uvtokend.core.agent import Agent, admit
from uvtokend.core.events import (
    Action,
    CancelFetch,
    ClockTrusted,
    Configured,
    Deliver,
    DeliveryEnded,
    Due,
    Event,
    FetchEnded,
    Job,
    LoginChanged,
    NetworkReturned,
    Plan,
    RefreshAsked,
    Report,
    RestartFetch,
    Settled,
    SinkDrifted,
    StartFetch,
    Tick,
    WaitAsked,
    WaiterLeft,
    Woke,
)
from uvtokend.core.model import (
    Credential,
    Entry,
    Failure,
    FailureKind,
    Index,
    Notice,
    Problem,
    Request,
    Secret,
    Settings,
    Sink,
)
from uvtokend.core.views import one_line

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
ACME, CORP = Request("aws-codeartifact", options=(("domain", "acme"),)), Request("static")
PROD = Index("prod", "https://acme.example/prod/simple/", "acme.example", "aws-codeartifact", ACME)
DEV = Index("dev", "https://acme.example/dev/simple/", "acme.example", "aws-codeartifact", ACME)
CORPORATE = Index("corp", "https://corp.example/simple/", "corp.example", "static", CORP)
SETTINGS = Settings("config.toml", (PROD, DEV, CORPORATE))
DISK_FULL = Failure("transient", "disk-full", "The disk is full.", "free some room")
DENIED = Failure("rejected", "denied", "No.", "ask for the permission")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def token(text: str = "t1", at: float = 0, life: float | None = 3600) -> Credential:
    return Credential("aws", Secret(text), after(at), None if life is None else after(at + life))


def entry(host: str, text: str) -> Entry:
    return Entry(host, "aws", Secret(text))


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliveries follow one another at once; the rest between them is tested apart."""
    monkeypatch.setattr(delivery, "REST", timedelta(0))
    monkeypatch.setattr(delivery, "LONGEST_REST", timedelta(0))


class Planned(Agent):
    """An agent that keeps its plans for itself."""

    def __init__(self, only: Collection[Request] | None = None) -> None:
        super().__init__(only)
        self.plans: dict[Job, datetime] = {}

    def handle(self, event: Event, now: datetime) -> list[Action]:
        return [shown for action in super().handle(event, now) for shown in self._shown(action)]

    def _shown(self, action: Action) -> Iterator[Action]:
        match action:
            case Plan(job, _, None):
                del self.plans[job]
            case Plan(job, _, datetime() as at):
                self.plans[job] = at
            case _:
                yield action

    def deadline(self) -> datetime | None:
        """Return when the agent wants to be called next."""
        return min(self.plans.values(), default=None)


class Plain(Planned):
    """An agent whose actions are shown without what other tests are about."""

    def _shown(self, action: Action) -> Iterator[Action]:
        match action:
            case Deliver(wanted):
                yield Deliver(wanted)
            case StartFetch(request):
                yield StartFetch(request)
            case _:
                yield from super()._shown(action)


def configured() -> Plain:
    agent = Plain()
    agent.handle(Configured(SETTINGS), NOW)
    agent.handle(DeliveryEnded((), 0.5), NOW)
    return agent


def holding() -> Plain:
    """Return an agent whose two tokens are delivered."""
    agent = configured()
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW)
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), NOW)
    agent.handle(DeliveryEnded((entry("acme.example", "a"), entry("corp.example", "c")), 0.5), NOW)
    return agent


def last_error(agent: Agent, name: str, at: datetime = NOW) -> tuple[str, str, str | None]:
    error = next(view.last_error for view in agent.snapshot(at).indexes if view.index.name == name)
    assert error is not None
    return error.kind, error.reason, error.hint


def test_the_state_in_one_line() -> None:
    """It counts the delivered tokens and names the first error with its fix, if there is a fix."""
    assert one_line(()) == "waiting for a configuration: uvtokend init"
    agent = holding()
    assert one_line(agent.snapshot(NOW).indexes) == "3 of 3 indexes have a valid token"
    agent.handle(RefreshAsked(("corp",)), NOW)
    agent.handle(FetchEnded(CORP, DENIED, 0.5), NOW)
    assert one_line(agent.snapshot(NOW).indexes) == ("3 of 3 indexes have a valid token; No. -> ask for the permission")
    agent.handle(RefreshAsked(("corp",)), NOW)
    agent.handle(FetchEnded(CORP, replace(DENIED, hint=None), 0.5), NOW)
    assert one_line(agent.snapshot(NOW).indexes) == "3 of 3 indexes have a valid token; No."


def test_one_fetch_serves_all_the_indexes_of_its_token() -> None:
    """Three indexes with two requests are two fetches; the file is brought in order before the first of them."""
    agent = Plain()
    actions = agent.handle(Configured(SETTINGS), NOW)
    assert actions == [Deliver(()), StartFetch(ACME), StartFetch(CORP)]
    assert agent.handle(Tick(), NOW) == []


def test_a_token_is_delivered_when_it_comes() -> None:
    """Fetched, delivered, waiting: and the deadline is the refresh."""
    agent = configured()
    actions = agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    assert [type(action) for action in actions] == [Report, Deliver]
    assert actions[1] == Deliver((entry("acme.example", "a"),))
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), NOW)
    views = {view.index.name: view for view in agent.snapshot(NOW).indexes}
    assert (views["prod"].delivered, views["dev"].delivered, views["corp"].delivered) == (True, True, False)
    assert agent.deadline() == agent.leases[ACME].act_at


def test_deliveries_follow_one_another() -> None:
    """A token that comes while a delivery is in flight is delivered right after it."""
    agent = configured()
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    assert not any(isinstance(action, Deliver) for action in agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW))
    actions = agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), NOW)
    assert actions == [Deliver((entry("acme.example", "a"), entry("corp.example", "c")))]


def test_it_says_what_is_in_flight() -> None:
    """A status need not wait for a delivery while more tokens are on their way: the agent says which it is."""
    agent = configured()
    assert (agent.fetching, agent.delivering) == (True, False)
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW)
    assert (agent.fetching, agent.delivering) == (False, True)
    assert (holding().fetching, holding().delivering) == (False, False)


def test_it_refreshes_when_due_and_keeps_the_old_token_meanwhile() -> None:
    """At its time a fetch starts; until it ends the entry stays as it is."""
    agent = holding()
    assert StartFetch(ACME) in agent.handle(Tick(), after(1800))
    assert agent.handle(Tick(), after(1801)) == []
    assert all(
        view.delivered and view.lease.health(after(1801)) == "stale" for view in agent.snapshot(after(1801)).indexes
    )
    agent.handle(FetchEnded(ACME, token("b", 1801), 0.5), after(1802))
    assert agent.deliveries["netrc"].in_flight


def test_a_token_that_dies_is_taken_out() -> None:
    """No new token: at the end of life its entry goes, not a tick later, and the log says so."""
    agent = holding()
    agent.handle(Tick(), after(1800))
    agent.handle(FetchEnded(ACME, DENIED, 0.5), after(1801))
    agent.handle(FetchEnded(CORP, token("d", 1801), 0.5), after(1801))
    both = (entry("acme.example", "a"), entry("corp.example", "d"))
    agent.handle(DeliveryEnded(both, 0.5), after(1802))
    assert agent.handle(Tick(), after(3500))[-1:] != [Deliver((entry("corp.example", "d"),))]
    actions = agent.handle(Tick(), after(3600))
    assert Deliver((entry("corp.example", "d"),)) in actions
    actions = agent.handle(DeliveryEnded((entry("corp.example", "d"),), 0.5), after(3600))
    assert Report("warning", "removed", ("prod", "dev"), "The entry was removed: its token has expired.") in actions
    view = agent.snapshot(after(3600)).indexes[0]
    assert (view.lease.health(after(3600)), view.delivered) == ("expired", False)


def test_an_agent_for_some_requests_fetches_no_others() -> None:
    """`once NAME` fetches for NAME alone: not what else is due, nor after a wake-up, a sign-in or a tick; and it plans
    nothing for the others. Their entries stay."""
    agent = Plain(only={ACME})
    due = {CORP: (token("c", -1800), NOW), ACME: (token("a", -1800), NOW)}
    actions = agent.handle(Configured(SETTINGS, due), NOW)
    assert [action.request for action in actions if isinstance(action, StartFetch)] == [ACME]
    assert Deliver(tuple(entry(host, text) for host, text in (("acme.example", "a"), ("corp.example", "c")))) in actions
    agent.handle(FetchEnded(ACME, token("b"), 0.5), NOW)
    for event in (Tick(), Woke(), Woke(stepped=True), NetworkReturned(), LoginChanged((CORP,)), Due(CORP)):
        assert StartFetch(CORP) not in agent.handle(event, after(1))
    assert CORP not in agent.plans
    assert ACME in agent.plans


def test_a_dead_token_on_arrival_is_a_failure() -> None:
    """An end of life in the past never replaces a valid token."""
    agent = holding()
    agent.handle(Tick(), after(1800))
    agent.handle(FetchEnded(ACME, token("x", -9000), 0.5), after(1801))
    assert last_error(agent, "prod")[:2] == ("transient", "expired-on-arrival")
    assert agent.leases[ACME].valid(after(1801)) == token("a")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_dead_token_on_arrival_names_the_command_of_this_platform(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is looked at with the command that this platform has."""
    monkeypatch.setattr(fixes.show_clock, "__defaults__", (platform,))
    found = admit(token("x", -9000), "acme.example", NOW)
    assert isinstance(found, Failure)
    assert found.hint == f"check this machine's clock: {fixes.show_clock(platform)}"
    assert ("timedatectl" in found.hint) == (platform == "linux")


@pytest.mark.parametrize(
    ("left", "words"),
    [(43197.4, "12 h"), (3599.2, "1 h"), (5395.0, "1 h 30 min"), (119.0, "1 min"), (45.0, "45 s")],
)
def test_the_log_says_a_life_as_people_do(left: float, words: str) -> None:
    """A token of twelve hours that took three seconds to come is valid for 12 h."""
    agent = configured()
    actions = agent.handle(FetchEnded(ACME, token("x", life=left), 0.5), NOW)
    said = next(action.message for action in actions if isinstance(action, Report))
    assert said == f"Fetched a new token, valid for {words}."


def test_a_token_that_no_netrc_can_carry_stops_nobody_else() -> None:
    """A line break in a token is refused on arrival, so that the other tokens are still delivered."""
    agent = configured()
    agent.handle(FetchEnded(CORP, token("evil\nmachine other.example"), 0.5), NOW)
    assert last_error(agent, "corp")[0] == "rejected"
    assert Deliver((entry("acme.example", "a"),)) in agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)


def test_a_full_disk_never_causes_a_fetch() -> None:
    """Delivery has its own back-off; the status names it; and when it works again nothing of it is left."""
    agent = configured()
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    actions = agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5, DISK_FULL), NOW)
    assert [type(action) for action in actions] == [Report]
    assert last_error(agent, "prod") == ("delivery", "disk-full", "free some room")
    assert agent.snapshot(NOW).indexes[0].state == "retrying"
    assert (agent.snapshot(NOW).delivery_ok, agent.snapshot(NOW).delivery_problem) == (False, "The disk is full.")
    retry = agent.deadline()
    assert retry == after(3)
    assert agent.handle(Tick(), after(1)) == []
    assert agent.handle(Tick(), retry) == [Deliver((entry("acme.example", "a"),))]
    again = agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5, DISK_FULL), retry)
    assert again == []  # said once
    agent.handle(Tick(), after(60))
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), after(60))
    assert agent.snapshot(after(60)).indexes[0].last_error is None
    assert agent.snapshot(after(60)).delivery_ok


def test_a_foreign_entry_blocks_its_index_alone() -> None:
    """It is left alone, named with the command that takes it over, and the others are delivered."""
    agent = configured()
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    wanted = (entry("acme.example", "a"),)
    actions = agent.handle(DeliveryEnded(wanted, 0.5, foreign=frozenset({"acme.example"})), NOW)
    assert [action.hint for action in actions if isinstance(action, Report)] == ["uvtokend adopt prod"]
    view = agent.snapshot(NOW).indexes[0]
    assert (view.state, view.delivered) == ("blocked", False)
    assert last_error(agent, "dev") == ("delivery", "foreign-entry", "uvtokend adopt dev")
    agent.handle(SinkDrifted(), after(5))
    agent.handle(DeliveryEnded(wanted, 0.5), after(5))
    assert agent.snapshot(after(5)).indexes[0].delivered


def test_a_netrc_that_uv_cannot_read_delivers_nothing() -> None:
    """A fatal problem voids the delivery, a warning does not; both are reported once."""
    agent = holding()
    warning = Problem(".netrc", "line 3", "A default entry.", "remove it", fatal=False)
    fatal = Problem(".netrc", "line 1", "An unknown word.", "remove it")
    wanted = tuple((agent.deliveries["netrc"].standing or {}).values())
    for problem, good in ((warning, True), (fatal, False)):
        agent.handle(SinkDrifted(), NOW)
        actions = agent.handle(DeliveryEnded(wanted, 0.5, problems=(problem,)), NOW)
        assert [action.message for action in actions if isinstance(action, Report)] == [str(problem)]
        assert agent.snapshot(NOW).indexes[0].delivered == good
        assert (agent.snapshot(NOW).indexes[0].last_error is None) == good
        assert agent.snapshot(NOW).delivery_ok == good
        assert agent.snapshot(NOW).delivery_problem == str(problem)
        agent.handle(SinkDrifted(), NOW)
        assert agent.handle(DeliveryEnded(wanted, 0.5, problems=(problem,)), NOW) == []


def test_a_netrc_that_uv_cannot_read_is_the_error_of_every_index() -> None:
    """The status of an index without delivery contains the reason and the fix."""
    agent = holding()
    agent.handle(SinkDrifted(), NOW)
    fatal = Problem(".netrc", "line 1", "An unknown word", "delete the word")
    agent.handle(DeliveryEnded(tuple((agent.deliveries["netrc"].standing or {}).values()), 0.5, problems=(fatal,)), NOW)
    assert last_error(agent, "corp") == ("delivery", "netrc-unreadable", "delete the word")


def test_a_note_of_the_sink_is_shown() -> None:
    """A single-file mount is written in place, and the status says so."""
    agent = holding()
    agent.handle(SinkDrifted(), NOW)
    agent.handle(DeliveryEnded(tuple((agent.deliveries["netrc"].standing or {}).values()), 0.5, note="In place."), NOW)
    assert (agent.snapshot(NOW).delivery_ok, agent.snapshot(NOW).delivery_problem) == (True, "In place.")


def test_who_asks_for_a_refresh_joins_the_fetch_in_flight() -> None:
    """Two clients that ask share one fetch, and are answered when it is delivered."""
    agent = holding()
    assert agent.handle(RefreshAsked(("prod",), 1), after(10)) == [StartFetch(ACME)]
    assert agent.handle(RefreshAsked(("dev",), 2), after(10)) == []
    actions = agent.handle(FetchEnded(ACME, token("b", 10), 0.5), after(11))
    assert not any(isinstance(action, Settled) for action in actions)
    wanted = (entry("acme.example", "b"), entry("corp.example", "c"))
    assert agent.handle(DeliveryEnded(wanted, 0.5), after(11)) == [Settled(1), Settled(2)]


def test_who_asks_is_answered_when_it_fails() -> None:
    """A failed fetch and a failed delivery both end the waiting; nobody hangs."""
    agent = holding()
    agent.handle(RefreshAsked(("prod",), 1), after(10))
    assert Settled(1) in agent.handle(FetchEnded(ACME, DENIED, 0.5), after(11))
    agent.handle(RefreshAsked(("corp",), 2), after(12))
    agent.handle(FetchEnded(CORP, token("d", 12), 0.5), after(13))
    assert Settled(2) in agent.handle(DeliveryEnded((), 0.5, DISK_FULL), after(13))


def test_who_asks_for_what_is_due_waits_for_that_alone() -> None:
    """`once` leaves fresh tokens alone."""
    agent = holding()
    assert agent.handle(WaitAsked(("prod", "corp"), 1), after(10)) == [Settled(1)]
    agent.handle(RefreshAsked(("prod",)), after(11))
    assert agent.handle(WaitAsked(("prod", "corp"), 2), after(11)) == []


def test_a_login_unblocks() -> None:
    """As soon as a login is seen, the blocked lease fetches."""
    agent = configured()
    agent.handle(FetchEnded(ACME, Failure("login-required", "sso-expired", "Log in.", "aws sso login"), 0.5), NOW)
    assert last_error(agent, "prod") == ("login-required", "sso-expired", "aws sso login")
    assert agent.handle(LoginChanged((ACME,)), after(3)) == [StartFetch(ACME)]


def test_a_wake_up_retries_everything_that_failed() -> None:
    """Failures from before the sleep count for nothing, nor does the delivery's rest."""
    agent = configured()
    agent.handle(FetchEnded(ACME, DENIED, 0.5), NOW)
    agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW)
    agent.handle(DeliveryEnded((), 0.5, DISK_FULL), NOW)
    actions = agent.handle(Woke(), after(1))
    assert actions == [Deliver((entry("corp.example", "c"),)), StartFetch(ACME)]


def test_a_new_configuration_keeps_what_stays() -> None:
    """Leases that are still wanted live on; the others go with their fetch, their waiters and their entries."""
    agent = holding()
    agent.handle(RefreshAsked(("corp",), 1), after(10))
    actions = agent.handle(Configured(Settings("config.toml", (PROD,))), after(11))
    assert actions == [CancelFetch(CORP), Deliver((entry("acme.example", "a"),))]
    assert Settled(1) in agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), after(11))
    assert agent.handle(FetchEnded(CORP, token("late"), 0.5), after(12)) == []
    assert list(agent.leases) == [ACME]


def test_a_lease_that_is_gone_and_idle_needs_no_kill() -> None:
    """Only a fetch in flight is cancelled."""
    agent = holding()
    assert not any(isinstance(a, CancelFetch) for a in agent.handle(Configured(Settings("config.toml", (PROD,))), NOW))


def test_a_restart_keeps_what_is_good() -> None:
    """A recovered token is delivered at once and not fetched again before its time."""
    agent = Plain()
    settings = Settings("config.toml", (PROD,))
    actions = agent.handle(Configured(settings, {ACME: (token("a"), after(1700))}), after(60))
    assert actions == [Deliver((entry("acme.example", "a"),))]
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), after(60))
    assert agent.deadline() == after(1700)
    assert agent.handle(Tick(), after(1700)) == [StartFetch(ACME)]


def test_a_token_without_an_end_has_no_deadline_but_its_reading() -> None:
    """It is reported as such, read again, and never taken out."""
    agent = configured()
    actions = agent.handle(FetchEnded(CORP, token("c", life=None), 0.5), NOW)
    assert isinstance(actions[0], Report)
    assert "unknown" in actions[0].message
    agent.handle(FetchEnded(ACME, DENIED, 0.0), NOW)
    agent.handle(DeliveryEnded((entry("corp.example", "c"),), 0.5), NOW)
    assert agent.deadline() == after(300)
    assert Plain().deadline() is None


def shown(agent: Agent, now: datetime, shift: timedelta = timedelta()) -> list[status.IndexStatus]:
    """Return the indexes of the status document."""
    frame = status.Frame("1.0.0", "/config.toml", "/netrc", "/socket")
    return status.of_daemon(frame, agent.snapshot(now), (), now, shift)["indexes"]


def test_the_status_document() -> None:
    """The contract's keys, with health, life and promise as they are at the moment."""
    agent = holding()
    agent.handle(Tick(), after(1800))
    agent.handle(FetchEnded(ACME, DENIED, 0.5), after(1801))
    prod, _, corp = shown(agent, after(1801), timedelta(hours=1))
    assert prod == {
        "name": "prod",
        "url": PROD.url,
        "host": "acme.example",
        "provider": "aws-codeartifact",
        "sink": "netrc",
        "enabled": True,
        "username": "aws",
        "identity": None,
        "health": "stale",
        "state": "blocked",
        "issued_at": "2026-01-31T09:00:00Z",
        "expires_at": "2026-01-31T10:00:00Z",
        "life_left_s": 1799,
        "refresh_at": "2026-01-31T09:27:45Z",
        "retry_at": "2026-01-31T09:34:53.500Z",
        "min_life_s": 1800,
        "delivered": True,
        "failures": 1,
        "last_error": {
            "kind": "rejected",
            "reason": "denied",
            "message": "No.",
            "hint": "ask for the permission",
            "at": "2026-01-31T09:30:01Z",
        },
        "sign_in": None,
    }
    assert (corp["state"], corp["last_error"]) == ("fetching", None)


def test_the_status_document_without_a_token() -> None:
    """Nothing known is null, and the next try is named."""
    agent = configured()
    agent.handle(FetchEnded(ACME, DENIED, 0.0), NOW)
    prod, *_ = shown(agent, NOW)
    assert (prod["health"], prod["username"], prod["life_left_s"], prod["min_life_s"]) == ("none", None, None, None)
    assert prod["refresh_at"] == "2026-01-31T08:05:00Z"


def test_a_notice_is_in_the_status_and_once_in_the_log() -> None:
    """What the environment and the token give rise to is shown as long as it holds, and reported when it begins."""
    agent = Plain()
    shadowed = Notice("shadowed", "The environment shadows the login.", "unset X")
    actions = agent.handle(Configured(SETTINGS, notices={ACME: (shadowed,)}), NOW)
    assert Report("warning", "shadowed", ("prod", "dev"), shadowed.message, "unset X") in actions
    off = replace(token("a"), skew=600.0)
    actions = agent.handle(FetchEnded(ACME, off, 0.5), NOW)
    said = [action.event for action in actions if isinstance(action, Report)]
    assert said == ["refreshed", "clock-skew"]
    agent.handle(RefreshAsked(("prod",)), after(1))
    actions = agent.handle(FetchEnded(ACME, off, 0.5), after(2))
    assert [action.event for action in actions if isinstance(action, Report)] == ["refreshed"]
    views = {view.index.name: view for view in agent.snapshot(after(2)).indexes}
    assert [notice.reason for notice in views["dev"].notices] == ["shadowed", "clock-skew"]
    assert views["corp"].notices == ()
    document = shown(agent, after(2))
    assert "notices" not in str(document[2])
    assert document[0]["notices"] == [
        {"reason": "shadowed", "message": shadowed.message, "hint": "unset X"},
        {
            "reason": "clock-skew",
            "message": "This machine's clock is about 10 minutes ahead of the issuer's.",
            "hint": fixes.show_clock(),
        },
    ]
    agent.handle(Configured(SETTINGS), after(3))
    assert [notice.reason for notice in agent.snapshot(after(3)).indexes[0].notices] == ["clock-skew"]


STORE_REQUEST = Request("azure-artifacts", "https://pkgs.dev.azure.com/acme")
STORED = Index(
    "feed",
    "https://pkgs.dev.azure.com/acme/_packaging/f/pypi/simple/",
    "pkgs.dev.azure.com",
    "azure-artifacts",
    STORE_REQUEST,
    "uv-store",
    "https://pkgs.dev.azure.com/acme",
)
STORE_ENTRY = Entry("pkgs.dev.azure.com", "aws", Secret("s"), STORED.service)


def both() -> Planned:
    """Return an agent that holds a token in each of its two sinks."""
    agent = Planned()
    agent.handle(Configured(Settings("c", (CORPORATE, STORED)), sinks=("netrc", "uv-store")), NOW)
    agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW)
    agent.handle(FetchEnded(STORE_REQUEST, token("s"), 0.5), NOW)
    agent.handle(DeliveryEnded((), 0.5), NOW)
    agent.handle(DeliveryEnded((), 0.5, sink="uv-store"), NOW)
    agent.handle(DeliveryEnded((entry("corp.example", "c"),), 0.5), NOW)
    agent.handle(DeliveryEnded((STORE_ENTRY,), 0.5, sink="uv-store"), NOW)
    return agent


def views(agent: Agent) -> dict[str, tuple[str, bool]]:
    return {view.index.name: (view.state, view.delivered) for view in agent.snapshot(NOW).indexes}


def test_each_sink_gets_its_own_entries() -> None:
    """A netrc gets hosts, uv's store prefixes, and what is delivered is told of each."""
    agent = Planned()
    actions = agent.handle(Configured(Settings("c", (CORPORATE, STORED)), sinks=("netrc", "uv-store")), NOW)
    assert actions[:2] == [Deliver(()), Deliver((), "uv-store")]
    agent.handle(DeliveryEnded((), 0.5, sink="uv-store"), NOW)
    assert Deliver((STORE_ENTRY,), "uv-store", ()) in agent.handle(FetchEnded(STORE_REQUEST, token("s"), 0.5), NOW)
    assert views(both()) == {"corp": ("waiting", True), "feed": ("waiting", True)}


def test_one_sink_that_fails_leaves_the_other_alone() -> None:
    """A store that cannot be written says nothing of the netrc, and the other way round."""
    agent = both()
    agent.handle(SinkDrifted("uv-store"), NOW)
    actions = agent.handle(DeliveryEnded((STORE_ENTRY,), 0.5, DISK_FULL, sink="uv-store"), NOW)
    assert actions == [Report("error", "disk-full", ("feed",), "The disk is full.", "free some room")]
    assert views(agent) == {"corp": ("waiting", True), "feed": ("retrying", False)}
    assert (agent.snapshot(NOW).delivery_ok, agent.snapshot(NOW).delivery_problem) == (False, "The disk is full.")
    retry = agent.deadline()
    assert retry is not None
    assert agent.handle(Tick(), retry) == [Deliver((STORE_ENTRY,), "uv-store", (STORE_ENTRY,))]


def test_a_foreign_record_in_the_store_blocks_its_index_with_its_own_mend() -> None:
    """What the sink says of the record is what the status says."""
    agent = both()
    agent.handle(SinkDrifted("uv-store"), NOW)
    rival = Problem("credentials.toml", STORED.service, "Somebody's record.", "uv auth logout x", fatal=False)
    ended = DeliveryEnded((STORE_ENTRY,), 0.5, None, frozenset({STORED.service}), (rival,), sink="uv-store")
    reports = [action for action in agent.handle(ended, NOW) if isinstance(action, Report)]
    assert reports[-1] == Report("error", "foreign-record", ("feed",), "Somebody's record.", "uv auth logout x")
    assert views(agent)["feed"] == ("blocked", False)
    assert last_error(agent, "feed") == ("delivery", "foreign-record", "uv auth logout x")


@pytest.mark.parametrize(
    ("sink", "login", "told", "words"),
    [
        ("uv-store", "aws", 1, "both have aws"),
        ("uv-store", "", 1, "a URL cannot carry an empty one"),
        ("uv-store", "beta", 0, ""),
        ("netrc", "aws", 0, ""),
    ],
)
def test_two_credentials_with_one_user_name_on_one_host_are_spoken_of(
    sink: Sink, login: str, told: int, words: str
) -> None:
    """uv's store tells them apart by path, but one run of uv does by the user names in their URLs alone."""
    agent, other = both(), "https://pkgs.dev.azure.com/beta"
    twin = replace(STORED, name="twin", request=Request("azure-artifacts", other), sink=sink, service=other)
    settings = Settings("c", (replace(STORED, sink=sink), twin))
    agent.handle(Configured(settings, sinks=("netrc", "uv-store")), NOW)
    agent.handle(FetchEnded(twin.request, replace(token("t"), login=login), 0.5), NOW)
    said = {view.index.name: [notice.reason for notice in view.notices] for view in agent.snapshot(NOW).indexes}
    assert said == {"feed": ["same-username"] * told, "twin": ["same-username"] * told}
    if told:
        message = agent.snapshot(NOW).indexes[0].notices[0].message
        assert "this index and twin" in message
        assert words in message


def test_a_user_name_that_is_a_secret_is_not_spoken_out() -> None:
    """It is kept like a password, so what is said of two alike does not show it."""
    request = Request("nexus", options=(("username", (("env", "NAME"),)),))
    first = replace(STORED, name="first", request=request, service="https://nexus.example/a", host="nexus.example")
    twin = replace(first, name="twin", request=replace(request, service="b"), service="https://nexus.example/b")
    agent = Agent()
    agent.handle(Configured(Settings("c", (first, twin)), sinks=("netrc", "uv-store")), NOW)
    for one in (first, twin):
        agent.handle(FetchEnded(one.request, replace(token("t"), login="canary"), 0.5), NOW)
    said = [notice.message for view in agent.snapshot(NOW).indexes for notice in view.notices]
    assert len(said) == 2
    assert not [message for message in said if "canary" in message or "****" not in message]


def test_a_netrc_entry_shadows_the_store() -> None:
    """uv asks the netrc first: an entry for the host, or a default one, is in the way."""
    for foreign, hint in (("pkgs.dev.azure.com", "uvtokend adopt feed"), ("default", "delete it, or name the host")):
        agent = both()
        agent.handle(SinkDrifted(), NOW)
        ended = DeliveryEnded((entry("corp.example", "c"),), 0.5, None, frozenset({foreign}))
        reports = [action for action in agent.handle(ended, NOW) if isinstance(action, Report)]
        assert [(report.event, report.names) for report in reports] == [("foreign-entry", ("feed",))]
        assert views(agent) == {"corp": ("waiting", True), "feed": ("blocked", False)}
        assert (last_error(agent, "feed")[2] or "").startswith(hint)


def test_a_sink_that_is_no_longer_used_is_forgotten() -> None:
    """Whatever its last delivery still says harms nobody."""
    agent = both()
    agent.handle(Configured(Settings("c", (CORPORATE,))), NOW)
    assert agent.handle(SinkDrifted("uv-store"), NOW) == []
    assert agent.handle(DeliveryEnded((), 0.5, sink="uv-store"), NOW) == []
    assert list(agent.deliveries) == ["netrc"]


def drift(agent: Agent, at: datetime) -> Deliver:
    deliveries = [action for action in agent.handle(SinkDrifted(), at) if isinstance(action, Deliver)]
    assert len(deliveries) == 1
    return deliveries[0]


def test_the_status_says_when_a_failed_delivery_is_tried_again() -> None:
    """Not when the token is refreshed next, and no time at all while a delivery is under way."""
    agent = holding()
    assert [view.retry_at for view in agent.snapshot(NOW).indexes] == [None, None, None]
    drift(agent, after(10))
    agent.handle(DeliveryEnded((), 0.5, DISK_FULL), after(10))
    again = agent.deliveries["netrc"].retry_at
    assert again is not None
    assert [view.retry_at for view in agent.snapshot(after(11)).indexes] == [again] * 3
    agent.handle(Tick(), again)
    assert [view.retry_at for view in agent.snapshot(again).indexes] == [None, None, None]


def test_a_rival_that_comes_back_within_a_minute_is_given_way_to() -> None:
    """We restore what we left once. Who changes it again within a minute gets his way, and the index is blocked."""
    agent = both()
    wanted = (entry("corp.example", "c"),)
    assert drift(agent, after(1)) == Deliver(wanted, "netrc", wanted)
    agent.handle(DeliveryEnded(wanted, 0.5, rival=True), after(1))
    assert drift(agent, after(50)) == Deliver(wanted, "netrc", wanted, yielding=True)
    contested = Failure("transient", "contested", "Another program changes our block.", "end it")
    agent.handle(DeliveryEnded(wanted, 0.5, contested), after(50))
    assert views(agent) == {"corp": ("blocked", False), "feed": ("waiting", True)}
    assert last_error(agent, "corp") == ("delivery", "contested", "end it")
    assert agent.deliveries["netrc"].retry_at == after(50 + 300 * (1 - 0.5 / 20))


def test_a_person_who_asks_for_a_refresh_ends_the_fight() -> None:
    """The rival was ended, as the hint says: the next delivery does not yield, nor does one in flight count."""
    contested = Failure("transient", "contested", "Another program changes our block.", "end it")
    wanted = (entry("corp.example", "c"),)
    for asked_in_flight in (False, True):
        agent = both()
        drift(agent, after(1))
        agent.handle(DeliveryEnded(wanted, 0.5, rival=True), after(1))
        assert drift(agent, after(2)).yielding
        steps: list[Event] = [RefreshAsked(("corp",)), DeliveryEnded(wanted, 0.5, contested)]
        actions = [agent.handle(step, after(3)) for step in (steps if asked_in_flight else reversed(steps))][1]
        assert Deliver(wanted, "netrc", wanted) in actions


def test_a_rival_that_comes_back_later_is_undone_again() -> None:
    """An editor that takes our block out every few minutes is no fight; nor is one that changed only foreign text."""
    agent = both()
    wanted = (entry("corp.example", "c"),)
    drift(agent, after(1))
    agent.handle(DeliveryEnded(wanted, 0.5, rival=True), after(1))
    assert not drift(agent, after(61)).yielding
    agent.handle(DeliveryEnded(wanted, 0.5), after(61))
    assert not drift(agent, after(62)).yielding


def test_a_person_who_asks_for_a_refresh_ends_the_waiting() -> None:
    """The fix was made: the delivery is tried at once, not at its next try."""
    agent = both()
    drift(agent, after(1))
    agent.handle(DeliveryEnded((entry("corp.example", "c"),), 0.5, DISK_FULL), after(1))
    assert Deliver in map(type, agent.handle(RefreshAsked(("corp",)), after(2)))


def many(count: int) -> tuple[Agent, tuple[Index, ...]]:
    """Return an agent with many leases, all of them fetched and delivered."""
    agent = Agent()
    requests = [Request("p", options=(("n", number),)) for number in range(count)]
    indexes = tuple(Index(f"i{n}", f"https://h{n}.example/", f"h{n}.example", "p", r) for n, r in enumerate(requests))
    agent.handle(Configured(Settings("config.toml", indexes)), NOW)
    agent.handle(DeliveryEnded((), 0.5), NOW)
    for number, request in enumerate(requests):
        agent.handle(FetchEnded(request, token(f"t{number}"), 0.5), NOW)
    delivery = agent.deliveries["netrc"]
    assert delivery.in_flight
    wanted = tuple(entry(index.host, "x") for index in indexes)
    agent.handle(DeliveryEnded(wanted, 0.5), after(1))
    agent.handle(DeliveryEnded(wanted, 0.5), after(2))
    return agent, indexes


def work(agent: Agent, event: Event, at: datetime) -> int:
    """Return how many functions an event calls, which is what it costs on any machine."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        agent.handle(event, at)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("kind", ["due", "fetched", "failed", "refresh", "login", "wait", "gone"])
def test_an_event_costs_what_it_touches(kind: str) -> None:
    """An event of one lease costs the same with a thousand other leases."""
    costs = []
    for count in (10, 1000):
        agent, indexes = many(count)
        agent.deliveries["netrc"] = replace(agent.deliveries["netrc"], in_flight=True, began_at=after(1700))
        index = indexes[5]
        if kind in {"fetched", "failed"}:
            agent.handle(RefreshAsked((index.name,)), after(1700))
        events: dict[str, Event] = {
            "due": Due(index.request),
            "fetched": FetchEnded(index.request, token("new", 1700), 0.5),
            "failed": FetchEnded(index.request, DENIED, 0.5),
            "refresh": RefreshAsked((index.name,), 1),
            "login": LoginChanged((index.request,)),
            "wait": WaitAsked((index.name,), 1),
            "gone": WaiterLeft(1),
        }
        costs.append(work(agent, events[kind], after(1701)))
    assert costs[0] == costs[1]


def test_each_lease_and_each_delivery_has_its_own_time() -> None:
    """A plan per lease, under the name of its first index, and none for a delivery that has nothing to do."""
    agent = Plain()
    agent.handle(Configured(SETTINGS), NOW)
    agent.handle(DeliveryEnded((), 0.5), NOW)
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    assert agent.plans.keys() == {ACME, "netrc"}
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), NOW)
    assert agent.plans == {ACME: agent.leases[ACME].refresh_at}
    actions = Agent().handle(Configured(SETTINGS, {ACME: (token("a"), after(1700))}), NOW)
    assert [action for action in actions if isinstance(action, Plan)][-1] == Plan(ACME, "refresh prod", after(1700))


def test_a_time_that_comes_too_early_is_planned_again() -> None:
    """APScheduler compares wall-clock times: a clock that was set makes it fire early, and costs nothing."""
    agent = holding()
    due = agent.leases[ACME].refresh_at
    agent.handle(Due(ACME), after(5))
    assert agent.plans[ACME] == due
    assert agent.handle(Due(Request("gone")), after(6)) == []


def test_a_wake_up_starts_the_fetch_in_flight_again() -> None:
    """After a wake-up the fetch in flight is restarted; if the clock was set as well, all tokens are fetched again."""
    agent = holding()
    agent.handle(RefreshAsked(("prod",)), after(10))
    actions = agent.handle(Woke(stepped=True), after(20))
    assert [action for action in actions if isinstance(action, RestartFetch)] == [RestartFetch(ACME, 20.0)]
    assert StartFetch(CORP) in actions


def test_a_paused_machine_keeps_no_expired_token_that_cannot_be_replaced() -> None:
    """The wall clock says that the token has expired, our own that it is valid. It stays while it is fetched again, for
    which there is little time, and goes when no new one came, if a time service keeps the wall clock."""
    agent, shift = configured(), timedelta(hours=2)
    for request in (ACME, CORP):
        agent.handle(FetchEnded(request, replace(token("old"), wall_end=after(3600)), 0.5), NOW)
    agent.handle(DeliveryEnded((entry("acme.example", "old"), entry("corp.example", "old")), 0.5), NOW)
    assert [agent.doubts(timedelta(seconds=seconds)) for seconds in (0, 30, 31, 7200)] == [False, False, True, True]
    agent.handle(RefreshAsked(("prod",)), after(5))
    actions = agent.handle(Woke(stepped=True), after(10))
    assert [action for action in actions if isinstance(action, RestartFetch)] == [RestartFetch(ACME, 20.0)]
    assert StartFetch(CORP) in actions
    assert agent.handle(ClockTrusted(shift), after(11)) == []  # the fetches are under way
    for request in (ACME, CORP):
        agent.handle(FetchEnded(request, Failure("transient", "unreachable", "Nobody answers."), 0.5), after(12))
    assert all(view.delivered for view in agent.snapshot(after(12)).indexes)
    assert Deliver(()) in agent.handle(ClockTrusted(shift), after(13))
    assert not agent.doubts(shift)


def test_a_wall_clock_that_was_set_is_no_reason_to_ask_sooner_than_told() -> None:
    """An issuer's Retry-After wins over everything but a person's word."""
    agent = configured()
    agent.handle(FetchEnded(CORP, Failure("transient", "throttled", "Wait.", retry_after=900.0), 0.5), NOW)
    assert StartFetch(CORP) not in agent.handle(Woke(stepped=True), after(5))
    assert StartFetch(CORP) not in agent.handle(LoginChanged((CORP,)), after(6))
    assert StartFetch(CORP) in agent.handle(RefreshAsked(("corp",)), after(7))


def test_the_networks_return_is_worth_a_try_to_those_that_nobody_answered() -> None:
    """What hangs is started again, what failed without an answer is tried at once, what was answered waits."""
    agent = configured()
    agent.handle(FetchEnded(CORP, Failure("transient", "unreachable", "Nobody answers."), 0.9), NOW)
    actions = agent.handle(NetworkReturned(), after(1))
    assert [action for action in actions if isinstance(action, RestartFetch)] == [RestartFetch(ACME, 20.0)]
    assert StartFetch(CORP) in actions
    again = [action for action in agent.handle(NetworkReturned(), after(2)) if isinstance(action, RestartFetch)]
    assert [action.request for action in again] == [CORP]


def test_a_login_is_told_of_the_leases_that_it_is_for() -> None:
    """Another lease that waits for its probe, or that is not known any more, is left alone."""
    agent = configured()
    for request in (ACME, CORP):
        agent.handle(FetchEnded(request, DENIED, 0.5), NOW)
    assert agent.blocked == {ACME, CORP}
    assert agent.handle(LoginChanged((CORP, Request("gone"))), after(3)) == [StartFetch(CORP)]
    assert agent.blocked == {ACME}


def test_a_token_that_expires_at_this_very_moment_has_expired() -> None:
    """It is refused on arrival, and a good one is told as information."""
    assert isinstance(admit(token("x", 0, 0), "acme.example", NOW), Failure)
    agent = configured()
    actions = agent.handle(FetchEnded(ACME, token("x"), 0.5), NOW)
    assert [action.level for action in actions if isinstance(action, Report)] == ["info"]


def test_a_netrc_that_hangs_is_called_a_netrc() -> None:
    """The sentence names what is written: the netrc, or uv's credential store."""
    for sink, place in (("netrc", "the netrc"), ("uv-store", "uv's credential store")):
        failure = delivery.hung(delivery.Delivery(), sink, NOW).failure  # type: ignore[arg-type]
        assert failure is not None
        assert failure.message.startswith(f"Writing {place} has not ended for 20 s")


def test_a_new_name_is_planned_anew() -> None:
    """The plan is named after the index, so a lease whose index has another name now is planned again."""
    agent = Agent()
    agent.handle(Configured(Settings("config.toml", (PROD,))), NOW)
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    renamed = replace(PROD, name="renamed")
    actions = agent.handle(Configured(Settings("config.toml", (renamed,))), after(1))
    assert "refresh renamed" in [action.label for action in actions if isinstance(action, Plan)]


def test_a_new_token_is_no_warning() -> None:
    """The log reports it for information."""
    agent = Agent()
    agent.handle(Configured(Settings("config.toml", (PROD,))), NOW)
    actions = agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    assert [(action.level, action.event) for action in actions if isinstance(action, Report)] == [("info", "refreshed")]


@pytest.mark.parametrize(
    ("kind", "level"), [("transient", "warning"), ("login-required", "error"), ("rejected", "error")]
)
def test_what_a_person_has_to_mend_is_an_error(kind: FailureKind, level: str) -> None:
    """What may pass by itself is a warning."""
    agent = configured()
    actions = agent.handle(FetchEnded(ACME, Failure(kind, "why", "Why."), 0.5), NOW)
    assert [action.level for action in actions if isinstance(action, Report)] == [level]
