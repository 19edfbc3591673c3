"""Answers to programs: the right credential, with the promised life if possible, without overloading the issuer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from uvtokend.clock import Clock
from uvtokend.core import events
from uvtokend.core.agent import Agent
from uvtokend.core.events import Report
from uvtokend.core.model import Credential, Failure, Index, Json, Request, Secret, Settings
from uvtokend.daemon import answers
from uvtokend.daemon.answers import Answers, NoMatchError
from uvtokend.daemon.processes import Process
from uvtokend.errors import UvtokendError

START = datetime(2026, 1, 31, 8, tzinfo=UTC)
ACME, CORP = Request("aws-codeartifact"), Request("static")
PROD = Index("prod", "https://acme.example/prod/simple/", "acme.example", "aws-codeartifact", ACME)
DEEP = Index("deep", "https://acme.example/prod/deep/simple/", "acme.example", "static", CORP)
URL = "https://acme.example/prod/simple/alpha/"
UV = Process(42, "uv")
TROUBLE = Failure("transient", "server-error", "The issuer has an internal error.")


class FixedClock(Clock):
    """A clock that only a test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.at = START
        self.set_by = timedelta()

    def now(self) -> datetime:
        return self.at

    def shift(self) -> timedelta:
        return self.set_by


class World:
    """An agent whose fetches end at once with the outcomes that a test sets, or never if none is set."""

    def __init__(self, *indexes: Index) -> None:
        self.clock = FixedClock()
        self.agent = Agent()
        self.outcomes: list[Credential | Failure] = []
        self.reports: list[Report] = []
        self.fetches: list[bool] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.answers = Answers(self.agent, self.clock, self.settled, self.reports.append)
        self.configure(*indexes)

    def configure(self, *indexes: Index) -> None:
        self.feed(events.Configured(Settings("config.toml", indexes)))

    def feed(self, event: events.Event) -> None:
        self.agent.handle(event, self.clock.at)

    def end(self, outcome: Credential | Failure, request: Request = ACME) -> None:
        self.feed(events.FetchEnded(request, outcome, 0.5))

    async def settled(self, names: tuple[str, ...], start: bool) -> None:
        """Start a fetch or join one, as the daemon does, and return when it has ended."""
        self.fetches.append(start)
        if start:
            self.feed(events.RefreshAsked(names))
        if not self.outcomes:
            await asyncio.Event().wait()
        request = next(index.request for index in self.agent.indexes if index.name in names)
        self.end(self.outcomes.pop(0), request)
        self.meanwhile()

    def ask(self, url: str = URL, username: str | None = None, min_life: float | None = None) -> dict[str, Json]:
        return asyncio.run(self.answers.credential(url, username, min_life, UV))


def token(text: str, at: datetime = START, life: float | None = 3600.0, login: str = "aws") -> Credential:
    return Credential(login, Secret(text), at, None if life is None else at + timedelta(seconds=life))


@pytest.fixture
def world() -> World:
    """Return a world with one index that has a new token."""
    created = World(PROD)
    created.end(token("t1"))
    return created


def test_a_valid_token_is_returned_at_once(world: World) -> None:
    """The answer has the login, the token and its expiry. The log has the asking process and the count, but not the
    token."""
    assert world.ask() == {"login": "aws", "token": "t1", "expires_at": "2026-01-31T09:00:00Z"}
    assert world.ask("acme.example", "aws") == world.ask()
    assert world.fetches == []
    assert world.answers.counts == {"prod": 3}
    assert [(report.event, report.names) for report in world.reports] == [("answered", ("prod",))] * 3
    assert world.reports[0].message == "Answered uv (pid 42); 1 answer since the daemon started."
    assert "t1" not in repr(world.reports)


def test_times_are_on_the_wall_clock(world: World) -> None:
    """The expiry in the answer is on the wall clock."""
    world.clock.set_by = timedelta(hours=1)
    assert world.ask()["expires_at"] == "2026-01-31T10:00:00Z"


@pytest.mark.parametrize(
    ("url", "username"),
    [("https://evil.example/prod/", None), ("https://acme.example/other/", None), (URL, "me"), (URL, "")],
)
def test_no_match_gets_no_credential(world: World, url: str, username: str | None) -> None:
    """Another host, another path or another login gets no credential and is not logged."""
    with pytest.raises(NoMatchError):
        world.ask(url, username)
    with pytest.raises(NoMatchError):
        world.ask("https://me@acme.example/prod/simple/", "aws")
    assert (world.reports, world.answers.counts) == ([], {})


def test_the_longest_prefix_with_the_login_matches() -> None:
    """The longest prefix wins. With the login of another matching index, that index's credential is returned."""
    world = World(PROD, DEEP)
    world.end(token("t1"))
    world.end(token("t2", login="me"), CORP)
    url = "https://acme.example/prod/deep/alpha/"
    assert world.ask(url)["token"] == "t2"
    assert world.ask(url, "aws")["token"] == "t1"
    assert world.ask(URL)["token"] == "t1"
    with pytest.raises(NoMatchError):
        world.ask("acme.example")


def test_two_indexes_with_one_url() -> None:
    """A program that names an index gets only that index's credential, and none for another URL."""
    twin = Index("twin", PROD.url, PROD.host, "static", CORP)
    world = World(PROD, twin)
    world.end(token("t1"))
    world.end(token("t2", login="me"), CORP)

    def token_of(name: str, url: str = PROD.url) -> Json:
        return asyncio.run(world.answers.credential(url, None, None, UV, name))["token"]

    assert (token_of("prod"), token_of("twin")) == ("t1", "t2")
    with pytest.raises(NoMatchError):
        token_of("prod", "https://evil.example/prod/simple/")


def test_a_program_waits_for_the_first_token() -> None:
    """A program that asks during the first fetch waits for it. If the token then has another login, there is no
    match."""
    world = World(PROD)
    world.outcomes = [token("t1")]
    assert world.ask(username="aws")["token"] == "t1"
    assert world.fetches == [False]
    world = World(PROD)
    world.outcomes = [token("t1")]
    with pytest.raises(NoMatchError):
        world.ask(username="me")


def test_too_little_life_starts_a_fetch(world: World) -> None:
    """If less than the promised life, or less than `min_life`, is left, the program waits for a fetch."""
    world.outcomes = [token("t2", START + timedelta(minutes=10)), token("t3", START + timedelta(minutes=45))]
    world.clock.at = START + timedelta(minutes=10)
    assert world.ask(min_life=3000.0)["token"] == "t1"
    assert world.ask(min_life=3001.0)["token"] == "t2"
    world.clock.at = START + timedelta(minutes=45)
    assert world.ask()["token"] == "t3"
    assert world.fetches == [True, True]


def test_a_token_without_an_expiry_is_always_long_enough() -> None:
    """A token without an expiry is returned whatever `min_life` is."""
    world = World(PROD)
    world.end(token("t1", life=None))
    assert world.ask(min_life=1e9) == {"login": "aws", "token": "t1", "expires_at": None}


def test_the_wait_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the fetch does not end, a valid token is returned; without one, the program gets an error."""
    monkeypatch.setattr(answers, "SOON", 0.01)
    monkeypatch.setattr(answers, "PATIENCE", 0.01)
    world.clock.at = START + timedelta(minutes=45)
    assert world.ask()["token"] == "t1"
    with pytest.raises(UvtokendError, match="no valid token yet"):
        World(PROD).ask()


def test_programs_do_not_overload_the_issuer(world: World) -> None:
    """Requests by programs start at most one fetch in 30 s, however the fetches end."""
    world.clock.at = START + timedelta(minutes=45)
    world.outcomes = [TROUBLE, token("t2", START + timedelta(minutes=46))]
    for _ in range(10):
        assert world.ask()["token"] == "t1"
    assert len(world.fetches) == 1
    world.clock.at += timedelta(seconds=30)
    assert world.ask()["token"] == "t2"


def test_a_blocked_lease_starts_no_fetch(world: World) -> None:
    """Only a person can unblock the lease, so a valid token is returned at once, and otherwise an error with the
    fix."""
    world.feed(events.RefreshAsked(("prod",)))
    world.end(Failure("login-required", "sso-expired", "The sign-in expired.", "aws sso login"))
    world.clock.at = START + timedelta(minutes=59)
    assert world.ask()["token"] == "t1"
    world.clock.at = START + timedelta(minutes=60)
    with pytest.raises(UvtokendError) as caught:
        world.ask()
    assert caught.value.message == "The index 'prod' has no valid token: The sign-in expired."
    assert caught.value.hint == "aws sso login"
    assert world.fetches == []


def test_a_retry_after_is_respected(world: World) -> None:
    """Requests by programs start no fetch before the issuer's Retry-After is over."""
    world.feed(events.RefreshAsked(("prod",)))
    world.end(Failure("transient", "throttled", "Too many requests.", retry_after=600.0))
    world.clock.at = START + timedelta(minutes=9)
    assert world.ask(min_life=3500.0)["token"] == "t1"
    assert world.fetches == []
    world.clock.at = START + timedelta(minutes=70)
    world.outcomes = [TROUBLE]
    with pytest.raises(UvtokendError, match="an internal error"):
        world.ask()


def test_an_index_removed_during_the_wait(world: World) -> None:
    """If the configuration removes the index while a program waits for a fetch, the program gets no credential."""
    world.clock.at = START + timedelta(minutes=45)
    world.outcomes = [token("t2", START + timedelta(minutes=45))]
    world.meanwhile = world.configure
    with pytest.raises(NoMatchError):
        world.ask()


def test_all_indexes_removed_during_the_wait() -> None:
    """If the first match has another login and the configuration has removed all indexes meanwhile, there is no
    match."""
    world = World(PROD, DEEP)
    world.end(token("t1"))
    world.outcomes = [token("t2", login="other")]
    world.meanwhile = world.configure
    with pytest.raises(NoMatchError):
        world.ask("https://acme.example/prod/deep/alpha/", "aws")
