"""The agent, event by event."""

from __future__ import annotations

import gc
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
    """Remove the rest between deliveries, which has tests of its own."""
    monkeypatch.setattr(delivery, "REST", timedelta(0))
    monkeypatch.setattr(delivery, "LONGEST_REST", timedelta(0))


class Planned(Agent):
    """An agent that records its plans instead of returning them as actions."""

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
    """An agent whose Deliver and StartFetch actions are reduced to what most tests compare."""

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
    """Return an agent whose two tokens have been delivered."""
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


def test_the_one_line_status() -> None:
    """The line counts the indexes with a delivered token and adds the first error with its fix, if it has one."""
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
    """Three indexes with two requests need two fetches. The netrc is cleaned up before the first of them."""
    agent = Plain()
    actions = agent.handle(Configured(SETTINGS), NOW)
    assert actions == [Deliver(()), StartFetch(ACME), StartFetch(CORP)]
    assert agent.handle(Tick(), NOW) == []


def test_a_token_is_delivered_when_it_comes() -> None:
    """A fetched token is delivered, and the next deadline is its refresh."""
    agent = configured()
    actions = agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    assert [type(action) for action in actions] == [Report, Deliver]
    assert actions[1] == Deliver((entry("acme.example", "a"),))
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), NOW)
    views = {view.index.name: view for view in agent.snapshot(NOW).indexes}
    assert (views["prod"].delivered, views["dev"].delivered, views["corp"].delivered) == (True, True, False)
    assert agent.deadline() == agent.leases[ACME].act_at


def test_deliveries_do_not_overlap() -> None:
    """A token that is fetched during a delivery is delivered right after it."""
    agent = configured()
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    assert not any(isinstance(action, Deliver) for action in agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW))
    actions = agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), NOW)
    assert actions == [Deliver((entry("acme.example", "a"), entry("corp.example", "c")))]


def test_the_agent_reports_what_is_in_flight() -> None:
    """The agent reports whether fetches or a delivery are in flight, so that `status` waits only for the delivery."""
    agent = configured()
    assert (agent.fetching, agent.delivering) == (True, False)
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW)
    assert (agent.fetching, agent.delivering) == (False, True)
    assert (holding().fetching, holding().delivering) == (False, False)


def test_it_refreshes_when_due_and_keeps_the_old_token_meanwhile() -> None:
    """When a refresh is due, a fetch starts, and the old entry stays until the fetch ends."""
    agent = holding()
    assert StartFetch(ACME) in agent.handle(Tick(), after(1800))
    assert agent.handle(Tick(), after(1801)) == []
    assert all(
        view.delivered and view.lease.health(after(1801)) == "stale" for view in agent.snapshot(after(1801)).indexes
    )
    agent.handle(FetchEnded(ACME, token("b", 1801), 0.5), after(1802))
    assert agent.deliveries["netrc"].in_flight


def test_an_expired_token_is_removed() -> None:
    """If no new token was fetched, the entry is removed exactly when the token expires, and the log reports it."""
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
    """`once NAME` fetches only for NAME, whatever event comes, and plans nothing for the other indexes. Their
    entries stay."""
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


def test_an_expired_token_on_arrival_is_a_failure() -> None:
    """A fetched token that has already expired never replaces a valid one."""
    agent = holding()
    agent.handle(Tick(), after(1800))
    agent.handle(FetchEnded(ACME, token("x", -9000), 0.5), after(1801))
    assert last_error(agent, "prod")[:2] == ("transient", "expired-on-arrival")
    assert agent.leases[ACME].valid(after(1801)) == token("a")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_an_expired_token_on_arrival_names_the_command_of_this_platform(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fix checks the clock with the command of this platform."""
    monkeypatch.setattr(fixes.show_clock, "__defaults__", (platform,))
    failure = admit(token("x", -9000), "acme.example", NOW)
    assert isinstance(failure, Failure)
    assert failure.hint == f"check this machine's clock: {fixes.show_clock(platform)}"
    assert ("timedatectl" in failure.hint) == (platform == "linux")


@pytest.mark.parametrize(
    ("left", "words"),
    [(43197.4, "12 h"), (3599.2, "1 h"), (5395.0, "1 h 30 min"), (119.0, "1 min"), (45.0, "45 s")],
)
def test_the_log_rounds_durations(left: float, words: str) -> None:
    """A token of 12 hours that took 3 seconds to fetch is reported as valid for 12 h."""
    agent = configured()
    actions = agent.handle(FetchEnded(ACME, token("x", life=left), 0.5), NOW)
    message = next(action.message for action in actions if isinstance(action, Report))
    assert message == f"Fetched a new token, valid for {words}."


def test_a_token_that_a_netrc_cannot_hold_blocks_no_other() -> None:
    """A token with a line break is refused on arrival, and the other tokens are still delivered."""
    agent = configured()
    agent.handle(FetchEnded(CORP, token("evil\nmachine other.example"), 0.5), NOW)
    assert last_error(agent, "corp")[0] == "rejected"
    assert Deliver((entry("acme.example", "a"),)) in agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)


def test_a_full_disk_never_causes_a_fetch() -> None:
    """A failed delivery has its own back-off and causes no fetch. The status names it until a delivery succeeds."""
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
    assert again == []  # reported once
    agent.handle(Tick(), after(60))
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), after(60))
    assert agent.snapshot(after(60)).indexes[0].last_error is None
    assert agent.snapshot(after(60)).delivery_ok


def test_a_foreign_entry_blocks_its_index_alone() -> None:
    """A foreign entry is kept and reported with the command that adopts it, and the other tokens are delivered."""
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


def test_a_fatal_problem_makes_the_delivery_fail() -> None:
    """After a fatal problem of the netrc nothing counts as delivered; a warning is only shown. Each is reported
    once."""
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
    """If uv cannot read the netrc, each index shows the reason and the fix."""
    agent = holding()
    agent.handle(SinkDrifted(), NOW)
    fatal = Problem(".netrc", "line 1", "An unknown word", "delete the word")
    agent.handle(DeliveryEnded(tuple((agent.deliveries["netrc"].standing or {}).values()), 0.5, problems=(fatal,)), NOW)
    assert last_error(agent, "corp") == ("delivery", "netrc-unreadable", "delete the word")


def test_the_status_shows_a_note_of_the_sink() -> None:
    """If a sink reports a note, such as writing in place, the status shows it."""
    agent = holding()
    agent.handle(SinkDrifted(), NOW)
    agent.handle(DeliveryEnded(tuple((agent.deliveries["netrc"].standing or {}).values()), 0.5, note="In place."), NOW)
    assert (agent.snapshot(NOW).delivery_ok, agent.snapshot(NOW).delivery_problem) == (True, "In place.")


def test_refreshes_share_the_fetch_in_flight() -> None:
    """Two clients that ask for a refresh share one fetch and are answered when its token is delivered."""
    agent = holding()
    assert agent.handle(RefreshAsked(("prod",), 1), after(10)) == [StartFetch(ACME)]
    assert agent.handle(RefreshAsked(("dev",), 2), after(10)) == []
    actions = agent.handle(FetchEnded(ACME, token("b", 10), 0.5), after(11))
    assert not any(isinstance(action, Settled) for action in actions)
    wanted = (entry("acme.example", "b"), entry("corp.example", "c"))
    assert agent.handle(DeliveryEnded(wanted, 0.5), after(11)) == [Settled(1), Settled(2)]


def test_a_client_is_answered_when_its_refresh_fails() -> None:
    """A failed fetch or a failed delivery ends the client's wait."""
    agent = holding()
    agent.handle(RefreshAsked(("prod",), 1), after(10))
    assert Settled(1) in agent.handle(FetchEnded(ACME, DENIED, 0.5), after(11))
    agent.handle(RefreshAsked(("corp",), 2), after(12))
    agent.handle(FetchEnded(CORP, token("d", 12), 0.5), after(13))
    assert Settled(2) in agent.handle(DeliveryEnded((), 0.5, DISK_FULL), after(13))


def test_waiting_starts_no_fetch() -> None:
    """A client that only waits, as `once` does, causes no fetch of a fresh token."""
    agent = holding()
    assert agent.handle(WaitAsked(("prod", "corp"), 1), after(10)) == [Settled(1)]
    agent.handle(RefreshAsked(("prod",)), after(11))
    assert agent.handle(WaitAsked(("prod", "corp"), 2), after(11)) == []


def test_a_sign_in_unblocks() -> None:
    """After a sign-in, a blocked lease fetches at once."""
    agent = configured()
    agent.handle(FetchEnded(ACME, Failure("login-required", "sso-expired", "Log in.", "aws sso login"), 0.5), NOW)
    assert last_error(agent, "prod") == ("login-required", "sso-expired", "aws sso login")
    assert agent.handle(LoginChanged((ACME,)), after(3)) == [StartFetch(ACME)]


def test_a_wake_up_retries_everything_that_failed() -> None:
    """After a wake-up, failed fetches and a failed delivery are tried again at once."""
    agent = configured()
    agent.handle(FetchEnded(ACME, DENIED, 0.5), NOW)
    agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW)
    agent.handle(DeliveryEnded((), 0.5, DISK_FULL), NOW)
    actions = agent.handle(Woke(), after(1))
    assert actions == [Deliver((entry("corp.example", "c"),)), StartFetch(ACME)]


def test_a_new_configuration_keeps_the_leases_that_stay() -> None:
    """Leases that are still configured continue. The others end, with their fetches, waiters and entries."""
    agent = holding()
    agent.handle(RefreshAsked(("corp",), 1), after(10))
    actions = agent.handle(Configured(Settings("config.toml", (PROD,))), after(11))
    assert actions == [CancelFetch(CORP), Deliver((entry("acme.example", "a"),))]
    assert Settled(1) in agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), after(11))
    assert agent.handle(FetchEnded(CORP, token("late"), 0.5), after(12)) == []
    assert list(agent.leases) == [ACME]


def test_an_idle_lease_that_ends_cancels_nothing() -> None:
    """If a lease is no longer configured, its fetch is cancelled only if it is in flight."""
    agent = holding()
    assert not any(isinstance(a, CancelFetch) for a in agent.handle(Configured(Settings("config.toml", (PROD,))), NOW))


def test_a_restart_keeps_valid_tokens() -> None:
    """After a restart a recovered token is delivered at once and is fetched again only when its refresh is due."""
    agent = Plain()
    settings = Settings("config.toml", (PROD,))
    actions = agent.handle(Configured(settings, {ACME: (token("a"), after(1700))}), after(60))
    assert actions == [Deliver((entry("acme.example", "a"),))]
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), after(60))
    assert agent.deadline() == after(1700)
    assert agent.handle(Tick(), after(1700)) == [StartFetch(ACME)]


def test_a_token_without_an_expiry_is_only_read_again() -> None:
    """A token without an expiry is reported as such, read again regularly, and never removed."""
    agent = configured()
    actions = agent.handle(FetchEnded(CORP, token("c", life=None), 0.5), NOW)
    assert isinstance(actions[0], Report)
    assert "unknown" in actions[0].message
    agent.handle(FetchEnded(ACME, DENIED, 0.0), NOW)
    agent.handle(DeliveryEnded((entry("corp.example", "c"),), 0.5), NOW)
    assert agent.deadline() == after(300)
    assert Plain().deadline() is None


def index_statuses(agent: Agent, now: datetime, shift: timedelta = timedelta()) -> list[status.IndexStatus]:
    """Return the indexes of the status document."""
    frame = status.Frame("1.0.0", "/config.toml", "/netrc", "/socket")
    return status.of_daemon(frame, agent.snapshot(now), (), now, shift)["indexes"]


def test_the_status_document() -> None:
    """The document has the contract's keys, with the current health, life and promise."""
    agent = holding()
    agent.handle(Tick(), after(1800))
    agent.handle(FetchEnded(ACME, DENIED, 0.5), after(1801))
    prod, _, corp = index_statuses(agent, after(1801), timedelta(hours=1))
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
    """Without a token, unknown values are null and `refresh_at` is the next attempt."""
    agent = configured()
    agent.handle(FetchEnded(ACME, DENIED, 0.0), NOW)
    prod, *_ = index_statuses(agent, NOW)
    assert (prod["health"], prod["username"], prod["life_left_s"], prod["min_life_s"]) == ("none", None, None, None)
    assert prod["refresh_at"] == "2026-01-31T08:05:00Z"


def test_a_notice_is_in_the_status_and_once_in_the_log() -> None:
    """The status shows a notice as long as its cause exists, and the log reports it once."""
    agent = Plain()
    shadowed = Notice("shadowed", "The environment shadows the login.", "unset X")
    actions = agent.handle(Configured(SETTINGS, notices={ACME: (shadowed,)}), NOW)
    assert Report("warning", "shadowed", ("prod", "dev"), shadowed.message, "unset X") in actions
    off = replace(token("a"), skew=600.0)
    actions = agent.handle(FetchEnded(ACME, off, 0.5), NOW)
    logged = [action.event for action in actions if isinstance(action, Report)]
    assert logged == ["refreshed", "clock-skew"]
    agent.handle(RefreshAsked(("prod",)), after(1))
    actions = agent.handle(FetchEnded(ACME, off, 0.5), after(2))
    assert [action.event for action in actions if isinstance(action, Report)] == ["refreshed"]
    views = {view.index.name: view for view in agent.snapshot(after(2)).indexes}
    assert [notice.reason for notice in views["dev"].notices] == ["shadowed", "clock-skew"]
    assert views["corp"].notices == ()
    document = index_statuses(agent, after(2))
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


def test_a_notice_about_an_index_that_comes_back_is_reported_again() -> None:
    """The agent forgets an index that was removed, so it reports the same notice again when the index returns."""
    shadowed = Notice("shadowed", "The environment shadows the login.", "unset X")
    with_it, without = Configured(SETTINGS, notices={ACME: (shadowed,)}), Configured(Settings("config.toml"))
    agent = Plain()
    reported = [
        [action.event for action in agent.handle(event, NOW) if isinstance(action, Report)]
        for event in (with_it, with_it, without, with_it)
    ]
    assert reported == [["shadowed"], [], [], ["shadowed"]]


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
    """The netrc gets entries by host and uv's store by URL prefix, and each index counts as delivered in its own
    sink."""
    agent = Planned()
    actions = agent.handle(Configured(Settings("c", (CORPORATE, STORED)), sinks=("netrc", "uv-store")), NOW)
    assert actions[:2] == [Deliver(()), Deliver((), "uv-store")]
    agent.handle(DeliveryEnded((), 0.5, sink="uv-store"), NOW)
    assert Deliver((STORE_ENTRY,), "uv-store", ()) in agent.handle(FetchEnded(STORE_REQUEST, token("s"), 0.5), NOW)
    assert views(both()) == {"corp": ("waiting", True), "feed": ("waiting", True)}


def test_a_failing_sink_does_not_affect_the_other() -> None:
    """If uv's store cannot be written, only its indexes report the failure."""
    agent = both()
    agent.handle(SinkDrifted("uv-store"), NOW)
    actions = agent.handle(DeliveryEnded((STORE_ENTRY,), 0.5, DISK_FULL, sink="uv-store"), NOW)
    assert actions == [Report("error", "disk-full", ("feed",), "The disk is full.", "free some room")]
    assert views(agent) == {"corp": ("waiting", True), "feed": ("retrying", False)}
    assert (agent.snapshot(NOW).delivery_ok, agent.snapshot(NOW).delivery_problem) == (False, "The disk is full.")
    retry = agent.deadline()
    assert retry is not None
    assert agent.handle(Tick(), retry) == [Deliver((STORE_ENTRY,), "uv-store", (STORE_ENTRY,))]


def test_a_foreign_record_in_the_store_blocks_its_index() -> None:
    """The status shows the message and the fix that the sink reports for the foreign record."""
    agent = both()
    agent.handle(SinkDrifted("uv-store"), NOW)
    rival = Problem("credentials.toml", STORED.service, "Somebody's record.", "uv auth logout x", fatal=False)
    ended = DeliveryEnded((STORE_ENTRY,), 0.5, None, frozenset({STORED.service}), (rival,), sink="uv-store")
    reports = [action for action in agent.handle(ended, NOW) if isinstance(action, Report)]
    assert reports[-1] == Report("error", "foreign-record", ("feed",), "Somebody's record.", "uv auth logout x")
    assert views(agent)["feed"] == ("blocked", False)
    assert last_error(agent, "feed") == ("delivery", "foreign-record", "uv auth logout x")


@pytest.mark.parametrize(
    ("sink", "login", "notices", "words"),
    [
        ("uv-store", "aws", 1, "both have aws"),
        ("uv-store", "", 1, "a URL cannot carry an empty one"),
        ("uv-store", "beta", 0, ""),
        ("netrc", "aws", 0, ""),
    ],
)
def test_two_credentials_with_one_user_name_on_one_host_get_a_notice(
    sink: Sink, login: str, notices: int, words: str
) -> None:
    """uv's store distinguishes two records by path, but a single run of uv distinguishes them only by the user names
    in the URLs."""
    agent, other = both(), "https://pkgs.dev.azure.com/beta"
    twin = replace(STORED, name="twin", request=Request("azure-artifacts", other), sink=sink, service=other)
    settings = Settings("c", (replace(STORED, sink=sink), twin))
    agent.handle(Configured(settings, sinks=("netrc", "uv-store")), NOW)
    agent.handle(FetchEnded(twin.request, replace(token("t"), login=login), 0.5), NOW)
    reasons = {view.index.name: [notice.reason for notice in view.notices] for view in agent.snapshot(NOW).indexes}
    assert reasons == {"feed": ["same-username"] * notices, "twin": ["same-username"] * notices}
    if notices:
        message = agent.snapshot(NOW).indexes[0].notices[0].message
        assert "this index and twin" in message
        assert words in message


def test_a_secret_user_name_is_not_shown() -> None:
    """The notice about equal user names does not show a user name that is a secret."""
    request = Request("nexus", options=(("username", (("env", "NAME"),)),))
    first = replace(STORED, name="first", request=request, service="https://nexus.example/a", host="nexus.example")
    twin = replace(first, name="twin", request=replace(request, service="b"), service="https://nexus.example/b")
    agent = Agent()
    agent.handle(Configured(Settings("c", (first, twin)), sinks=("netrc", "uv-store")), NOW)
    for one in (first, twin):
        agent.handle(FetchEnded(one.request, replace(token("t"), login="canary"), 0.5), NOW)
    messages = [notice.message for view in agent.snapshot(NOW).indexes for notice in view.notices]
    assert len(messages) == 2
    assert not [message for message in messages if "canary" in message or "****" not in message]


def test_a_netrc_entry_shadows_the_store() -> None:
    """uv reads the netrc first, so an entry for the host or a default entry blocks an index in uv's store."""
    for foreign, hint in (("pkgs.dev.azure.com", "uvtokend adopt feed"), ("default", "delete it, or name the host")):
        agent = both()
        agent.handle(SinkDrifted(), NOW)
        ended = DeliveryEnded((entry("corp.example", "c"),), 0.5, None, frozenset({foreign}))
        reports = [action for action in agent.handle(ended, NOW) if isinstance(action, Report)]
        assert [(report.event, report.names) for report in reports] == [("foreign-entry", ("feed",))]
        assert views(agent) == {"corp": ("waiting", True), "feed": ("blocked", False)}
        assert (last_error(agent, "feed")[2] or "").startswith(hint)


def test_a_sink_that_is_no_longer_used_is_forgotten() -> None:
    """The end of a delivery to a sink that is no longer used changes nothing."""
    agent = both()
    agent.handle(Configured(Settings("c", (CORPORATE,))), NOW)
    assert agent.handle(SinkDrifted("uv-store"), NOW) == []
    assert agent.handle(DeliveryEnded((), 0.5, sink="uv-store"), NOW) == []
    assert list(agent.deliveries) == ["netrc"]


def drift(agent: Agent, at: datetime) -> Deliver:
    deliveries = [action for action in agent.handle(SinkDrifted(), at) if isinstance(action, Deliver)]
    assert len(deliveries) == 1
    return deliveries[0]


def test_the_status_names_the_next_attempt_of_a_delivery() -> None:
    """`retry_at` is the time of the next delivery attempt, not of the next refresh, and null during a delivery."""
    agent = holding()
    assert [view.retry_at for view in agent.snapshot(NOW).indexes] == [None, None, None]
    drift(agent, after(10))
    agent.handle(DeliveryEnded((), 0.5, DISK_FULL), after(10))
    again = agent.deliveries["netrc"].retry_at
    assert again is not None
    assert [view.retry_at for view in agent.snapshot(after(11)).indexes] == [again] * 3
    agent.handle(Tick(), again)
    assert [view.retry_at for view in agent.snapshot(again).indexes] == [None, None, None]


def test_a_rival_that_returns_within_a_minute_wins() -> None:
    """The agent repairs its block once. If the rival changes it again within a minute, the agent gives way and
    blocks the index."""
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


def test_a_refresh_by_the_user_ends_the_yielding() -> None:
    """A refresh by the user means that the rival has stopped: the next delivery does not yield, even after one in
    flight."""
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


def test_a_rival_that_returns_later_is_repaired_again() -> None:
    """A program that changes our block only every few minutes, or that changes only foreign text, does not make the
    agent yield."""
    agent = both()
    wanted = (entry("corp.example", "c"),)
    drift(agent, after(1))
    agent.handle(DeliveryEnded(wanted, 0.5, rival=True), after(1))
    assert not drift(agent, after(61)).yielding
    agent.handle(DeliveryEnded(wanted, 0.5), after(61))
    assert not drift(agent, after(62)).yielding


def test_a_refresh_by_the_user_retries_the_delivery() -> None:
    """A refresh by the user retries a failed delivery at once."""
    agent = both()
    drift(agent, after(1))
    agent.handle(DeliveryEnded((entry("corp.example", "c"),), 0.5, DISK_FULL), after(1))
    assert Deliver in map(type, agent.handle(RefreshAsked(("corp",)), after(2)))


def many(count: int) -> tuple[Agent, tuple[Index, ...]]:
    """Return an agent with many leases whose tokens are all delivered."""
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
    """Return how many functions an event calls, which measures its cost on any machine."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    gc.disable()  # its callbacks, such as Hypothesis has, would count
    sys.setprofile(count)
    try:
        agent.handle(event, at)
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


@pytest.mark.parametrize("kind", ["due", "fetched", "failed", "refresh", "login", "wait", "gone"])
def test_an_event_costs_what_it_touches(kind: str) -> None:
    """An event of one lease costs the same with ten leases as with a thousand."""
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


def test_each_lease_and_each_delivery_has_its_own_plan() -> None:
    """Each lease has one plan, labeled with the name of its first index. An idle delivery has none."""
    agent = Plain()
    agent.handle(Configured(SETTINGS), NOW)
    agent.handle(DeliveryEnded((), 0.5), NOW)
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    assert agent.plans.keys() == {ACME, "netrc"}
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), NOW)
    assert agent.plans == {ACME: agent.leases[ACME].refresh_at}
    actions = Agent().handle(Configured(SETTINGS, {ACME: (token("a"), after(1700))}), NOW)
    assert [action for action in actions if isinstance(action, Plan)][-1] == Plan(ACME, "refresh prod", after(1700))


def test_a_plan_that_fires_early_is_planned_again() -> None:
    """APScheduler compares wall-clock times, so a stepped clock may fire a plan early; the agent only plans it
    again."""
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
    """If the wall clock says that a token has expired although the daemon's own clock does not, the machine was
    paused. The token is fetched again and removed if that fails and a time service keeps the wall clock."""
    agent, shift = configured(), timedelta(hours=2)
    for request in (ACME, CORP):
        agent.handle(FetchEnded(request, replace(token("old"), wall_end=after(3600)), 0.5), NOW)
    agent.handle(DeliveryEnded((entry("acme.example", "old"), entry("corp.example", "old")), 0.5), NOW)
    assert [agent.doubts(timedelta(seconds=seconds)) for seconds in (0, 30, 31, 7200)] == [False, False, True, True]
    agent.handle(RefreshAsked(("prod",)), after(5))
    actions = agent.handle(Woke(stepped=True), after(10))
    assert [action for action in actions if isinstance(action, RestartFetch)] == [RestartFetch(ACME, 20.0)]
    assert StartFetch(CORP) in actions
    assert agent.handle(ClockTrusted(shift), after(11)) == []  # the fetches are in flight
    for request in (ACME, CORP):
        agent.handle(FetchEnded(request, Failure("transient", "unreachable", "Nobody answers."), 0.5), after(12))
    assert all(view.delivered for view in agent.snapshot(after(12)).indexes)
    assert Deliver(()) in agent.handle(ClockTrusted(shift), after(13))
    assert not agent.doubts(shift)


def test_a_retry_after_holds_until_a_user_asks() -> None:
    """The agent waits for an issuer's Retry-After in spite of a clock step or a sign-in, but not of a refresh by the
    user."""
    agent = configured()
    agent.handle(FetchEnded(CORP, Failure("transient", "throttled", "Wait.", retry_after=900.0), 0.5), NOW)
    assert StartFetch(CORP) not in agent.handle(Woke(stepped=True), after(5))
    assert StartFetch(CORP) not in agent.handle(LoginChanged((CORP,)), after(6))
    assert StartFetch(CORP) in agent.handle(RefreshAsked(("corp",)), after(7))


def test_the_return_of_the_network_retries_unanswered_fetches() -> None:
    """When the network returns, a fetch in flight is restarted and an unanswered one is retried at once. One that
    was answered waits."""
    agent = configured()
    agent.handle(FetchEnded(CORP, Failure("transient", "unreachable", "Nobody answers."), 0.9), NOW)
    actions = agent.handle(NetworkReturned(), after(1))
    assert [action for action in actions if isinstance(action, RestartFetch)] == [RestartFetch(ACME, 20.0)]
    assert StartFetch(CORP) in actions
    again = [action for action in agent.handle(NetworkReturned(), after(2)) if isinstance(action, RestartFetch)]
    assert [action.request for action in again] == [CORP]


def test_a_sign_in_unblocks_only_its_leases() -> None:
    """A sign-in starts fetches only for the leases it concerns; other blocked leases and unknown requests are left
    alone."""
    agent = configured()
    for request in (ACME, CORP):
        agent.handle(FetchEnded(request, DENIED, 0.5), NOW)
    assert agent.blocked == {ACME, CORP}
    assert agent.handle(LoginChanged((CORP, Request("gone"))), after(3)) == [StartFetch(CORP)]
    assert agent.blocked == {ACME}


def test_a_token_that_expires_now_has_expired() -> None:
    """A token whose expiry equals the current time is refused on arrival; a valid one is logged as information."""
    assert isinstance(admit(token("x", 0, 0), "acme.example", NOW), Failure)
    agent = configured()
    actions = agent.handle(FetchEnded(ACME, token("x"), 0.5), NOW)
    assert [action.level for action in actions if isinstance(action, Report)] == ["info"]


def test_a_hung_write_names_its_sink() -> None:
    """The message about a hung write names the sink: the netrc or uv's credential store."""
    for sink, name in (("netrc", "the netrc"), ("uv-store", "uv's credential store")):
        failure = delivery.hung(delivery.Delivery(), sink, NOW).failure  # type: ignore[arg-type]
        assert failure is not None
        assert failure.message.startswith(f"Writing {name} has not ended for 20 s")


def test_a_renamed_index_is_planned_again() -> None:
    """A plan is labeled with the name of the index, so renaming the index plans the lease again."""
    agent = Agent()
    agent.handle(Configured(Settings("config.toml", (PROD,))), NOW)
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    renamed = replace(PROD, name="renamed")
    actions = agent.handle(Configured(Settings("config.toml", (renamed,))), after(1))
    assert "refresh renamed" in [action.label for action in actions if isinstance(action, Plan)]


def test_a_new_token_is_logged_as_information() -> None:
    """The log reports a fetched token at the level info."""
    agent = Agent()
    agent.handle(Configured(Settings("config.toml", (PROD,))), NOW)
    actions = agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    assert [(action.level, action.event) for action in actions if isinstance(action, Report)] == [("info", "refreshed")]


@pytest.mark.parametrize(
    ("kind", "level"), [("transient", "warning"), ("login-required", "error"), ("rejected", "error")]
)
def test_a_failure_that_a_person_must_fix_is_an_error(kind: FailureKind, level: str) -> None:
    """A failure that needs a person is logged as an error, a transient one as a warning."""
    agent = configured()
    actions = agent.handle(FetchEnded(ACME, Failure(kind, "why", "Why."), 0.5), NOW)
    assert [action.level for action in actions if isinstance(action, Report)] == [level]


def test_one_lease_or_sink_sets_the_state_of_the_agent() -> None:
    """The agent is fetching if one lease is, in doubt if one token is, as often as it is asked, and delivering or stuck
    if one sink is."""
    agent = Plain()
    assert (agent.fetching, agent.delivering, agent.stuck) == (False, False, False)
    agent.handle(Configured(SETTINGS, sinks=("netrc", "uv-store")), NOW)
    agent.handle(FetchEnded(ACME, replace(token("a"), wall_end=after(3600)), 0.5), NOW)
    assert agent.fetching
    assert [agent.doubts(timedelta(seconds=seconds)) for seconds in (31, 31, 30, 30)] == [True, True, False, False]
    agent.handle(DeliveryEnded((), 0.5, sink="uv-store"), NOW)
    assert agent.delivering
    agent.handle(Due("netrc"), after(20))
    assert agent.stuck


def test_a_removed_index_leaves_no_plan_and_no_block() -> None:
    """When a blocked index is removed, the agent cancels the plan of its lease and no longer counts the lease as
    blocked."""
    agent = Agent()
    agent.handle(Configured(Settings("config.toml", (PROD,))), NOW)
    agent.handle(FetchEnded(ACME, DENIED, 0.5), NOW)
    assert agent.blocked == {ACME}
    actions = agent.handle(Configured(Settings("config.toml")), after(1))
    assert (ACME, None) in [(action.job, action.at) for action in actions if isinstance(action, Plan)]
    assert agent.blocked == set()


def test_after_a_step_of_the_clock_every_fetch_has_little_time() -> None:
    """After the clock was stepped, the current token may have expired already, so the fetch gets only 20 s."""
    agent = Agent()
    agent.handle(Configured(Settings("config.toml", (PROD,))), NOW)
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    starts = [action for action in agent.handle(Woke(stepped=True), after(9)) if isinstance(action, StartFetch)]
    assert starts == [StartFetch(ACME, 20.0, False)]


@pytest.mark.parametrize(("reason", "hung"), [("deadline", True), ("unreachable", False)])
def test_a_fetch_is_marked_if_the_previous_one_hung(reason: str, hung: bool) -> None:
    """A fetch is marked if the one before it hung, so that it starts after those that may end soon."""
    agent = Agent()
    agent.handle(Configured(Settings("config.toml", (PROD,))), NOW)
    agent.handle(FetchEnded(ACME, Failure("transient", reason, "Why."), 0.5), NOW)
    starts = [action for action in agent.handle(RefreshAsked(("prod",)), after(9)) if isinstance(action, StartFetch)]
    assert [action.hung for action in starts] == [hung]


def test_a_notice_that_returns_is_reported_again() -> None:
    """If the clock was right for a while and is wrong again, the agent reports the skew a second time."""
    agent = Plain()
    agent.handle(Configured(Settings("config.toml", (PROD,))), NOW)
    reported = []
    for seconds, skew in ((0, 600.0), (1, 0.0), (2, 600.0), (3, 600.0)):
        agent.handle(RefreshAsked(("prod",)), after(seconds))
        actions = agent.handle(FetchEnded(ACME, replace(token("a", seconds), skew=skew), 0.5), after(seconds))
        reported.append("clock-skew" in [action.event for action in actions if isinstance(action, Report)])
    assert reported == [True, False, True, False]


def test_a_problem_in_the_netrc_is_one_warning() -> None:
    """A line that uv cannot read is reported once, when it is first seen, for all indexes of that netrc."""
    agent = configured()
    problem = Problem("netrc", "line 3", "uv stops here", "delete it")
    for reports in ([Report("warning", "sink", ("prod", "dev", "corp"), str(problem), None)], []):
        agent.handle(SinkDrifted(), after(1))
        actions = agent.handle(DeliveryEnded((), 0.5, problems=(problem,)), after(2))
        assert [action for action in actions if isinstance(action, Report)] == reports


def test_waiters_are_answered_independently() -> None:
    """Each waiter is answered when the token of its own index is delivered. A delivery that began before its request
    does not answer it."""
    agent = configured()
    agent.handle(RefreshAsked(("prod",), 1), NOW)
    agent.handle(RefreshAsked(("corp",), 2), NOW)
    agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW)
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    agent.handle(RefreshAsked(("prod",), 3), NOW)
    settled = []
    for wanted in ((entry("corp.example", "c"),), (entry("acme.example", "a"), entry("corp.example", "c"))):
        actions = agent.handle(DeliveryEnded(wanted, 0.5), NOW)
        settled.append([action.waiter for action in actions if isinstance(action, Settled)])
    assert settled == [[2], [1]]
