"""The status document has the same keys with and without a daemon, and claims only what is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from uvtokend.core import status
from uvtokend.core.document import STOPPED
from uvtokend.core.lease import Lease
from uvtokend.core.model import Credential, Index, LastError, Notice, Record, Request, Secret, SignInEnd
from uvtokend.core.views import IndexView, Snapshot

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
REQUEST = Request("command")
A = Index("a", "https://a.example/simple/", "a.example", "command", REQUEST)
OFF = Index("off", "", "", "", Request(""))
FRAME = status.Frame("1.0.0", "/config.toml", "/netrc", "/socket")
KEYS = {"version", "pid", "started_at", "config", "config_stale", "netrc", "socket", "delivery", "indexes"}
INDEX_KEYS = {
    "name",
    "url",
    "host",
    "provider",
    "sink",
    "enabled",
    "username",
    "identity",
    "health",
    "state",
    "issued_at",
    "expires_at",
    "life_left_s",
    "refresh_at",
    "retry_at",
    "min_life_s",
    "delivered",
    "failures",
    "last_error",
    "sign_in",
}


def record(end: datetime | None = NOW + timedelta(hours=1)) -> Record:
    """Return the record of a token."""
    half = NOW + timedelta(minutes=30)
    return Record("key", ("a.example",), "digest", NOW, end, half, identity="me@a.example")


def from_disk(known: Record | None, now: datetime = NOW) -> status.IndexStatus:
    """Return the index of a document that is made without a daemon."""
    standing = {} if known is None else {"a": status.Standing(known, "me")}
    return status.of_disk(FRAME, (A,), (), standing, None, now)["indexes"][0]


@pytest.mark.parametrize(
    ("seconds", "health", "delivered"), [(0, "fresh", True), (1800, "stale", True), (3600, "expired", False)]
)
def test_the_health_from_disk(seconds: int, health: str, delivered: bool) -> None:
    """Without a daemon, the health follows from the record and the clock, and the state is null."""
    entry = from_disk(record(), NOW + timedelta(seconds=seconds))
    assert (entry["health"], entry["delivered"], entry["username"]) == (health, delivered, "me")
    assert entry["state"] is None
    assert entry["life_left_s"] == 3600 - seconds


def test_unknown_values_from_disk() -> None:
    """Without a record there is no token, and without a daemon the delivery is not ok."""
    entry = from_disk(None)
    assert (entry["health"], entry["delivered"], entry["expires_at"], entry["enabled"]) == ("none", False, None, True)
    assert from_disk(record(None))["life_left_s"] is None
    document = status.of_disk(FRAME, (A,), (OFF,), {}, None, NOW)
    assert document["pid"] is None
    assert document["started_at"] is None
    assert document["delivery"] == {"ok": False, "problem": STOPPED}
    broken = status.of_disk(FRAME, (A,), (), {}, "/netrc: line 3: unknown word", NOW)
    assert broken["delivery"]["problem"] == "/netrc: line 3: unknown word"


def test_a_disabled_index_is_shown() -> None:
    """A disabled, incomplete index appears with all keys, with and without a daemon; unknown values are null."""
    running = status.Frame("1.0.0", "/config.toml", "/netrc", "/socket", "changed", 4711, NOW)
    for document in (
        status.of_disk(FRAME, (), (OFF,), {}, None, NOW),
        status.of_daemon(running, Snapshot((), True, None), (OFF,), NOW),
    ):
        assert document.keys() == KEYS
        (entry,) = document["indexes"]
        assert entry.keys() == INDEX_KEYS
        assert (entry["name"], entry["enabled"], entry["state"], entry["health"]) == ("off", False, None, "none")
        assert (entry["url"], entry["host"], entry["provider"]) == (None, None, None)
    assert document["config_stale"] == "changed"
    assert document["started_at"] == "2026-01-31T08:00:00Z"


def test_names_select_indexes() -> None:
    """The document is reduced to the named indexes in the order of the names; without names it has all."""
    document = status.of_disk(FRAME, (A,), (OFF,), {}, None, NOW)
    assert [index["name"] for index in status.chosen(document, ["off", "a", "off"])["indexes"]] == ["off", "a"]
    assert status.chosen(document, []) == document


def test_the_end_of_a_sign_in_is_shown_on_the_wall_clock() -> None:
    """If the provider knows when the sign-in ends, the document has that time and the sign-in command."""
    end = SignInEnd("the AWS SSO session of 'dev'", NOW + timedelta(hours=2), "aws sso login")
    credential = Credential("aws", Secret("t"), NOW, NOW + timedelta(hours=1), sign_in_end=end)
    view = IndexView(A, Lease(REQUEST, credential=credential), "waiting", True, None)
    document = status.of_daemon(FRAME, Snapshot((view,), True, None), (), NOW, timedelta(hours=1))
    assert document["indexes"][0]["sign_in"] == {
        "name": "the AWS SSO session of 'dev'",
        "ends_at": "2026-01-31T11:00:00Z",
        "command": "aws sso login",
    }


def test_the_delivery_in_the_document() -> None:
    """The document has the success or the problem of the delivery, and a secret login is masked."""
    for ok, problem in ((True, None), (False, "The disk is full.")):
        document = status.of_daemon(FRAME, Snapshot((), ok, problem), (), NOW)
        assert document["delivery"] == {"ok": ok, "problem": problem}
    secret = replace(A, request=Request("nexus", options=(("username", (("env", "CODE"),)),)))
    assert (status._username(secret, "code"), status._username(A, "me"), status._username(A, None)) == (
        "****",
        "me",
        None,
    )


def test_a_disabled_index_has_no_failures() -> None:
    """A disabled index has no failures, no health and no delivered token."""
    (entry,) = status.of_daemon(FRAME, Snapshot((), True, None), (OFF,), NOW)["indexes"]
    assert (entry["failures"], entry["health"], entry["delivered"]) == (0, "none", False)


HOUR = timedelta(hours=1)
CONFIGURED = {
    "name": "a",
    "url": "https://a.example/simple/",
    "host": "a.example",
    "provider": "command",
    "sink": "netrc",
    "enabled": True,
}
NOTHING = {
    "username": None,
    "identity": None,
    "health": "none",
    "state": None,
    "issued_at": None,
    "expires_at": None,
    "life_left_s": None,
    "refresh_at": None,
    "retry_at": None,
    "min_life_s": None,
    "delivered": False,
    "failures": 0,
    "last_error": None,
    "sign_in": None,
}


def test_every_value_of_a_running_daemons_status() -> None:
    """The status document contains every value of the daemon. Its times are those of the wall clock, here an hour
    ahead of the daemon's."""
    credential = Credential("me", Secret("t"), NOW, NOW + HOUR, identity="me@a.example")
    error = LastError("transient", "unreachable", "Nobody answers.", "try again", NOW + timedelta(minutes=1))
    lease = Lease(REQUEST, "retrying", credential, NOW + HOUR / 2, NOW + timedelta(minutes=2), 3)
    notice = Notice("x", "Look.", "do it")
    view = IndexView(A, lease, "retrying", True, error, (notice,), NOW + timedelta(minutes=2))
    frame = status.Frame("1.0.0", "/config.toml", "/netrc", "/socket", "changed", 4711, NOW)
    now = NOW + timedelta(seconds=59.9)
    assert status.of_daemon(frame, Snapshot((view,), False, "The disk is full."), (OFF,), now, HOUR) == {
        "version": "1.0.0",
        "pid": 4711,
        "started_at": "2026-01-31T08:00:00Z",
        "config": "/config.toml",
        "config_stale": "changed",
        "netrc": "/netrc",
        "socket": "/socket",
        "delivery": {"ok": False, "problem": "The disk is full."},
        "indexes": [
            {
                **CONFIGURED,
                "username": "me",
                "identity": "me@a.example",
                "health": "fresh",
                "state": "retrying",
                "issued_at": "2026-01-31T09:00:00Z",
                "expires_at": "2026-01-31T10:00:00Z",
                "life_left_s": 3540,
                "refresh_at": "2026-01-31T09:30:00Z",
                "retry_at": "2026-01-31T09:02:00Z",
                "min_life_s": 1770,
                "delivered": True,
                "failures": 3,
                "last_error": {
                    "kind": "transient",
                    "reason": "unreachable",
                    "message": "Nobody answers.",
                    "hint": "try again",
                    "at": "2026-01-31T09:01:00Z",
                },
                "sign_in": None,
                "notices": [{"reason": "x", "message": "Look.", "hint": "do it"}],
            },
            {**NOTHING, "name": "off", "url": None, "host": None, "provider": None, "sink": "netrc", "enabled": False},
        ],
    }


def test_every_value_of_an_index_on_disk() -> None:
    """Without a daemon, the status of an index contains what its record holds, and null for what only a daemon
    knows."""
    assert from_disk(record()) == {
        **CONFIGURED,
        **NOTHING,
        "username": "me",
        "identity": "me@a.example",
        "health": "fresh",
        "issued_at": "2026-01-31T08:00:00Z",
        "expires_at": "2026-01-31T09:00:00Z",
        "life_left_s": 3600,
        "refresh_at": "2026-01-31T08:30:00Z",
        "delivered": True,
    }
    assert from_disk(None) == {**CONFIGURED, **NOTHING}
    assert from_disk(record(), NOW + 2 * HOUR)["life_left_s"] == 0


def test_a_lease_without_a_token_shows_its_next_fetch() -> None:
    """If a lease has no token yet, the time of its next fetch is shown as its refresh."""
    view = IndexView(A, Lease(REQUEST, act_at=NOW + HOUR), "waiting", False, None)
    (shown,) = status.of_daemon(FRAME, Snapshot((view,), True, None), (), NOW)["indexes"]
    assert shown == {**CONFIGURED, **NOTHING, "state": "waiting", "refresh_at": "2026-01-31T09:00:00Z"}
