"""Snapshot -> the status document, the one that ``uvtokend status --json`` prints."""

from __future__ import annotations

from datetime import datetime, timedelta

from uvtokend.core import policy
from uvtokend.core.model import Index, Json, LastError, Record
from uvtokend.core.state import zulu
from uvtokend.core.views import IndexView, Snapshot


def indexes(snapshot: Snapshot, now: datetime, shift: timedelta) -> list[Json]:
    """Return the ``indexes`` of the document.

    Args:
        snapshot: Everything at one moment.
        now: That moment, on the daemon's clock.
        shift: What to add to the daemon's clock to get the wall clock that people read.
    """
    return [_index(view, now, shift) for view in snapshot.indexes]


def _index(view: IndexView, now: datetime, shift: timedelta) -> Json:
    lease, index = view.lease, view.index
    credential = lease.credential
    end = credential.expires_at if credential else None
    left = None if end is None else max(0, int((end - now).total_seconds()))
    promised = policy.min_life(credential, lease.refresh_at) if credential and lease.refresh_at else None
    return {
        **_known(index),
        "username": _login(index, credential.login if credential else None),
        "identity": credential.identity if credential else None,
        "health": lease.health(now),
        "state": view.state,
        "issued_at": _shifted(credential.issued_at if credential else None, shift),
        "expires_at": _shifted(end, shift),
        "life_left_s": left,
        "refresh_at": _shifted(lease.refresh_at or lease.act_at, shift),
        "min_life_s": None if promised is None else int(promised),
        "delivered": view.delivered,
        "failures": lease.failures,
        "last_error": _error(view.last_error, shift),
        **_notices(view),
    }


def from_disk(index: Index, record: Record | None, now: datetime, login: str | None = None) -> Json:
    """Return one index as far as it is known while no daemon runs.

    Args:
        index: From the configuration.
        record: From the state file, if the entry that it describes is still in its sink.
        now: The wall clock, aware UTC.
        login: Of that entry.
    """
    end = record.expires_at if record else None
    alive = record is not None and (end is None or end > now)
    health = "none" if record is None else "expired" if not alive else "stale" if now >= record.refresh_at else "fresh"
    return {
        **_known(index),
        "username": _login(index, login),
        "identity": record.identity if record else None,
        "health": health,
        "state": "waiting",
        "issued_at": zulu(record.issued_at if record else None),
        "expires_at": zulu(end),
        "life_left_s": None if end is None else max(0, int((end - now).total_seconds())),
        "refresh_at": zulu(record.refresh_at if record else None),
        "min_life_s": None,
        "delivered": alive,
        "failures": 0,
        "last_error": None,
    }


def _login(index: Index, login: str | None) -> Json:
    return None if login is None else "****" if index.login_is_secret else login


def _known(index: Index) -> dict[str, Json]:
    return {
        "name": index.name,
        "url": index.url,
        "host": index.host,
        "provider": index.provider,
        "sink": index.sink,
    }


def _notices(view: IndexView) -> dict[str, Json]:
    """Return a ``notices`` key where there are any."""
    told: list[Json] = [
        {"reason": notice.reason, "message": notice.message, "hint": notice.hint} for notice in view.notices
    ]
    return {"notices": told} if told else {}


def _error(error: LastError | None, shift: timedelta) -> Json:
    if error is None:
        return None
    return {
        "kind": error.kind,
        "reason": error.reason,
        "message": error.message,
        "hint": error.hint,
        "at": _shifted(error.at, shift),
    }


def _shifted(time: datetime | None, shift: timedelta) -> str | None:
    return None if time is None else zulu(time + shift)
