"""Which desktop notifications stand, from the status document.

A person is told once, and only when it is truly needed:

* a sign-in that two fetches in a row have found missing, since one answer is no proof;
* a sign-in that is known to end soon;
* neither in the first minute after the machine woke up, when the network is not there yet, nor in the quiet hours;
* a reminder whose reason is gone is withdrawn, quiet hours or not;
* a restart of the daemon changes nothing: what is shown is remembered, and is withdrawn only when fetches have shown
  that its reason is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time

from uvtokend.core.status import Document, IndexStatus

#: How many fetches in a row must ask for a sign-in.
CONFIRMED = 2
#: Seconds after a wake-up in which nobody is reminded.
AFTER_WAKING = 60.0
#: The notices that are worth a notification.
_NOTICES = frozenset({"sign-in-ends", "ends-soon"})


@dataclass(frozen=True, slots=True)
class Reminder:
    """One notification.

    Args:
        key: What it is about: one sign-in, however many indexes need it.
        title: Its headline.
        body: The sentence, and the command.
    """

    key: str
    title: str
    body: str


def due(document: Document) -> dict[str, Reminder]:
    """Return what is worth a notification right now, by key."""
    names: dict[tuple[str, str, str | None], list[str]] = {}
    for index in document["indexes"]:
        error = index["last_error"]
        needs = error is not None and error["kind"] == "login-required" and index["state"] == "blocked"
        if error is not None and needs and index["failures"] >= CONFIRMED:
            names.setdefault(("Sign-in needed", error["message"], error["hint"]), []).append(index["name"])
        for notice in index.get("notices", []):
            if notice["reason"] in _NOTICES:
                names.setdefault(("Sign-in ends soon", notice["message"], notice["hint"]), []).append(index["name"])
    reminders: dict[str, Reminder] = {}
    for (title, message, hint), told in names.items():
        body = f"{', '.join(told)}: {message}" + (f"\n{hint}" if hint is not None else "")
        reminder = Reminder(f"{title}: {hint or message}", title, body)
        reminders.setdefault(reminder.key, reminder)
    return reminders


def settled(document: Document) -> bool:
    """Tell whether the document says of each index whether it needs a sign-in, which takes `CONFIRMED` fetches."""
    return not any(_is_open(index) for index in document["indexes"] if index["enabled"])


def _is_open(index: IndexStatus) -> bool:
    error = index["last_error"]
    once = error is not None and error["kind"] == "login-required" and index["failures"] < CONFIRMED
    return once or index["state"] in {"fetching", "retrying"}


def encode(shown: Mapping[str, str | None]) -> bytes:
    """Return the file that remembers which reminders are shown: key -> what withdraws it."""
    return json.dumps(shown).encode() + b"\n"


def decode(text: bytes) -> dict[str, str | None]:
    """Return which reminders a file remembers; none if it is not one of ours."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {key: number for key, number in known if isinstance(number, str | None)}


def quiet(hours: str | None, now: datetime) -> bool:
    """Return whether a moment lies in the quiet hours.

    Args:
        hours: ``22:00-07:00``, or None.
        now: Local time.
    """
    if hours is None:
        return False
    begin, _, end = hours.partition("-")
    first, last, moment = time.fromisoformat(begin), time.fromisoformat(end), now.time()
    return first <= moment < last if first <= last else moment >= first or moment < last
