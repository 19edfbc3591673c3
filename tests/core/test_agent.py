"""The agent, event by event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from uvtokend.core import status
from uvtokend.core.agent import (
    Agent,
    Answer,
    CancelFetch,
    Configured,
    Deliver,
    DeliveryEnded,
    FetchEnded,
    LoginChanged,
    RefreshAsked,
    Report,
    SinkDrifted,
    StartFetch,
    Tick,
    Woke,
)
from uvtokend.core.model import Credential, Entry, Failure, Index, Problem, Request, Secret, Settings
from uvtokend.core.state import record

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
ACME, CORP = Request("aws-codeartifact", options=(("domain", "acme"),)), Request("static")
PROD = Index("prod", "https://acme.example/prod/simple/", "acme.example", "aws-codeartifact", ACME)
DEV = Index("dev", "https://acme.example/dev/simple/", "acme.example", "aws-codeartifact", ACME)
CORPORATE = Index("corp", "https://corp.example/simple/", "corp.example", "static", CORP)
SETTINGS = Settings("config.toml", (PROD, DEV, CORPORATE))
DISK_FULL = Failure("transient", "disk-full", "The disk is full.", "free some room")
DENIED = Failure("rejected", "denied", "No.", "ask for the right")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def token(text: str = "t1", at: float = 0, life: float | None = 3600) -> Credential:
    return Credential("aws", Secret(text), after(at), None if life is None else after(at + life))


def entry(host: str, text: str) -> Entry:
    return Entry(host, "aws", Secret(text))


def configured() -> Agent:
    agent = Agent()
    agent.handle(Configured(SETTINGS), NOW)
    agent.handle(DeliveryEnded((), 0.5), NOW)
    return agent


def holding() -> Agent:
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


def test_one_fetch_serves_all_the_indexes_of_its_token() -> None:
    """Three indexes with two requests are two fetches; the file is brought in order before the first of them."""
    agent = Agent()
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
    assert agent.deadline(NOW) == agent.leases[ACME].act_at


def test_deliveries_follow_one_another() -> None:
    """A token that comes while a delivery is in flight is delivered right after it."""
    agent = configured()
    agent.handle(FetchEnded(ACME, token("a"), 0.5), NOW)
    assert not any(isinstance(action, Deliver) for action in agent.handle(FetchEnded(CORP, token("c"), 0.5), NOW))
    actions = agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), NOW)
    assert actions == [Deliver((entry("acme.example", "a"), entry("corp.example", "c")))]


def test_it_refreshes_when_due_and_keeps_the_old_token_meanwhile() -> None:
    """At its time a fetch starts; until it ends the entry stays as it is."""
    agent = holding()
    assert StartFetch(ACME) in agent.handle(Tick(), after(1800))
    assert agent.handle(Tick(), after(1801)) == []
    assert all(
        view.delivered and view.lease.health(after(1801)) == "stale" for view in agent.snapshot(after(1801)).indexes
    )
    agent.handle(FetchEnded(ACME, token("b", 1801), 0.5), after(1802))
    assert agent.delivery.in_flight


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
    assert Report("warning", "removed", ("prod", "dev"), "The entry was removed: its token has died.") in actions
    view = agent.snapshot(after(3600)).indexes[0]
    assert (view.lease.health(after(3600)), view.delivered) == ("expired", False)


def test_a_dead_token_on_arrival_is_a_failure() -> None:
    """An end of life in the past never replaces a living token."""
    agent = holding()
    agent.handle(Tick(), after(1800))
    agent.handle(FetchEnded(ACME, token("x", -9000), 0.5), after(1801))
    assert last_error(agent, "prod")[:2] == ("transient", "expired-on-arrival")
    assert agent.leases[ACME].valid(after(1801)) == token("a")


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
    retry = agent.deadline(NOW)
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
    """A fatal problem voids the delivery, a warning does not; both are said once."""
    agent = holding()
    warning = Problem(".netrc", "line 3", "A default entry.", "remove it", fatal=False)
    fatal = Problem(".netrc", "line 1", "An unknown word.", "remove it")
    wanted = agent.delivery.standing or ()
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
    """Who sees an index without delivery sees why, and the mend."""
    agent = holding()
    agent.handle(SinkDrifted(), NOW)
    fatal = Problem(".netrc", "line 1", "An unknown word", "delete the word")
    agent.handle(DeliveryEnded(agent.delivery.standing or (), 0.5, problems=(fatal,)), NOW)
    assert last_error(agent, "corp") == ("delivery", "netrc-unreadable", "delete the word")


def test_a_note_of_the_sink_is_shown() -> None:
    """A single-file mount is written in place, and the status says so."""
    agent = holding()
    agent.handle(SinkDrifted(), NOW)
    agent.handle(DeliveryEnded(agent.delivery.standing or (), 0.5, note="In place."), NOW)
    assert (agent.snapshot(NOW).delivery_ok, agent.snapshot(NOW).delivery_problem) == (True, "In place.")


def test_who_asks_for_a_refresh_joins_the_fetch_in_flight() -> None:
    """Two who ask get one fetch, and are answered when it is delivered."""
    agent = holding()
    assert agent.handle(RefreshAsked(("prod",), 1), after(10)) == [StartFetch(ACME)]
    assert agent.handle(RefreshAsked(("dev",), 2), after(10)) == []
    actions = agent.handle(FetchEnded(ACME, token("b", 10), 0.5), after(11))
    assert not any(isinstance(action, Answer) for action in actions)
    wanted = (entry("acme.example", "b"), entry("corp.example", "c"))
    assert agent.handle(DeliveryEnded(wanted, 0.5), after(11)) == [Answer(1), Answer(2)]


def test_who_asks_is_answered_when_it_fails() -> None:
    """A failed fetch and a failed delivery both end the waiting; nobody hangs."""
    agent = holding()
    agent.handle(RefreshAsked(("prod",), 1), after(10))
    assert Answer(1) in agent.handle(FetchEnded(ACME, DENIED, 0.5), after(11))
    agent.handle(RefreshAsked(("corp",), 2), after(12))
    agent.handle(FetchEnded(CORP, token("d", 12), 0.5), after(13))
    assert Answer(2) in agent.handle(DeliveryEnded((), 0.5, DISK_FULL), after(13))


def test_who_asks_for_what_is_due_waits_for_that_alone() -> None:
    """`once` leaves fresh tokens alone."""
    agent = holding()
    assert agent.handle(RefreshAsked(("prod", "corp"), 1, due_only=True), after(10)) == [Answer(1)]
    agent.handle(RefreshAsked(("prod",)), after(11))
    assert agent.handle(RefreshAsked(("prod", "corp"), 2, due_only=True), after(11)) == []


def test_a_login_unblocks() -> None:
    """As soon as a login is seen, the blocked lease fetches."""
    agent = configured()
    agent.handle(FetchEnded(ACME, Failure("login-required", "sso-expired", "Log in.", "aws sso login"), 0.5), NOW)
    assert last_error(agent, "prod") == ("login-required", "sso-expired", "aws sso login")
    assert agent.handle(LoginChanged(), after(3)) == [StartFetch(ACME)]


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
    assert Answer(1) in agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), after(11))
    assert agent.handle(FetchEnded(CORP, token("late"), 0.5), after(12)) == []
    assert list(agent.leases) == [ACME]


def test_a_lease_that_is_gone_and_idle_needs_no_kill() -> None:
    """Only a fetch in flight is cancelled."""
    agent = holding()
    assert not any(isinstance(a, CancelFetch) for a in agent.handle(Configured(Settings("config.toml", (PROD,))), NOW))


def test_a_restart_keeps_what_is_good() -> None:
    """A recovered token is delivered at once and not fetched again before its time."""
    agent = Agent()
    settings = Settings("config.toml", (PROD,))
    actions = agent.handle(Configured(settings, {ACME: (token("a"), after(1700))}), after(60))
    assert actions == [Deliver((entry("acme.example", "a"),))]
    agent.handle(DeliveryEnded((entry("acme.example", "a"),), 0.5), after(60))
    assert agent.deadline(after(60)) == after(1700)
    assert agent.handle(Tick(), after(1700)) == [StartFetch(ACME)]


def test_a_token_without_an_end_has_no_deadline_but_its_reading() -> None:
    """It is reported as such, read again, and never taken out."""
    agent = configured()
    actions = agent.handle(FetchEnded(CORP, token("c", life=None), 0.5), NOW)
    assert isinstance(actions[0], Report)
    assert "not known" in actions[0].message
    agent.handle(FetchEnded(ACME, DENIED, 0.0), NOW)
    agent.handle(DeliveryEnded((entry("corp.example", "c"),), 0.5), NOW)
    assert agent.deadline(NOW) == after(300)
    assert Agent().deadline(NOW) is None


def test_the_status_document() -> None:
    """The contract's keys, with health, life and promise as they are at the moment."""
    agent = holding()
    agent.handle(Tick(), after(1800))
    agent.handle(FetchEnded(ACME, DENIED, 0.5), after(1801))
    prod, _, corp = status.indexes(agent.snapshot(after(1801)), after(1801), timedelta(hours=1))
    assert isinstance(prod, dict)
    assert isinstance(corp, dict)
    assert prod == {
        "name": "prod",
        "url": PROD.url,
        "host": "acme.example",
        "provider": "aws-codeartifact",
        "sink": "netrc",
        "username": "aws",
        "identity": None,
        "health": "stale",
        "state": "blocked",
        "issued_at": "2026-01-31T09:00:00Z",
        "expires_at": "2026-01-31T10:00:00Z",
        "life_left_s": 1799,
        "refresh_at": "2026-01-31T09:27:45Z",
        "min_life_s": 1800,
        "delivered": True,
        "failures": 1,
        "last_error": {
            "kind": "rejected",
            "reason": "denied",
            "message": "No.",
            "hint": "ask for the right",
            "at": "2026-01-31T09:30:01Z",
        },
    }
    assert (corp["state"], corp["last_error"]) == ("fetching", None)


def test_the_status_document_without_a_token() -> None:
    """Nothing known is null, and the next try is named."""
    agent = configured()
    agent.handle(FetchEnded(ACME, DENIED, 0.0), NOW)
    prod, *_ = status.indexes(agent.snapshot(NOW), NOW, timedelta())
    assert isinstance(prod, dict)
    assert (prod["health"], prod["username"], prod["life_left_s"], prod["min_life_s"]) == ("none", None, None, None)
    assert prod["refresh_at"] == "2026-01-31T08:05:00Z"


def test_the_status_document_from_disk() -> None:
    """While no daemon runs, the record and the clock say what is known."""
    known = record(ACME, token("a"), after(1800), ("acme.example",))
    for at, health, delivered in ((0, "fresh", True), (1800, "stale", True), (3600, "expired", False)):
        prod = status.from_disk(PROD, known, after(at))
        assert isinstance(prod, dict)
        assert (prod["health"], prod["delivered"], prod["username"]) == (health, delivered, "aws")
    unknown = status.from_disk(PROD, None, NOW)
    assert isinstance(unknown, dict)
    assert (unknown["health"], unknown["delivered"], unknown["expires_at"]) == ("none", False, None)
