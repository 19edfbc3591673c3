"""Decide from the status document which desktop notifications are shown.

A person sees each notification once, and only if it is needed:

* if two fetches in a row need a sign-in, since one answer proves nothing;
* if a sign-in is known to end soon: an hour before its end, or before the quiet hours that contain this hour;
* never in the first minute after the machine woke up, when the network may be missing, nor in the quiet hours;
* a reminder whose reason is gone is withdrawn, even in the quiet hours;
* a restart of the daemon changes nothing: the shown reminders are remembered, and each is withdrawn only when fetches
  have shown that its reason is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from uvtokend.core.model import Json
from uvtokend.core.notices import SIGN_IN_ENDS_SOON
from uvtokend.core.status import IndexStatus, StatusDocument

#: How many fetches in a row must ask for a sign-in.
CONFIRMED = 2
#: Seconds after a wake-up without notifications.
AFTER_WAKING = 60.0
#: The notices that cause a notification.
_NOTICES = frozenset({"sign-in-ends", "ends-soon"})


@dataclass(frozen=True, slots=True)
class Reminder:
    """One notification.

    Args:
        key: The sign-in that it is about, however many indexes need it.
        title: Its headline.
        body: The sentence and the command.
    """

    key: str
    title: str
    body: str


def due(document: StatusDocument, now: datetime | None = None, hours: str | None = None) -> dict[str, Reminder]:
    """Return the notifications that should be shown now, by key.

    Args:
        document: The status document.
        now: Local time, aware; None to announce no sign-in earlier than its notice.
        hours: The quiet hours, or None.
    """
    names: dict[tuple[str, str, str | None], list[str]] = {}
    for index in document["indexes"]:
        error = index["last_error"]
        needs = error is not None and error["kind"] == "login-required" and index["state"] == "blocked"
        if error is not None and needs and index["failures"] >= CONFIRMED:
            names.setdefault(("Sign-in needed", error["message"], error["hint"]), []).append(index["name"])
        found_now = [notice for notice in index.get("notices", []) if notice["reason"] in _NOTICES]
        for notice in found_now:
            names.setdefault(("Sign-in ends soon", notice["message"], notice["hint"]), []).append(index["name"])
        end = index.get("sign_in")
        if end is not None and end["ends_at"] is not None and not found_now and now is not None:
            ends_at = datetime.fromisoformat(end["ends_at"]).astimezone(now.tzinfo)
            if warned_from(ends_at, hours) <= now < ends_at:
                message = f"{end['name'][:1].upper()}{end['name'][1:]} ends at {ends_at:%H:%M}."
                names.setdefault(("Sign-in ends soon", message, end["command"]), []).append(index["name"])
    reminders: dict[str, Reminder] = {}
    for (title, message, hint), told in names.items():
        body = f"{', '.join(told)}: {message}" + (f"\n{hint}" if hint is not None else "")
        reminder = Reminder(f"{title}: {hint or message}", title, body)
        reminders.setdefault(reminder.key, reminder)
    return reminders


def warned_from(end: datetime, hours: str | None) -> datetime:
    """Return the time from which a notification announces the end of a sign-in.

    Args:
        end: The end of the sign-in, local time.
        hours: The quiet hours, without notifications; None if there are none.
    """
    usual = end - SIGN_IN_ENDS_SOON
    if hours is None or not quiet(hours, usual):
        return usual
    first = time.fromisoformat(hours.partition("-")[0])
    begin = usual.replace(hour=first.hour, minute=first.minute, second=0, microsecond=0)
    return begin - SIGN_IN_ENDS_SOON - (timedelta(days=1) if begin > usual else timedelta())


def settled(document: StatusDocument) -> bool:
    """Return whether the document tells for each index whether it needs a sign-in, which takes `CONFIRMED` fetches."""
    return not any(_is_open(index) for index in document["indexes"] if index["enabled"])


def _is_open(index: IndexStatus) -> bool:
    error = index["last_error"]
    once = error is not None and error["kind"] == "login-required" and index["failures"] < CONFIRMED
    return once or index["state"] in {"fetching", "retrying"}


def encode(shown: Mapping[str, str | None]) -> bytes:
    """Return the file that remembers which reminders are shown: key -> what withdraws it."""
    return json.dumps(shown).encode() + b"\n"


def decode(text: bytes) -> dict[str, str | None]:
    """Return the reminders in a file; none if the file is not one of ours."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    known = document.items() if isinstance(document, dict) else ()
    return {key: number for key, number in known if number is None or _is_number(number)}


def _is_number(word: Json) -> bool:
    """Return whether a word from a file may be an argument of a program: `notify-send` prints a number."""
    return isinstance(word, str) and word.isascii() and word.isdigit()


def quiet(hours: str | None, now: datetime) -> bool:
    """Return whether a time is within the quiet hours.

    Args:
        hours: ``22:00-07:00``, or None.
        now: Local time.
    """
    if hours is None:
        return False
    begin, _, end = hours.partition("-")
    first, last, moment = time.fromisoformat(begin), time.fromisoformat(end), now.time()
    return first <= moment < last if first <= last else moment >= first or moment < last
