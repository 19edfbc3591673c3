"""The answers to programs: the right credential, with the promised life if it can be had, and never a busy issuer."""

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
TROUBLE = Failure("transient", "server-error", "The issuer has an error of its own.")


class Still(Clock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.at = START
        self.set_by = timedelta()

    def now(self) -> datetime:
        return self.at

    def shift(self) -> timedelta:
        return self.set_by


class World:
    """An agent whose fetches end as a test says, at once; or, with nothing said, never."""

    def __init__(self, *indexes: Index) -> None:
        self.clock = Still()
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
        """Do as the daemon does: start a fetch or join it, and return when it ended."""
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
    """One index whose first token came just now."""
    made = World(PROD)
    made.end(token("t1"))
    return made


def test_a_good_token_is_answered_at_once(world: World) -> None:
    """Login, token and end of life; the log has the asker and the number, and not the token."""
    assert world.ask() == {"login": "aws", "token": "t1", "expires_at": "2026-01-31T09:00:00Z"}
    assert world.ask("acme.example", "aws") == world.ask()
    assert world.fetches == []
    assert world.answers.counts == {"prod": 3}
    assert [(report.event, report.names) for report in world.reports] == [("answered", ("prod",))] * 3
    assert world.reports[0].message == "Answered uv (pid 42); 1 answer since the daemon started."
    assert "t1" not in repr(world.reports)


def test_times_are_the_wall_clocks(world: World) -> None:
    """The end of life is told on the clock that people and programs read."""
    world.clock.set_by = timedelta(hours=1)
    assert world.ask()["expires_at"] == "2026-01-31T10:00:00Z"


@pytest.mark.parametrize(
    ("url", "username"),
    [("https://evil.example/prod/", None), ("https://acme.example/other/", None), (URL, "me"), (URL, "")],
)
def test_others_get_nothing(world: World, url: str, username: str | None) -> None:
    """Another host, another path, another login: no credential, and no line in the log."""
    with pytest.raises(NoMatchError):
        world.ask(url, username)
    with pytest.raises(NoMatchError):
        world.ask("https://me@acme.example/prod/simple/", "aws")
    assert (world.reports, world.answers.counts) == ([], {})


def test_the_longest_prefix_with_that_login_answers() -> None:
    """The longer prefix wins; a request for the other index's login gets the other index's credential."""
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
    """A program that names an index gets only that index's credential; with another URL it gets none."""
    twin = Index("twin", PROD.url, PROD.host, "static", CORP)
    world = World(PROD, twin)
    world.end(token("t1"))
    world.end(token("t2", login="me"), CORP)

    def asked(name: str, url: str = PROD.url) -> Json:
        return asyncio.run(world.answers.credential(url, None, None, UV, name))["token"]

    assert (asked("prod"), asked("twin")) == ("t1", "t2")
    with pytest.raises(NoMatchError):
        asked("prod", "https://evil.example/prod/simple/")


def test_the_first_token_is_waited_for() -> None:
    """A program that asks while the first fetch is in flight joins it; a login that turns out another is no match."""
    world = World(PROD)
    world.outcomes = [token("t1")]
    assert world.ask(username="aws")["token"] == "t1"
    assert world.fetches == [False]
    world = World(PROD)
    world.outcomes = [token("t1")]
    with pytest.raises(NoMatchError):
        world.ask(username="me")


def test_a_short_life_is_refreshed(world: World) -> None:
    """Past the promised life a fetch is waited for; `min_life` asks for more than was promised."""
    world.outcomes = [token("t2", START + timedelta(minutes=10)), token("t3", START + timedelta(minutes=45))]
    world.clock.at = START + timedelta(minutes=10)
    assert world.ask(min_life=3000.0)["token"] == "t1"
    assert world.ask(min_life=3001.0)["token"] == "t2"
    world.clock.at = START + timedelta(minutes=45)
    assert world.ask()["token"] == "t3"
    assert world.fetches == [True, True]


def test_a_token_without_an_end_is_never_short() -> None:
    """A secret whose end nobody knows is answered as it is."""
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


def test_questions_do_not_drive_the_issuer(world: World) -> None:
    """One fetch in 30 s is started by questions, however many come and however the fetches end."""
    world.clock.at = START + timedelta(minutes=45)
    world.outcomes = [TROUBLE, token("t2", START + timedelta(minutes=46))]
    for _ in range(10):
        assert world.ask()["token"] == "t1"
    assert len(world.fetches) == 1
    world.clock.at += timedelta(seconds=30)
    assert world.ask()["token"] == "t2"


def test_a_blocked_lease_is_left_alone(world: World) -> None:
    """Nothing helps before a person acts, so a valid token is answered, and an expired one is explained at once."""
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


def test_the_issuers_pause_is_kept(world: World) -> None:
    """Questions start no fetch while the issuer's Retry-After runs."""
    world.feed(events.RefreshAsked(("prod",)))
    world.end(Failure("transient", "throttled", "Too many requests.", retry_after=600.0))
    world.clock.at = START + timedelta(minutes=9)
    assert world.ask(min_life=3500.0)["token"] == "t1"
    assert world.fetches == []
    world.clock.at = START + timedelta(minutes=70)
    world.outcomes = [TROUBLE]
    with pytest.raises(UvtokendError, match="an error of its own"):
        world.ask()


def test_an_index_that_is_removed_meanwhile(world: World) -> None:
    """While a fetch is waited for, the configuration may change: a removed index answers nobody."""
    world.clock.at = START + timedelta(minutes=45)
    world.outcomes = [token("t2", START + timedelta(minutes=45))]
    world.meanwhile = world.configure
    with pytest.raises(NoMatchError):
        world.ask()


def test_all_indexes_are_removed_meanwhile() -> None:
    """So does the next one that the URL might belong to, if the first turns out to have another login."""
    world = World(PROD, DEEP)
    world.end(token("t1"))
    world.outcomes = [token("t2", login="other")]
    world.meanwhile = world.configure
    with pytest.raises(NoMatchError):
        world.ask("https://acme.example/prod/deep/alpha/", "aws")
