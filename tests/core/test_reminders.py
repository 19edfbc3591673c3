"""Desktop notifications appear only if the user must act."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import pytest

from uvtokend.core import reminders
from uvtokend.core.status import StatusDocument

ERROR = {"kind": "login-required", "message": "The SSO session has expired.", "hint": "aws sso login --profile dev"}


def document(*indexes: dict[str, Any]) -> StatusDocument:
    """Return a status document with these indexes."""
    return cast("StatusDocument", {"indexes": list(indexes)})


def blocked(name: str, **changes: Any) -> dict[str, Any]:
    """Return an index that needs a sign-in after two failures, with these changes."""
    return {"name": name, "state": "blocked", "failures": 2, "last_error": ERROR, **changes}


def test_one_reminder_for_one_sign_in_command() -> None:
    """All indexes that need the same sign-in command share one reminder."""
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
def test_no_reminder_without_a_needed_sign_in(changes: dict[str, Any]) -> None:
    """There is no reminder after a single failure, for other states, or if a sign-in does not help."""
    assert reminders.due(document(blocked("a", **changes))) == {}


def test_a_sign_in_that_ends_soon_is_a_reminder() -> None:
    """A reminder appears before the sign-in ends; other notices appear only in the status."""
    soon = {"reason": "sign-in-ends", "message": "The AWS SSO session expires in 50 min.", "hint": "aws sso login"}
    skew = {"reason": "clock-skew", "message": "The clock is off.", "hint": None}
    quiet = {"name": "a", "state": "waiting", "failures": 0, "last_error": None, "notices": [soon, skew]}
    (reminder,) = reminders.due(document(quiet)).values()
    assert (reminder.title, reminder.body) == ("Sign-in ends soon", f"a: {soon['message']}\naws sso login")
    without = {**soon, "hint": None}
    (reminder,) = reminders.due(document({**quiet, "notices": [without]})).values()
    assert reminder.body == f"a: {soon['message']}"


@pytest.mark.parametrize(
    ("end", "hours", "due"),
    [
        ("2026-01-31T17:40", "22:00-07:00", "2026-01-31T16:40"),
        ("2026-01-31T17:40", None, "2026-01-31T16:40"),
        ("2026-01-31T03:00", None, "2026-01-31T02:00"),
        ("2026-01-31T03:00", "22:00-07:00", "2026-01-30T21:00"),
        ("2026-01-31T23:30", "22:00-07:00", "2026-01-31T21:00"),
        ("2026-01-31T22:30", "22:00-07:00", "2026-01-31T21:30"),
        ("2026-01-31T13:30", "12:00-14:00", "2026-01-31T11:00"),
        ("2026-01-31T13:00", "12:00-14:00", "2026-01-31T11:00"),
        ("2026-01-31T13:30:45.5", "12:00-14:00", "2026-01-31T11:00"),
    ],
)
def test_the_time_of_the_reminder(end: str, hours: str | None, due: str) -> None:
    """The reminder appears an hour before the sign-in ends, or an hour before the quiet hours if that time is quiet."""
    assert reminders.warned_from(datetime.fromisoformat(end), hours) == datetime.fromisoformat(due)


@pytest.mark.parametrize(
    ("clock", "due"),
    [("2026-01-30T20:59+01:00", False), ("2026-01-30T21:00+01:00", True), ("2026-01-31T03:00+01:00", False)],
)
def test_a_sign_in_that_ends_at_night_is_announced_in_the_evening(clock: str, due: bool) -> None:
    """The evening reminder has the time and the command. If the index also has a notice, only that one is shown."""
    sign_in = {"name": "the AWS SSO session", "ends_at": "2026-01-31T02:00:00Z", "command": "aws sso login"}
    quiet = {"name": "a", "state": "waiting", "failures": 0, "last_error": None, "sign_in": sign_in}
    due_reminders = reminders.due(document(quiet), datetime.fromisoformat(clock), "22:00-07:00")
    bodies = [reminder.body for reminder in due_reminders.values()]
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
def test_when_the_reminders_are_settled(changes: dict[str, Any], settled: bool) -> None:
    """The reminders are not settled during a first fetch or after a single failure."""
    assert reminders.settled(document({"enabled": True, **blocked("a", **changes)})) is settled


def test_shown_reminders_are_stored() -> None:
    """Decoding returns the stored keys and notification numbers. Invalid content is ignored."""
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
        ("22:00-07:00", "22:00", True),
        ("22:00-22:00", "22:00", False),
    ],
)
def test_quiet_hours(hours: str | None, clock: str, quiet: bool) -> None:
    """Quiet hours may span midnight, and their end is not quiet."""
    assert reminders.quiet(hours, datetime.fromisoformat(f"2026-01-31T{clock}")) is quiet


def test_the_first_minute_after_waking_is_silent() -> None:
    """The daemon sends no reminder in the first minute after waking, as the network may be missing, and none after a
    single answer."""
    assert (reminders.AFTER_WAKING, reminders.CONFIRMED) == (60.0, 2)
