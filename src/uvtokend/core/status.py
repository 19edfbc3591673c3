"""Compose the status document that ``uvtokend status --json`` prints. No other module composes it.

Whether the daemon runs (`of_daemon`) or not (`of_disk`), the document has the same keys. Without a daemon, ``pid`` and
each ``state`` are null, and a token counts as delivered only if it is seen on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NotRequired, TypedDict

from uvtokend.core.document import STOPPED
from uvtokend.core.model import ErrorKind, Health, Index, LastError, Notice, Record, SignInEnd, Sink, State
from uvtokend.core.rfc3339 import zulu
from uvtokend.core.views import IndexView, Snapshot


class ErrorStatus(TypedDict):
    """The last failure of one index."""

    kind: ErrorKind
    reason: str
    message: str
    hint: str | None
    at: str | None


class NoticeStatus(TypedDict):
    """A notice about an index although its token is valid."""

    reason: str
    message: str
    hint: str | None


class SignInStatus(TypedDict):
    """The known end of the sign-in that tokens are fetched with."""

    name: str
    ends_at: str | None
    command: str


class IndexStatus(TypedDict):
    """One index. Times are UTC with ``Z``; ``retry_at`` is when a retrying or blocked index is tried again."""

    name: str
    url: str | None
    host: str | None
    provider: str | None
    sink: Sink
    enabled: bool
    username: str | None
    identity: str | None
    health: Health
    state: State | None
    issued_at: str | None
    expires_at: str | None
    life_left_s: int | None
    refresh_at: str | None
    retry_at: str | None
    min_life_s: int | None
    delivered: bool
    failures: int
    last_error: ErrorStatus | None
    sign_in: SignInStatus | None
    notices: NotRequired[list[NoticeStatus]]


class DeliveryStatus(TypedDict):
    """Whether the sinks hold the wanted entries."""

    ok: bool
    problem: str | None


class StatusDocument(TypedDict):
    """The whole status."""

    version: str
    pid: int | None
    started_at: str | None
    config: str
    config_stale: str | None
    netrc: str | None
    socket: str | None
    delivery: DeliveryStatus
    indexes: list[IndexStatus]


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything in the document besides the indexes.

    Args:
        version: The version of the program that answers.
        config: The user's configuration file.
        netrc: The netrc that is written; None where a broken configuration hides which one.
        socket: The control socket.
        config_stale: A sentence if the configuration changed since it was loaded, or is invalid.
        pid: The daemon's process ID, if it runs.
        started_at: The time at which the daemon started, UTC.
    """

    version: str
    config: str
    netrc: str | None
    socket: str | None
    config_stale: str | None = None
    pid: int | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A token of ours that is in its sink right now.

    Args:
        record: What the state file remembers about it.
        login: The login of its entry.
    """

    record: Record
    login: str


def of_daemon(
    frame: Frame, snapshot: Snapshot, disabled: Iterable[Index], now: datetime, shift: timedelta = timedelta()
) -> StatusDocument:
    """Return the document of a running daemon.

    Args:
        frame: Everything in the document besides the indexes.
        snapshot: The enabled indexes and the sinks at one moment.
        disabled: The indexes that are switched off.
        now: The same moment, on the daemon's clock.
        shift: The difference to add to the daemon's clock to get the wall clock.
    """
    delivery = DeliveryStatus(ok=snapshot.delivery_ok, problem=snapshot.delivery_problem)
    return _document(frame, delivery, [*rows(snapshot, now, shift), *map(_of_disabled, disabled)])


def rows(snapshot: Snapshot, now: datetime, shift: timedelta) -> list[IndexStatus]:
    """Return the entries of the enabled indexes; the arguments are those of `of_daemon`."""
    return [_of_view(view, now, shift) for view in snapshot.indexes]


def of_disk(
    frame: Frame,
    indexes: Iterable[Index],
    disabled: Iterable[Index],
    standing: Mapping[str, Standing],
    problem: str | None,
    now: datetime,
) -> StatusDocument:
    """Return the document as far as it is known while no daemon runs.

    Args:
        frame: Everything in the document besides the indexes.
        indexes: The enabled indexes.
        disabled: The indexes that are switched off.
        standing: By index name: the token that its sink holds right now.
        problem: A problem with a sink, other than that no daemon delivers to it.
        now: The wall clock, aware UTC.
    """
    known = [_of_standing(index, standing.get(index.name), now) for index in indexes]
    delivery = DeliveryStatus(ok=False, problem=problem or STOPPED)
    return _document(frame, delivery, [*known, *map(_of_disabled, disabled)])


def chosen(document: StatusDocument, names: Sequence[str]) -> StatusDocument:
    """Return a document with these indexes only; no names means all. The caller has checked that they exist."""
    if not names:
        return document
    by_name = {index["name"]: index for index in document["indexes"]}
    return {**document, "indexes": [by_name[name] for name in dict.fromkeys(names)]}


def life_left(end: datetime | None, now: datetime) -> int | None:
    """Return the whole seconds until a token expires; None if its end is unknown."""
    return None if end is None else max(0, int((end - now).total_seconds()))


def _document(frame: Frame, delivery: DeliveryStatus, indexes: list[IndexStatus]) -> StatusDocument:
    return {
        "version": frame.version,
        "pid": frame.pid,
        "started_at": zulu(frame.started_at),
        "config": frame.config,
        "config_stale": frame.config_stale,
        "netrc": frame.netrc,
        "socket": frame.socket,
        "delivery": delivery,
        "indexes": indexes,
    }


# ------------------------------------------------------------------------------------------------------- one index


def _of_disabled(index: Index) -> IndexStatus:
    """Return the entry of a disabled index, and the base of every other entry: only its configuration is known."""
    return {
        "name": index.name,
        "url": index.url or None,
        "host": index.host or None,
        "provider": index.provider or None,
        "sink": index.sink,
        "enabled": False,
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


def _of_view(view: IndexView, now: datetime, shift: timedelta) -> IndexStatus:
    """Return the entry of an enabled index. It names every key, since a copy of `_of_disabled` would take as long."""
    index, lease, credential = view.index, view.lease, view.lease.credential
    end = credential.expires_at if credential else None
    promised = lease.min_life
    status: IndexStatus = {
        "name": index.name,
        "url": index.url or None,
        "host": index.host or None,
        "provider": index.provider or None,
        "sink": index.sink,
        "enabled": True,
        "username": _username(index, credential.login) if credential else None,
        "identity": credential.identity if credential else None,
        "health": lease.health(now),
        "state": view.state,
        "issued_at": zulu(credential.issued_at + shift) if credential else None,
        "expires_at": _shifted(end, shift),
        "life_left_s": life_left(end, now),
        "refresh_at": _shifted(lease.refresh_at or lease.act_at, shift),
        "retry_at": _shifted(view.retry_at, shift),
        "min_life_s": None if promised is None else int(promised),
        "delivered": view.delivered,
        "failures": lease.failures,
        "last_error": _error(view.last_error, shift),
        "sign_in": _sign_in(credential.sign_in_end, shift) if credential else None,
    }
    if view.notices:
        status["notices"] = [_notice(notice) for notice in view.notices]
    return status


def _of_standing(index: Index, standing: Standing | None, now: datetime) -> IndexStatus:
    """Return the entry of an index while no daemon runs.

    Args:
        index: The index.
        standing: Our token in its sink; None if there is none.
        now: The wall clock.
    """
    status: IndexStatus = {**_of_disabled(index), "enabled": True}
    if standing is None:
        return status
    record = standing.record
    valid = record.expires_at is None or record.expires_at > now
    health: Literal["fresh", "stale"] = "stale" if now >= record.refresh_at else "fresh"
    return {
        **status,
        "username": _username(index, standing.login),
        "identity": record.identity,
        "health": health if valid else "expired",
        "issued_at": zulu(record.issued_at),
        "expires_at": zulu(record.expires_at),
        "life_left_s": life_left(record.expires_at, now),
        "refresh_at": zulu(record.refresh_at),
        "delivered": valid,
    }


def _username(index: Index, login: str | None) -> str | None:
    return None if login is None else "****" if index.login_is_secret else login


def _notice(notice: Notice) -> NoticeStatus:
    return {"reason": notice.reason, "message": notice.message, "hint": notice.hint}


def _sign_in(end: SignInEnd | None, shift: timedelta) -> SignInStatus | None:
    return None if end is None else {"name": end.name, "ends_at": _shifted(end.at, shift), "command": end.command}


def _error(error: LastError | None, shift: timedelta) -> ErrorStatus | None:
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
