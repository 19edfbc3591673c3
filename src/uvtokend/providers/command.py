"""command: a credential from a program of the user's own, which answers one JSON object."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from uvtokend.core.model import Credential, Request, Secret
from uvtokend.core.state import parse_zulu
from uvtokend.providers.failures import rejected, transient
from uvtokend.providers.secrets import run

_LIMIT = 64 * 1024
_FORM = 'it shall print {"username": "…", "password": "…", "expires_in": 3600}'


def fetch(request: Request) -> Credential:
    """Run the command and read its answer.

    Args:
        request: Its option ``command``. The answer's end of life is ``expires_at`` (RFC 3339 with its zone) or
            ``expires_in`` (seconds), or neither.

    Raises:
        FetchFailed: The command failed, or what it printed is no credential.
    """
    command = cast("tuple[str, ...]", request.option("command"))
    now = datetime.now(UTC)
    try:
        answer = json.loads(run(command, _LIMIT))
        username, password = answer["username"], answer["password"]
        end = _end(answer, now)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise rejected("garbage", f"The command {command[0]} did not print a credential.", _FORM) from None
    if not isinstance(username, str) or not isinstance(password, str) or not password:
        raise rejected("garbage", f"The command {command[0]} did not print a credential.", _FORM)
    if end is not None and end <= now:
        raise transient("expired-on-arrival", f"The command {command[0]} printed a credential that has expired.")
    return Credential(username, Secret(password), now, end)


def _end(answer: dict[str, Any], now: datetime) -> datetime | None:
    if answer.get("expires_in") is not None:
        return now + timedelta(seconds=float(answer["expires_in"]))
    return parse_zulu(answer.get("expires_at"))
