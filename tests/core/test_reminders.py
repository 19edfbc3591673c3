"""Desktop notifications: only what a person truly has to do."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import pytest

from uvtokend.core import reminders
from uvtokend.core.status import StatusDocument

ERROR = {"kind": "login-required", "message": "The SSO session has expired.", "hint": "aws sso login --profile dev"}


def document(*indexes: dict[str, Any]) -> StatusDocument:
    """Return a document with these indexes."""
    return cast("StatusDocument", {"indexes": list(indexes)})


def blocked(name: str, **changes: Any) -> dict[str, Any]:
    """Return an index that needs a sign-in, seen twice, but for the changes."""
    return {"name": name, "state": "blocked", "failures": 2, "last_error": ERROR, **changes}


def test_one_sign_in_is_one_reminder() -> None:
    """However many indexes wait for a sign-in, a person is told once, with the command."""
    assert [*reminders.due(document(blocked("a"), blocked("b"))).values()] == [
        reminders.Reminder(
            "Sign-in needed: aws sso login --profile dev",
            "Sign-in needed",
            "a, b: The SSO session has expired.\naws sso login --profile dev",
        )
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"failures": 1},
        {"state": "retrying"},
        {"state": "fetching"},
        {"last_error": None},
        {"last_error": {**ERROR, "kind": "rejected"}},
    ],
)
def test_what_may_pass_by_itself_is_no_reminder(changes: dict[str, Any]) -> None:
    """One answer is no proof, and what no sign-in repairs is not worth a notification."""
    assert reminders.due(document(blocked("a", **changes))) == {}


def test_a_sign_in_that_ends_soon_is_a_reminder() -> None:
    """A person signs in before the token is gone; other notices can wait until somebody looks."""
    soon = {"reason": "sign-in-ends", "message": "The AWS SSO session expires in 50 min.", "hint": "aws sso login"}
    skew = {"reason": "clock-skew", "message": "The clock is off.", "hint": None}
    quiet = {"name": "a", "state": "waiting", "failures": 0, "last_error": None, "notices": [soon, skew]}
    (reminder,) = reminders.due(document(quiet)).values()
    assert (reminder.title, reminder.body) == ("Sign-in ends soon", f"a: {soon['message']}\naws sso login")
    without = {**soon, "hint": None}
    (reminder,) = reminders.due(document({**quiet, "notices": [without]})).values()
    assert reminder.body == f"a: {soon['message']}"


@pytest.mark.parametrize(
    ("end", "hours", "told"),
    [
        ("2026-01-31T17:40", "22:00-07:00", "2026-01-31T16:40"),
        ("2026-01-31T17:40", None, "2026-01-31T16:40"),
        ("2026-01-31T03:00", None, "2026-01-31T02:00"),
        ("2026-01-31T03:00", "22:00-07:00", "2026-01-30T21:00"),
        ("2026-01-31T23:30", "22:00-07:00", "2026-01-31T21:00"),
        ("2026-01-31T22:30", "22:00-07:00", "2026-01-31T21:30"),
        ("2026-01-31T13:30", "12:00-14:00", "2026-01-31T11:00"),
        ("2026-01-31T13:30:45.5", "12:00-14:00", "2026-01-31T11:00"),
    ],
)
def test_a_sign_in_is_spoken_of_at_a_sensible_hour(end: str, hours: str | None, told: str) -> None:
    """An hour before it ends; where that is at night, in the evening before the quiet hours begin."""
    assert reminders.warned_from(datetime.fromisoformat(end), hours) == datetime.fromisoformat(told)


@pytest.mark.parametrize(
    ("clock", "due"),
    [("2026-01-30T20:59+01:00", False), ("2026-01-30T21:00+01:00", True), ("2026-01-31T03:00+01:00", False)],
)
def test_a_sign_in_that_ends_at_night_is_told_in_the_evening(clock: str, due: bool) -> None:
    """With the time and the command; once its own notice stands, there is only that one."""
    sign_in = {"name": "the AWS SSO session", "ends_at": "2026-01-31T02:00:00Z", "command": "aws sso login"}
    quiet = {"name": "a", "state": "waiting", "failures": 0, "last_error": None, "sign_in": sign_in}
    found = reminders.due(document(quiet), datetime.fromisoformat(clock), "22:00-07:00")
    bodies = [reminder.body for reminder in found.values()]
    assert bodies == (["a: The AWS SSO session ends at 03:00.\naws sso login"] if due else [])
    notice = {"reason": "sign-in-ends", "message": "It ends in 50 min.", "hint": "aws sso login"}
    both = reminders.due(document({**quiet, "notices": [notice]}), datetime.fromisoformat(clock), "22:00-07:00")
    assert [reminder.body for reminder in both.values()] == ["a: It ends in 50 min.\naws sso login"]
    assert reminders.due(document(quiet)) == {}


@pytest.mark.parametrize(
    ("changes", "settled"),
    [
        ({}, True),
        ({"failures": 1}, False),
        ({"state": "fetching", "last_error": None}, False),
        ({"state": "retrying", "last_error": None}, False),
        ({"state": "waiting", "last_error": None}, True),
        ({"failures": 1, "last_error": {**ERROR, "kind": "rejected"}}, True),
        ({"state": "fetching", "enabled": False}, True),
    ],
)
def test_when_it_is_known_who_needs_a_sign_in(changes: dict[str, Any], settled: bool) -> None:
    """Not while a first fetch is under way, nor after one answer alone."""
    assert reminders.settled(document({"enabled": True, **blocked("a", **changes)})) is settled


def test_what_is_shown_is_remembered() -> None:
    """Key and number; what is not a file of ours remembers nothing."""
    shown = {"Sign-in needed: aws sso login": "42", "Sign-in ends soon: jf login": None}
    assert reminders.decode(reminders.encode(shown)) == shown
    for text in (b"", b"[", b"[1]", b"\xff", b"[" * 100_000):
        assert reminders.decode(text) == {}
    assert reminders.decode(b'{"a": 1, "b": "2"}') == {"b": "2"}
    assert reminders.decode(rb'{"a": "\u0000", "b": "1\u0000", "c": "--x", "d": "\ud800", "e": null}') == {"e": None}


@pytest.mark.parametrize(
    ("hours", "clock", "quiet"),
    [
        (None, "23:00", False),
        ("22:00-07:00", "23:00", True),
        ("22:00-07:00", "06:59", True),
        ("22:00-07:00", "07:00", False),
        ("12:00-13:00", "12:00", True),
        ("12:00-13:00", "13:00", False),
        ("12:00-13:00", "11:59", False),
    ],
)
def test_quiet_hours(hours: str | None, clock: str, quiet: bool) -> None:
    """They may go over midnight; their end is no longer quiet."""
    assert reminders.quiet(hours, datetime.fromisoformat(f"2026-01-31T{clock}")) is quiet
