"""command: run a program of the user that returns the credential.

The program prints one JSON object: ``{"username", "password", "expires_at" or "expires_in"}``.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from uvtokend.plugin import Credential, FetchFailed, Request, checked, quiet, rejected, transient
from uvtokend.providers.kit import programs

#: The longest life in seconds. A longer one is a mistake, most likely milliseconds.
LONGEST_LIFE = 20 * 365 * 86400


@quiet
def fetch(request: Request) -> Credential:
    """Run the program and return the credential that it prints.

    The fetch's deadline ends the program and all its children.

    Args:
        request: Its option ``command``: the program and its arguments.

    Raises:
        FetchFailed: The program fails, or does not print a credential. Its output is never repeated.
    """
    command = request.option("command")
    if not isinstance(command, tuple) or not command or not all(isinstance(word, str) and word for word in command):
        raise rejected("bad-options", "command must be a list of strings: the program and its arguments.")
    words = [str(word) for word in command]
    name = os.path.basename(words[0])
    said = programs.answer(words)
    now = datetime.now(UTC)
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        raise _garbage(name, "something that is not JSON") from None
    if not isinstance(answer, dict):
        raise _garbage(name, "JSON that is not one object")
    return _credential(name, answer, now)


def _credential(name: str, answer: dict[str, Any], now: datetime) -> Credential:
    login, password = answer.get("username"), answer.get("password")
    if not isinstance(login, str) or not login.isprintable() or ":" in login:
        raise _garbage(name, "no valid username (one line of text without a colon)")
    if not isinstance(password, str):
        raise _garbage(name, "no password")
    token = checked(password, f"The password that {name} answered")
    ends = _end(name, answer, now)
    if ends is not None and ends <= now:
        raise transient("expired-on-arrival", f"{name} returned a credential that has already expired.")
    return Credential(login, token, now, ends)


def _end(name: str, answer: dict[str, Any], now: datetime) -> datetime | None:
    """Return the end of life, the earlier one if both forms are given."""
    ends = []
    at, seconds = answer.get("expires_at"), answer.get("expires_in")
    if at is not None:
        try:
            time = datetime.fromisoformat(at)
            if time.tzinfo is None:
                raise _garbage(name, "an expires_at without a time zone")
            ends.append(time.astimezone(UTC))
        except (TypeError, ValueError, OverflowError):
            raise _garbage(name, "an expires_at that is not an ISO 8601 time") from None
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not abs(seconds) <= LONGEST_LIFE:
            raise _garbage(name, "an expires_in that is not a number of seconds")
        ends.append(now + timedelta(seconds=seconds))
    return min(ends, default=None)


def _garbage(name: str, what: str) -> FetchFailed:
    message = f"{name} printed {what}."
    return rejected("garbage", message, 'answer {"username": "…", "password": "…", "expires_in": 3600}')
